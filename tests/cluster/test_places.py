# SPDX-License-Identifier: BSD-2-Clause
"""Roles that are limited to places: groups, nodes and networks, and where Ganeti puts what they create."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from ganeti import opcodes

from tests.cluster.tenancy import CREATE, INNER, SOURCE, Answer, Tenancy, message_of, tenants
from tests.cluster.vcluster import Cluster

#: `web1` is on node1 and `web2` on node2, in the group left; `db1` on node3, in right.
LEFT, RIGHT = "web1.test.example.com", "db1.prod.example.com"
OUTSIDE_SCOPE = "web2.test.example.com"

PERMISSIONS = """\
    permissions:
      - "@operator"
      - instances.create
      - instances.modify
      - instances.multi_alloc
      - instances.recreate_disks
      - instances.remove
      - tags.set
"""
NODES = """\
    permissions: ["@readonly", nodes.evacuate, nodes.migrate, nodes.modify, nodes.powercycle, nodes.role.modify]
"""
POLICY = f"""\
version: 1
roles:
  by-group:
{PERMISSIONS}
    scope:
      instances: {{group: right}}
    parameters: {{os_type: [noop]}}
  by-both:
{PERMISSIONS}
    scope:
      instances: {{name: "*.test.example.com", group: [left, right]}}
    parameters: {{os_type: [noop]}}
  by-node-group:
{PERMISSIONS}
    scope:
      instances: {{name: "*.test.example.com"}}
      nodes: {{group: right}}
    parameters: {{os_type: [noop]}}
  by-node:
{PERMISSIONS}
    scope:
      instances: {{name: "*.test.example.com"}}
      nodes: {{name: node3}}
    parameters: {{os_type: [noop]}}
  by-network:
{PERMISSIONS}
    scope:
      instances: {{name: "*.test.example.com"}}
      networks: {{name: net1}}
    parameters: {{os_type: [noop]}}
  node-operator:
{NODES}
    scope:
      nodes: {{name: "*"}}
      instances: {{name: "web1.*"}}
  group-operator:
    permissions: ["@readonly", groups.modify, groups.assign_nodes, groups.rename, networks.connect, networks.disconnect]
    scope:
      groups: {{name: [left, new]}}
      nodes: {{group: left}}
      instances: {{name: "web1.*"}}
      networks: {{name: net1}}
    parameters: {{network_mode: "*", network_link: "*"}}
"""
USERS = """\
admin secret write
grace x @by-group
both x @by-both
nora x @by-node-group
noel x @by-node
nick x @by-network
nodes x @node-operator
groups x @group-operator
"""


@pytest.fixture(scope="module", name="places")
def _places(cluster: Cluster) -> Iterator[Tenancy]:
    """Two groups: left has node1 and node2, right has node3; and two networks, which both know."""
    with tenants(cluster, POLICY, USERS) as tenancy:
        connect = [
            opcodes.OpNetworkConnect(
                network_name=network, group_name=group, network_mode="bridged", network_link="br0", network_vlan=""
            )
            for network in ("net1", "net2")
            for group in ("left", "right")
        ]
        tenancy.run(
            # Else a group of one node has no place for anything: the node might fail.
            opcodes.OpClusterSetParams(default_iallocator_params={"no-capacity-checks": None}),
            opcodes.OpGroupRename(group_name="default", new_name="left"),
            opcodes.OpGroupAdd(group_name="right"),
            opcodes.OpGroupAssignNodes(group_name="right", nodes=["node3"]),
            opcodes.OpNetworkAdd(network_name="net1", network="198.51.100.0/28"),
            opcodes.OpNetworkAdd(network_name="net2", network="198.51.100.16/28"),
            *connect,
        )
        before = tenancy.names()
        try:
            yield tenancy
        finally:
            tenancy.remove(*(tenancy.names() - before))
            tenancy.run(
                *(
                    opcodes.OpNetworkDisconnect(network_name=op.network_name, group_name=op.group_name)
                    for op in connect
                ),
                opcodes.OpNetworkRemove(network_name="net1"),
                opcodes.OpNetworkRemove(network_name="net2"),
                opcodes.OpGroupAssignNodes(group_name="left", nodes=["node3"]),
                opcodes.OpGroupRemove(group_name="right"),
                opcodes.OpGroupRename(group_name="left", new_name="default"),
            )


def creations(name: str, **settings: Any) -> list[tuple[str, str, Any]]:
    """The same creation alone and in a multi-alloc."""
    return [
        ("POST", "/2/instances", {**CREATE, "name": name, **settings}),
        ("POST", "/2/instances-multi-alloc", {"instances": [{**INNER, "name": name, **settings}]}),
    ]


def inner(opcode: dict[str, Any]) -> dict[str, Any]:
    """The creation that a job is, or holds."""
    found: dict[str, Any] = opcode.get("instances", [opcode])[0]
    return found


def place_of(places: Tenancy, name: str) -> str:
    """The group that an instance is in."""
    (row,) = places.cluster.luxi("Query", "instance", ["pnode.group"], ["=", "name", name])["data"]
    return str(row[0][1])


def refusals(places: Tenancy, requests: list[tuple[str, str, Any]], user: str) -> list[Answer]:
    """The answers to requests that must make no job."""
    with places.no_job():
        return places.ask_all(requests, user)


# --- groups ------------------------------------------------------------------------------


@pytest.mark.parametrize(("user", "settings"), [("grace", {}), ("nora", {}), ("grace", {"group_name": "right"})])
def test_a_creation_goes_to_the_one_group(places: Tenancy, user: str, settings: dict[str, Any]) -> None:
    """Its name is written into the opcode, which Ganeti's allocator obeys."""
    name = "placed.test.example.com"
    job = places.submit(*creations(name, **settings)[0], user=user)
    assert places.stored(job)[0]["group_name"] == "right"
    status, result = places.cluster.job(job)
    assert status == "success" and place_of(places, name) == "right", result
    places.remove(name)


