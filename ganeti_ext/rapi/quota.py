# SPDX-License-Identifier: BSD-2-Clause
"""Quotas: what a role's scope holds, what queued jobs will add, and whether there is room for more."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ganeti import constants, errors, pathutils, utils

from ganeti_ext.errors import ExtError
from ganeti_ext.policy.model import Quota, Role, Target
from ganeti_ext.rapi.lookup import FIELDS, plain_rows, target_of

#: Only the daemon's user can write there.
LOCK_FILE = pathutils.RAPI_DATA_DIR + "/quota.lock"

#: Seconds that a request waits for another one to be counted and submitted.
LOCK_TIMEOUT = 10.0

#: States of a job that may still add something.
_UNFINISHED = frozenset(
    {
        constants.JOB_STATUS_QUEUED,
        constants.JOB_STATUS_WAITING,
        constants.JOB_STATUS_CANCELING,
        constants.JOB_STATUS_RUNNING,
    }
)

#: What is limited -> what it is counted in.
_UNITS = {"instances": "instances", "vcpus": "vcpus", "memory": "MiB of memory", "disk": "MiB of disk"}

_USAGE_FIELDS = ("be/vcpus", "be/maxmem", "disk.sizes")


class QuotaExceeded(ExtError):
    """There is no room for what a request would add; its text says of what."""


class QuotaBusy(ExtError):
    """Other requests were being counted for too long."""


@dataclass
class Size:
    """How much one instance is: processors, MiB of memory, and MiB of each disk."""

    vcpus: int = 0
    memory: int = 0
    disks: list[int] = field(default_factory=list)
    #: MiB by which one or the other of them will grow.
    growth: int = 0
    #: Whether jobs are to add or remove disks, so that a number may come to mean another one.
    moving: bool = field(default=False, compare=False)

    @property
    def disk(self) -> int:
        """All its disks together, in MiB."""
        return sum(self.disks) + self.growth


def size_after(op: Mapping[str, Any], before: Size | None, defaults: Mapping[str, Any]) -> Size:
    """How much an instance is once an opcode (as Ganeti stores it) has run.

    `before` is None for one that it makes; `defaults` are the cluster's `beparams`. What is only
    taken away does not count before the job has run: it may fail.
    """
    wanted = op.get("beparams") or {}
    # Ganeti lets the old name overwrite the new one, unless it is null or `default`: the most counts.
    memory = [wanted[key] for key in ("memory", "maxmem") if key in wanted] or [None] * (before is None)
    size = Size() if before is None else dataclasses.replace(before, disks=list(before.disks))
    if before is None or "vcpus" in wanted:  # null is the cluster's default, too
        size.vcpus = max(size.vcpus, _amount(wanted.get("vcpus"), defaults.get("vcpus", 1)))
    size.memory = max([size.memory, *(_amount(one, defaults.get("maxmem", 0)) for one in memory)])
    if op.get("OP_ID") == "OP_INSTANCE_GROW_DISK":
        _grow(size, _amount(op.get("disk"), 0), _amount(op.get("amount"), 0), bool(op.get("absolute")))
        return size
    for entry in op.get("disks") or ():
        settings = entry[-1] if isinstance(entry, (list, tuple)) and entry else entry
        if not isinstance(settings, Mapping):
            continue
        wanted_size = _amount(settings.get("size"), 0)
        if settings is entry or entry[0] == constants.DDM_ADD:
            size.disks.append(wanted_size)
        elif op.get("OP_ID") == "OP_INSTANCE_RECREATE_DISKS":
            _grow(size, _amount(entry[0], 0), wanted_size, absolute=True)
        size.moving = size.moving or (settings is not entry and isinstance(entry[0], str))
    return size


def _grow(size: Size, disk: int, amount: int, absolute: bool) -> None:
    """A disk grows by, or to, an amount; it never counts as less than before."""
    if size.moving:
        size.growth += max(0, amount - min(size.disks, default=0)) if absolute else amount
    elif disk < len(size.disks):
        size.disks[disk] = max(size.disks[disk], amount if absolute else size.disks[disk] + amount)


def _amount(wanted: Any, default: Any) -> int:
    """A number or size as Ganeti will read it; none for what it cannot read, whose job will fail."""
    if wanted is None or wanted == constants.VALUE_DEFAULT:
        wanted = default
    try:
        return max(0, int(wanted))
    except (TypeError, ValueError, OverflowError):
        pass
    try:
        return int(utils.ParseUnit(wanted))
    except errors.GenericError:
        return 0


def _larger(one: Size, other: Size) -> Size:
    """Of each kind the larger amount."""
    disks = max(one, other, key=lambda size: size.disk).disks
    moving = one.moving or other.moving
    return Size(max(one.vcpus, other.vcpus), max(one.memory, other.memory), disks, one.growth + other.growth, moving)


#: What may make the instances of a scope more or larger.
_ADDING = frozenset(
    {"OP_INSTANCE_CREATE", "OP_INSTANCE_SET_PARAMS", "OP_INSTANCE_GROW_DISK", "OP_INSTANCE_RECREATE_DISKS"}
)


def changes_size(op: Mapping[str, Any]) -> bool:
    """Whether an opcode (as Ganeti stores it) may add to what a scope holds.

    A rename may: it frees a name that a queued creation is waiting for.
    """
    return op.get("OP_ID") in _ADDING or op.get("OP_ID") in ("OP_INSTANCE_MULTI_ALLOC", "OP_INSTANCE_RENAME")


def _counted(ops: Any) -> Iterator[Mapping[str, Any]]:
    """The opcodes of a job, nested ones too, that matter for the count."""
    for op in ops or ():
        if op.get("OP_ID") == "OP_INSTANCE_MULTI_ALLOC":
            yield from _counted(op.get("instances"))
        elif op.get("OP_ID") in _ADDING or op.get("OP_ID") == "OP_INSTANCE_RENAME":
            yield op


class Counter:
    """Counts for one role of one user; `luxi` is Ganeti's client."""

    def __init__(self, luxi: Any, role: Role) -> None:
        self._luxi = luxi
        self._role = role

    def check(self, ops: list[Mapping[str, Any]]) -> None:
        """Checks that there is room for what some opcodes (as Ganeti stores them) add.

        Raises QuotaExceeded. Call it within `locked`, and submit there, too.
        """
        quota = self._role.quota or Quota()
        # The queue first: what finishes in between is then counted twice at worst, never not at all.
        queued = [
            (op, row[0] == constants.JOB_STATUS_RUNNING)
            for row in self._luxi.QueryJobs(None, ["status", "ops"])
            if row and row[0] in _UNFINISHED
            for op in _counted(row[1])
        ]
        defaults = self._luxi.QueryClusterInfo()["beparams"]["default"]
        there = self._instances()
        before = self._total(there, queued, [], defaults)
        after = self._total(there, queued, list(_counted(ops)), defaults)
        for name, text in _UNITS.items():
            limit = getattr(quota, name)
            if limit is not None and getattr(after, name) > limit and getattr(after, name) > getattr(before, name):
                raise QuotaExceeded(
                    f"quota: {getattr(before, name)} of {limit} {text} are taken,"
                    f" and this needs {getattr(after, name) - getattr(before, name)}"
                )

    def _instances(self) -> list[_Instance]:
        """The instances that the role is about."""
        fields = FIELDS["instance"]
        rows = plain_rows(self._luxi.Query(constants.QR_INSTANCE, [*fields, *_USAGE_FIELDS], None))
        return [
            _Instance(
                {row[0]}, Size(row[len(fields)] or 0, row[len(fields) + 1] or 0, list(row[len(fields) + 2] or ()))
            )
            for row in rows
            if self._role.covers(target_of("instance", row))
        ]

    def _total(
        self,
        there: Sequence[_Instance],
        queued: Sequence[tuple[Mapping[str, Any], bool]],
        asked: Sequence[Mapping[str, Any]],
        defaults: Mapping[str, Any],
    ) -> _Total:
        """What there is, once some opcodes have run; of queued ones with whether their job runs."""
        counted = [_Instance(set(one.names), one.size) for one in there]
        every = [(op, running, False) for op, running in queued] + [(op, False, True) for op in asked]
        # Renames first: whichever is asked for first, a creation may run when the name is free.
        every.sort(key=lambda one: one[0].get("OP_ID") != "OP_INSTANCE_RENAME")
        for op, running, new in every:
            name = str(op.get("instance_name"))
            called_so = [one for one in counted if name in one.names]
            if op.get("OP_ID") == "OP_INSTANCE_CREATE":
                size = size_after(op, None, defaults)
                # The name is taken: by what this has made, or this fails, or that is removed first.
                same = next((one for one in called_so if running or one.names == {name}), None)
                if same is not None:
                    same.size = _larger(same.size, size)
                elif new or self._will_hold(op):
                    counted.append(_Instance({name}, size))
                continue
            for one in called_so:
                if op.get("OP_ID") == "OP_INSTANCE_RENAME":
                    one.names.add(str(op.get("new_name")))
                else:
                    one.size = size_after(op, one.size, defaults)
        return _total(counted)

    def _will_hold(self, op: Mapping[str, Any]) -> bool:
        """Whether the role will be about an instance that a queued job makes.

        Where its place is not known yet, it counts.
        """
        tags = frozenset(tag for tag in op.get("tags") or () if isinstance(tag, str))
        target = Target("instance", str(op.get("instance_name")), tags, None)
        scope = self._role.scope
        return scope is None or any(selector.may_match(target) for selector in scope.instances)


