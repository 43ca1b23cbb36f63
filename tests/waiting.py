# SPDX-License-Identifier: BSD-2-Clause
"""Waiting for what takes a moment, and not for ever."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Polls; an AssertionError if it takes longer."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
