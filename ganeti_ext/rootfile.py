# SPDX-License-Identifier: BSD-2-Clause
"""Reading a settings file that nobody but root can have written."""

from __future__ import annotations

import os
import stat

from ganeti_ext.errors import UnsafeFile

#: The largest file that is read, in bytes: settings are far smaller.
MAX_SIZE = 64 * 1024


def read(path: str, *, owner: int = 0) -> str:
    """Returns the text of a regular file of the user `owner` that no other may write.

    Raises FileNotFoundError, another OSError, or UnsafeFile, which says how to mend it.
    """
    # Without O_NONBLOCK a fifo of that name would hold the daemon.
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise UnsafeFile(f"{path} is not a regular file")
        if found.st_uid != owner:
            raise UnsafeFile(f"{path} must belong to root: chown root {path}")
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise UnsafeFile(f"{path} may be written by others: chmod go-w {path}")
        data = os.read(file, MAX_SIZE + 1)
    finally:
        os.close(file)
    if len(data) > MAX_SIZE:
        raise UnsafeFile(f"{path} has more than {MAX_SIZE // 1024} KiB")
    try:
        return data.decode()
    except UnicodeDecodeError as err:
        line = data.count(b"\n", 0, err.start) + 1
        raise UnsafeFile(f"{path} line {line} is not UTF-8") from None
