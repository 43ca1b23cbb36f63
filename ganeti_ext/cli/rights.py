# SPDX-License-Identifier: BSD-2-Clause
"""What users may do, in words, and how two policies differ in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ganeti_ext.cli.describe import scope_text, selector_text
from ganeti_ext.cli.state import State
from ganeti_ext.policy.accounts import Account
from ganeti_ext.policy.model import KINDS, Deny, Policy, Role

#: Permission -> where it holds, in words; one that is not there is not granted.
Rights = Mapping[str, str]

EVERYWHERE = "everything"


def rights(account: Account) -> Rights:
    """What an account may do, with what its roles are limited to and what denies take out."""
    held: dict[str, str] = {}
    for permission in account.grants.roles:
        roles = account.roles(permission)
        denies = [deny for deny in account.denies if permission in deny.permissions]
        if not roles or any(not deny.objects for deny in denies):
            continue
        places = list(dict.fromkeys(map(scope_text, roles)))
        where = EVERYWHERE if EVERYWHERE in places else " or ".join(places)
        held[permission] = where + "".join(f", but not {deny_text(deny)}" for deny in denies)
    return held


def deny_text(deny: Deny) -> str:
    """What a deny is about."""
    return "; ".join(
        f"{kind}s: {' or '.join(map(selector_text, deny.objects[kind]))}" for kind in KINDS if kind in deny.objects
    )


def changes(before: State, after: State) -> Iterator[tuple[str, list[str]]]:
    """User or role -> lines that say what is another for him: users first, then the limits of roles."""
    for user in sorted({*before.users, *after.users}):
        lines = list(_of_user(_rights_of(before, user), _rights_of(after, user)))
        if lines:
            yield f"user {user}", lines
    for name in sorted({*before.policy.roles, *after.policy.roles}):
        lines = list(_of_role(before.policy, after.policy, name))
        if lines:
            yield f"role {name}", lines


def _rights_of(known: State, user: str) -> Rights:
    return rights(known.account(user)) if user in known.users else {}


def _of_user(before: Rights, after: Rights) -> Iterator[str]:
    """What a user gains, loses, and has elsewhere; permissions of one place together."""
    gained = {name: where for name, where in after.items() if name not in before}
    lost = {name: where for name, where in before.items() if name not in after}
    moved = {name: f"{before[name]} -> {where}" for name, where in after.items() if before.get(name, where) != where}
    for word, what in (("gains", gained), ("loses", lost), ("moves", moved)):
        for where, names in by_place(what).items():
            yield f"{word} {', '.join(names)}  ({where})"


def by_place(held: Rights) -> Mapping[str, list[str]]:
    """Where -> the permissions that hold there."""
    places: dict[str, list[str]] = {}
    for name in sorted(held):
        places.setdefault(held[name], []).append(name)
    return places


def _of_role(before: Policy, after: Policy, name: str) -> Iterator[str]:
    """How the limits of a role change that are about more than where."""
    old, new = before.roles.get(name), after.roles.get(name)
    if old is None or new is None:
        yield "is new" if old is None else "is gone"
        return
    was, becomes = limits(old), limits(new)
    for key in sorted({*was, *becomes}):
        if was.get(key) != becomes.get(key):
            yield f"{key}: {was.get(key, _absent(old, key))} -> {becomes.get(key, _absent(new, key))}"


def _absent(role: Role, key: str) -> str:
    """What it means that a limit is not told."""
    return "not to be set" if key.startswith("parameter ") and role.parameters is not None else "no limit"


def limits(role: Role) -> Mapping[str, str]:
    """All that a role is limited to beside its scope, in words, by what it is."""
    found: dict[str, Any] = {"jobs": "own" if role.own_jobs else "all", "mode": "warn" if role.warn else "enforce"}
    if role.stamps:
        found["tags"] = ", ".join(sorted(role.stamps))
    if role.quota is not None:
        found.update({f"quota {key}": value for key, value in vars(role.quota).items() if value is not None})
    if role.parameters is not None:
        found.update({f"parameter {key}": limit for key, limit in role.parameters.limits.items()})
    return {key: str(value) for key, value in found.items()}


def told(found: Iterable[tuple[str, Sequence[str]]]) -> Iterator[str]:
    """The lines of a difference, for people."""
    for whose, lines in found:
        yield whose
        yield from (f"  {line}" for line in lines)
