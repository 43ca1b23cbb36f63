# SPDX-License-Identifier: BSD-2-Clause
"""The matrix's own logic: what its table says, its exit status, whose turn it is, and that nothing is left of it."""

from __future__ import annotations

import contextlib
import datetime
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.matrix import __main__ as matrix
from tests.matrix.table import FAILED, NOT_HAD, NOT_RUN, OK, Case, Cell, all_well, of_tests, picked, read_tests, render
from tests.waiting import wait_for

SUITE = """
import pytest
def test_upgrade(): pass
@pytest.mark.skip("no such thing here")
def test_upgrade_by_hand(): pass
def test_purge(): assert 1 == 2, "purged"
@pytest.mark.skip("no such thing here")
def test_other(): pass
"""

#: Makes a copy of a system, starts something in it, says where it is, and does nothing until it is killed.
CALLER = """
import subprocess, sys, time
from pathlib import Path
from tests.package.debian_chroot import Chroot
with Chroot(Path(sys.argv[1])) as chroot:
    chroot.sh("mount -t tmpfs killed-test /mnt")
    subprocess.Popen(chroot.command("sleep", "1000"))
    print(chroot.root, flush=True)
    time.sleep(1000)
"""


@pytest.fixture(name="report")
def _report(tmp_path: Path) -> Path:
    """What pytest says of SUITE."""
    (tmp_path / "test_suite.py").write_text(SUITE)
    command = [sys.executable, "-m", "pytest", "-q", "--junit-xml=report.xml", "test_suite.py"]
    subprocess.run(command, cwd=tmp_path, check=False, capture_output=True)
    return tmp_path / "report.xml"


@pytest.fixture(name="release")
def _release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> matrix.Release:
    monkeypatch.setattr(matrix, "LOGS", tmp_path / "logs")
    return matrix.Release("bookworm", few=False)


def test_cells_of_tests(report: Path) -> None:
    tests = read_tests(report)
    assert [test.outcome for test in tests] == ["passed", "skipped", "failed", "skipped"]
    everything = of_tests(tests)
    assert everything.outcome == FAILED
    assert [note for note in everything.notes if "test_purge" in note and "purged" in note]
    upgrade = picked(tests, "upgrade")
    assert upgrade.outcome == OK
    assert upgrade.notes == [f"{NOT_HAD}: 1 of 2 tests: no such thing here"]
    assert picked(tests, "other").outcome == NOT_HAD
    assert picked(tests, "purge").outcome == FAILED
    assert picked(tests, "suite").outcome == FAILED  # the file's name is not a test's; "ok" of nothing is none


def test_the_package_has_tests_for_the_columns_that_are_picked() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "tests/package"]
    listed = subprocess.run(command, cwd=matrix.TREE, check=True, capture_output=True, text=True).stdout
    names = [line for line in listed.splitlines() if "::" in line]
    cases = [Case(name, "passed", 1, "") for name in names]
    for pattern in matrix.PICKED.values():
        cell = picked(cases, pattern)
        assert cell.outcome == OK and cell.seconds < len(names)


def test_the_table_and_whether_all_is_well() -> None:
    columns = ("build", "unit")
    good = {"build": Cell(OK, 61), "unit": Cell(NOT_HAD, 2, ["not to be had: 1 of 1 tests: why"])}
    bad = {"build": Cell(FAILED, 0.2, ["no such file"])}
    text = render(columns, {"trixie": good, "sid": bad}).splitlines()
    assert text[0].split() == ["build", "unit"]
    assert text[1].split() == ["trixie", "ok", "1:01", *NOT_HAD.split(), "0:02"]
    assert text[2].split() == ["sid", "FAILED", "0:00", *NOT_RUN.split()]
    assert text[3:] == ["trixie, unit: not to be had: 1 of 1 tests: why", "sid, build: no such file"]
    assert all_well(columns, [good])
    assert not all_well(columns, [good, bad])
    assert not all_well(columns, [{"build": Cell(OK)}])


def test_each_has_its_turn() -> None:
    start = datetime.date(2026, 12, 30)
    days = [matrix.in_turn(start + datetime.timedelta(days)) for days in range(6)]
    assert {order[0] for order in days[:3]} == {"bullseye", "trixie", "sid"}
    assert days[:3] == days[3:]
    for order in days:
        assert sorted(order) == ["bullseye", "sid", "trixie"]


def test_a_step_and_its_log(release: matrix.Release, report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(script: str, tests: Path | None = None) -> Cell:
        well = release._step("step", ["sh", "-c", script], dict(os.environ), tests)
        assert well == (release.cells["step"].outcome == OK)
        return release.cells["step"]

    log = matrix.LOGS / "bookworm" / "step.log"
    assert step("echo done").outcome == OK
    assert log.read_text() == "done\n"
    assert step("echo first; echo last >&2; exit 3")[::2] == (FAILED, ["last"])
    assert log.read_text() == "first\nlast\n"
    assert step("echo a; echo E: wrong; echo end; exit 3")[::2] == (FAILED, ["E: wrong"])
    failed = step("exit 1", report)
    assert failed.outcome == FAILED and "test_purge" in failed.notes[0]
    assert step("echo crashed; exit 2", report.with_name("missing.xml"))[::2] == (FAILED, ["crashed"])
    monkeypatch.setattr(matrix, "TIME_LIMIT", 0.1)
    assert step("sleep 100")[::2] == (FAILED, ["ended after 0.1 s"])


def test_a_release_that_cannot_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def cannot(suite: str) -> Path:
        raise subprocess.CalledProcessError(1, ["debootstrap", suite])

    monkeypatch.setattr(matrix, "LOGS", tmp_path)
    monkeypatch.setattr(matrix.debian_chroot, "tools_system", cannot)
    for options in (["sid"], ["--in-turn", "--few"]):
        assert matrix.main(options) == 1
        told = capsys.readouterr().out
        assert "sid, system: cannot be had: " in told and "debootstrap" in told
    with pytest.raises(SystemExit, match="2"):
        matrix.main(["potato"])


def test_nothing_is_left_of_an_interrupted_run() -> None:
    base = matrix.debian_chroot.base_system("bookworm")
    command = [sys.executable, "-c", CALLER, str(base)]
    caller = subprocess.Popen(command, cwd=matrix.TREE, stdout=subprocess.PIPE, text=True)
    try:
        assert caller.stdout
        first = caller.stdout.readline().split("/")[2]
        inside = os.readlink(f"/proc/{first}/ns/pid")
        assert "killed-test" in Path(f"/proc/{first}/mountinfo").read_text()
        wait_for(lambda: len(processes(inside)) == 2, 60)
    finally:
        caller.kill()
        caller.communicate()
    wait_for(lambda: not processes(inside), 60)
    assert "killed-test" not in Path("/proc/self/mountinfo").read_text()


def processes(namespace: str) -> list[str]:
    """The processes in a process namespace."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # some have just ended
            if os.readlink(path / "ns/pid") == namespace:
                found.append(path.name)
    return found
