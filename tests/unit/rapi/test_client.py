# SPDX-License-Identifier: BSD-2-Clause
"""What a limited user's requests become: checked, pinned and stamped opcodes, or nothing."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from ganeti import errors, http, luxi, opcodes
from ganeti.rpc import errors as rpcerr

from ganeti_ext.policy.accounts import EVERYTHING, Account, resolve
from ganeti_ext.policy.loader import load_policy
from ganeti_ext.rapi import quota
from ganeti_ext.rapi.audit import Record
from ganeti_ext.rapi.client import AccessClient
from ganeti_ext.rapi.jobs import REASON_SOURCE
from ganeti_ext.rapi.lookup import FIELDS
from tests.unit.rapi import fake
from tests.unit.rapi.fake import INSTANCE, NODE, Cluster, Server

pytestmark = pytest.mark.usefixtures("registered")

POLICY = """\
version: 1
roles:
  tenant:
    permissions: ["@instance_write", jobs.query, jobs.wait, jobs.cancel]
    scope: {instances: {name: "*.test.example.com"}}
    parameters: {os_type: noop, tags: "*"}
  reader:
    permissions: [jobs.query]
  single:
    permissions: [instances.multi_alloc]
    scope: {instances: {name: "*.test.example.com"}}
    parameters: {os_type: noop}
  tagged:
    permissions: [instances.query, tags.get]
    scope: {instances: {tag: hers}}
deny:
  - {users: she, permissions: [tags.get], instances: {tag: keep}}
