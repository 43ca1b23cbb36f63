# SPDX-License-Identifier: BSD-2-Clause
"""Every account on every endpoint: what is granted is open, and nothing else is."""

from __future__ import annotations

import fnmatch
import json
import os
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from tests.cluster.test_unconfigured import endpoints, unconfigure
from tests.cluster.vcluster import Cluster

OWN, FOREIGN = "web1.test.example.com", "db1.prod.example.com"

#: What Ganeti answers to whoever may submit a job while the job queue is drained.
DRAINED = 500

#: A parameter that no opcode has: past the access control the answer is 400, and no job is made.
UNKNOWN = {"no_such_parameter": 1}


@dataclass(frozen=True)
class Row:
    """One endpoint: who Ganeti lets in, which permission is needed, and a request without effect.

    `access` is that of Ganeti's own lists. `answer` is the status for whoever is let through.
    """

    method: str
    path: str
    access: str  # "any", "read" (and write), "write"
    permission: str
    answer: int = 400
    body: Any = None

    @property
    def kind(self) -> str:
        """The kind of object that the path names; "" for none."""
        for kind in ("instance", "node", "group", "network", "job", "filter"):
            if "{" + kind + "}" in self.path:
                return kind
        if self.path.startswith("/2/tags"):
            return "cluster"
        return "new" if self.path.startswith("/2/instances") and self.method == "POST" else ""


