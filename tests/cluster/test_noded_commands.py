# SPDX-License-Identifier: BSD-2-Clause
"""Restricted commands on real nodes: through `gnt-node`, and as raw RPCs to a daemon that is locked into memory."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ganeti_ext import compat
from tests.cluster import nodes
from tests.cluster.nodes import NodeDaemon
from tests.cluster.vcluster import Cluster
from tests.unit.noded.test_noded_run import REPORT
from tests.waiting import wait_for

PORT = 1840
#: KiB by which the daemon may grow. Where it serves in threads, it has itself what a child had.
SPARE = 8192 if compat.serves_in_threads() else 256
LIMITS = """
[DEFAULT]
delay = 1 s
[stubborn]
time_limit = 1 s
"""


@pytest.fixture(scope="module", name="daemon")
def _daemon(cluster: Cluster) -> Iterator[NodeDaemon]:
    """Ours, with memory lock as on a real node."""
    nodes.set_limits(cluster, "node1", LIMITS)
    with NodeDaemon(cluster, nodes.OURS, PORT) as daemon:
        yield daemon
    nodes.remove_commands(cluster, "node1")


def processes(cluster: Cluster, text: str) -> list[int]:
    """The processes inside whose command line has a text."""
    found = []
    for pid in cluster.pids():
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as stream:
                line = stream.read()
        except OSError:
            continue
        if text.encode() in line:
            found.append(pid)
    return found


# --- as an administrator runs them


def test_gnt_node(cluster: Cluster) -> None:
    """On two nodes at once, with the output of each; what failed says how."""
    try:
        for node in ("node2", "node3"):
            nodes.set_limits(cluster, node, LIMITS)
            nodes.add_command(cluster, node, "hello", f"echo hello from {node}; [ $0 != x ] && exit ${{CODE:-0}}")
        done = cluster.gnt("gnt-node", "restricted-command", "hello", "node2", "node3")
        answers = [line for line in done.stdout.splitlines() if line.strip("-")]
        assert answers == ["Node: node2", "hello from node2", "Node: node3", "hello from node3"]
        nodes.add_command(cluster, "node2", "hello", "echo no luck; exit 7")
        done = cluster.gnt("gnt-node", "restricted-command", "hello", "node2", "node3", check=False)
        assert done.returncode == 1
        assert (
            "Restricted command 'hello' failed: exited with exit code 7; output: no luck" in done.stdout + done.stderr
        )
        assert "hello from node3" in done.stdout
        done = cluster.gnt("gnt-node", "restricted-command", "missing", "node2", check=False)
        assert done.returncode == 1
        assert "Executing command 'missing' failed" in done.stdout + done.stderr
        assert "No such file" not in done.stdout + done.stderr
        assert "'missing' from 192.0.2.10: refused: " in cluster.node_log("node2")
    finally:
        for node in ("node2", "node3"):
            nodes.remove_commands(cluster, node)


# --- what is refused


@pytest.mark.parametrize("name", ["hello\n", "hel\0lo", "../hello", "x" * 65, "h\u00e9llo", None])
def test_names_that_are_none(cluster: Cluster, daemon: NodeDaemon, name: object) -> None:
    nodes.add_command(cluster, "node1", "hello", "echo hello")
    nodes.set_limits(cluster, "node1", "[DEFAULT]\ndelay = 1 s\n")
    before = cluster.node_log("node1")
    ok, message, _ = daemon.rpc("restricted_command", name)
    assert not ok and message.startswith("Executing command ") and message.endswith(" failed")
    assert message.isprintable() and len(message) < 100
    log = cluster.node_log("node1")[len(before) :]
    assert all(re.match(r"\d{4}-\d\d-\d\d [\d:,]+: ganeti-noded", line) for line in log.splitlines())
    assert "hello\n" not in re.sub(r"\[.*", "", log)


def test_files_that_are_not_safe(cluster: Cluster, daemon: NodeDaemon) -> None:
    """They are refused as a missing one is; the log says why."""
    unsafe = nodes.add_command(cluster, "node1", "unsafe", "echo ran")
    os.chmod(unsafe, 0o775)
    suid = nodes.add_command(cluster, "node1", "suid", "echo ran")
    os.chmod(suid, 0o4755)
    foreign = nodes.add_command(cluster, "node1", "foreign", "echo ran")
    os.chown(foreign, 65534, 0)
    os.symlink("/tmp/nothing", os.path.join(os.path.dirname(unsafe), "dangling"))
    reasons = {
        "unsafe": "has the mode 0775",
        "suid": "has the mode 4755",
        "foreign": "belongs to user 65534",
        "dangling": "No such file or directory",
        "missing": "No such file or directory",
    }
    for name, reason in reasons.items():
        before = len(cluster.node_log("node1"))
        assert daemon.rpc("restricted_command", name)[:2] == (False, f"Executing command '{name}' failed")
        (line,) = [line for line in cluster.node_log("node1")[before:].splitlines() if "refused" in line]
        assert f"Restricted command '{name}' from 192.0.2.10: refused: " in line and reason in line
    assert daemon.rpc("restricted_command", "foreign", source="node2").value == "Executing command 'foreign' failed"


def test_bad_settings_are_told_and_not_taken(cluster: Cluster, daemon: NodeDaemon) -> None:
    nodes.add_command(cluster, "node1", "hello", "echo hello")
    before = len(cluster.node_log("node1"))
    nodes.set_limits(cluster, "node1", "[DEFAULT]\ndelay = 0\n")
    try:
        assert daemon.rpc("restricted_command", "hello")[:2] == (True, "hello\n")
    finally:
        nodes.set_limits(cluster, "node1", LIMITS)
    log = cluster.node_log("node1")[before:]
    path = cluster.node_path("node1", "etc/ganeti/restricted-commands.conf")
    assert f"{path} line 2: delay must be a time from 1 s to 10 min, such as 10 s, not '0'; until" in log


# --- what a command gets, and how it may behave


def test_what_a_command_is_given(cluster: Cluster, daemon: NodeDaemon) -> None:
    """Nothing of the daemon's."""
    nodes.add_command(cluster, "node1", "report", REPORT, "/usr/bin/python3 -IS")
    ok, output, _ = daemon.rpc("restricted_command", "report")
    assert ok, output
    found = json.loads(output)
    assert found["environment"] == {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8"}
    assert found["descriptors"] == [0, 1, 2] and found["input"] == "/dev/null"
    assert set(found["groups"]) == {0} and found["users"] == [0, 0, 0]
    assert found["session"] and found["directory"] == "/" and found["umask"] == 0o022
    assert found["blocked"] == found["ignored"] == 0


BAD_MANNERS = {
    # name: what it does, what is answered
    "stubborn": (
        "trap '' TERM; echo begun; while :; do sleep 0.1; done",
        r"Restricted command 'stubborn' failed: terminated by signal 9, force termination after timeout of"
        r" 1\.00 seconds and linger for another 5\.00 seconds; output: begun\n",
    ),
    "forks": ("echo begun; setsid sleep 77 & sleep 77 & exit 0", r"begun\n"),
    "loud": ("head -c 500000000 /dev/zero", r"\x00{262144}\n\[output cut: the first 262144 of 500000000 bytes\]\n"),
    "bytes": (r"printf '\377\376ok\000\342\202'", r"\\xff\\xfeok\x00\\xe2\\x82"),
    "mute": (
        "exec >&- 2>&-; sleep 0.3; exit 4",
        r"Restricted command 'mute' failed: exited with exit code 4; output: ",
    ),
    "hungry": (
        "ulimit -v 100000; exec /usr/bin/python3 -ISc 'x = bytearray(10**9)'",
        r"Restricted command 'hungry' failed: exited with exit code 1; output: Traceback.*\nMemoryError\n",
    ),
    "gone": ('rm "$0"; sleep 0.2; [ -e "$0" ] || echo gone', r"gone\n"),
    "crash": ("kill -SEGV $$", r"Restricted command 'crash' failed: terminated by signal 11; output: "),
}


@pytest.mark.parametrize("name", BAD_MANNERS)
def test_bad_manners(cluster: Cluster, daemon: NodeDaemon, name: str) -> None:
    """The answer is right, nothing stays behind, and the daemon's memory does not grow."""
    body, expected = BAD_MANNERS[name]
    nodes.set_limits(cluster, "node1", LIMITS)
    path = nodes.add_command(cluster, "node1", name, body)
    before = [nodes.kib(daemon.pid, field) for field in ("VmRSS", "VmLck", "VmSize")]
    _, value, _ = daemon.rpc("restricted_command", name)
    assert re.fullmatch(expected, value, re.DOTALL), value[-500:]
    if name == "forks":  # what a command leaves running on purpose is left alone
        wait_for(lambda: len(processes(cluster, "sleep\x0077")) == 2, 60)
        for pid in processes(cluster, "sleep\x0077"):
            os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not processes(cluster, path) + processes(cluster, "sleep\x0077") + daemon.children(), 60)
    assert [nodes.kib(daemon.pid, field) for field in ("VmRSS", "VmLck", "VmSize")] == pytest.approx(before, abs=SPARE)
    assert (name == "gone") != os.path.exists(path)
    assert daemon.rpc("version").ok


# --- the examples, as they are installed

EXAMPLES = Path(__file__).parents[2] / "examples" / "restricted-commands"


@pytest.mark.parametrize("name", ["last-kernel-messages", "memory-summary"])
def test_examples_that_only_look(cluster: Cluster, daemon: NodeDaemon, name: str) -> None:
    path = nodes.add_command(cluster, "node1", name, "")
    with open(path, "w", encoding="utf-8") as stream:
        stream.write((EXAMPLES / name).read_text(encoding="utf-8"))
    ok, output, _ = daemon.rpc("restricted_command", name)
    assert ok, output
    if name == "memory-summary":
        assert re.search(r"^MemAvailable: +\d+ kB$", output, re.MULTILINE)
        assert re.search(r"^ *\d+ kB +\d+ +ganeti-noded$", output, re.MULTILINE)