"""

OTHER = "db1.prod.example.com"


@pytest.fixture
def cluster() -> Cluster:
    return Cluster(
        instances={
            INSTANCE: "uuid-of-web1",
            OTHER: "uuid-of-db1",
            "new.test.example.com.victim.org": "uuid-of-victim",
        }
    )


@pytest.fixture
def server(cluster: Cluster) -> Server:
    users = "she @tenant\nnoc @operator\nboss @admin\nroot write\nmixed @tenant,@reader\nsingle @single\ntagged @tagged"
    return Server(users, POLICY, cluster)


def path(action: str = "", name: str = INSTANCE) -> str:
    return f"/2/instances/{name}" + (f"/{action}" if action else "")


def own_job(**changes: Any) -> list[dict[str, Any]]:
    return [{"OP_ID": "OP_INSTANCE_REBOOT", "reason": [[REASON_SOURCE, "she", 1]], **changes}]


def test_the_nodes_are_asked_only_about_what_is_there_for_the_user(server: Server) -> None:
    """Live fields take luxid so long that the time would tell what there is."""
    assert server.ask("GET", path(), "tagged").status == 404
    ((_, (what, fields, _)),) = server.cluster.calls
    assert (what, tuple(fields)) == ("instance", FIELDS["instance"])


# Pinned and stamped.


@pytest.mark.parametrize(
    ("method", "action", "body"),
    [
        ("DELETE", "", None),
        ("POST", "reboot", None),
        ("PUT", "startup", None),
        ("PUT", "shutdown", None),
        ("PUT", "failover", None),
        ("PUT", "migrate", None),
        ("POST", "reinstall", None),
        ("POST", "reinstall", {"os": "noop", "start": True}),
        ("POST", "replace-disks", {"mode": "replace_auto"}),
        ("PUT", "activate-disks", None),
        ("PUT", "deactivate-disks", None),
        ("POST", "recreate-disks", None),
        ("PUT", "rename", {"new_name": "web2.test.example.com"}),
        ("PUT", "modify", {"beparams": {"maxmem": 256}}),
        ("POST", "disk/0/grow", {"amount": 1}),
    ],
)
def test_every_opcode_is_pinned_and_stamped(server: Server, method: str, action: str, body: Any) -> None:
    answer = server.ask(method, path(action), "she", body)
    assert answer.status == 200
    (ops,) = server.cluster.submitted
    for op in ops:
        assert op["instance_name"] == INSTANCE
        assert op["instance_uuid"] == "uuid-of-web1"
        assert [entry[:2] for entry in op["reason"] if entry[0] == REASON_SOURCE] == [(REASON_SOURCE, "she")]
        assert op["reason"][0][0] == REASON_SOURCE


def test_the_clients_own_uuid_is_not_taken(server: Server) -> None:
    body = {"instance_uuid": "uuid-of-db1"}
    assert server.ask("PUT", path("shutdown"), "she", body).status == 200
    assert server.cluster.submitted[0][0]["instance_uuid"] == "uuid-of-web1"


def test_a_creation_and_a_rename_do_not_ask_the_dns(server: Server) -> None:
    creation = {**fake.CREATION, "name": "new.test.example.com", "name_check": True, "ip_check": True}
    assert server.ask("POST", "/2/instances", "she", creation).status == 200
    rename = {"new_name": "web2.test.example.com", "name_check": True}
    assert server.ask("PUT", path("rename"), "she", rename).status == 200
    for ops in server.cluster.submitted:
        assert (ops[0]["name_check"], ops[0]["ip_check"]) == (False, False)


def test_a_multi_alloc_carries_its_stamp_outside_only(server: Server) -> None:
    inner = {**fake.NESTED_CREATION, "reason": [["gnt:ext:rapi-user", "root", 1], ["gnt:user", "x", 1]]}
    answer = server.ask("POST", "/2/instances-multi-alloc", "she", {"instances": [inner]})
    assert answer.status == 200
    (op,) = server.cluster.submitted[0]
    assert [entry[0] for entry in op["reason"]].count(REASON_SOURCE) == 1
    assert [nested["reason"] for nested in op["instances"]] == [[]]
    assert [nested["name_check"] for nested in op["instances"]] == [False]
    assert [nested["hypervisor"] for nested in op["instances"]] == ["fake"]


@pytest.mark.parametrize("user", ["she", "boss"])
@pytest.mark.parametrize("trail", [[[]], [5], [None], [{}], ["x"]])
def test_a_nested_trail_of_any_form_is_taken_out(server: Server, user: str, trail: list[Any]) -> None:
    body = {"instances": [{**fake.NESTED_CREATION, "reason": trail}]}
    answer = server.ask("POST", "/2/instances-multi-alloc", user, body)
    assert answer.status == 200, answer
    assert server.cluster.submitted[0][0]["instances"][0]["reason"] == []


def test_the_query_argument_reason_is_kept_and_cannot_forge(server: Server) -> None:
    server.ask("PUT", path("shutdown") + "?reason=gnt:ext:rapi-user", "she")
    trail = server.cluster.submitted[0][0]["reason"]
    assert [entry[:2] for entry in trail] == [
        (REASON_SOURCE, "she"),
        ("gnt:user", "gnt:ext:rapi-user"),
        ("gnt:library:rlib2:instances_name_shutdown", ""),
    ]


def test_a_trail_in_the_body_is_refused_by_ganeti(server: Server) -> None:
    answer = server.ask("PUT", path("shutdown"), "she", {"reason": [[REASON_SOURCE, "root", 1]]})
    assert (answer.status, server.cluster.submitted) == (400, [])


def test_accounts_without_limits_are_stamped_and_otherwise_left_alone(server: Server) -> None:
    body = {"hvparams": {"kernel_path": "/x"}, "force": True}
    for user in ("boss", "root"):
        assert server.ask("PUT", path("modify", OTHER), user, body).status == 200
    (by_boss,), (by_root,) = server.cluster.submitted
    assert by_boss["reason"].pop(0)[:2] == (REASON_SOURCE, "boss")
    assert fake.without_times(by_boss) == fake.without_times(by_root)


# Names.


@pytest.mark.parametrize(
    "name",
    [
        OTHER,
        "web1",
        "web1.test",
        "Web1.test.example.com",
        "WEB1.TEST.EXAMPLE.COM",
        "new.test.example.com",
        "gone.test.example.com",
        "uuid-of-web1",
        "web1.test.example.com.",
        ".test.example.com",
        "-.test.example.com",
        "ſ.test.example.com",
    ],
)
@pytest.mark.parametrize(("method", "action"), [("DELETE", ""), ("POST", "reboot"), ("PUT", "shutdown")])
def test_any_other_name_does_not_exist(server: Server, name: str, method: str, action: str) -> None:
    answer = server.ask(method, path(action, name), "she")
    gone = server.ask(method, path(action, "nothing.test.example.com"), "she")
    assert answer.status == 404
    assert answer.body == gone.body
    assert server.cluster.submitted == []


def test_what_luxid_expands_is_compared(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def expand(client: Any, what: str, fields: Any, qfilter: Any) -> Any:
        return type("Response", (), {"data": [[[0, "web1.test.example.com.victim.org"], [0, "uuid"]]]})

    monkeypatch.setattr(fake.Client, "Query", expand)
    assert server.ask("DELETE", path(), "she").status == 404
    assert server.cluster.submitted == []


@pytest.mark.parametrize("rows", [[], [[[0, INSTANCE], [0, "u1"]], [[0, INSTANCE], [0, "u2"]]]])
def test_not_one_row_is_no_instance(server: Server, monkeypatch: pytest.MonkeyPatch, rows: Any) -> None:
    monkeypatch.setattr(fake.Client, "Query", lambda *_: type("Response", (), {"data": rows}))
    assert server.ask("DELETE", path(), "she").status == 404


def test_luxids_complaint_about_a_name_is_not_passed_on(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def complain(*_: Any) -> Any:
        raise errors.OpPrereqError("secret", errors.ECODE_NOENT)

    monkeypatch.setattr(fake.Client, "Query", complain)
    answer = server.ask("DELETE", path(), "she")
    assert answer.status == 404
    assert "secret" not in str(answer.body)


@pytest.mark.parametrize(
    "new_name", [OTHER, "x", "../../x", "a;b.test.example.com", "X.test.example.com", ".test.example.com"]
)
def test_both_names_of_a_rename_must_be_inside(server: Server, new_name: str) -> None:
    assert server.ask("PUT", path("rename"), "she", {"new_name": new_name}).status == 404
    assert server.ask("PUT", path("rename", OTHER), "she", {"new_name": "web2.test.example.com"}).status == 404
    assert server.cluster.submitted == []


@pytest.mark.parametrize(
    "name", [OTHER, "web1", "New.test.example.com", "new.test.example.com/", "", "*.test.example.com"]
)
@pytest.mark.parametrize("key", ["name", "instance_name"])
def test_a_creation_outside(server: Server, key: str, name: str) -> None:
    inner = {other: value for other, value in fake.NESTED_CREATION.items() if other != "name"}
    assert server.ask("POST", "/2/instances", "she", {**inner, "__version__": 1, key: name}).status == 404
    nested = {"instances": [fake.NESTED_CREATION, {**inner, key: name}]}
    assert server.ask("POST", "/2/instances-multi-alloc", "she", nested).status == 404
    both = {**fake.CREATION, "instance_name": name}
    assert server.ask("POST", "/2/instances", "she", both).status == 404
    assert server.cluster.submitted == []


def test_a_multi_alloc_needs_the_permission_to_create(server: Server) -> None:
    answer = server.ask("POST", "/2/instances-multi-alloc", "single", {"instances": [fake.NESTED_CREATION]})
    assert answer.status == 403
    assert "instances.create" in answer.message


@pytest.mark.parametrize("target", ["/2/tags", f"/2/nodes/{NODE}/tags", "/2/groups/g/tags", "/2/networks/n/tags"])
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_the_tags_of_anything_else(server: Server, target: str, method: str) -> None:
    assert server.ask(method, target + "?tag=x", "she").status == 404
    assert server.cluster.submitted == []


# Parameters.


@pytest.mark.parametrize(
    "parameters",
    [
        {"hvparams": {"kvm_path": "/x"}},
        {"hypervisor": "kvm"},
        {"mode": "import", "src_path": "/x"},
        {"mode": "import"},
        {"pnode": NODE},
        {"pnode_uuid": "x"},
        {"snode": NODE},
        {"iallocator": "hail"},
        {"group_name": "g"},
        {"force_variant": True},
        {"osparams": {"os-image": "/x"}},
        {"osparams_private": {"x": "y"}},
        {"disks": [{"size": 1, "adopt": "lv"}]},
        {"disks": [{"size": 1, "vg": "x"}]},
        {"disks": [{"size": 1, "provider": "x"}]},
        {"nics": [{"link": "br1"}]},
        {"nics": [{"mac": "aa:00:00:00:00:01"}]},
        {"file_storage_dir": "x"},
        {"file_driver": "loop"},
        {"commit": True},
        {"forthcoming": True},
        {"ignore_ipolicy": True},
        {"tags": ["keep"]},
        {"tags": ["blue", "keep"]},
        {"os": "debootstrap"},
        {"mode": "remote-import"},
        {"disks": [{"size": 1, "foo": "bar"}]},
        {"disk_template": "ext"},
        {"disk_template": "blockdev"},
        {"nics": [{"mode": "routed"}]},
        {"nics": [{"ip": "192.0.2.1"}]},
        {"hvparams": {"vnc_bind_address": "::"}},
        {"priority": -10},
        {"debug_level": 5},
        {"conflicts_check": False},
        {"identify_defaults": True},
        {"instance_communication": True},
        {"opportunistic_locking": True},
        {"helper_startup_timeout": 100000},
        {"source_shutdown_timeout": 5},
        {"beparams": {"spindle_use": 5}},
        {"compress": "gzip"},
    ],
    ids=str,
)
def test_a_creation_cannot_leave_the_instance(server: Server, parameters: dict[str, Any]) -> None:
    answer = server.ask("POST", "/2/instances", "she", {**fake.CREATION, **parameters})
    assert answer.status == 403, answer
    assert next(iter(parameters)).partition("_")[0] in answer.message
    nested = {"instances": [{**fake.NESTED_CREATION, **parameters}]}
    assert server.ask("POST", "/2/instances-multi-alloc", "she", nested).status == 403
    assert server.cluster.submitted == []


@pytest.mark.parametrize(
    "parameters",
    [
        {"disks": [{"size": 1024, "mode": "rw"}]},
        {"nics": [{}]},
        {"beparams": {"memory": 5, "vcpus": 2}},
        {"no_install": True},
        {"tags": ["blue"]},
    ],
    ids=str,
)
def test_a_creation_may_say_how_large_it_is(server: Server, parameters: dict[str, Any]) -> None:
    assert server.ask("POST", "/2/instances", "she", {**fake.CREATION, **parameters}).status == 200


@pytest.mark.parametrize(
    ("method", "action", "body"),
    [
        ("PUT", "modify", {"hvparams": {"kvm_path": "/x"}}),
        ("PUT", "modify", {"custom_hvparams": {"kvm_path": "/x"}}),
        ("PUT", "modify", {"custom_beparams": {"spindle_use": 9}}),
        ("PUT", "modify", {"disks": [["add", {"size": 1, "adopt": "lv"}]]}),
        ("PUT", "modify", {"nics": [["add", {"link": "br1"}]]}),
        ("PUT", "modify", {"nics": [["modify", 0, {"mac": "aa:00:00:00:00:01"}]]}),
        ("PUT", "modify", {"nics": [["modify", 0, {"network": "none"}]]}),
        ("PUT", "modify", {"disks": [["attach", {"uuid": "x"}]]}),
        ("PUT", "modify", {"disks": [["modify", "--5", {}]]}),
        ("PUT", "modify", {"runtime_mem": 64}),
        ("PUT", "modify", {"osparams": {"os-image": "/x"}}),
        ("PUT", "modify", {"pnode": NODE}),
        ("PUT", "modify", {"os_name": "x"}),
        ("PUT", "modify", {"ignore_ipolicy": True}),
        ("PUT", "modify", {"force": True}),
        ("PUT", "shutdown", {"force": True}),
        ("PUT", "shutdown", {"timeout": 100000}),
        ("PUT", "shutdown", {"priority": -10}),
        ("PUT", "startup?force=1", None),
        ("PUT", "deactivate-disks?force=1", None),
        ("PUT", "activate-disks?ignore_size=1", None),
        ("POST", "reboot?ignore_secondaries=1", None),
        ("PUT", "migrate", {"target_node": NODE}),
        ("PUT", "migrate", {"cleanup": True}),
        ("PUT", "failover", {"ignore_consistency": True}),
        ("PUT", "failover", {"target_node_uuid": "x"}),
        ("POST", "replace-disks", {"mode": "replace_new_secondary", "remote_node": NODE}),
        ("POST", "replace-disks?mode=replace_auto&iallocator=hail", None),
        ("POST", "recreate-disks", {"disks": [[0, {"spindles": 5}]]}),
        ("POST", "reinstall", {"osparams": {"os-image": "/x"}}),
        ("DELETE", "", {"shutdown_timeout": 5}),
        ("PUT", "rename", {"new_name": "web2.test.example.com", "priority": -10}),
        ("POST", "disk/0/grow", {"amount": 1, "ignore_ipolicy": True}),
    ],
    ids=str,
)
def test_what_leaves_the_instance_is_refused(server: Server, method: str, action: str, body: Any) -> None:
    assert server.ask(method, path(action), "boss", body).status == 200  # it is a right request
    answer = server.ask(method, path(action), "she", body)
    assert answer.status == 403, answer
    assert len(server.cluster.submitted) == 1


@pytest.mark.parametrize(
    ("method", "action", "body"),
    [
        ("PUT", "modify", {"instance_communication": False}),
    ],
    ids=str,
)
def test_no_is_a_value_too(server: Server, method: str, action: str, body: Any) -> None:
    """Where unset means "as it is", `false` is a change: the administrator's offline is undone."""
    answer = server.ask(method, path(action), "she", body)
    assert (answer.status, server.cluster.submitted) == (403, [])


