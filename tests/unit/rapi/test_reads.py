# SPDX-License-Identifier: BSD-2-Clause
"""What a limited user reads: his own rows, cut to what he may see, and nothing that tells of others."""

from __future__ import annotations

from typing import Any

import pytest
from ganeti import constants, http, query

from ganeti_ext.policy.accounts import Account, resolve
from ganeti_ext.policy.loader import load_policy
from ganeti_ext.rapi.audit import Record
from ganeti_ext.rapi.client import AccessClient
from ganeti_ext.rapi.jobs import REASON_SOURCE
from ganeti_ext.rapi.lookup import RESOURCE
from ganeti_ext.rapi.reads import _BLANK, _COUNTS, _LISTS, _OWN
from tests.unit.rapi import fake
from tests.unit.rapi.fake import INSTANCE, NODE, Cluster, Server

pytestmark = pytest.mark.usefixtures("registered")

POLICY = """\
version: 1
roles:
  tenant:
    permissions: ["@operator"]
    scope:
      instances: {name: "*.test.example.com"}
      nodes: {name: node1.example.com}
      groups: {name: group1}
      networks: {name: network1}
  tagged:
    permissions: ["@readonly"]
    scope: {instances: {tag: "tenant:*"}}
  few:
    permissions: [query.all, instances.list, instances.query]
    scope: {instances: {name: "*.test.example.com"}}
  console-of-one:
    permissions: [instances.query.console]
    scope: {instances: {name: "web1.test.example.com"}}
deny:
  - {users: kept, permissions: [query.all, instances.list, instances.query, tags.get], instances: {tag: keep}}
  - {users: vague, permissions: [query.all, instances.list, instances.query], instances: {tag: "ke*", group: group1}}
"""
USERS = """\
she @tenant
tag @tagged
few @few
both @few,@console-of-one
reader @readonly
kept write
vague write
noc @operator
root write
"""
OWN = ["web1.test.example.com", "web2.test.example.com"]
OTHER = "db1.prod.example.com"
NOTHING = ["!", ["=~", "name", "^"]]


@pytest.fixture
def cluster() -> Cluster:
    cluster = Cluster({})
    cluster.add("group", "group2")
    cluster.add("node", "node2.example.com", group="group2")
    cluster.add("network", "network2", groups=("group1", "group2"))
    cluster.things["network"]["network1"].groups = ("group1", "group2")
    both = (NODE, "node2.example.com")
    cluster.add("instance", OWN[0], nodes=both, networks=("network1",), tags=("tenant:a",))
    cluster.add("instance", OWN[1], nodes=both[::-1], networks=("network1",), tags=("keep",))
    cluster.add("instance", OTHER, nodes=both, networks=("network1",), tags=("keep", "tenant:b"))
    cluster.add("instance", "Odd.test.example.com", tags=("tenant:c",))
    return cluster


@pytest.fixture
def server(cluster: Cluster) -> Server:
    return Server(USERS, POLICY, cluster)


def names(body: Any) -> list[Any]:
    """The names in a list or in the answer to a query."""
    if isinstance(body, dict):
        return sorted(row[0][1] for row in body["data"])
    return sorted(row.get("name") or row.get("id") for row in body)


def query_as(server: Server, user: str, what: str = "instance", fields: Any = ("name",), qfilter: Any = None) -> Any:
    return server.ask("PUT", f"/2/query/{what}", user, {"fields": list(fields), "qfilter": qfilter})


# Lists.


@pytest.mark.parametrize(
    ("user", "seen"),
    [
        ("she", OWN),
        ("few", OWN),
        ("tag", [OWN[0], OTHER]),  # `Odd…` is no name that a scope can hold
        ("kept", [OWN[0], "Odd.test.example.com"]),
        ("vague", [OWN[0], "Odd.test.example.com"]),
        ("reader", sorted([*OWN, OTHER, "Odd.test.example.com"])),
        ("root", sorted([*OWN, OTHER, "Odd.test.example.com"])),
    ],
)
def test_instances(server: Server, user: str, seen: list[str]) -> None:
    seen = sorted(seen)
    assert names(server.ask("GET", "/2/instances", user).body) == seen
    assert names(server.ask("GET", "/2/instances?bulk=1", user).body) == seen
    assert names(query_as(server, user).body) == seen
    assert names(server.ask("GET", "/2/query/instance?fields=name,tags", user).body) == seen


