# SPDX-License-Identifier: BSD-2-Clause
"""The benchmarks run, at a size at which their figures mean nothing."""

from __future__ import annotations

import html
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.bench import large, page, progress, report
from tests.bench.__main__ import PARTS, main
from tests.cluster import vcluster


@pytest.fixture(scope="module", autouse=True)
def shared() -> Iterator[None]:
    """One cluster for all parts that want many instances."""
    with large.sharing():
        yield


@pytest.mark.parametrize("part", PARTS)
def test_runs(part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if part != "decision" and (os.geteuid() != 0 or not os.path.exists(vcluster.DAEMON_UTIL)):
        pytest.skip("needs root and an installed Ganeti")
    assert main([part, "--tiny", "--json", str(tmp_path / "bench.json")]) == 0
    rows = json.loads((tmp_path / "bench.json").read_text())[part]["rows"]
    table, plots = capsys.readouterr().out, (tmp_path / "bench.html").read_text()
    assert rows and all(row["what"] in table for row in rows)
    assert all(html.escape(row["what"]) in plots for row in rows)


def test_verdicts() -> None:
    def one(low: float, high: float, at_least: bool = False) -> report.Row:
        return report.row("", "", "", report.Interval((low + high) / 2, low, high), 2.0, at_least=at_least)

    found = [one(1, 2), one(1, 3), one(2.1, 3)]
    assert [row.verdict for row in found] == [report.MET, report.UNCLEAR, report.MISSED]
    assert {row.bar for row in found} == {"≤ 2"}
    found = [one(2, 3, True), one(1, 3, True), one(1, 1.9, True)]
    assert [row.verdict for row in found] == [report.MET, report.UNCLEAR, report.MISSED]
    assert {row.bar for row in found} == {"≥ 2"}


def test_a_plot_shows_each_row_in_its_place() -> None:
    """And what lies beyond the scale as an arrow at its end."""
    estimates = [report.Interval(value, value - 0.1, value + 0.1) for value in (0.5, 1.0, 7.0, -3.0)]
    rows = [report.row(f"<row {value}>", "", "", one, 1.0) for value, one in enumerate(estimates)]
    rows.append(report.row("nothing at all", "", "", report.Interval(0, 0, 0), 0.0))
    rows.append(report.row("free", "", "", estimates[0]))
    drawing = ElementTree.fromstring(page.plot(rows))
    tag = "{http://www.w3.org/2000/svg}"
    points = [float(one.attrib["cx"]) for one in drawing.iter(f"{tag}circle")]
    assert len(points) == 4 and points[0] == points[3] < points[1] == points[2]
    assert sum(one.attrib["d"].endswith("z") for one in drawing.iter(f"{tag}path")) == 2
    texts = [one.text for one in drawing.iter(f"{tag}text")]
    assert all(row.what in texts for row in rows)


def test_the_page_needs_nothing_else() -> None:
    rows = [report.row("a <b>", "1 ms", "2 ms", report.Interval(0.5, 0.4, 0.6), 1.0, remark="&"), report.Row("c", "d")]
    text = page.page({"part": rows}, {"part": "quiet"})
    assert not re.search(r"<(script|link|img|iframe)|url\(|@import|src=", text)
    assert "a &lt;b&gt;" in text and "1 met, 0 MISSED, 0 unclear" in text


def test_the_estimate_follows_the_machine(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    bar = progress.Progress({"one": 60, "two": 60})
    bar.begin("one")
    now[0] = 120  # twice as slow as expected
    bar.begin("two")
    now[0] = 180
    bar.say("half of it", True)
    lines = capsys.readouterr().err.splitlines()
    assert "  0%, about 2.0 min left; one" in lines[0]
    assert " 50%, about 2.0 min left; two" in lines[1]
    assert " 75%, about 1.0 min left; two: half of it" in lines[2]
    now[0] = 420
    bar.say("still not", True)
    assert " 98%, about 0.3 min left; two: still not" in capsys.readouterr().err


def test_only_others_work_is_noise() -> None:
    """What was started after the counter was made is our own, with all its children."""
    ours = report.Noise()
    if "cannot be told" in str(ours):
        pytest.skip("no perf_event_open")
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'while True: pass'])"
    with subprocess.Popen([sys.executable, "-c", script], start_new_session=True) as busy:
        try:
            time.sleep(0.5)
            theirs = report.Noise()
            ours.start()
            time.sleep(1)
            assert theirs.share > ours.share + 0.02
        finally:
            os.killpg(busy.pid, signal.SIGKILL)


def test_the_rank_test_tells_a_shift_from_none() -> None:
    one = [float(number * 7 % 100) for number in range(200)]
    assert report.rank_test(one, one[::-1]) > 0.9
    assert report.rank_test(one, [value + 30 for value in one]) < 0.001


def test_an_interval_holds_its_estimate() -> None:
    found = report.bootstrap([1.0, 2.0, 3.0, 4.0, 5.0], [1.0, 1.1, 0.9], report.ratio)
    assert found.low <= found.value == 3.0 <= found.high
