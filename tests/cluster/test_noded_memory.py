# SPDX-License-Identifier: BSD-2-Clause
"""The node daemon's memory: locked as Ganeti's is, with less of it, and what that is good for."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import struct
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from tests.cluster import memgroup, nodes
from tests.cluster.memgroup import MIB, MemoryGroup
from tests.cluster.nodes import OURS, STOCK, NodeDaemon, kib
from tests.cluster.vcluster import Cluster

SWITCHES = "etc/default/ganeti-ext"

#: KiB of the arenas of Python that ours begins and stock just does not: two of bullseye's, one of sid's.
ARENAS = {(3, 9): 512, (3, 14): 1024}


@pytest.fixture(scope="module", name="daemons")
def _daemons(cluster: Cluster) -> Iterator[dict[str, NodeDaemon]]:
    """Ganeti's and ours with memory lock, and ours without."""
    with contextlib.ExitStack() as stack:
        yield {
            "stock": stack.enter_context(NodeDaemon(cluster, STOCK, 1840)),
            "ours": stack.enter_context(NodeDaemon(cluster, OURS, 1841)),
            "unlocked": stack.enter_context(NodeDaemon(cluster, OURS, 1842, "--no-mlock")),
        }


@contextlib.contextmanager
def idle_child(daemon: NodeDaemon, seconds: float = 1.0) -> Iterator[int]:
    """A child that serves an RPC which does nothing for a while, once it does."""
    answers: list[nodes.Answer] = []
    thread = threading.Thread(target=lambda: answers.append(daemon.rpc("test_delay", seconds)))
    thread.start()
    found: set[int] = set()
    while not found:  # one that is there for long
        before = set(daemon.children())
        time.sleep(0.2)
        found = before & set(daemon.children())
    yield found.pop()
    thread.join()
    assert answers[0].ok


def mappings(pid: int) -> dict[str, str]:
    """The mappings of a process that are its to lock: address and what more there is, to the kernel's flags.

    Not so the kernel's own pages, which everybody has, nor what may be dropped (dp) and is never written
    out: a page of random numbers that glibc has from 2.41 on.
    """
    with open(f"/proc/{pid}/smaps", encoding="utf-8") as stream:
        entries = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", stream.read(), flags=re.MULTILINE)[1:]
    flags = {entry.split("\n", 1)[0]: re.findall(r"^VmFlags:(.*)$", entry, re.MULTILINE)[0] for entry in entries}
    return {
        line: words for line, words in flags.items() if "[v" not in line and not {"io", "pf", "dp"} & set(words.split())
    }


def unlocked_mappings(pid: int) -> list[str]:
    """The mappings of a process that may be paged out."""
    return [line for line, flags in mappings(pid).items() if "lo" not in flags.split()]


def page_out(pid: int) -> int:
    """Ask the kernel to page a process out; how many of its mappings it takes that for.

    By process_madvise(2), which has one number on all machines.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    file = os.pidfd_open(pid)
    taken = 0
    for line in mappings(pid):
        begin, end = (int(number, 16) for number in line.split()[0].split("-"))
        vector = ctypes.create_string_buffer(struct.pack("QQ", begin, end - begin))
        if libc.syscall(440, file, vector, ctypes.c_size_t(1), 21, 0) >= 0:  # 21 is MADV_PAGEOUT
            taken += 1
        else:
            assert ctypes.get_errno() == errno.EINVAL  # it is locked
    os.close(file)
    return taken


@pytest.mark.parametrize("kind", ["stock", "ours"])
def test_neither_the_daemon_nor_its_child_can_be_paged_out(daemons: dict[str, NodeDaemon], kind: str) -> None:
    daemon = daemons[kind]
    with idle_child(daemon) as child:
        for pid in (daemon.pid, child):
            assert unlocked_mappings(pid) == []
            assert kib(pid, "VmLck") + 64 > kib(pid, "VmRSS") > 20_000  # but for the kernel's own pages
            assert page_out(pid) == 0
        # What the child shares is its parent's, and locked there; what is its own is locked in it.
        assert kib(daemon.pid, "Locked", "smaps_rollup") > 0.9 * kib(daemon.pid, "Pss", "smaps_rollup")
        assert kib(child, "Locked", "smaps_rollup") > 0.9 * kib(child, "Pss", "smaps_rollup")


def test_what_is_not_locked_is_seen_to_be_paged_out(daemons: dict[str, NodeDaemon]) -> None:
    """So the test above sees it, too."""
    daemon = daemons["unlocked"]
    assert len(unlocked_mappings(daemon.pid)) > 100
    assert page_out(daemon.pid) > 100


def test_less_memory_than_stock(daemons: dict[str, NodeDaemon]) -> None:
    private = {}
    for kind in ("stock", "ours"):
        with idle_child(daemons[kind]) as child:
            private[kind] = kib(child, "Private_Dirty", "smaps_rollup")
    assert private["ours"] <= 0.2 * private["stock"]
    more = kib(daemons["ours"].pid, "VmLck") - kib(daemons["stock"].pid, "VmLck")
    assert more <= 256 + ARENAS.get(sys.version_info[:2], 0)


def test_switched_off(cluster: Cluster) -> None:
    """Then it is as Ganeti made it; a mistake in the file is told, and changes nothing."""
    path = cluster.node_path("node1", SWITCHES)
    before = len(cluster.node_log("node1"))
    try:
        with open(path, "w", encoding="utf-8") as stream:
            stream.write("NODED_LOCK_ON_FAULT=no\nNODED_FAIR_QUEUE=no\nNODED_FAIR_QUEUE=of\n")
        os.chmod(path, 0o644)
        with NodeDaemon(cluster, OURS, 1843) as daemon, idle_child(daemon) as child:
            private = kib(child, "Private_Dirty", "smaps_rollup")
    finally:
        os.unlink(path)
    assert private > 20_000
    log = cluster.node_log("node1")[before:]
    for name in ("NODED_LOCK_ON_FAULT", "NODED_FAIR_QUEUE"):
        assert f"{name} is switched off in /etc/default/ganeti-ext" in log
    assert f"{path} line 3 is not taken: NODED_FAIR_QUEUE must be yes or no, not 'of'" in log


@pytest.mark.skipif(not memgroup.available(), reason="no memory cgroup of version 1 that can be written")
def test_a_command_runs_when_the_node_has_no_memory_left(cluster: Cluster) -> None:
    """12 MiB are left, and whoever needs more waits for it: Ganeti's own daemon runs no command, ours each."""
    nodes.add_command(cluster, "node1", "hello", "echo hello")
    ran = {}
    try:
        for kind, program, timeout in (("stock", STOCK, 2), ("ours", OURS, 60)):
            with MemoryGroup(200 * MIB) as group, contextlib.ExitStack() as stack:
                with group.inside():
                    daemon = stack.enter_context(NodeDaemon(cluster, program, 1844))
                stack.callback(group.empty)
                group.fill(12 * MIB)
                ran[kind] = [runs(daemon, timeout) for _ in range(3)]
                group.empty()
                # It was the memory, and nothing else.
                assert runs(daemon, 60)
    finally:
        nodes.remove_commands(cluster, "node1")
    assert ran == {"stock": [False] * 3, "ours": [True] * 3}


def runs(daemon: NodeDaemon, timeout: float) -> bool:
    """Whether a restricted command runs and its answer comes."""
    try:
        return daemon.rpc("restricted_command", "hello", timeout=timeout)[:2] == (True, "hello\n")
    except OSError:
        return False
