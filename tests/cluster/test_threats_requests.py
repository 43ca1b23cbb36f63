# SPDX-License-Identifier: BSD-2-Clause
"""What attackers do (threats.md), by its rows: getting around the check."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.cluster.test_unconfigured import endpoints
from tests.cluster.world import CREATE, EVES, EVES_INNER, INNER, MALLORYS, OTHERS, SOURCE, VAULT, World

OWN = EVES[1]
VICTIM, PREFIX = OTHERS[1], "evil.test.example.com"
OPEN = {"/", "/2", "/version", "/2/features"}
NEW = "new.test.example.com"

#: Something on each endpoint that is about one instance.
ON_INSTANCE: list[tuple[str, str, Any]] = [
    ("GET", "", None),
    ("GET", "/info", None),
    ("GET", "/tags", None),
    ("GET", "/console", None),
    ("DELETE", "", None),
    ("POST", "/reboot", None),
    ("PUT", "/startup", None),
    ("PUT", "/shutdown", {}),
    ("PUT", "/tags?tag=x", None),
    ("DELETE", "/tags?tag=x", None),
    ("POST", "/reinstall", None),
    ("POST", "/reinstall?os=noop&nostartup=1", None),
    ("POST", "/replace-disks", {"mode": "replace_on_primary", "disks": [0]}),
    ("PUT", "/activate-disks", None),
    ("PUT", "/deactivate-disks", None),
    ("POST", "/recreate-disks", {"disks": [0]}),
    ("PUT", "/migrate", {"mode": "live"}),
    ("PUT", "/failover", {}),
    ("PUT", "/rename", {"new_name": NEW}),
    ("PUT", "/modify", {"beparams": {"vcpus": 2}}),
    ("POST", "/disk/0/grow", {"amount": 1}),
    ("PUT", "/prepare-export?mode=local", None),
    ("PUT", "/export", {"target_node": "node1"}),
]

Request = tuple[str, str, str, Any]


def refused(world: World, requests: list[Request], *statuses: int) -> None:
    """All of them get one of the statuses, and no job."""
    with world.no_job():
        answers = [world.ask(*request) for request in requests]
    assert [(r, a) for r, a in zip(requests, answers) if a[0] not in statuses] == []


def on(user: str, name: str, requests: list[tuple[str, str, Any]] = ON_INSTANCE) -> list[Request]:
    """Requests about an instance."""
    return [(user, method, f"/2/instances/{name}{path}", body) for method, path, body in requests]


def test_what_belongs_to_everybody(world: World) -> None:
    """One list object was shared by 51 handlers, so a role on one opened the cluster, nodes, groups, networks, filters.

    Here for both tenants, in odd spellings of the method too, and with one's own name where another's belongs.
    """
    node = "node3"
    requests: list[tuple[str, str, Any]] = [
        ("PUT", "/2/modify", {"beparams": {"memory": 1}}),
        ("PUT", "/2/redistribute-config", None),
        ("PUT", "/2/tags?tag=x", None),
        ("DELETE", "/2/tags?tag=x", None),
        ("PUT", f"/2/nodes/{node}/role?force=1", "offline"),
        ("POST", f"/2/nodes/{node}/migrate", {"mode": "live"}),
        ("POST", f"/2/nodes/{node}/migrate?live=1", None),
        ("POST", f"/2/nodes/{node}/evacuate", {"mode": "all"}),
        ("POST", f"/2/nodes/{node}/powercycle?force=1", None),
        ("POST", f"/2/nodes/{node}/modify", {"offline": True}),
        ("PUT", f"/2/nodes/{node}/tags?tag=x", None),
        ("PUT", f"/2/nodes/{node}/storage/repair?storage_type=lvm-vg&name=xenvg", None),
        ("PUT", f"/2/nodes/{node}/storage/modify?storage_type=lvm-pv&name=x&allocatable=0", None),
        ("POST", "/2/groups", {"group_name": "mine"}),
        ("PUT", "/2/groups/vault-group/rename", {"new_name": "default2"}),
        ("PUT", "/2/groups/vault-group/modify", {"alloc_policy": "preferred"}),
        ("PUT", "/2/groups/vault-group/assign-nodes", {"nodes": ["node3"]}),
        ("PUT", "/2/groups/default/assign-nodes?force=1", {"nodes": ["node3"]}),
        ("DELETE", "/2/groups/vault-group", None),
        ("POST", "/2/networks", {"network_name": "mine", "network": "192.0.2.0/24"}),
        ("PUT", "/2/networks/vault-net/modify", {"gateway": "198.51.100.65"}),
        ("PUT", "/2/networks/vault-net/disconnect", {"group_name": "default"}),
        ("PUT", "/2/networks/eve-net/disconnect", {"group_name": "vault-group"}),
        ("DELETE", "/2/networks/vault-net", None),
        ("POST", "/2/filters", {"priority": 0, "predicates": [], "action": "REJECT", "reason": []}),
        ("GET", "/2/filters", None),
    ]
    spelled = [(spell(method), path, body) for method, path, body in requests for spell in (str, str.lower, str.title)]
    refused(world, [(user, *request) for user in ("eve", "mallory") for request in spelled], 403, 404)
    assert world.query("node", "name offline drained", node) == [[node, False, False]]


def test_query_is_no_way_round(world: World) -> None:
    """`PUT /2/query/*` had the access list of GET, and showed everything.

    Here each kind by both methods, with each field that it has, alone.
    """
    shown: dict[str, set[str]] = {}
    foreign = [VAULT, VICTIM, *MALLORYS, "node3", "vault-group", "vault-net", "vault-tag"]
    for kind in ("instance", "node", "group", "network", "job"):
        fields = [str(field["name"]) for field in world.cluster.luxi("QueryFields", kind, None)["fields"]]
        at_once = 12 if kind == "instance" else 1
        for start in range(0, len(fields), at_once):
            part = fields[start : start + at_once]
            method, body = ("PUT", {"fields": part}) if start % 2 else ("GET", None)
            path = f"/2/query/{kind}" if body else f"/2/query/{kind}?fields={','.join(part)}"
            status, answer = world.ask("eve", method, path, body)
            assert status in (200, 400, 403), (path, part, status, answer)
            if status == 200:
                shown.setdefault(kind, set()).update(part)
                assert [name for name in foreign if name in str(answer["data"])] == [], (part, answer)
    assert set(shown) == {"instance", "node", "group", "network", "job"}
    requests: list[Request] = [
        ("eve", method, f"/2/query/{what}?fields=name", None if method == "GET" else {})
        for what in ("lock", "export", "filter", "cluster", "os", "extstorage", "Instance", "instance2", "INSTANCE")
        for method in ("GET", "PUT")
    ]
    refused(world, requests, 400, 403, 404)


def test_nobody_is_anonymous(world: World) -> None:
    """Without --require-authentication, what had an empty access list was open without a password.

    Here the option is taken away, and each endpoint is asked for without credentials, and with wrong ones.
    """
    path = world.cluster.node_path("node1", "etc/default/ganeti")
    with open(path, encoding="utf-8") as stream:
        before = stream.read()
    try:
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(before.replace("--require-authentication", ""))
        world.cluster.restart("rapi")
        with world.no_job():
            for method, pattern in endpoints():
                where = pattern.format(
                    node="node1",
                    instance=OWN,
                    group="default",
                    network="eve-net",
                    job=1,
                    disk=0,
                    filter="x",
                    query="node",
                )
                status = world.cluster.rapi(method, where)[0]
                assert status == (200 if pattern in OPEN else 401), (method, where)
    finally:
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(before)
        world.cluster.restart("rapi")


def test_prefix_of_another(world: World) -> None:
    """`evil.test…` was taken for `evil.test….victim…`, of which it is a prefix that ends at a dot.

    Here on each endpoint, with her own instance of that name made, renamed away and removed meanwhile.
    """
    requests = on("eve", PREFIX) + on("eve", VICTIM) + on("eve", PREFIX + ".") + on("eve", PREFIX + ".victim")
    refused(world, requests, 404)
    create = {**CREATE, "name": PREFIX, "pnode": "node2", "start": False}
    world.done("eve", "POST", "/2/instances", create)
    (uuid,) = world.query("instance", "uuid", PREFIX)[0]
    with world.paused():
        stored = world.stored(world.submit("eve", "PUT", f"/2/instances/{PREFIX}/startup"))[0]
    assert stored["instance_uuid"] == uuid
    world.done("eve", "PUT", f"/2/instances/{PREFIX}/rename", {"new_name": NEW})
    refused(world, requests, 404)
    world.done("eve", "DELETE", f"/2/instances/{NEW}")
    refused(world, requests, 404)
    assert world.query("instance", "name tags", VICTIM) == [[VICTIM, ["victim-tag"]]]


def test_name_that_changes_hands(world: World) -> None:
    """A job waited until its name meant another instance.

    Here two instances change their names while jobs on one of them wait.
    """
    one, two, aside = "one.test.example.com", "two.test.example.com", "aside.test.example.com"
    more = {"start": False, "pnode": "node2"}
    for name in (one, two):
        world.done("eve", "POST", "/2/instances", {**CREATE, "name": name, **more})
    uuids = dict(world.query("instance", "name uuid"))
    with world.paused(then_run=True):
        jobs = [
            world.submit("eve", "DELETE", f"/2/instances/{one}"),
            world.submit("eve", "PUT", f"/2/instances/{one}/modify", {"beparams": {"memory": 72}}),
            world.submit("eve", "PUT", f"/2/instances/{one}/rename", {"new_name": "gone.test.example.com"}),
        ]
        for old, new in ((one, aside), (two, one), (aside, two)):
            world.run({"OP_ID": "OP_INSTANCE_RENAME", "instance_name": old, "new_name": new,
                       "name_check": False, "ip_check": False})  # fmt: skip
    for job_id in jobs:
        status, result = world.cluster.job(job_id)
        assert status == "error" and "UUID" in str(result)
        # What the name has come to mean is hers here; but the answer is that of the job, cut.
        assert world.ask("eve", "GET", f"/2/jobs/{job_id}")[0] == 200
    now = dict(world.query("instance", "name uuid"))
    assert (now[one], now[two]) == (uuids[two], uuids[one])
    world.remove(one, two)


def test_what_cannot_be_pinned_is_not_put_off(world: World) -> None:
    """Tags and queries have no field for a UUID; what is done to a node is done to whatever is on it by then."""
    own = world.submit("eve", "PUT", f"/2/instances/{OWN}/tags?tag=mine")
    later: list[dict[str, Any]] = [{"depends": [[own, ["success"]]]}, {"priority": -10}, {"priority": 10}]
    requests: list[Request] = []
    for body in later:
        requests.append(("eve", "POST", "/2/nodes/node2/evacuate", {"mode": "primary-only", **body}))
        requests.append(("eve", "POST", "/2/nodes/node2/migrate", {"mode": "live", **body}))
        requests.append(("eve", "PUT", "/2/groups/default/modify", {"alloc_policy": "preferred", **body}))
    requests.append(("eve", "PUT", f"/2/instances/{OWN}/tags?tag=x", later[0]))
    requests.append(("eve", "DELETE", f"/2/instances/{OWN}/tags?tag=x", later[0]))
    refused(world, requests, 403, 404)
    world.done("eve", "DELETE", f"/2/instances/{OWN}/tags?tag=mine")


SPELLINGS = [
    "eve2", "eve2.test", "EVE2.test.example.com", "eve2.TEST.example.com", "eve2.test.example.com.",
    "%65ve2.test.example.com", "eve2%2etest.example.com", "eve2.test.example.com%00",
    "eve2.test.example.com%0a", "eve2.test.example.com;x=1",
    "../instances/eve2.test.example.com", "./eve2.test.example.com", "eve2..test.example.com",
    "ev%D0%B52.test.example.com",
    "eve2.te%C5%BFt.example.com", "eve%C2%B2.test.example.com", "*", "eve%3f.test.example.com", "eve2,eve1",
]  # fmt: skip


def test_short_and_other_names(world: World) -> None:
    """A short name showed the first of two, and jobs fold case as Unicode does.

    Here also UUIDs of both sides, digits that are none, and wildcards: only one spelling means her instance.
    """
    uuids = [str(row[0]) for row in world.query("instance", "uuid")]
    names = [*SPELLINGS, *uuids, uuids[0].upper()]
    some = [ON_INSTANCE[number] for number in (0, 2, 4, 6, 8, 18)]
    refused(world, [request for name in names for request in on("eve", name, some)], 404)
    for kind, uuid in (("nodes", "node"), ("groups", "group"), ("networks", "network")):
        found = [str(row[0]) for row in world.query(uuid, "uuid")]
        refused(
            world, [("eve", "GET", f"/2/{kind}/{name}", None) for name in [*found, "NODE1", "node1.", "eve-ne"]], 404
        )


def test_dns_makes_no_other_name(world: World) -> None:
    """With `name_check` the resolver's answer became the name.

    Here asked for in each way that an instance gets a name, as numbers and as flags.
    """
    asked = {"name_check": True, "ip_check": True}
    with world.paused():
        jobs = [
            world.submit("eve", "POST", "/2/instances", {**CREATE, "name": NEW, **asked}),
            world.submit("mallory", "POST", "/2/instances", {**CREATE, "name": "new.x", **asked}),
            world.submit(
                "eve", "POST", "/2/instances-multi-alloc", {"instances": [{**EVES_INNER, "name": NEW, **asked}]}
            ),
            world.submit("eve", "PUT", f"/2/instances/{OWN}/rename", {"new_name": NEW, **asked}),
            world.submit("mallory", "PUT", f"/2/instances/{MALLORYS[0]}/rename", {"new_name": "new.x", **asked}),
        ]
        opcodes = [one for job in jobs for opcode in world.stored(job) for one in opcode.get("instances") or [opcode]]
    assert [(one["name_check"], one["ip_check"]) for one in opcodes] == [(False, False)] * len(jobs)


@pytest.mark.parametrize("user", ["eve", "mallory"])
def test_reserved_instances(world: World, user: str) -> None:
    """`commit` took over what somebody else had reserved. Here with `forthcoming`, and inside a multi-alloc."""
    requests: list[Request] = []
    for more in ({"commit": True}, {"forthcoming": True}, {"commit": True, "forthcoming": True}):
        requests.append((user, "POST", "/2/instances", {**CREATE, "name": NEW, **more}))
        requests.append((user, "POST", "/2/instances-multi-alloc", {"instances": [{**INNER, "name": NEW, **more}]}))
    refused(world, requests, 403)


BAD_NAMES: list[Any] = [
    "../../../../x", "../../x.test.example.com", "$(id).test.example.com", "a;b.test.example.com",
    "a b.test.example.com",
    "a/b.test.example.com", "-a.test.example.com", "a-.test.example.com", ".test.example.com", "a..test.example.com",
    "NEW.test.example.com", "new.test.example.com.", "new.test.example.com\n", "\u212ax.test.example.com", "", " ",
    "x" * 64 + ".test.example.com", "a." * 130 + "test.example.com",
]  # fmt: skip


def test_names_to_be(world: World) -> None:
    """A rename without check took any text, and others' names.

    Here for the one who may choose any name, too, and at a creation, alone and among others.
    """
    requests: list[Request] = []
    for user, name in (("eve", OWN), ("mallory", MALLORYS[0])):
        for new in BAD_NAMES:
            requests.append((user, "PUT", f"/2/instances/{name}/rename", {"new_name": new, "name_check": False}))
            requests.append((user, "POST", "/2/instances", {**CREATE, "name": new}))
            inner = [{**INNER, "name": "fine.test.example.com"}, {**INNER, "name": new}]
            requests.append((user, "POST", "/2/instances-multi-alloc", {"instances": inner}))
    for new in (VAULT, VICTIM, MALLORYS[0], "new.example.com", "test.example.com", "newtest.example.com"):
        requests.append(("eve", "PUT", f"/2/instances/{OWN}/rename", {"new_name": new}))
        requests.append(("eve", "POST", "/2/instances", {**CREATE, "instance_name": new}))
    refused(world, requests, 404)


def test_no_step_takes_over_anothers(world: World) -> None:
    """Reinstalled, renamed into one's own suffix, removed: each step alone looked allowed.

    Here each step, for what is of the other tenant and of nobody, also by the tenant whose tag it does not have.
    """
    steps: list[tuple[str, str, Any]] = [
        ("POST", "/reinstall", {"os": "noop"}),
        ("PUT", "/rename", {"new_name": NEW}),
        ("PUT", "/rename", {"new_name": OWN}),
        ("PUT", "/modify", {"os_name": "noop"}),
        ("PUT", "/tags?tag=tenant:mallory", None),
        ("DELETE", "", None),
    ]
    requests = [request for name in [*MALLORYS, VAULT, VICTIM] for request in on("eve", name, steps)]
    refused(world, requests, 404)
    refused(world, [one for name in [*EVES, VAULT] for one in on("mallory", name, steps[:4] + steps[5:])], 404)


def test_inside_of_a_multi_alloc(world: World) -> None:
    """The inner opcodes were not looked at, and an inner `reason` forged whose job it is.

    Here also with a second level of opcodes, and with what only the outer one may have.
    """
    trail = [[SOURCE, "admin", 1], ["gnt:user", "x", 1]]
    own = {**EVES_INNER, "name": NEW}
    bad: list[tuple[Any, tuple[int, ...]]] = [
        ([{**own, "instances": [INNER]}], (400,)),
        ([{**own, "OP_ID": "OP_INSTANCE_REMOVE"}], (400, 403)),
        ([{**own, "name": VAULT}], (404,)),
        ([own, {**own, "instance_name": VAULT}], (400, 404)),
        ([{**own, "depends": [[1, ["success"]]]}], (403, 404)),
        ([{**own, "priority": -10}], (403,)),
        ([{**own, "dry_run": "x"}], (400,)),
        (own, (400,)),
        ("x", (400,)),
        ([[own]], (400,)),
        ([None], (400,)),
    ]
    for instances, statuses in bad:
        refused(world, [("eve", "POST", "/2/instances-multi-alloc", {"instances": instances})], *statuses)
    with world.paused():
        body = {"instances": [{**own, "reason": trail}, {**own, "name": "b" + NEW, "reason": trail * 3}]}
        (opcode,) = world.stored(world.submit("eve", "POST", f"/2/instances-multi-alloc?reason={SOURCE}", body))
    assert [one["reason"] for one in opcode["instances"]] == [[], []]
    assert [entry[:2] for entry in opcode["reason"]][:2] == [[SOURCE, "eve"], ["gnt:user", SOURCE]]


def test_second_keys(world: World) -> None:
    """`pnode_uuid` alone chose the node. Here each such key of each request, with right and wrong UUIDs."""
    uuids = {row[0]: row[1] for kind in ("node", "group", "instance") for row in world.query(kind, "name uuid")}
    requests: list[Request] = []
    for user, name in (("eve", OWN), ("mallory", MALLORYS[0])):
        for uuid in (uuids["node1"], uuids["node3"], "0"):
            for key in ("pnode_uuid", "snode_uuid", "src_node_uuid"):
                requests.append((user, "POST", "/2/instances", {**CREATE, "name": NEW, key: uuid}))
                inner = {**INNER, "name": NEW, key: uuid}
                requests.append((user, "POST", "/2/instances-multi-alloc", {"instances": [inner]}))
            path = f"/2/instances/{name}"
            requests.append((user, "PUT", path + "/migrate", {"target_node_uuid": uuid}))
            requests.append((user, "PUT", path + "/failover", {"target_node_uuid": uuid}))
            requests.append((user, "PUT", path + "/modify", {"pnode_uuid": uuid}))
            requests.append((user, "PUT", path + "/modify", {"remote_node_uuid": uuid}))
            requests.append((user, "PUT", path + "/export", {"target_node": "node1", "target_node_uuid": uuid}))
            requests.append((user, "POST", path + "/recreate-disks", {"node_uuids": [uuid]}))
            requests.append((user, "POST", path + "/replace-disks", {"mode": "replace_auto", "remote_node_uuid": uuid}))
    refused(world, requests, 400, 403)
    with world.paused():  # the one that is pinned is written by us, whatever was sent
        body = {"instance_uuid": uuids[VAULT], "beparams": {"vcpus": 2}}
        stored = world.stored(world.submit("eve", "PUT", f"/2/instances/{OWN}/modify", body))[0]
    assert stored["instance_uuid"] == uuids[OWN]


def test_places_by_a_side_door(world: World) -> None:
    """A node beside the primary one is no placement, and group_name beside it tells of no group.

    Eve's nodes are those of one group: her new instances go there, whatever she names, or nowhere.
    """
    create = {**CREATE, "name": NEW}
    with world.paused():
        choices: list[dict[str, str]] = [{}, {"snode": "node1"}, {"src_node": "node1"}, {"group_name": "default"}]
        for choice in choices:
            stored = world.stored(world.submit("eve", "POST", "/2/instances", {**create, **choice}))
            assert stored[0]["group_name"] == "default"
    requests: list[Request] = []
    wider: list[dict[str, Any]] = [{}, {"pnode": "node1"}, {"snode": "node1"}, {"beparams": {"maxmem": "9G"}}]
    for more in wider:
        for group in ("vault-group", "no-group", "Default"):
            requests.append(("eve", "POST", "/2/instances", {**create, **more, "group_name": group}))
    for key in ("pnode", "snode", "src_node"):
        for node in ("node3", "node9", "NODE1"):
            requests.append(("eve", "POST", "/2/instances", {**create, key: node}))
    for network in ("vault-net", "no-net", "eve-ne"):
        requests.append(("eve", "POST", "/2/instances", {**create, "nics": [{"network": network}]}))
        requests.append(("eve", "PUT", f"/2/instances/{OWN}/modify", {"nics": [["add", {"network": network}]]}))
    with world.no_job():
        answers = [world.ask(*request) for request in requests]
    assert {repr(answer) for answer in answers} == {repr(world.ask("eve", "GET", "/2/instances/none.test.example.com"))}
    named = [{"pnode": "node1"}, {"pnode": "node9"}, {"group_name": "default"}, {"group_name": "none"}]
    named += [{"nics": [{"network": name}]} for name in ("vault-net", "none")]  # type: ignore[dict-item]
    with world.no_job():
        texts = [world.ask("mallory", "POST", "/2/instances", {**create, **more}) for more in named]
    assert {answer[0] for answer in texts} == {403}


def test_aliases(world: World) -> None:
    """A check on the body missed a parameter by its other name. Here by each, by both, and in the query."""
    path = f"/2/instances/{OWN}"
    requests: list[Request] = [
        (
            "eve",
            "POST",
            "/2/instances",
            {**{k: v for k, v in CREATE.items() if k != "os_type"}, "name": NEW, "os": "evil"},
        ),
        ("eve", "POST", "/2/instances", {**CREATE, "name": NEW, "os_type": "evil"}),
        ("eve", "POST", "/2/instances", {**CREATE, "name": NEW, "os": "evil"}),
        ("eve", "POST", path + "/reinstall", {"os": "evil"}),
        ("eve", "POST", path + "/reinstall?os=evil", None),
        ("eve", "POST", path + "/reinstall?os=evil&os=noop", None),
        ("eve", "PUT", path + "/modify", {"custom_hvparams": {"kvm_path": "/x"}}),
        ("eve", "PUT", path + "/modify", {"hvparams": {"kvm_path": "/x"}}),
        ("eve", "PUT", path + "/modify", {"custom_beparams": {"maxmem": "2G"}}),
        ("eve", "PUT", path + "/modify", {"custom_beparams": {"memory": 64}, "beparams": {"memory": 64}}),
        ("eve", "PUT", path + "/export", {"destination": "node1", "target_node": "node2"}),
    ]
    refused(world, requests, 400, 403)
    refused(world, [("eve", "PUT", path + "/export", {key: "node3"}) for key in ("destination", "target_node")], 404)


BODIES = [
    b"{", b"x", b"[" * 50000, b'{"a":' * 50000, b"[]", b"null", b'"x"', b"7", b"true", b'{"a":1}x', b"{'a':1}", b"\0",
    b'{"reason": [[1]]}', b'{"depends": 5}', b'{"depends": [[[]]]}', b'{"depends": {"a": 1}}', b'{"\\ud800": 1}',
    b'{"comment": "\\ud800"}', b'{"priority": NaN}', b'{"priority": 1e999}', b'{"priority": -Infinity}',
    b'{"priority": ' + b"9" * 5000 + b"}", b'{"": 1}', b'{"__class__": 1}', b'{"OP_ID": "OP_CLUSTER_DESTROY"}',
]  # fmt: skip


def test_bodies(world: World) -> None:
    """A body that is none was a 500. Here also right JSON with names and numbers that others stumble over."""
    paths = [("POST", "/2/instances"), ("POST", "/2/instances-multi-alloc")]
    paths += [("PUT", f"/2/instances/{OWN}/{what}") for what in ("modify", "rename")]
    paths += [("GET", "/2/jobs/1/wait"), ("PUT", "/2/query/instance"), ("PUT", "/2/nodes/node1/role")]
    for number, body in enumerate(BODIES):
        for method, path in paths[number % 3 :: 3]:
            status, answer = world.ask("eve", method, path, body)
            fine = status in (400, 403, 404) or (body in (b"null", b"[]") and status == 200)
            # Fields that a handler does not know are nothing to it.
            fine = fine or (status == 200 and path.endswith("instance"))
            assert fine, (method, path, body[:40], status, answer)


def test_a_second_operation(world: World) -> None:
    """An export that removes its instance, a migration that may fail over: each needs both permissions (Trudy's account
    lacks the second), and neither is let through for what is not hers.
    """
    both: list[tuple[str, str, dict[str, Any]]] = [
        ("migrate", "instances.failover", {"allow_failover": True}),
        ("migrate", "instances.failover", {"mode": "live", "allow_failover": True}),
        ("export", "instances.remove", {"destination": "node1", "shutdown": True, "remove_instance": True}),
    ]
    with world.no_job():
        for path, permission, body in both:
            for name in (VAULT, OWN, "no.x"):
                status, answer = world.ask("trudy", "PUT", f"/2/instances/{name}/{path}", body)
                assert status == 403 and permission in answer["message"], (name, body, answer)


def test_a_job_that_is_waited_for(world: World) -> None:
    """`/2/os` waits for its job, and gave its error, with what is in it, as a 500. Here she cancels it meanwhile."""
    with world.paused(), ThreadPoolExecutor(1) as pool:
        before = world.last_job()
        asked = pool.submit(world.ask, "eve", "GET", "/2/os")
        while world.last_job() == before and not asked.done():
            time.sleep(0.05)
        job_id = world.last_job()
        while world.ask("eve", "DELETE", f"/2/jobs/{job_id}")[0] == 404:  # the number comes before the job
            time.sleep(0.05)
        assert asked.result()[0] == 503


def test_methods(world: World) -> None:
    """Ganeti takes any attribute of its handler for a method, and was a 500: here all of them are no methods."""
    for method in (
        "HEAD",
        "OPTIONS",
        "PATCH",
        "PUT_ACCESS",
        "GET_OPCODE",
        "GET_ALIASES",
        "SubmitJob",
        "__class__",
        "X",
    ):
        for path in ("/2/instances", "/2/info", f"/2/instances/{OWN}", f"/2/instances/{VAULT}", "/2"):
            for user in ("eve", None):
                status = world.cluster.rapi(method, path, user=user)[0]
                # Without a name, Ganeti may ask for one first.
                assert status == 501 or (status == 401 and user is None), (method, path, user)
