# SPDX-License-Identifier: BSD-2-Clause
"""The client library of python3-ganeti-rapi, unchanged, in the hands of a limited user."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.tenancy import FOREIGN, INNER, OWN, Tenancy, last_job, tenants
from tests.cluster.vcluster import Cluster

POLICY = """\
version: 1
roles:
  all-of-mine:
    permissions: ["@admin"]
    scope:
      instances: {name: "*.test.example.com"}
      nodes: {name: node2}
      groups: {name: [default, "test-*"]}
      networks: {name: "test-*"}
    parameters: {os_type: [noop]}
"""
USERS = "admin secret write\neve x @all-of-mine\n"

#: What the program below is given, and what it says: the outcome of each call by its number.
PROGRAM = """
import inspect, json, sys
from ganeti.rapi import client
rapi = client.GanetiRapiClient("node1", username="eve", password="x")
job = rapi.AddInstanceTags(sys.argv[1], ["first"])
outcomes = []
for name, arguments, options in json.load(sys.stdin):
    arguments = [job if one == "JOB" else one for one in arguments]
    try:
        getattr(rapi, name)(*arguments, **options)
        outcomes.append("ok")
    except client.GanetiApiError as err:
        outcomes.append([err.code, str(err)])
methods = {
    name: list(inspect.signature(one).parameters)
    for name, one in inspect.getmembers(rapi, inspect.ismethod) if not name.startswith("_")
}
print(json.dumps([outcomes, methods]))
"""

#: Method -> arguments, options, and the status: "ok", or that of the refusal.
Call = tuple[list[Any], dict[str, Any], Any]
NEW = {**INNER, "name": "new.test.example.com", "pnode": "node2"}
CALLS: dict[str, Call] = {
    "GetVersion": ([], {}, "ok"),
    "GetFeatures": ([], {}, "ok"),
    "GetInfo": ([], {}, "ok"),
    "RedistributeConfig": ([], {}, 403),
    "ModifyCluster": ([], {"mac_prefix": "aa:bb:cc"}, 403),
    "GetClusterTags": ([], {}, 404),
    "AddClusterTags": ([["x"]], {}, 404),
    "DeleteClusterTags": ([["x"]], {}, 404),
    "GetInstances": ([], {"bulk": True}, "ok"),
    "GetInstance": ([OWN], {}, "ok"),
    "GetInstanceInfo": ([OWN], {"static": True}, "ok"),
    "InstancesMultiAlloc": ([[NEW]], {}, "ok"),
    "CreateInstance": (
        ["create", "new2.test.example.com", "diskless", [], []],
        {"os": "noop", "pnode": "node2", "beparams": {"memory": 128}},
        "ok",
    ),
    "DeleteInstance": ([OWN], {"dry_run": True}, "ok"),
    "ModifyInstance": ([OWN], {"beparams": {"vcpus": 2}}, "ok"),
    "ActivateInstanceDisks": ([OWN], {}, "ok"),
    "DeactivateInstanceDisks": ([OWN], {}, "ok"),
    "RecreateInstanceDisks": ([OWN], {"disks": [0]}, "ok"),
    "GrowInstanceDisk": ([OWN, 0, 1], {}, "ok"),
    "GetInstanceTags": ([OWN], {}, "ok"),
    "AddInstanceTags": ([OWN, ["a", "b"]], {}, "ok"),
    "DeleteInstanceTags": ([OWN, ["a"]], {}, "ok"),
    "RebootInstance": ([OWN], {"reboot_type": "soft"}, "ok"),
    "ShutdownInstance": ([OWN], {"no_remember": True}, "ok"),
    "StartupInstance": ([OWN], {}, "ok"),
    "ReinstallInstance": ([OWN], {"os": "noop"}, "ok"),
    "ReplaceInstanceDisks": ([OWN], {"disks": [0]}, "ok"),
    "PrepareExport": ([OWN, "local"], {}, "ok"),
    "ExportInstance": ([OWN, "local", "node2"], {}, "ok"),
    "MigrateInstance": ([OWN], {"mode": "live"}, "ok"),
    "FailoverInstance": ([OWN], {}, "ok"),
    "RenameInstance": ([OWN, "other.test.example.com"], {}, "ok"),
    "GetInstanceConsole": ([OWN], {}, "ok"),
    "GetJobs": ([], {"bulk": True}, "ok"),
    "GetJobStatus": (["JOB"], {}, "ok"),
    "WaitForJobChange": (["JOB", ["status"], None, None], {}, "ok"),
    "WaitForJobCompletion": (["JOB"], {"period": 0, "retries": 1}, "ok"),
    "CancelJob": (["JOB"], {}, "ok"),
    "GetNodes": ([], {"bulk": True}, "ok"),
    "GetNode": (["node2"], {}, "ok"),
    "EvacuateNode": (["node2"], {"mode": "all"}, "ok"),
    "MigrateNode": (["node2"], {}, "ok"),
    "GetNodeRole": (["node2"], {}, "ok"),
    "SetNodeRole": (["node2", "drained"], {}, "ok"),
    "PowercycleNode": (["node2"], {}, "ok"),
    "ModifyNode": (["node2"], {"drained": True}, "ok"),
    "GetNodeStorageUnits": (["node2", "lvm-vg", "name"], {}, "ok"),
    "ModifyNodeStorageUnits": (["node2", "lvm-pv", "sda"], {"allocatable": True}, 403),
    "RepairNodeStorageUnits": (["node2", "lvm-vg", "xenvg"], {}, 403),
    "GetNodeTags": (["node2"], {}, "ok"),
    "AddNodeTags": (["node2", ["x"]], {}, "ok"),
    "DeleteNodeTags": (["node2", ["x"]], {}, "ok"),
    "GetNetworks": ([], {"bulk": True}, "ok"),
    "GetNetwork": (["test-net"], {}, "ok"),
    "CreateNetwork": (["test-net2", "198.51.100.0/28"], {"tags": []}, 403),
    "ConnectNetwork": (["test-net", "default", "bridged", "br0"], {}, 403),
    "DisconnectNetwork": (["test-net", "default"], {}, 404),  # in the group are instances of others
    "ModifyNetwork": (["test-net"], {"mac_prefix": "aa:bb:cc"}, 403),
    "DeleteNetwork": (["test-net"], {}, "ok"),
    "GetNetworkTags": (["test-net"], {}, "ok"),
    "AddNetworkTags": (["test-net", ["x"]], {}, "ok"),
    "DeleteNetworkTags": (["test-net", ["x"]], {}, "ok"),
    "GetGroups": ([], {"bulk": True}, "ok"),
    "GetGroup": (["default"], {}, "ok"),
    "CreateGroup": (["test-group"], {}, "ok"),
    "ModifyGroup": (["default"], {"alloc_policy": "preferred"}, 404),
    "DeleteGroup": (["default"], {"dry_run": True}, "ok"),
    "RenameGroup": (["default", "test-group"], {}, 404),
    "AssignGroupNodes": (["default", ["node2"]], {}, 404),
    "GetGroupTags": (["default"], {}, "ok"),
    "AddGroupTags": (["default", ["x"]], {}, "ok"),
    "DeleteGroupTags": (["default", ["x"]], {}, "ok"),
    "Query": (["instance", ["name", "pnode"]], {"qfilter": ["=~", "name", "mine"]}, "ok"),
    "QueryFields": (["instance"], {}, "ok"),
    "GetFilters": ([], {}, 403),
    "GetFilter": (["some-uuid"], {}, 403),
    "AddFilter": ([1, [], "ACCEPT"], {}, 403),
    "ReplaceFilter": (["some-uuid", 1, [], "ACCEPT"], {}, 403),
    "DeleteFilter": (["some-uuid"], {}, 403),
}
#: Waits for a job of its own, which therefore must run.
RUNNING: dict[str, Call] = {"GetOperatingSystems": ([], {}, "ok")}
#: Makes a body, and no request.
NO_REQUEST = {"InstanceAllocation"}


@pytest.fixture(scope="module", name="tenancy")
def _tenancy(cluster: Cluster) -> Iterator[Tenancy]:
    with tenants(cluster, POLICY, USERS) as tenancy:
        cluster.add_instance(OWN, node="node1")
        cluster.gnt("gnt-network", "add", "--network=203.0.113.0/28", "test-net")
        try:
            yield tenancy
        finally:
            cluster.gnt("gnt-network", "remove", "test-net")


def outcomes(tenancy: Tenancy, calls: dict[str, Call]) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """What came of each call, and the library's own methods with their parameters."""
    given = json.dumps([[name, arguments, options] for name, (arguments, options, _) in calls.items()])
    done = tenancy.cluster.gnt("/usr/bin/python3", "-c", PROGRAM, OWN, input=given)
    found, methods = json.loads(done.stdout)
    return dict(zip(calls, found)), methods


