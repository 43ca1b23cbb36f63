# SPDX-License-Identifier: BSD-2-Clause
"""The tenant: nothing outside her instances can be touched, seen or told apart from nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from ganeti import opcodes

from tests.cluster.tenancy import (
    CREATE,
    FOREIGN,
    INNER,
    MISSING,
    MISSING_INSIDE,
    ON_INSTANCE,
    OWN,
    READS,
    SOURCE,
    VICTIM,
    Answer,
    Tenancy,
    message_of,
    on,
    tenants,
)
from tests.cluster.vcluster import Cluster


@pytest.fixture(scope="module", name="tenancy")
def _tenancy(cluster: Cluster) -> Iterator[Tenancy]:
    with tenants(cluster) as tenancy:
        cluster.add_instances([OWN, VICTIM], node="node1")
        yield tenancy


# --- names -------------------------------------------------------------------------------


def test_foreign_looks_like_missing(tenancy: Tenancy) -> None:
    requests = [*ON_INSTANCE, *READS]
    with tenancy.no_job():
        foreign, missing, inside = (tenancy.ask_all(on(name, requests)) for name in (FOREIGN, MISSING, MISSING_INSIDE))
    (unknown_path,) = tenancy.ask_all([("GET", "/2/no-such-thing", None)])
    assert unknown_path[0] == 404
    for answers in zip(requests, foreign, missing, inside):
        assert answers[1] == answers[2] == answers[3] == unknown_path, answers[0]


def test_own_is_allowed(tenancy: Tenancy) -> None:
    """Each endpoint reaches the job queue, with the instance pinned where the opcode can carry it."""
    requests = [*ON_INSTANCE, *READS[-2:]]
    with tenancy.paused():
        jobs = [tenancy.submit(*request) for request in on(OWN, requests)]
        stored = [tenancy.stored(job) for job in jobs]
    uuid = tenancy.uuid(OWN)
    for request, submitted in zip(requests, stored):
        for opcode in submitted:
            assert opcode.get("instance_name", opcode.get("name", opcode.get("instances"))) in (OWN, [OWN]), request
            if not opcode["OP_ID"].startswith(("OP_TAGS", "OP_INSTANCE_QUERY")):
                assert opcode["instance_uuid"] == uuid, request
            assert opcode["reason"][0][:2] == [SOURCE, "eve"], request
            assert [entry[0] for entry in opcode["reason"]].count(SOURCE) == 1, request
    rename = stored[[path for _, path, _ in ON_INSTANCE].index("/rename")][0]
    assert rename["name_check"] is False and rename["ip_check"] is False
    assert tenancy.uuid(OWN) == uuid


SPELLINGS = [
    "MINE.test.example.com", "mine.TEST.example.com", "Mine.Test.Example.Com", "mine", "mine.test", "mine.test.example",
    "mine.test.example.com.", ".mine.test.example.com", "mine..test.example.com", "xn--mine.test.example.com",
    "mine.test.example.com.example.com", "-mine.test.example.com", "_mine.test.example.com",
    "%6dine.test.example.com", "mine%2etest.example.com", "m%C3%AFne.test.example.com", "mine.test.example.com%00",
    "mine.test.example.com%0a", "mine.test.example.com;x", "*.test.example.com", "min*.test.example.com",
    "./mine.test.example.com", "../instances/mine.test.example.com", "/mine.test.example.com",
]  # fmt: skip


def test_spellings_in_the_path(tenancy: Tenancy) -> None:
    """Only the one exact name means her instance; no other spelling, nor its UUID."""
    names = [*SPELLINGS, str(tenancy.uuid(OWN)), str(tenancy.uuid(OWN)).upper(), str(tenancy.uuid(FOREIGN))]
    requests = [request for name in names for request in on(name, ON_INSTANCE[:2] + ON_INSTANCE[4:5])]
    with tenancy.no_job():
        answers = tenancy.ask_all(requests)
    assert [(r, a[0]) for r, a in zip(requests, answers) if a[0] != 404] == []


def test_prefix_of_another_instance(tenancy: Tenancy) -> None:
    """Ganeti would expand the name, which looks like one inside her scope."""
    before = tenancy.uuid(VICTIM)
    with tenancy.no_job():
        answers = tenancy.ask_all(on("evil.test.example.com", ON_INSTANCE))
        answers += tenancy.ask_all(on(VICTIM, ON_INSTANCE))
    assert {answer[0] for answer in answers} == {404}
    assert tenancy.uuid(VICTIM) == before is not None


NEW_NAMES: list[Any] = [
    FOREIGN, MISSING, VICTIM, "new.test.example.com.victim.org", "test.example.com", "newtest.example.com", "new",
    "New.test.example.com", "new.test.example.com.", "new..test.example.com", ".test.example.com",
    "../../x.test.example.com", "a/b.test.example.com", "a b.test.example.com", "a;b.test.example.com",
    "$(id).test.example.com", "-a.test.example.com", "a-.test.example.com", "*.test.example.com",
    "n\u00ebw.test.example.com", "\u212aelvin.test.example.com", "\uff4e.test.example.com", "\ud800.test.example.com",
    "new.test.example.com\n", "new.test.example.com\0", "x" * 64 + ".test.example.com", "x." * 120 + "test.example.com",
    "", " ", None, 7, True, [], ["new.test.example.com"], {"new": "test.example.com"},
]  # fmt: skip


@pytest.mark.parametrize("key", ["name", "instance_name"])
def test_create_outside(tenancy: Tenancy, key: str) -> None:
    requests = [("POST", "/2/instances", {**CREATE, key: name}) for name in NEW_NAMES]
    requests += [("POST", "/2/instances-multi-alloc", {"instances": [{**INNER, key: name}]}) for name in NEW_NAMES]
    with tenancy.no_job():
        answers = tenancy.ask_all(requests)
    wanted = [404 if isinstance(name, str) else 400 for name in NEW_NAMES] * 2
    assert [(r, a[0]) for r, a, status in zip(requests, answers, wanted) if a[0] != status] == []


def test_create_with_two_names(tenancy: Tenancy) -> None:
    inside, other = "new1.test.example.com", "new2.test.example.com"
    bodies: list[dict[str, Any]] = [
        {**CREATE, "name": inside, "instance_name": FOREIGN},
        {**CREATE, "name": FOREIGN, "instance_name": inside},
        {**CREATE, "name": inside, "instance_name": other},
        {**CREATE, "name": inside, "instance_name": inside},
        {**CREATE, "name": inside, "instance_name": None},
        {**CREATE, "instance_name": inside, "name": None},
        dict(CREATE),
    ]
    requests = [("POST", "/2/instances", body) for body in bodies]
    for body in bodies:
        inner = {key: value for key, value in body.items() if key != "__version__"}
        requests.append(("POST", "/2/instances-multi-alloc", {"instances": [inner]}))
        requests.append(("POST", "/2/instances-multi-alloc", {"instances": [{**INNER, "name": inside}, inner]}))
    with tenancy.no_job():
        answers = tenancy.ask_all(requests)
    assert [(r, a[0]) for r, a in zip(requests, answers) if a[0] not in (400, 404)] == []


def test_multi_alloc_outside(tenancy: Tenancy) -> None:
    inside = {**INNER, "name": "new1.test.example.com"}
    mixed: list[list[Any]] = [
        [inside, {**INNER, "name": FOREIGN}],
        [{**INNER, "name": FOREIGN}, inside],
        [inside, {**INNER, "instance_name": "new.prod.example.com"}],
        [inside, {**INNER, "name": VICTIM}],
    ]
    broken: list[Any] = [None, {}, "x", 7, [None], [7], ["x"], [[]], [inside, None], [{}]]
    with tenancy.no_job():
        answers = tenancy.ask_all([("POST", "/2/instances-multi-alloc", {"instances": entry}) for entry in mixed])
        assert [answer[0] for answer in answers] == [404] * len(mixed)
        answers = tenancy.ask_all([("POST", "/2/instances-multi-alloc", {"instances": entry}) for entry in broken])
        assert [answer[0] for answer in answers] == [400] * len(broken)


def test_rename_outside(tenancy: Tenancy) -> None:
    """Neither out of her scope nor into it, whatever the spelling of either name."""
    requests = [("PUT", f"/2/instances/{OWN}/rename", {"new_name": name}) for name in NEW_NAMES]
    wanted = [404 if isinstance(name, str) else 400 for name in NEW_NAMES]
    for name in (FOREIGN, VICTIM, "evil.test.example.com", MISSING):
        requests.append(("PUT", f"/2/instances/{name}/rename", {"new_name": "mine.test.example.com"}))
        wanted.append(404)
    requests.append(("PUT", f"/2/instances/{OWN}/rename", {}))
    wanted.append(400)
    with tenancy.no_job():
        answers = tenancy.ask_all(requests)
    assert [(r, a[0]) for r, a, status in zip(requests, answers, wanted) if a[0] != status] == []


def test_roles_do_not_add_up(tenancy: Tenancy) -> None:
    """Two roles each have one of the names: neither has both."""
    with tenancy.no_job():
        out = tenancy.ask("PUT", f"/2/instances/{OWN}/rename", {"new_name": "x.prod.example.com"}, user="both")
        back = tenancy.ask("PUT", f"/2/instances/{FOREIGN}/rename", {"new_name": "x.test.example.com"}, user="both")
        names = ("x.test.example.com", "x.prod.example.com")
        body = {"instances": [{**INNER, "name": name} for name in names]}
        mixed = tenancy.ask("POST", "/2/instances-multi-alloc", body, user="both")
    assert out[0] == back[0] == mixed[0] == 404


def test_other_kinds_and_the_cluster(tenancy: Tenancy) -> None:
    """Her tags are those of her instances: not a node's, a group's, a network's or the cluster's."""
    paths = ["/2/tags", "/2/nodes/node1/tags", "/2/groups/default/tags", "/2/networks/net1/tags"]
    paths += [f"/2/nodes/{OWN}/tags", f"/2/groups/{OWN}/tags"]
    requests: list[tuple[str, str, Any]] = [
        (method, f"{path}?tag=x", None) for path in paths for method in ("PUT", "DELETE")
    ]
    with tenancy.no_job():
        answers = tenancy.ask_all(requests)
    assert {answer[0] for answer in answers} == {404}
    assert len({repr(answer) for answer in answers}) == 1
    assert tenancy.cluster.luxi("QueryTags", "cluster", "") == []


# --- parameters --------------------------------------------------------------------------

MODIFY_DEFAULTS = {name: default for name, default, _, _ in opcodes.OpInstanceSetParams.OP_PARAMS}

#: Every parameter of threats.md that an opcode of Ganeti 3.0 has, with a value of the right type.
OUTSIDE_CREATE: dict[str, Any] = {
    "hvparams": {"kvm_path": "/tmp/evil"},
    "osparams": {"os-image": "/etc/shadow"},
    "osparams_private": {"x": "y"},
    "osparams_secret": {"x": "y"},
    "hypervisor": "fake",
    "force_variant": True,
    "pnode": "node1",
    "pnode_uuid": "0",
    "snode": "node2",
    "snode_uuid": "0",
    "iallocator": "hail",
    "group_name": "default",
    "file_driver": "loop",
    "file_storage_dir": "other",
    "mode": "import",
    "src_node": "node1",
    "src_node_uuid": "0",
    "src_path": "/x",
    "source_handshake": ["x"],
    "source_instance_name": "x",
    "source_shutdown_timeout": 9,
    "source_x509_ca": "x",
    "compress": "gzip",
    "commit": True,
    "forthcoming": True,
    "nics": [{"link": "br0"}],
    "disks": [{"adopt": "x"}],
    "identify_defaults": True,
    "ignore_ipolicy": True,
    "opportunistic_locking": True,
    "conflicts_check": False,
    "instance_communication": True,
    "helper_startup_timeout": 9,
    "helper_shutdown_timeout": 9,
    "priority": -10,
    "debug_level": 1,
}
NICS: list[dict[str, Any]] = [
    {"link": "br0"}, {"ip": "192.0.2.9"}, {"mac": "aa:00:00:00:00:01"}, {"mode": "openvswitch"}, {"vlan": "7"},
    {"network": "net1"}, {"name": "x"}, {"bridge": "br0"},
]  # fmt: skip
DISKS: list[dict[str, Any]] = [
    {"size": 1, "adopt": "x"}, {"size": 1, "vg": "x"}, {"size": 1, "metavg": "x"}, {"size": 1, "provider": "x"},
    {"size": 1, "access": "x"}, {"size": 1, "attach": "x"}, {"size": 1, "spindles": 1}, {"size": 1, "name": "x"},
    {"size": 1, "extra": "x"},
]  # fmt: skip
COMMON: dict[str, Any] = {"priority": -10, "debug_level": 1}
OUTSIDE: dict[tuple[str, str], dict[str, Any]] = {
    ("PUT", "/modify"): {
        "hvparams": {"kvm_path": "/tmp/evil"},
        "custom_hvparams": {"kernel_path": "/etc/shadow"},
        "osparams": {"x": "y"},
        "osparams_private": {"x": "y"},
        "os_name": "noop",
        "force": True,
        "force_variant": True,
        "ignore_ipolicy": True,
        "nics": [["add", {"link": "br0"}]],
        "disks": [["add", {"size": 1, "adopt": "x"}]],
        "disk_template": "ext",
        "ext_params": {"x": "y"},
        "file_driver": "loop",
        "file_storage_dir": "x",
        "pnode": "node1",
        "pnode_uuid": "0",
        "remote_node": "node2",
        "remote_node_uuid": "0",
        "iallocator": "hail",
        "runtime_mem": 64,
        "conflicts_check": False,
        # 3.1 has it as its default, and no hotplug_if_possible any more.
        "hotplug": not MODIFY_DEFAULTS["hotplug"],
        **{key: True for key in MODIFY_DEFAULTS if key == "hotplug_if_possible"},
        "instance_communication": True,
        **COMMON,
    },
    ("PUT", "/migrate"): {
        "target_node": "node2",
        "target_node_uuid": "0",
        "iallocator": "hail",
        "cleanup": True,
        "ignore_ipolicy": True,
        "ignore_hvversions": True,
        **COMMON,
    },
    ("PUT", "/failover"): {
        "target_node": "node2",
        "target_node_uuid": "0",
        "iallocator": "hail",
        "cleanup": True,
        "ignore_consistency": True,
        "ignore_ipolicy": True,
        "shutdown_timeout": 9999,
        **COMMON,
    },
    ("POST", "/replace-disks"): {
        "remote_node": "node2",
        "remote_node_uuid": "0",
        "iallocator": "hail",
        "early_release": True,
        "ignore_ipolicy": True,
        **COMMON,
    },
    ("POST", "/recreate-disks"): {"nodes": ["node2"], "node_uuids": ["0"], "iallocator": "hail", **COMMON},
    ("POST", "/disk/0/grow"): {"ignore_ipolicy": True, **COMMON},
    ("POST", "/reboot"): {"shutdown_timeout": 9999, **COMMON},
    ("PUT", "/shutdown"): {
        "force": True,
        "ignore_offline_nodes": True,
        "timeout": 9999,
        "admin_state_source": "user",
        **COMMON,
    },
    ("DELETE", ""): {"shutdown_timeout": 9999, **COMMON},
    ("POST", "/reinstall"): {"osparams": {"os-image": "/etc/shadow"}},
}
IN_QUERY = {
    ("PUT", "/startup?force=1"): "force",
    ("PUT", "/deactivate-disks?force=1"): "force",
    ("PUT", "/activate-disks?ignore_size=1"): "ignore_size",
    ("POST", "/reboot?ignore_secondaries=1"): "ignore_secondaries",
    ("POST", "/replace-disks?mode=replace_auto&iallocator=hail"): "iallocator",
    ("POST", "/replace-disks?mode=replace_new_secondary&remote_node=node2"): "remote_node",
}
#: What each body needs beside the parameter that is tried.
NEEDED: dict[str, dict[str, Any]] = {
    "/replace-disks": {"mode": "replace_auto"},
    "/disk/0/grow": {"amount": 1},
}


def test_parameters_that_leave_the_instance(tenancy: Tenancy) -> None:
    """403 that names the parameter, and no job: at creation, inside a multi-alloc, and later."""
    new = "new.test.example.com"
    tried: list[tuple[str, str, Any, str]] = []
    creations = [({key: value}, key) for key, value in OUTSIDE_CREATE.items()]
    creations += [({"nics": [nic]}, "nics") for nic in NICS]
    creations += [({"disks": [{"size": 1}, disk]}, "disks") for disk in DISKS]
    for body, parameter in creations:
        tried.append(("POST", "/2/instances", {**CREATE, "name": new, **body}, parameter))
        inner = [{**INNER, "name": "new0.test.example.com"}, {**INNER, "name": new, **body}]
        tried.append(("POST", "/2/instances-multi-alloc", {"instances": inner}, parameter))
    for key, value in {"iallocator": "hail", "opportunistic_locking": True, **COMMON}.items():
        body = {"instances": [{**INNER, "name": new}], key: value}
        tried.append(("POST", "/2/instances-multi-alloc", body, key))
    renamed = {"custom_hvparams": "hvparams", "custom_beparams": "beparams"}
    for (method, path), parameters in OUTSIDE.items():
        for key, value in parameters.items():
            body = {**NEEDED.get(path, {}), key: value}
            tried.append((method, f"/2/instances/{OWN}{path}", body, renamed.get(key, key)))
    for key, value in COMMON.items():
        tried.append(("PUT", f"/2/instances/{OWN}/rename", {"new_name": "x.test.example.com", key: value}, key))
    for (method, path), parameter in IN_QUERY.items():
        tried.append((method, f"/2/instances/{OWN}{path}", None, parameter))
    with tenancy.no_job():
        answers = tenancy.ask_all([(method, path, body) for method, path, body, _ in tried])
    assert [
        (request, answer)
        for request, answer in zip(tried, answers)
        if answer[0] != 403 or not re.search(rf"parameter {request[3]}[ .]", message_of(answer))
    ] == []


def test_parameters_where_the_handler_takes_no_body(tenancy: Tenancy) -> None:
    """Ganeti puts `depends` of the body into these too: another's job is none, and OpTagsSet cannot be pinned."""
    paths = [("PUT", "/startup"), ("PUT", "/activate-disks"), ("PUT", "/deactivate-disks")]
    tags = [("PUT", "/tags?tag=x"), ("DELETE", "/tags?tag=x")]

    def ask(job: int, endpoints: list[tuple[str, str]]) -> list[Answer]:
        body = {"depends": [[job, ["success"]]], "priority": -10}
        return tenancy.ask_all([(method, f"/2/instances/{OWN}{path}", body) for method, path in endpoints])

    with tenancy.no_job():
        foreign, missing = ask(1, paths + tags), ask(999999, paths + tags)
    assert {answer[0] for answer in foreign} == {404} and foreign == missing
    with tenancy.paused():
        own = tenancy.submit("PUT", f"/2/instances/{OWN}/startup")
        with tenancy.no_job():
            answers = ask(own, tags)
        assert [answer[0] for answer in answers] == [403, 403]
        assert all("depends" in message_of(answer) for answer in answers)
        (startup,) = ask(own, paths[:1])
        (opcode,) = tenancy.stored(int(startup[2]))
        assert (opcode["depends"], opcode["priority"]) == ([[own, ["success"]]], 0)  # that handler takes no priority


