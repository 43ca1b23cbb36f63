# SPDX-License-Identifier: BSD-2-Clause
"""`gnt-ext check --for-ganeti-rbac`: what the accounts would be under Ganeti's own access control, without us.

Its rules are those that its developers have agreed on (pull request 1934 of ganeti/ganeti); no release has them
yet. A test compares them with its sources, where it is given some.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ganeti import pathutils
from ganeti.rapi import connector

from ganeti_ext.cli import check, state, text
from ganeti_ext.cli.check import ERROR, NOTE, WARNING, Finding
from ganeti_ext.cli.state import Line, State
from ganeti_ext.policy.accounts import Account, plain, resolve
from ganeti_ext.policy.model import Policy, Role
from ganeti_ext.policy.vocabulary import BUILTIN_ROLES, PERMISSIONS, RESTRICTED_COMMAND
from ganeti_ext.rapi.access import LAST_GOOD_FILE, POLICY_FILE
from ganeti_ext.rapi.opcodes import RULES, Rule
from ganeti_ext.rapi.permissions import permission_of, walk
from ganeti_ext.rapi.quota import has_limits
from ganeti_ext.rapi.restricted import USERS_FILE

#: Ganeti's permissions.
ALL = frozenset(PERMISSIONS) - {RESTRICTED_COMMAND}

_READONLY = BUILTIN_ROLES["readonly"] - {"jobs.wait", "nodes.storage.query"}

#: Its roles; there are no others, and nobody can make one.
ROLES = {
    "admin": ALL,
    "readonly": _READONLY,
    "operator": _READONLY | (BUILTIN_ROLES["operator"] - BUILTIN_ROLES["readonly"]),
}

#: The old words -> what it makes of them.
ALIASES = {"read": "readonly", "write": "admin", "all": "admin"}

#: The password schemes that it knows; a password without one is plain.
_SCHEMES = ("{CLEARTEXT}", "{HA1}")

#: What needs a second permission here, and comes with the first one there: permission, the second, what it is.
PARTS = (
    ("instances.export.create", "instances.remove", "remove the instance that he exports (remove_instance)"),
    ("instances.migrate", "instances.failover", "fail an instance over in place of migrating it (allow_failover)"),
    ("instances.multi_alloc", "instances.create", "create instances, several at once"),
    ("instances.create", "tags.set", "put tags on what he creates"),
    ("networks.create", "tags.set", "put tags on what he creates"),
)


def granted_there(tokens: Iterable[str]) -> frozenset[str]:
    """What Ganeti's own access control grants for a third column; words that mean nothing to it included.

    Roles first, then single permissions, then what `-` takes away, wherever each of them stands.
    """
    granted: set[str] = set()
    removed: set[str] = set()
    for token in tokens:
        if token.startswith("@"):
            granted |= ROLES.get(token[1:], frozenset())
        elif token.startswith("-"):
            removed.add(token[1:])
        elif token.startswith("+"):
            granted.add(token[1:])
        elif token in ALIASES:
            granted |= ROLES[ALIASES[token]]
        else:
            granted.add(token)
    return frozenset(granted - removed)


class Verdict(NamedTuple):
    """How an account differs there: permissions, but for `stays`, which are things in words."""

    #: Not granted here.
    gains: Sequence[str]
    #: Granted here on some objects, and there on all.
    wider: Sequence[str]
    loses: Sequence[str]
    #: What no third column can say there.
    stays: Sequence[str]
    #: What to write, to mean the same both here and there; "" if there is no need, None if there is nothing.
    line: str | None
    #: What comes with a permission there even so, in words.
    more: Sequence[str]


def verdict(tokens: Sequence[str], account: Account) -> Verdict:
    """What would become of an account with this third column."""
    there = granted_there(tokens) & ALL
    somewhere = {name for name in account.grants.roles if account.roles(name)}
    somewhere -= {name for deny in account.denies if not deny.objects for name in deny.permissions}
    everywhere = {name for name in somewhere if any(_whole(role, name) for role in account.roles(name))}
    everywhere -= {name for deny in account.denies for name in deny.permissions}
    gains = sorted(there - somewhere)
    wider = sorted(there & somewhere - everywhere)
    loses = sorted(somewhere - there - {RESTRICTED_COMMAND})
    stays = list(_limits(account, somewhere))
    line: str | None = ""
    if stays and stays != [_COMMANDS]:
        line = None
    elif gains or wider or loses:
        line = line_for(somewhere)
    after = there if line is None else somewhere & ALL
    more = [
        f"with {permission} he could {what}: here that needs {other}"
        for permission, other, what in PARTS
        if permission in after & somewhere and other not in after
    ]
    return Verdict(gains, wider, loses, stays, line, more)


def _whole(role: Role, permission: str) -> bool:
    """Whether a role grants a permission on the whole cluster; tags are not of one kind of object alone."""
    return role.scope is None and (role.kind is None or permission.startswith(role.kind))


def _limits(account: Account, held: Iterable[str]) -> Iterator[str]:
    """What limits an account here, or is granted to it, that has no name there."""
    limited = {}
    for name in sorted(held):
        roles = account.roles(name)
        if not any(_whole(role, name) and not limits_of(role) for role in roles):
            limited.update(dict.fromkeys(roles, name))
    for role, name in limited.items():
        yield f"role {role.name} has {limits_of(role)}" if role.kind is None else f"{name} of {role.kind}s alone"
    touched = _touched(held)
    moves = any(rule.moves for name in held for rule in _rules().get(name, ()))
    for deny in account.denies:
        if deny.objects and (moves or deny.permissions & touched):
            yield f"{deny.name} is about some objects"
        elif not deny.objects and deny.permissions & touched:
            yield f"{deny.name} forbids what does the same on the way, too"
    if any(role.parameters and "command" in role.parameters.limits for role in account.roles(RESTRICTED_COMMAND)):
        yield _COMMANDS


@functools.cache
def _rules() -> Mapping[str, Sequence[Rule]]:
    """Permission -> what is known of the opcodes that need it."""
    found: dict[str, list[Rule]] = {}
    for resource, method in walk(connector.CONNECTOR):
        name = getattr(getattr(resource, f"{method}_OPCODE", None), "__name__", "")
        found.setdefault(permission_of(resource, method) or "", []).append(RULES.get(name, Rule()))
    return found


def _touched(held: Iterable[str]) -> set[str]:
    """The permissions that a deny can forbid to whoever has some: those, and what their opcodes do on the way."""
    held = set(held)
    touched = held.union(*(rule.does for name in held for rule in _rules().get(name, ())))
    # An export may stop the instance (`opcodes.done_by`).
    return touched | {"instances.shutdown"} if "instances.export.create" in held else touched


#: To those there is no line: they are another thing.
_COMMANDS = "restricted commands through the remote API"


def limits_of(role: Role) -> str:
    """What a role of a policy is beside its permissions, in words."""
    found = {
        "a scope": role.scope is not None,
        "limits on parameters": role.parameters is not None,
        "a quota": has_limits(role.quota),
        "tags that it puts on what it makes": bool(role.tags),
        "own jobs alone": role.own_jobs,
    }
    return ", ".join(words for words, there in found.items() if there)


def line_for(wanted: Iterable[str]) -> str:
    """The shortest third column that grants just these permissions, by this package and by Ganeti's own rules."""
    wanted = frozenset(wanted)
    columns = [sorted(wanted & ALL)]
    for name, there in ROLES.items():
        added, removed = wanted & ALL - there, (BUILTIN_ROLES[name] | there) - wanted
        columns.append([f"@{name}", *(f"+{one}" for one in sorted(added)), *(f"-{one}" for one in sorted(removed))])
    shortest = min(columns, key=len)
    return ",".join(shortest)


