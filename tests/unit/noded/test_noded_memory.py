# SPDX-License-Identifier: BSD-2-Clause
"""Tests of locking a child's memory where the kernel cannot do it our way; the rest is on a real node."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import ganeti
import pytest
from ganeti import utils
from ganeti.http import server

from ganeti_ext.noded import memory

PLACES = [str(Path(__file__).parents[3]), str(Path(ganeti.__file__).parents[1])]

LOCK = """
import mmap, re, sys
sys.path[:0] = sys.argv[1:]
from ganeti_ext.noded import memory
def locked():
    return int(re.search(r"VmLck:\\s+(\\d+)", open("/proc/self/status").read())[1])
memory.lock_on_fault()
before = locked()
area = mmap.mmap(-1, 1 << 26)
rollup = open("/proc/self/smaps_rollup").read()
print(before, locked() - before, re.search(r"Rss:\\s+(\\d+)", rollup)[1])
"""


def test_what_is_mapped_later_is_locked_and_not_made_present() -> None:
    found = subprocess.check_output([sys.executable, "-c", LOCK, *PLACES], text=True, cwd="/")
    before, more, present = map(int, found.split())
    assert before > 10_000
    assert more >= 1 << 16  # KiB: the whole of the new area
    assert present < 1 << 16


def test_where_the_kernel_has_no_such_lock_it_is_ganetis(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    monkeypatch.setattr(memory, "_MCL_ONFAULT", 0x40000)  # which no kernel knows: EINVAL, as by an old one
    monkeypatch.setattr(utils, "Mlockall", lambda: calls.append("all"))
    monkeypatch.setattr(server.HttpServerRequestExecutor, "__init__", lambda _, *given: calls.append(given))
    with pytest.raises(OSError):
        memory.lock_on_fault()
    memory.RequestExecutor(1, 2)
    assert calls == ["all", (1, 2)]