def test_no_dns(tenancy: Tenancy) -> None:
    """The resolver must not make another name of the one that was decided on, even if asked to."""
    checked = {**INNER, "name_check": True, "ip_check": True}
    with tenancy.paused():
        body = {**checked, "__version__": 1, "name": "new1.test.example.com"}
        create = tenancy.submit("POST", "/2/instances", body)
        multi = tenancy.submit(
            "POST", "/2/instances-multi-alloc", {"instances": [{**checked, "name": "new2.test.example.com"}]}
        )
        body = {"new_name": "new3.test.example.com", "name_check": True, "ip_check": True}
        rename = tenancy.submit("PUT", f"/2/instances/{OWN}/rename", body)
        opcodes = [*tenancy.stored(create), *tenancy.stored(multi)[0]["instances"], *tenancy.stored(rename)]
    assert len(opcodes) == 3
    assert [(opcode["name_check"], opcode["ip_check"]) for opcode in opcodes] == [(False, False)] * 3


# --- bodies ------------------------------------------------------------------------------

NO_JSON = [b"{", b"x", b"{'a': 1}", b"[" * 100000, b'{"a":' * 100000, b'{"a": 1} x']
NO_DICT = [b"[]", b"[1]", b'"text"', b"7", b"true", b"[[]]"]