def test_a_nought_is_a_value_too(server: Server) -> None:
    answer = server.ask("POST", "/2/instances", "she", {**fake.CREATION, "helper_shutdown_timeout": 0})
    assert (answer.status, server.cluster.submitted) == (403, [])


# Jobs.


def test_the_own_job_is_read_waited_for_and_cancelled(server: Server) -> None:
    server.cluster.jobs[42] = own_job()
    assert server.ask("GET", "/2/jobs/42", "she").status == 200
    assert server.ask("GET", "/2/jobs/42/wait", "she", {"fields": ["status"]}).status == 200
    assert server.ask("DELETE", "/2/jobs/42", "she").status == 200
    assert server.ask("GET", "/2/jobs/0042", "she").status == 200


@pytest.mark.parametrize(
    "ops",
    [
        [],
        [{"OP_ID": "OP_X"}],
        own_job(reason=None),
        own_job(reason=[]),
        own_job(reason=[["gnt:user", "she", 1]]),
        own_job(reason=[[REASON_SOURCE, "noc", 1]]),
        own_job(reason=[[REASON_SOURCE, "SHE", 1]]),
        own_job(reason=[[REASON_SOURCE, "she", 1], [REASON_SOURCE, "noc", 1]]),
        own_job(reason=[[REASON_SOURCE, "she", 1], [REASON_SOURCE, "she", 1]]),
        own_job(reason=[["x" + REASON_SOURCE, "she", 1]]),
        own_job(reason=[[REASON_SOURCE + ":x", "she", 1]]),
        [*own_job(), {"OP_ID": "OP_X", "reason": []}],
        own_job(reason=[[]]),
        own_job(reason=[5]),
        own_job(reason=[None]),
        own_job(reason=[[REASON_SOURCE]]),
    ],
    ids=str,
)
def test_anothers_job_does_not_exist(server: Server, ops: list[dict[str, Any]]) -> None:
    server.cluster.jobs[42] = ops
    for method, target, body in (
        ("GET", "", None),
        ("GET", "/wait", {"fields": ["ops"]}),
        ("DELETE", "", None),
    ):
        answer = server.ask(method, f"/2/jobs/42{target}", "she", body)
        gone = server.ask(method, f"/2/jobs/43{target}", "she", body)
        assert answer.status == gone.status == 404, answer
        assert answer.body == gone.body
    assert {"CancelJob", "WaitForJobChangeOnce"}.isdisjoint(server.cluster.names_of_calls())


