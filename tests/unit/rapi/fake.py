# SPDX-License-Identifier: BSD-2-Clause
"""A cluster that is not there: requests go in as the daemon gets them, luxi calls are recorded."""

from __future__ import annotations

import base64
import copy
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import urlencode

import ganeti.http.auth
import ganeti.http.server
from ganeti import constants, http, objects
from ganeti.rapi import connector
from ganeti.server import rapi

from ganeti_ext.policy.loader import load_policy
from ganeti_ext.rapi import handler, permissions
from ganeti_ext.rapi.access import AccessControl
from ganeti_ext.rapi.audit import AuditLog

PASSWORD = "secret"
NODE = "node1.example.com"
INSTANCE = "web1.test.example.com"
JOB = "7"

#: resource class -> a path that leads to it.
PATH_OF: dict[type, str] = {
    resource: path
    for path, resource in connector.GetHandlers(
        NODE,
        INSTANCE,
        "group1",
        "network1",
        JOB,
        "0",
        "filter1",
        "instance",
        translate=lambda *parts: "".join(getattr(part, "content", part) for part in parts),
    ).items()
}

#: All (class, method) pairs that this Ganeti serves.
PAIRS = permissions.walk(connector.CONNECTOR)

CREATION: dict[str, Any] = {
    "__version__": 1,
    "name": INSTANCE,
    "mode": "create",
    "os": "noop",
    "disk_template": "diskless",
    "disks": [],
    "nics": [],
}

NESTED_CREATION = {key: value for key, value in CREATION.items() if key != "__version__"}

#: (class name, method) -> the body of a request that its handler takes, where it needs one.
BODY_OF: dict[tuple[str, str], Any] = {
    ("R_2_cluster_modify", "PUT"): {},
    ("R_2_filters", "POST"): {},
    ("R_2_filters_uuid", "PUT"): {},
    ("R_2_groups", "POST"): {"name": "group2"},
    ("R_2_groups_name_assign_nodes", "PUT"): {"nodes": [NODE]},
    ("R_2_groups_name_rename", "PUT"): {"new_name": "group2"},
    ("R_2_networks_name_rename", "PUT"): {"new_name": "network2"},
    ("R_2_instances", "POST"): CREATION,
    ("R_2_instances_multi_alloc", "POST"): {"instances": [NESTED_CREATION]},
    ("R_2_instances_name_disk_grow", "POST"): {"amount": 1024},
    ("R_2_instances_name_export", "PUT"): {"destination": NODE, "mode": "local"},
    ("R_2_instances_name_modify", "PUT"): {},
    ("R_2_instances_name_rename", "PUT"): {"new_name": "web2.test.example.com"},
    ("R_2_instances_name_replace_disks", "POST"): {"mode": "replace_auto"},
    ("R_2_jobs_id_wait", "GET"): {"fields": ["status"]},
    ("R_2_networks", "POST"): {"name": "network2", "network": "192.0.2.0/24"},
    ("R_2_networks_name_connect", "PUT"): {
        "group_name": "group1",
        "network_mode": "bridged",
        "network_link": "br0",
        "network_vlan": "",
    },
    ("R_2_networks_name_disconnect", "PUT"): {"group_name": "group1"},
    ("R_2_nodes_name_evacuate", "POST"): {"mode": "all"},
    ("R_2_nodes_name_role", "PUT"): "regular",
    ("R_2_query", "PUT"): {"fields": ["name"]},
}

#: The same for the query arguments.
QUERY_OF: dict[tuple[str, str], dict[str, str]] = {
    ("R_2_nodes_name_storage", "GET"): {"storage_type": "lvm-pv", "output_fields": "name"},
    ("R_2_nodes_name_storage_modify", "PUT"): {"storage_type": "lvm-pv", "name": "sda"},
    ("R_2_nodes_name_storage_repair", "PUT"): {"storage_type": "lvm-vg", "name": "xenvg"},
    ("R_2_instances_name_prepare_export", "PUT"): {"mode": "local"},
    ("R_2_query", "GET"): {"fields": "name"},
    ("R_2_instances_name_tags", "PUT"): {"tag": "blue"},
    ("R_2_instances_name_tags", "DELETE"): {"tag": "blue"},
}


#: What a refusal's text ends with.
RECORD_ID = re.compile(r" \(audit record ([0-9a-f]{16})\)")


class Call(NamedTuple):
    """A luxi call: for a submission the opcodes as they would go over the wire."""

    name: str
    arguments: tuple[Any, ...]


@dataclass
class Cluster:
    """What luxid would know, and what it was asked."""

    #: Name -> UUID.
    instances: dict[str, str] = field(default_factory=lambda: {INSTANCE: "uuid-of-web1"})
    #: Job id -> its opcodes, as dictionaries.
    jobs: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)

    def client(self) -> Client:
        """Takes the place of the class `ganeti.luxi.Client`."""
        return Client(self)

    @property
    def submitted(self) -> list[list[dict[str, Any]]]:
        """The opcodes of each job, as dictionaries."""
        return [call.arguments[0] for call in self.calls if call.name == "SubmitJob"]

    def names_of_calls(self) -> list[str]:
        return [call.name for call in self.calls]


