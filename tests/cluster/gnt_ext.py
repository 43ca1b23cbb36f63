# SPDX-License-Identifier: BSD-2-Clause
"""Runs gnt-ext on a node of a cluster."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.cluster.vcluster import Cluster

#: The installed one, or the one of a work tree that is laid over the installed package.
PROGRAM = next(
    (path for path in ("/usr/libexec/ganeti-ext/gnt-ext", "/usr/sbin/gnt-ext") if os.path.exists(path)), "gnt-ext"
)

_HOOK = Path(__file__).parents[2] / "debian/hooks/ganeti-ext"


def install_hook(cluster: Cluster, node: str, *kinds: str) -> None:
    """Puts the package's hook where Ganeti looks for it on a node: `cluster-modify-post.d`, `watcher`, …"""
    # The nodes of a virtual cluster find themselves by their environment.
    start = f"#!/bin/sh\nexport GANETI_ROOTDIR={cluster.node_path(node, '').rstrip('/')} GANETI_HOSTNAME={node}\n"
    text = _HOOK.read_text(encoding="ascii").replace("/usr/sbin/gnt-ext", PROGRAM).replace("#!/bin/sh\n", start)
    for kind in kinds:
        path = Path(cluster.node_path(node, f"etc/ganeti/hooks/{kind}/ganeti-ext"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="ascii")
        path.chmod(0o755)


def run(
    cluster: Cluster, *arguments: str, node: str = "node1", before: Sequence[str] = (), **options: Any
) -> subprocess.CompletedProcess[str]:
    """One call, whatever its exit code; `before` are words before the program's name."""
    return cluster.run(node, *before, PROGRAM, *arguments, check=False, **options)
