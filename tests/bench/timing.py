# SPDX-License-Identifier: BSD-2-Clause
"""The CPU time of something small, as the median of many batches."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """CPU seconds of one call, by batches."""

    batches: tuple[float, ...]

    @property
    def median(self) -> float:
        """Of all batches."""
        return statistics.median(self.batches)


def timed(call: Callable[[], object], seconds: float = 0.5, batches: int = 25) -> Timing:
    """Calls something for about `seconds` of CPU time, in batches long enough for the clock.

    Not by wall clock: the machine may do something else in between.
    """
    call()
    number, took = 1, 0.0
    while took < seconds / batches / 2 and number < 1 << 24:
        number = number if took == 0.0 else number * 2
        began = time.process_time()
        for _ in range(number):
            call()
        took = time.process_time() - began
        if took == 0.0:
            number *= 2
    found = []
    gc.collect()
    gc.disable()
    try:
        for _ in range(batches):
            began = time.process_time()
            for _ in range(number):
                call()
            found.append((time.process_time() - began) / number)
            if sum(found) * number > 3 * seconds:
                break
    finally:
        gc.enable()
    return Timing(tuple(found))
