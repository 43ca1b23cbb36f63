# SPDX-License-Identifier: BSD-2-Clause
"""One page of plots of what was measured, complete in itself: drawn here, without a script or a file from elsewhere."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from html import escape

from tests.bench.report import COLUMNS, HEADS, MET, MISSED, NO_BAR, UNCLEAR, Row

COLOURS = {MET: "#1a7f37", MISSED: "#b42318", UNCLEAR: "#8a6100", NO_BAR: "#44546a"}
#: Pixels. A letter of the plots' typeface is at most so wide on average.
LINE, PLOT, GAP, LETTER, HEAD = 26, 320, 16, 7.4, 30
STYLE = """
body { font: 15px/1.5 sans-serif; color: #1c2530; background: #fff; margin: 2em auto; max-width: 1400px;
  padding: 0 1em }
h2 { margin: 2em 0 0.3em }
svg { max-width: 100%; height: auto; display: block }
table { border-collapse: collapse; font-size: 13px; margin: 1em 0 }
td, th { text-align: left; vertical-align: top; padding: 0.25em 0.8em 0.25em 0; border-bottom: 1px solid #d5dbe2 }
summary { cursor: pointer }
.noise { color: #44546a }
"""
LEGEND = """
Each line is one comparison: the point is the estimate, the line through it is where it would lie in 95 of
100 repetitions. The upright line is the bar, or 1, which is what it is compared with, where there is no bar; the tinted
side is where the estimate should be. The scale is each line's own, from 0 to twice the bar; what lies beyond ends in
an arrow.
"""


def page(rows: Mapping[str, Sequence[Row]], remarks: Mapping[str, str]) -> str:
    """The page as HTML: `rows` and what is to be said of each part's noise."""
    every = [one for of_part in rows.values() for one in of_part]
    counts = ", ".join(
        f"{sum(one.verdict == verdict for one in every)} {verdict}" for verdict in (MET, MISSED, UNCLEAR)
    )
    machine = os.uname()
    parts = [
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>ganeti-ext: benchmarks</title>',
        f"<style>{STYLE}</style></head><body><h1>ganeti-ext: benchmarks</h1>",
        f"<p>{time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC, Linux {escape(machine.release)} on"
        f" {os.cpu_count()} processors ({escape(machine.machine)}). Bars: {counts}.</p><p>{LEGEND}</p>",
    ]
    for part, of_part in rows.items():
        parts.append(f'<h2>{escape(part)}</h2><p class="noise">{escape(remarks.get(part, ""))}</p>')
        plotted = [one for one in of_part if one.found]
        if plotted:
            parts.append(plot(plotted))
        parts.append(f"<details><summary>All {len(of_part)} lines as a table</summary>{_table(of_part)}</details>")
    return "\n".join([*parts, "</body></html>\n"])


def _table(rows: Sequence[Row]) -> str:
    cells = [HEADS, *([getattr(one, column) for column in COLUMNS] for one in rows)]
    lines = ["".join(f"<{kind}>{escape(cell)}</{kind}>" for cell in line) for kind, line in _kinds(cells)]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _kinds(cells: Sequence[Sequence[str]]) -> list[tuple[str, Sequence[str]]]:
    return [("th" if number == 0 else "td", line) for number, line in enumerate(cells)]


def plot(rows: Sequence[Row]) -> str:
    """An SVG of rows that have numbers."""
    left = max(len(one.what) for one in rows) * LETTER + GAP
    texts = [f"{one.result}   {one.bar}   {one.verdict}".rstrip() for one in rows]
    width = left + PLOT + GAP + max(map(len, texts)) * LETTER
    height = HEAD + LINE * len(rows)
    found = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}"'
        f' height="{height}" role="img" font-family="DejaVu Sans, Verdana, sans-serif" font-size="12" fill="#1c2530">'
        f"<title>Estimates and their bars</title>"
    ]
    for place, anchor, text in ((0.0, "start", "0"), (0.5, "middle", "bar"), (1.0, "end", "2 × bar")):
        found.append(f'<text x="{left + place * PLOT:.1f}" y="18" text-anchor="{anchor}" fill="#44546a">{text}</text>')
    for number, (one, text) in enumerate(zip(rows, texts)):
        top = HEAD + LINE * number
        found.append(f'<text x="{left - GAP:.1f}" y="{top + 17}" text-anchor="end">{escape(one.what)}</text>')
        found += _marks(one, left, top)
        found.append(
            f'<text x="{left + PLOT + GAP:.1f}" y="{top + 17}" fill="{COLOURS[one.verdict]}" xml:space="preserve">'
            f"{escape(text)}</text>"
        )
    return "\n".join([*found, "</svg>"])


def _marks(one: Row, left: float, top: float) -> list[str]:
    """Scale, bar, interval and estimate of one row."""
    assert one.found
    estimate = one.found
    bar = 1.0 if one.limit is None else one.limit
    half = bar or 1.2 * max(abs(estimate.low), abs(estimate.high)) or 1.0

    def at(value: float) -> float:
        return left + PLOT * min(max((value - bar) / half / 2 + 0.5, 0.0), 1.0)

    colour, middle = COLOURS[one.verdict], top + LINE / 2
    shown = []
    if one.limit is not None:
        begin, end = (at(bar), left + PLOT) if one.at_least else (left, at(bar))
        shown.append(
            f'<rect x="{begin:.1f}" y="{top + 2}" width="{end - begin:.1f}" height="{LINE - 4}" fill="#e6f2e9"/>'
        )
    shown.append(
        f'<path d="M{left:.1f} {middle} h{PLOT}" stroke="#d5dbe2"/>'
        f'<path d="M{at(bar):.1f} {top + 2} v{LINE - 4}" stroke="#44546a"/>'
        f'<path d="M{at(estimate.low):.1f} {middle} H{at(estimate.high):.1f}" stroke="{colour}" stroke-width="3"/>'
    )
    beyond = (estimate.value - bar) / half / 2 + 0.5
    x = at(estimate.value)
    if 0 <= beyond <= 1:
        shown.append(f'<circle cx="{x:.1f}" cy="{middle}" r="4.5" fill="{colour}"/>')
    else:
        step = 9 if beyond < 0 else -9
        shown.append(f'<path d="M{x:.1f} {middle} l{step} -6 v12 z" fill="{colour}"/>')
    return shown
