# SPDX-License-Identifier: BSD-2-Clause
"""`gnt-ext replay`: what a new policy would have decided about requests of the audit trail."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ganeti_ext.cli import ask, state, text, trail
from ganeti_ext.cli.state import State, StateError
from ganeti_ext.cli.trail import Record
from ganeti_ext.policy.decision import decide
from ganeti_ext.policy.model import KINDS, Target
from ganeti_ext.policy.vocabulary import PERMISSIONS

#: What the trail does not tell, and so this command does not know.
UNKNOWN = (
    "Decided by user, permission and objects alone, on objects as they are today. The trail keeps no bodies: what"
    " limits on parameters, quotas, the choice of a place, or what else a request leads to would say is not known,"
    " nor are reads that were allowed, unless the policy asks for them (audit: {reads: true})."
)

#: Permissions whose object is made by the request.
_NEW = ("instances.create", "instances.multi_alloc", "groups.create", "networks.create")

Objects = Mapping[tuple[str, str], Target]


class Change(NamedTuple):
    """Requests of one kind that would be decided otherwise; `record` is the id of the last."""

    user: str
    permission: str
    objects: str
    times: int
    before: str
    after: str
    record: str


def replay(opts: Any, args: Sequence[str]) -> int:
    """Tells what would change; 1 if anything does."""
    since = trail.start_of(opts.since, time.time()) if opts.since is not None else ""
    before = state.load()
    after = state.load(args[0] if args else None, opts.users_file)
    for remark in dict.fromkeys(filter(None, (before.remark, after.remark))):
        text.err(f"Note: {remark}")
    wanted = (one for one in trail.records(since) if opts.user in (None, one.get("user")))
    recorded = not args and opts.users_file is None
    found, looked, passed = compare(wanted, None if recorded else before, after, _objects(opts))
    if opts.output == "json":
        text.out(json.dumps([one._asdict() for one in found], indent=2))
    else:
        for one in found:
            times = f"{one.times} times, last" if one.times > 1 else "once,"
            where = f" {one.objects}" if one.objects else ""
            text.out(text.line(f"{one.user}: {one.permission}{where} ({times} {one.record})"))
            text.out(text.line(f"  was  {one.before}"))
            text.out(text.line(f"  now  {one.after}"))
    text.err(
        f"{sum(one.times for one in found)} of {looked} requests would be decided otherwise; {passed} not looked at"
    )
    text.err(UNKNOWN)
    return 1 if found else 0


def _objects(opts: Any) -> Objects:
    """All that there is on this cluster; nothing, with a note, where nobody can be asked."""
    if opts.offline:
        return {}
    try:
        every = state.all_objects(state.luxi_client(), KINDS)
    except StateError as err:
        text.err(f"Note: tags and groups are not known: {err}")
        return {}
    return {(one.kind, one.name): one for objects in every.values() for one in objects}


def compare(
    records: Iterable[Record], before: State | None, after: State, objects: Objects
) -> tuple[list[Change], int, int]:
    """The changes, how many records were looked at, and how many could not be.

    Without `before` it is what the trail says: then a request that was refused for its parameters looks as if it
    were allowed now.
    """
    groups = tuple(one for (kind, _), one in objects.items() if kind == "group")
    found: dict[tuple[str, str, str, bool], Change] = {}
    answers: dict[tuple[int, str, str, str], tuple[bool, str]] = {}
    looked = passed = 0

    def decided(known: State, user: str, permission: str, names: Sequence[tuple[str, str]]) -> tuple[bool, str]:
        key = (id(known), user, permission, repr(names))
        if key not in answers:
            if user not in known.users:
                answers[key] = False, "no: the users file has no such user"
            else:
                touched = [_target(objects, groups, permission, kind, name) for kind, name in names]
                decision = decide(known.account(user), (permission,), touched)
                answers[key] = decision.allowed, ask.answer(decision)
        return answers[key]

    for record in records:
        user, permission, names = _request_of(record)
        if permission is None:
            passed += 1
            continue
        looked += 1
        new, now = decided(after, user, permission, names)
        if before is not None:
            old, was = decided(before, user, permission, names)
        else:
            old = record.get("decision") != "deny"
            was = f"yes: {record.get('rule')}" if old else f"no: {record.get('reason') or record.get('rule')}"
        if old == new:
            continue
        shown = ", ".join(f"{kind} {name}" for kind, name in names)
        group = (user, permission, shown, old)
        times = found[group].times + 1 if group in found else 1
        found[group] = Change(user, permission, shown, times, was, now, str(record.get("id", "")))
    return list(found.values()), looked, passed


def _request_of(record: Record) -> tuple[str, str | None, list[tuple[str, str]]]:
    """User, permission and objects of a record; no permission where there is nothing to be decided again.

    That is one without a right password, one that ended in an error of the request, and one whose list of objects
    was cut.
    """
    user, permission, objects = record.get("user"), record.get("permission"), record.get("objects") or {}
    undecided = record.get("status") in (401, 429) or record.get("decision") == "error" or record.get("cut")
    if not isinstance(user, str) or permission not in PERMISSIONS or undecided or not isinstance(objects, dict):
        return "", None, []
    names = [(str(kind), str(name)) for kind, some in objects.items() if isinstance(some, list) for name in some]
    return user, str(permission), [pair for pair in names if pair[0] != "job"]


def _target(objects: Objects, groups: tuple[Target, ...], permission: str, kind: str, name: str) -> Target:
    known = objects.get((kind, name))
    if kind == "cluster" or known is not None:
        return known or Target(kind, "")
    new = permission in _NEW
    if new and kind == "instance" and groups:
        return Target(kind, name, groups=None, new=True, choices=groups)
    # As `on` of a policy's own test: in a group that no policy names.
    return Target(kind, name, groups=frozenset([""]), new=new)
