# SPDX-License-Identifier: BSD-2-Clause
"""What a limited user reads: all that is hers, by every endpoint, and nothing of anybody else's."""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Iterator
from typing import Any

import pytest
from ganeti import opcodes

from tests.cluster import direct
from tests.cluster.table import ROWS
from tests.cluster.tenancy import Answer, Tenancy, tenants
from tests.cluster.vcluster import Cluster

OWN, FOREIGN, MISSING = "mine.test.example.com", "theirs.prod.example.com", "absent.prod.example.com"
#: All instances with those on node1 first.
MINE = {"web1.test.example.com", "web2.test.example.com", OWN}
ON_NODE1 = {"web1.test.example.com", OWN}
FOREIGN_TAG, CLUSTER_TAG = "tag-of-theirs", "tag-of-the-cluster"

SCOPE = """\
    scope:
      instances: {name: "*.test.example.com"}
      nodes: {name: node1}
      groups: {name: default}
      networks: {name: net1}
"""
POLICY = f"""\
version: 1
roles:
  reader:
    permissions: ["@operator"]
{SCOPE}
  blind:
    permissions: ["@readonly"]
{SCOPE}
  tagged:
    permissions: ["@operator"]
    scope:
      instances: {{tag: "team:*"}}
      nodes: {{name: node1}}
      groups: {{tag: "team:*"}}
      networks: {{name: net1}}
  lister:
    permissions: ["@readonly"]
    scope:
      instances: {{name: "*.test.example.com"}}
  console:
    permissions: [instances.query.console]
    scope:
      instances: {{name: "web2.test.example.com"}}
deny:
  - users: [den, dora]
    permissions: "*"
    instances: {{name: "*.prod.example.com"}}
    nodes: {{name: "node[23]"}}
""".replace('"node[23]"', "[node2, node3]")
USERS = """\
admin secret write
eve x @reader
bob x @blind
tess x @tagged
cora x @lister,@console
den x read
dora x @readonly
"""
#: Those who are limited by a scope, of names or of a pattern of tags, and those by a deny.
LIMITED, DENIED = ("eve", "bob", "tess", "cora"), ("den", "dora")
#: What luxid can be asked for.
KINDS = ("instance", "node", "group", "network", "job")


Request = tuple[str, str, Any]


class World(Tenancy):
    """Two tenants on one node and in one network."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self.run(
            opcodes.OpNetworkAdd(network_name="net1", network="198.51.100.0/28", tags=["team:red"]),
            opcodes.OpNetworkConnect(
                network_name="net1", group_name="default", network_mode="bridged", network_link="br0", network_vlan=""
            ),
            opcodes.OpTagsSet(kind="cluster", name="", tags=[CLUSTER_TAG]),
            opcodes.OpTagsSet(kind="nodegroup", name="default", tags=["team:red"]),
        )
        nics = [{"network": "net1", "ip": "pool"}]
        cluster.add_instance(OWN, node="node1", nics=nics, tags=["team:red"])
        cluster.add_instance(FOREIGN, node="node1", nics=nics, tags=[FOREIGN_TAG])
        fields = ["name", "uuid", "nic.uuids", "nic.macs", "nic.ips"]
        self.uuids: dict[str, str] = {}
        self.secrets = [FOREIGN_TAG.encode()]
        for name, uuid, *nics in cluster.luxi("QueryInstances", [], fields, False):
            self.uuids[name] = uuid
            if name not in MINE:
                found = [name, uuid, *(one for values in nics for one in values or ())]
                self.secrets += [one.encode() for one in found]
        assert len(self.secrets) == 8  # two names, two UUIDs, and what the one card has

    def restore(self) -> None:
        """Undoes what was made, but for the instances."""
        self.run(
            opcodes.OpNetworkDisconnect(network_name="net1", group_name="default"),
            opcodes.OpNetworkRemove(network_name="net1"),
            opcodes.OpTagsDel(kind="cluster", name="", tags=[CLUSTER_TAG]),
            opcodes.OpTagsDel(kind="nodegroup", name="default", tags=["team:red"]),
        )

    def read(self, path: str, user: str = "eve", body: Any = None) -> Any:
        """What a GET, or a PUT of a query, that must be answered says."""
        status, _, answer = self.ask("PUT" if body is not None else "GET", path, body, user)
        assert status == 200, (path, user, answer)
        return json.loads(answer)

    def direct(self, requests: list[Request], user: str) -> list[Answer]:
        """The answers to many requests, without the network."""
        wanted = [(user, *request) for request in requests]
        found = direct.answers(self.cluster, USERS, wanted)
        return [(status, [], re.sub(rb"audit record [0-9a-f]{16}", b"audit record ID", body)) for status, body in found]

    def leaks(self, requests: list[Request], user: str, answers: list[Answer]) -> list[Any]:
        """The requests in whose answers something of others is; whoever a deny limits may know the cluster's tags."""
        secrets = [*self.secrets, *([] if user in DENIED else [CLUSTER_TAG.encode()])]
        return [
            (user, request, secret)
            for request, answer in zip(requests, answers)
            for secret in secrets
            if secret in answer[2] or any(secret.decode() in value for _, value in answer[1])
        ]

    def names_in(self, kind: str, user: str, fields: str = "name", **body: Any) -> list[Any]:
        """The first field of each row of a query, sorted."""
        path = f"/2/query/{kind}"
        if body:
            answer = self.read(path, user, {"fields": [*fields.split(",")], **body})
        else:
            answer = self.read(f"{path}?fields={fields}", user)
        return sorted(row[0][1] for row in answer["data"])


