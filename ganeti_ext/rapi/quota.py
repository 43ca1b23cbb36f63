# SPDX-License-Identifier: BSD-2-Clause
"""Quotas: what a role's scope holds, what queued jobs will add, and whether there is room for more."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ganeti import constants, pathutils

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
    moving: bool = False

    @property
    def disk(self) -> int:
        """All its disks together, in MiB."""
        return sum(self.disks) + self.growth


def size_after(op: Mapping[str, Any], before: Size | None, defaults: Mapping[str, Any]) -> Size:
    """How much an instance is once an opcode (as Ganeti stores it) has run.

    `before` is None for one that it makes; `defaults` are the cluster's `beparams`. What is only
    taken away does not count before the job has run.
    """
    size = Size() if before is None else dataclasses.replace(before, disks=list(before.disks))
    wanted = op.get("beparams") or {}
    size.vcpus = _most(wanted, ("vcpus",), defaults, size.vcpus, before is None)
    # The old name wins over the new ones where both are said.
    size.memory = _most(wanted, ("memory", "maxmem"), defaults, size.memory, before is None)
    kind = op.get("OP_ID")
    if kind == "OP_INSTANCE_GROW_DISK":
        _grow(size, int(op["disk"]), int(op["amount"]), bool(op.get("absolute")))
        return size
    for entry in op.get("disks") or ():
        parts = list(entry) if isinstance(entry, (list, tuple)) else [entry]
        settings = parts[-1] if isinstance(parts[-1], Mapping) else {}
        amount = int(settings.get("size") or 0)
        if kind == "OP_INSTANCE_CREATE" or parts[0] == "add":
            size.disks.append(amount)
        elif kind == "OP_INSTANCE_RECREATE_DISKS" and len(parts) > 1 and amount:
            _grow(size, int(parts[0]), amount, True)
        size.moving = size.moving or parts[0] in ("add", "remove", "attach", "detach")
    return size


def _most(wanted: Mapping[str, Any], keys: tuple[str, ...], defaults: Mapping[str, Any], before: int, new: bool) -> int:
    """The largest that a parameter of many names may come to; none and `default` mean the cluster's."""
    default = int(defaults.get(keys[-1], 1))
    values = [wanted[key] for key in keys if key in wanted]
    said = [default if value in (None, constants.VALUE_DEFAULT) else int(value) for value in values]
    return max([*said, before, *([default] if new and not said else [])])


def _grow(size: Size, disk: int, amount: int, absolute: bool) -> None:
    """A disk grows by, or to, an amount; it never counts as less than before."""
    if not absolute:
        size.growth += amount
    elif size.moving:
        size.growth += max(0, amount - min(size.disks, default=0))
    elif disk < len(size.disks):
        size.disks[disk] = max(amount, size.disks[disk])


_COUNTED = (
    "OP_INSTANCE_CREATE",
    "OP_INSTANCE_SET_PARAMS",
    "OP_INSTANCE_GROW_DISK",
    "OP_INSTANCE_RECREATE_DISKS",
)


def changes_size(op: Mapping[str, Any]) -> bool:
    """Whether an opcode (as Ganeti stores it) may add to what a scope holds."""
    return op.get("OP_ID") in (*_COUNTED, "OP_INSTANCE_MULTI_ALLOC")


def _sized(ops: Any) -> Iterator[Mapping[str, Any]]:
    """The opcodes of a job, nested ones too, that add to an instance."""
    for op in ops or ():
        if op.get("OP_ID") == "OP_INSTANCE_MULTI_ALLOC":
            yield from _sized(op.get("instances"))
        elif op.get("OP_ID") in _COUNTED:
            yield op


class Counter:
    """Counts for one role of one user; `luxi` is Ganeti's client."""

    def __init__(self, luxi: Any, role: Role) -> None:
        self._luxi = luxi
        self._role = role

    def check(self, ops: list[Mapping[str, Any]]) -> None:
        """Checks that there is room for what some opcodes (as Ganeti stores them) add.

        Each creation counts for itself, also of a name that there is: by the time it runs the other
        may have been renamed.

        Raises QuotaExceeded. Call it within `locked`, and submit there, too.
        """
        quota = self._role.quota
        assert quota is not None
        # The queue first: what finishes in between is then counted twice at worst, never not at all.
        queued = [
            (op, row[0] == constants.JOB_STATUS_RUNNING)
            for row in self._luxi.QueryJobs(None, ["status", "ops"])
            if row and row[0] in _UNFINISHED
            for op in _sized(row[1])
        ]
        sizes = self._sizes()
        defaults = self._luxi.QueryClusterInfo()["beparams"]["default"]
        coming: list[Size] = []
        for op, running in queued:
            if op.get("OP_ID") != "OP_INSTANCE_CREATE":
                _change(op, sizes, defaults)
            elif self._will_hold(op) and not (running and op.get("instance_name") in sizes):
                coming.append(size_after(op, None, defaults))
        before = _total([*sizes.values(), *coming])
        for op in _sized(ops):
            if op.get("OP_ID") != "OP_INSTANCE_CREATE":
                _change(op, sizes, defaults)
            else:
                coming.append(size_after(op, None, defaults))
        after = _total([*sizes.values(), *coming])
        for name, text in (
            ("instances", "instances"),
            ("vcpus", "vcpus"),
            ("memory", "MiB of memory"),
            ("disk", "MiB of disk"),
        ):
            limit = getattr(quota, name)
            if limit is not None and getattr(after, name) > limit and getattr(after, name) > getattr(before, name):
                raise QuotaExceeded(
                    f"quota: {getattr(before, name)} of {limit} {text} are taken,"
                    f" and this needs {getattr(after, name) - getattr(before, name)}"
                )

    def _sizes(self) -> dict[str, Size]:
        """The instances that the role is about, by name."""
        fields = FIELDS["instance"]
        rows = plain_rows(self._luxi.Query(constants.QR_INSTANCE, [*fields, *_USAGE_FIELDS], None))
        return {
            row[0]: Size(row[len(fields)] or 0, row[len(fields) + 1] or 0, list(row[len(fields) + 2] or ()))
            for row in rows
            if self._role.covers(target_of("instance", row))
        }

    def _will_hold(self, op: Mapping[str, Any]) -> bool:
        """Whether the role will be about an instance that a queued job makes.

        Where its place is not known yet, it counts.
        """
        tags = frozenset(tag for tag in op.get("tags") or () if isinstance(tag, str))
        target = Target("instance", str(op.get("instance_name")), tags, None)
        scope = self._role.scope
        return scope is None or any(selector.may_match(target) for selector in scope.instances)


def _change(op: Mapping[str, Any], sizes: dict[str, Size], defaults: Mapping[str, Any]) -> None:
    name = str(op.get("instance_name"))
    if name in sizes:
        sizes[name] = size_after(op, sizes[name], defaults)


@dataclass
class _Total:
    instances: int
    vcpus: int
    memory: int
    disk: int


def _total(sizes: Sequence[Size]) -> _Total:
    return _Total(len(sizes), sum(s.vcpus for s in sizes), sum(s.memory for s in sizes), sum(s.disk for s in sizes))


@contextlib.contextmanager
def locked(
    path: str = LOCK_FILE,
    timeout: float = LOCK_TIMEOUT,
    _sleep_fn: Callable[[float], None] = time.sleep,
    _clock_fn: Callable[[], float] = time.monotonic,
) -> Iterator[None]:
    """Keeps all other requests with a quota out, between the count and the submission.

    Raises QuotaBusy after `timeout` seconds, OSError if the lock cannot be had at all.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
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