def test_several_at_once_are_put_anywhere(places: Tenancy) -> None:
    """Ganeti's allocator looks for the group's name where a multi-alloc has none, so none is relied on."""
    name = "several.test.example.com"
    nested = [
        opcodes.OpInstanceCreate(
            instance_name=name, mode="create", disk_template="diskless", disks=[], nics=[], os_type="noop",
            hypervisor="fake", beparams={"memory": 128}, name_check=False, ip_check=False, group_name="right",
        )
    ]  # fmt: skip
    op = opcodes.OpInstanceMultiAlloc(instances=nested)
    op.Validate(True)
    places.run(opcodes.OpGroupSetParams(group_name="right", alloc_policy="unallocable"))
    try:
        status, result = places.cluster.job(places.cluster.luxi("SubmitJob", [op.__getstate__()]))
        # Once this fails, Ganeti obeys: then the refusal below can be lifted for such a version.
        assert status == "success", result
        for _, child in result[0]["jobs"]:
            assert places.cluster.job(child)[0] == "success"
        assert place_of(places, name) == "left"
        places.remove(name)
    finally:
        places.run(opcodes.OpGroupSetParams(group_name="right", alloc_policy="preferred"))
    for user in ("grace", "nora", "both"):
        tried = [creations(name, **settings)[1] for settings in ({}, {"group_name": "right"})]
        for answer in refusals(places, tried, user):
            assert answer[0] == 403 and "parameter pnode must name a node" in message_of(answer), answer


def test_several_groups(places: Tenancy) -> None:
    """The choice is hers, and must be made: 403 says so; made, it is kept."""
    name = "several.test.example.com"
    (answer,) = refusals(places, creations(name)[:1], "both")
    assert answer[0] == 403 and "group_name must name one of left, right" in message_of(answer)
    with places.paused():
        for group in ("left", "right"):
            job = places.submit(*creations(name, group_name=group)[0], user="both")
            assert places.stored(job)[0]["group_name"] == group
        # A node chooses the group, too.
        requests = [*creations(name, pnode="node3"), *creations(name, pnode="node3", group_name="right")]
        for answer in refusals(places, requests, "both"):
            assert answer[0] == 403 and "parameter pnode may not be set" in message_of(answer)


def test_other_groups(places: Tenancy) -> None:
    """Another group, and one that is not there, are the same bytes; so are a group's other spellings."""
    name = "other.test.example.com"
    spellings = ["left", "none", "Right", "RIGHT", "righ", "right.", ""]
    requests = [request for group in spellings for request in creations(name, group_name=group)]
    for user in ("grace", "nora"):
        answers = refusals(places, requests, user)
        assert {repr(answer) for answer in answers[:4]} == {repr(answers[0])} and answers[0][0] == 404
        assert {answer[0] for answer in answers[4:]} <= {400, 404}
    (uuid,) = {row[0] for row in places.cluster.luxi("QueryGroups", ["right"], ["uuid"], False)}
    assert {answer[0] for answer in refusals(places, creations(name, group_name=uuid), "grace")} == {404}


