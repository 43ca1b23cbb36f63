# SPDX-License-Identifier: BSD-2-Clause
"""The README's other commands, by the Makefile's own recipes: they start, and the demo is right."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Makes a target with the package that is installed already."""
    command = ["make", "--no-print-directory", "--assume-old=install", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


def test_the_demo() -> None:
    try:
        demo = make("demo")
        assert demo.returncode == 0, demo.stdout + demo.stderr
        assert "Everything was as it should be" in demo.stdout
        assert "[ok]" in demo.stdout and "[WRONG]" not in demo.stdout
        assert "\033" not in demo.stdout  # no colours in a pipe
    finally:
        stop = make("demo-stop")
    assert stop.returncode == 0, stop.stderr


def test_the_benchmark_starts() -> None:
    command = make("--dry-run", "bench").stdout.splitlines()[-1]
    assert "bench" in command
    subprocess.run([*command.split(), "--help"], cwd=ROOT, capture_output=True, check=True)


def test_the_matrix_of_some_releases() -> None:
    def command(*arguments: str) -> str:
        return make("--dry-run", "matrix", *arguments).stdout.splitlines()[1]

    assert command("trixie", "sid").split()[1:] == ["-m", "tests.matrix", "trixie", "sid"]
    assert command("REBUILD=1").split()[1:] == ["-m", "tests.matrix", "--rebuild"]