@pytest.mark.parametrize("job", ["9" * 19, "9" * 5000, "٤٢"])
def test_a_number_that_is_none(server: Server, job: str) -> None:
    server.cluster.jobs[42] = own_job()
    assert server.ask("GET", f"/2/jobs/{job}", "she").status == 404


def test_who_has_an_unlimited_role_too_reads_all_jobs_but_cancels_his_own(server: Server) -> None:
    server.cluster.jobs[42] = own_job()
    assert server.ask("GET", "/2/jobs/42", "mixed").status == 200
    assert server.ask("DELETE", "/2/jobs/42", "mixed").status == 404
    assert server.ask("GET", "/2/jobs/42", "noc").status == 200


# The client by itself.


@contextmanager
def refused(what: str) -> Iterator[None]:
    """A refusal whose text, which an HttpException does not show as its own, holds `what`."""
    with pytest.raises(http.HttpForbidden) as caught:
        yield
    assert what in caught.value.message


def client(options: str, permission: str, cluster: Cluster) -> Any:
    policy = load_policy(POLICY.encode(), "policy")
    grants = resolve(options.split(","), policy)
    assert grants is not None
    return AccessClient(cluster.client, Account("she", grants, policy), permission, Record("PUT", "/"))


@pytest.mark.parametrize("call", ["QueryFilters", "ReplaceFilter", "DeleteFilter"])
def test_job_filters_are_for_accounts_without_limits(cluster: Cluster, call: str) -> None:
    assert callable(getattr(client("@admin", "cluster.info", cluster), call))
    with refused(call):
        getattr(client("@tenant", "tags.set", cluster), call)


@pytest.mark.parametrize(
    "call",
    [
        "SubmitManyJobs",
        "SubmitJobToDrainedQueue",
        "ArchiveJob",
        "AutoArchiveJobs",
        "ChangeJobPriority",
        "PickupJob",
        "SetQueueDrainFlag",
        "SetWatcherPause",
        "QueryConfigValues",
        "QueryExports",
        "CallMethod",
        "WaitForJobChange",
        "Later",
    ],
)
def test_a_call_that_no_handler_makes_is_refused_to_all(cluster: Cluster, call: str) -> None:
    with refused(call):
        getattr(client("@admin", "cluster.info", cluster), call)


@pytest.mark.parametrize(
    "op",
    [
        opcodes.OpClusterRedistConf(),
        opcodes.OpClusterSetParams(),
        opcodes.OpTestDelay(duration=1.0),
        opcodes.OpInstanceMove(instance_name=INSTANCE, target_node=NODE),
        opcodes.OpInstanceConsole(instance_name=INSTANCE),
    ],
    ids=lambda op: op.OP_ID,
)
def test_an_opcode_that_is_not_known_is_refused_to_a_limited_role(cluster: Cluster, op: Any) -> None:
    with refused("may not submit"):
        client("@tenant", "instances.reboot", cluster).SubmitJob([op])
    assert cluster.calls == []


def test_one_bad_opcode_stops_the_whole_job(cluster: Cluster) -> None:
    good = opcodes.OpInstanceShutdown(instance_name=INSTANCE)
    bad = opcodes.OpInstanceShutdown(instance_name=OTHER)
    for ops in ([good, bad], [bad, good]):
        with pytest.raises(http.HttpNotFound):
            client("@tenant", "instances.shutdown", cluster).SubmitJob(ops)
    assert cluster.submitted == []


def test_an_export_that_removes_needs_the_removal(cluster: Cluster) -> None:
    op = opcodes.OpBackupExport(instance_name=INSTANCE, target_node="node1", remove_instance=True)
    with refused("instances.remove"):
        client("+instances.export.create", "instances.export.create", cluster).SubmitJob([op])
    client("+instances.export.create,+instances.remove", "instances.export.create", cluster).SubmitJob([op])
    assert len(cluster.submitted) == 1


@pytest.mark.parametrize("value", [5, ["noop"]])
def test_what_its_handler_has_not_looked_at_is_looked_at(cluster: Cluster, value: Any) -> None:
    """A reinstallation's opcodes are made without a check of their types."""
    op = opcodes.OpInstanceReinstall(instance_name=INSTANCE, os_type=value)
    with pytest.raises(http.HttpBadRequest) as caught:
        client("instance_write", "instances.reinstall", cluster).SubmitJob([op])
    assert "os_type" in caught.value.message
    assert cluster.submitted == []


@pytest.mark.parametrize("value", ["\u00e4", "\ud800", {"\u00e4": 1}, [1, ["\u00e4"]], float("inf"), float("nan")])
def test_what_luxid_stumbles_over_does_not_reach_it(cluster: Cluster, value: Any) -> None:
    op = opcodes.OpInstanceSetParams(instance_name=INSTANCE, beparams={"memory": value})
    with pytest.raises(http.HttpBadRequest) as caught:
        client("instance_write", "instances.modify", cluster).SubmitJob([op])
    assert "'beparams'" in caught.value.message
    assert cluster.submitted == []


# Places, and what is brought along.