# --- what is told ------------------------------------------------------------------------


def tell(policy_file: str | None, users_file: str | None) -> int:
    """Tells it of each account and of the policy; 0 if all accounts mean the same there, else 1. Raises ExtError."""
    known = state.load(policy_file, users_file)
    source = policy_file or POLICY_FILE
    if known.remark:
        text.err(f"Note: {known.remark}")
        source = LAST_GOOD_FILE
    found = [*of_policy(known.policy, source), *of_users(known, users_file or pathutils.RAPI_USERS_FILE)]
    if os.path.lexists(USERS_FILE):
        found.append(Finding(USERS_FILE, 0, 0, ERROR, "there are no restricted commands through the remote API there"))
    for finding in found:
        for line in check.told(finding):
            text.out(line)
    severities = [finding.severity for finding in found]
    moved = sum(finding.severity == NOTE for finding in found)
    text.err(f"{moved} of {len(known.users)} accounts mean the same under Ganeti's own access control")
    return 0 if set(severities) <= {NOTE} else 1


def of_policy(policy: Policy, source: str) -> Iterator[Finding]:
    """What of a policy has nothing that it could become."""
    lines: list[str] = []
    if policy.roles or policy.denies or policy.tests:
        with open(source, encoding="utf-8", errors="replace") as file:
            lines = check.LINE_END.split(file.read())

    def at(line: int, word: str, severity: str, message: str) -> Finding:
        return Finding(source, line, lines[line - 1].find(word) + 1, severity, message, lines[line - 1])

    for role in policy.roles.values():
        words = limits_of(role)
        if words:
            yield at(role.line, role.name, ERROR, f"role {role.name}: cannot be moved: it has {words}")
        else:
            message = f"role {role.name} is not known there: its permissions go into the lines of those who have it"
            yield at(role.line, role.name, WARNING, message)
    for deny in policy.denies:
        yield at(deny.line, lines[deny.line - 1].strip()[:1], ERROR, "cannot be moved: there are no denies there")
    for test in policy.tests[:1]:
        count = len(policy.tests)
        message = f"nothing runs {'this test' if count == 1 else f'these {count} tests'} there"
        yield at(test.line, lines[test.line - 1].strip()[:1], WARNING, message)


