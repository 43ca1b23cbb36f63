# SPDX-License-Identifier: BSD-2-Clause
"""Every account on every endpoint, for an own, a foreign and a missing object: only what is granted is open."""

from __future__ import annotations

import fnmatch
import inspect
import json
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from ganeti import opcodes as ganeti_opcodes
from ganeti import rapi
from ganeti.rapi import baserlib, connector, rlib2

from ganeti_ext import compat
from ganeti_ext.policy.vocabulary import RESTRICTED_COMMAND
from ganeti_ext.rapi import resources
from ganeti_ext.rapi.jobs import REASON_SOURCE
from ganeti_ext.rapi.opcodes import NOT_SUBMITTED, RULES
from ganeti_ext.rapi.permissions import walk
from tests.cluster import direct
from tests.cluster.table import DRAINED, OURS, ROWS, Row
from tests.cluster.tenancy import last_job, run
from tests.cluster.test_unconfigured import endpoints, unconfigure
from tests.cluster.vcluster import Cluster

#: kind -> an object that the scoped accounts may have, one that they never do, and none at all.
OBJECTS = {
    "instance": ("web1.test.example.com", "db1.prod.example.com", "none.test.example.com"),
    "node": ("node1", "node3", "node9"),
    "group": ("default", "other", "none"),
    "network": ("net1", "net2", "net9"),
    "filter": ("", "", "no-such-filter"),  # there is one, of which Board knows the UUID
    "job": ("", "", "999999"),  # everybody has one of his own
}
OWN, FOREIGN, MISSING = range(3)


@dataclass(frozen=True)
class Account:
    """A user, the permissions that his tokens must grant, and where.

    `granted` are patterns of permissions, None for an account that is Ganeti's alone; `kinds` are the kinds
    of objects whose tags he may change. `scope` are the names of the objects of OBJECTS that are inside, None
    for all; `names` is a pattern of what could be an instance of his, by its name. `brings` are the objects on
    which all instances are inside. `place` are permissions for which he has to name a node. `own_jobs`:
    others' jobs do not exist for him. `deny` are patterns of permissions that a deny takes from him, on the
    foreign instance.
    """

    name: str
    tokens: str
    granted: str | None = None
    denied: str = ""
    kinds: str = "*"
    scope: str | None = None
    names: str = "*.test.example.com"
    brings: str = ""
    place: str = ""
    own_jobs: bool = False
    deny: str = ""

    @property
    def is_plain(self) -> bool:
        """Whether Ganeti's own lists say what it may do."""
        return set(self.tokens.split(",")) <= {"", "read", "write", "test"}

    def may(self, row: Row) -> bool:
        """Whether it has the permissions of an endpoint."""
        if self.is_plain:
            options = set(self.tokens.split(","))
            if compat.has_permissions():
                roles = [rapi.RAPI_ROLES[GANETIS[option]] for option in options & set(GANETIS)]
                return row.permission in {"", RESTRICTED_COMMAND if "write" in options else ""}.union(*roles)
            return bool(options & {"any": options, "read": {"read", "write"}, "write": {"write"}}[row.access])
        needed = [row.permission, *row.also.split()]
        return all(matches(one, self.granted or "") and not matches(one, self.denied) for one in needed)


#: What Ganeti's next release makes of its options of today.
GANETIS = {"read": "readonly", "write": "admin"}

READS = "*.list *.query *.info jobs.wait query.all tags.get"
OPERATOR = (
    f"{READS} instances.startup instances.shutdown instances.reboot instances.migrate instances.failover"
    " instances.replace_disks instances.export.* instances.query.console"
)
TENANT = f"{OPERATOR} instances.create instances.remove tags.set tags.delete jobs.cancel"
#: Opcodes that change what belongs to everybody: no limited role may submit one.
NEVER_LIMITED = {"OpClusterSetParams", "OpClusterRedistConf"}
CREATIONS = "instances.create instances.multi_alloc"
#: What goes to a node that the allocator would choose.
MOVES = "instances.failover instances.migrate nodes.evacuate nodes.migrate"
NEVER_SCOPED = "filter.* cluster.modify cluster.redistribute_config"
DENIED = "instances.query tags.get instances.remove instances.reboot tags.set instances.create"

