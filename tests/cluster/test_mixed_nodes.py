# SPDX-License-Identifier: BSD-2-Clause
"""Nodes that have not the same installed: it is said before a failover and after it, and they work together."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ganeti_ext import __version__
from tests.cluster import gnt_ext, mixed, vcluster
from tests.cluster.nodes import add_command
from tests.cluster.vcluster import POLICY_FILE, Cluster

#: node2 has no package, node3 an older one, which does not know quotas and says nothing of Ganeti.
OLDER = "0.0.9"
_OLDER = {
    "__init__.py": (f'"{__version__}"', f'"{OLDER}"'),
    "policy/schema.py": ('"quota": Key("quota"', '"quotum": Key("quota"'),
    "cli/local.py": ('        "ganeti": {"version": constants.RELEASE_VERSION, "problem": _release()},\n', ""),
}

USERS = "admin secret write\njoe secret @tester\n"
POLICY = "version: 1\nroles:\n  tester: {permissions: [instances.list], scope: {instances: {name: 'web*'}}}\n"
NEWER = POLICY.replace("web*", "db*").replace("scope:", "quota: {instances: 3}, scope:")
HOOKS = ("cluster-verify-post.d", "cluster-modify-post.d", "node-modify-post.d", "watcher")
RUNS = "etc/ganeti/restricted-commands"


@pytest.fixture(scope="module", name="nodes")
def _nodes() -> Iterator[Cluster]:
    """node1 is the master and has the package; all are candidates."""
    if os.geteuid() != 0 or not os.path.exists(vcluster.DAEMON_UTIL):
        pytest.skip("needs root and an installed Ganeti")
    with Cluster(rapi_users=USERS) as cluster:
        cluster.gnt("gnt-cluster", "modify", "--candidate-pool-size=1")  # or no node could be demoted
        older = mixed.Node(cluster, "node3").with_package(_OLDER)
        mixed.split(cluster, {"node2": mixed.Node(cluster, "node2").without_package(), "node3": older})
        for node in ("node1", "node3"):
            gnt_ext.install_hook(cluster, node, *HOOKS)
        for node in cluster.nodes:
            add_command(cluster, node, "hello", f"echo hello from {node}")
        yield cluster


def policy_of(cluster: Cluster, node: str) -> Path:
    return Path(cluster.node_path(node, POLICY_FILE))


def problems(cluster: Cluster, node: str = "node1") -> dict[str, list[str]]:
    """What verify says, by node."""
    done = gnt_ext.run(cluster, "verify", "--output", "json", node=node, before=mixed.as_on(cluster, node))
    assert done.stdout, done
    return {one["node"]: one["problems"] for one in json.loads(done.stdout)}


def watched(cluster: Cluster, node: str) -> str:
    """What the package's hook has to say to Ganeti's watcher, which cron calls every five minutes."""
    log = Path(cluster.node_path(node, "var/log/ganeti/watcher.log"))
    size = log.stat().st_size if log.exists() else 0
    cluster.run(node, "ganeti-watcher")
    lines = log.read_bytes()[size:].decode().splitlines()
    return "".join(line for line in lines if "hook ganeti-ext: failed" in line)


def run_everywhere(cluster: Cluster) -> None:
    """The restricted command of each node runs, asked for by Ganeti's own command and by a job."""
    done = cluster.gnt("gnt-node", "restricted-command", "hello", *cluster.nodes)
    assert [line for line in done.stdout.splitlines() if line.startswith("hello")] == [
        f"hello from {node}" for node in cluster.nodes
    ], done


def test_before_a_policy_it_is_said_without_alarm(nodes: Cluster) -> None:
    assert problems(nodes) == {
        "node1": [],
        "node2": ["ganeti-ext is not installed (install it)"],
        "node3": [f"ganeti-ext {OLDER}, the master has {__version__} (install the same one)"],
    }


def test_nodes_with_and_without_the_package_answer_each_other(nodes: Cluster) -> None:
    run_everywhere(nodes)
    done = gnt_ext.run(nodes, "restricted-command", "--direct", "--output=json", *nodes.nodes, "hello")
    assert [one["output"] for one in json.loads(done.stdout)] == [f"hello from {node}\n" for node in nodes.nodes]
    # What a node without the package says of a command that it has not is taken for what it is, too.
    done = gnt_ext.run(nodes, "restricted-command", "--direct", "node2", "no-such")
    assert done.returncode == 1 and "node2: refused" in done.stderr, done


def test_a_failover_that_would_lose_the_policy_is_warned_of_before(nodes: Cluster) -> None:
    policy_of(nodes, "node1").write_text(POLICY, encoding="ascii")
    lost = "node2: ganeti-ext is not installed: after a failover to this node no policy is in force"
    done = gnt_ext.run(nodes, "sync")
    assert done.returncode == 1 and "node3: " in done.stdout and lost in done.stdout
    assert gnt_ext.run(nodes, "verify").stdout.startswith(
        f"{lost} (install it, or gnt-node modify --master-candidate=no node2)\nnode3: ganeti-ext {OLDER}, "
    )
    # It can be taken out of what may become the master, and the job that puts it back says so.
    nodes.gnt("gnt-node", "modify", "--master-candidate=no", "node2")
    assert problems(nodes)["node2"] == [
        "ganeti-ext is not installed: restricted commands there have Ganeti's own checks (install it)"
    ]
    done = nodes.gnt("gnt-node", "modify", "--master-candidate=yes", "node2")
    assert lost in done.stdout + done.stderr


