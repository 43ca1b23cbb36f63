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
from ganeti import constants, errors, http, objects, query
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
class Thing:
    """An object of the cluster's configuration; which of the fields matter depends on its kind.

    `group` is a node's, `groups` are a network's. Memory and disks are in MiB.
    """

    name: str
    uuid: str = ""
    tags: tuple[str, ...] = ()
    group: str = "group1"
    groups: tuple[str, ...] = ()
    nodes: tuple[str, ...] = (NODE,)
    networks: tuple[str, ...] = ()
    disks: tuple[int, ...] = ()
    vcpus: int = 1
    memory: int = 128
    #: Further fields of a query.
    more: dict[str, Any] = field(default_factory=dict)


KINDS = {
    constants.QR_INSTANCE: "instance",
    constants.QR_NODE: "node",
    constants.QR_GROUP: "group",
    constants.QR_NETWORK: "network",
}

#: A value of a query that is not there.
NO_DATA: tuple[int, Any] = (constants.RS_NODATA, None)

BEPARAMS = {
    "maxmem": 128,
    "minmem": 128,
    "vcpus": 1,
    "auto_balance": True,
    "always_failover": False,
    "spindle_use": 1,
}


class Cluster:
    """What luxid would know, and what it was asked.

    `instances` maps names to UUIDs, for tests to which nothing else of them matters.
    """

    def __init__(self, instances: Mapping[str, str] | None = None) -> None:
        self.things: dict[str, dict[str, Thing]] = {kind: {} for kind in KINDS.values()}
        self.add("group", "group1")
        self.add("node", NODE)
        self.add("network", "network1", groups=("group1",))
        for name, uuid in ({INSTANCE: "uuid-of-web1"} if instances is None else instances).items():
            self.add("instance", name, uuid=uuid)
        #: Job id -> its opcodes, as dictionaries.
        self.jobs: dict[int, list[dict[str, Any]]] = {}
        #: Job id -> its status, if it has not ended well.
        self.status: dict[int, str] = {}
        #: Job id -> what else is known of it.
        self.said: dict[int, dict[str, Any]] = {}
        self.info: dict[str, Any] = {
            "name": "cluster.example.com",
            "uuid": "uuid-of-cluster",
            "default_hypervisor": "fake",
            "enabled_disk_templates": ["diskless", "file"],
            "beparams": {"default": dict(BEPARAMS)},
            "master": NODE,
            "candidate_certs": {"secret": "certificate"},
        }
        self.calls: list[Call] = []

    def add(self, kind: str, name: str, **settings: Any) -> Thing:
        """Puts an object there; see Thing."""
        settings.setdefault("uuid", f"uuid-of-{name}")
        self.things[kind][name] = Thing(name, **settings)
        return self.things[kind][name]

    def client(self) -> Client:
        """Takes the place of the class `ganeti.luxi.Client`."""
        return Client(self)

    @property
    def submitted(self) -> list[list[dict[str, Any]]]:
        """The opcodes of each job, as dictionaries."""
        return [call.arguments[0] for call in self.calls if call.name == "SubmitJob"]

    def names_of_calls(self) -> list[str]:
        return [call.name for call in self.calls]

    def values(self, kind: str, thing: Thing) -> dict[str, Any]:
        """What is known of an object, by the names of luxid's fields."""
        instances = self.things["instance"].values()
        found: dict[str, Any] = {"name": thing.name, "uuid": thing.uuid, "tags": list(thing.tags), "serial_no": 1}
        if kind == "instance":
            groups = [self.things["node"][node].group for node in thing.nodes if node in self.things["node"]]
            found.update(
                {
                    "pnode": thing.nodes[0] if thing.nodes else "",
                    "snodes": list(thing.nodes[1:]),
                    "pnode.group": groups[0] if groups else NO_DATA,
                    "snodes.group": groups[1:],
                    "disk.sizes": list(thing.disks),
                    "be/vcpus": thing.vcpus,
                    "be/maxmem": thing.memory,
                    "beparams": {"maxmem": thing.memory, "vcpus": thing.vcpus},
                    "nic.networks.names": list(thing.networks),
                    "disk_template": "drbd" if thing.nodes[1:] else "diskless",
                    "admin_state": "up",
                    "oper_state": True,
                    "console": {"host": NODE, "port": 11000},
                }
            )
        elif kind == "node":
            found["group"] = thing.group
            found["role"] = constants.NR_MASTER
            found["offline"] = False
            found["pinst_list"] = [one.name for one in instances if one.nodes[:1] == (thing.name,)]
            found["sinst_list"] = [one.name for one in instances if thing.name in one.nodes[1:]]
            found["mfree"] = NO_DATA
        elif kind == "group":
            nodes = [one.name for one in self.things["node"].values() if one.group == thing.name]
            found["node_list"] = nodes
            found["pinst_list"] = [one.name for one in instances if one.nodes and one.nodes[0] in nodes]
        else:
            found["inst_list"] = [one.name for one in instances if thing.name in one.networks]
            found["group_list"] = [[group, "bridged", "br0", ""] for group in thing.groups]
            found["map"] = "XX..XX"
            found["free_count"] = 2
        for name in ("pinst", "sinst", "node", "inst", "group"):
            if f"{name}_list" in found:
                found[f"{name}_cnt"] = len(found[f"{name}_list"])
        return {**found, **thing.more}