ROWS = [
    Row("GET", "/", "any", "", 200),
    Row("GET", "/2", "any", "", 200),
    Row("GET", "/version", "any", "", 200),
    Row("GET", "/2/features", "any", "", 200),
    Row("GET", "/2/info", "any", "cluster.info", 200),
    Row("GET", "/2/os", "any", "os.list", DRAINED),
    Row("PUT", "/2/modify", "write", "cluster.modify", body=UNKNOWN),
    Row("PUT", "/2/redistribute-config", "write", "cluster.redistribute_config", body=UNKNOWN),
    Row("GET", "/2/tags", "any", "tags.get", 200),
    Row("PUT", "/2/tags?tag=x&dry-run=x", "write", "tags.set"),
    Row("DELETE", "/2/tags?tag=x&dry-run=x", "write", "tags.delete"),
    Row("GET", "/2/query/{query}?fields=name", "read", "query.all", 200),
    Row("PUT", "/2/query/{query}", "read", "query.all", 200, {"fields": ["name"]}),
    Row("GET", "/2/query/{query}/fields", "any", "query.all", 200),
    Row("GET", "/2/filters", "any", "filter.list", 200),
    Row("POST", "/2/filters", "write", "filter.create", body=UNKNOWN),
    Row("GET", "/2/filters/{filter}", "any", "filter.query", 200),
    Row("PUT", "/2/filters/{filter}", "write", "filter.modify", body=UNKNOWN),
    Row("DELETE", "/2/filters/{filter}", "write", "filter.remove", 500),  # Ganeti's answer, there is none
    Row("GET", "/2/jobs", "any", "jobs.list", 200),
    Row("GET", "/2/jobs/{job}", "any", "jobs.query", 200),
    Row("DELETE", "/2/jobs/{job}", "write", "jobs.cancel", 200),
    Row("GET", "/2/jobs/{job}/wait", "write", "jobs.wait", 200, {"fields": ["status"]}),
    Row("GET", "/2/nodes", "any", "nodes.list", 200),
    Row("GET", "/2/nodes/{node}", "any", "nodes.query", 200),
    Row("POST", "/2/nodes/{node}/powercycle", "write", "nodes.powercycle", body=UNKNOWN),
    Row("GET", "/2/nodes/{node}/tags", "any", "tags.get", 200),
    Row("PUT", "/2/nodes/{node}/tags?tag=x&dry-run=x", "write", "tags.set"),
    Row("DELETE", "/2/nodes/{node}/tags?tag=x&dry-run=x", "write", "tags.delete"),
    Row("GET", "/2/nodes/{node}/role", "any", "nodes.role.query", 200),
    Row("PUT", "/2/nodes/{node}/role", "write", "nodes.role.modify", body="no such role"),
    Row("POST", "/2/nodes/{node}/evacuate", "write", "nodes.evacuate", body=UNKNOWN),
    Row("POST", "/2/nodes/{node}/migrate", "write", "nodes.migrate", body=UNKNOWN),
    Row("POST", "/2/nodes/{node}/modify", "write", "nodes.modify", body=UNKNOWN),
    Row("GET", "/2/nodes/{node}/storage", "write", "nodes.storage.query", 400),
    Row("PUT", "/2/nodes/{node}/storage/modify", "write", "nodes.storage.modify"),
    Row("PUT", "/2/nodes/{node}/storage/repair", "write", "nodes.storage.repair"),
    Row("GET", "/2/groups", "any", "groups.list", 200),
    Row("POST", "/2/groups", "write", "groups.create", body=UNKNOWN),
    Row("GET", "/2/groups/{group}", "any", "groups.query", 200),
    Row("DELETE", "/2/groups/{group}?dry-run=x", "write", "groups.delete"),
    Row("PUT", "/2/groups/{group}/modify", "write", "groups.modify", body=UNKNOWN),
    Row("PUT", "/2/groups/{group}/rename", "write", "groups.rename", body=UNKNOWN),
    Row("PUT", "/2/groups/{group}/assign-nodes", "write", "groups.assign_nodes", body=UNKNOWN),
    Row("GET", "/2/groups/{group}/tags", "any", "tags.get", 200),
    Row("PUT", "/2/groups/{group}/tags?tag=x&dry-run=x", "write", "tags.set"),
    Row("DELETE", "/2/groups/{group}/tags?tag=x&dry-run=x", "write", "tags.delete"),
    Row("GET", "/2/networks", "any", "networks.list", 200),
    Row("POST", "/2/networks", "write", "networks.create", body=UNKNOWN),
    Row("GET", "/2/networks/{network}", "any", "networks.query", 200),
    Row("DELETE", "/2/networks/{network}?dry-run=x", "write", "networks.remove"),
    Row("PUT", "/2/networks/{network}/connect", "write", "networks.connect", body=UNKNOWN),
    Row("PUT", "/2/networks/{network}/disconnect", "write", "networks.disconnect", body=UNKNOWN),
    Row("PUT", "/2/networks/{network}/modify", "write", "networks.modify", body=UNKNOWN),
    Row("PUT", "/2/networks/{network}/rename", "write", "networks.rename", body=UNKNOWN),
    Row("GET", "/2/networks/{network}/tags", "any", "tags.get", 200),
    Row("PUT", "/2/networks/{network}/tags?tag=x&dry-run=x", "write", "tags.set"),
    Row("DELETE", "/2/networks/{network}/tags?tag=x&dry-run=x", "write", "tags.delete"),
    Row("GET", "/2/instances", "any", "instances.list", 200),
    Row("POST", "/2/instances", "write", "instances.create", body={"__version__": 1, "name": OWN, **UNKNOWN}),
    Row("POST", "/2/instances-multi-alloc", "write", "instances.multi_alloc", body={"instances": [], **UNKNOWN}),
    Row("GET", "/2/instances/{instance}", "any", "instances.query", 200),
    Row("DELETE", "/2/instances/{instance}?dry-run=x", "write", "instances.remove"),
    Row("GET", "/2/instances/{instance}/info", "any", "instances.info", DRAINED),
    Row("GET", "/2/instances/{instance}/tags", "any", "tags.get", 200),
    Row("PUT", "/2/instances/{instance}/tags?tag=x&dry-run=x", "write", "tags.set"),
    Row("DELETE", "/2/instances/{instance}/tags?tag=x&dry-run=x", "write", "tags.delete"),
    Row("POST", "/2/instances/{instance}/reboot?dry-run=x", "write", "instances.reboot"),
    Row("POST", "/2/instances/{instance}/reinstall", "write", "instances.reinstall", body={"start": "x"}),
    Row("POST", "/2/instances/{instance}/replace-disks", "write", "instances.replace_disks", body=UNKNOWN),
    Row("PUT", "/2/instances/{instance}/shutdown?dry-run=x", "write", "instances.shutdown"),
    Row("PUT", "/2/instances/{instance}/startup?dry-run=x", "write", "instances.startup"),
    Row("PUT", "/2/instances/{instance}/activate-disks?ignore_size=x", "write", "instances.activate_disks"),
    Row("PUT", "/2/instances/{instance}/deactivate-disks?force=x", "write", "instances.deactivate_disks"),
    Row("POST", "/2/instances/{instance}/recreate-disks", "write", "instances.recreate_disks", body=UNKNOWN),
    Row("PUT", "/2/instances/{instance}/prepare-export?mode=x", "write", "instances.export.prepare"),
    Row("PUT", "/2/instances/{instance}/export", "write", "instances.export.create", body=UNKNOWN),
    Row("DELETE", "/2/instances/{instance}/export", "write", "instances.export.remove", body=UNKNOWN),
    Row("PUT", "/2/instances/{instance}/migrate", "write", "instances.migrate", body=UNKNOWN),
    Row("PUT", "/2/instances/{instance}/failover", "write", "instances.failover", body=UNKNOWN),
    Row("PUT", "/2/instances/{instance}/rename", "write", "instances.rename", body={"new_name": OWN, **UNKNOWN}),
    Row("PUT", "/2/instances/{instance}/modify", "write", "instances.modify", body=UNKNOWN),
    Row("POST", "/2/instances/{instance}/disk/{disk}/grow", "write", "instances.grow_disk", body=UNKNOWN),
    Row("GET", "/2/instances/{instance}/console", "read", "instances.query.console", 200),
]


