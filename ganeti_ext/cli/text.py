# SPDX-License-Identifier: BSD-2-Clause
"""What is written to a terminal: nothing of it commands the terminal."""

from __future__ import annotations

import os
import re
import sys
from typing import TextIO

_UNUSUAL = re.compile(r"[^\n\t\x20-\x7e]")


def escaped(text: str, encoding: str | None = "utf-8") -> str:
    r"""The text with `\x1b` and the like for what is not printable, but newlines and tabs.

    Output of a node and names that users chose are not to be trusted: a control character could
    hide a line or type for the administrator, a mark of direction could turn one around. What
    `encoding` (None: ASCII) cannot express is written in the same way.
    """
    safe = _UNUSUAL.sub(lambda found: found[0] if found[0].isprintable() else _escape(found[0]), text)
    encoding = encoding or "ascii"
    return safe.encode(encoding, "backslashreplace").decode(encoding)


def line(text: str, encoding: str | None = "utf-8") -> str:
    """The same, all in one line."""
    return escaped(text, encoding).replace("\t", " ").strip().replace("\n", "\\n")


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode()


class Progress:
    """One line at the end of a terminal that says how far it is; nothing where there is no terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown = False
        self._wanted = stream.isatty()

    def show(self, text: str) -> None:
        """Shows it in place of what was shown before."""
        if not self._wanted:
            return
        try:
            width = os.get_terminal_size(self._stream.fileno()).columns or 80
        except OSError:
            width = 80
        self._stream.write("\r" + escaped(text, self._stream.encoding)[: width - 1] + "\x1b[K")
        self._stream.flush()
        self._shown = True

    def clear(self) -> None:
        """Removes the line, for other output to come."""
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._shown = False


def out(text: str) -> None:
    """Writes a text that may hold anything to the standard output, and a newline."""
    _write(sys.stdout, text)


def err(text: str) -> None:
    """The same to the standard error."""
    _write(sys.stderr, text)


def _write(stream: TextIO, text: str) -> None:
    from ganeti import cli

    write = cli.ToStdout if stream is sys.stdout else cli.ToStderr
    write("%s", escaped(text, stream.encoding))
