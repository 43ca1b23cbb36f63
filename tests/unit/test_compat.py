# SPDX-License-Identifier: BSD-2-Clause
"""The right Ganeti is found, of a release that the patches know."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from ganeti import asyncnotifier, constants, errors

from ganeti_ext import compat
from ganeti_ext.errors import GanetiMissing, StartupError


@pytest.fixture
def search_path(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    path = list(sys.path)
    monkeypatch.setattr(sys, "path", path)
    return path


def make_ganeti(directory: Path) -> Path:
    (directory / "ganeti").mkdir(parents=True)
    (directory / "ganeti" / "__init__.py").write_text("")
    return directory


def test_the_real_one_comes_first(tmp_path: Path, search_path: list[str]) -> None:
    compat.put_ganeti_first(str(make_ganeti(tmp_path / "3.0")))
    assert search_path[0] == str(tmp_path / "3.0")


def test_its_links_are_resolved_once(tmp_path: Path, search_path: list[str]) -> None:
    make_ganeti(tmp_path / "3.0")
    (tmp_path / "default").symlink_to("3.0")
    compat.put_ganeti_first(str(tmp_path / "default"))
    assert search_path[0] == str(tmp_path / "3.0")


@pytest.mark.parametrize("there", [False, True])
def test_a_missing_one_is_told_in_one_line(tmp_path: Path, search_path: list[str], there: bool) -> None:
    before = list(search_path)
    if there:
        (tmp_path / "default" / "ganeti").mkdir(parents=True)  # a directory, and nothing in it
    with pytest.raises(GanetiMissing, match="Ganeti is not installed") as caught:
        compat.put_ganeti_first(str(tmp_path / "default"))
    assert "\n" not in str(caught.value)
    assert search_path == before


def test_the_tests_themselves_run_with_the_real_one() -> None:
    assert constants.__file__.startswith("/usr/share/ganeti/")


@pytest.mark.parametrize("release", [(3, 0), (3, 1)])
def test_a_known_release(monkeypatch: pytest.MonkeyPatch, release: tuple[int, int]) -> None:
    monkeypatch.setattr(constants, "VERSION_MAJOR", release[0])
    monkeypatch.setattr(constants, "VERSION_MINOR", release[1])
    compat.check_release()


@pytest.mark.parametrize("release", [(2, 16), (3, 2), (4, 0), (0, 0)])
def test_another_release(monkeypatch: pytest.MonkeyPatch, release: tuple[int, int]) -> None:
    monkeypatch.setattr(constants, "VERSION_MAJOR", release[0])
    monkeypatch.setattr(constants, "VERSION_MINOR", release[1])
    monkeypatch.setattr(constants, "RELEASE_VERSION", "9.9.9")
    with pytest.raises(StartupError, match=r"9\.9\.9.*3\.0, 3\.1.*newer") as caught:
        compat.check_release()
    assert "\n" not in str(caught.value)


def test_a_watch_calls_for_its_own_file_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    notified: list[Any] = []
    monkeypatch.setattr(
        asyncnotifier, "AsyncNotifier", lambda manager, default_proc_fun: notified.append(default_proc_fun)
    )
    calls: list[int] = []
    compat.watch_file(str(tmp_path / "policy.yaml"), lambda: calls.append(1))
    (watcher,) = notified
    for name in ("policy.yaml", "policy.yaml~", "other", None, "x/policy.yaml"):
        watcher.process_default(type("Event", (), {"name": name}))
    watcher.process_default(type("Event", (), {}))
    assert calls == [1]


def test_a_directory_that_is_not_there_cannot_be_watched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(asyncnotifier, "AsyncNotifier", lambda *_, **__: None)
    with pytest.raises(errors.InotifyError):
        compat.watch_file(str(tmp_path / "none" / "policy.yaml"), lambda: None)