#: All that a row of the table sets and that the preset does not allow.
SETTINGS = """{
      os_type: [noop], network: "*", network_mode: "*", network_link: "*", storage_type: "*", output_fields: "*",
      name: "*", changes: "*", offline: "*"}"""
POLICY = f"""\
version: 1
roles:
  tenant:
    permissions: ["@operator", instances.create, instances.remove, tags.set, tags.delete, jobs.cancel]
    scope:
      instances: {{name: "*.test.example.com"}}
    parameters: {{os_type: [noop]}}
  rebooter:
    permissions: [instances.reboot]
    scope:
      instances: {{name: "*.test.example.com"}}
  auditor:
    permissions: [jobs.list, jobs.query]
  tagged:
    permissions: ["@admin"]
    scope:
      instances: {{tag: "team:a"}}
    tags: "team:a"
    parameters: {SETTINGS}
  mine:
    permissions: ["@admin"]
    scope:
      instances: {{name: "*.{{user}}.example.com"}}
    parameters: {SETTINGS}
  all-jobs:
    permissions: ["@readonly", jobs.cancel]
    scope:
      instances: {{name: "*.test.example.com"}}
    jobs: all
  own-jobs:
    permissions: ["@readonly", jobs.cancel]
    jobs: own
  warn:
    permissions: ["@admin"]
    scope:
      instances: {{name: "*.test.example.com"}}
    mode: warn
  places:
    permissions: ["@admin"]
    scope:
      instances: {{name: "*.test.example.com"}}
      nodes: {{name: node1}}
      groups: {{name: default}}
      networks: {{name: net1}}
    parameters: {SETTINGS}
  landlord:
    permissions: ["@admin"]
    scope:
      instances: {{group: default}}
      nodes: {{group: default}}
      groups: {{name: default}}
      networks: {{name: net1}}
    parameters: {SETTINGS}
  empty:
    permissions: ["@admin"]
    scope:
      nodes: {{name: node1}}
      groups: {{name: default}}
      networks: {{name: net1}}
    parameters: {SETTINGS}
deny:
  - users: ["kept-*"]
    permissions: [{", ".join(DENIED.split())}]
    instances: {{name: "db1.prod.example.com"}}
"""
INSIDE, FOREIGN_INSTANCE = "web1.test.example.com", "db1.prod.example.com"
PLACES = f"{INSIDE} node1 default net1"
SCOPED: dict[str, Any] = {"scope": INSIDE, "own_jobs": True}

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
    Account("tenant", "@tenant", TENANT, NEVER_SCOPED, **SCOPED),
    Account("rebooter", "@rebooter", "instances.reboot", **SCOPED),
    Account(
        "two-roles", "@rebooter,@auditor", "instances.reboot jobs.list jobs.query", **{**SCOPED, "own_jobs": False}
    ),
    Account("beside", "@rebooter,+nodes.powercycle,+instances.remove", "instances.reboot", **SCOPED),
    Account("minus-scoped", "@tenant,-instances.reboot", TENANT, f"{NEVER_SCOPED} instances.reboot", **SCOPED),
    Account("tagged", "@tagged", "*", NEVER_SCOPED, **{**SCOPED, "names": "*"}),
    Account("test", "@mine", "*", NEVER_SCOPED, **SCOPED),
    Account("prod", "@mine", "*", NEVER_SCOPED, **{**SCOPED, "scope": FOREIGN_INSTANCE, "names": "*.prod.example.com"}),
    Account("not.one-label", "@mine", ""),
    Account("all-jobs", "@all-jobs", f"{READS} jobs.cancel", NEVER_SCOPED, **{**SCOPED, "own_jobs": False}),
    Account("own-jobs", "@own-jobs", f"{READS} jobs.cancel", own_jobs=True),
    Account("warn", "@warn", "*", NEVER_SCOPED, own_jobs=True),
    Account(
        "places",
        "@places",
        "*",
        NEVER_SCOPED,
        **{**SCOPED, "scope": PLACES, "brings": PLACES, "place": f"{CREATIONS} {MOVES}"},
    ),
    Account(
        "landlord",
        "@landlord",
        "*",
        NEVER_SCOPED,
        **{**SCOPED, "scope": PLACES, "brings": PLACES, "names": "*", "place": "instances.multi_alloc"},
    ),
    Account(
        "empty", "@empty", "*", NEVER_SCOPED, **{**SCOPED, "scope": "node1 default net1", "brings": "net1", "names": ""}
    ),
    Account("kept-write", "write", "*", deny=DENIED),
    Account("kept-read", "read", "*", deny=DENIED),
    Account("kept-plain", "", "*", deny=DENIED),
    Account("kept-admin", "@admin", "*", deny=DENIED),
]
#: Those that are tried on foreign and missing objects, too.
THOROUGH = [
    "write", "read", "plain", "no-role", "admin", "readonly", "operator", "tenant", "tagged", "test", "prod",
    "all-jobs", "own-jobs", "warn", "places", "landlord", "empty", "kept-write", "kept-read", "kept-admin",
]  # fmt: skip