PLACES = """\
version: 1
roles:
  in-group:
    permissions: [instances.create, instances.multi_alloc, instances.migrate, instances.modify]
    scope: {instances: {name: "*.test.example.com", group: group2}}
    parameters: {os_type: noop}
  in-groups:
    permissions: [instances.create]
    scope: {instances: {name: "*.test.example.com", group: [group1, group2]}}
    parameters: {os_type: noop}
  on-nodes:
    permissions: [instances.create, instances.migrate, instances.recreate_disks, instances.replace_disks]
    scope: {instances: {name: "*.test.example.com"}, nodes: {name: node1.example.com}, networks: {name: network1}}
    parameters: {os_type: noop}
  whole-node:
    permissions: [nodes.evacuate, nodes.powercycle, groups.modify, networks.modify, nodes.modify]
    scope:
      instances: {name: "*.test.example.com"}
      nodes: {name: "*"}
      groups: {name: "*"}
      networks: {name: "*"}
    parameters: {mode: "*", gateway: "*"}
  tagging:
    permissions: [instances.create, instances.rename]
    scope: {instances: {tag: "tenant:{user}"}}
    parameters: {os_type: noop, tags: "*"}
    tags: ["tenant:{user}", managed]
  warned:
    permissions: [instances.create, instances.reboot, instances.list]
    scope: {instances: {name: "*.test.example.com"}}
    parameters: {os_type: noop}
    mode: warn
  small:
    permissions: [instances.create, instances.grow_disk, instances.modify, instances.recreate_disks, instances.reboot]
    scope: {instances: {name: "*.test.example.com"}}
    parameters:
      os_type: noop
      beparams.maxmem: {max: 128}
      beparams.vcpus: {max: 2}
      disks.size: {max: 100}
      disk_template: diskless
      hypervisor: fake
  counted:
    permissions: [instances.create, instances.reboot, instances.modify]
    scope: {instances: {name: "*.test.example.com"}}
    parameters: {os_type: noop}
    quota: {instances: 2, vcpus: 4}
  limited-parameters:
    permissions: [instances.modify, instances.reboot, instances.create]
    parameters: {preset: none, beparams.vcpus: {max: 2}, reboot_type: "*"}
  own-jobs:
    permissions: [instances.reboot]
    jobs: own
deny:
  - {users: [keeper, half], permissions: "*", instances: {tag: keep}}
"""
PLACES_USERS = """\
she @tagging
group @in-group
groups @in-groups
node @on-nodes
whole @whole-node
warn @warned
small @small
count @counted
limits @limited-parameters
own @own-jobs
keeper write
half @in-groups
"""


@pytest.fixture
def wide() -> Cluster:
    cluster = Cluster({INSTANCE: "uuid-of-web1"})
    cluster.add("group", "group2")
    cluster.add("node", "node2.example.com", group="group2")
    cluster.add("node", "node3.example.com", group="group2")
    cluster.add("instance", "kept.example.com", tags=("keep",), nodes=("node2.example.com",))
    cluster.add("instance", "web2.test.example.com", nodes=("node2.example.com",), disks=(50,), vcpus=2)
    return cluster


@pytest.fixture
def places(wide: Cluster, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Server:
    lock = functools.partial(quota.locked, str(tmp_path / "lock"))
    monkeypatch.setattr("ganeti_ext.rapi.client.quota.locked", lock)
    return Server(PLACES_USERS, PLACES, wide)


NEW = {**fake.CREATION, "name": "new.test.example.com"}


def create(server: Server, user: str, **settings: Any) -> Any:
    return server.ask("POST", "/2/instances", user, {**NEW, **settings})


def test_a_creation_is_put_into_the_one_group_of_the_scope(places: Server) -> None:
    assert create(places, "group").status == 200
    assert create(places, "group", group_name="group2").status == 200
    first, second = (ops[0] for ops in places.cluster.submitted)
    assert first["group_name"] == second["group_name"] == "group2"


def test_of_several_creations_the_group_is_not_obeyed(places: Server) -> None:
    nested = {key: value for key, value in NEW.items() if key != "__version__"}
    for settings in ({}, {"group_name": "group2"}):
        answer = places.ask("POST", "/2/instances-multi-alloc", "group", {"instances": [{**nested, **settings}]})
        assert answer.status == 403 and "parameter pnode must name a node" in str(answer.body)
    body = {"instances": [{**nested, "group_name": "group1"}]}
    assert places.ask("POST", "/2/instances-multi-alloc", "group", body).status == 404


@pytest.mark.parametrize(
    ("user", "settings", "status"),
    [
        ("group", {"group_name": "group1"}, 404),
        ("group", {"group_name": "gone"}, 404),
        ("group", {"group_name": ""}, 400),
        ("group", {"pnode": "node2.example.com"}, 403),
        ("group", {"pnode": "gone.example.com"}, 403),
        ("groups", {}, 403),
        ("groups", {"group_name": "group1"}, 200),
        ("groups", {"group_name": "group2"}, 200),
        ("groups", {"group_name": "gone"}, 404),
        ("node", {}, 403),
        ("node", {"pnode": NODE}, 200),
        ("node", {"pnode": "node1"}, 404),
        ("node", {"pnode": "node2.example.com"}, 404),
        ("node", {"pnode": "gone.example.com"}, 404),
        ("node", {"pnode": NODE, "snode": "node2.example.com"}, 404),
        ("node", {"pnode": NODE, "pnode_uuid": "uuid-of-node2.example.com"}, 403),
        ("node", {"pnode": NODE, "nics": [{"network": "network1"}]}, 200),
        ("node", {"pnode": NODE, "nics": [{"network": "uuid-of-network1"}]}, 404),
        ("node", {"pnode": NODE, "nics": [{"network": "gone"}]}, 404),
        ("groups", {"group_name": "group1", "nics": [{"network": "network1"}]}, 403),
        ("groups", {"group_name": "group1", "nics": [{"network": "gone"}]}, 403),
    ],
)
def test_a_place_is_inside(places: Server, user: str, settings: dict[str, Any], status: int) -> None:
    answer = create(places, user, **settings)
    assert answer.status == status, answer
    assert len(places.cluster.submitted) == (status == 200)


def test_a_place_that_must_be_named_is_told(places: Server) -> None:
    assert "group_name must name one of group1, group2" in create(places, "groups").message
    assert "pnode must name a node" in create(places, "node").message


def test_what_was_decided_on_is_pinned(places: Server) -> None:
    assert create(places, "node", pnode=NODE, nics=[{"network": "network1"}, {}]).status == 200
    (op,) = places.cluster.submitted[0]
    assert (op["pnode"], op["pnode_uuid"]) == (NODE, f"uuid-of-{NODE}")
    assert op["nics"] == [{"network": "uuid-of-network1"}, {}]


@pytest.mark.parametrize(
    ("action", "body"),
    [
        ("migrate", {"target_node": "node2.example.com"}),
        ("recreate-disks", {"nodes": ["node2.example.com"]}),
        ("recreate-disks", {"nodes": [NODE, "gone.example.com"]}),
        ("replace-disks", {"mode": "replace_new_secondary", "remote_node": "node2.example.com"}),
    ],
)
def test_an_instance_is_moved_inside_alone(places: Server, action: str, body: dict[str, Any]) -> None:
    method = "PUT" if action == "migrate" else "POST"
    answer = places.ask(method, path(action), "node", body)
    assert (answer.status, places.cluster.submitted) == (404, [])
    inside = {key: [NODE] if key == "nodes" else NODE if "node" in key else value for key, value in body.items()}
    assert places.ask(method, path(action), "node", inside).status == 200


def test_the_allocator_does_not_choose_a_node_outside(places: Server) -> None:
    for method, action, body in (
        ("PUT", "migrate", {}),
        ("POST", "replace-disks", {"mode": "replace_new_secondary"}),
    ):
        answer = places.ask(method, path(action), "node", body)
        assert answer.status == 403 and "must name a node of the role" in answer.message
    assert places.cluster.submitted == []
    assert places.ask("POST", path("replace-disks"), "node", {"mode": "replace_on_primary"}).status == 200
    # What has a secondary node goes there.
    places.cluster.things["instance"][INSTANCE].nodes = (NODE, "node2.example.com")
    assert places.ask("PUT", path("migrate"), "node", {}).status == 200


def test_an_instance_is_in_a_group_with_all_its_nodes(places: Server) -> None:
    assert places.ask("PUT", path("migrate", "web2.test.example.com"), "group").status == 200
    places.cluster.things["instance"]["web2.test.example.com"].nodes = ("node2.example.com", NODE)
    assert places.ask("PUT", path("migrate", "web2.test.example.com"), "group").status == 404
    assert places.ask("PUT", path("migrate"), "group").status == 404


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("POST", "/2/nodes/{}/evacuate", {"mode": "all"}),
        ("POST", "/2/nodes/{}/powercycle", None),
        ("POST", "/2/nodes/{}/modify", {"drained": True}),
    ],
)
def test_what_is_done_to_a_node_is_done_to_its_instances(places: Server, method: str, target: str, body: Any) -> None:
    assert places.ask(method, target.format(NODE), "whole", body).status == 200
    assert places.ask(method, target.format("node2.example.com"), "whole", body).status == 404  # kept.example.com
    places.cluster.things["instance"]["kept.example.com"].nodes = (NODE, "node3.example.com")
    assert places.ask(method, target.format("node2.example.com"), "whole", body).status == 200
    assert places.ask(method, target.format("node3.example.com"), "whole", body).status == 404
    places.cluster.things["instance"]["Odd"] = fake.Thing("Odd", "u", nodes=("node2.example.com",))
    assert places.ask(method, target.format("node2.example.com"), "whole", body).status == 404