@pytest.mark.parametrize("kind", ["node", "group", "network"])
def test_other_kinds(server: Server, kind: str) -> None:
    own = NODE if kind == "node" else f"{kind}1"
    for path in (f"/2/{kind}s", f"/2/{kind}s?bulk=1"):
        assert names(server.ask("GET", path, "she").body) == [own]
        assert server.ask("GET", path, "few").status == 403
        assert len(server.ask("GET", path, "reader").body) == 2
        assert server.ask("GET", path, "tag").body == []
    assert names(query_as(server, "she", kind).body) == [own]


def test_lists_inside_of_other_objects_are_cut(server: Server) -> None:
    (node,) = server.ask("GET", "/2/nodes?bulk=1", "she").body
    assert (node["pinst_list"], node["pinst_cnt"]) == ([OWN[0]], 1)
    assert (node["sinst_list"], node["sinst_cnt"]) == ([OWN[1]], 1)
    (group,) = server.ask("GET", "/2/groups?bulk=1", "she").body
    assert (group["node_list"], group["node_cnt"]) == ([NODE], 1)
    (network,) = server.ask("GET", "/2/networks?bulk=1", "she").body
    assert sorted(network["inst_list"]) == OWN
    assert network["group_list"] == [["group1", "bridged", "br0", ""]]
    for field in ("map", "free_count", "reserved_count", "external_reservations"):
        assert network[field] is None
    assert server.ask("GET", "/2/networks/network1", "reader").body["map"] == "XX..XX"
    assert server.ask("GET", f"/2/nodes/{NODE}", "reader").body["pinst_cnt"] == 3


def test_the_answer_says_the_fields_that_were_asked_for(server: Server) -> None:
    answer = query_as(server, "she", "node", ["pinst_cnt", "name", "pinst_list"]).body
    assert [(field["name"], field["kind"]) for field in answer["fields"]] == [
        ("pinst_cnt", constants.QFT_NUMBER),
        ("name", constants.QFT_TEXT),
        ("pinst_list", constants.QFT_OTHER),
    ]
    assert answer["data"] == [[[0, 1], [0, NODE], [0, [OWN[0]]]]]
    empty = query_as(server, "tag", "node", ["name"]).body
    assert (empty["data"], [field["name"] for field in empty["fields"]]) == ([], ["name"])


def test_a_deny_cuts_what_is_inside_of_objects_too(server: Server) -> None:
    assert sorted(server.ask("GET", "/2/query/node?fields=pinst_list,name", "kept").body["data"][0][0][1]) == [
        "Odd.test.example.com",
        OWN[0],
    ]


# One object.


@pytest.mark.parametrize(
    ("path", "gone"),
    [
        (f"/2/instances/{OTHER}", "/2/instances/gone.prod.example.com"),
        ("/2/instances/web1", "/2/instances/gone.test.example.com"),
        ("/2/instances/uuid-of-web1.test.example.com", "/2/instances/gone.test.example.com"),
        ("/2/instances/WEB1.TEST.EXAMPLE.COM", "/2/instances/gone.test.example.com"),
        ("/2/instances/Odd.test.example.com", "/2/instances/gone.test.example.com"),
        (f"/2/instances/{OTHER}/tags", "/2/instances/gone.prod.example.com/tags"),
        (f"/2/instances/{OTHER}/console", "/2/instances/gone.prod.example.com/console"),
        (f"/2/instances/{OTHER}/info", "/2/instances/gone.prod.example.com/info"),
        ("/2/nodes/node2.example.com", "/2/nodes/gone.example.com"),
        ("/2/nodes/node2.example.com/role", "/2/nodes/gone.example.com/role"),
        ("/2/nodes/node2.example.com/tags", "/2/nodes/gone.example.com/tags"),
        ("/2/groups/group2", "/2/groups/gone"),
        ("/2/groups/group2/tags", "/2/groups/gone/tags"),
        ("/2/networks/network2", "/2/networks/gone"),
        ("/2/networks/network2/tags", "/2/networks/gone/tags"),
    ],
)
def test_what_is_outside_is_as_what_is_not_there(server: Server, path: str, gone: str) -> None:
    answer, expected = server.ask("GET", path, "she"), server.ask("GET", gone, "she")
    assert (answer.status, answer.body) == (expected.status, expected.body)
    assert answer.status == 404
    assert server.ask("GET", path, "root").status in (200, 404)


