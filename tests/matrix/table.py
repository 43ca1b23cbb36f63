# SPDX-License-Identifier: BSD-2-Clause
"""What came of the steps in each release, as a table, and whether all of it was well."""

from __future__ import annotations

import collections
import re
import xml.etree.ElementTree
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

OK, FAILED, NOT_HAD, NOT_RUN = "ok", "FAILED", "not to be had", "not run"


class Cell(NamedTuple):
    """What came of one step: `notes` say which lines failed, or what could not be had and why."""

    outcome: str
    seconds: float = 0
    notes: Sequence[str] = ()

    def with_note(self, note: str) -> Cell:
        """The cell, which says one thing more."""
        return self._replace(notes=[*self.notes, note])

    def __str__(self) -> str:
        minutes, seconds = divmod(round(self.seconds), 60)
        return self.outcome + (f" {minutes}:{seconds:02}" if self.seconds else "")


class Case(NamedTuple):
    """A test of pytest: `outcome` is "passed", "skipped" or "failed", `reason` what it said."""

    name: str
    outcome: str
    seconds: float
    reason: str


def read_tests(report: Path) -> list[Case]:
    """The tests in a file of `pytest --junit-xml`. Raises OSError, xml.etree.ElementTree.ParseError."""
    tests = []
    for case in xml.etree.ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname', '').replace('.', '/')}::{case.get('name')}"
        failed = [*case.iter("failure"), *case.iter("error")]
        skipped = [*case.iter("skipped")]
        outcome = "failed" if failed else "skipped" if skipped else "passed"
        message = next((element.get("message", "") for element in [*failed, *skipped]), "")
        reason = (message.splitlines() or [""])[0][:160]
        tests.append(Case(name, outcome, float(case.get("time", "0")), reason))
    return tests


def of_tests(tests: Iterable[Case]) -> Cell:
    """A cell that sums up tests. None at all is a failure: it would say "ok" of nothing."""
    tests = list(tests)
    seconds = sum(test.seconds for test in tests)
    failed = [f"{test.name}: {test.reason}" for test in tests if test.outcome == "failed"]
    reasons = collections.Counter(test.reason for test in tests if test.outcome == "skipped")
    skipped = [f"{NOT_HAD}: {number} of {len(tests)} tests: {why}" for why, number in reasons.items()]
    if not tests:
        return Cell(FAILED, seconds, ["no test was run"])
    if failed:
        return Cell(FAILED, seconds, failed + skipped)
    return Cell(NOT_HAD if sum(reasons.values()) == len(tests) else OK, seconds, skipped)


def picked(tests: Iterable[Case], pattern: str) -> Cell:
    """A cell for those tests alone in whose names the pattern is found."""
    return of_tests(test for test in tests if re.search(pattern, test.name.rpartition("::")[2]))


def render(columns: Sequence[str], rows: Mapping[str, Mapping[str, Cell]]) -> str:
    """The table, release × column, and below it the notes."""
    lines = [["", *columns]]
    for release, cells in rows.items():
        lines.append([release, *(str(cells.get(column, Cell(NOT_RUN))) for column in columns)])
    widths = [max(map(len, column)) for column in zip(*lines)]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]
    for release, cells in rows.items():
        text += [f"{release}, {column}: {note}" for column, cell in cells.items() for note in cell.notes]
    return "\n".join(text)


def all_well(columns: Sequence[str], rows: Iterable[Mapping[str, Cell]]) -> bool:
    """Whether nothing failed and nothing was left out."""
    return all(cells.get(column, Cell(NOT_RUN)).outcome in (OK, NOT_HAD) for cells in rows for column in columns)