@pytest.fixture(scope="module", name="world")
def _world(cluster: Cluster) -> Iterator[World]:
    with tenants(cluster, POLICY, USERS) as tenancy:
        world = World(cluster)
        try:
            yield world
        finally:
            tenancy.remove(OWN, FOREIGN)
            world.restore()


# --- that it works -----------------------------------------------------------------------


def test_lists_and_single_objects(world: World) -> None:
    """All of hers, in each form, and of her instances all that there is."""
    assert {one["id"] for one in world.read("/2/instances")} == MINE
    bulk = {one["name"]: one for one in world.read("/2/instances?bulk=1")}
    assert set(bulk) == MINE
    everything = {one["name"]: one for one in world.read("/2/instances?bulk=1", "admin")}
    assert {name: one["beparams"] for name, one in bulk.items()} == {
        name: everything[name]["beparams"] for name in MINE
    }
    own = world.read(f"/2/instances/{OWN}")
    assert own == world.read(f"/2/instances/{OWN}", "admin") and own["uuid"] == world.uuids[OWN]
    assert world.read(f"/2/instances/{OWN}/tags") == ["team:red"]
    assert world.read(f"/2/instances/{OWN}/console")["instance"] == OWN
    assert [one["id"] for one in world.read("/2/nodes")] == ["node1"]
    assert [one["name"] for one in world.read("/2/nodes?bulk=1")] == ["node1"]
    assert world.read("/2/nodes/node1/role") == "master"
    assert world.read("/2/nodes/node1/tags") == []
    assert [one["name"] for one in world.read("/2/groups")] == ["default"]
    assert world.read("/2/groups/default/tags") == ["team:red"]
    assert [one["name"] for one in world.read("/2/networks")] == ["net1"]
    assert world.read("/2/networks/net1/tags") == ["team:red"]
    assert world.read("/2/info")["name"] == "cluster"


def test_queries(world: World) -> None:
    """GET, PUT, both names of a filter, the fields in either place, and what fields there are."""
    assert world.names_in("instance", "eve") == sorted(MINE)
    by_name = ["=", "name", OWN]
    assert world.names_in("instance", "eve", filter=by_name) == [OWN]
    assert world.names_in("instance", "eve", qfilter=by_name) == [OWN]
    assert world.names_in("instance", "eve", qfilter=["=[]", "tags", "team:red"]) == [OWN]
    assert world.names_in("instance", "eve", qfilter=["!", by_name]) == sorted(MINE - {OWN})
    assert world.names_in("instance", "eve", qfilter=["=~", "name", "^web"]) == sorted(MINE - {OWN})
    row = world.read("/2/query/instance?fields=uuid", body={"qfilter": ["=", "uuid", world.uuids[OWN]]})
    assert row["data"] == [[[0, world.uuids[OWN]]]]
    assert [one["name"] for one in row["fields"]] == ["uuid"]
    assert world.names_in("node", "eve") == ["node1"]
    assert world.names_in("group", "eve") == ["default"]
    assert world.names_in("network", "eve") == ["net1"]
    for kind in KINDS:
        assert len(world.read(f"/2/query/{kind}/fields")["fields"]) > 5
    assert world.names_in("instance", "tess") == [OWN]
    assert world.names_in("instance", "tess", qfilter=["!=", "name", "x"]) == [OWN]
    assert world.names_in("instance", "den") == world.names_in("instance", "dora") == sorted(MINE)


