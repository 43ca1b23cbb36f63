# SPDX-License-Identifier: BSD-2-Clause
"""One request to the remote API, as the access control sees it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ganeti import http, serializer

from ganeti_ext.policy.accounts import Account
from ganeti_ext.rapi.permissions import permission_of

#: Requests whose body must be there; Ganeti answers 500 if it is not.
_BODY_REQUIRED = {
    ("R_2_cluster_modify", "PUT"),
    ("R_2_instances", "POST"),
    ("R_2_instances_multi_alloc", "POST"),
    ("R_2_instances_name_modify", "PUT"),
    ("R_2_instances_name_rename", "PUT"),
    ("R_2_jobs_id_wait", "GET"),
    ("R_2_nodes_name_restricted_command", "POST"),
}

#: Both spellings of an instance's name in the body of a creation: Ganeti renames the first
#: to the second.
_NAME_KEYS = ("name", "instance_name")

#: Start of a resource's class name -> kind of the object that its path names.
_KINDS = {
    "R_2_instances_name": "instance",
    "R_2_nodes_name": "node",
    "R_2_groups_name": "group",
    "R_2_networks_name": "network",
    "R_2_jobs_id": "job",
    "R_2_filters_uuid": "filter",
}


class Request:
    """What a request asks for: who, which endpoint, which objects.

    `user` is the user of Ganeti's users file (`name`, `options`: his tokens), `resource` the
    rlib2 class, `method` upper case, `permission` None for an endpoint that is not known.
    """

    def __init__(self, req: Any, context: Any, user: Any, account: Account | None) -> None:
        self.req = req
        self._context = context
        self.user = user
        #: What is granted to the user; None if nothing of ours is about him.
        self.account = account
        self.resource: type = type(context.handler)
        self.method: str = req.request_method.upper()
        self.path: str = req.request_path.split("?", 1)[0]
        self.items: tuple[str, ...] = tuple(context.handler.items)
        self.query: dict[str, list[str]] = context.handler.queryargs
        self.permission = permission_of(self.resource, self.method)

    @functools.cached_property
    def body(self) -> Any:
        """The body, read by the function and under the conditions that Ganeti will read it.

        Raises HttpUnsupportedMediaType, or HttpBadRequest for what is no JSON.
        """
        if not self.req.request_body:
            return None
        content_type = self.req.request_headers.get(http.HTTP_CONTENT_TYPE, http.HTTP_APP_OCTET_STREAM)
        if content_type.lower() != http.HTTP_APP_JSON.lower():
            raise http.HttpUnsupportedMediaType()
        try:
            return serializer.LoadJson(self.req.request_body)
        except Exception as err:
            # JSON nested too deeply is a RecursionError: whatever it is, it is no request.
            raise http.HttpBadRequest(message="Unable to parse JSON data") from err

    def use_client(self, wrap: Callable[[Any], Any]) -> None:
        """Makes the handler of this one request use `wrap` of the client class it has."""
        self._context.handler._client_cls = wrap(self._context.handler._client_cls)
        self._context.narrowed = True

    def check_body(self) -> None:
        """Refuses a body that Ganeti's handlers would stumble over.

        Raises HttpUnsupportedMediaType or HttpBadRequest.
        """
        name = self.resource.__name__
        if name == "R_2_nodes_name_role" or name.endswith("tags"):
            return  # a text, at which its handler looks; and the client library's list, at which nobody does
        if self.body is None and (name, self.method) not in _BODY_REQUIRED:
            return
        _dict(self.body)

    @functools.cached_property
    def objects(self) -> tuple[tuple[str, str], ...]:
        """The (kind, name) of each object that the path and the body name.

        Raises HttpBadRequest for a body in which a name is missing or is none.
        """
        name = self.resource.__name__
        found = [(kind, self.items[0]) for start, kind in _KINDS.items() if name.startswith(start)]
        if name == "R_2_tags":
            found.append(("cluster", ""))
        elif (name, self.method) == ("R_2_instances", "POST"):
            found += self._instances_in(self.body)
        elif (name, self.method) == ("R_2_instances_multi_alloc", "POST"):
            entries = _dict(self.body).get("instances")
            if not isinstance(entries, list):
                raise http.HttpBadRequest(message="Parameter 'instances' must be a list")
            for entry in entries:
                found += self._instances_in(entry)
        elif (name, self.method) == ("R_2_instances_name_rename", "PUT"):
            found.append(("instance", _text(_dict(self.body), "new_name")))
        return tuple(found)

    @property
    def instance_names(self) -> tuple[str, ...]:
        """The names of all instances that the path and the body name."""
        return tuple(name for kind, name in self.objects if kind == "instance")

    @staticmethod
    def _instances_in(body: Any) -> list[tuple[str, str]]:
        named = [key for key in _NAME_KEYS if key in _dict(body)]
        return [("instance", _text(body, key)) for key in named or _NAME_KEYS[:1]]


def _dict(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise http.HttpBadRequest(message="The body must be a JSON object")
    return value


def _text(body: dict[str, Any], key: str) -> str:
    value = body.get(key)
    if not isinstance(value, str):
        raise http.HttpBadRequest(message=f"Parameter '{key}' must be a text")
    return value
