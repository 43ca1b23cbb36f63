# SPDX-License-Identifier: BSD-2-Clause
"""A file that is replaced is the old or the new one, whoever is killed when."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ganeti_ext.cli import files
from ganeti_ext.cli.state import StateError

OLD, NEW = "old\n" * 3, "new\n" * 9000

#: Replaces a file, and dies before or after a call of `os`, of which the file's own module knows nothing.
DYING = """
import os, signal, sys
sys.path.insert(0, "/usr/share/ganeti/default")
name, when, path = sys.argv[1:]
from ganeti_ext.cli import files
real = getattr(os, name)
def dying(*args, **kwargs):
    if when == "after":
        real(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(os, name, dying)
files.replace(path, b"new\\n" * 9000, files.Owner(os.getuid(), os.getgid(), 0o640))
"""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", ["fchown", "fchmod", "fsync", "rename"])
def test_killed_at_every_step(tmp_path: Path, name: str, when: str) -> None:
    path = tmp_path / "file"
    path.write_text(OLD, encoding="ascii")
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", DYING, name, when, path], check=False, cwd="/", env={"PYTHONPATH": str(root)}
    )
    assert done.returncode == -signal.SIGKILL
    assert path.read_text(encoding="ascii") == (NEW if (name, when) == ("rename", "after") else OLD)


def test_owner_and_mode_are_as_they_are_to_be(tmp_path: Path) -> None:
    path = tmp_path / "file"
    (tmp_path / "other").write_text(OLD, encoding="ascii")
    path.symlink_to("other")
    files.replace(str(path), b"new", files.Owner(os.getuid(), os.getgid(), 0o604))
    assert path.read_bytes() == b"new" and not path.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o604
    assert (tmp_path / "other").read_text(encoding="ascii") == OLD
    assert sorted(os.listdir(tmp_path)) == ["file", "other"]


def test_what_cannot_be_written_stays(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text(OLD, encoding="ascii")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))  # as on a full disk: only a part fits
    try:
        with pytest.raises(OSError):
            files.replace(str(path), NEW.encode(), files.Owner(os.getuid(), os.getgid(), 0o600))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_text(encoding="ascii") == OLD
    assert os.listdir(tmp_path) == ["file"]


def test_two_at_once(tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    refused = pytest.raises(StateError, match="somebody else is changing the file")
    with files.locked(path, "the file"), refused, files.locked(path, "the file", 0.1):
        pass
    with files.locked(path, "the file", 0):
        pass
    assert os.listdir(tmp_path) == []
