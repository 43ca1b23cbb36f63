# SPDX-License-Identifier: BSD-2-Clause
"""The node daemon is locked into memory: it gets no module but ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import ganeti

CODE = """
import sys
sys.path[:0] = sys.argv[1:]
import ganeti.server.noded
before = set(sys.modules)
import ganeti_ext.noded.handler
print(*sorted(set(sys.modules) - before))
"""


def test_nothing_is_imported_that_the_daemon_has_not() -> None:
    places = [str(Path(__file__).parents[3]), str(Path(ganeti.__file__).parents[1])]
    new = subprocess.check_output([sys.executable, "-c", CODE, *places], text=True, cwd="/").split()
    assert "ganeti_ext.noded.run" in new
    assert [name for name in new if name.split(".")[0] != "ganeti_ext"] == []
