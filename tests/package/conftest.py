# SPDX-License-Identifier: BSD-2-Clause
"""The package, built once, and a fresh Debian system with Ganeti for each test."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.package.debian_chroot import Chroot, base_system, tools_system
from tests.package.one_node import OneNode, make_cluster

TREE = Path(__file__).parents[2]

# A node, as far as its two daemons need it to start.
CLUSTER = """
openssl req -x509 -newkey rsa:2048 -nodes -days 9 -subj /CN=ganeti.example.com \
    -keyout /tmp/key -out /tmp/certificate 2>&1
cat /tmp/key /tmp/certificate > /var/lib/ganeti/server.pem
cp /var/lib/ganeti/server.pem /var/lib/ganeti/rapi.pem
echo 'NODED_ARGS="-b 127.0.0.1 --no-mlock"' > /etc/default/ganeti
echo 'RAPI_ARGS="-b 127.0.0.1 --require-authentication"' >> /etc/default/ganeti
/usr/lib/ganeti/ensure-dirs
hostname > /var/lib/ganeti/ssconf_master_node
touch /var/lib/ganeti/ssconf_ssl_cluster
chmod a+r /var/lib/ganeti/ssconf_*
"""


@pytest.fixture(scope="session")
def suite() -> str:
    """The Debian release to test on: bookworm, or what GANETI_EXT_SUITE says."""
    return os.environ.get("GANETI_EXT_SUITE", "bookworm")


@pytest.fixture(scope="session")
def base(suite: str) -> Path:
    """A system of that release with Ganeti, which no test changes."""
    return base_system(suite)


@pytest.fixture(scope="session")
def cluster_state(suite: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What making a cluster of one node changes; on sid, where Ganeti cannot, it comes from trixie."""
    state = tmp_path_factory.mktemp("cluster") / "state.tar"
    make_cluster(base_system("trixie" if suite == "sid" else suite), state)
    return state


@pytest.fixture
def one_node(base: Path, cluster_state: Path) -> Iterator[OneNode]:
    """A cluster of one node whose daemons run; nothing of ours is there but a policy and users."""
    with OneNode(base, state=cluster_state) as node:
        node.start()
        yield node


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Build this tree's package, in which lintian finds no fault: in the release that GANETI_EXT_SUITE says, if any."""

    def make() -> Path:
        outdir = tmp_path_factory.mktemp("deb")
        if "GANETI_EXT_SUITE" in os.environ:
            with Chroot(tools_system(os.environ["GANETI_EXT_SUITE"])) as chroot:
                chroot.put_tree(TREE, "/srv/ganeti-ext")
                chroot.sh("cd /srv/ganeti-ext; debian/build-deb build; debian/check-deb build")
                for file in (chroot.root / "srv/ganeti-ext/build").iterdir():
                    shutil.copy(file, outdir)
        else:
            subprocess.run([TREE / "debian/build-deb", outdir], check=True)
            subprocess.run([TREE / "debian/check-deb", outdir], check=True)
        (file,) = outdir.glob("*.deb")
        return file

    return make


@pytest.fixture(scope="session")
def deb(build: Callable[[], Path]) -> Path:
    """The package that is tested; no test changes it."""
    return build()


@pytest.fixture
def chroot(base: Path) -> Iterator[Chroot]:
    """A fresh system: Ganeti is installed, nothing of ours is, nothing runs."""
    with Chroot(base) as copy:
        yield copy


@pytest.fixture
def node(chroot: Chroot) -> Chroot:
    """A fresh system that is a cluster's master; its policy allows restarts."""
    if not (chroot.root / "etc/init.d/ganeti").exists():
        pytest.skip("without an init script the daemons belong to systemd")
    chroot.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 104\n", 0o755)
    # invoke-rc.d refuses restarts where it cannot find a runlevel
    chroot.write("/sbin/runlevel", "#!/bin/sh\necho N 2\n", 0o755)
    chroot.sh(CLUSTER)
    return chroot


@pytest.fixture
def variant(deb: Path, tmp_path: Path) -> Callable[..., Path]:
    """Make the package anew with another version, scripts or files."""

    def make(version: str, **files: str) -> Path:
        tree = tmp_path / version
        subprocess.run(["dpkg-deb", "--raw-extract", deb, tree], check=True)
        control = tree / "DEBIAN/control"
        control.write_text(re.sub("(?m)^Version: .*$", f"Version: {version}", control.read_text()))
        for name, text in files.items():
            file = tree / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            file.chmod(0o755)
        result = tmp_path / f"ganeti-ext_{version}_all.deb"
        subprocess.run(["dpkg-deb", "--build", tree, result], check=True)
        return result

    return make
