# SPDX-License-Identifier: BSD-2-Clause
"""`gnt-ext roles`, `permissions` and `users`: what there is, as tables."""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable, Sequence
from typing import Any

from ganeti import cli

from ganeti_ext.cli import state, text
from ganeti_ext.cli.describe import scope_text
from ganeti_ext.cli.state import State
from ganeti_ext.policy.accounts import resolve
from ganeti_ext.policy.model import BUILTIN
from ganeti_ext.policy.vocabulary import NEVER_SCOPED, PERMISSIONS

_SCHEME = re.compile(r"\{(\w+)\}.*", re.DOTALL)


def load(opts: Any) -> State:
    """The state that the options ask for; what has to be said about it is told."""
    known = state.load(opts.policy_file, opts.users_file)
    if known.remark:
        text.err(f"Note: {known.remark}")
    return known


def show(opts: Any, fields: Sequence[str], rows: Iterable[Sequence[str]], names: Sequence[str] = ()) -> None:
    """Writes a table in the form of Ganeti's other commands; `names` are columns that are called as they are."""
    headers = None if opts.no_headers else {**{one: one.capitalize() for one in fields}, **{one: one for one in names}}
    fields = [*fields, *names]
    data = [[text.line(cell) or "-" for cell in row] for row in rows]
    for line in cli.GenerateTable(headers, list(fields), opts.separator, data):
        text.out(line)


def roles(opts: Any, args: Sequence[str]) -> int:
    """The roles, built-in ones first."""
    known = load(opts)
    having = collections.Counter(token for user in known.users.values() for token in set(user.tokens or ()))
    rows = []
    for role in (*BUILTIN.values(), *known.policy.roles.values()):
        token = role.name if role.kind else f"@{role.name}"
        rows.append([token, str(len(role.permissions)), str(having[token]), scope_text(role), role.description])
    show(opts, ["role", "permissions", "users", "where", "description"], rows)
    return 0


def permissions(opts: Any, args: Sequence[str]) -> int:
    """The permissions, with the roles of the policy that hold them."""
    known = load(opts)
    rows = []
    for name, about in PERMISSIONS.items():
        holding = [f"@{role.name}" for role in known.policy.roles.values() if name in role.permissions]
        rows.append([name, "no" if name in NEVER_SCOPED else "yes", ",".join(holding), about])
    show(opts, ["permission", "limitable", "roles", "meaning"], rows)
    return 0


def users(opts: Any, args: Sequence[str]) -> int:
    """The users, without their passwords."""
    known = load(opts)
    rows = []
    for user in known.users.values():
        tokens = user.tokens or ()
        grants = resolve(tokens, known.policy)
        scheme = _SCHEME.fullmatch(user.password)
        held = "Ganeti's own" if grants is None else str(len(grants.roles))
        problems = "; ".join(grants.problems) if grants is not None else ""
        rows.append([user.name, scheme[1].upper() if scheme else "plain", ",".join(tokens), held, problems])
    show(opts, ["user", "password", "options", "permissions", "problems"], rows)
    return 0