def test_instances_by_group(places: Tenancy) -> None:
    """One is hers where all its nodes are, whatever it is called."""
    assert [row["id"] for row in json.loads(places.ask("GET", "/2/instances", user="grace")[2])] == [RIGHT]
    assert {one["id"] for one in json.loads(places.ask("GET", "/2/instances", user="both")[2])} == {LEFT, OUTSIDE_SCOPE}
    paths = [f"/2/instances/{name}/reboot" for name in (LEFT, OUTSIDE_SCOPE, "none.test.example.com")]
    answers = refusals(places, [("POST", path, None) for path in paths], "grace")
    assert answers[0][0] == 404 and answers[0] == answers[1] == answers[2]
    with places.paused():
        (opcode,) = places.stored(places.submit("POST", f"/2/instances/{RIGHT}/reboot", user="grace"))
        assert opcode["instance_uuid"] == places.uuid(RIGHT)
        # A move is not hers to aim.
        (answer,) = refusals(places, [("PUT", f"/2/instances/{RIGHT}/failover", {"target_node": "node1"})], "grace")
        assert answer[0] == 403 and "parameter target_node may not be set" in message_of(answer)


# --- nodes -------------------------------------------------------------------------------


def test_single_nodes(places: Tenancy) -> None:
    """She must name one that is inside; a foreign one is like none; the allocator is not asked."""
    name = "single.test.example.com"
    for answer in refusals(places, creations(name), "noel"):
        assert answer[0] == 403 and "parameter pnode must name a node" in message_of(answer)
    for user in ("noel", "nora"):
        outside = ["node1", "node9", "Node3", "node3.", "NODE3", "node"]
        requests = [request for node in outside for request in creations(name, pnode=node)]
        requests += [request for node in outside for request in creations(name, pnode="node3", snode=node)]
        answers = refusals(places, requests, user)
        assert {repr(answer) for answer in answers} == {repr(answers[0])} and answers[0][0] == 404
        # A second key for the same thing, alone and beside the first.
        (uuid,) = places.cluster.luxi("QueryNodes", ["node1"], ["uuid"], False)[0]
        for settings in ({"pnode_uuid": uuid}, {"pnode": "node3", "pnode_uuid": uuid}):
            for answer in refusals(places, creations(name, **settings), user):
                assert answer[0] == 403 and "pnode" in message_of(answer), settings
        # The group of that node may be named beside it; another one is like none.
        requests = [one for group in ("left", "none") for one in creations(name, pnode="node3", group_name=group)]
        answers = refusals(places, requests, user)
        assert {repr(answer) for answer in answers} == {repr(answers[0])} and answers[0][0] == 404
        with places.paused():
            places.submit(*creations(name, pnode="node3", group_name="right")[0], user=user)


def test_a_creation_on_a_node(places: Tenancy) -> None:
    """The node that was decided on is written with its UUID, and that is where the instance is."""
    names = ["node-a.test.example.com", "node-b.test.example.com"]
    (uuid,) = places.cluster.luxi("QueryNodes", ["node3"], ["uuid"], False)[0]
    requests = [creations(names[0], pnode="node3")[0], creations(names[1], pnode="node3")[1]]
    with places.paused(then_run=True):
        jobs = [places.submit(*request, user="noel") for request in requests]
        for job in jobs:
            opcode = inner(places.stored(job)[0])
            assert (opcode["pnode"], opcode["pnode_uuid"]) == ("node3", uuid)
    for job in jobs:
        status, result = places.cluster.job(job)
        assert status == "success", result
        for _, child in result[0]["jobs"] if isinstance(result[0], dict) else ():
            assert places.cluster.job(child)[0] == "success"
    assert {name: place_of(places, name) for name in names} == dict.fromkeys(names, "right")
    places.remove(*names)


def test_where_an_instance_is_moved(places: Tenancy) -> None:
    """Without a target the allocator would choose any node of the instance's group."""
    for user in ("noel", "nora"):
        requests: list[Any] = [("PUT", f"/2/instances/{LEFT}/{action}", {}) for action in ("migrate", "failover")]
        for answer in refusals(places, requests, user):
            assert answer[0] == 403 and "target_node" in message_of(answer)
        with places.paused():
            for method, path, _ in requests:
                (opcode,) = places.stored(places.submit(method, path, {"target_node": "node3"}, user))
                assert opcode["target_node"] == "node3" and opcode["target_node_uuid"]
    with places.paused():  # who is limited by names alone may move what is his
        places.submit("PUT", f"/2/instances/{LEFT}/failover", {}, "nick")