@dataclass(frozen=True)
class Account:
    """A user, the permissions that his tokens must grant, and where.

    `granted` are patterns of permissions, None for an account that is Ganeti's alone; `kinds`
    are the kinds of objects whose tags he may change.
    """

    name: str
    tokens: str
    granted: str | None = None
    denied: str = ""
    kinds: str = "*"
    scoped: bool = False


READS = "*.list *.query *.info jobs.wait query.all tags.get"
OPERATOR = (
    f"{READS} instances.startup instances.shutdown instances.reboot instances.migrate instances.failover"
    " instances.replace_disks instances.export.* instances.query.console"
)
#: What a scoped role with @operator is left with: it gets no lists, queries, exports or consoles yet.
TENANT = (
    "instances.startup instances.shutdown instances.reboot instances.migrate instances.failover"
    " instances.replace_disks instances.create instances.remove tags.set tags.delete"
    " jobs.query jobs.wait jobs.cancel"
)

POLICY = """\
version: 1
roles:
  tenant:
    permissions: ["@operator", instances.create, instances.remove, tags.set, tags.delete, jobs.cancel]
    scope:
      instances: {name: "*.test.example.com"}
  rebooter:
    permissions: [instances.reboot]
    scope:
      instances: {name: "*.test.example.com"}
  auditor:
    permissions: [jobs.list, jobs.query]
"""

ACCOUNTS = [
    Account("write", "write"),
    Account("read", "read"),
    Account("plain", ""),
    Account("stranger", "test"),
    Account("both", "read,write"),
    Account("admin", "@admin", "*"),
    Account("operator", "@operator", OPERATOR),
    Account("readonly", "@readonly", READS),
    Account(
        "instances", "instance_write,@readonly", f"{READS} instances.* tags.*", "instances.query.console", "instance"
    ),
    Account("nodes", "node_write,@readonly", f"{READS} nodes.* tags.*", "nodes.restricted_command", "node"),
    Account("groups", "group_write,@readonly", f"{READS} groups.* tags.*", kinds="group"),
    Account("networks", "@readonly,network_write", f"{READS} networks.* tags.*", kinds="network"),
    Account("kind-only", "network_write", "networks.* tags.*", "networks.list networks.query tags.get", "network"),
    Account("nearly", "write,-instances.remove", "*", "instances.remove"),
    Account("minus-first", "-instances.remove,@admin", "*", "instances.remove"),
    Account("noc", "@readonly,+jobs.cancel,-cluster.info", f"{READS} jobs.cancel", "cluster.info"),
    Account("mixed", "read,instances.reboot", f"{READS} instances.reboot"),
    Account("auditor", "@auditor", "jobs.list jobs.query"),
    Account("no-role", "@no-such-role", ""),
    Account("no-role-read", "read,@operators", READS),
    Account("typo", "+instances.rebot", ""),
    Account("typo-bare", "instance.reboot", ""),
    Account("typo-minus", "write,-instances.remov", ""),
    Account("upper", "@OPERATOR", ""),
    Account("empty-role", "@", ""),
    Account("tenant", "@tenant", TENANT, scoped=True),
    Account("rebooter", "@rebooter", "instances.reboot", scoped=True),
    Account("two-roles", "@rebooter,@auditor", "instances.reboot jobs.list jobs.query", scoped=True),
    Account("beside", "@rebooter,+nodes.powercycle,+instances.remove", "instances.reboot", scoped=True),
    Account("minus-scoped", "@tenant,-instances.reboot", TENANT, "instances.reboot", scoped=True),
]


def matches(permission: str, patterns: str) -> bool:
    """Whether a permission is one of some patterns."""
    return any(fnmatch.fnmatchcase(permission, pattern) for pattern in patterns.split())


