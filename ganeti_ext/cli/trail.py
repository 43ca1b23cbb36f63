# SPDX-License-Identifier: BSD-2-Clause
"""`gnt-ext audit`: the audit trail of this node, rotated files included."""

from __future__ import annotations

import contextlib
import glob
import gzip
import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timezone
from typing import IO, Any

from ganeti import cli, errors

from ganeti_ext.cli import text
from ganeti_ext.rapi.audit import AUDIT_LOG

_ROTATED = re.compile(r"\.([0-9]{1,4})(?:\.gz)?")

#: Seconds between two looks at a file that is followed.
_TICK = 0.3

Record = dict[str, Any]


def audit(opts: Any, args: Sequence[str]) -> int:
    """Shows the records that are asked for."""
    since = start_of(opts.since, time.time()) if opts.since is not None else ""
    with contextlib.suppress(KeyboardInterrupt):
        if not opts.follow or opts.since is not None:
            for record in select(records(since), since, opts):
                show(record, opts.output == "json")
        if opts.follow:
            for record in select(parsed(followed()), "", opts):
                show(record, opts.output == "json")
    return 0


def start_of(words: str, now: float) -> str:
    """The moment from which on records are asked for, in the form that they have it.

    `words` are Ganeti's time specification (`90s`, `5m`, `2h`, `3d`, `1w`: so long before `now`,
    seconds since 1970) or a moment in ISO 8601, in this machine's time if it names no other. Raises
    errors.OpPrereqError.
    """
    try:
        moment = datetime.fromisoformat(words.replace("Z", "+00:00"))
    except ValueError:
        moment = datetime.fromtimestamp(now - int(cli.ParseTimespec(words)), timezone.utc)
    try:
        return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    except (OverflowError, ValueError) as err:
        raise errors.OpPrereqError(f"{words!r} is no time", errors.ECODE_INVAL) from err


def records(since: str = "", path: str = AUDIT_LOG) -> Iterator[Record]:
    """All records of this node from some time on, the oldest first; a file that is older is not opened."""
    earliest = datetime.fromisoformat(since.replace("Z", "+00:00")).timestamp() if since else 0.0
    for name in _files(path):
        try:
            if os.stat(name).st_mtime < earliest:
                continue
            with _opened(name) as file:
                yield from parsed(file)
        except FileNotFoundError:
            continue  # it has just been rotated
        except (OSError, EOFError) as err:
            text.err(f"Note: {name} cannot be read: {err}")


def _files(path: str) -> list[str]:
    """The file and its rotated ones, the oldest first."""
    found = []
    for name in glob.glob(glob.escape(path) + ".*"):
        number = _ROTATED.fullmatch(name[len(path) :])
        if number:
            found.append((int(number[1]), name))
    return [name for _, name in sorted(found, reverse=True)] + [path]


def _opened(name: str) -> IO[str]:
    if name.endswith(".gz"):
        return gzip.open(name, "rt", encoding="utf-8", errors="replace")
    return open(name, encoding="utf-8", errors="replace")


def parsed(lines: Iterable[str]) -> Iterator[Record]:
    """The records that lines are; a line that was cut off, as by a full disk, is none."""
    for line in lines:
        with contextlib.suppress(ValueError):
            record = json.loads(line)
            if isinstance(record, dict):
                yield record


def followed(path: str = AUDIT_LOG, tick: float = _TICK) -> Iterator[str]:
    """The lines that are written from now on, for ever, through rotations."""
    file: IO[str] | None = None
    rest = ""
    with contextlib.suppress(FileNotFoundError):
        file = _opened(path)
        file.seek(0, os.SEEK_END)
    while True:
        chunk = file.read() if file is not None else ""
        if chunk:
            *whole, rest = (rest + chunk).split("\n")
            yield from whole
            continue
        with contextlib.suppress(FileNotFoundError):
            if file is None or os.stat(path).st_ino != os.fstat(file.fileno()).st_ino:
                fresh = _opened(path)
                if file is not None:
                    # What was written between the last look and the rotation.
                    yield from (rest + file.read()).split("\n")
                    file.close()
                file, rest = fresh, ""
                continue
        time.sleep(tick)


def select(found: Iterable[Record], since: str, opts: Any) -> Iterator[Record]:
    """The records that the options ask for."""
    for record in found:
        if str(record.get("time", "")) < since:
            continue
        if opts.user is not None and record.get("user") != opts.user:
            continue
        if opts.denied and record.get("decision") != "deny":
            continue
        yield record


def show(record: Record, as_json: bool) -> None:
    """Writes a record: as JSON as it is, or in one line for people."""
    text.out(json.dumps(record) if as_json else line_of(record))


def line_of(record: Record) -> str:
    """A record in one line, without its parameters."""
    words = [str(record.get(key, "")) for key in ("time", "id", "decision", "status")]
    words.append(f"{record.get('user', '')}@{record.get('address', '')}")
    words += [str(record.get(key, "")) for key in ("method", "path")]
    jobs = record.get("jobs") or []
    if jobs:
        words.append(f"job {', '.join(map(str, jobs))}" if isinstance(jobs, list) else str(jobs))
    why = str(record.get("reason") or record.get("rule") or "")
    return text.line(" ".join(words) + (f": {why}" if why else ""))
