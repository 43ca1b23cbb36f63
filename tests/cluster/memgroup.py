# SPDX-License-Identifier: BSD-2-Clause
"""A group of processes whose memory is limited, and one of them that fills it: a node that has none left."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator

#: Where the kernel has its memory controller (cgroup v1, which can let who finds no memory wait).
TOP = "/sys/fs/cgroup/memory"

MIB = 1024**2

#: Takes and locks memory until so much of the group is left. To give it back it is killed: unmapping may need some.
HOG = """
import mmap, ctypes, sys
usage, most = sys.argv[1], int(sys.argv[2])
libc = ctypes.CDLL(None)
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
MAP_LOCKED = 0x2000
while True:
    rest = (most - int(open(usage).read())) // 4096 * 4096
    if rest <= 0:
        break
    kind = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_LOCKED
    libc.mmap(None, min(rest, 1 << 20), mmap.PROT_READ | mmap.PROT_WRITE, kind, -1, 0)
print("full", flush=True)
sys.stdin.read()
"""


def available() -> bool:
    """Whether this machine can do it."""
    return os.access(f"{TOP}/memory.oom_control", os.W_OK)


class MemoryGroup:
    """`with MemoryGroup(256 * MIB) as group:` a memory cgroup of so many bytes.

    Whoever finds no memory in it waits until there is some again: nothing is killed.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._path = f"{TOP}/ganeti-ext-{secrets.token_hex(4)}"
        self._hog: subprocess.Popen[str] | None = None

    def __enter__(self) -> MemoryGroup:
        os.mkdir(self._path)
        self._write("memory.limit_in_bytes", str(self._limit))
        self._write("memory.oom_control", "1")
        return self

    def __exit__(self, *_: object) -> None:
        self.empty()
        deadline = time.monotonic() + 30
        while True:
            try:
                os.rmdir(self._path)
                return
            except OSError:  # a process is still there
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """What is started meanwhile belongs to the group."""
        self._write("cgroup.procs", str(os.getpid()))
        try:
            yield
        finally:
            with open(f"{TOP}/cgroup.procs", "w", encoding="ascii") as stream:
                stream.write(str(os.getpid()))

    def fill(self, free: int) -> None:
        """Take all of the group's memory but so many bytes, and all that can be had by dropping caches."""
        self.empty()
        self.reclaim()
        usage = f"{self._path}/memory.usage_in_bytes"
        with self.inside():
            self._hog = subprocess.Popen(
                [sys.executable, "-ISc", HOG, usage, str(self._limit - free)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self._hog.stdout is not None
        assert self._hog.stdout.readline() == "full\n"

    def empty(self) -> None:
        """Give it all back."""
        if self._hog is not None:
            self._hog.kill()
            self._hog.communicate()
            self._hog = None

    def reclaim(self) -> None:
        """Page out, drop, or write back whatever of the group the kernel can."""
        with contextlib.suppress(OSError):  # "busy": something is locked
            self._write("memory.force_empty", "0")

    def _write(self, file: str, text: str) -> None:
        with open(f"{self._path}/{file}", "w", encoding="ascii") as stream:
            stream.write(text)