def expected(account: Account, row: Row, instance: str) -> int:
    """The status that an account must get."""
    if account.granted is None or not row.permission:
        options = set(account.tokens.split(","))
        needed = {"any": options, "read": {"read", "write"}, "write": {"write"}}[row.access]
        return row.answer if options & needed else 403
    if not matches(row.permission, account.granted) or matches(row.permission, account.denied):
        return 403
    if row.permission in ("tags.set", "tags.delete") and not matches(row.kind, account.kinds):
        return 403
    if not account.scoped:
        return row.answer
    if row.kind == "job":
        # The roles without a scope see all jobs.
        return row.answer if "auditor" in account.tokens else 404
    if row.kind == "instance":
        return row.answer if instance == OWN else 404
    return row.answer if row.kind in ("", "new") else 404


@dataclass
class Request:
    """One request that is to be tried, and the status that it must get."""

    user: str
    row: Row
    instance: str
    status: int
    path: str

    def __str__(self) -> str:
        return f"{self.user}: {self.row.method} {self.path}"


class Board:
    """The cluster with a policy, accounts, one object of each kind, and a drained job queue."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        cluster.gnt("gnt-network", "add", "--network=198.51.100.0/28", "net1")
        cluster.gnt("gnt-filter", "add", "--priority=9", "--action=CONTINUE")
        self.filter = cluster.luxi("QueryFilters", None, ["uuid"])[0][0]
        self.job = str(cluster.luxi("QueryJobs", None, ["id"])[0][0])  # an old one, long finished
        cluster.gnt("gnt-cluster", "queue", "drain")

    def restore(self) -> None:
        """Undoes what was made."""
        self.cluster.gnt("gnt-cluster", "queue", "undrain")
        self.cluster.gnt("gnt-filter", "delete", self.filter)
        self.cluster.gnt("gnt-network", "remove", "net1")

    def requests(self, account: Account, row: Row, instance: str = OWN) -> Request:
        """A request of an account on a row."""
        names = {
            "node": "node1", "group": "default", "network": "net1", "job": self.job, "disk": "0",
            "query": "instance", "instance": instance,
            "filter": "no-such-filter" if row.method == "DELETE" else self.filter,
        }  # fmt: skip
        return Request(account.name, row, instance, expected(account, row, instance), row.path.format(**names))


@pytest.fixture(scope="module", name="board")
def _board(cluster: Cluster) -> Iterator[Board]:
    board = Board(cluster)
    try:
        yield board
    finally:
        board.restore()


#: Drives the handler that the daemon would have, as the daemon's user, without the network: it
#: reads [users file, [[user, method, path, body], …]] and writes the list of statuses.
DRIVER = """
import base64, email.message, json, logging, os, sys, types
from ganeti_ext import compat, entrypoint

compat.put_ganeti_first()
from ganeti import http
from ganeti.server import rapi

entrypoint.apply(entrypoint.rapi_patches(None))
logging.disable()
users_file, requests = json.load(sys.stdin)
rapi.RemoteApiHandler.access.load_policy()
users = rapi.RapiUsers()
assert users.Load(users_file)
responder = http.server.HttpResponder(rapi.RemoteApiHandler(users.Get, True))
statuses = []
for user, method, path, body in requests:
    message = http.HttpMessage()
    message.start_line = http.HttpClientToServerStartLine(method, path, "HTTP/1.1")
    message.headers = email.message.Message()
    message.headers["Host"] = "cluster"
    message.headers["Authorization"] = "Basic " + base64.b64encode(f"{user}:x".encode()).decode()
    if body is not None:
        message.headers["Content-Type"] = "application/json"
        message.body = json.dumps(body)
    reader = types.SimpleNamespace(sock=None)
    statuses.append(responder(lambda: (message, reader))[3].start_line.code)
json.dump(statuses, sys.stdout)
"""


def users_file(accounts: list[Account]) -> str:
    """The users file, everybody's password being `x`."""
    return "".join(f"{account.name} x {account.tokens}\n" for account in accounts)


