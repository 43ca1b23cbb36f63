# SPDX-License-Identifier: BSD-2-Clause
"""What the tests of restricted commands share; they run as root."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

#: A user and group that own nothing.
NOBODY = 65534


class FakeTime:
    """A clock that only sleeping moves on."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def fake_time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that every user can enter, unlike tmp_path."""
    path = Path(tempfile.mkdtemp(prefix="ganeti-ext-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    """An empty directory for restricted commands, as it has to be."""
    path = tmp_path / "restricted-commands"
    path.mkdir(mode=0o755)
    return path


@pytest.fixture
def script(commands: Path) -> Callable[..., Path]:
    """Write a script into the directory of commands (by default in sh)."""

    def write(body: str = "", name: str = "hello", interpreter: str = "/bin/sh") -> Path:
        path = commands / name
        path.write_text(f"#!{interpreter}\n{body}\n")
        path.chmod(0o755)
        os.chown(path, 0, 0)
        return path

    return write