def matches(permission: str, patterns: str) -> bool:
    """Whether a permission is one of some patterns."""
    return any(fnmatch.fnmatchcase(permission, pattern) for pattern in patterns.split())


def expected(account: Account, row: Row, which: int) -> int:
    """The status that an account must get."""
    if not row.permission:
        return row.answer
    if not account.may(row):
        return 403
    if row in OURS:
        # No role here lists a command, which is told before more of a node is looked at than its name.
        may_be_inside = account.scope is None or account.name == "landlord"
        return 403 if may_be_inside or OBJECTS["node"][which] in (account.scope or "").split() else 404
    if account.granted is None:
        status = row.missing if which == MISSING and row.kind else row.answer
        return 500 if status == DRAINED else status
    if row.permission in ("tags.set", "tags.delete") and not matches(row.kind, account.kinds):
        return 403
    status = by_our_client(account, row, which)
    return {DRAINED: 503, 500: row.ours}.get(status, status)


def by_our_client(account: Account, row: Row, which: int) -> int:
    """The status for an account of ours that has the permission, in the words of the table."""
    kind = row.kind or row.new
    name = OBJECTS[kind][which] if kind in OBJECTS else ""
    if account.deny and row.permission.endswith((".rename", ".assign_nodes")) and which == MISSING:
        return 403  # whatever could get an object out of a deny must name it in full
    if any(matches(one, account.deny) for one in [row.permission, *row.also.split()]) and (
        (which == MISSING and row.kind in OBJECTS) or (which == FOREIGN and kind == "instance")
    ):
        return 404 if row.method == "GET" else 403
    if row.kind == "job" and account.own_jobs:
        return row.answer if which == OWN else 404
    if account.name == "warn" and kind == "cluster" and row.method != "GET":
        return 404  # the cluster is in no scope that the mode could lift
    if account.scope is None or kind in ("", "job"):
        return row.missing if which == MISSING and row.kind else row.answer
    inside = account.scope.split()
    if kind == "instance" and not matches(name, account.names):
        return 404
    if row.new == "instance":
        return 403 if matches(row.permission, account.place) else row.answer
    if row.place and not {"node1", "default"} & set(inside):
        return 403
    brought = row.brings.format(**{kind: name}).split()
    if name not in inside or not set(brought) <= set(account.brings.split()):
        return 404
    return 403 if matches(row.permission, account.place) else row.answer


@dataclass
class Request:
    """One request that is to be tried, and the status that it must get."""

    account: Account
    row: Row
    path: str
    body: Any
    status: int

    def __str__(self) -> str:
        return f"{self.account.name}: {self.row.method} {self.path}"