@pytest.mark.parametrize(
    "path",
    [
        f"/2/instances/{OWN[0]}",
        f"/2/instances/{OWN[0]}/tags",
        f"/2/instances/{OWN[0]}/console",
        f"/2/nodes/{NODE}",
        f"/2/nodes/{NODE}/role",
        f"/2/nodes/{NODE}/tags",
        "/2/groups/group1",
        "/2/groups/group1/tags",
        "/2/networks/network1",
        "/2/networks/network1/tags",
    ],
)
def test_what_is_inside_is_read(server: Server, path: str) -> None:
    answer = server.ask("GET", path, "she")
    assert answer.status == 200
    assert answer.calls[-1].name == "Query"
    if path not in ("/2/groups/group1", f"/2/nodes/{NODE}", "/2/networks/network1"):
        assert answer.body == server.ask("GET", path, "root").body


def test_a_deny_hides_one_object(server: Server) -> None:
    for path in (f"/2/instances/{OTHER}", f"/2/instances/{OTHER}/tags"):
        answer = server.ask("GET", path, "kept")
        assert (answer.status, answer.body) == (404, server.ask("GET", "/2/instances/gone", "kept").body)
    assert server.ask("GET", f"/2/instances/{OWN[0]}", "kept").status == 200
    assert server.ask("GET", "/2/nodes/node2.example.com", "kept").status == 200


def test_the_clusters_tags_are_for_no_limited_role(server: Server) -> None:
    assert server.ask("GET", "/2/tags", "she").status == 404
    assert server.ask("GET", "/2/tags", "reader").body == ["blue"]


def test_the_cluster_info_is_cut(server: Server) -> None:
    info = server.ask("GET", "/2/info", "she").body
    assert info["default_hypervisor"] == "fake"
    assert {"master", "candidate_certs"}.isdisjoint(info)
    assert "candidate_certs" in server.ask("GET", "/2/info", "reader").body


# Queries.


@pytest.mark.parametrize("what", ["lock", "export", "os", "extstorage", "cluster", "filter", "nonsense"])
def test_other_resources_are_for_no_limited_role(server: Server, what: str) -> None:
    assert query_as(server, "she", what).status == 403
    assert server.ask("GET", f"/2/query/{what}/fields", "she").status == 403
    assert query_as(server, "reader", what).status == 200


@pytest.mark.parametrize("what", ["instance", "node", "group", "network", "job"])
def test_the_fields_of_a_resource(server: Server, what: str) -> None:
    assert server.ask("GET", f"/2/query/{what}/fields", "she").status == 200


@pytest.mark.parametrize(
    ("what", "field"), [("node", "nonsense"), ("node", "later"), ("group", "x"), ("network", "y"), ("node", "hv/x")]
)
def test_a_field_that_nobody_has_looked_at_is_refused(server: Server, what: str, field: str) -> None:
    answer = query_as(server, "she", what, ["name", field])
    assert answer.status == 403
    assert field in answer.message
    assert query_as(server, "she", what, ["name"], ["?", field]).status == 400


@pytest.mark.parametrize("fields", [[5], [None], [["name"]], ["n\u00e4me"]], ids=ascii)
def test_fields_that_are_none(server: Server, fields: list[Any]) -> None:
    assert query_as(server, "she", "instance", fields).status == 403


@pytest.mark.parametrize("kind", RESOURCE)
def test_every_field_of_this_ganeti_was_looked_at(kind: str) -> None:
    known = query.ALL_FIELDS[RESOURCE[kind]].keys()
    own = _OWN[kind]
    named = {*_LISTS[kind], *_COUNTS[kind], *_BLANK[kind]}
    assert named <= known
    if own is not None:
        assert own - known <= {"disk_state", "hv_state"}  # of nodes alone in some releases
        left = {field for field in known - own - named if not field.startswith("ndp/")}
        assert left <= {"custom_ndparams", "master"}


@pytest.mark.parametrize("kind", ["node", "group", "network"])
def test_a_filter_names_no_list_of_others(server: Server, kind: str) -> None:
    for field in {*_LISTS[kind], *_COUNTS[kind], *_BLANK[kind]}:
        assert query_as(server, "she", kind, ["name"], ["?", field]).status == 400, field


