# SPDX-License-Identifier: BSD-2-Clause
"""gnt-ext carries the policy to the other nodes, over their SSH, and finds what is not the same."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import gnt_ext, vcluster
from tests.cluster.vcluster import POLICY_FILE, Cluster

POLICY = "version: 1\nroles:\n  tester: {permissions: [instances.reboot], scope: {instances: {name: '*.test'}}}\n"
RESTRICTED_USERS = "var/lib/ganeti/rapi/restricted-users"
USERS = "var/lib/ganeti/rapi/users"


@pytest.fixture(scope="module", name="nodes")
def _nodes() -> Iterator[Cluster]:
    """Three nodes, all master candidates."""
    if os.geteuid() != 0 or not os.path.exists(vcluster.DAEMON_UTIL):
        pytest.skip("needs root and an installed Ganeti")
    with Cluster() as cluster:
        cluster.gnt("gnt-cluster", "modify", "--candidate-pool-size=1")  # or no node could be demoted
        cluster.gnt("gnt-cluster", "redist-conf")
        yield cluster


def run(cluster: Cluster, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    done = gnt_ext.run(cluster, *arguments, **options)
    assert "Traceback" not in done.stderr + done.stdout, done
    return done


def at(cluster: Cluster, node: str, path: str = POLICY_FILE) -> Path:
    return Path(cluster.node_path(node, path))


def set_policy(cluster: Cluster, text: str) -> None:
    """On the master alone."""
    vcluster._write(cluster.node_path("node1", POLICY_FILE), text)


def problems(cluster: Cluster) -> dict[str, list[str]]:
    """What verify says, by node; its exit code has to be in agreement."""
    done = run(cluster, "verify", "--output", "json")
    found = {one["node"]: one["problems"] for one in json.loads(done.stdout)}
    assert done.returncode == (1 if any(found.values()) else 0), done
    return found


def test_sync_and_verify(nodes: Cluster) -> None:
    assert problems(nodes) == {"node1": [], "node2": [], "node3": []}  # nothing is configured
    done = run(nodes, "sync")
    assert (done.returncode, done.stdout) == (0, "") and "nothing to carry" in done.stderr

    set_policy(nodes, POLICY)
    policy = at(nodes, "node1")
    assert "is missing (gnt-ext sync)" in problems(nodes)["node3"][0]
    done = run(nodes, "sync", "--dry-run")
    assert done.returncode == 0 and done.stdout.count("would get") == 2
    assert not at(nodes, "node2").exists()
    done = run(nodes, "sync")
    assert done.returncode == 0 and done.stdout.count(" carried") == 2, done
    for node in ("node2", "node3"):
        there, here = at(nodes, node).stat(), policy.stat()
        assert at(nodes, node).read_bytes() == policy.read_bytes()
        assert (there.st_uid, there.st_gid, there.st_mode) == (here.st_uid, here.st_gid, here.st_mode)
        assert [name for name in os.listdir(at(nodes, node).parent) if name.startswith("rapi-access")] == [policy.name]
    assert problems(nodes) == {"node1": [], "node2": [], "node3": []}
    assert run(nodes, "sync").stdout == ""  # nothing to be done

    # Of restricted users owner and mode go with the file; it is nobody else's to read.
    users = at(nodes, "node1", RESTRICTED_USERS)
    users.write_text("joe secret\n", encoding="ascii")
    owner = at(nodes, "node1", "var/lib/ganeti/rapi").stat()
    os.chown(users, owner.st_uid, owner.st_gid)
    os.chmod(users, 0o600)
    assert run(nodes, "sync").stdout.count(" carried") == 2
    there = at(nodes, "node2", RESTRICTED_USERS).stat()
    assert (there.st_uid, there.st_mode & 0o777) == (owner.st_uid, 0o600)
    os.chmod(at(nodes, "node2", RESTRICTED_USERS), 0o644)
    assert "may be read by others" in problems(nodes)["node2"][0]
    assert "node2" in run(nodes, "sync").stdout and problems(nodes)["node2"] == []
    users.unlink()
    assert "is not on the master" in problems(nodes)["node2"][0]
    assert "is not here, but on node2, node3" in run(nodes, "sync").stderr
    for node in ("node2", "node3"):
        at(nodes, node, RESTRICTED_USERS).unlink()


def test_a_bad_policy_is_not_carried(nodes: Cluster) -> None:
    set_policy(nodes, POLICY)
    assert run(nodes, "sync").returncode == 0
    before = at(nodes, "node2").read_bytes()
    for bad in (POLICY.replace("reboot", "rebot"), POLICY + "tests: [{user: x, do: tags.set, expect: allow}]\n"):
        set_policy(nodes, bad)
        done = run(nodes, "sync")
        assert done.returncode == 1 and "Nothing is carried" in done.stderr, done
    set_policy(nodes, POLICY)
    os.chmod(at(nodes, "node1"), 0o666)
    assert "chmod go-w" in run(nodes, "sync").stderr
    os.chmod(at(nodes, "node1"), 0o644)
    assert at(nodes, "node2").read_bytes() == before
    assert "not the master: run it on node1" in run(nodes, "sync", node="node2").stderr
    assert "how others differ from this node" in run(nodes, "verify", node="node2").stderr
    # A node looks at it again, and takes only what has come as a whole.
    for words in (["policy", "0" * 64, "644", "root", "root"], ["users"], ["policy"], ["restricted-users", "..", "1"]):
        done = run(nodes, "_node", *words, node="node2", input="version: 1\n")
        assert done.returncode == 1 and done.stdout == "", done
    assert at(nodes, "node2").read_bytes() == before


def test_what_verify_finds(nodes: Cluster) -> None:
    set_policy(nodes, POLICY)
    run(nodes, "sync")
    at(nodes, "node2").write_text(POLICY.replace("reboot", "query"), encoding="ascii")
    at(nodes, "node3", USERS).write_text("eve evil write\n", encoding="ascii")
    commands = at(nodes, "node3", "etc/ganeti/restricted-commands")
    commands.mkdir(exist_ok=True)
    os.chmod(commands, 0o755)
    for name, mode in (("hello", 0o755), ("wicked", 0o777), ("README", 0o666), (".hidden", 0o777)):
        (commands / name).write_text("#!/bin/sh\n", encoding="ascii")
        os.chmod(commands / name, mode)
    done = run(nodes, "verify", env={"LC_ALL": "C"})
    assert done.returncode == 1
    assert re.search(r"^node2: .*rapi-access.yaml differs \(gnt-ext sync\)$", done.stdout, re.MULTILINE)
    assert re.search(r"^node3: .*users differs \(gnt-cluster redist-conf\)$", done.stdout, re.MULTILINE)
    assert "node3: restricted commands whose files are not safe, so that they are refused: 1" in done.stdout
    assert done.stderr == "2 of 3 nodes are not as they should be\n"
    said = run(nodes, "_node", "state", node="node3").stdout
    assert not [word for word in ("wicked", "hello", "eve", "evil", "tester") if word in said + done.stdout]
    os.chmod(commands, 0o777)
    assert "no restricted command runs" in problems(nodes)["node3"][-1]
    os.chmod(commands, 0o755)
    (commands / "wicked").unlink()

    # On what cannot become the master the policy does not matter.
    nodes.gnt("gnt-node", "modify", "-C", "no", "node2")
    nodes.gnt("gnt-cluster", "redist-conf")
    assert problems(nodes) == {"node1": [], "node2": [], "node3": []}
    nodes.gnt("gnt-node", "modify", "-C", "yes", "node2")
    assert run(nodes, "sync").stdout.startswith("node2: ")


def test_one_node_that_fails_does_not_stop_the_others(nodes: Cluster) -> None:
    set_policy(nodes, POLICY)
    assert run(nodes, "sync").returncode == 0
    set_policy(nodes, POLICY + "# newer\n")
    directory = at(nodes, "node2").parent
    hidden = directory.with_name("ganeti.away")
    directory.rename(hidden)  # its files cannot be written
    directory.write_text("", encoding="ascii")
    try:
        done = run(nodes, "sync")
        assert done.returncode == 1, done
        assert re.search("^node2: .*NOT carried|^node2: ", done.stdout, re.MULTILINE)
        assert re.search("^node3: .* carried$", done.stdout, re.MULTILINE)
    finally:
        directory.unlink()
        hidden.rename(directory)
    assert run(nodes, "sync").returncode == 0

    # Another program than ours, none, and no way to it.
    away = "import sys; from ganeti_ext.cli import sync; sys.argv[0] = sys.argv[1]; "
    away += "print(sync.ask(sync.nodes(), ['state']))"
    start = "import sys; sys.path.insert(0, '/usr/share/ganeti/default'); "
    for program, said in (
        ("/bin/echo", "that gnt-ext would not"),
        ("/no/such", "is not installed"),
        ("/bin/false", ""),
    ):
        done = nodes.run("node1", "/usr/bin/python3", "-c", start + away, program)
        assert done.stdout.count(said or "another version") == 2, done
    port = "sync.nodes = (lambda real: lambda: [one._replace(port=1) for one in real()])(sync.nodes); "
    text = start + away.replace("sys.argv[0]", port + "sys.argv[0]", 1)
    assert nodes.run("node1", "/usr/bin/python3", "-c", text, "x").stdout.count("cannot be reached by SSH: ") == 2


def test_the_hook_warns_in_the_log_of_a_job(nodes: Cluster) -> None:
    gnt_ext.install_hook(nodes, "node1", "cluster-modify-post.d", "node-modify-post.d")

    def warning() -> str:
        done = nodes.gnt("gnt-cluster", "modify", "--candidate-pool-size=1")
        return done.stdout + done.stderr

    set_policy(nodes, POLICY)
    run(nodes, "sync")
    assert "gnt-ext" not in warning()
    at(nodes, "node3").unlink()
    said = warning()
    assert "WARNING" in said and "node3: " in said and "rapi-access.yaml is missing (gnt-ext sync)" in said
    # The watcher comes too often for a master to ask all nodes.
    assert [run(nodes, "_hook", *words).returncode for words in ((), ("watcher",))] == [1, 0]
    done = nodes.gnt("gnt-node", "modify", "-C", "no", "node3")
    assert "gnt-ext verify" not in done.stdout + done.stderr
    done = nodes.gnt("gnt-node", "modify", "-C", "yes", "node3")
    assert "rapi-access.yaml is missing" in done.stdout + done.stderr
    at(nodes, "node1").unlink()
    assert "gnt-ext" not in warning()


def test_a_candidate_that_ganeti_makes_by_itself(nodes: Cluster) -> None:
    set_policy(nodes, POLICY)
    gnt_ext.install_hook(nodes, "node1", "node-remove-post.d")
    run(nodes, "sync")
    nodes.gnt("gnt-node", "modify", "-C", "no", "node2")
    at(nodes, "node2").unlink()
    nodes.gnt("gnt-cluster", "modify", "--candidate-pool-size=2")
    done = nodes.gnt("gnt-node", "remove", "node3")
    assert "Promoted nodes to master candidate role: node2" in done.stdout
    assert re.search("gnt-ext verify: node2: .*rapi-access.yaml is missing", done.stdout), done


def test_a_node_that_is_offline(nodes: Cluster) -> None:
    """The last one: the node stays so."""
    run(nodes, "sync")
    nodes.gnt("gnt-node", "modify", "-O", "yes", "node2")
    done = run(nodes, "verify")
    assert done.returncode == 0 and "Offline, so not asked: node2" in done.stderr
    set_policy(nodes, POLICY + "# new\n")
    done = run(nodes, "sync")
    assert (done.returncode, done.stdout) == (0, "")  # Ganeti makes it a candidate no more
