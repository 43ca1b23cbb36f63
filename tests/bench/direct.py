# SPDX-License-Identifier: BSD-2-Clause
"""A restricted command on three nodes: `gnt-ext … --direct` beside `gnt-node`, which makes a job of it."""

from __future__ import annotations

import collections
import time
from collections.abc import Iterator, Sequence

from tests.bench.progress import say
from tests.bench.report import Row, bootstrap, ratio, row
from tests.bench.sampling import ms
from tests.cluster import gnt_ext
from tests.cluster.nodes import add_command
from tests.cluster.vcluster import Cluster

#: Of three nodes.
BAR = 0.5
COMMAND = "nothing"
#: On how many nodes.
SIZES = (1, 3, 10)


def commands(nodes: Sequence[str]) -> dict[str, list[str]]:
    """What is compared: the same command on the same nodes, by each way."""
    return {
        "direct": [gnt_ext.PROGRAM, "restricted-command", "--direct", *nodes, COMMAND],
        "job": [gnt_ext.PROGRAM, "restricted-command", *nodes, COMMAND],
        "gnt-node": ["gnt-node", "restricted-command", COMMAND, *nodes],
    }


def call(cluster: Cluster, command: list[str]) -> float:
    """Wall seconds of one call, from the start of its process to its end."""
    began = time.monotonic()
    cluster.gnt(*command)
    return time.monotonic() - began


def measure(tiny: bool = False) -> Iterator[Row]:
    """Direct and by a job, each beside gnt-node."""
    runs, sizes = (1, SIZES[:2]) if tiny else (3, SIZES)
    with Cluster(nodes=max(sizes)) as cluster:
        for node in cluster.nodes:
            add_command(cluster, node, COMMAND, "exit 0")
        took: dict[tuple[int, str], list[float]] = collections.defaultdict(list)
        for command in commands(cluster.nodes[:1]).values():  # only warms the caches
            call(cluster, command)
        for number in range(runs):
            for size in sizes:
                for way, command in commands(cluster.nodes[:size]).items():
                    if way == "job" and size != 3:
                        continue
                    say(f"restricted commands, {number} of {runs}")
                    took[size, way].append(call(cluster, command))
    for size, way in took:
        if way == "gnt-node":
            continue
        mine, theirs = took[size, way], took[size, "gnt-node"]
        yield row(
            f"gnt-ext restricted-command{' --direct' if way == 'direct' else ''}, {size} node{'s' * (size > 1)}",
            ms(mine),
            f"{ms(theirs)} (gnt-node)",
            bootstrap(mine, theirs, ratio),
            BAR if way == "direct" else None,
        )
