# SPDX-License-Identifier: BSD-2-Clause
"""Which records `gnt-ext audit` shows."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ganeti import errors

from ganeti_ext.cli import trail
from ganeti_ext.rapi.audit import Record

START = 1_800_000_000.0


def record(number: int, **settings: Any) -> str:
    one = Record("POST", f"/2/{number}", "192.0.2.9")
    for key, value in {"user": "joe", "decision": "allow", "status": 200, **settings}.items():
        setattr(one, key, value)
    return one.line(START + number).decode()


def paths(found: Any) -> list[str]:
    return [one["path"] for one in found]


def test_rotated_files_are_read_in_their_order(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_text(record(5) + '{"time": "cut\n' + "[]\n" + record(6), encoding="ascii")
    (tmp_path / "audit.log.1").write_text(record(4), encoding="ascii")
    for number in (2, 10):
        with gzip.open(tmp_path / f"audit.log.{number}.gz", "wt") as file:
            file.write(record(12 - number))
    (tmp_path / "audit.log.old").write_text(record(99), encoding="ascii")
    assert paths(trail.records(path=str(log))) == ["/2/2", "/2/10", "/2/4", "/2/5", "/2/6"]
    os.utime(tmp_path / "audit.log.10.gz", (START - 9, START - 9))
    os.utime(tmp_path / "audit.log.2.gz", (START + 10, START + 10))
    since = trail.start_of("2s", START + 6)
    assert paths(trail.records(since, str(log)))[0] == "/2/10"
    assert paths(trail.records(path=str(tmp_path / "none"))) == []


def test_what_is_asked_for() -> None:
    lines = [
        record(1),
        record(2, user="ann"),
        record(3, decision="deny", status=404),
        record(4, user="ann", decision="deny", status=403),
    ]

    def found(**settings: Any) -> list[str]:
        opts = SimpleNamespace(**{"user": None, "denied": False, **settings})
        return paths(trail.select(trail.parsed(lines), settings.pop("since", ""), opts))

    assert found() == ["/2/1", "/2/2", "/2/3", "/2/4"]
    assert found(user="ann") == ["/2/2", "/2/4"]
    assert found(denied=True) == ["/2/3", "/2/4"]
    assert found(denied=True, user="joe") == ["/2/3"]
    opts = SimpleNamespace(user=None, denied=False)
    since = trail.start_of("2", START + 4)
    assert paths(trail.select(trail.parsed(lines), since, opts)) == ["/2/2", "/2/3", "/2/4"]


@pytest.mark.parametrize(
    ("words", "moment"),
    [
        ("60", "2027-01-15T07:59:00.000Z"),
        ("2h", "2027-01-15T06:00:00.000Z"),
        ("1d", "2027-01-14T08:00:00.000Z"),
        ("2026-12-31T23:59:59Z", "2026-12-31T23:59:59.000Z"),
        ("2026-12-31T23:59:59+02:00", "2026-12-31T21:59:59.000Z"),
    ],
)
def test_since(words: str, moment: str) -> None:
    assert trail.start_of(words, START) == moment


def test_since_in_the_machines_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Etc/GMT-3")
    time.tzset()
    try:
        assert trail.start_of("2026-12-31", START) == "2026-12-30T21:00:00.000Z"
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("words", ["", "x", "h", "yesterday", "2026-13-01"])
def test_no_time(words: str) -> None:
    with pytest.raises(errors.OpPrereqError):
        trail.start_of(words, START)


def test_following_through_a_rotation(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_text("old\n", encoding="ascii")
    lines = trail.followed(str(log), 0.01)
    seen: list[str] = []
    thread = threading.Thread(target=lambda: seen.extend(itertools.islice((one for one in lines if one), 4)))
    thread.start()

    time.sleep(0.1)
    with log.open("a", encoding="ascii") as file:
        file.write("one\ntw")
        file.flush()
        time.sleep(0.05)
        file.write("o\n")
    log.rename(tmp_path / "audit.log.1")
    with (tmp_path / "audit.log.1").open("a", encoding="ascii") as file:
        file.write("three\n")
    log.write_text("four\n", encoding="ascii")
    thread.join(10)
    assert seen == ["one", "two", "three", "four"]


def test_a_record_in_a_line_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    one = json.loads(record(1, user="joe\n\x1b[2J", reason="outside", decision="deny", jobs=[7, 8]))
    trail.show(one, False)
    out = capsys.readouterr().out
    assert out.count("\n") == 1 and "\x1b" not in out
    assert out.endswith(" deny 200 joe\\n\\x1b[2J@192.0.2.9 POST /2/1 job 7, 8: outside\n")
    trail.show(one, True)
    assert json.loads(capsys.readouterr().out) == one
    trail.show({}, False)
    trail.show({"jobs": 7, "reason": None, "path": ["x"]}, False)