def drive(cluster: Cluster, accounts: list[Account], requests: list[Request]) -> list[int]:
    """The statuses of requests, by the daemon's own handler and without the network."""
    path = cluster.node_path("node1", f"etc/ganeti/users-{secrets.token_hex(4)}")
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(users_file(accounts))
    os.chmod(path, 0o644)
    wanted = [[request.user, request.row.method, request.path, request.row.body] for request in requests]
    try:
        done = cluster.gnt(
            "setpriv", "--reuid=gnt-rapi", "--regid=gnt-rapi", "--init-groups",
            "/usr/bin/python3", "-I", "-c", DRIVER, input=json.dumps([path, wanted]),
        )  # fmt: skip
    finally:
        os.unlink(path)
    statuses: list[int] = json.loads(done.stdout)
    return statuses


def ask(cluster: Cluster, requests: list[Request]) -> list[int]:
    """The statuses of requests, by the running daemon."""

    def one(request: Request) -> int:
        return cluster.rapi(request.row.method, request.path, user=request.user, body=request.row.body)[0]

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(one, requests))


def differences(requests: list[Request], statuses: list[int]) -> list[str]:
    """What was not as expected."""
    assert len(requests) == len(statuses) > 0
    return [
        f"{request}: {status}, not {request.status}"
        for request, status in zip(requests, statuses)
        if status != request.status
    ]


def rows() -> list[Row]:
    """The rows that this Ganeti serves."""
    served = endpoints()
    return [row for row in ROWS if (row.method, row.path.split("?")[0]) in served]


def test_every_endpoint_has_a_row() -> None:
    assert set(endpoints()) <= {(row.method, row.path.split("?")[0]) for row in ROWS}
    assert len(rows()) == len(endpoints()) >= 82


def test_every_account_on_every_endpoint(board: Board) -> None:
    board.cluster.set_policy(POLICY)
    requests = [board.requests(account, row) for account in ACCOUNTS for row in rows()]
    requests += [
        board.requests(account, row, FOREIGN) for account in ACCOUNTS for row in rows() if row.kind == "instance"
    ]
    assert differences(requests, drive(board.cluster, ACCOUNTS, requests)) == []


def test_over_the_network(board: Board) -> None:
    """The running daemon, its users file and its policy: a few accounts, all endpoints."""
    with board.cluster.rapi_logs("rapi-access.yaml loaded"):
        board.cluster.restart("rapi")
        board.cluster.set_policy(POLICY)
    board.cluster.set_rapi_users(users_file(ACCOUNTS))
    some = [account for account in ACCOUNTS if account.name in ("read", "nearly", "operator")]
    requests = [board.requests(account, row) for account in some for row in rows()]
    (tenant,) = (account for account in ACCOUNTS if account.name == "tenant")
    requests += [
        board.requests(tenant, row, name)
        for row in rows()
        for name in (OWN, FOREIGN)[: 2 if row.kind == "instance" else 1]
    ]
    try:
        assert differences(requests, ask(board.cluster, requests)) == []
    finally:
        unconfigure(board.cluster)


def test_a_permission_opens_its_own_endpoints_only(board: Board) -> None:
    """Each permission alone, on every (class, method) pair of the connector."""
    permissions = sorted({row.permission for row in ROWS if row.permission} | {"nodes.restricted_command"})
    accounts = [Account(f"u{number}", f"+{permission}", permission) for number, permission in enumerate(permissions)]
    requests = [board.requests(account, row) for account in accounts for row in rows()]
    assert differences(requests, drive(board.cluster, accounts, requests)) == []


def test_a_scoped_permission_opens_its_own_endpoints_only(board: Board) -> None:
    """The same within a scope: what cannot be limited yet is not granted at all."""
    limitable = (
        "instances.* tags.set tags.delete jobs.query jobs.wait jobs.cancel",
        "instances.list instances.query* instances.info instances.export.*",
    )
    never = "filter.* cluster.modify cluster.redistribute_config"
    permissions = sorted({row.permission for row in ROWS if row.permission and not matches(row.permission, never)})
    policy = ["version: 1", "roles:"]
    accounts = []
    for number, permission in enumerate(permissions):
        scope = "scope: {instances: {name: '*.test.example.com'}}"
        policy.append(f"  r{number}: {{permissions: [{permission}], {scope}}}")
        granted = permission if matches(permission, limitable[0]) and not matches(permission, limitable[1]) else ""
        accounts.append(Account(f"u{number}", f"@r{number}", granted, scoped=True))
    board.cluster.set_policy("\n".join(policy) + "\n")
    requests = [
        board.requests(account, row, name)
        for account in accounts
        for row in rows()
        for name in ((OWN, FOREIGN) if row.kind == "instance" else (OWN,))
    ]
    try:
        assert differences(requests, drive(board.cluster, accounts, requests)) == []
    finally:
        board.cluster.remove_policy()