@pytest.mark.parametrize("body", [{"depends": [[7, ["success"]]]}, {"priority": -10}])
def test_what_brings_instances_along_is_not_put_off(places: Server, body: dict[str, Any]) -> None:
    places.cluster.jobs[7] = own_job(reason=[[REASON_SOURCE, "whole", 1]])
    answer = places.ask("POST", f"/2/nodes/{NODE}/evacuate", "whole", {"mode": "all", **body})
    assert (answer.status, places.cluster.submitted) == (403, [])


def test_networks_and_groups_bring_their_instances(places: Server) -> None:
    kept = places.cluster.things["instance"]["kept.example.com"]
    assert places.ask("PUT", "/2/networks/network1/modify", "whole", {"gateway": "192.0.2.1"}).status == 200
    kept.networks = ("network1",)
    assert places.ask("PUT", "/2/networks/network1/modify", "whole", {"gateway": "192.0.2.1"}).status == 404
    assert places.ask("PUT", "/2/groups/group1/modify", "whole", {"alloc_policy": "preferred"}).status == 200
    assert places.ask("PUT", "/2/groups/group2/modify", "whole", {"alloc_policy": "preferred"}).status == 404


# Denies.

DENIES = """\
version: 1
roles:
  all-of-test:
    permissions: ["@admin"]
    scope: {instances: {name: "*.test.example.com"}, nodes: {name: "*"}}
    parameters: {os_type: noop}
deny:
  - {users: [boss, she], permissions: [instances.remove], instances: {name: "web1.*"}}
  - {users: [boss, she], permissions: [instances.shutdown, instances.migrate], instances: {tag: steady}}
  - {users: [boss, she], permissions: [instances.list], instances: {group: group2}}
"""


@pytest.fixture
def kept(wide: Cluster) -> Server:
    wide.add("instance", "steady.test.example.com", tags=("steady",), nodes=("node3.example.com",))
    return Server("boss write\nshe @all-of-test\n", DENIES, wide)


@pytest.mark.parametrize("user", ["boss", "she"])
def test_no_new_name_gets_round_a_deny(kept: Server, user: str) -> None:
    assert kept.ask("DELETE", path(""), user).status == 403
    new = {"new_name": "x.test.example.com"}
    answer = kept.ask("PUT", path("rename"), user, new)
    assert answer.status == 403 and "would get out of it" in answer.message
    assert kept.cluster.submitted == []
    # Another's name, and a name that the deny is about, too.
    assert kept.ask("PUT", path("rename", "web2.test.example.com"), user, new).status == 200
    assert kept.ask("PUT", path("rename"), user, {"new_name": "web1.test.example.com"}).status == 200


def test_no_other_group_gets_round_a_deny(kept: Server) -> None:
    for where, body in (
        ("/2/groups/group2/rename", {"new_name": "group3"}),
        ("/2/groups/group1/assign-nodes", {"nodes": ["node2.example.com"]}),
    ):
        assert kept.ask("PUT", where, "boss", body).status == 403
    assert kept.cluster.submitted == []
    assert kept.ask("PUT", "/2/groups/group1/rename", "boss", {"new_name": "group3"}).status == 200


@pytest.mark.parametrize("user", ["boss", "she"])
@pytest.mark.parametrize(
    ("method", "where", "body"),
    [
        ("POST", "/2/instances/steady.test.example.com/reinstall", {"os": "noop"}),
        ("PUT", "/2/instances/steady.test.example.com/export", {"destination": NODE, "shutdown": True}),
        ("POST", "/2/nodes/node3.example.com/evacuate", {"mode": "all"}),
        ("POST", "/2/nodes/node3.example.com/migrate", {}),
        ("POST", "/2/nodes/node3.example.com/powercycle", None),
    ],
)
def test_a_deny_holds_on_the_way_too(kept: Server, user: str, method: str, where: str, body: Any) -> None:
    answer = kept.ask(method, where, user, body)
    assert answer.status == 403 and "deny" in answer.message
    assert kept.cluster.submitted == []
    other = where.replace("steady", "web2").replace("node3", "node1")
    assert kept.ask(method, other, user, body).status == 200