def test_another_ganeti_and_older_daemons_are_told_apart(nodes: Cluster) -> None:
    """As it is in the middle of an upgrade: it says what it is, and what becomes of us there."""
    constants = Path(mixed.GANETI, "_constants.py").read_text(encoding="utf-8")
    (release,) = re.findall("^RELEASE_VERSION = .*\n", constants, re.MULTILINE)
    (minor,) = re.findall("^VERSION_MINOR = .*\n", constants, re.MULTILINE)
    node = mixed.Node(nodes, "node3").with_package({})
    node.with_ganeti({"_constants.py": (release, 'RELEASE_VERSION = "3.9.0"\n')})
    node.with_ganeti({"_constants.py": (minor, "VERSION_MINOR = 9\n")}).start()
    time.sleep(1.5)  # a second is what counts
    node.reinstall()
    older, differs, unknown = problems(nodes)["node3"]
    assert older == f"ganeti-noded was started before ganeti-ext {__version__} was installed (restart it)"
    assert differs.startswith("Ganeti 3.9.0, the master has 3.")
    assert unknown.startswith("Ganeti 3.9.0 is not known to this ganeti-ext") and unknown.endswith(
        ": its node daemon runs as Ganeti made it, and as the master it would answer every request with 503"
    )
    done = gnt_ext.run(nodes, "restricted-command", "--direct", "node3", "hello")
    assert "hello from node3" in done.stdout
    mixed.Node(nodes, "node3").with_package(_OLDER).start()


def test_a_policy_of_a_newer_version_is_refused_and_said(nodes: Cluster) -> None:
    before = policy_of(nodes, "node3").read_bytes()
    assert before == POLICY.encode()
    policy_of(nodes, "node1").write_text(NEWER, encoding="ascii")
    done = gnt_ext.run(nodes, "sync")
    (said,) = [line for line in done.stdout.splitlines() if line.startswith("node3: ")]
    assert f"NOT carried (it has ganeti-ext {OLDER}): " in said and "'quota'" in said and "what it has stays" in said
    assert done.returncode == 1 and policy_of(nodes, "node3").read_bytes() == before
    assert problems(nodes)["node3"][1].endswith(" differs (install the same ganeti-ext, then gnt-ext sync)")
    # Put there by hand it is no better, and the node says so itself.
    policy_of(nodes, "node3").write_text(NEWER, encoding="ascii")
    (_, said) = problems(nodes)["node3"]
    assert f"is not taken by ganeti-ext {OLDER} (line 3): as the master this node would go by its last" in said
    policy_of(nodes, "node3").write_bytes(before)


def test_an_older_version_as_the_master_goes_by_the_policy_that_it_has(nodes: Cluster) -> None:
    nodes.add_instance("db1.example.com", "node1")
    assert b"db1" in nodes.rapi("GET", "/2/instances", "joe")[2]  # the newer one is in force here
    assert not watched(nodes, "node3")  # this master speaks for itself
    nodes.run("node3", "gnt-cluster", "master-failover")
    nodes.master = "node3"
    nodes.wait_rapi()
    status, _, body = nodes.rapi("GET", "/2/instances", "joe")
    assert (status, json.loads(body)) == (200, [])
    run_everywhere(nodes)
    said = problems(nodes, "node3")
    assert said["node1"][0] == f"ganeti-ext {__version__}, the master has {OLDER} (install the same one)"
    assert said["node1"][1].endswith(" differs (install the same ganeti-ext, then gnt-ext sync)")


def test_the_others_speak_for_a_master_without_the_package(nodes: Cluster) -> None:
    nodes.run("node2", "gnt-cluster", "master-failover")
    nodes.master = "node2"
    nodes.wait_rapi()
    # This is what is warned of: Ganeti's own daemon lets him read what is not his.
    status, _, body = nodes.rapi("GET", "/2/instances", "joe")
    assert status == 200 and b"db1" in body
    run_everywhere(nodes)

    lost = "node2: the master, and ganeti-ext is not installed: none is in force (install it there, or"
    done = gnt_ext.run(nodes, "verify", node="node1")
    assert done.returncode == 1 and done.stdout.startswith(lost), done
    assert "Note: this is not the master, node2" in done.stderr
    assert f"node3: ganeti-ext {OLDER}, this node has {__version__}" in done.stdout
    # In the log of a job of the master itself, from both of the others.
    done = nodes.gnt("gnt-cluster", "verify", check=False)
    assert done.returncode == 1 and done.stdout.count(f"failed, output: gnt-ext verify: {lost}") == 2, done
    # And without anybody asking.
    assert f"(exit: 1) (output: gnt-ext verify: {lost}" in watched(nodes, "node1")