@pytest.mark.parametrize("kind", ["lock", "os", "export", "filter", "no-such-kind", "Instance"])
def test_other_queries(world: World, kind: str) -> None:
    """What is of all tenants, such as locks and exports, is no limited role's."""
    for user in ("eve", "tess"):
        statuses = [
            world.ask("GET", f"/2/query/{kind}?fields=name", None, user)[0],
            world.ask("PUT", f"/2/query/{kind}", {"fields": ["name"]}, user)[0],
            world.ask("GET", f"/2/query/{kind}/fields", None, user)[0],
        ]
        assert statuses == [403] * 3


# --- that nothing else is in it ----------------------------------------------------------


def gets(world: World, name: str) -> list[Request]:
    """Every endpoint with GET that submits no job, for an instance's name in the place of any object's."""
    jobs = {row[0] for row in world.cluster.luxi("QueryJobs", None, ["id"])}
    names = {
        "instance": name, "node": "node1", "group": "default", "network": "net1", "query": "instance",
        "filter": "none", "job": str(max(jobs)), "disk": "0",
    }  # fmt: skip
    found = []
    for row in ROWS:
        if row.method == "GET" and row.permission not in ("os.list", "instances.info", "nodes.storage.query"):
            path, body = row.filled(names)
            found.append(("GET", path, body))
            if "?" not in path:
                found.append(("GET", path + "?bulk=1&lock=1", body))
    return found


@pytest.mark.parametrize("user", LIMITED + DENIED)
def test_every_get(world: World, user: str) -> None:
    """Raw bytes: no name, UUID, tag, address or card of others is in any answer.

    A deny hides objects, not the jobs of others: those are seen by whoever has no limited role.
    """
    requests = [request for name in (OWN, FOREIGN, MISSING) for request in gets(world, name)]
    requests = [request for request in requests if user not in DENIED or not request[1].startswith("/2/jobs")]
    answers = world.ask_all(requests, user) if user == "eve" else world.direct(requests, user)
    assert sum(answer[0] == 200 for answer in answers) >= 10
    # A path that was asked for is not told back either.
    assert world.leaks(requests, user, answers) == []


#: Kind -> the fields that a limited role may not ask for, console aside.
REFUSED = {"node": {"custom_ndparams", "master"}}


def fields_of(world: World, kind: str) -> list[str]:
    """All fields that luxid has."""
    return [one["name"] for one in world.cluster.luxi("QueryFields", kind, None)["fields"]]


@pytest.mark.parametrize("user", ["eve", "tess", "dora"])
def test_every_field(world: World, user: str) -> None:
    """Each field that luxid has, and all together: nothing of others in the answer, or a refusal that names it."""
    kinds = KINDS[: -1 if user in DENIED else None]
    asked = [(kind, field) for kind in kinds for field in fields_of(world, kind)]
    refused = {(kind, field) for kind in kinds for field in REFUSED.get(kind, ())}
    if user == "dora":
        refused.add(("instance", "console"))
    requests: list[Request] = [
        (
            "GET",
            f"/2/query/{kind}?fields={'id' if kind == 'job' else 'name'},{urllib.parse.quote(field, safe='')}",
            None,
        )
        for kind, field in asked
    ]
    for kind in kinds:
        fields = [field for of, field in asked if of == kind and (kind, field) not in refused]
        requests.append(("PUT", f"/2/query/{kind}", {"fields": fields}))
    answers = world.direct(requests, user)
    assert world.leaks(requests, user, answers) == []
    assert {one for one, answer in zip(asked, answers) if answer[0] != 200} == refused
    assert {answer[0] for answer in answers} == {200, 403} and {answer[0] for answer in answers[len(asked) :]} == {200}


def test_foreign_reads_as_missing(world: World) -> None:
    """The same bytes, for each kind of object and each kind of limit."""
    pairs = [(FOREIGN, MISSING, "instance"), ("node2", "node9", "node"), ("node3", "Node1", "node")]
    pairs += [("theirs", "absent", "instance"), (world.uuids[FOREIGN], world.uuids[FOREIGN][:-1] + "x", "instance")]
    paths = {
        "instance": ["", "/tags", "?bulk=1", "/console", "/info"],
        "node": ["", "/tags", "/role", "/storage?storage_type=file&output_fields=name"],
    }
    for user in ("eve", "tess", "dora"):
        for foreign, missing, kind in pairs:
            requests: list[list[Request]] = [
                # A deny tells that it forbids a job.
                [("GET", f"/2/{kind}s/{name}{path}", None) for path in paths[kind][: 3 if user in DENIED else None]]
                for name in (foreign, missing)
            ]
            with world.no_job():
                found, nothing = (world.ask_all(part, user) for part in requests)
            assert found == nothing, (user, foreign)
            assert {answer[0] for answer in found} <= {403, 404} and found[0][0] == 404, (user, foreign)