# Tags that a role stamps.


def test_what_a_role_creates_has_its_tags(places: Server) -> None:
    assert create(places, "she", name="any.example.com", tags=["blue"]).status == 403  # it may not set tags
    assert create(places, "she", name="any.example.com").status == 200
    assert places.cluster.submitted[0][0]["tags"] == ["managed", "tenant:she"]


@pytest.mark.parametrize("tag", ["tenant:he", "tenant:she", "managed", "tenant:"])
def test_a_tag_of_the_policy_is_nobodys_to_set(places: Server, tag: str) -> None:
    assert create(places, "she", name="any.example.com", tags=[tag]).status == 403
    assert places.cluster.submitted == []


def test_a_scope_of_tags_holds_what_has_them(places: Server) -> None:
    rename = {"new_name": "other.example.com"}
    assert places.ask("PUT", path("rename", "kept.example.com"), "she", rename).status == 404
    places.cluster.things["instance"]["kept.example.com"].tags = ("tenant:she",)
    assert places.ask("PUT", path("rename", "kept.example.com"), "she", rename).status == 200
    places.cluster.things["instance"]["kept.example.com"].tags = ("tenant:she2",)
    assert places.ask("PUT", path("rename", "kept.example.com"), "she", rename).status == 404


# Mode warn.


def test_a_role_in_mode_warn_is_logged_and_let_through(places: Server) -> None:
    for asked in (
        ("POST", path("reboot", "kept.example.com"), "warn"),
        ("POST", path("reboot", "kept"), "warn"),
        ("POST", "/2/instances", "warn", {**NEW, "name": "x.example.com"}),
        ("POST", "/2/instances", "warn", {**NEW, "hvparams": {"kvm_path": "/x"}}),
    ):
        assert places.ask(*asked).status == 200, asked
        assert places.trail.records[-1]["decision"] == "warn"
    assert places.ask("POST", path("reboot"), "warn").status == 200
    assert places.trail.records[-1]["decision"] == "allow"
    assert len(places.ask("GET", "/2/instances", "warn").body) == 3
    assert places.ask("DELETE", path(), "warn").status == 403


# Values that result without being set.


@pytest.mark.parametrize(
    ("settings", "status"),
    [
        ({}, 200),
        ({"beparams": {"maxmem": 128, "minmem": 64}}, 200),
        ({"beparams": {"maxmem": 129}}, 403),
        ({"beparams": {"maxmem": "1G"}}, 403),
        ({"beparams": {"memory": 200}}, 403),
        ({"beparams": {"maxmem": 1, "memory": 200}}, 403),
        ({"beparams": {"maxmem": "default"}}, 403),
        ({"beparams": {"vcpus": "3"}}, 403),
        ({"beparams": {"vcpus": "2"}}, 200),
        ({"disk_template": "file"}, 403),
        ({"disks": [{"size": 100}, {"size": "100"}]}, 200),
        ({"disks": [{"size": 100}, {"size": 101}]}, 403),
        ({"disks": [{"size": "1G"}]}, 403),
    ],
    ids=str,
)
def test_a_limit_is_about_what_results(places: Server, settings: dict[str, Any], status: int) -> None:
    assert create(places, "small", **settings).status == status


@pytest.mark.parametrize(
    ("default", "value", "refused"),
    [("maxmem", 129, True), ("maxmem", 128, False), ("vcpus", 3, True), ("spindle_use", 9, False)],
)
def test_the_clusters_defaults_are_values_too(places: Server, default: str, value: int, refused: bool) -> None:
    places.cluster.info["beparams"]["default"][default] = value
    assert create(places, "small").status == (403 if refused else 200)


def test_the_clusters_default_template_and_hypervisor_are_values_too(places: Server) -> None:
    bare = {key: value for key, value in NEW.items() if key != "disk_template"}
    assert places.ask("POST", "/2/instances", "small", bare).status == 200
    places.cluster.info["enabled_disk_templates"] = ["file", "diskless"]
    assert places.ask("POST", "/2/instances", "small", bare).status == 403
    assert create(places, "small").status == 200
    places.cluster.info["default_hypervisor"] = "kvm"
    assert create(places, "small").status == 403


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"amount": 50}, 200),
        ({"amount": 51}, 403),
        ({"amount": 100, "absolute": True}, 200),
        ({"amount": 101, "absolute": True}, 403),
    ],
)
def test_a_disk_grows_to_its_limit(places: Server, body: dict[str, Any], status: int) -> None:
    target = path("disk/0/grow", "web2.test.example.com")
    assert places.ask("POST", target, "small", body).status == status
    for (op,) in places.cluster.submitted:
        # To what was decided on: two that grow it by something would be more than either.
        assert (op["amount"], op["absolute"]) == (100, True)


def test_a_disk_that_is_made_anew_is_as_large_as_it_may_be(places: Server) -> None:
    target = path("recreate-disks", "web2.test.example.com")
    assert places.ask("POST", target, "small", {"disks": [[0, {"size": 100}]]}).status == 200
    assert places.ask("POST", target, "small", {"disks": [[0, {"size": 101}]]}).status == 403


def test_an_unlimited_role_may_have_limits_of_parameters(places: Server) -> None:
    target = path("modify", "kept.example.com")
    assert places.ask("PUT", target, "limits", {"beparams": {"vcpus": 2}}).status == 200
    assert places.ask("PUT", target, "limits", {"beparams": {"vcpus": 3}}).status == 403
    assert places.ask("PUT", target, "limits", {"hvparams": {"acpi": True}}).status == 403
    assert places.ask("POST", path("reboot", "kept"), "limits").status == 200  # short names, as ever
    assert create(places, "limits").status == 403


# Quotas.


def test_a_quota_is_counted_at_the_choke_point(places: Server) -> None:
    answer = create(places, "count")
    assert answer.status == 403
    assert "quota: 2 of 2 instances are taken, and this needs 1, by role counted" in answer.message
    assert places.ask("POST", path("reboot"), "count").status == 200
    assert places.ask("PUT", path("modify"), "count", {"beparams": {"vcpus": 2}}).status == 200
    answer = places.ask("PUT", path("modify"), "count", {"beparams": {"vcpus": 3}})
    assert (answer.status, len(places.cluster.submitted)) == (403, 2)
    del places.cluster.things["instance"]["web2.test.example.com"]
    places.cluster.status[max(places.cluster.jobs)] = "success"
    assert create(places, "count").status == 200