class Rows:
    """The answers of luxid to queries of one kind, with its ways to find names and to filter."""

    def __init__(self, cluster: Cluster, kind: str, known: Mapping[str, Any]) -> None:
        self._cluster = cluster
        self._kind = kind
        self._known = known

    def cell(self, thing: Thing, name: str) -> tuple[int, Any]:
        """The status and value of a field."""
        value = self._cluster.values(self._kind, thing).get(name, NO_DATA)
        if name not in self._known:
            return (constants.RS_UNKNOWN, None)
        return value if isinstance(value, tuple) else (constants.RS_NORMAL, copy.deepcopy(value))

    def named(self, names: list[str]) -> list[Thing]:
        """The objects of some names, which may be short ones or UUIDs; all without any name."""
        things = self._cluster.things[self._kind]
        return [self._named(name) for name in names] if names else list(things.values())

    def _named(self, name: str) -> Thing:
        things = self._cluster.things[self._kind]
        if not name.isascii():
            raise errors.GenericError("luxid runs in the C locale")
        found = [thing for thing in things.values() if name in (thing.name, thing.uuid)]
        if not found and self._kind in ("instance", "node"):
            found = [thing for thing in things.values() if thing.name.startswith(name + ".")]
        if not found:
            raise errors.OpPrereqError(f"{self._kind} '{name}' not known", errors.ECODE_NOENT)
        return found[0]

    def matching(self, qfilter: Any) -> list[Thing]:
        """The objects that a filter lets through."""
        things = self.named(_requested(qfilter))
        return things if qfilter is None else [thing for thing in things if self._lets(thing, qfilter)]

    def _lets(self, thing: Thing, qfilter: Any) -> bool:
        operator, *operands = qfilter
        if operator == "&":
            return all(self._lets(thing, one) for one in operands)
        if operator == "|":
            return any(self._lets(thing, one) for one in operands)
        if operator == "!":
            return not self._lets(thing, operands[0])
        name = operands[0]
        if name not in self._known:
            raise errors.OpPrereqError(f"Unknown field '{name}'", errors.ECODE_INVAL)
        status, value = self.cell(thing, name)
        if status != constants.RS_NORMAL:
            return True  # what is not there is whatever it is compared with (`threats.md`)
        if operator == "?":
            if not isinstance(value, bool):
                raise errors.ParameterError(f"Unexpected value '{value}' in boolean context")
            return value
        wanted = operands[1]
        if operator == "=[]":
            if not isinstance(value, list):
                raise errors.OpPrereqError(f"not a list: {value!r}", errors.ECODE_INVAL)
            return wanted in value
        if isinstance(value, (list, dict)) or isinstance(value, str) != isinstance(wanted, str):
            raise errors.OpPrereqError(f"cannot compare {value!r} with {wanted!r}", errors.ECODE_INVAL)
        if operator == "=~":
            return re.search(wanted.replace(r"\z", r"\Z"), value) is not None
        same = value == wanted
        if name == "name" and self._kind in ("instance", "node"):
            same = same or value.startswith(wanted + ".")
        return bool(
            {
                "=": same,
                "==": same,
                "!=": not same,
                "<": value < wanted,
                ">": value > wanted,
                "<=": value <= wanted,
                ">=": value >= wanted,
            }[operator]
        )


