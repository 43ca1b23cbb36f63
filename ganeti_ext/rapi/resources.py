# SPDX-License-Identifier: BSD-2-Clause
"""The one resource that Ganeti's remote API lacks: restricted commands."""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from typing import Any

from ganeti import http, opcodes, rapi
from ganeti.rapi import baserlib

#: What `/2/features` calls it.
FEATURE = "ext-restricted-command"

#: With Ganeti's own pattern of a name (`rapi/connector.py`).
_PATH = re.compile(r"^/2/nodes/([\w\._-]+)/restricted-command\Z")


class R_2_nodes_name_restricted_command(baserlib.OpcodeResource):  # type: ignore[misc]
    """/2/nodes/[node_name]/restricted-command resource."""

    #: A list of its own: the one of the base class is that of most other resources.
    POST_ACCESS = [rapi.RAPI_ACCESS_WRITE]
    POST_OPCODE = opcodes.OpRestrictedCommand

    def GetPostOpInput(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The opcode's parameters: the command from the body, which holds nothing else.

        Raises HttpBadRequest.
        """
        body = self.request_body
        if not isinstance(body, dict) or list(body) != ["command"] or not isinstance(body["command"], str):
            raise http.HttpBadRequest(message='The body must be {"command": NAME}')
        return body, {"nodes": [self.items[0]]}


def offer(connections: MutableMapping[Any, type], wanted: bool) -> None:
    """Puts the resource into Ganeti's connection map, or takes it out."""
    if wanted:
        connections[_PATH] = R_2_nodes_name_restricted_command
    else:
        connections.pop(_PATH, None)
