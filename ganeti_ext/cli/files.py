# SPDX-License-Identifier: BSD-2-Clause
"""Replacing a file at once: it is the old or the new one, whole, whatever happens on the way."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from typing import NamedTuple

from ganeti import utils

from ganeti_ext.cli.state import StateError

#: Seconds to wait for somebody else's change.
_PATIENCE = 10.0


class Owner(NamedTuple):
    """Whose a file is, and who may do what with it: user id, group id, mode."""

    uid: int
    gid: int
    mode: int


def replace(path: str, data: bytes, owner: Owner) -> None:
    """Puts a new file in the place of the old one. Raises OSError: then the old one is as it was."""

    def prepare(descriptor: int) -> None:
        # By the descriptor: the daemon's user may put a link into its directory.
        os.fchown(descriptor, owner.uid, owner.gid)
        os.fchmod(descriptor, owner.mode)

    utils.WriteFile(path, data=data, prewrite=prepare)


@contextlib.contextmanager
def locked(path: str, what: str, patience: float = _PATIENCE) -> Iterator[None]:
    """Keeps other changes of a file by gnt-ext out: a lock on its directory, which leaves nothing behind.

    Raises StateError if somebody else has it for longer than `patience` seconds; `what` is what he
    is changing.
    """
    descriptor = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StateError(f"somebody else is changing {what}: try again") from None
                time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)
