# SPDX-License-Identifier: BSD-2-Clause
"""What of ganeti-ext an administrator has switched off: `/etc/default/ganeti-ext`, read as a daemon starts."""

from __future__ import annotations

import shlex

from ganeti_ext import rootfile
from ganeti_ext.errors import ExtError

FILE = "/etc/default/ganeti-ext"

#: All names, of whatever daemon. Each stands for one or more patches (`entrypoint.Patch.switch`) that only make
#: Ganeti faster, and is on unless the file says no.
NAMES = (
    "NODED_LOCK_ON_FAULT",
    "NODED_FAIR_QUEUE",
    "RAPI_NO_DELAY",
    "RAPI_NO_CLOSE_WAIT",
    "RAPI_NO_COLLECTOR",
    "RAPI_LARGE_READS",
    "RAPI_NO_LINE_ENDS",
    "RAPI_QUIET_LOG",
)


class Switches:
    """The switches as one file sets them, and what was wrong with it.

    Lines are KEY=value as in any file of `/etc/default`, with the shell's quotes and comments; a value
    is yes or no. A mistake changes nothing but the log: each is a line of `problems`, and that switch stays on.
    """

    def __init__(self, path: str, *, owner: int = 0) -> None:
        self.problems: list[str] = []
        self._off: set[str] = set()
        try:
            text = rootfile.read(path, owner=owner)
        except FileNotFoundError:
            return
        except (OSError, ExtError) as err:
            self.problems.append(f"{err}; until then every switch is on")
            return
        for number, line in enumerate(text.splitlines(), 1):
            problem = self._take(line)
            if problem:
                self.problems.append(f"{path} line {number} is not taken: {problem}")

    def switched_off(self, name: str) -> bool:
        """Whether what goes by that name, one of NAMES, is not wanted."""
        if name not in NAMES:
            raise ValueError(f"no switch is called {name}")
        return name in self._off

    def _take(self, line: str) -> str:
        """Takes one line; returns what is wrong with it, if anything."""
        try:
            words = shlex.split(line, comments=True)
        except ValueError as err:
            return str(err)
        if not words:
            return ""
        key, equals, value = words[0].partition("=")
        if len(words) > 1 or not equals:
            return "write it as KEY=yes or KEY=no"
        if key not in NAMES:
            return f"{key[:64]!r} is none of {', '.join(NAMES)}"
        if value not in ("yes", "no"):
            return f"{key} must be yes or no, not {value[:64]!r}"
        self._off.discard(key)
        if value == "no":
            self._off.add(key)
        return ""
