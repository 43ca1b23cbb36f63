# SPDX-License-Identifier: BSD-2-Clause
"""The examples of restricted commands; those that only look run in `tests/cluster/test_noded_commands.py`."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ganeti_ext.noded import run, verify

EXAMPLES = Path(__file__).parents[3] / "examples" / "restricted-commands"
NAMES = sorted(path.name for path in EXAMPLES.iterdir())


def test_all_that_an_administrator_may_want_are_there() -> None:
    assert NAMES == ["last-kernel-messages", "memory-summary", "reboot-now", "restart-sshd", "sync-now"]


@pytest.mark.parametrize("name", NAMES)
def test_it_is_a_shell_script_that_can_be_installed_as_it_says(name: str, commands: Path) -> None:
    text = (EXAMPLES / name).read_text(encoding="ascii")
    assert text.startswith("#!/bin/sh\n# SPDX-License-Identifier: BSD-2-Clause\n")
    assert "# Danger: " in text
    (command,) = re.findall(r"^#   (install .*)$", text, re.MULTILINE)
    subprocess.run(
        command.replace("/etc/ganeti/restricted-commands/", str(commands)), shell=True, cwd=EXAMPLES, check=True
    )
    assert verify.verify(str(commands), name) == str(commands / name)
    subprocess.run(["/bin/sh", "-n", commands / name], check=True)
    assert len([line for line in text.splitlines() if line and not line.startswith("#")]) <= 30


@pytest.mark.parametrize("name", ["memory-summary", "reboot-now", "sync-now"])
def test_it_starts_no_other_program(name: str) -> None:
    """What memory it needs is the shell's alone."""
    text = (EXAMPLES / name).read_text(encoding="ascii")
    assert "With the shell alone" in text
    code = re.sub(r"#.*|'[^']*'|\"[^\"]*\"", "", text)
    words = set(re.findall(r"^\s*(?:\{ )?([a-z]+)\b(?!=)|(?:&&|\|\||;|do|then) +([a-z]+)\b(?!=)", code, re.MULTILINE))
    known = {"read", "echo", "printf", "while", "do", "done", "for", "case", "esac", "in", "exit", "set", "break"}
    assert {word for pair in words for word in pair if word} <= known | {"continue", "pause"}


def test_the_summary_of_memory_needs_no_program(commands: Path) -> None:
    shutil.copy(EXAMPLES / "memory-summary", commands)
    path = commands / "memory-summary"
    path.chmod(0o755)
    found = run.collect(run.start(str(path), path.name, environment={"PATH": "/nonexistent"}))
    assert found.failure is None
    lines = found.output.splitlines()
    assert lines[0].startswith("Load: ")
    assert any(line.startswith("MemAvailable: ") for line in lines)
    assert all(re.fullmatch(r"Load: .*|\w+: +\d+ kB| *\d+ kB +\d+  .*", line) for line in lines)
