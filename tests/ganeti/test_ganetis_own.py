# SPDX-License-Identifier: BSD-2-Clause
"""Ganeti's own unit tests pass with our patches, as many of them as without."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.ganeti.run_patched import TESTS

RUNNER = Path(__file__).with_name("run_patched.py")
ROOT = Path(__file__).parents[2]

#: Files of tests of what we patch, and how many tests of theirs 3.0.2 has.
FILES = {
    "ganeti.server.rapi_unittest.py": 14,
    "ganeti.rapi.baserlib_unittest.py": 13,
    "ganeti.rapi.client_unittest.py": 119,
    "ganeti.rapi.resources_unittest.py": 1,
    "ganeti.rapi.rlib2_unittest.py": 80,
    "ganeti.rapi.testutils_unittest.py": 23,
    "ganeti.http_unittest.py": 33,
    "ganeti.backend_unittest.py": 97,
}


class Outcome(NamedTuple):
    """What a run of a file of tests came to."""

    exit_status: int
    tests: int
    verdict: str
    failed: tuple[str, ...]


def outcome(file: str, *options: str) -> Outcome:
    """Runs a file of tests in a process of its own."""
    result = subprocess.run(
        [sys.executable, str(RUNNER), *options, file],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    ran = re.search(r"^Ran (\d+) tests? in ", result.stderr, re.MULTILINE)
    assert ran is not None, result.stderr
    verdict = result.stderr.strip().splitlines()[-1]
    failed = re.findall(r"^(?:FAIL|ERROR): (.*)$", result.stderr, re.MULTILINE)
    return Outcome(result.returncode, int(ran.group(1)), verdict, tuple(sorted(failed)))


@pytest.mark.parametrize("file", FILES)
def test_the_outcome_is_that_of_stock(file: str) -> None:
    stock = outcome(file, "--stock")
    patched = outcome(file)
    assert patched == stock
    assert (stock.exit_status, stock.failed) == (0, ())
    assert stock.tests >= FILES[file]


def test_these_are_all_that_there_are() -> None:
    assert sum(FILES.values()) == 380
    there = {path.name for path in TESTS.glob("ganeti.rapi.*_unittest.py")}
    assert there <= FILES.keys()


def test_the_patched_run_is_patched() -> None:
    script = (
        "import sys, runpy; sys.argv = ['x', 'x'];"
        f"run = runpy.run_path({str(RUNNER)!r});"
        "import runpy; runpy.run_path = lambda *a, **k: None;"
        "run['main'](['ganeti.http_unittest.py']);"
        "from ganeti.server import noded, rapi;"
        "print(rapi.RemoteApiHandler.__module__, noded.NodeRequestHandler.__module__)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert result.stdout.split() == ["ganeti_ext.rapi.handler", "ganeti_ext.noded.handler"]