def status(outcome: Any) -> Any:
    return outcome if outcome == "ok" else outcome[0]


def test_every_method_does_what_the_role_says(tenancy: Tenancy) -> None:
    """All of it on what is hers: granted, or refused with a reason; a method that is not known fails."""
    with tenancy.paused():
        found, methods = outcomes(tenancy, CALLS)
    assert set(methods) == set(CALLS) | set(RUNNING) | NO_REQUEST
    wrong = {name: found[name] for name, (_, _, expected) in CALLS.items() if status(found[name]) != expected}
    assert wrong == {}
    found, _ = outcomes(tenancy, RUNNING)
    assert found == {"GetOperatingSystems": "ok"}


def test_no_method_reaches_what_is_anothers(tenancy: Tenancy) -> None:
    """The same calls with the name of another's instance: it does not exist."""
    _, methods = outcomes(tenancy, {})
    about = {name for name, parameters in methods.items() if parameters[:1] == ["instance"]}
    calls: dict[str, Call] = {name: ([FOREIGN, *CALLS[name][0][1:]], CALLS[name][1], 404) for name in about}
    before = last_job(tenancy.cluster)
    found, _ = outcomes(tenancy, calls)
    assert {name: outcome for name, outcome in found.items() if status(outcome) != 404} == {}
    assert len({outcome[1] for outcome in found.values()}) == 1
    assert last_job(tenancy.cluster) == before + 1  # that of the program itself
