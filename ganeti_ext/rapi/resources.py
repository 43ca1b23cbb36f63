# SPDX-License-Identifier: BSD-2-Clause
"""The resources that Ganeti's remote API lacks: restricted commands, and a user's own view."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ganeti import http, opcodes, rapi
from ganeti.rapi import baserlib, connector

from ganeti_ext import compat
from ganeti_ext.policy.vocabulary import RESTRICTED_COMMAND

#: What `/2/features` calls it.
FEATURE = "ext-restricted-command"

#: With Ganeti's own pattern of a name (`rapi/connector.py`).
_PATH = re.compile(r"^/2/nodes/([\w\._-]+)/restricted-command\Z")


class R_2_nodes_name_restricted_command(baserlib.OpcodeResource):  # type: ignore[misc]
    """/2/nodes/[node_name]/restricted-command resource."""

    #: A list of its own: the one of the base class is that of most other resources.
    POST_ACCESS: Any = RESTRICTED_COMMAND if compat.has_permissions() else [rapi.RAPI_ACCESS_WRITE]
    POST_OPCODE = opcodes.OpRestrictedCommand

    def GetPostOpInput(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The opcode's parameters: the command from the body, which holds nothing else.

        Raises HttpBadRequest.
        """
        body = self.request_body
        if not isinstance(body, dict) or list(body) != ["command"] or not isinstance(body["command"], str):
            raise http.HttpBadRequest(message='The body must be {"command": NAME}')
        return body, {"nodes": [self.items[0]]}


#: Without arguments.
_WHOAMI = "/2/ext/whoami"


class R_2_ext_whoami(baserlib.ResourceBase):  # type: ignore[misc]
    """/2/ext/whoami resource."""

    #: Whoever has shown a right password; the handler sees to it that he has.
    GET_ACCESS: Any = None if compat.has_permissions() else []

    #: What he is told; the handler knows him.
    view: Mapping[str, Any] = {}

    def GET(self) -> Mapping[str, Any]:
        """The caller's own roles, permissions and scopes."""
        return self.view


def served(connections: Mapping[Any, type], whoami: bool, restricted: bool) -> dict[Any, type]:
    """Ganeti's connection map with those of our resources that are wanted: another one, for others read this."""
    wanted: dict[Any, type] = {_WHOAMI: R_2_ext_whoami} if whoami else {}
    if restricted:
        wanted[_PATH] = R_2_nodes_name_restricted_command
    return {**connections, **wanted}


def mappers(connections: Mapping[Any, type]) -> dict[tuple[bool, bool], Any]:
    """What finds a resource by its path, for each (whoami, restricted) that `served` takes.

    To be made once, by the daemon: a child that copied the map would copy every page with something that stands in it.
    """
    choices = [(whoami, restricted) for whoami in (False, True) for restricted in (False, True)]
    return {choice: connector.Mapper(served(connections, *choice)) for choice in choices}
