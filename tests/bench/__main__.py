# SPDX-License-Identifier: BSD-2-Clause
"""`make bench`: all benchmarks, or those named, with one table at the end and its JSON beside it."""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tests.bench import decision, direct, noded, requests, startup
from tests.bench.report import MISSED, Noise, Row, as_plain, table

PARTS: dict[str, Callable[[bool], Iterable[Row]]] = {
    "decision": decision.measure,
    "startup": startup.measure,
    "direct": direct.measure,
    "requests": requests.measure,
    "noded": noded.measure,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(prog="tests.bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all if none is named")
    parser.add_argument("--tiny", action="store_true", help="only show that it runs: the figures mean nothing")
    parser.add_argument("--json", type=Path, default=decision.ROOT / "build" / "bench.json", help="where to write")
    options = parser.parse_args(argv)
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    rows: list[Row] = []
    found = {}
    remarks = []
    broken = False
    for part in options.parts or PARTS:
        noise = Noise()
        of_part: list[Row] = []
        try:
            of_part.extend(PARTS[part](options.tiny))
        except Exception:
            traceback.print_exc()  # what was measured before is still worth a look
            broken = True
            remarks.append(f"{part}: BROKE OFF")
        rows += of_part
        remarks.append(f"{part}: {noise}")
        found[part] = {"rows": as_plain(of_part), "noise": round(noise.share, 3)}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(table(rows))
    print("\n" + "\n".join(remarks))
    missed = any(one.verdict == MISSED for one in rows) and not options.tiny
    return int(broken or missed)


if __name__ == "__main__":
    sys.exit(main())
