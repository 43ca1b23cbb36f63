# SPDX-License-Identifier: BSD-2-Clause
"""Failed sign-ins of each address, counted by all children or threads of the daemon together."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

#: So many failures at once, …
ALLOWANCE = 10
#: … then one in so many seconds.
INTERVAL = 6.0

#: 4096 entries of 16 bytes. An address has its place in one row only, which is what is locked.
_ROWS = 512
_ENTRIES_PER_ROW = 8
_ENTRY = struct.Struct("=8sd")
_ROW_SIZE = _ENTRIES_PER_ROW * _ENTRY.size

#: Behind the rows: whether anybody has ever failed. While nobody has, nothing needs to be looked up.
_NOBODY, _SOMEBODY = b"\0", b"\1"

_V4_MAPPED = bytes(10) + b"\xff\xff"


class Throttle:
    """A table of a fixed size in memory that is shared with every child forked later.

    An entry is the time at which the debt of an address is paid off: a failure adds INTERVAL
    to it, and time alone pays (the generic cell rate algorithm). A right password pays
    nothing, or whoever has one account could guess at another for ever.

    Where a row is full, the entry that is paid off first gives way. The hash has a key of
    this process, so that nobody can choose addresses that push another's entry out.

    The lock is the kernel's own (fcntl(2)), which ends with the process that holds it; it keeps no thread
    of the same process out, so that there is one of Python's before it.
    """

    def __init__(
        self,
        *,
        allowance: int = ALLOWANCE,
        interval: float = INTERVAL,
        _clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`interval` in seconds. `_clock` must be the same for all processes. Raises OSError."""
        self._tolerance = (allowance - 1) * interval
        self._interval = interval
        self._clock = _clock
        self._key = secrets.token_bytes(16)
        self._file = os.memfd_create("ganeti-ext-throttle", os.MFD_CLOEXEC)
        os.ftruncate(self._file, _ROWS * _ROW_SIZE + 1)
        self._threads = threading.Lock()

    def close(self) -> None:
        """Gives the memory back."""
        os.close(self._file)

    def wait(self, address: str) -> float:
        """For how many seconds an IP address may not try again; 0 if it may."""
        if os.pread(self._file, 1, _ROWS * _ROW_SIZE) == _NOBODY:
            return 0.0
        name, offset = self._place(address)
        with self._locked(offset):
            return self._wait(dict(self._row(offset)).get(name, 0.0))

    def failed(self, address: str) -> float:
        """Counts a failure of an IP address; returns what `wait` will."""
        os.pwrite(self._file, _SOMEBODY, _ROWS * _ROW_SIZE)
        name, offset = self._place(address)
        with self._locked(offset):
            row = self._row(offset)
            names = [other for other, _ in row]
            if name in names:
                position = names.index(name)
                before = row[position][1]
            else:
                position = min(range(len(row)), key=lambda index: row[index][1])
                before = 0.0
            paid_off = max(before, self._clock()) + self._interval
            os.pwrite(self._file, _ENTRY.pack(name, paid_off), offset + position * _ENTRY.size)
            return self._wait(paid_off)

    def _wait(self, paid_off: float) -> float:
        return max(paid_off - self._tolerance - self._clock(), 0.0)

    def _place(self, address: str) -> tuple[bytes, int]:
        """The name of an address in the table, and where its row starts."""
        digest = hashlib.blake2b(network_of(address), key=self._key, digest_size=16).digest()
        return digest[:8], int.from_bytes(digest[8:], "big") % _ROWS * _ROW_SIZE

    def _row(self, offset: int) -> list[tuple[bytes, float]]:
        return list(_ENTRY.iter_unpack(os.pread(self._file, _ROW_SIZE, offset)))

    @contextlib.contextmanager
    def _locked(self, offset: int) -> Iterator[None]:
        with self._threads:
            fcntl.lockf(self._file, fcntl.LOCK_EX, _ROW_SIZE, offset)
            try:
                yield
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN, _ROW_SIZE, offset)


def network_of(address: str) -> bytes:
    """What is counted as one: an IPv4 address, or the /64 that an IPv6 address is in."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            packed = socket.inet_pton(family, address.partition("%")[0])
        except (OSError, ValueError):
            continue
        if packed.startswith(_V4_MAPPED):
            return packed[12:]
        return packed[:8]
    return b"no address"
