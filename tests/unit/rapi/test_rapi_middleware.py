# SPDX-License-Identifier: BSD-2-Clause
"""A middleware is loaded only if nobody but root could have written it."""

from __future__ import annotations

import importlib
import os
import py_compile
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ganeti_ext.errors import StartupError
from ganeti_ext.rapi.middleware import check_only_root_writes, load_middleware

NOBODY = 65534
SOURCE = "from builtins import dict\n\n\nclass RemoteApiHandler(dict):\n    loaded_from = __file__\n"


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory that is root's, as all above it are, and on the module path."""
    path = Path(tempfile.mkdtemp(prefix="ganeti-ext-test-", dir="/var/lib"))
    path.chmod(0o755)
    monkeypatch.syspath_prepend(str(path))
    before = set(sys.modules)
    yield path
    for name in set(sys.modules) - before:
        del sys.modules[name]
    shutil.rmtree(path)
    importlib.invalidate_caches()


@pytest.fixture
def file(place: Path) -> Path:
    path = place / "ours_mw.py"
    path.write_text(SOURCE)
    path.chmod(0o644)
    return path


def load(name: object) -> type:
    return load_middleware(str(name), dict)


def test_a_file(file: Path) -> None:
    assert load(file).__name__ == "RemoteApiHandler"
    assert vars(load(file))["loaded_from"] == str(file)


def test_a_module(file: Path) -> None:
    assert issubclass(load("ours_mw"), dict)


def test_a_module_of_a_package(place: Path) -> None:
    package = place / "ours_pkg" / "inner"
    package.mkdir(parents=True)
    for path in (package.parent / "__init__.py", package / "__init__.py"):
        path.write_text("")
    (package / "mw.py").write_text(SOURCE)
    assert issubclass(load("ours_pkg.inner.mw"), dict)


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666, 0o777])
def test_a_file_that_others_may_write(file: Path, mode: int) -> None:
    file.chmod(mode)
    for name in (file, "ours_mw"):
        with pytest.raises(StartupError, match="may be written by others"):
            load(name)


@pytest.mark.parametrize("what", ["file", "directory"])
def test_what_is_not_roots(file: Path, what: str) -> None:
    os.chown(file if what == "file" else file.parent, NOBODY, NOBODY)
    for name in (file, "ours_mw"):
        with pytest.raises(StartupError, match="does not belong to root"):
            load(name)


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o1777])
def test_a_directory_that_others_may_write(file: Path, mode: int) -> None:
    file.parent.chmod(mode)
    for name in (file, "ours_mw"):
        with pytest.raises(StartupError, match="may be written by others"):
            load(name)


def test_a_directory_further_up(place: Path) -> None:
    inner = place / "open" / "inner"
    inner.mkdir(parents=True)
    (inner / "mw.py").write_text(SOURCE)
    inner.parent.chmod(0o777)
    with pytest.raises(StartupError, match="may be written by others"):
        load(inner / "mw.py")


@pytest.mark.parametrize("part", ["package", "file of the package"])
def test_a_package_that_others_may_write(place: Path, part: str) -> None:
    package = place / "ours_pkg"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('run')\n")
    (package / "mw.py").write_text(SOURCE)
    (package if part == "package" else package / "__init__.py").chmod(0o777)
    with pytest.raises(StartupError, match="may be written by others"):
        load("ours_pkg.mw")


def test_a_package_without_a_file_of_its_own(place: Path) -> None:
    (place / "ours_pkg").mkdir()
    (place / "ours_pkg" / "mw.py").write_text(SOURCE)
    with pytest.raises(StartupError, match="has no Python file that could be checked"):
        load("ours_pkg.mw")


# What Python would run in the file's stead.


def planted(file: Path) -> Path:
    """Byte code of another source, valid for the file."""
    evil = file.with_name("evil.py")
    evil.write_text("raise SystemExit('planted')\n")
    cached = Path(importlib.util.cache_from_source(str(file)))
    cached.parent.mkdir(exist_ok=True)
    py_compile.compile(
        str(evil), str(cached), doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
    )
    return cached


@pytest.mark.parametrize("by", ["path", "name"])
def test_byte_code_is_never_run(file: Path, by: str) -> None:
    """The source was looked at, so the source is run, whoever left what beside it."""
    cached = planted(file)
    os.chown(cached.parent, NOBODY, NOBODY)
    assert issubclass(load(file if by == "path" else "ours_mw"), dict)


def test_the_planted_byte_code_would_be_run_by_python(file: Path) -> None:
    planted(file)
    with pytest.raises(SystemExit, match="planted"):
        importlib.import_module("ours_mw")


def test_a_link_in_a_directory_of_others(file: Path) -> None:
    """What it leads to is root's; where it leads to is another's choice."""
    open_to_all = file.parent / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    link = open_to_all / "mw.py"
    link.symlink_to(file)
    with pytest.raises(StartupError, match=f"name the file itself, {file}"):
        load(link)


def test_a_directory_that_is_a_link(file: Path) -> None:
    link = file.parent / "linked"
    link.symlink_to(file.parent)
    with pytest.raises(StartupError, match=f"name the file itself, {file}"):
        load(link / file.name)


def test_a_file_named_as_a_module_that_is_there(file: Path) -> None:
    other = file.with_name("json.py")
    file.rename(other)
    assert issubclass(load(other), dict)
    assert sys.modules["json"].__name__ == "json"


# What does not load.


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def (", "SyntaxError"),
        ("import no_such_module_at_all", "ModuleNotFoundError"),
        ("raise ValueError('why')", "ValueError: why"),
        ("import sys\nsys.exit(0)", "SystemExit: 0"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("x = 1 / 0", "ZeroDivisionError"),
        ("\0", "fails to load"),
        ("", "has no class RemoteApiHandler derived from"),
        ("class RemoteApiHandler: pass", "has no class RemoteApiHandler derived from"),
        ("RemoteApiHandler = 5", "has no class RemoteApiHandler derived from"),
        ("RemoteApiHandler = dict()", "has no class RemoteApiHandler derived from"),
        ("class Other(dict): pass", "has no class RemoteApiHandler derived from"),
    ],
)
def test_what_is_broken_is_told(file: Path, source: str, reason: str) -> None:
    file.write_text(source)
    with pytest.raises(StartupError, match=reason) as caught:
        load(file)
    assert "ours_mw" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "no_such_module_at_all",
        "no.such.module",
        "/nonexistent/mw.py",
        "/etc",
        "/etc/passwd",
        "a b",
        ".",
        "..x",
        "/",
        "sys",
    ],
)
def test_what_is_missing_is_told(name: str) -> None:
    with pytest.raises(StartupError):
        load(name)


def test_a_module_below_one_that_is_no_package(file: Path) -> None:
    with pytest.raises(StartupError):
        load("ours_mw.inner")


def test_a_file_that_is_called_as_a_module_that_is_there(place: Path) -> None:
    path = place / "json.py"
    path.write_text(SOURCE)
    assert vars(load(path))["loaded_from"] == str(path)


# The check by itself.


def test_the_check_of_a_file_of_root() -> None:
    check_only_root_writes("/usr/bin/env")
    with pytest.raises(StartupError, match="does not belong"):
        check_only_root_writes("/usr/bin/env", owner=NOBODY)
