# SPDX-License-Identifier: BSD-2-Clause
"""Nodes of one cluster that have not the same installed: none of our package, another version of it, another Ganeti.

A node's daemons and its SSH daemon get a mount namespace of their own, in which the node's other files lie
over what is installed. So all that comes from other nodes meets them: RPCs, and commands by SSH; a
failover to such a node starts there what that node has.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Mapping

from ganeti_ext import compat
from tests.cluster import vcluster
from tests.cluster.vcluster import DAEMON_UTIL, Cluster

_PACKAGE = "/usr/lib/python3/dist-packages/ganeti_ext"
GANETI = os.path.join(os.path.realpath(compat.GANETI_DIR), "ganeti")

#: What the package has put in Ganeti's places, as Ganeti had it.
_STOCK = {"ganeti-noded": "../share/ganeti/default/ganeti-noded", "ganeti-rapi": "../share/ganeti/default/ganeti-rapi"}

_SCRIPT = """
set -e
mount --make-rprivate /
address="$1" daemon_util="$2"; shift 2
while [ $# -gt 0 ]; do mount --bind "$1" "$2"; shift 2; done
/usr/sbin/sshd -o ListenAddress="$address"
$daemon_util stop ganeti-noded
exec $daemon_util start ganeti-noded
"""


class Node:
    """Makes directories for one node, and starts its daemons over them."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self._cluster = cluster
        self._name = name
        self._directory = tempfile.mkdtemp(prefix=f"{name}.", dir=cluster.root)
        os.chmod(self._directory, 0o755)
        self._mounts: dict[str, str] = {}

    def without_package(self) -> Node:
        """What Ganeti's own packages install, and nothing of ours."""
        programs = self._copy("/usr/sbin")
        os.unlink(os.path.join(programs, "gnt-ext"))
        for name, target in _STOCK.items():
            os.unlink(os.path.join(programs, name))
            os.symlink(target, os.path.join(programs, name))
        for gone in ("/usr/libexec/ganeti-ext", _PACKAGE):
            empty = os.path.join(self._directory, os.path.basename(gone) + ".gone")
            os.makedirs(empty, exist_ok=True)
            self._mounts[gone] = empty
        return self

    def with_package(self, edits: Mapping[str, tuple[str, str]]) -> Node:
        """The package as another version has it: file -> what is replaced there, and by what."""
        return self._edited(_PACKAGE, edits)

    def with_ganeti(self, edits: Mapping[str, tuple[str, str]]) -> Node:
        """The same for Ganeti."""
        return self._edited(GANETI, edits)

    def reinstall(self) -> None:
        """What dpkg does to the package's files, while the daemons go on."""
        path = os.path.join(self._mounts[_PACKAGE], "compat.py")
        shutil.copy(path, path + ".dpkg-new")
        os.rename(path + ".dpkg-new", path)

    def _edited(self, directory: str, edits: Mapping[str, tuple[str, str]]) -> Node:
        copy = self._copy(directory)
        for name, (old, new) in edits.items():
            path = os.path.join(copy, name)
            with open(path, encoding="utf-8") as stream:
                text = stream.read()
            assert old in text, f"{path} has no {old!r}"
            with open(path, "w", encoding="utf-8") as stream:
                stream.write(text.replace(old, new))
        return self

    def _copy(self, directory: str) -> str:
        copy = os.path.join(self._directory, os.path.basename(directory))
        if directory not in self._mounts:
            shutil.copytree(directory, copy, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
            self._mounts[directory] = copy
        return copy

    def start(self) -> Node:
        """(Re)starts the node's daemons. Raises ClusterError."""
        mounts = [path for pair in self._mounts.items() for path in reversed(pair)]
        address = self._cluster.address(self._name)
        stop_ssh(self._cluster, address)
        self._cluster.run(self._name, "unshare", "-m", "sh", "-c", _SCRIPT, "sh", address, DAEMON_UTIL, *mounts)
        return self


def stop_ssh(cluster: Cluster, address: str = "") -> None:
    """Ends the SSH daemon of a node's address, or the one of all addresses."""
    for pid in cluster.pids():
        words = vcluster._text(f"/proc/{pid}/cmdline")
        wanted = f"ListenAddress={address}" in words if address else "ListenAddress" not in words
        if "/usr/sbin/sshd" in words and "[listener]" in words and wanted:
            os.kill(pid, signal.SIGTERM)


def as_on(cluster: Cluster, node: str) -> list[str]:
    """The words before a command that is to find what the node's daemons find."""
    with open(cluster.node_path(node, "var/run/ganeti/ganeti-noded.pid"), encoding="ascii") as stream:
        # With its root: a mount namespace alone would lead out of a chroot.
        return ["nsenter", "-m", "-r", "-t", stream.read().strip()]


def split(cluster: Cluster, others: Mapping[str, Node]) -> None:
    """Gives each node an SSH daemon of its own; `others` are the nodes that are not like the master."""
    stop_ssh(cluster)
    for name in cluster.nodes:
        (others.get(name) or Node(cluster, name)).start()
