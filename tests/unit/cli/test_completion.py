# SPDX-License-Identifier: BSD-2-Clause
"""bash completes what gnt-ext itself says."""

from __future__ import annotations

import subprocess
from pathlib import Path

from ganeti_ext.cli.main import COMMANDS

ROOT = Path(__file__).parents[3]

SCRIPT = """
source debian/bash-completion/gnt-ext
gnt-ext() { PYTHONPATH=. /usr/bin/python3 sbin/gnt-ext "$@"; }
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_gnt_ext
printf '%s\\n' "${COMPREPLY[@]}"
"""


def complete(*words: str) -> list[str]:
    """What is offered for the last word."""
    done = subprocess.run(
        ["bash", "-c", SCRIPT, "bash", "gnt-ext", *words], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_completion() -> None:
    assert sorted(complete("")) == sorted(COMMANDS)
    assert complete("restr") == ["restricted-command"]
    options = complete("restricted-command", "--")
    assert {"--direct", "--timeout", "--output", "--node-group", "--help"} <= set(options)
    assert complete("restricted-command", "--dir") == ["--direct"]
    assert complete("can", "--bo") == ["--body"]
