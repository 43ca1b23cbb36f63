# SPDX-License-Identifier: BSD-2-Clause
"""Runs gnt-ext on a node of a cluster."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from typing import Any

from tests.cluster.vcluster import Cluster

#: The installed one, or the one of a work tree that is laid over the installed package.
PROGRAM = next(
    (path for path in ("/usr/libexec/ganeti-ext/gnt-ext", "/usr/sbin/gnt-ext") if os.path.exists(path)), "gnt-ext"
)


def run(
    cluster: Cluster, *arguments: str, node: str = "node1", before: Sequence[str] = (), **options: Any
) -> subprocess.CompletedProcess[str]:
    """One call, whatever its exit code; `before` are words before the program's name."""
    return cluster.run(node, *before, PROGRAM, *arguments, check=False, **options)