def test_an_operator_of_nodes(places: Tenancy) -> None:
    """What is done to a node is done to all instances on it: these must be inside, too."""
    requests: list[tuple[str, str, Any]] = [
        ("POST", "/2/nodes/NODE/evacuate", {"mode": "all"}),
        ("POST", "/2/nodes/NODE/migrate", {}),
        ("POST", "/2/nodes/NODE/modify", {"drained": True}),
        ("POST", "/2/nodes/NODE/powercycle", {}),
        ("PUT", "/2/nodes/NODE/role", "drained"),
    ]

    def on(node: str) -> list[tuple[str, str, Any]]:
        return [(method, path.replace("NODE", node), body) for method, path, body in requests]

    foreign, missing = (refusals(places, on(node), "nodes") for node in ("node2", "node9"))
    assert foreign == missing and {answer[0] for answer in foreign} == {404}
    (uuid,) = places.cluster.luxi("QueryNodes", ["node1"], ["uuid"], False)[0]
    with places.paused():
        for method, path, body in on("node1"):
            (opcode,) = places.stored(places.submit(method, path, body, "nodes"))
            assert (opcode["node_name"], opcode["node_uuid"]) == ("node1", uuid)
            assert opcode["reason"][0][:2] == [SOURCE, "nodes"]
        # Where to is a node that she has, too: this one she has, but not by the name of a missing one.
        status = places.ask("POST", "/2/nodes/node1/evacuate", {"mode": "all", "remote_node": "node9"}, "nodes")[0]
        assert status == 404
        # What is on it when the job runs may be another's: it cannot be put off.
        for key, value in (("priority", 10), ("priority", -10)):
            answer = places.ask("POST", "/2/nodes/node1/evacuate", {"mode": "all", key: value}, "nodes")
            assert answer[0] == 403 and key in message_of(answer)


def test_an_operator_of_groups(places: Tenancy) -> None:
    """A group that holds an instance of others may be neither changed nor renamed, nor disconnected."""
    requests: list[tuple[str, str, Any]] = [
        ("PUT", "/2/groups/GROUP/modify", {"alloc_policy": "preferred"}),
        ("PUT", "/2/groups/GROUP/rename", {"new_name": "new"}),
        ("PUT", "/2/groups/GROUP/assign-nodes", {"nodes": ["node1"]}),
        ("PUT", "/2/networks/net1/disconnect", {"group_name": "GROUP"}),
    ]

    def on(group: str) -> list[tuple[str, str, Any]]:
        return [
            (method, path.replace("GROUP", group), {k: v if v != "GROUP" else group for k, v in body.items()})
            for method, path, body in requests
        ]

    with_others, foreign, missing = (refusals(places, on(group), "groups") for group in ("left", "right", "none"))
    assert with_others == foreign == missing and {answer[0] for answer in foreign} == {404}
    settings = {"network_mode": "bridged", "network_link": "br0"}
    with places.paused():
        body = {"group_name": "left", **settings}
        (opcode,) = places.stored(places.submit("PUT", "/2/networks/net1/connect", body, "groups"))
        assert opcode["group_name"] == "left"
    for path, group in (("net1", "right"), ("net1", "none"), ("net2", "left"), ("none", "left")):
        body = {"group_name": group, **settings}
        assert refusals(places, [("PUT", f"/2/networks/{path}/connect", body)], "groups")[0][0] == 404


# --- networks ----------------------------------------------------------------------------


def test_networks_of_cards(places: Tenancy) -> None:
    """A card may be in hers, which is pinned by its UUID; another one is like none; without any, 403."""
    name = "card.test.example.com"
    (uuid,) = places.cluster.luxi("QueryNetworks", ["net1"], ["uuid"], False)[0]
    own = [*creations(name, nics=[{"network": "net1", "ip": "pool"}])]
    own.append(("PUT", f"/2/instances/{LEFT}/modify", {"nics": [["add", {"network": "net1", "ip": "pool"}]]}))
    with places.paused():
        for request in own:
            opcode = inner(places.stored(places.submit(*request, user="nick"))[0])
            nic = opcode["nics"][0]
            assert (nic if isinstance(nic, dict) else nic[-1])["network"] == uuid
    for network in ("net2", "absent", "Net1", "NET1", "net", uuid):
        settings = {"network": network, "ip": "pool"}
        tried = creations(name, nics=[settings]) + creations(name, nics=[{"network": "net1"}, settings])
        for entry in (["add", settings], ["modify", 0, settings], [0, settings], ["add", -1, settings]):
            tried.append(("PUT", f"/2/instances/{LEFT}/modify", {"nics": [entry]}))
        answers = refusals(places, tried, "nick")
        assert {repr(answer) for answer in answers} == {repr(answers[0])} and answers[0][0] == 404, network
        # Whose role is about no network is told so, whatever it is called.
        for answer in refusals(places, tried, "both"):
            assert answer[0] == 403 and "network" in message_of(answer), network
