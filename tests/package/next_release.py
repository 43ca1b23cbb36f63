# SPDX-License-Identifier: BSD-2-Clause
"""What apt needs to bring a system to Debian's next release, fetched once, so that the upgrade needs no network."""

from __future__ import annotations

import fcntl
import shutil
from pathlib import Path

from tests.package.debian_chroot import CACHE, Chroot, base_system

NEXT = {"bullseye": "bookworm", "bookworm": "trixie", "trixie": "sid"}

KEPT = ("etc/apt/sources.list", "var/lib/apt/lists", "var/cache/apt/archives")


def packages(suite: str) -> Path:
    """A directory to lay over the system of this release: then `apt-get full-upgrade` brings it to the next."""
    base, following = base_system(suite), NEXT[suite]
    name = f"{base.name}-to-{following}"
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        directory = CACHE / name
        if not directory.exists() or directory.stat().st_mtime < base.stat().st_mtime:
            shutil.rmtree(directory, ignore_errors=True)
            unfinished = CACHE / f"{name}.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            with Chroot(base, online=True) as chroot:
                chroot.sh(f"sed -i 's/ {suite} / {following} /' /etc/apt/sources.list")
                chroot.sh("apt-get update && apt-get --yes --download-only full-upgrade")
                chroot.sh(f"mkdir -p /kept && cd / && cp --parents -r {' '.join(KEPT)} /kept")
                shutil.copytree(chroot.root / "kept", unfinished)
            unfinished.rename(directory)
            directory.touch()
    return directory
