# SPDX-License-Identifier: BSD-2-Clause
"""What reaches a terminal."""

from __future__ import annotations

import io
import os
import pty

from hypothesis import given
from hypothesis import strategies as st

from ganeti_ext.cli import text


@given(st.text() | st.text(st.characters(max_codepoint=0x9F)), st.sampled_from(["utf-8", "ascii", "latin-1", None]))
def test_nothing_commands_a_terminal_and_everything_can_be_written(given_text: str, encoding: str | None) -> None:
    shown = text.escaped(given_text, encoding)
    assert all(char.isprintable() or char in "\n\t" for char in shown)
    shown.encode(encoding or "ascii")
    assert "\n" not in text.line(given_text) and "\t" not in text.line(given_text)


def test_what_is_harmless_stays_as_it_is() -> None:
    harmless = "näive – 32 °C\n\ttab ✓ \\x1b"
    assert text.escaped(harmless) == harmless
    assert text.escaped("✓é", "latin-1") == "\\u2713é"
    assert text.escaped("a\x1b[1m\r\x9b\u202e\ud800\u2028b") == "a\\x1b[1m\\r\\x9b\\u202e\\ud800\\u2028b"


def test_progress_is_for_terminals() -> None:
    stream = io.StringIO()
    progress = text.Progress(stream)
    progress.show("1 of 3")
    progress.clear()
    assert stream.getvalue() == ""
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w", encoding="utf-8") as terminal:
        progress = text.Progress(terminal)
        progress.show("1 of 3; " + "x" * 200)
        progress.clear()
        progress.clear()
        written = ""
        while not written.endswith("\x1b[K\r\x1b[K"):  # the two may come one by one
            written += os.read(leader, 4096).decode()
    os.close(leader)
    assert written == "\r1 of 3; " + "x" * (79 - 8) + "\x1b[K\r\x1b[K"
