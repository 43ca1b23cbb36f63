# SPDX-License-Identifier: BSD-2-Clause
"""Ganeti's own client library, from its Debian package, works for limited users: every method of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from ganeti import opcodes

from tests.cluster.conftest import INSTANCES
from tests.cluster.tenancy import FOREIGN, PERMISSIONS, Tenancy, run, tenants
from tests.cluster.vcluster import Cluster

OWN = "web1.test.example.com"

POLICY = f"""\
version: 1
roles:
  tenant:
{PERMISSIONS}
    scope:
      instances: {{name: "*.test.example.com"}}
    parameters: {{os_type: [noop]}}
  whole:
    permissions: ["@admin"]
    scope:
      instances: {{name: "*"}}
      nodes: {{name: "*"}}
      groups: {{name: "*"}}
      networks: {{name: "*"}}
    parameters: {{
      iallocator: [hail], network: "*", gateway: "*", network_mode: "*", network_link: "*", name: "*", changes: "*"}}
"""
USERS = """\
admin secret write
eve x @tenant
whole x @whole
"""

NEW = {"beparams": {"memory": 128}, "os": "noop"}
#: A call, with which arguments.
Call = tuple[str, list[Any], dict[str, Any]]

#: Calls about an instance, which comes first.
ON_INSTANCE: list[Call] = [
    ("GetInstance", [], {}),
    ("GetInstanceInfo", [], {"static": True}),
    ("GetInstanceTags", [], {}),
    ("AddInstanceTags", [["x"]], {}),
    ("DeleteInstanceTags", [["x"]], {"dry_run": True}),
    ("GetInstanceConsole", [], {}),
    ("ModifyInstance", [], {"beparams": {"vcpus": 2}}),
    ("ActivateInstanceDisks", [], {}),
    ("DeactivateInstanceDisks", [], {}),
    ("RecreateInstanceDisks", [], {"disks": [0]}),
    ("GrowInstanceDisk", [0, 1], {}),
    ("RebootInstance", [], {"reboot_type": "soft", "reason": "because"}),
    ("ShutdownInstance", [], {}),
    ("StartupInstance", [], {}),
    ("ReinstallInstance", [], {"os": "noop"}),
    ("ReplaceInstanceDisks", [], {"mode": "replace_on_primary", "disks": [0]}),
    ("PrepareExport", ["local"], {}),
    ("MigrateInstance", [], {"mode": "live"}),
    ("FailoverInstance", [], {}),
    ("RenameInstance", ["renamed.test.example.com"], {}),
    ("DeleteInstance", [], {"dry_run": True}),
]
#: Further ones that a tenant has.
LISTS: list[Call] = [
    ("GetVersion", [], {}),
    ("GetFeatures", [], {}),
    ("GetInfo", [], {}),
    ("GetInstances", [], {}),
    ("GetInstances", [], {"bulk": True}),
    ("CreateInstance", ["create", "new.test.example.com", "diskless", [], []], NEW),
    ("InstanceAllocation", ["create", "new.test.example.com", "diskless", [], []], NEW),
    ("InstancesMultiAlloc", [[{**NEW, "mode": "create", "name": "new.test.example.com", "disk_template": "diskless",
                               "disks": [], "nics": []}]], {}),
    ("GetJobs", [], {}),
    ("GetJobs", [], {"bulk": True}),
    ("GetJobStatus", ["JOB"], {}),
    ("WaitForJobChange", ["JOB", ["status"], None, None], {}),
    ("CancelJob", ["JOB"], {}),
    ("GetNodes", [], {}),
    ("GetNodes", [], {"bulk": True}),
    ("GetGroups", [], {}),
    ("GetGroups", [], {"bulk": True}),
    ("GetNetworks", [], {}),
    ("GetNetworks", [], {"bulk": True}),
    ("Query", ["instance", ["name", "uuid"]], {}),
    ("Query", ["node", ["name"], ["=", "name", "node1"]], {}),
    ("QueryFields", ["instance"], {}),
    ("QueryFields", ["job", ["id"]], {}),
]  # fmt: skip
#: Those that wait until a job of theirs has run.
POLLS: list[Call] = [
    ("GetOperatingSystems", [], {}),
    ("WaitForJobCompletion", ["JOB"], {"period": 0.1, "retries": 600}),
]
#: Of Ganeti 3.1.
RENAME_NETWORK: list[Call] = [("RenameNetwork", ["net1", "net9"], {})] if hasattr(opcodes, "OpNetworkRename") else []
#: Those that a tenant is not granted.
FORBIDDEN: list[Call] = [
    ("ExportInstance", [OWN, "local", "node1"], {}),  # it chooses a node
    ("EvacuateNode", ["node1"], {"mode": "all", "iallocator": "hail"}),
    ("MigrateNode", ["node1"], {"mode": "live"}),
    ("SetNodeRole", ["node1", "drained"], {}),
    ("PowercycleNode", ["node1"], {}),
    ("ModifyNode", ["node1"], {"drained": True}),
    ("ModifyNodeStorageUnits", ["node1", "lvm-vg", "xenvg"], {"allocatable": True}),
    ("RepairNodeStorageUnits", ["node1", "lvm-vg", "xenvg"], {}),
    ("CreateNetwork", ["net9", "203.0.113.0/28"], {"tags": []}),  # its own default is none that Ganeti takes
    ("ConnectNetwork", ["net1", "default", "bridged", "br0"], {}),
    ("DisconnectNetwork", ["net1", "default"], {}),
    ("ModifyNetwork", ["net1"], {"gateway": "198.51.100.14"}),
    ("DeleteNetwork", ["net1"], {}),
    *RENAME_NETWORK,
    ("CreateGroup", ["new"], {}),
    ("ModifyGroup", ["default"], {"alloc_policy": "preferred"}),
    ("DeleteGroup", ["default"], {}),
    ("RenameGroup", ["default", "new"], {}),
    ("AssignGroupNodes", ["default", ["node1"]], {}),
]
#: Those about objects that do not exist for her.
ABSENT: list[Call] = [
    ("GetNode", ["node1"], {}),
    ("GetNodeRole", ["node1"], {}),
    ("GetNodeStorageUnits", ["node1", "lvm-vg", "name"], {}),
    ("GetNodeTags", ["node1"], {}),
    ("AddNodeTags", ["node1", ["x"]], {}),
    ("DeleteNodeTags", ["node1", ["x"]], {}),
    ("GetNetwork", ["net1"], {}),
    ("GetNetworkTags", ["net1"], {}),
    ("AddNetworkTags", ["net1", ["x"]], {}),
    ("DeleteNetworkTags", ["net1", ["x"]], {}),
    ("GetGroup", ["default"], {}),
    ("GetGroupTags", ["default"], {}),
    ("AddGroupTags", ["default", ["x"]], {}),
    ("DeleteGroupTags", ["default", ["x"]], {}),
]
#: Those that no limited role can have: the cluster's tags do not exist for it.
CLUSTER: list[Call] = [
    ("GetClusterTags", [], {}),
    ("AddClusterTags", [["x"]], {}),
    ("DeleteClusterTags", [["x"]], {}),
]
NEVER: list[Call] = [
    ("RedistributeConfig", [], {}),
    ("ModifyCluster", [], {"maintain_node_health": False}),
    ("GetFilters", [], {}),
    ("GetFilters", [], {"bulk": True}),
    ("GetFilter", ["none"], {}),
    ("AddFilter", [5, [], "CONTINUE"], {}),
    ("ReplaceFilter", ["none", 5, [], "CONTINUE"], {}),
    ("DeleteFilter", ["none"], {}),
]

#: Uses the library as an application would: reads [address, user, [call, …]] and writes for each call
#: ["ok", what it gave], or ["api", status, message].
APPLICATION = """
import json, sys
import pycurl
from ganeti.rapi import client