@pytest.mark.parametrize(
    ("qfilter", "seen"),
    [
        (["=~", "name", "web"], OWN),
        (["=", "name", OWN[0]], OWN[:1]),
        (["=", "name", OTHER], []),
        (["=", "name", "gone"], []),
        (["!", ["=[]", "tags", "keep"]], OWN[:1]),
        (["|", ["=", "name", OTHER], ["=", "name", OWN[1]]], OWN[1:]),
        (["&"], OWN),
        (["|"], []),
    ],
)
def test_a_users_own_filter(server: Server, qfilter: Any, seen: list[str]) -> None:
    for user in ("she", "few"):
        assert names(query_as(server, user, qfilter=qfilter).body) == seen


@pytest.mark.parametrize("user", ["she", "tag", "vague", "kept"])
def test_a_users_filter_is_tried_on_his_own_rows_alone(cluster: Cluster, user: str) -> None:
    """It fails on a row with a wrong type, which tells what is in it (`threats.md`)."""
    server = Server(USERS, POLICY, cluster)
    for thing in cluster.things["instance"].values():
        thing.more["os"] = 5 if thing.name in (OTHER, "Odd.test.example.com") else "noop"
    hidden = OTHER if user != "tag" else OWN[1]
    for thing in cluster.things["instance"].values():
        thing.more["os"] = 5 if thing.name == hidden or (user == "she" and thing.name.startswith("Odd")) else "noop"
    assert query_as(server, user, qfilter=["=", "os", "noop"]).status == 200
    cluster.things["instance"][OWN[0]].more["os"] = 5
    answer = query_as(server, user, qfilter=["=", "os", "noop"])
    assert answer.status == 400
    assert answer.message == "luxid refused the request"


@pytest.mark.parametrize("qfilter", [["&", 5], {}, [], "name", ["?"], ["=", "name", None]], ids=str)
def test_a_filter_that_is_none(server: Server, qfilter: Any) -> None:
    assert query_as(server, "she", qfilter=qfilter).status == 400


def test_a_scope_that_luxid_cannot_say_is_decided_on_in_python(server: Server) -> None:
    """Patterns of tags: first the names are found, then his filter is tried on them."""
    answer = query_as(server, "tag", qfilter=["=~", "name", "."])
    assert names(answer.body) == [OTHER, OWN[0]]
    asked = [call.arguments[2] for call in answer.calls if call.name == "Query"]
    assert len(asked) == 2
    assert asked[1] == [
        "&",
        ["&", ["=~", "name", r"^(db1\.prod\.example\.com|web1\.test\.example\.com)$"], ["!", ["=~", "name", "\n"]]],
        ["=~", "name", "."],
    ]


def test_nothing_seen_is_no_row(server: Server, cluster: Cluster) -> None:
    for thing in cluster.things["instance"].values():
        thing.tags = ()
    answer = query_as(server, "tag", qfilter=["=~", "name", "."])
    assert (answer.body["data"], answer.calls[-1].arguments[2]) == ([], NOTHING)


def test_what_luxid_is_asked_is_the_scope(server: Server) -> None:
    (call,) = server.ask("GET", "/2/instances", "she").calls
    assert call.arguments[2] == ["=~", "name", r"^(.*\.test\.example\.com)$"]
    (call,) = server.ask("GET", "/2/instances", "kept").calls
    assert call.arguments[2] == ["!", ["=[]", "tags", "keep"]]


# Consoles.


@pytest.mark.parametrize(
    ("user", "status"), [("she", 200), ("noc", 200), ("root", 200), ("few", 403), ("reader", 403), ("both", 200)]
)
def test_a_console_in_a_query_needs_its_own_permission(server: Server, user: str, status: int) -> None:
    assert query_as(server, user, fields=["name", "console"]).status == status
    # To ask for it in a filter is to ask for it.
    for thing in server.cluster.things["instance"].values():
        thing.more["console"] = fake.NO_DATA
    answer = query_as(server, user, qfilter=["?", "console"])
    assert answer.status == (200 if status == 200 else 400)


def test_a_console_is_shown_where_both_permissions_reach(server: Server) -> None:
    assert names(query_as(server, "both", fields=["name"]).body) == OWN
    assert names(query_as(server, "both", fields=["name", "console"]).body) == OWN[:1]
    # A comparison with it fails on a row that has one, and is true on one that has none.
    server.cluster.things["instance"][OWN[0]].more["console"] = fake.NO_DATA
    answer = query_as(server, "both", fields=["name"], qfilter=["?", "console"])
    assert (answer.status, names(answer.body)) == (200, OWN[:1])


# Jobs.