class Board:
    """The cluster with an own and a foreign object of each kind, and a drained job queue."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        run(
            cluster,
            ganeti_opcodes.OpGroupAdd(group_name="other"),
            ganeti_opcodes.OpGroupAssignNodes(group_name="other", nodes=["node3"]),
            ganeti_opcodes.OpNetworkAdd(network_name="net1", network="198.51.100.0/28"),
            ganeti_opcodes.OpNetworkAdd(network_name="net2", network="198.51.100.16/28"),
            ganeti_opcodes.OpTagsSet(kind="instance", name=INSIDE, tags=["team:a"]),
        )
        predicate = json.dumps([["reason", ["=", "source", REASON_SOURCE]]])
        cluster.gnt("gnt-filter", "add", "--priority=9", f"--predicates={predicate}", "--action=PAUSE")
        self.filter = cluster.luxi("QueryFilters", None, ["uuid"])[0][0]
        users = [*(account.name for account in ACCOUNTS), "somebody"]
        delay = {"OP_ID": "OP_TEST_DELAY", "duration": 0}
        jobs = [[{**delay, "reason": [[REASON_SOURCE, user, 1]]}] for user in users]
        self.jobs = {user: job for user, (_, job) in zip(users, cluster.luxi("SubmitManyJobs", jobs))}
        cluster.gnt("gnt-cluster", "queue", "drain")

    def restore(self) -> None:
        """Undoes what was made."""
        self.cluster.gnt("gnt-cluster", "queue", "undrain")
        for job in self.jobs.values():
            self.cluster.luxi("CancelJob", job, False)
        self.cluster.gnt("gnt-filter", "delete", self.filter)
        run(
            self.cluster,
            ganeti_opcodes.OpTagsDel(kind="instance", name=INSIDE, tags=["team:a"]),
            ganeti_opcodes.OpNetworkRemove(network_name="net1"),
            ganeti_opcodes.OpNetworkRemove(network_name="net2"),
            ganeti_opcodes.OpGroupAssignNodes(group_name="default", nodes=["node3"]),
            ganeti_opcodes.OpGroupRemove(group_name="other"),
        )

    def requests(self, account: Account, row: Row, thorough: bool = False) -> Iterator[Request]:
        """The requests of an account on a row: for the own object, or for all three."""
        named = row.kind in OBJECTS or row.new
        for which in (OWN, FOREIGN, MISSING) if thorough and named else (OWN,):
            names = {kind: objects[which] for kind, objects in OBJECTS.items()}
            if which != MISSING:
                names["job"] = str(self.jobs.get(account.name if which == OWN else "somebody", self.jobs["somebody"]))
                names["filter"] = self.filter
            path, body = row.filled({**names, "disk": "0", "query": "instance"})
            yield Request(account, row, path, body, expected(account, row, which))


@pytest.fixture(scope="module", name="board")
def _board(cluster: Cluster) -> Iterator[Board]:
    board = Board(cluster)
    before = last_job(cluster)
    try:
        yield board
        assert last_job(cluster) == before
    finally:
        board.restore()


Answer = tuple[int, str]


def users_file(accounts: Sequence[Account]) -> str:
    """The users file, everybody's password being `x`."""
    return "".join(f"{account.name} x {account.tokens}\n" for account in accounts)


def drive(cluster: Cluster, accounts: Sequence[Account], requests: Sequence[Request]) -> list[Answer]:
    """The answers to requests, by the daemon's own handler and without the network."""
    wanted = [(request.account.name, request.row.method, request.path, request.body) for request in requests]
    return [(status, body.decode()) for status, body in direct.answers(cluster, users_file(accounts), wanted)]


def ask(cluster: Cluster, requests: Sequence[Request]) -> list[Answer]:
    """The answers to requests, by the running daemon."""

    def one(request: Request) -> Answer:
        status, _, answer = cluster.rapi(request.row.method, request.path, user=request.account.name, body=request.body)
        return status, answer.decode()

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(one, requests))


def differences(requests: Sequence[Request], answers: Sequence[Answer]) -> list[str]:
    """What was not as expected. Whoever is limited must not be able to tell one 404 from another."""
    assert len(requests) == len(answers) > 0
    found = [
        f"{request}: {status}, not {request.status}: {body[:200]}"
        for request, (status, body) in zip(requests, answers)
        if status != request.status
    ]
    nothing = {
        body
        for request, (status, body) in zip(requests, answers)
        if status == 404 and request.account.scope is not None
    }
    return found + ([f"404 in different words: {nothing}"] if len(nothing) > 1 else [])


def rows() -> list[Row]:
    """The rows that this Ganeti serves."""
    served = endpoints()
    return [row for row in ROWS if row.endpoint in served or row.permission == "filter.remove"]


# --- that nothing is left out ------------------------------------------------------------


def test_every_endpoint_has_a_row() -> None:
    """A (class, method) pair of a later Ganeti that the table does not know."""
    known = {(row.method, row.endpoint[1].replace("no-such-filter", "{filter}")) for row in ROWS}
    assert set(endpoints()) - known == set()
    assert len(rows()) == len(endpoints()) >= 82