# --- lists inside of other objects -------------------------------------------------------


def test_lists_in_other_objects(world: World) -> None:
    """Cut to what she may see, counts too, in every form; what cannot be cut is left out."""
    node_forms = [world.read("/2/nodes/node1"), world.read("/2/nodes?bulk=1")[0]]
    for node in node_forms:
        assert (set(node["pinst_list"]), node["pinst_cnt"]) == (ON_NODE1, 2)
        assert (node["sinst_list"], node["sinst_cnt"]) == ([], 0)
    for group in (world.read("/2/groups/default"), world.read("/2/groups?bulk=1")[0]):
        assert (group["node_list"], group["node_cnt"]) == (["node1"], 1)
    for network in (world.read("/2/networks/net1"), world.read("/2/networks?bulk=1")[0]):
        assert network["inst_list"] == [OWN]
        assert [one[0] for one in network["group_list"]] == ["default"]
        assert [network[key] for key in ("map", "free_count", "reserved_count", "external_reservations")] == [None] * 4

    def values(kind: str, fields: str) -> list[Any]:
        (row,) = world.read(f"/2/query/{kind}?fields={fields}")["data"]
        return [sorted(value) if isinstance(value, list) else value for _, value in row]

    assert values("node", "pinst_cnt,pinst_list,sinst_cnt") == [2, sorted(ON_NODE1), 0]
    assert values("group", "pinst_list,pinst_cnt,node_cnt,node_list") == [sorted(MINE), 3, 1, ["node1"]]
    assert values("network", "inst_cnt,inst_list,group_cnt,map,free_count") == [1, [OWN], 1, None, None]
    # The administrator's answer has it all: nothing above is empty by itself.
    everything = world.read("/2/networks/net1", "admin")
    assert set(everything["inst_list"]) == {OWN, FOREIGN} and "X" in everything["map"]
    assert FOREIGN in world.read("/2/nodes/node1", "admin")["pinst_list"]
    # By a deny, as by a scope: of a network she is not kept from, all but what the deny hides.
    assert set(world.read("/2/nodes/node1", "dora")["pinst_list"]) == ON_NODE1
    assert set(world.read("/2/groups/default", "dora")["node_list"]) == {"node1"}
    assert world.read("/2/networks/net1", "dora")["inst_list"] == [OWN]


def test_a_kind_that_is_in_no_scope(world: World) -> None:
    """Lists are empty, and objects are not there."""
    for kind in ("nodes", "groups", "networks"):
        assert world.read(f"/2/{kind}", "cora") == world.read(f"/2/{kind}?bulk=1", "cora") == []
        assert world.names_in(kind[:-1], "cora") == []
    for path in ("/2/nodes/node1", "/2/groups/default", "/2/networks/net1", "/2/nodes/node1/tags", "/2/tags"):
        assert world.ask("GET", path, None, "cora")[0] == 404


# --- consoles ----------------------------------------------------------------------------


def test_console(world: World) -> None:
    """How to reach a console is a permission of its own, also as a field, and as a field in a filter."""
    assert world.ask("GET", f"/2/instances/{OWN}/console", None, "bob")[0] == 403
    for body in (
        {"fields": ["name", "console"]},
        {"fields": ["console"], "qfilter": ["=", "name", OWN]},
    ):
        status, _, answer = world.ask("PUT", "/2/query/instance", body, "bob")
        assert status == 403 and b"instances.query.console" in answer
    body = {"fields": ["name"], "qfilter": ["=", "console", "x"]}
    assert world.ask("PUT", "/2/query/instance", body, "bob")[0] in (400, 403)
    assert world.ask("GET", "/2/query/instance?fields=console,name", None, "bob")[0] == 403
    assert world.names_in("instance", "eve", "name,console") == sorted(MINE)
    # Of those that she may list, she sees the console of one.
    assert world.names_in("instance", "cora", "name,console") == ["web2.test.example.com"]
    assert world.ask("GET", "/2/instances/web2.test.example.com/console", None, "cora")[0] == 200
    assert world.ask("GET", "/2/instances/web1.test.example.com/console", None, "cora")[0] == 404


# --- filters of one's own ----------------------------------------------------------------


