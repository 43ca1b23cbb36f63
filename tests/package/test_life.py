# SPDX-License-Identifier: BSD-2-Clause
"""The package on a node that is in use: what clients are told at every moment of its life."""

from __future__ import annotations

import re
from pathlib import Path

from tests.package.debian_chroot import Watch
from tests.package.one_node import Asking, OneNode
from tests.package.test_package import (
    DAEMONS,
    LINKS,
    OURS,
    Variant,
    assert_stock,
    fails,
    install,
)

OUTSIDE, INSIDE = "/2/instances/db.prod.example.com", "/2/instances/web1.test.example.com"


def assert_checks(node: OneNode) -> None:
    """Our checks are in force, and let through what they should."""
    assert node.ask("tenant", "GET", OUTSIDE)[0] == 404
    assert node.ask("tenant", "GET", INSIDE)[0] == 200
    assert node.ask("deputy", "DELETE", f"{OUTSIDE}?dry-run=1")[0] == 403
    assert node.ask("root", "GET", OUTSIDE)[0] == 200


def assert_no_checks(node: OneNode) -> None:
    """Ganeti's own daemon answers: it knows none of our roles."""
    assert node.ask("tenant", "GET", OUTSIDE)[0] == 200
    assert node.ask("deputy", "DELETE", f"{OUTSIDE}?dry-run=1")[0] == 200


def test_node_in_use(one_node: OneNode, deb: Path, variant: Variant) -> None:
    """Install, upgrade, reinstall of Ganeti, removal and purge, with all daemons at work."""
    node = one_node
    before = node.sh("find / -xdev -path /root -prune -o -print").splitlines()
    assert_no_checks(node)
    install(node, deb)
    assert_checks(node)

    policy = node.sh("sha256sum /etc/ganeti/rapi-access.yaml /var/lib/ganeti/rapi/users")
    with Watch(node, *LINKS) as links, Asking(node) as asking:
        install(node, variant("0.2.0"))
        node.sh("dpkg --install /debs/*.deb")
        install(node, deb)
        node.sh("/usr/lib/ganeti/daemon-util stop-all; /usr/lib/ganeti/daemon-util start-all")
    assert links.seen == OURS
    asking.assert_refused()
    assert_checks(node)
    assert node.sh("sha256sum /etc/ganeti/rapi-access.yaml /var/lib/ganeti/rapi/users") == policy
    assert node.sh('grep -c \'"user": "deputy"\' /var/log/ganeti/rapi-audit.log') != "0"

    with Watch(node, *LINKS) as links, Asking(node) as asking:
        node.run("dpkg", "--remove", "ganeti-ext")
    assert "missing" not in links.seen
    assert "200" in asking.answers["tenant reads"], "whoever asks cannot see it"
    assert_stock(node)
    assert_no_checks(node)
    node.run("dpkg", "--purge", "ganeti-ext")
    left = set(node.sh("find / -xdev -path /root -prune -o -print").splitlines()) - set(before)
    ours = re.compile(r"/(proc|var/lib/dpkg|var/log/(dpkg|apt)|var/lib/ganeti/queue|run/ganeti/livelocks)")
    assert {path for path in left if not ours.match(path)} == set()


UNKNOWN = """
cp -a "$(readlink /etc/ganeti/share)" /usr/share/ganeti/3.9
cd /usr/share/ganeti/3.9/ganeti
rm -rf __pycache__
sed -i 's/^VERSION_MINOR = .*/VERSION_MINOR = 9/; s/^RELEASE_VERSION = .*/RELEASE_VERSION = "3.9.0"/' _constants.py
"""
RESTART = """
/usr/lib/ganeti/daemon-util stop {0}
/usr/lib/ganeti/daemon-util start {0}
"""


def test_links_that_lead_elsewhere(one_node: OneNode, deb: Path) -> None:
    """What `gnt-cluster upgrade` does without dpkg: to a release that we do not know, to none, and back."""
    node = one_node
    known = node.sh("readlink /etc/ganeti/share")
    install(node, deb)
    node.sh(UNKNOWN)
    with Asking(node) as asking:
        node.sh("ln -sfT /usr/share/ganeti/3.9 /etc/ganeti/share")
        assert_checks(node)  # what runs goes on
        for daemon in DAEMONS:
            node.sh(RESTART.format(daemon))
        reason = "Ganeti 3.9.0 is not known to this ganeti-ext (it knows 3.0, 3.1): install a newer ganeti-ext"
        for user in ("root", "tenant", "deputy"):
            status, text = node.ask(user, "GET", INSIDE)
            assert status == 503 and reason in text
        assert node.ask("root", "GET", "/version")[0] == 200
        assert reason in node.sh("tail -n 20 /var/log/ganeti/node-daemon.log")
        assert "node1.example.com" in node.sh("gnt-node list --no-headers -o name,mfree")

        node.sh("ln -sfT /usr/share/ganeti/4.7 /etc/ganeti/share")
        for daemon in DAEMONS:
            fails(node, "sh", "-ec", RESTART.format(daemon))  # Ganeti's own ensure-dirs is not there either
            said = fails(node, daemon, "--foreground")
            assert f"{daemon}: Ganeti is not installed: there is no /usr/share/ganeti/default/ganeti" in said
        assert node.ask("root", "GET", "/version")[0] == 0

        node.sh(f"ln -sfT {known} /etc/ganeti/share")
        for daemon in DAEMONS:
            node.sh(RESTART.format(daemon))
        assert_checks(node)
    asking.assert_refused()
