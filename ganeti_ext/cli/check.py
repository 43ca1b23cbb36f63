# SPDX-License-Identifier: BSD-2-Clause
"""`gnt-ext check`: all that is wrong with a policy and the users file, and what is legal but hardly meant."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ganeti import pathutils

from ganeti_ext.cli import state, text
from ganeti_ext.cli.describe import selector_text
from ganeti_ext.cli.risks import held_of, root_reasons, tag_reasons
from ganeti_ext.cli.state import Line, StateError
from ganeti_ext.errors import ExtError
from ganeti_ext.policy.accounts import Account, is_ours, nearest, plain, resolve
from ganeti_ext.policy.loader import load_policy
from ganeti_ext.policy.model import KINDS, Policy, Role, Target
from ganeti_ext.policy.selftest import failures
from ganeti_ext.policy.strict_yaml import PolicyError
from ganeti_ext.policy.vocabulary import PERMISSIONS, PLAIN_ROLES
from ganeti_ext.rapi.access import LAST_GOOD_FILE, POLICY_FILE, read_policy_file

ERROR, WARNING, NOTE = "error", "warning", "note"

#: Where YAML sees the end of a line.
LINE_END = re.compile("\r\n|[\n\r\x85\u2028\u2029]")

#: Of a long line so many characters before the caret, and in all.
_BEFORE, _SHOWN = 60, 100


class Finding(NamedTuple):
    """Something to be told. `line` and `column` count from 1, 0 is no place; `shown` is the line."""

    source: str
    line: int
    column: int
    severity: str
    message: str
    shown: str = ""


def check(opts: Any, args: Sequence[str]) -> int:
    """Tells everything; 1 if there is an error."""
    if opts.ganeti_rbac:
        from ganeti_ext.cli import rbac  # which tells things as we do

        return rbac.tell(args[0] if args else None, opts.users_file)
    findings = list(examine(args[0] if args else None, opts.users_file, objects_here(opts.offline)))
    for finding in sorted(findings, key=lambda one: (one.source, one.line, one.column)):
        for line in told(finding):
            text.out(line)
    errors_, warnings = (sum(one.severity == kind for one in findings) for kind in (ERROR, WARNING))
    text.err(f"{errors_} error{'s' * (errors_ != 1)}, {warnings} warning{'s' * (warnings != 1)}")
    return 1 if errors_ else 0


def told(finding: Finding) -> Iterator[str]:
    """The lines in which a finding is told: place, message, and the line itself with a caret."""
    place = "".join(f"{number}:" for number in (finding.line, finding.column) if number)
    yield f"{finding.source}:{place} {finding.severity}: {text.line(finding.message)}"
    if not finding.shown.strip():
        return
    start = max(0, finding.column - 1 - _BEFORE)
    before = text.escaped(finding.shown[start : max(finding.column - 1, 0)].replace("\t", " "))
    after = text.escaped(finding.shown[max(finding.column - 1, 0) :][:_SHOWN].replace("\t", " "))
    cut = "…" if start else ""
    yield f"    {cut}{before}{after}"
    if finding.column:
        yield "    " + " " * len(cut + before) + "^"


def objects_here(offline: bool = False) -> Mapping[str, Sequence[Target]] | None:
    """What there is on this cluster; None, with a note unless it is not wanted, where nobody can be asked."""
    if offline:
        return None
    try:
        return state.all_objects(state.luxi_client(), KINDS)
    except StateError as err:
        text.err(f"Note: scopes are not compared with the cluster: {err}")
        return None


def examine(
    path: str | None, users_file: str | None, objects: Mapping[str, Sequence[Target]] | None
) -> Iterator[Finding]:
    """All findings about a policy (that in force if none is named) and a users file.

    `objects` are those of the cluster by their kind, if they are known.
    """
    users_source = users_file or pathutils.RAPI_USERS_FILE
    lines: list[Line] = []
    try:
        lines = state.read_users(users_file)
    except StateError as err:
        yield Finding(users_source, 0, 0, ERROR, str(err))
    yield from _of_lines(lines, users_source)
    source = path or POLICY_FILE
    data: bytes | None = None
    try:
        if os.path.abspath(source) == POLICY_FILE:
            data = read_policy_file(source)
            unreadable = state.unreadable(source)
            if unreadable:
                yield Finding(source, 0, 0, ERROR, unreadable)
        else:
            data, complaint = state.read_draft(source)
            if complaint:
                yield Finding(source, 0, 0, WARNING, f"would not be taken like this: {complaint}")
    except FileNotFoundError:
        if os.path.lexists(LAST_GOOD_FILE):
            yield Finding(source, 0, 0, ERROR, f"has vanished; to go without a policy, remove {LAST_GOOD_FILE}, too")
        else:
            yield from _of_users(lines, users_source, Policy())  # without a policy is fine, too
        return
    except OSError as err:
        hint = ": the daemon follows no link" if os.path.islink(source) else ""
        yield Finding(source, 0, 0, ERROR, f"cannot be read: {err.strerror}{hint}")
        return
    except ExtError as err:
        yield Finding(source, 0, 0, ERROR, str(err))
        return
    text_lines = LINE_END.split(data.decode("utf-8", "replace"))

    def at(line: int, column: int, severity: str, message: str) -> Finding:
        return Finding(source, line, column, severity, message, text_lines[line - 1] if line else "")

    try:
        policy = load_policy(data, source)
    except PolicyError as err:
        for problem in err.problems:
            yield at(problem.line, problem.column, ERROR, problem.message)
        return
    users = state.by_name(lines)
    for problem in failures(policy, lambda name: state.grants_of(users, name, policy)):
        yield at(problem.line, problem.column, ERROR, problem.message)
    yield from _of_users(lines, users_source, policy)
    for role, message in _of_roles(policy, users.values(), objects):
        yield at(role.line, text_lines[role.line - 1].find(role.name) + 1, WARNING, f"role {role.name}: {message}")


# --- the users file ----------------------------------------------------------------------


def shown(line: Line) -> str:
    """As much of a line as may be seen: everything but the password."""
    return f"{line.name} … {','.join(line.tokens or ())}"


def _of_lines(lines: Iterable[Line], source: str) -> Iterator[Finding]:
    """What is wrong with lines whatever the policy is."""
    seen: dict[str, int] = {}
    for line in lines:
        if line.tokens is None:
            yield Finding(source, line.number, 0, WARNING, "name and password are needed: Ganeti ignores this line")
            continue
        if line.name in seen:
            message = f"user {line.name!r} stands in line {seen[line.name]}, too: Ganeti takes the last one"
            yield Finding(source, line.number, 1, WARNING, message, shown(line))
        seen[line.name] = line.number
        if not line.tokens and _could_be_tokens(line.password):
            message = f"user {line.name!r} has no password: what looks like his roles is taken for it"
            yield Finding(source, line.number, 0, WARNING, message)
        for place, token in with_places(line):
            if "#" in token or any(char.isspace() for char in token):
                message = f"{token!r} is one token: Ganeti knows no comments at the end of a line"
                yield Finding(source, line.number, place, WARNING, message, shown(line))


def _could_be_tokens(password: str) -> bool:
    """Whether all of it are words that the third column knows."""
    words = {*PERMISSIONS, *PLAIN_ROLES, "read", "write"}
    return all(part.startswith("@") or part.lstrip("+-") in words for part in password.split(","))


def with_places(line: Line) -> Iterator[tuple[int, str]]:
    """Each token, with its column in what is shown of the line."""
    place = len(line.name) + 4
    for token in line.tokens or ():
        yield place, token
        place += len(token) + 1


def _of_users(lines: Iterable[Line], source: str, policy: Policy) -> Iterator[Finding]:
    """What is wrong with users, by a policy."""
    for line in state.by_name(lines).values():
        tokens = line.tokens or ()

        def at(word: str, message: str, line: Line = line) -> Finding:
            place = next((place for place, token in with_places(line) if token == word), 0)
            return Finding(source, line.number, place, WARNING, f"user {line.name!r}: {message}", shown(line))

        grants = resolve(tokens, policy)
        if grants is not None:
            for problem in grants.problems:
                yield at(_token_of(problem, tokens), problem)
        for token in tokens:
            if token and not is_ours(token) and token not in ("read", "write") and "#" not in token:
                hint = nearest(token, ("read", "write", *PLAIN_ROLES))
                yield at(token, f"unknown option {token!r}: it grants nothing, unless a middleware knows it{hint}")
        account = Account(line.name, grants or plain(tokens), policy)
        for reason in tag_reasons(account):
            yield at("", reason)
        if grants is None:
            continue
        roles = list(dict.fromkeys(role for granting in grants.roles.values() for role in granting))
        for role in roles:
            if role.name in policy.roles and role.bound(line.name) is None:
                yield at(f"@{role.name}", f"his name cannot stand for {{user}} in role {role.name}: it grants nothing")
            reasons = root_reasons(role, held_of(account, role)) if role.name not in policy.roles else []
            if reasons:
                word = role.name if role.name in tokens else f"@{role.name}"
                yield at(word, f"as good as root on a node by {role.name}: {'; '.join(reasons)}")


def _token_of(problem: str, tokens: Sequence[str]) -> str:
    """The token that a problem of `resolve` is about; "" if it cannot be told."""
    places = [
        (problem.find(form), token)
        for token in tokens
        for form in (repr(token), token.lstrip("+") + " ", token.lstrip("+") + ",")
        if form in problem
    ]
    return min(places, default=(0, ""))[1]


# --- roles -------------------------------------------------------------------------------


def _of_roles(
    policy: Policy, users: Iterable[Line], objects: Mapping[str, Sequence[Target]] | None
) -> Iterator[tuple[Role, str]]:
    """What is legal in a role, but hardly meant."""
    having: dict[str, list[str]] = {}
    for user in users:
        for token in user.tokens or ():
            having.setdefault(token, []).append(user.name)
    for role in policy.roles.values():
        holders = having.get(f"@{role.name}", [])
        if not holders:
            yield role, "nobody has it"
        if role.warn:
            yield role, "mode: warn lets through what its scope and parameters forbid"
        reasons = root_reasons(role)
        if reasons:
            yield role, f"as good as root on a node: {'; '.join(reasons)}"
        if objects is not None and role.scope is not None:
            for message in _matching_nothing(role, holders, objects):
                yield role, message


def _matching_nothing(role: Role, holders: Iterable[str], objects: Mapping[str, Sequence[Target]]) -> Iterator[str]:
    """The selectors of a scope that pick no object, for none of the users who have the role."""
    bound = [role.bound(user) for user in holders] if role.per_user else [role]
    scopes = [one.scope for one in bound if one is not None and one.scope is not None]
    if role.scope is None or not scopes:
        return
    for kind in KINDS:
        for number, selector in enumerate(role.scope.of(kind)):
            picks = (scope.of(kind)[number] for scope in scopes)
            if not any(one.matches(target, target.tags) for one in picks for target in objects[kind]):
                count = len(objects[kind])
                yield f"the scope's {kind}s ({selector_text(selector)}) match none of the {count} on this cluster"