def own_job(user: str = "she") -> list[dict[str, Any]]:
    return [{"OP_ID": "OP_X", "reason": [[REASON_SOURCE, user, 1]]}]


def test_lists_of_jobs_hold_the_own_alone(server: Server) -> None:
    server.cluster.jobs.update({41: own_job("he"), 42: own_job(), 43: own_job()})
    assert [row["id"] for row in server.ask("GET", "/2/jobs", "she").body] == [42, 43]
    assert [row["id"] for row in server.ask("GET", "/2/jobs?bulk=1", "she").body] == [42, 43]
    assert names(query_as(server, "she", "job", ["id"]).body) == [42, 43]
    assert names(query_as(server, "she", "job", ["id"], ["=", "id", 43]).body) == [43]
    assert names(query_as(server, "she", "job", ["id"], ["=", "id", 41]).body) == []
    assert names(query_as(server, "tag", "job", ["id"]).body) == []
    assert len(server.ask("GET", "/2/jobs", "reader").body) == 4


@pytest.mark.parametrize("field", ["ops", "summary", "opresult", "received_ts", "nonsense"])
def test_a_filter_of_jobs_names_what_luxid_can_compare(server: Server, field: str) -> None:
    answer = query_as(server, "she", "job", ["id"], ["=~", field, "x"])
    assert (answer.status, answer.calls) == (400, [])


def test_a_job_tells_nothing_of_others(server: Server) -> None:
    said = {"opresult": [[f"moved {OTHER} and {OWN[0]}"]], "oplog": [[[1, 2, "message", f"see {OTHER}, {OWN[1]}"]]]}
    server.cluster.jobs[42] = own_job()
    server.cluster.said[42] = said
    job = server.ask("GET", "/2/jobs/42", "she").body
    assert job["opresult"] == [[f"moved \u2026 and {OWN[0]}"]]
    assert job["oplog"] == [[[1, 2, "message", f"see \u2026, {OWN[1]}"]]]
    waited = server.ask("GET", "/2/jobs/42/wait", "she", {"fields": ["opresult", "status"]}).body
    assert waited["job_info"] == [[[f"moved \u2026 and {OWN[0]}"]], "success"]
    assert waited["log_entries"] == [[1, 2, "message", f"see \u2026, {OWN[1]}"]]
    queried = query_as(server, "she", "job", ["id", "opresult"]).body
    assert queried["data"] == [[[0, 42], [0, [[f"moved \u2026 and {OWN[0]}"]]]]]
    assert server.ask("GET", "/2/jobs/42", "root").body["opresult"] == said["opresult"]


# The client's own calls.


def client(server: Server, user: str, permission: str) -> AccessClient:
    policy = load_policy(POLICY.encode(), "policy")
    grants = resolve(server.users[user].tokens, policy)
    assert grants is not None
    return AccessClient(server.cluster.client, Account(user, grants, policy), permission, Record("GET", "/"))


def test_more_than_one_name_is_for_no_limited_role(server: Server) -> None:
    """No handler asks so: luxid answers with the rows of all."""
    with pytest.raises(http.HttpNotFound):
        client(server, "she", "instances.query").QueryInstances(OWN, ["name"], False)
    assert client(server, "noc", "instances.query").QueryInstances(OWN, ["name"], False) == [[OWN[0]], [OWN[1]]]
    assert client(server, "she", "jobs.query").QueryJobs([7, 8], ["id"]) == [None]


def test_without_limits_the_call_is_ganetis(server: Server) -> None:
    before = len(server.cluster.calls)
    own = client(server, "noc", "instances.list")
    own.QueryInstances([], ["name"], True)
    own.QueryTags("instance", OWN[0])
    own.QueryClusterInfo()
    assert [call.name for call in server.cluster.calls[before:]] == ["QueryInstances", "QueryTags", "QueryClusterInfo"]


def test_a_query_of_anything_is_what_it_is_in_stock_for_who_sees_all(server: Server) -> None:
    stock = Server("root write", cluster=server.cluster, cls=fake.STOCK)
    for what in ("instance", "node", "group", "network", "job", "lock"):
        assert query_as(server, "noc", what).body == query_as(stock, "root", what).body


def test_info_is_a_job_on_the_own_instance(server: Server) -> None:
    answer = server.ask("GET", f"/2/instances/{INSTANCE}/info?static=1", "she")
    assert answer.status == 200
    (ops,) = server.cluster.submitted
    assert ops[0]["instances"] == [INSTANCE]
