# SPDX-License-Identifier: BSD-2-Clause
"""An upgrade of Debian, and of Ganeti with it, under a node that is in use, as an administrator does it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.package import next_release
from tests.package.debian_chroot import Watch
from tests.package.one_node import Asking, OneNode
from tests.package.test_life import assert_checks
from tests.package.test_package import DAEMONS, LINKS, OURS, Variant, assert_ours, assert_stock, fails, install

# Only where the old Ganeti's own settings were changed is anything asked: ours are as we brought them.
UPGRADE = ("apt-get", "--yes", "-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold")


def pids(node: OneNode) -> list[str]:
    return [node.sh(f"cat /run/ganeti/{daemon}.pid") for daemon in DAEMONS]


def upgrade_cluster(node: OneNode, newer: Path) -> None:
    """From Ganeti 3.0 to 3.1, when Debian has been upgraded.

    Till then 3.0 goes on running; started anew it cannot be, for trixie's Python has no asynchat.
    """
    before = pids(node)
    said = node.run("dpkg", "--install", node.put(newer)).stderr
    assert "ganeti-noded is not restarted: it would not start" in said and "asynchat" in said
    assert pids(node) == before
    assert_checks(node)

    # After a reboot none is there, with us or without, and what else is needed has to be started by hand.
    for daemon in DAEMONS:
        assert "asynchat" in fails(node, f"/usr/sbin/{daemon}.distrib", "--version")
    node.sh("/usr/lib/ganeti/daemon-util stop-all")
    assert "asynchat" in fails(node, "/usr/lib/ganeti/daemon-util", "start-all")
    for daemon in ("ganeti-wconfd", "ganeti-luxid"):
        node.sh(f"/usr/lib/ganeti/daemon-util start {daemon} --no-voting --yes-do-it")
    node.run("gnt-cluster", "upgrade", "--to", "3.1", check=False)  # its last step, verify, tells of /proc
    assert node.sh("readlink /etc/ganeti/share") == "/usr/share/ganeti/3.1"
    node.sh("gnt-cluster verify --ignore-errors=ENODESETUP")


def test_upgrade_to_the_next_release(suite: str, base: Path, cluster_state: Path, deb: Path, variant: Variant) -> None:
    if "GANETI_EXT_SUITE" not in os.environ:
        pytest.skip("Debian is upgraded by `make matrix`: it takes minutes")
    if suite not in next_release.NEXT:
        pytest.skip(f"no release follows {suite}")
    with OneNode(base, over=next_release.packages(suite), state=cluster_state) as node:
        node.start()
        install(node, deb)
        assert_checks(node)
        release = node.sh("gnt-cluster --version")

        with Watch(node, *LINKS) as links, Asking(node) as asking:
            said = node.run(*UPGRADE, "full-upgrade").stdout
            assert "/etc/default/ganeti-ext" not in said and "/etc/ganeti/hooks" not in said
            assert_ours(node)
            assert_checks(node)
            if suite == "bookworm":
                upgrade_cluster(node, variant("9.0"))
            assert node.sh("gnt-cluster --version") != release
            assert_checks(node)
            node.run(*UPGRADE, "autoremove")
            assert_checks(node)
        assert links.seen == OURS
        asking.assert_refused()
        assert_ours(node)
        assert node.sh("dpkg --audit") == ""

        node.run("dpkg", "--purge", "ganeti-ext")
        assert_stock(node)
        assert node.sh("find /etc/ganeti /usr/lib /usr/libexec /usr/share -name ganeti[-_]ext") == ""
