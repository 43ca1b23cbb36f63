# SPDX-License-Identifier: BSD-2-Clause
"""What a benchmark found: rows of one table, each with both sides, the bar and whether it is met."""

from __future__ import annotations

import bisect
import dataclasses
import os
import random
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.bench.counter import CpuCounter

#: Of a bar. UNCLEAR is an estimate that chance alone may have put on its side of it.
MET, MISSED, UNCLEAR, NO_BAR = "met", "MISSED", "unclear", ""

#: Share of the processors' time that others had, above which figures say more about them than about us.
NOISY = 0.1


@dataclass(frozen=True)
class Interval:
    """An estimate, and where it would lie in 95 of 100 repetitions."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """One line of the table: `ours` beside `other`, and what is made of the two.

    `found` and `limit` are the numbers behind `result` and `bar`, for the plots.
    """

    what: str
    ours: str
    other: str = ""
    result: str = ""
    bar: str = ""
    verdict: str = NO_BAR
    remark: str = ""
    found: Interval | None = None
    limit: float | None = None
    at_least: bool = False


#: What of a row is for the table.
COLUMNS = ("what", "ours", "other", "result", "bar", "verdict", "remark")
HEADS = ("what", "ours", "beside it", "result [95 %]", "bar", "verdict", "remark")


def row(
    what: str,
    ours: str,
    other: str,
    found: Interval,
    bar: float | None = None,
    unit: str = "",
    form: str = ".2f",
    remark: str = "",
    at_least: bool = False,
) -> Row:
    """A row whose `found` must be at most `bar`, or `at_least` that, if there is one."""
    shown = f"{found.value:{form}}{unit} [{found.low:{form}}; {found.high:{form}}]"
    if bar is None:
        return Row(what, ours, other, shown, remark=remark, found=found)
    met, missed = (found.low >= bar, found.high < bar) if at_least else (found.high <= bar, found.low > bar)
    verdict = MET if met else MISSED if missed else UNCLEAR
    text = f"{'≥' if at_least else '≤'} {bar:g}{unit}"
    return Row(what, ours, other, shown, text, verdict, remark, found, bar, at_least)


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
    """How much else the machine does while it is measured."""

    def __init__(self) -> None:
        try:
            # Made before anything is started: all that is started is its child, or a child's child.
            self._own: CpuCounter | None = CpuCounter(os.getpid())
        except OSError:
            self._own = None
        self.start()

    def start(self) -> None:
        """Counts from now on."""
        self._before = self._now()

    def _now(self) -> tuple[float, float]:
        """Seconds since some moment, and CPU seconds of others since then."""
        with open("/proc/stat", encoding="ascii") as stream:
            user, nice, system, _, _, irq, softirq, steal = map(int, stream.readline().split()[1:9])
        busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
        return os.times().elapsed, busy - (self._own.read() if self._own else 0.0)

    @property
    def share(self) -> float:
        """Of the processors' time, what others had; 0 if that cannot be told."""
        if self._own is None:
            return 0.0
        (began, before), (now, others) = self._before, self._now()
        return max(0.0, others - before) / max(now - began, 0.001) / (os.cpu_count() or 1)

    def __str__(self) -> str:
        if self._own is None:
            return "what else the machine did cannot be told (perf_event_open)"
        share = self.share
        text = f"other work took {share:.0%} of {os.cpu_count()} processors"
        return text + (": TOO NOISY TO TELL, do not trust a verdict" if share > NOISY else "")


def table(rows: Sequence[Row]) -> str:
    """The rows as aligned columns."""
    lines = [HEADS, *(tuple(getattr(one, column) for column in COLUMNS) for one in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]) - 1)]
    texts = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths)), line[-1]]).rstrip() for line in lines
    ]
    return "\n".join([texts[0], "-" * len(texts[0]), *texts[1:]])


def markdown(parts: Mapping[str, Sequence[Row]], remarks: Mapping[str, str]) -> str:
    """The tables of all parts for `docs/performance.md`."""
    texts = []
    for part, rows in parts.items():
        lines = [HEADS[:-1], ("---",) * 6, *([getattr(one, column) for column in COLUMNS[:-1]] for one in rows)]
        table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        texts.append(f"### {part}\n\n{remarks.get(part, '').capitalize()}.\n\n{table}\n")
    return "\n".join(texts)


def as_plain(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows for JSON."""
    return [dataclasses.asdict(one) for one in rows]
