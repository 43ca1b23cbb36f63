# SPDX-License-Identifier: BSD-2-Clause
"""Reading a file that nobody but root, or who else is named, can have written."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection

from ganeti_ext.errors import UnsafeFile

#: The largest file that is read, in bytes: settings are far smaller.
MAX_SIZE = 64 * 1024


def read_bytes(path: str, size: int, *, owners: Collection[int] = (0,), private: bool = False) -> bytes:
    """Returns at most `size` bytes of a regular file of one of `owners` (user ids) that no other may write.

    A `private` file is not for everybody to read, either. Raises FileNotFoundError, another OSError, or
    UnsafeFile, which says how to mend it.
    """
    # Without O_NONBLOCK a fifo of that name would hold the daemon.
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise UnsafeFile(f"{path} is not a regular file")
        if found.st_uid not in owners:
            raise UnsafeFile(f"{path} must belong to root: chown root {path}")
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise UnsafeFile(f"{path} may be written by others: chmod go-w {path}")
        if private and found.st_mode & stat.S_IRWXO:
            raise UnsafeFile(f"{path} may be read by others: chmod o= {path}")
        with open(file, "rb", closefd=False) as stream:
            return stream.read(size)
    finally:
        os.close(file)


def read(path: str, *, owner: int = 0) -> str:
    """The same of a text of at most MAX_SIZE bytes, all of it."""
    data = read_bytes(path, MAX_SIZE + 1, owners=(owner,))
    if len(data) > MAX_SIZE:
        raise UnsafeFile(f"{path} has more than {MAX_SIZE // 1024} KiB")
    try:
        return data.decode()
    except UnicodeDecodeError as err:
        line = data.count(b"\n", 0, err.start) + 1
        raise UnsafeFile(f"{path} line {line} is not UTF-8") from None