def of_users(known: State, source: str) -> Iterator[Finding]:
    """What would become of each account, and what to write in its place."""
    for user in known.users.values():
        tokens = user.tokens or ()
        one = verdict(tokens, known.account(user.name))
        told = list(_in_words(one, user))
        severity = NOTE if not told else ERROR if one.gains or one.wider or one.stays or one.more else WARNING
        message = "; ".join(told) or "means the same there"
        column = _place(user, one, known.policy) if any(one) else 0
        yield Finding(source, user.number, column, severity, f"user {user.name!r}: {message}", check.shown(user))


def _in_words(one: Verdict, user: Line) -> Iterator[str]:
    if one.gains:
        yield f"would gain {_names(one.gains)}"
    if one.wider:
        yield f"would have on the whole cluster {_names(one.wider)}"
    if one.loses:
        yield f"would lose {_names(one.loses)}"
    if one.stays:
        yield f"cannot be moved: {'; '.join(one.stays)}"
    if one.line:
        yield f"write {one.line}"
    elif one.line is not None and (one.gains or one.wider or one.loses):
        yield "he is granted nothing here: remove him"
    yield from one.more
    if user.password.startswith("{") and not user.password.upper().startswith(_SCHEMES):
        yield "his password is not known there: give him one as {HA1}"


#: So many permissions are told by their names.
_MOST_NAMES = 12


def _names(permissions: Sequence[str]) -> str:
    if len(permissions) <= _MOST_NAMES:
        return ", ".join(permissions)
    return f"{', '.join(permissions[:_MOST_NAMES])} and {len(permissions) - _MOST_NAMES} more"


def _place(user: Line, one: Verdict, policy: Policy) -> int:
    """The column of the word that gives him more there, or else of the first that means something else."""
    more = {*one.gains, *one.wider}
    words = list(check.with_places(user))
    for place, token in words:
        if more & granted_there([token]):
            return place
    for place, token in words:
        here = resolve([token], policy) or plain([token])
        if set(here.roles) & ALL != granted_there([token]) & ALL:
            return place
    return words[0][0] if words else 1
