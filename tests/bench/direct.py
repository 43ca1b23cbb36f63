# SPDX-License-Identifier: BSD-2-Clause
"""A restricted command on three nodes: `gnt-ext … --direct` beside `gnt-node`, which makes a job of it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator

from tests.bench.report import Row, bootstrap, median, ratio, row
from tests.cluster import gnt_ext
from tests.cluster.vcluster import Cluster

BAR = 0.5
COMMAND = "nothing"


def commands(cluster: Cluster) -> dict[str, list[str]]:
    """What is compared: the same command on the same nodes, by each way."""
    return {
        "direct": [gnt_ext.PROGRAM, "restricted-command", "--direct", *cluster.nodes, COMMAND],
        "job": [gnt_ext.PROGRAM, "restricted-command", *cluster.nodes, COMMAND],
        "gnt-node": ["gnt-node", "restricted-command", COMMAND, *cluster.nodes],
    }


def call(cluster: Cluster, command: list[str]) -> float:
    """Wall seconds of one call, from the start of its process to its end."""
    began = time.monotonic()
    cluster.gnt(*command)
    return time.monotonic() - began


def measure(tiny: bool = False) -> Iterator[Row]:
    """Direct and by a job, each beside gnt-node."""
    runs = 1 if tiny else 25
    with Cluster() as cluster:
        for node in cluster.nodes:
            path = cluster.node_path(node, f"etc/ganeti/restricted-commands/{COMMAND}")
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="ascii") as stream:
                stream.write("#!/bin/sh\n")
            os.chmod(path, 0o755)
        took: dict[str, list[float]] = {}
        for number in range(runs + 1):
            for way, command in commands(cluster).items():
                seconds = call(cluster, command)
                if number:  # the first of each only warms the caches
                    took.setdefault(way, []).append(seconds)
            print(f"\rdirect: {number} of {runs}", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)

    def shown(way: str) -> str:
        return f"{median(took[way]) * 1000:.0f} ms"

    yield row(
        "gnt-ext restricted-command --direct, 3 nodes",
        shown("direct"),
        f"{shown('gnt-node')} (gnt-node)",
        bootstrap(took["direct"], took["gnt-node"], ratio),
        BAR,
    )
    found = bootstrap(took["job"], took["gnt-node"], ratio)
    yield Row(
        "gnt-ext restricted-command, 3 nodes",
        shown("job"),
        f"{shown('gnt-node')} (gnt-node)",
        f"{found.value:.2f} [{found.low:.2f}; {found.high:.2f}]",
    )