@dataclass
class _Instance:
    """One that counts, with each name that it has or gets, should the queued job not fail."""

    names: set[str]
    size: Size


class _Total(NamedTuple):
    instances: int
    vcpus: int
    memory: int
    disk: int


def _total(counted: Sequence[_Instance]) -> _Total:
    every = [one.size for one in counted]
    return _Total(len(every), sum(s.vcpus for s in every), sum(s.memory for s in every), sum(s.disk for s in every))


@contextlib.contextmanager
def locked(
    path: str = LOCK_FILE,
    timeout: float = LOCK_TIMEOUT,
    _sleep_fn: Callable[[float], None] = time.sleep,
    _clock_fn: Callable[[], float] = time.monotonic,
) -> Iterator[None]:
    """Keeps all other requests that are counted out, between the count and the submission.

    Raises QuotaBusy after `timeout` seconds, or if the lock cannot be had at all.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as err:
        logging.error("Requests cannot be counted: %s", err)
        raise QuotaBusy("requests cannot be counted: the log of the daemon says why") from err
    try:
        deadline = _clock_fn() + timeout
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if _clock_fn() > deadline:
                    raise QuotaBusy("other requests are being counted: try again") from None
                _sleep_fn(0.02)
        yield
    finally:
        os.close(descriptor)


def has_limits(quota: Quota | None) -> bool:
    """Whether a quota limits anything."""
    return quota is not None and quota != Quota()
