# SPDX-License-Identifier: BSD-2-Clause
"""`make bench`: all benchmarks, or those named: one table at the end, its JSON, and a page of plots."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tests.bench import decision, direct, noded, patches, progress, requests, startup, transport
from tests.bench.large import sharing
from tests.bench.page import page
from tests.bench.report import MISSED, Noise, Row, as_plain, markdown, table

PARTS: dict[str, Callable[[bool], Iterable[Row]]] = {
    "decision": decision.measure,
    "startup": startup.measure,
    "direct": direct.measure,
    "transport": transport.measure,
    "patches": patches.measure,
    "requests": requests.measure,
    "noded": noded.measure,
}

#: What each takes on a quiet machine, for the estimate.
SECONDS = {
    "decision": 25,
    "startup": 16,
    "direct": 65,
    "transport": 114,
    "patches": 50,
    "requests": 69,
    "noded": 148,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table; 1 if a bar is missed or a part broke off."""
    parser = argparse.ArgumentParser(prog="tests.bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all if none is named")
    parser.add_argument("--tiny", action="store_true", help="only show that it runs: the figures mean nothing")
    parser.add_argument(
        "--json",
        type=Path,
        default=decision.ROOT / "build" / "bench.json",
        help="where to write; page and Markdown lie beside",
    )
    options = parser.parse_args(argv)
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    parts = options.parts or list(PARTS)
    # Daemons inherit what a shell's `&` has us ignore, and a restricted command then needs a fork: 2.3 ms.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    noise = Noise()
    bar = progress.Progress({part: SECONDS.get(part, 60) for part in parts})
    progress.watch(bar)
    rows: dict[str, list[Row]] = {}
    found = {}
    remarks = {}
    broken = False
    with sharing():
        for part in parts:
            noise.start()
            bar.begin(part)
            began = time.monotonic()
            rows[part] = []
            try:
                for one in PARTS[part](options.tiny):
                    rows[part].append(one)
                    bar.say(one.what)
                remarks[part] = f"{time.monotonic() - began:.0f} s; {noise}"
            except Exception:
                traceback.print_exc()  # what was measured before is still worth a look
                broken = True
                remarks[part] = f"BROKE OFF; {noise}"
            found[part] = {"rows": as_plain(rows[part]), "noise": round(noise.share, 3)}
    bar.end()
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    options.json.with_suffix(".html").write_text(page(rows, remarks), encoding="utf-8")
    options.json.with_suffix(".md").write_text(markdown(rows, remarks), encoding="utf-8")
    every = [one for of_part in rows.values() for one in of_part]
    print(table(every))
    print(f"\nPlots: {options.json.with_suffix('.html')}")
    print("\n".join(f"{part}: {remark}" for part, remark in remarks.items()))
    missed = any(one.verdict == MISSED for one in every) and not options.tiny
    return int(broken or missed)


if __name__ == "__main__":
    sys.exit(main())
