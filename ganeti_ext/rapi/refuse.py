# SPDX-License-Identifier: BSD-2-Clause
"""The handler of a daemon that could not load its checks: it refuses."""

from __future__ import annotations

import logging
from typing import Any

from ganeti import http
from ganeti.server import rapi


def refusing_handler(reason: str) -> type:
    """A request handler that answers all but `/version` with 503 and the reason.

    The daemon must run all the same: daemon-util would not start luxid on a new master after
    a RAPI that exits (`threats.md`, "The daemon").
    """

    class RefusingHandler(rapi.RemoteApiHandler):  # type: ignore[misc]
        """Overrides both steps of a request; the second would be enough."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            logging.error("Every request is refused: %s", reason)
            super().__init__(*args, **kwargs)

        def PreHandleRequest(self, req: Any) -> None:
            """Runs before the password is looked at."""
            if req.request_path.split("?", 1)[0] != "/version":
                raise http.HttpServiceUnavailable(message=f"ganeti-ext refuses requests: {reason}")
            super().PreHandleRequest(req)

        def HandleRequest(self, req: Any) -> Any:
            """Runs the handler."""
            RefusingHandler.PreHandleRequest(self, req)
            return super().HandleRequest(req)

    return RefusingHandler
