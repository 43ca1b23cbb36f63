# SPDX-License-Identifier: BSD-2-Clause
"""Locking the memory of the node daemon's children without copying it.

Ganeti locks its node daemon into memory, so that it answers when the node has none left. A lock is
not inherited by a child, so each child locks itself anew, with the ``mlockall`` of its parent: that
makes present whatever could be touched, and so copies all that the parent may write, 28 MB each
time (``facts.md``, "The node daemon's memory"). A child needs a seventh of it.

With ``MCL_ONFAULT`` (Linux 4.4 and later) a page is locked from the moment at which it is there.
What a child has not touched it shares with its parent, where it is locked and stays; what it writes
to becomes a page of its own, and that is locked at once. So nothing of either can be paged out, and
a node that is short of memory has to find 4 MB for a call instead of 28.
"""

from __future__ import annotations

import ctypes
import logging
import os
from typing import Any

from ganeti import utils
from ganeti.http import server

# Of <sys/mman.h>, on all of Debian's machines but ppc64el and sparc64; there the call below fails
# with EINVAL, as on an older kernel.
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4

# Looked up once, in the parent.
_LIBC = ctypes.CDLL(None, use_errno=True)


def lock_on_fault() -> None:
    """Lock each page of this process that is there, and any other as soon as it is.

    Raises OSError if that cannot be had.
    """
    if _LIBC.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


class RequestExecutor(server.HttpServerRequestExecutor):  # type: ignore[misc]
    """Serves one request in a child of the daemon, locked as it goes along."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        try:
            lock_on_fault()
        except OSError as err:
            logging.debug("No lock on fault, all memory is locked at once: %s", err)
            utils.Mlockall()
        super().__init__(*args, **kwargs)
