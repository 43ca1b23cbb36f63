# SPDX-License-Identifier: BSD-2-Clause
"""What a benchmark found: rows of one table, each with both sides, the bar and whether it is met."""

from __future__ import annotations

import bisect
import dataclasses
import os
import random
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

#: Of a bar. UNCLEAR is an estimate that chance alone may have put on its side of it.
MET, MISSED, UNCLEAR, NO_BAR = "met", "MISSED", "unclear", ""

#: Share of the time in which something waited for a processor; above it, one half of what is measured is
#: the machine's other work.
NOISY = 0.25


@dataclass(frozen=True)
class Interval:
    """An estimate, and where it would lie in 95 of 100 repetitions."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """One line of the table: `ours` beside `other`, and what is made of the two."""

    what: str
    ours: str
    other: str = ""
    result: str = ""
    bar: str = ""
    verdict: str = NO_BAR
    remark: str = ""


def row(
    what: str, ours: str, other: str, found: Interval, bar: float, unit: str = "", form: str = ".2f", remark: str = ""
) -> Row:
    """A row whose `found` must be at most `bar`."""
    verdict = MET if found.high <= bar else MISSED if found.low > bar else UNCLEAR
    shown = f"{found.value:{form}}{unit} [{found.low:{form}}; {found.high:{form}}]"
    return Row(what, ours, other, shown, f"≤ {bar:g}{unit}", verdict, remark)


def median(values: Iterable[float]) -> float:
    """The median."""
    return statistics.median(values)


def bootstrap(
    ours: Sequence[float], other: Sequence[float], of: Callable[[float, float], float], times: int = 1000
) -> Interval:
    """Of two samples' medians, what `of` makes: their difference or their ratio."""
    chance = random.Random(0)
    found = sorted(
        of(median(chance.choices(ours, k=len(ours))), median(chance.choices(other, k=len(other)))) for _ in range(times)
    )
    return Interval(of(median(ours), median(other)), found[int(times * 0.025)], found[int(times * 0.975)])


def difference(ours: float, other: float) -> float:
    """How much more ours is."""
    return ours - other


def ratio(ours: float, other: float) -> float:
    """How many times the other ours is."""
    return ours / other


def rank_test(ours: Sequence[float], other: Sequence[float]) -> float:
    """How probable a difference of ranks as large as this is if both are the same (Mann and Whitney)."""
    ordered, count, others = sorted(other), len(ours), len(other)
    below = sum(bisect.bisect_left(ordered, value) + bisect.bisect_right(ordered, value) for value in ours) / 2
    deviation = (count * others * (count + others + 1) / 12) ** 0.5
    distance = abs(below - count * others / 2) / deviation
    return 2 * (1 - statistics.NormalDist().cdf(distance))


class Noise:
    """How much other work the machine does meanwhile."""

    def __init__(self) -> None:
        self._before = self._waited()
        self._began = os.times().elapsed

    @staticmethod
    def _waited() -> float:
        """Seconds since the start in which some process waited for a processor."""
        try:
            with open("/proc/pressure/cpu", encoding="ascii") as stream:
                return int(stream.readline().rsplit("=", 1)[1]) / 1e6
        except (OSError, ValueError, IndexError):
            return 0.0

    @property
    def share(self) -> float:
        """The share of the time since it was made in which something waited for a processor."""
        return (self._waited() - self._before) / max(os.times().elapsed - self._began, 0.001)

    def __str__(self) -> str:
        text = (
            f"something waited for a processor in {self.share:.0%} of the time,"
            f" load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"
        )
        return text + (": too noisy for single milliseconds" if self.share > NOISY else "")


def table(rows: Sequence[Row]) -> str:
    """The rows as aligned columns."""
    head = Row("what", "ours", "beside it", "result [95 %]", "bar", "verdict", "remark")
    lines = [dataclasses.astuple(one) for one in (head, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]) - 1)]
    texts = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths)), line[-1]]).rstrip() for line in lines
    ]
    return "\n".join([texts[0], "-" * len(texts[0]), *texts[1:]])


def as_plain(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows for JSON."""
    return [dataclasses.asdict(one) for one in rows]