class Client:
    """The luxi calls that handlers make (`facts.md`, "RAPI"), with answers that satisfy them."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def _note(self, name: str, *arguments: Any) -> None:
        self._cluster.calls.append(Call(name, copy.deepcopy(arguments)))

    def SubmitJob(self, ops: list[Any]) -> int:
        state = [op.__getstate__() for op in ops]
        self._note("SubmitJob", state)
        job_id = 1000 + len(self._cluster.jobs)
        self._cluster.jobs[job_id] = json.loads(json.dumps(state, default=str))
        return job_id

    def Query(self, what: str, fields: list[str], qfilter: Any) -> Any:
        self._note("Query", what, fields, qfilter)
        found = self._cluster.instances
        if qfilter is not None:
            found = {name: uuid for name, uuid in found.items() if qfilter == ["=", "name", name]}
        rows = [
            [[constants.RS_NORMAL, {"name": name, "uuid": uuid}.get(wanted, "")] for wanted in fields]
            for name, uuid in found.items()
        ]
        return objects.QueryResponse(fields=[], data=rows)

    def QueryFields(self, what: str, fields: Any) -> Any:
        self._note("QueryFields", what, fields)
        return objects.QueryFieldsResponse(fields=[])

    def QueryInstances(self, names: list[str], fields: list[str], use_locking: bool) -> Any:
        self._note("QueryInstances", names, fields, use_locking)
        known: dict[str, Any] = {"beparams": {"maxmem": 128}, "console": {}, "oper_state": True}
        return [
            [known.get(wanted, {"name": name, "uuid": uuid}.get(wanted)) for wanted in fields]
            for name, uuid in self._cluster.instances.items()
            if not names or name in names
        ]

    def QueryNodes(self, names: list[str], fields: list[str], use_locking: bool) -> Any:
        self._note("QueryNodes", names, fields, use_locking)
        return [[{"name": NODE, "role": constants.NR_MASTER}.get(wanted) for wanted in fields]]

    def QueryGroups(self, names: list[str], fields: list[str], use_locking: bool) -> Any:
        self._note("QueryGroups", names, fields, use_locking)
        return [["group1" if wanted == "name" else None for wanted in fields]]

    def QueryNetworks(self, names: list[str], fields: list[str], use_locking: bool) -> Any:
        self._note("QueryNetworks", names, fields, use_locking)
        return [["network1" if wanted == "name" else None for wanted in fields]]

    def QueryJobs(self, job_ids: Any, fields: list[str]) -> Any:
        self._note("QueryJobs", job_ids, fields)
        known = {"status": "success", "opstatus": ["success"], "opresult": [[["noop", [[]]]]]}
        wanted = list(self._cluster.jobs) if job_ids is None else [int(job_id) for job_id in job_ids]
        return [
            [dict(known, id=job_id, ops=self._cluster.jobs[job_id]).get(name) for name in fields]
            if job_id in self._cluster.jobs
            else None
            for job_id in wanted
        ]

    def WaitForJobChangeOnce(
        self, job_id: Any, fields: list[str], prev_job_info: Any, prev_log_serial: Any, timeout: float = 0
    ) -> Any:
        self._note("WaitForJobChangeOnce", job_id, fields, prev_job_info, prev_log_serial)
        return [["success" for _ in fields], []] if int(job_id) in self._cluster.jobs else None

    def CancelJob(self, job_id: Any, kill: bool = False) -> Any:
        self._note("CancelJob", job_id, kill)
        return [True, "cancelled"]

    def QueryTags(self, kind: str, name: str) -> Any:
        self._note("QueryTags", kind, name)
        return ["blue"]

    def QueryClusterInfo(self) -> Any:
        self._note("QueryClusterInfo")
        return {"name": "cluster.example.com", "default_hypervisor": "fake"}

    def QueryFilters(self, uuids: Any, fields: list[str]) -> Any:
        self._note("QueryFilters", uuids, fields)
        return [["filter1" if wanted == "uuid" else None for wanted in fields]]

    def ReplaceFilter(self, uuid: Any, priority: Any, predicates: Any, action: Any, reason: Any) -> Any:
        self._note("ReplaceFilter", uuid, priority, predicates, action, reason)
        return "filter1"

    def DeleteFilter(self, uuid: Any) -> Any:
        self._note("DeleteFilter", uuid)


class Answer(NamedTuple):
    """What the client gets; `calls` are those that its request made."""

    status: int
    body: Any
    calls: list[Call]

    @property
    def message(self) -> str:
        """The text of an error, without the id of its audit record."""
        return RECORD_ID.sub("", str(self.body["message"]))


class Socket:
    """A connection whose other side is still there."""

    def getpeername(self) -> tuple[str, int]:
        return "192.0.2.9", 40000

    def recv(self, size: int) -> bytes:
        return b""


class Trail(AuditLog):
    """An audit trail in memory: what each line says."""

    def __init__(self) -> None:
        super().__init__("/nonexistent/rapi-audit.log", clock=lambda: 1796000000.5)
        self.records: list[dict[str, Any]] = []

    def _append(self, line: bytes) -> None:
        self.records.append(json.loads(line))


class Server:
    """A remote API daemon without a network: one handler, its users and its policy.

    `users` is the users file without its passwords: lines of a name and options. `cls` is
    our handler, a middleware's, or Ganeti's own.
    """

    def __init__(
        self,
        users: str = "",
        policy: str | None = None,
        cluster: Cluster | None = None,
        cls: type = handler.RemoteApiHandler,
        reqauth: bool = False,
        trail: Trail | None = None,
    ) -> None:
        self.cluster = cluster or Cluster()
        self.cluster.jobs.setdefault(int(JOB), [{"OP_ID": "OP_TEST_DUMMY", "reason": []}])
        self.access = AccessControl("/nonexistent/policy", "/nonexistent/copy")
        if policy is not None:
            self.access._take(load_policy(policy.encode(), "policy"))
        self.users = parse_users(users)
        # Made here, so that servers in one test do not share their access control.
        self.trail = trail or Trail()
        cls = type(cls.__name__, (cls,), {"access": self.access, "audit": self.trail})
        if issubclass(cls, handler.RemoteApiHandler):
            self.access.resolve_users(self.users)
        self.handler = cls(self.users.get, reqauth, _client_cls=self.cluster.client)

    def ask(
        self,
        method: str,
        path: str,
        user: str | None = None,
        body: Any = None,
        *,
        password: str = PASSWORD,
        headers: Mapping[str, str] | None = None,
        raw: str | bytes | None = None,
    ) -> Answer:
        """One request, through everything but the socket; `raw` is a body that is no JSON."""
        message = http.HttpMessage()
        message.start_line = http.HttpClientToServerStartLine(method, path, http.HTTP_1_0)
        message.headers = {"User-Agent": "test"}
        if user is not None:
            credentials = base64.b64encode(f"{user}:{password}".encode()).decode()
            message.headers[http.HTTP_AUTHORIZATION] = f"Basic {credentials}"
        message.body = raw if body is None else json.dumps(body)
        if message.body:
            message.headers[http.HTTP_CONTENT_TYPE] = http.HTTP_APP_JSON
        message.headers.update(headers or {})
        reader = type("Reader", (), {"sock": Socket()})
        before = len(self.cluster.calls)
        responder = ganeti.http.server.HttpResponder(self.handler)
        _, _, _, response = responder(lambda: (message, reader))
        answer = json.loads(response.body) if response.body else None
        return Answer(response.start_line.code, answer, self.cluster.calls[before:])

    def ask_pair(self, pair: tuple[type, str], user: str | None = None, **options: Any) -> Answer:
        """A request that an account with `write` is answered, to one (class, method) pair."""
        resource, method = pair
        key = (resource.__name__, method)
        path = PATH_OF[resource]
        if key in QUERY_OF:
            path += "?" + urlencode(QUERY_OF[key])
        options.setdefault("body", BODY_OF.get(key))
        return self.ask(method, path, user, **options)


def parse_users(lines: str) -> Any:
    """The users of a file whose lines lack the password, parsed by Ganeti."""
    text = ""
    for line in lines.strip().splitlines():
        name, _, options = line.strip().partition(" ")
        text += f"{name} {PASSWORD} {options}\n"
    return ganeti.http.auth.ParsePasswordFile(text)


def pair_named(name: str, method: str) -> tuple[type, str]:
    """A (class, method) pair by the name of its class."""
    (found,) = (pair for pair in PAIRS if pair[0].__name__ == name and pair[1] == method)
    return found


def without_times(value: Any) -> Any:
    """The same value with the times of reason trails taken out, for comparisons."""
    if isinstance(value, dict):
        return {
            key: [list(entry[:2]) for entry in part] if key == "reason" and part else without_times(part)
            for key, part in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [without_times(part) for part in value]
    return value


@contextmanager
def unchanged_access_lists() -> Iterator[None]:
    """Puts the access lists of all resources back as they were."""
    names = [f"{method}_ACCESS" for method in permissions.METHODS]
    classes = [cls for resource in connector.CONNECTOR.values() for cls in resource.__mro__[:-1]]
    before = [
        (cls, name, cls.__dict__.get(name), list(cls.__dict__.get(name) or ()))
        for cls in dict.fromkeys(classes)
        for name in names
    ]
    try:
        yield
    finally:
        for cls, name, access, words in before:
            if access is not None:
                access[:] = words
                setattr(cls, name, access)
            elif name in cls.__dict__:
                delattr(cls, name)


#: What Ganeti serves with, without any of us.
STOCK = rapi.RemoteApiHandler
