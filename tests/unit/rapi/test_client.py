# SPDX-License-Identifier: BSD-2-Clause
"""What a limited user's requests become: checked, pinned and stamped opcodes, or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from ganeti import errors, http, opcodes

from ganeti_ext.policy.accounts import Account, resolve
from ganeti_ext.policy.loader import load_policy
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
        ("PUT", "modify", {"hotplug": True}),
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
