# SPDX-License-Identifier: BSD-2-Clause
"""Files that are root's alone, and the switches in `/etc/default/ganeti-ext`."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest

from ganeti_ext import rootfile, switches
from ganeti_ext.entrypoint import noded_patches, rapi_patches
from ganeti_ext.errors import UnsafeFile

ROOT = Path(__file__).parents[2]
NAME, OTHER = switches.NAMES[:2]


# --- files that are root's alone


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("text: \N{EURO SIGN}\n", encoding="utf-8")
    path.chmod(0o644)
    return path


@pytest.mark.parametrize("mode", [0o644, 0o600, 0o400, 0o755, 0o000])
def test_read(file: Path, mode: int) -> None:
    file.chmod(mode)
    assert rootfile.read(str(file)) == "text: \N{EURO SIGN}\n"


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666, 0o622])
def test_written_by_others(file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(UnsafeFile, match=f"chmod go-w {file}$"):
        rootfile.read(str(file))


def test_of_another_owner(file: Path) -> None:
    os.chown(file, 65534, 0)
    with pytest.raises(UnsafeFile, match=f"chown root {file}$"):
        rootfile.read(str(file))
    assert rootfile.read(str(file), owner=65534)


def test_no_regular_file(tmp_path: Path, file: Path) -> None:
    (tmp_path / "link").symlink_to(file)
    with pytest.raises(OSError):
        rootfile.read(str(tmp_path / "link"))
    os.mkfifo(tmp_path / "fifo")  # which would hold whoever waits for its writer
    with pytest.raises(UnsafeFile, match="is not a regular file"):
        rootfile.read(str(tmp_path / "fifo"))
    with pytest.raises(UnsafeFile, match="is not a regular file"):
        rootfile.read(str(tmp_path))
    with pytest.raises(FileNotFoundError):
        rootfile.read(str(tmp_path / "missing"))


def test_too_large(file: Path) -> None:
    file.write_bytes(b"x" * rootfile.MAX_SIZE)
    assert len(rootfile.read(str(file))) == rootfile.MAX_SIZE
    file.write_bytes(b"x" * (rootfile.MAX_SIZE + 1))
    with pytest.raises(UnsafeFile, match="more than 64 KiB"):
        rootfile.read(str(file))


def test_no_text(file: Path) -> None:
    file.write_bytes(b"one\ntwo\nthr\xff\n")
    with pytest.raises(UnsafeFile, match="line 3 is not UTF-8"):
        rootfile.read(str(file))


# --- the switches


def off(path: Path, text: str) -> tuple[list[str], list[str]]:
    """What a file switches off, and what is said of it."""
    path.write_text(text)
    found = switches.Switches(str(path))
    return [name for name in switches.NAMES if found.switched_off(name)], found.problems


def test_without_a_file_all_is_on(tmp_path: Path) -> None:
    found = switches.Switches(str(tmp_path / "missing"))
    assert not any(map(found.switched_off, switches.NAMES))
    assert found.problems == []


@pytest.mark.parametrize(
    "text, expected",
    [
        ("", []),
        (f"{NAME}=no\n", [NAME]),
        (f"{NAME}=yes\n", []),
        (f"# {NAME}=no\n", []),
        (f"{NAME}=no\n{OTHER}=no", [NAME, OTHER]),
        (f"  {NAME}='no'  # for now\n\n", [NAME]),
        (f'{NAME}="no"\n{NAME}=yes\n', []),
    ],
)
def test_switched_off(file: Path, text: str, expected: list[str]) -> None:
    assert off(file, text) == (expected, [])


@pytest.mark.parametrize(
    "line, said",
    [
        ("NODED_LOCK=no", "'NODED_LOCK' is none of " + ", ".join(switches.NAMES)),
        (f"{NAME}=off", f"{NAME} must be yes or no, not 'off'"),
        (f"{NAME}=", f"{NAME} must be yes or no, not ''"),
        (f"{NAME}=NO", f"{NAME} must be yes or no, not 'NO'"),
        (f"{NAME} = no", "write it as KEY=yes or KEY=no"),
        (f"export {NAME}=no", "write it as KEY=yes or KEY=no"),
        (NAME, "write it as KEY=yes or KEY=no"),
        (f"{NAME}='no", "No closing quotation"),
        ("rm -rf /", "write it as KEY=yes or KEY=no"),
    ],
)
def test_a_mistake_leaves_it_on_and_does_not_touch_the_others(file: Path, line: str, said: str) -> None:
    found, problems = off(file, f"# first\n{line}\n{OTHER}=no\n")
    assert found == [OTHER]
    assert problems == [f"{file} line 2 is not taken: {said}"]


def test_an_unsafe_file_switches_nothing_off(file: Path) -> None:
    file.chmod(0o666)
    found, problems = off(file, f"{NAME}=no\n")
    assert found == []
    assert problems == [f"{file} may be written by others: chmod go-w {file}; until then every switch is on"]


def test_every_switch_is_used_and_is_told_in_the_file_that_is_installed() -> None:
    assert {patch.switch for patch in [*noded_patches(), *rapi_patches(None)]} - {None} == set(switches.NAMES)
    text = (ROOT / "debian" / "ganeti-ext.default").read_text(encoding="utf-8")
    assert shlex.split(text, comments=True) == []  # nothing is switched off
    told = re.findall(r"^#(\w+)=no$", text, re.MULTILINE)
    assert tuple(told) == switches.NAMES
