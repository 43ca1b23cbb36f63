# SPDX-License-Identifier: BSD-2-Clause
"""The node daemon while it is flooded: it answers everybody else, and who guesses learns next to nothing.

What it takes is in the benchmark (`make bench PART=noded`), beside Ganeti's own daemon and for a minute.
"""

from __future__ import annotations

import contextlib
import re
import select
import time
from collections.abc import Iterator

import pytest

from ganeti_ext.noded.lines import RESERVED
from tests.cluster import nodes
from tests.cluster.nodes import Flood, NodeDaemon
from tests.cluster.vcluster import Cluster
from tests.waiting import wait_for

PORT = 1840
DELAY = 3.0


@pytest.fixture(scope="module", name="daemon")
def _daemon(cluster: Cluster) -> Iterator[NodeDaemon]:
    """Ours, with memory lock as on a real node, and one command."""
    nodes.add_command(cluster, "node1", "hello", "echo hello")
    nodes.set_limits(cluster, "node1", f"[DEFAULT]\ndelay = {DELAY} s\n")
    with NodeDaemon(cluster, nodes.OURS, PORT) as daemon:
        yield daemon
    nodes.remove_commands(cluster, "node1")


def verdicts(cluster: Cluster, before: int) -> list[str]:
    """The names that were looked at and found to be none, by what came into the log since it was so long."""
    log = cluster.node_log("node1")[before:]
    return re.findall(r"Restricted command '(\w+-\d+)' from 192\.0\.2\.12: refused: '.*': No such file", log)


@pytest.mark.parametrize("clients", [25, 100])
def test_others_are_served_meanwhile(cluster: Cluster, daemon: NodeDaemon, clients: int) -> None:
    """Before even the first of the wrong names has been told that it is one."""
    before = len(cluster.node_log("node1"))
    began = time.monotonic()
    with Flood(cluster, clients, source="node3", port=PORT) as flood:
        served = 0.0
        for _ in range(3):
            assert daemon.rpc("version").ok
            assert daemon.rpc("restricted_command", "hello", source="node2")[:2] == (True, "hello\n")
            served = served or time.monotonic()
            # Ganeti's 21, and those for addresses that have none.
            assert len(daemon.children()) <= 21 + RESERVED
        assert flood.goes_on
    assert len(flood.answers) == clients
    for _, _, answer in flood.answers:
        ok, message = answer
        assert not ok and re.fullmatch(r"Executing command 'wrong-\d+' failed", message)
    assert served < min(moment for moment, took, _ in flood.answers if took >= DELAY)
    assert 1 <= len(verdicts(cluster, before)) <= (time.monotonic() - began) / DELAY + 1


def test_a_dictionary_gets_one_verdict_per_delay(cluster: Cluster, daemon: NodeDaemon) -> None:
    before = len(cluster.node_log("node1"))
    began = time.monotonic()
    with Flood(cluster, 12, DELAY / 2, source="node3", port=PORT, name="word-"):
        pass
    most = (time.monotonic() - began) / DELAY + 1
    told = len(verdicts(cluster, before))
    assert 1 <= told <= most
    assert cluster.node_log("node1")[before:].count("places for waiting calls are taken") > told


@pytest.mark.parametrize("count", [40, 600])
def test_who_says_nothing_shuts_nobody_out(cluster: Cluster, daemon: NodeDaemon, count: int) -> None:
    """Connections without a certificate or a word keep a child of Ganeti's server for ten seconds each."""
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(cluster.connect(PORT, source="node3")) for _ in range(count)]
        for _ in range(3):
            assert daemon.rpc("version").ok
            assert daemon.rpc("restricted_command", "hello", source="node2")[:2] == (True, "hello\n")
        poll = select.poll()
        for connection in silent:
            poll.register(connection, select.POLLIN)
        # They were there all the time, served or waiting; but for those who were too many, or whose time was over.
        assert len(poll.poll(0)) < count
        assert len(daemon.children()) <= 21 + RESERVED


def test_when_it_is_over_nothing_is_left(cluster: Cluster, daemon: NodeDaemon) -> None:
    before = nodes.kib(daemon.pid, "VmRSS")
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(cluster.connect(PORT, source="node3"))
    wait_for(lambda: not daemon.children(), 60)
    assert daemon.rpc("version", source="node3").ok
    assert nodes.kib(daemon.pid, "VmRSS") - before < 1024