def test_the_instances_of_jobs_on_their_way_count(places: Server) -> None:
    del places.cluster.things["instance"]["web2.test.example.com"]
    assert create(places, "count").status == 200
    assert create(places, "count", name="second.test.example.com").status == 200  # the first was done at once
    places.cluster.status.update(dict.fromkeys(places.cluster.jobs, "queued"))
    assert create(places, "count", name="third.test.example.com").status == 403


def test_a_queue_that_is_being_counted_is_503(places: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def busy() -> Iterator[None]:
        raise quota.QuotaBusy("busy")
        yield

    monkeypatch.setattr("ganeti_ext.rapi.client.quota.locked", busy)
    answer = places.ask("PUT", path("modify"), "count", {"beparams": {"vcpus": 1}})
    assert (answer.status, answer.message, places.cluster.submitted) == (503, "busy", [])
    assert places.ask("POST", path("reboot"), "count").status == 200  # which adds nothing


# Whose jobs one's own wait for.


@pytest.mark.parametrize("user", ["small", "own", "whole"])
def test_a_job_waits_for_own_jobs_alone(places: Server, user: str) -> None:
    server = places
    server.cluster.jobs.update({41: own_job(), 42: own_job(reason=[[REASON_SOURCE, user, 1]])})
    target = path("reboot") if user != "whole" else f"/2/nodes/{NODE}/modify"
    body: dict[str, Any] = {} if user != "whole" else {"drained": False}

    def after(job: Any) -> int:
        return server.ask("POST", target, user, {**body, "depends": [[job, ["success"]]]}).status

    assert after(41) == after(999) == after(-1) == 404
    assert after(42) == (403 if user == "whole" else 200)  # which may not be put off
    assert server.ask("POST", target, user, {**body, "depends": [[42, ["success"]], [41, ["error"]]]}).status == 404


def test_a_job_of_an_account_without_limits_waits_for_any(places: Server) -> None:
    places.cluster.jobs[41] = own_job()
    body = {"depends": [[41, ["success"]]]}
    assert places.ask("POST", path("reboot"), "limits", body).status == 200


# Denies.


def test_a_deny_about_objects(places: Server) -> None:
    assert places.ask("POST", path("reboot"), "keeper").status == 200
    assert places.ask("POST", path("reboot", "kept.example.com"), "keeper").status == 403
    for name in ("kept", "uuid-of-kept.example.com", "KEPT.example.com", "gone.example.com"):
        answer = places.ask("POST", path("reboot", name), "keeper")
        assert answer.status == 403
        assert "must be named in full" in answer.message
    # Tags have no UUID: such a job may not wait until the name is another's.
    places.cluster.jobs[41] = own_job()
    body = {"depends": [[41, ["success"]]]}
    assert places.ask("PUT", path("tags") + "?tag=x", "keeper", body).status == 403
    assert places.ask("PUT", path("tags") + "?tag=x", "keeper").status == 200
    pinned = [ops[0].get("instance_uuid") for ops in places.cluster.submitted]
    assert pinned == ["uuid-of-web1", None]


def test_an_opcode_that_nobody_knows_is_refused_to_who_is_denied_something(places: Server) -> None:
    policy = load_policy(PLACES.encode(), "policy")
    account = Account("keeper", EVERYTHING, policy)
    for op in (opcodes.OpTestDelay(duration=1.0), opcodes.OpInstanceMove(instance_name=INSTANCE, target_node=NODE)):
        with refused("may not submit"):
            AccessClient(places.cluster.client, account, "instances.reboot", Record("PUT", "/")).SubmitJob([op])
    assert places.cluster.submitted == []


# Luxid's errors.


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (errors.JobQueueFull(), 503, "full"),
        (errors.JobQueueDrainError(), 503, "drained"),
        (errors.GenericError("Queue drained"), 503, "drained"),
        (errors.GenericError("secret"), 400, "luxid refused the request"),
        (errors.OpPrereqError("secret", errors.ECODE_INVAL), 400, "luxid refused the request"),
        (errors.OpPrereqError("secret", errors.ECODE_NOENT), 404, ""),
        (rpcerr.TimeoutError("secret"), 504, "luxid did not answer"),
        (rpcerr.NoMasterError("secret"), 502, "luxid does not answer"),
        (rpcerr.PermissionError("secret"), 502, "luxid does not answer"),
        (rpcerr.ConnectionClosedError("secret"), 502, "luxid does not answer"),
        (rpcerr.RequestError("secret"), 400, "luxid refused the request"),
        (errors.ParameterError("secret"), 400, "luxid refused the request"),
    ],
    ids=repr,
)
def test_what_luxid_says_is_not_passed_on(
    server: Server, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, text: str
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(fake.Client, "SubmitJob", fail)
    for user in ("she", "noc", "boss"):
        answer = server.ask("POST", path("reboot"), user)
        assert answer.status == status
        assert text in answer.message
        assert "secret" not in str(answer.body)


@pytest.mark.parametrize("call", ["QueryInstances", "QueryNodes", "QueryTags", "QueryClusterInfo", "QueryFilters"])
def test_nor_what_it_says_of_reads(server: Server, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise errors.GenericError("secret")

    monkeypatch.setattr(fake.Client, call, fail)
    target = {
        "QueryInstances": "/2/instances",
        "QueryNodes": "/2/nodes",
        "QueryTags": "/2/tags",
        "QueryClusterInfo": "/2/info",
        "QueryFilters": "/2/filters",
    }[call]
    answer = server.ask("GET", target, "boss")
    assert (answer.status, answer.message) == (400, "luxid refused the request")


@pytest.mark.parametrize(
    "call", [name for name, value in vars(AccessClient).items() if name[0].isupper() and callable(value)]
)
def test_a_call_takes_what_ganetis_takes(call: str) -> None:
    """By position and by name: handlers do both."""
    ours = list(inspect.signature(getattr(AccessClient, call)).parameters.values())
    ganetis = list(inspect.signature(getattr(luxi.Client, call)).parameters.values())
    named = [parameter for parameter in ours if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    assert [parameter.name for parameter in named] == [parameter.name for parameter in ganetis[: len(named)]]
    assert len(named) == len(ganetis) or ours[-1].kind is inspect.Parameter.VAR_KEYWORD