address, user, calls = json.load(sys.stdin)


def configure(curl, logger):
    curl.setopt(pycurl.SSL_VERIFYPEER, 0)
    curl.setopt(pycurl.SSL_VERIFYHOST, 0)


ganeti = client.GanetiRapiClient(address, username=user, password="x", curl_config_fn=configure)
if calls is None:
    methods = [name for name in dir(ganeti) if name[0].isupper() and callable(getattr(ganeti, name))]
    json.dump(methods, sys.stdout)
    sys.exit()
answers = []
for method, args, options in calls:
    try:
        answers.append(["ok", getattr(ganeti, method)(*args, **options)])
    except client.GanetiApiError as err:
        answers.append(["api", err.code, str(err)])
json.dump(answers, sys.stdout)
"""


def use(cluster: Cluster, user: str, calls: list[Call] | None) -> list[Any]:
    """What the library makes of some calls, in the cluster."""
    done = cluster.enter(
        "/usr/bin/python3", "-I", "-c", APPLICATION, input=json.dumps([cluster.address("node1"), user, calls])
    )
    answers: list[Any] = json.loads(done.stdout)
    return answers


def on(name: str) -> list[Call]:
    """The calls about an instance."""
    return [(method, [name, *args], options) for method, args, options in ON_INSTANCE]


def with_job(calls: list[Call], job: int) -> list[Call]:
    """The calls with a job's id in its place."""
    return [(method, [job if arg == "JOB" else arg for arg in args], options) for method, args, options in calls]


