# SPDX-License-Identifier: BSD-2-Clause
"""The man page tells of every command and option, and of none that is not there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from ganeti import cli

from ganeti_ext.cli.main import COMMANDS
from ganeti_ext.cli.restricted import Answer

PAGE = (Path(__file__).parents[3] / "docs" / "gnt-ext.8.rst").read_text(encoding="utf-8")
#: Heading -> what stands below it.
SECTIONS = dict(re.findall(r"^(.+)\n~+\n((?:.|\n)*?)(?=\n.+\n[~=]+\n|\Z)", PAGE, re.MULTILINE))
#: What is told once, for several commands.
SHARED = {"--policy", "--users", "--offline", "--no-headers", "--separator"}


def section(command: str) -> str:
    (found,) = [text for heading, text in SECTIONS.items() if command in re.split(", | and ", heading)]
    return str(found)


def options(command: str) -> set[str]:
    common = {str(option) for option in cli.COMMON_OPTS}
    return {word for option in COMMANDS[command][2] if str(option) not in common for word in option._long_opts}


def test_all_commands_are_told_and_no_other() -> None:
    told = [command for heading in SECTIONS for command in re.split(", | and ", heading)]
    assert sorted(told) == sorted(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_all_options_are_told(command: str) -> None:
    text = section(command)
    told = set(re.findall(r"``(--[a-z-]+)", text))
    short = {"--show-machine-names"} if "-M" in text else set()
    assert options(command) - told - short <= SHARED
    known = set().union(*map(options, COMMANDS))
    assert told <= known


def test_the_json_that_is_shown_has_the_fields_that_are_written() -> None:
    shown = re.search(r"::\n\n((?:    .*\n)+)", section("restricted-command"))
    assert shown is not None
    assert tuple(json.loads(shown[1])[0]) == Answer._fields
