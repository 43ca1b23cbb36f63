# SPDX-License-Identifier: BSD-2-Clause
"""Whose a job is: said and read in Ganeti's reason trail, which stays with the job for good."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ganeti import constants, opcodes, utils

#: The source of the reason-trail entry that says whose job it is.
REASON_SOURCE = "gnt:ext:rapi-user"

#: What a handler may have put into a trail itself; nothing else gets through.
_KEPT_SOURCES = (constants.OPCODE_REASON_SRC_USER, constants.OPCODE_REASON_SRC_RLIB2 + ":")

_JOB_ID = re.compile("[0-9]{1,18}")

#: What could be the name of an object, in a text.
_WORD = re.compile(r"[\w.-]+")

#: Fields of a job in which daemons and scripts have written what they came across.
_TALKATIVE = ("opresult", "oplog")

#: The field in which there is what a restricted command printed.
OUTPUT = "opresult"


def stamp(op: Any, user: str, nested: bool) -> None:
    """Writes whose job it is; a nested opcode's own job inherits the outer trail."""
    if nested:
        op.reason = []
        return
    kept = [entry for entry in op.reason or () if str(entry[0]).startswith(_KEPT_SOURCES)]
    op.reason = [(REASON_SOURCE, user, utils.EpochNano()), *kept]


def is_own(ops: Any, user: str) -> bool:
    """Whether a job of these opcodes (as luxid gives them) is the user's.

    It is if each of its opcodes has exactly one entry of our source, and that is his
    (`threats.md`, "Jobs").
    """
    if not isinstance(ops, list) or not ops:
        return False
    for op in ops:
        trail = [entry for entry in op.get("reason") or () if isinstance(entry, list)]
        ours = [entry for entry in trail if entry[:1] == [REASON_SOURCE]]
        if len(ours) != 1 or ours[0][1:2] != [user]:
            return False
    return True


def is_command(op: Any) -> bool:
    """Whether an opcode (as luxid gives it) runs a restricted command."""
    return isinstance(op, dict) and op.get("OP_ID") == opcodes.OpRestrictedCommand.OP_ID


def is_others_command(ops: Any, user: str) -> bool:
    """Whether a job of these opcodes runs a restricted command, and is not the user's own."""
    return isinstance(ops, list) and any(map(is_command, ops)) and not is_own(ops, user)


def without_output(fields: Sequence[str], row: Sequence[Any], ops: Any, user: str) -> list[Any]:
    """A row of a job of these opcodes without what the restricted commands of others printed."""
    if not is_others_command(ops, user):
        return list(row)
    return [
        [None if is_command(op) else result for op, result in zip(ops, value or ())] if name == OUTPUT else value
        for name, value in zip(fields, row)
    ]


class OwnJobs:
    """The jobs of one user, as luxid has them; `luxi` is Ganeti's client."""

    def __init__(self, luxi: Any, user: str) -> None:
        self._luxi = luxi
        self._user = user

    def own(self, job_id: Any) -> int | None:
        """The id as a number if the job is the user's own, else None."""
        if isinstance(job_id, bool) or _JOB_ID.fullmatch(str(job_id)) is None:
            return None
        (row,) = self._luxi.QueryJobs([int(job_id)], ["ops"])
        return int(job_id) if row and is_own(row[0], self._user) else None

    def rows(self, fields: Sequence[str]) -> list[list[Any]]:
        """Some fields of all jobs that are the user's own."""
        rows = self._luxi.QueryJobs(None, ["ops", *fields])
        return [row[1:] for row in rows if row and is_own(row[0], self._user)]

    def ids(self) -> list[int]:
        """The ids of all jobs that are the user's own."""
        return [row[0] for row in self.rows(["id"])]


def cut(fields: Sequence[str], row: Sequence[Any], foreign: Callable[[], frozenset[str]]) -> list[Any]:
    """A row of a job without the names of objects that its owner may not see.

    What a job reports can hold more than it was asked for, an allocator's findings for one, or what
    a name has come to mean. `foreign` gives those names; it is asked only if the job says anything.
    """
    said = [value for name, value in zip(fields, row) if name in _TALKATIVE]
    if not any(_texts(said)):
        return list(row)
    names = foreign()
    return [without(value, names) if name in _TALKATIVE else value for name, value in zip(fields, row)]


def without(value: Any, names: frozenset[str]) -> Any:
    """The same value with each of some names taken out of its texts, and all that stands under one."""
    if isinstance(value, str):
        return _WORD.sub(lambda word: "…" if word[0].strip(".-") in names else word[0], value)
    if isinstance(value, (list, tuple)):
        return [without(one, names) for one in value]
    if isinstance(value, dict):
        return {without(key, names): None if key in names else without(one, names) for key, one in value.items()}
    return value


def _texts(value: Any) -> Iterator[str]:
    """All texts in a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _texts(one)
    elif isinstance(value, dict):
        yield from _texts([*value, *value.values()])
