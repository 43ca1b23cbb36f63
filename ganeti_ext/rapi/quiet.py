# SPDX-License-Identifier: BSD-2-Clause
"""Keeps passwords and secret parameters out of what Ganeti itself writes into the daemon's log."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any


def short_repr(stock: Callable[[Any], str], active: Callable[[], bool]) -> Callable[[Any], str]:
    """In the place of `repr()` of a request, which is logged by `ganeti-rapi -d`.

    Ganeti's shows the headers, in them the password, and the body. Ganeti's it stays as long
    as `active()` is false.
    """

    def shown(self: Any) -> str:
        if not active():
            return stock(self)
        path = self.request_path.split("?", 1)[0]
        body = self.request_body or ""
        size = len(body) if isinstance(body, str) else "unread"
        return f"<request {self.request_method} {path}, body of {size} bytes>"

    return shown


class QuietLogging:
    """In the place of the module `logging` in `ganeti.opcodes_base`.

    There an opcode's parameter that has a wrong type is logged with its value, as an error,
    `osparams` as any other.
    """

    def __init__(self, active: Callable[[], bool]) -> None:
        self._active = active

    def __getattr__(self, name: str) -> Any:
        return getattr(logging, name)

    def error(self, message: str, *values: Any) -> None:
        """As `logging.error`, of whose values only the first two, opcode and name, are logged."""
        if not self._active():
            logging.error(message, *values)
        else:
            logging.error("OpCode %s, parameter %s is not right; its value is not logged", *values[:2])
