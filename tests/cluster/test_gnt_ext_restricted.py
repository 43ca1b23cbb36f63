# SPDX-License-Identifier: BSD-2-Clause
"""`gnt-ext restricted-command` on a real cluster: when nothing else works, and never more than was asked for."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster import gnt_ext, vcluster
from tests.cluster.vcluster import Cluster

#: Name -> what it does, on every node.
COMMANDS = {
    "hello": "echo hello from $(hostname >/dev/null 2>&1; basename ${0%/etc/*})",
    "three": "echo no; exit 3",
    "bytes": r"printf '\377 \342\200\256txet\n'",
    "terminal": r"printf '\033]0;title\007\033[2Jnext\r\n\tthe end\n'",
    "slow": "sleep 30",
    "mark": "touch ${0%/etc/*}/marked",
}


@pytest.fixture(scope="module", name="nodes")
def _nodes() -> Iterator[Cluster]:
    """Three nodes with COMMANDS."""
    if os.geteuid() != 0 or not os.path.exists(vcluster.DAEMON_UTIL):
        pytest.skip("needs root and an installed Ganeti")
    with Cluster() as cluster:
        for node in cluster.nodes:
            directory = cluster.node_path(node, "etc/ganeti/restricted-commands")
            os.makedirs(directory, exist_ok=True)
            os.chmod(directory, 0o755)
            for name, script in COMMANDS.items():
                path = os.path.join(directory, name)
                with open(path, "w", encoding="ascii") as stream:
                    stream.write(f"#!/bin/sh\n{script}\n")
                os.chmod(path, 0o755)
        yield cluster


def run(cluster: Cluster, *arguments: str, node: str = "node1", **options: Any) -> subprocess.CompletedProcess[str]:
    return gnt_ext.run(cluster, "restricted-command", *arguments, node=node, **options)


def answers(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    """What --output json says, by node."""
    return {answer["node"]: answer for answer in json.loads(done.stdout)}


def marked(cluster: Cluster) -> list[str]:
    """The nodes that `mark` ran on; forgotten then."""
    found = [node for node in cluster.nodes if os.path.exists(cluster.node_path(node, "marked"))]
    for node in found:
        os.unlink(cluster.node_path(node, "marked"))
    return found


def test_all_nodes_at_once_from_another_master_candidate(nodes: Cluster) -> None:
    done = run(nodes, "--direct", "node1", "NODE2", "node3", "node1", "hello", node="node2")
    assert done.returncode == 0, done
    blocks = done.stdout.split("-" * 48 + "\n")[1:]
    assert sorted(blocks) == [f"Node: {node}\nhello from {node}\n" for node in nodes.nodes]
    assert done.stderr == "Exit code 0 on 3 of 3 nodes: node1, node2, node3\n"


def test_a_job_says_the_same(nodes: Cluster) -> None:
    done = run(nodes, "--node-group", "default", "--show-machine-names", "hello")
    assert (done.returncode, done.stdout) == (0, "".join(f"{node}: hello from {node}\n" for node in nodes.nodes))
    ours = run(nodes, "--output", "json", "node2", "node3", "three")
    assert ours.returncode == 1
    expected = {"ran": True, "exit_code": 3, "output": "no\n", "error": "exited with exit code 3"}
    assert answers(ours) == {node: {"node": node, **expected} for node in ("node2", "node3")}
    assert answers(run(nodes, "--direct", "--output", "json", "node2", "node3", "three")) == answers(ours)


def test_without_master_daemons(nodes: Cluster) -> None:
    for daemon in ("luxid", "wconfd", "confd"):
        nodes.gnt(vcluster.DAEMON_UTIL, "stop", f"ganeti-{daemon}")
    try:
        for where in ("node1", "node3"):
            done = run(nodes, "--direct", "--node-group", "default", "mark", node=where)
            assert done.returncode == 0, done
            assert marked(nodes) == nodes.nodes
    finally:
        for daemon in ("confd", "wconfd", "luxid"):
            nodes.gnt(vcluster.DAEMON_UTIL, "start", f"ganeti-{daemon}")


def test_while_a_job_holds_the_nodes_lock(nodes: Cluster) -> None:
    delay = {"OP_ID": "OP_TEST_DELAY", "duration": 6, "on_master": False, "on_nodes": ["node2"], "reason": []}
    job_id = nodes.luxi("SubmitJob", [delay])
    while nodes.luxi("QueryJobs", [job_id], ["status"])[0][0] in ("queued", "waiting"):
        time.sleep(0.05)
    waits = run(nodes, "--sync", "--submit", "node2", "mark")
    assert waits.returncode == 0
    done = run(nodes, "--direct", "node2", "hello")
    assert nodes.luxi("QueryJobs", [job_id], ["status"])[0][0] == "running"
    assert done.returncode == 0, done
    assert marked(nodes) == []
    assert nodes.job(job_id)[0] == "success"
    assert nodes.job(int(waits.stdout.split()[-1] if waits.stdout else waits.stderr.split()[-1]))[0] == "success"
    assert marked(nodes) == ["node2"]


def test_a_node_that_is_marked_offline_and_then_no_candidate(nodes: Cluster) -> None:
    def modify(*options: str) -> None:
        nodes.gnt("gnt-node", "modify", "--force", *options, "node3")

    modify("--offline=yes")
    try:
        done = run(nodes, "--direct", "node1", "node3", "mark")
        assert done.returncode == 0, done
        assert marked(nodes) == ["node1", "node3"]
        by_job = run(nodes, "--output", "json", "node1", "node3", "mark")
        assert by_job.returncode == 1
        assert marked(nodes) == ["node1"]
        found = answers(by_job)
        assert (found["node1"]["exit_code"], found["node3"]["ran"]) == (0, False)
        modify("--offline=no")
        modify("--master-candidate=no")
        refused = run(nodes, "--direct", "node1", "mark", node="node3")
        assert refused.returncode == 1
        assert "no master candidate" in refused.stderr
        assert marked(nodes) == []
    finally:
        modify("--offline=no")
        modify("--master-candidate=yes")


def test_a_node_daemon_that_hangs_and_one_that_is_gone(nodes: Cluster) -> None:
    pid = nodes.daemon_pid("noded", "node2")
    nodes.run("node3", vcluster.DAEMON_UTIL, "stop", "ganeti-noded")
    os.kill(pid, signal.SIGSTOP)
    try:
        done = run(nodes, "--direct", "--timeout", "2", "node1", "node2", "node3", "hello")
        lines = done.stderr.splitlines()
        assert (done.returncode, lines[0], lines[3]) == (
            1,
            "Failed on 2 of 3 nodes:",
            "Exit code 0 on 1 of 3 nodes: node1",
        )
        assert lines[1].startswith("  node2: Error 28: ") and lines[2].startswith("  node3: Error 7: ")
        assert "hello from node1" in done.stdout
        found = answers(run(nodes, "--direct", "--timeout", "1", "--output", "json", "node2", "node3", "mark"))
        assert [found[node]["ran"] for node in ("node2", "node3")] == [False, False]
    finally:
        os.kill(pid, signal.SIGCONT)
        nodes.run("node3", vcluster.DAEMON_UTIL, "start", "ganeti-noded")
    assert marked(nodes) == []


def test_the_time_limit_of_a_command_and_an_interruption(nodes: Cluster) -> None:
    done = run(nodes, "--direct", "--timeout", "1", "--output", "json", "node1", "slow")
    answer = answers(done)["node1"]
    assert (done.returncode, answer["ran"], answer["exit_code"]) == (1, None, None)
    assert "whether it ran is not known" in answer["error"]
    cut = gnt_ext.run(
        nodes, "restricted-command", "--direct", "node1", "slow", before=("timeout", "--signal=INT", "2")
    )  # fmt: skip
    assert "  node1: no answer when it was interrupted" in cut.stderr, cut
    assert "Traceback" not in cut.stderr


def test_output_that_is_meant_for_the_terminal(nodes: Cluster) -> None:
    found = answers(run(nodes, "--direct", "--output", "json", "node1", "terminal"))
    assert found["node1"]["output"] == "\x1b]0;title\x07\x1b[2Jnext\r\n\tthe end\n"
    for way in (["--direct"], []):
        done = run(nodes, *way, "--show-machine-names", "node1", "terminal")
        assert done.stdout == "node1: \\x1b]0;title\\x07\\x1b[2Jnext\\r\nnode1: \tthe end\n"


def test_output_that_is_not_ascii(nodes: Cluster) -> None:
    """The node daemon escapes it: of a job's result with other characters luxid makes what nobody can read."""
    shown = r"\xff \xe2\x80\xaetxet"
    found = answers(run(nodes, "--direct", "--output", "json", "node1", "bytes"))
    assert found["node1"]["output"] == shown + "\n"
    for way in (["--direct"], []):
        done = run(nodes, *way, "--show-machine-names", "node1", "bytes")
        assert (done.returncode, done.stdout) == (0, f"node1: {shown}\n")
    stock = nodes.gnt("gnt-node", "restricted-command", "-M", "bytes", "node1")
    assert stock.stdout.endswith(f"node1: {shown}\n")