def test_every_endpoint_of_our_own_has_a_row() -> None:
    connections = resources.served(connector.CONNECTOR, False, True)
    added = set(walk(connections)) - set(walk(connector.CONNECTOR))
    assert len(added) == len(OURS) == 1
    for row in OURS:
        path = row.filled({"node": "node1"})[0]
        resource, items, _ = connector.Mapper(connections).getController(path)
        assert added == {(resource, row.method)} and items == ["node1"]


def test_every_opcode_is_known() -> None:
    """One that a resource names, or that a handler makes by itself."""
    named = {opcode.__name__ for resource in set(endpoints().values()) for opcode in opcodes_of(resource)}
    made = set(re.findall(r"opcodes\.(Op[A-Z]\w+)", inspect.getsource(rlib2)))
    assert len(named | made) >= 45
    assert named | made <= {*RULES, *NOT_SUBMITTED}
    assert {name for name, rule in RULES.items() if not rule.for_limited} == NEVER_LIMITED
    # What the table knows and this Ganeti does not is of a later one.
    of_later = {name for name in RULES if not hasattr(ganeti_opcodes, name)}
    assert of_later <= {"OpNetworkRename"}


def opcodes_of(resource: type) -> frozenset[type]:
    """The opcodes that a resource names."""
    found: frozenset[type] = baserlib.GetResourceOpcodes(resource)
    return found


# --- the table ---------------------------------------------------------------------------


def test_every_account_on_every_endpoint(board: Board) -> None:
    """And on an own, a foreign and a missing object of each kind."""
    board.cluster.set_policy(POLICY)
    requests = [
        request
        for account in ACCOUNTS
        for row in [*rows(), *OURS]
        for request in board.requests(account, row, account.name in THOROUGH)
    ]
    assert differences(requests, drive(board.cluster, ACCOUNTS, requests)) == []


def test_over_the_network(board: Board) -> None:
    """The running daemon, its users file and its policy: a few accounts, all endpoints."""
    with board.cluster.rapi_logs("rapi-access.yaml loaded"):
        board.cluster.restart("rapi")
        board.cluster.set_policy(POLICY)
    board.cluster.set_rapi_users(users_file(ACCOUNTS))
    some = [account for account in ACCOUNTS if account.name in ("read", "tenant")]
    requests = [request for account in some for row in rows() for request in board.requests(account, row)]
    try:
        assert differences(requests, ask(board.cluster, requests)) == []
    finally:
        unconfigure(board.cluster)


def permissions() -> list[str]:
    """All permissions that an endpoint needs."""
    return sorted({row.permission for row in [*ROWS, *OURS] if row.permission})


def test_a_permission_opens_its_own_endpoints_only(board: Board) -> None:
    """Each permission alone, on every (class, method) pair of the connector."""
    accounts = [Account(f"u{number}", f"+{name}", name) for number, name in enumerate(permissions())]
    requests = [request for account in accounts for row in [*rows(), *OURS] for request in board.requests(account, row)]
    assert differences(requests, drive(board.cluster, accounts, requests)) == []


def test_a_scoped_permission_opens_its_own_endpoints_only(board: Board) -> None:
    """The same within a scope of some of each kind."""
    policy = ["version: 1", "roles:"]
    accounts = []
    for number, name in enumerate(name for name in permissions() if not matches(name, NEVER_SCOPED)):
        policy += [
            f"  r{number}:",
            f"    permissions: [{name}]",
            "    scope: {instances: {name: '*.test.example.com'}, nodes: {name: node1}, groups: {name: default},"
            " networks: {name: net1}}",
            f"    parameters: {SETTINGS}",
            "    jobs: all",
        ]
        accounts.append(
            Account(f"u{number}", f"@r{number}", name, scope=PLACES, brings=PLACES, place=f"{CREATIONS} {MOVES}")
        )
    board.cluster.set_policy("\n".join(policy) + "\n")
    requests = [request for account in accounts for row in [*rows(), *OURS] for request in board.requests(account, row)]
    try:
        assert differences(requests, drive(board.cluster, accounts, requests)) == []
    finally:
        board.cluster.remove_policy()
