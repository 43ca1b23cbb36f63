# SPDX-License-Identifier: BSD-2-Clause
"""The progress bar on stderr, and how long it will still take."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

WIDTH = 24


class Progress:
    """A bar by time: `seconds` is what each part takes on a quiet machine; how slow this one is, is seen on the way."""

    def __init__(self, seconds: Mapping[str, float]) -> None:
        self._left = dict(seconds)
        self._expected = self._done = 0.0
        self._total = sum(seconds.values())
        self._began = self._part_began = self._said = time.monotonic()
        self._part = ""

    def begin(self, part: str) -> None:
        """The last one is over and this one begins."""
        now = time.monotonic()
        self._done += self._expected
        self._part, self._part_began, self._expected = part, now, self._left.pop(part)
        self.say("begins", True)

    def say(self, text: str, important: bool = False) -> None:
        """Shows the bar and what is done now. Where nobody looks, only from time to time."""
        now = time.monotonic()
        terminal = sys.stderr.isatty()
        if not important and now - self._said < (0.2 if terminal else 30):
            return
        self._said = now
        past = (self._part_began - self._began) / self._done if self._done else 1.0
        # A part that takes longer than it should is no more than almost done, and the machine that slow.
        slowness = max(past, (now - self._part_began) / self._expected / 0.95)
        in_part = (now - self._part_began) / slowness
        share = (self._done + in_part) / self._total
        left = (self._total - self._done - in_part) * slowness
        bar = "#" * int(share * WIDTH)
        line = f"[{bar:.<{WIDTH}}] {share:4.0%}, about {left / 60:.1f} min left; {self._part}: {text}"
        print(f"\r{line:.110}\033[K" if terminal else line, end="" if terminal else "\n", file=sys.stderr, flush=True)

    def end(self) -> None:
        """All is done."""
        took = (time.monotonic() - self._began) / 60
        print(("\r\033[K" if sys.stderr.isatty() else "") + f"done in {took:.1f} min", file=sys.stderr, flush=True)


_running: list[Progress] = []


def watch(progress: Progress) -> None:
    """What `say` is said to from now on."""
    _running[:] = [progress]


def say(text: str) -> None:
    """What a part does now."""
    if _running:
        _running[0].say(text)