def test_a_wrong_command_is_the_generic_message_everywhere(nodes: Cluster) -> None:
    done = run(nodes, "--direct", "--output", "json", *nodes.nodes, "missing")
    assert done.returncode == 1
    found = answers(done)
    assert {(answer["ran"], answer["exit_code"], answer["output"]) for answer in found.values()} == {(False, None, "")}
    assert len({answer["error"] for answer in found.values()}) == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["node1", "node9", "mark"], "no node 'node9'"),
        (["node1", "nod", "mark"], "no node 'nod'"),
        (["node1", "", "mark"], "no node ''"),
        (["mark", "node1"], "the command comes last"),
        (["node1", "node2"], "the command comes last"),
        (["node1", "mark", "--timeout"], "the command comes last"),
        (["mark"], "before the command"),
        (["node1", ""], "name is empty"),
        (["--node-group", "nix", "mark"], "no node group 'nix'"),
        (["--node-group", "default", "node1", "mark"], "either a node group or nodes"),
    ],
)
def test_what_is_wrong_runs_nothing_anywhere(nodes: Cluster, arguments: list[str], told: str) -> None:
    for way in (["--direct"], []):
        done = run(nodes, *way, *arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert told in done.stderr, done
        assert "Traceback" not in done.stderr
    assert marked(nodes) == []


def test_where_there_is_no_cluster(nodes: Cluster) -> None:
    empty = nodes.node_path("node1", "none/node1")
    os.makedirs(empty + "/var/log/ganeti")
    try:
        done = run(nodes, "--direct", "node1", "mark", env={"GANETI_ROOTDIR": empty})
    finally:
        shutil.rmtree(empty)
    assert done.returncode == 1
    assert "not part of a cluster" in done.stderr


def test_whoever_is_not_root(nodes: Cluster) -> None:
    done = gnt_ext.run(
        nodes, "restricted-command", "--direct", "node1", "mark", before=("setpriv", "--reuid=nobody", "--clear-groups")
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "run this as root" in done.stderr and "Traceback" not in done.stderr
    assert marked(nodes) == []