def test_bodies_that_are_none(tenancy: Tenancy) -> None:
    """400 or 415 on her instance's every endpoint, nothing else, and no job."""
    endpoints = [(method, f"/2/instances/{OWN}{path.split('?')[0]}") for method, path, _ in ON_INSTANCE]
    endpoints += [("POST", "/2/instances"), ("POST", "/2/instances-multi-alloc")]
    bodies = [NO_JSON[number % len(NO_JSON)] for number in range(len(endpoints))]
    requests: list[tuple[str, str, Any]] = [(*endpoint, body) for endpoint, body in zip(endpoints, bodies)]
    # The client library itself sends a list with tags, at which nobody looks.
    others = [endpoint for endpoint in endpoints if not endpoint[1].endswith("/tags")]
    requests += [(*endpoint, NO_DICT[number % len(NO_DICT)]) for number, endpoint in enumerate(others)]
    with tenancy.no_job():
        answers = tenancy.ask_all(requests)
        status = tenancy.ask(
            "POST", "/2/instances", b'{"name": "a.test.example.com"}', headers={"Content-Type": "text/plain"}
        )[0]
    assert [(r, a[0]) for r, a in zip(requests, answers) if a[0] != 400] == []
    assert status == 415


#: Right JSON with values that Ganeti's own handlers, or luxid, stumble over.
STUMBLES: list[tuple[str, str, Any]] = [
    ("POST", "/2/instances", {**CREATE, "name": "a.test.example.com", "hvparams": []}),
    ("POST", "/2/instances", {**CREATE, "name": "a.test.example.com", "hvparams": {"usb_devices": 5}}),
    ("POST", "/2/instances", {**CREATE, "name": "a.test.example.com", "os": "\ud800"}),
    ("POST", "/2/instances", {**CREATE, "name": "a.test.example.com", "comment": "\ud800"}),
    ("POST", "/2/instances", {**CREATE, "name": "a.test.example.com", "disks": [{"size": float("inf")}]}),
    ("POST", "/2/instances", {**CREATE, "name": "a.test.example.com", "\ud800": 1}),
    ("PUT", f"/2/instances/{OWN}/modify", {"hvparams": []}),
    ("PUT", f"/2/instances/{OWN}/modify", {"hvparams": "x"}),
    ("PUT", f"/2/instances/{OWN}/modify", {"hvparams": None}),
    ("PUT", f"/2/instances/{OWN}/modify", {"beparams": {"memory": float("inf")}}),
    ("PUT", f"/2/instances/{OWN}/modify", {"beparams": {"memory": float("nan")}}),
    ("PUT", f"/2/instances/{OWN}/modify", {"beparams": {"memory": "\ud800"}}),
    ("POST", f"/2/instances/{OWN}/replace-disks", {"mode": "replace_auto", "disks": 5}),
    ("POST", f"/2/instances/{OWN}/replace-disks", {"mode": "replace_auto", "disks": {"a": 1}}),
    ("POST", f"/2/instances/{OWN}/replace-disks", {"mode": "replace_auto", "disks": [True]}),
    ("POST", f"/2/instances/{OWN}/reinstall", {"os": 5}),
    ("POST", f"/2/instances/{OWN}/reinstall", {"os": ["noop"]}),
    ("PUT", f"/2/instances/{OWN}/tags?tag=%ff", None),
    ("PUT", f"/2/instances/{OWN}/tags?tag=%C3%A4", None),
    ("PUT", f"/2/instances/{OWN}/tags?tag=x&reason=%C3%A4", None),
    ("GET", "/2/jobs/1/wait", {"fields": [1]}),
    ("GET", "/2/jobs/1/wait", {"fields": "x"}),
    ("GET", "/2/jobs/99999999999999999999", None),
]


def test_values_that_others_stumble_over(tenancy: Tenancy) -> None:
    """Refused, never an error of the server with the inside of a daemon in it."""
    with tenancy.no_job():
        answers = [tenancy.try_(*request) for request in STUMBLES]
        assert [
            (request, status, body)
            for request, (status, _, body) in zip(STUMBLES, answers)
            if status not in (400, 403, 404)
        ] == []
