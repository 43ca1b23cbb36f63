# SPDX-License-Identifier: BSD-2-Clause
"""The benchmarks run, at a size at which their figures mean nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.bench import report
from tests.bench.__main__ import PARTS, main
from tests.cluster import vcluster


@pytest.mark.parametrize("part", PARTS)
def test_runs(part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if part != "decision" and (os.geteuid() != 0 or not os.path.exists(vcluster.DAEMON_UTIL)):
        pytest.skip("needs root and an installed Ganeti")
    assert main([part, "--tiny", "--json", str(tmp_path / "bench.json")]) == 0
    rows = json.loads((tmp_path / "bench.json").read_text())[part]["rows"]
    table = capsys.readouterr().out
    assert rows and all(row["what"] in table for row in rows)


def test_verdicts() -> None:
    def verdict(low: float, high: float) -> str:
        return report.row("", "", "", report.Interval((low + high) / 2, low, high), 2.0).verdict

    assert [verdict(1, 2), verdict(1, 3), verdict(2.1, 3)] == [report.MET, report.UNCLEAR, report.MISSED]


def test_the_rank_test_tells_a_shift_from_none() -> None:
    one = [float(number * 7 % 100) for number in range(200)]
    assert report.rank_test(one, one[::-1]) > 0.9
    assert report.rank_test(one, [value + 30 for value in one]) < 0.001


def test_an_interval_holds_its_estimate() -> None:
    found = report.bootstrap([1.0, 2.0, 3.0, 4.0, 5.0], [1.0, 1.1, 0.9], report.ratio)
    assert found.low <= found.value == 3.0 <= found.high