def _requested(qfilter: Any) -> list[str]:
    """The names that a filter asks for, if it is about nothing else: luxid looks those up."""
    if qfilter is None:
        return []
    if qfilter[0] in ("=", "==") and qfilter[1] == "name" and isinstance(qfilter[2], str):
        return [qfilter[2]]
    if qfilter[0] == "|" and len(qfilter) > 1 and all(_requested(one) for one in qfilter[1:]):
        return [name for one in qfilter[1:] for name in _requested(one)]
    return []


class Client:
    """The luxi calls that handlers make (`facts.md`, "RAPI"), with answers that satisfy them."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def _note(self, name: str, *arguments: Any) -> None:
        self._cluster.calls.append(Call(name, copy.deepcopy(arguments)))

    def _rows(self, kind: str) -> Rows:
        resource = next(resource for resource, one in KINDS.items() if one == kind)
        return Rows(self._cluster, kind, query.ALL_FIELDS[resource])

    def SubmitJob(self, ops: list[Any]) -> int:
        state = [op.__getstate__() for op in ops]
        self._note("SubmitJob", state)
        job_id = 1000 + len(self._cluster.jobs)
        self._cluster.jobs[job_id] = json.loads(json.dumps(state, default=str))
        return job_id

    def Query(self, what: str, fields: list[str], qfilter: Any) -> Any:
        self._note("Query", what, fields, qfilter)
        if what == constants.QR_JOB:
            data = [[[constants.RS_NORMAL, value] for value in row] for row in self._jobs(None, fields, qfilter)]
        elif what in KINDS:
            rows = self._rows(KINDS[what])
            data = [[list(rows.cell(thing, name)) for name in fields] for thing in rows.matching(qfilter)]
        else:
            data = [[[constants.RS_NORMAL, f"a {what}"] for _ in fields]]
        return objects.QueryResponse(fields=_definitions(what, fields), data=data)

    def QueryFields(self, what: str, fields: Any) -> Any:
        self._note("QueryFields", what, fields)
        return objects.QueryFieldsResponse(fields=_definitions(what, fields or ["name"]))

    def _classic(self, kind: str, names: list[str], fields: list[str], use_locking: bool) -> Any:
        self._note({"instance": "QueryInstances"}.get(kind, f"Query{kind.title()}s"), names, fields, use_locking)
        rows = self._rows(kind)
        return [[rows.cell(thing, name)[1] for name in fields] for thing in rows.named(names)]

    def QueryInstances(self, names: list[str], fields: list[str], use_locking: bool) -> Any:
        return self._classic("instance", names, fields, use_locking)

    def QueryNodes(self, names: list[str], fields: list[str], use_locking: bool) -> Any:
        return self._classic("node", names, fields, use_locking)

    def QueryGroups(self, names: list[str], fields: list[str], use_locking: bool) -> Any:
        return self._classic("group", names, fields, use_locking)

    def QueryNetworks(self, names: list[str], fields: list[str], use_locking: bool) -> Any:
        return self._classic("network", names, fields, use_locking)

    def _jobs(self, job_ids: Any, fields: list[str], qfilter: Any = None) -> list[Any]:
        wanted = list(self._cluster.jobs) if job_ids is None else [int(job_id) for job_id in job_ids]
        found: list[Any] = []
        for job_id in wanted:
            if job_id not in self._cluster.jobs:
                found.append(None)
                continue
            known = {
                "id": job_id,
                "ops": self._cluster.jobs[job_id],
                "status": self._cluster.status.get(job_id, "success"),
                "opstatus": ["success"],
                "opresult": [[["noop", [[]]]]],
                "oplog": [[]],
                "summary": ["X"],
                **self._cluster.said.get(job_id, {}),
            }
            if qfilter is None or _lets_job(known, qfilter):
                found.append([copy.deepcopy(known.get(name)) for name in fields])
        return found

    def QueryJobs(self, job_ids: Any, fields: list[str]) -> Any:
        self._note("QueryJobs", job_ids, fields)
        return self._jobs(job_ids, fields)

    def WaitForJobChangeOnce(
        self, job_id: Any, fields: list[str], prev_job_info: Any, prev_log_serial: Any, timeout: float = 0
    ) -> Any:
        self._note("WaitForJobChangeOnce", job_id, fields, prev_job_info, prev_log_serial)
        (row,) = self._jobs([job_id], fields)
        log = self._cluster.said.get(int(job_id), {}).get("oplog", [[]])[0]
        return None if row is None else [row, copy.deepcopy(log)]

    def CancelJob(self, job_id: Any, kill: bool = False) -> Any:
        self._note("CancelJob", job_id, kill)
        return [True, "cancelled"]

    def QueryTags(self, kind: str, name: str) -> Any:
        self._note("QueryTags", kind, name)
        if kind == constants.TAG_CLUSTER:
            return ["blue"]
        kind = {constants.TAG_NODEGROUP: "group"}.get(kind, kind)
        return list(self._rows(kind).named([name])[0].tags)

    def QueryClusterInfo(self) -> Any:
        self._note("QueryClusterInfo")
        return copy.deepcopy(self._cluster.info)

    def QueryFilters(self, uuids: Any, fields: list[str]) -> Any:
        self._note("QueryFilters", uuids, fields)
        return [["filter1" if wanted == "uuid" else None for wanted in fields]]

    def ReplaceFilter(self, uuid: Any, priority: Any, predicates: Any, action: Any, reason: Any) -> Any:
        self._note("ReplaceFilter", uuid, priority, predicates, action, reason)
        return "filter1"

    def DeleteFilter(self, uuid: Any) -> Any:
        self._note("DeleteFilter", uuid)


def _lets_job(known: Mapping[str, Any], qfilter: Any) -> bool:
    operator, *operands = qfilter
    if operator in ("&", "|"):
        return (all if operator == "&" else any)(_lets_job(known, one) for one in operands)
    if operator != "=":
        raise errors.OpPrereqError(f"secret of {known['id']}", errors.ECODE_INVAL)
    return bool(known[operands[0]] == operands[1])


def _definitions(what: str, fields: list[str]) -> list[Any]:
    known = query.ALL_FIELDS.get(what, {})
    unknown = {"title": "X", "kind": constants.QFT_UNKNOWN, "doc": "X"}
    return [
        objects.QueryFieldDefinition.FromDict(
            {**(known[name][0].ToDict() if name in known else unknown), "name": name},
        )
        for name in fields
    ]


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

    def __init__(self, address: str = "192.0.2.99") -> None:
        self.address = address

    def getpeername(self) -> tuple[str, int]:
        return self.address, 40000

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
        find: Any = self.users.get
        if issubclass(cls, handler.RemoteApiHandler):
            self.access.resolve_users(self.users)
            find = self.access.user
        self.handler = cls(find, reqauth, _client_cls=self.cluster.client)

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
