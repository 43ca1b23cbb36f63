# SPDX-License-Identifier: BSD-2-Clause
"""``restricted-commands.conf``: how long and how much, for all commands and for each."""

from __future__ import annotations

import configparser
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from ganeti import pathutils

from ganeti_ext import rootfile
from ganeti_ext.errors import ExtError
from ganeti_ext.noded import DEFAULT_LIMITS, Limits, Refused, verify

FILE = pathutils.CONF_DIR + "/restricted-commands.conf"

#: The section for all commands; no command of that name can have one of its own.
ALL = "DEFAULT"

_SECONDS = {"": 1, "s": 1, "min": 60}
_BYTES = {"": 1, "B": 1, "KiB": 1024, "MiB": 1024**2}


class BadSettings(ExtError):
    """A file that is not taken; its text is one line that says where and what to write instead."""


class Settings(NamedTuple):
    """The limits of all commands and those of some: ``of(name)`` are the ones of a command."""

    limits: Limits = DEFAULT_LIMITS
    commands: Mapping[str, Limits] = MappingProxyType({})

    def of(self, name: str) -> Limits:
        """Return the limits of a command whose file has been checked."""
        return self.commands.get(name, self.limits)


def load(path: str = FILE, *, owner: int = 0, limits: Limits = DEFAULT_LIMITS) -> Settings:
    """Return what the file at path sets, or what holds without one: limits for every command.

    A file that somebody else than owner may write, or with any mistake, is not taken at all, with
    one line in the log: so a mistake lengthens no limit and shortens no delay below Ganeti's own, and
    does not take away the commands from whom needs them now.
    """
    try:
        return parse(rootfile.read(path, owner=owner), path, limits)
    except FileNotFoundError:
        pass
    except (OSError, ExtError) as err:
        logging.error("%s; until that is mended the built-in limits hold for every restricted command", err)
    except Exception:  # nor does a mistake of ours, or of another Python's
        logging.exception("%s cannot be read; the built-in limits hold for every restricted command", path)
    return Settings(limits)


def parse(text: str, source: str, limits: Limits = DEFAULT_LIMITS) -> Settings:
    """Return the settings that text is; source is what messages call it. Raises BadSettings."""
    sections = _sections(text, source)
    limits = _changed(limits, sections.pop(ALL, []), source, ("time_limit", "output_limit", "delay"))
    commands = {}
    for name, values in sections.items():
        try:
            verify.check_name(name)
        except Refused as err:
            raise BadSettings(f"{source}: section {name[:64]!r} is neither [{ALL}] nor a command: {err}") from None
        commands[name] = _changed(limits, values, source, ("time_limit", "output_limit"))
    return Settings(limits, commands)


class _Key(str):
    """The name of a setting, with the number of its line."""

    line = 0


def _sections(text: str, source: str) -> dict[str, list[tuple[_Key, str]]]:
    """Return the settings of each section of an INI file. Raises BadSettings."""
    line = 0

    def lines() -> Iterator[str]:
        nonlocal line
        for line, content in enumerate(text.splitlines(), 1):  # noqa: B007
            yield content + "\n"

    def key(name: str) -> _Key:
        found = _Key(name)
        found.line = line
        return found

    parser = configparser.RawConfigParser(
        delimiters=("=",),
        inline_comment_prefixes=("#", ";"),
        empty_lines_in_values=False,
        default_section="",  # which no file can have: [DEFAULT] is merged by us
    )
    parser.optionxform = key  # type: ignore[assignment,method-assign]
    try:
        parser.read_file(lines(), source)
    except configparser.MissingSectionHeaderError as err:
        raise BadSettings(f"{source} line {err.lineno}: a section such as [{ALL}] must come first") from None
    except (configparser.DuplicateSectionError, configparser.DuplicateOptionError) as err:
        raise BadSettings(f"{source} line {err.lineno}: this was there before; remove one of the two") from None
    except configparser.ParsingError as err:
        raise BadSettings(f"{source} line {err.errors[0][0]}: write it as KEY = VALUE") from None
    except configparser.Error as err:
        raise BadSettings(f"{source}: {' '.join(str(err).split())}") from None
    return {name: list(parser.items(name)) for name in parser.sections()}  # type: ignore[arg-type]


def _changed(limits: Limits, values: list[tuple[_Key, str]], source: str, allowed: tuple[str, ...]) -> Limits:
    """Return limits with some of them set, each of which must be allowed. Raises BadSettings."""
    found = {}
    for key, value in values:
        where = f"{source} line {key.line}"
        if key not in allowed:
            raise BadSettings(f"{where}: {str(key)[:64]!r} is none of {', '.join(allowed)}")
        read, lowest, highest, form = _KINDS[key]
        number = read(value)
        if number is None or not lowest <= number <= highest:
            raise BadSettings(f"{where}: {key} must be {form}, not {value[:64]!r}")
        found[str(key)] = number
    return limits._replace(**found)  # type: ignore[arg-type]


def _number(value: str, form: str, units: Mapping[str, int]) -> float | None:
    match = re.fullmatch(rf"({form}) ?([A-Za-z]*)", value, re.ASCII)
    if match is None or match[2] not in units:
        return None
    return float(match[1]) * units[match[2]]


def _seconds(value: str) -> float | None:
    return _number(value, r"\d{1,9}(?:\.\d{1,3})?", _SECONDS)


def _bytes(value: str) -> int | None:
    number = _number(value, r"\d{1,9}", _BYTES)
    return None if number is None else int(number)


#: How to read each value, its bounds, and what to write. The longest call, one that waits, sits out a delay, runs and
#: is killed, stays below the hour at which Ganeti's RPC client gives up; the largest answer takes a child some 20 MiB.
_KINDS: dict[str, tuple[Callable[[str], float | None], float, float, str]] = {
    "time_limit": (_seconds, 0.1, 1800, "a time from 0.1 s to 30 min, such as 90 s or 5 min"),
    "output_limit": (_bytes, 0, 1024**2, "a size of at most 1 MiB, such as 4096, 64 KiB or 1 MiB"),
    "delay": (_seconds, 1, 600, "a time from 1 s to 10 min, such as 10 s"),
}
