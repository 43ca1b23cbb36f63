# SPDX-License-Identifier: BSD-2-Clause
"""What apt needs to bring a system to Debian's next release, fetched once, so that the upgrade needs no network."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.package.debian_chroot import PACKAGES, Chroot, base_system, kept_system

NEXT = {"bullseye": "bookworm", "bookworm": "trixie", "trixie": "sid"}

KEPT = ("etc/apt/sources.list", "var/lib/apt/lists", "var/cache/apt/archives")


def packages(suite: str) -> Path:
    """A directory to lay over the system of this release: then `apt-get full-upgrade` brings it to the next."""
    following = NEXT[suite]

    def make(directory: Path) -> None:
        with Chroot(base_system(suite), online=True) as chroot:
            chroot.sh(f"sed -i 's/ {suite} / {following} /' /etc/apt/sources.list")
            chroot.sh("apt-get update && apt-get --yes --download-only full-upgrade")
            chroot.sh(f"mkdir -p /kept && cd / && cp --parents -r {' '.join(KEPT)} /kept")
            shutil.copytree(chroot.root / "kept", directory)

    return kept_system(f"{suite}-to-{following}", PACKAGES, make)