def tricks(name: str, uuid: str, tag: str) -> list[tuple[str, Any]]:
    """Filters that tell whether there is such an instance, or what it has, where they are not held back."""
    short = name.split(".")[0]
    tests: list[Any] = [
        ["=", "name", name], ["=", "name", short], ["=~", "name", f"^{short}"], ["=", "uuid", uuid],
        ["=[]", "tags", tag], ["=~", "uuid", uuid[:8]],
    ]  # fmt: skip
    #: Luxid fails at them, and says of which row: `threats.md`.
    failures: list[Any] = [
        ["?", "name"], ["<", "name", 5], ["=", "be/vcpus", "x"], ["=", "tags", "x"], ["=~", "be/vcpus", "x"],
        ["=[]", "name", "x"], ["=~", "name", "("],
    ]  # fmt: skip
    on_instances: list[Any] = [*tests]
    for test in tests:
        on_instances += [["!", test], ["|", test, ["=", "name", OWN]], ["&", test, ["!=", "name", OWN]]]
        for failure in failures:
            on_instances += [["&", test, failure], ["|", ["!", test], failure], ["&", ["!", ["!", test]], failure]]
    found = [("instance", test) for test in on_instances]
    found += [("node", ["=[]", "pinst_list", name]), ("node", ["!", ["=[]", "pinst_list", name]])]
    found += [("group", ["=[]", "pinst_list", name]), ("network", ["=[]", "inst_list", name])]
    found += [("job", ["=~", "summary", name]), ("job", ["=[]", "ops", name])]
    return found


@pytest.mark.parametrize("user", ["eve", "tess", "den", "dora"])
def test_filters_are_no_oracle(world: World, user: str) -> None:
    """Whatever a filter asks about a foreign instance is answered as if there was none, byte by byte."""
    foreign = tricks(FOREIGN, world.uuids[FOREIGN], FOREIGN_TAG)
    missing = tricks(MISSING, world.uuids[FOREIGN][::-1], "tag-of-nobody")

    def ask(filters: list[tuple[str, Any]]) -> tuple[list[Request], list[Answer]]:
        requests: list[Request] = [
            ("PUT", f"/2/query/{kind}", {"fields": ["id" if kind == "job" else "name"], "qfilter": one})
            for kind, one in filters
        ]
        return requests, world.direct(requests, user)

    (requests, found), (_, nothing) = ask(foreign), ask(missing)
    assert world.leaks(requests, user, found) == []
    assert [(request, one, other) for request, one, other in zip(requests, found, nothing) if one != other] == []
    assert {answer[0] for answer in found} == {200, 400}


def test_filters_of_what_is_cut(world: World) -> None:
    """Counts and maps cannot be asked by a filter either: its answer would be the uncut one's."""
    for kind, qfilter in (
        ("node", [">", "pinst_cnt", 2]),
        ("node", ["=", "sinst_cnt", 0]),
        ("group", [">", "node_cnt", 1]),
        ("group", [">", "pinst_cnt", 1]),
        ("network", [">", "inst_cnt", 1]),
        ("network", ["=~", "map", "X"]),
        ("network", ["<", "free_count", 12]),
        ("job", ["=", "user", "x"]),
    ):
        field = "id" if kind == "job" else "name"
        status, _, answer = world.ask("PUT", f"/2/query/{kind}", {"fields": [field], "qfilter": qfilter})
        assert status == 400 and b"may not be used in a filter" in answer, (kind, qfilter, answer)


@pytest.mark.parametrize(
    "body",
    [
        {"fields": "name"}, {"fields": None}, {"fields": {}}, {"fields": [1]}, {"fields": [["name"]]},
        {"fields": ["n\u00e4me"]}, {"fields": ["name", "no-such-field"]}, {"fields": []},
        {"fields": ["name"], "qfilter": "x"}, {"fields": ["name"], "qfilter": []},
        {"fields": ["name"], "qfilter": [[]]},
        {"fields": ["name"], "qfilter": {"=": 1}}, {"fields": ["name"], "qfilter": ["=", "name"]},
        {"fields": ["name"], "qfilter": ["=", "name", "\ud800"]}, {"fields": ["name"], "qfilter": ["\ud800", "a", "b"]},
        {"fields": ["name"], "qfilter": ["=", ["name"], "x"]}, {"fields": ["name"], "qfilter": ["&"] * 3},
        {"fields": ["name"], "qfilter": ["=", "name", 1e400]}, {"fields": ["name"], "filter": ["~", "name", "x"]},
        {"fields": ["name"], "qfilter": ["?", "name", "x"]}, {"fields": ["name"], "qfilter": 0},
    ],
)  # fmt: skip
def test_queries_that_are_none(world: World, body: Any) -> None:
    """Refused, or answered with what is hers: never an error of the server."""
    for user in ("eve", "tess", "dora"):
        answer = world.ask("PUT", "/2/query/instance", body, user)
        assert answer[0] in (200, 400, 403), (user, answer)
        assert world.leaks([("PUT", "/2/query/instance", body)], user, [answer]) == []