@pytest.fixture(scope="module", name="tenancy")
def _tenancy(cluster: Cluster) -> Iterator[Tenancy]:
    # Imported here, where it is clear which of the two packages of that name it is.
    from ganeti import opcodes

    with tenants(cluster, POLICY, USERS) as tenancy:
        run(cluster, opcodes.OpNetworkAdd(network_name="net1", network="198.51.100.0/28"))
        try:
            yield tenancy
        finally:
            run(cluster, opcodes.OpNetworkRemove(network_name="net1"))


def test_every_method_is_known(cluster: Cluster) -> None:
    """One that a later library has is in none of the lists above."""
    known = {call[0] for call in [*ON_INSTANCE, *LISTS, *POLLS, *FORBIDDEN, *ABSENT, *CLUSTER, *NEVER]}
    methods = set(use(cluster, "nobody", None))
    assert methods - known == set()
    assert len(methods) >= 80


def statuses(calls: list[Call], answers: list[Any]) -> dict[str, Any]:
    """What each method gave: "ok", or the status."""
    return {call[0]: answer[0] if answer[0] == "ok" else answer[1] for call, answer in zip(calls, answers)}


def outcome(calls: list[Call], wanted: Any) -> dict[str, Any]:
    """What each method should give."""
    return {call[0]: wanted for call in calls}


def test_what_a_tenant_has(tenancy: Tenancy) -> None:
    """All that her role allows works; the rest is refused with the library's own error."""
    job = tenancy.submit("PUT", f"/2/instances/{OWN}/tags?tag=x&dry-run=1")
    calls = with_job(POLLS, job)
    answers = use(tenancy.cluster, "eve", calls)
    assert [answer[1] for answer in answers] == [["noop"], True]
    with tenancy.paused():
        job = tenancy.submit("PUT", f"/2/instances/{OWN}/tags?tag=x")
        works = [*on(OWN), *with_job(LISTS, job)]
        answers = use(tenancy.cluster, "eve", works)
        assert statuses(works, answers) == outcome(works, "ok"), [answer for answer in answers if answer[0] != "ok"]
    found = {(call[0], bool(call[2])): answer[1] for call, answer in zip(works, answers)}
    own = {name for name in INSTANCES if name.endswith(".test.example.com")}
    assert set(found["GetInstances", False]) == own
    assert {one["name"] for one in found["GetInstances", True]} == own
    assert found["GetInstance", False]["name"] == found["GetInstanceConsole", False]["instance"] == OWN
    assert found["GetNodes", True] == found["GetGroups", False] == found["GetNetworks", True] == []
    assert job in map(int, found["GetJobs", False])
    with tenancy.no_job():
        answers = use(tenancy.cluster, "eve", [*FORBIDDEN, *NEVER])
        assert statuses([*FORBIDDEN, *NEVER], answers) == outcome([*FORBIDDEN, *NEVER], 403)
        calls = [*ABSENT, *CLUSTER]
        assert statuses(calls, use(tenancy.cluster, "eve", calls)) == outcome(calls, 404)


def test_what_is_another_tenants(tenancy: Tenancy) -> None:
    """The library's error for it is that for nothing."""
    with tenancy.no_job():
        foreign, missing = (use(tenancy.cluster, "eve", on(name)) for name in (FOREIGN, "db9.prod.example.com"))
    assert foreign == missing
    assert statuses(ON_INSTANCE, foreign) == outcome(ON_INSTANCE, 404)


def test_what_is_not_of_instances(tenancy: Tenancy) -> None:
    """With everything in its scope, a role has all the rest, but for what is of the cluster itself."""
    with tenancy.paused():
        works = [*FORBIDDEN, *ABSENT]
        answers = use(tenancy.cluster, "whole", works)
        assert statuses(works, answers) == outcome(works, "ok"), [answer for answer in answers if answer[0] != "ok"]
    with tenancy.no_job():
        assert statuses(CLUSTER, use(tenancy.cluster, "whole", CLUSTER)) == outcome(CLUSTER, 404)
        assert statuses(NEVER, use(tenancy.cluster, "whole", NEVER)) == outcome(NEVER, 403)
