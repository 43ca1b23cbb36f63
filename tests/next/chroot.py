# SPDX-License-Identifier: BSD-2-Clause
"""A Debian 13 with our package, and with the Python part of a later Ganeti over that of its 3.1.

What is generated when Ganeti is built stays that of 3.1, and so do its daemons in Haskell (luxid, wconfd):
the version says 3.1, too. None of Ganeti's code is here; it is a directory that whoever runs the tests has.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.package.debian_chroot import Chroot

TREE = Path(__file__).parents[2]
SUITE = "trixie"
GANETI = "usr/share/ganeti/3.1/ganeti"

#: Made when Ganeti is built, so that no `lib/` has it.
GENERATED = ("_constants.py", "_generated_rpc.py", "_vcsversion.py", "opcodes.py", "rpc/stub")

#: Constants that master has and 3.1 has not, with the values of its `Constants.hs`.
CONSTANTS = {
    "MAX_VIRTIO_NET_QUEUES": 32,
    "NIC_ACTION_DOWN": "down",
    "NIC_ACTION_UP": "up",
    "NIC_MODE_EXT": "ext",
    "RBD_USER_ID": "user-id",
    "RPC_MAX_CONCURRENT_CONNECTIONS": 30,
}


def install(chroot: Chroot, deb: Path) -> None:
    """Installs our package, and copies this tree to /tree for its tests."""
    chroot.run("dpkg", "--install", chroot.put(deb))
    chroot.put_tree(TREE, "/tree")


def lay_over(chroot: Chroot, lib: Path) -> list[str]:
    """Puts a later Ganeti's `lib/` in the place of 3.1's; returns the constants that had to be added."""
    ganeti = chroot.root / GANETI
    before = ganeti.with_name("ganeti-3.1")
    shutil.move(ganeti, before)  # which an overlay cannot rename
    shutil.copytree(lib, ganeti, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "*.in*", "build"))
    for name in GENERATED:
        if (before / name).is_dir():
            shutil.copytree(before / name, ganeti / name, dirs_exist_ok=True)
        else:
            shutil.copy(before / name, ganeti / name)
    shutil.rmtree(before)
    known = (ganeti / "_constants.py").read_text()
    used = "".join(path.read_text() for path in ganeti.rglob("*.py") if path.name != "_constants.py")
    missing = [name for name in CONSTANTS if f"\n{name} =" not in known and f"constants.{name}" in used]
    with (ganeti / "_constants.py").open("a") as stream:
        stream.writelines(f"{name} = {CONSTANTS[name]!r}\n" for name in missing)
    return missing
