# SPDX-License-Identifier: BSD-2-Clause
"""What the node daemon earns a whole job: a batch of jobs on three nodes, with Ganeti's node daemons and with ours."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

from tests.bench.counter import CpuCounter
from tests.bench.progress import say
from tests.bench.report import Row, bootstrap, median, ratio, row
from tests.cluster.nodes import OURS, STOCK
from tests.cluster.vcluster import Cluster

PROGRAMS = {"ours": OURS, "stock": STOCK}
#: Each is stopped and started: two jobs.
INSTANCES = [f"batch{number}.example.com" for number in range(4)]
#: No worse, and what chance may do to that.
BAR = 1.01


def use(cluster: Cluster, program: str) -> list[CpuCounter]:
    """Runs this node daemon on all nodes, locked into memory as on real ones; a counter for each."""
    counters = []
    for node in cluster.nodes:
        before = cluster.daemon_pid("noded", node)
        os.kill(before, signal.SIGTERM)
        while os.path.exists(f"/proc/{before}"):
            time.sleep(0.02)
        cluster.run(node, program, "-b", cluster.address(node))
        counters.append(CpuCounter(cluster.daemon_pid("noded", node)))
    return counters


def run(cluster: Cluster) -> float:
    """Stops all instances and starts them again; seconds until the last job has ended."""
    began = time.monotonic()
    for operation in ("OP_INSTANCE_SHUTDOWN", "OP_INSTANCE_STARTUP"):
        jobs: list[list[dict[str, object]]] = [
            [{"OP_ID": operation, "instance_name": name, "reason": []}] for name in INSTANCES
        ]
        for success, job in cluster.luxi("SubmitManyJobs", jobs):
            assert success, job
            status, result = cluster.job(job)
            assert status == "success", result
    return time.monotonic() - began


def batch(cluster: Cluster, rounds: int) -> Iterator[Row]:
    """The rows about it; the node daemons change between the rounds."""
    cluster.add_instances(INSTANCES)
    took: dict[str, list[float]] = {kind: [] for kind in PROGRAMS}
    used: dict[str, list[float]] = {kind: [] for kind in PROGRAMS}
    for number in range(rounds):
        # Each comes first as often as the other.
        for kind in sorted(PROGRAMS, reverse=bool(number % 2)):
            say(f"batch of jobs, {number} of {rounds}")
            counters = use(cluster, PROGRAMS[kind])
            before = sum(counter.read() for counter in counters)
            took[kind].append(run(cluster))
            used[kind].append(sum(counter.read() for counter in counters) - before)
    use(cluster, OURS)
    for what, found in (("seconds", took), ("CPU of the node daemons", used)):
        yield row(
            f"batch of {2 * len(INSTANCES)} jobs on {len(cluster.nodes)} nodes: {what}",
            f"{median(found['ours']):.2f} s",
            f"{median(found['stock']):.2f} s",
            bootstrap(found["ours"], found["stock"], ratio),
            BAR,
            remark=f"{rounds} times each",
        )
