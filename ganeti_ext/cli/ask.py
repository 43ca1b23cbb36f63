# SPDX-License-Identifier: BSD-2-Clause
"""`gnt-ext can` and `who-can`: the decision for one permission, by the daemon's own code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ganeti import errors

from ganeti_ext.cli import state, tables, text
from ganeti_ext.cli.describe import scope_text
from ganeti_ext.cli.state import StateError
from ganeti_ext.policy.accounts import Account, nearest
from ganeti_ext.policy.decision import Decision, decide
from ganeti_ext.policy.model import KINDS, Target
from ganeti_ext.policy.vocabulary import PERMISSIONS


def can(opts: Any, args: Sequence[str]) -> int:
    """Whether a user may do something: 0 for yes, 1 for no; or all that he may do."""
    known = tables.load(opts)
    account = known.account(args[0])
    for problem in account.grants.problems:
        text.err(f"Note: user {account.user!r}: {problem}")
    if opts.list:
        if len(args) > 1 or opts.body is not None:
            raise errors.OpPrereqError("--list tells about all permissions", errors.ECODE_INVAL)
        tables.show(opts, ["permission", "role", "where", "remark"], list_all(account))
        return 0
    if len(args) < 2:
        raise errors.OpPrereqError("Name a permission, or give --list", errors.ECODE_INVAL)
    permission = known_permission(args[1])
    if opts.body is not None:
        from ganeti_ext.cli import explain  # which needs this module

        if opts.offline:
            raise errors.OpPrereqError("A request with a body is decided on the live cluster", errors.ECODE_INVAL)
        kind, name = named(permission, args[2]) if len(args) > 2 else ("", "")
        return explain.can_request(known, args[0], explain.request_of(permission, kind, name), opts.body)
    decision = decide(account, (permission,), targets(opts, permission, args[2:]))
    text.out(answer(decision, everywhere=len(args) == 2))
    return 0 if decision.allowed else 1


def who_can(opts: Any, args: Sequence[str]) -> int:
    """Who may do something; 1 if nobody may."""
    known = tables.load(opts)
    permission = known_permission(args[0])
    touched = targets(opts, permission, args[1:])
    rows = []
    for name in sorted(known.users):
        decision = decide(known.account(name), (permission,), touched)
        if decision.role is not None:
            rows.append([name, decision.role.name, scope_text(decision.role), decision.warning])
    tables.show(opts, ["user", "role", "where", "remark"], rows)
    return 0 if rows else 1


def known_permission(name: str) -> str:
    """The same name. Raises errors.OpPrereqError if it is no permission."""
    if name not in PERMISSIONS:
        raise errors.OpPrereqError(f"There is no permission {name!r}" + nearest(name, PERMISSIONS), errors.ECODE_INVAL)
    return name


def answer(decision: Decision, everywhere: bool = False) -> str:
    """A decision in a line; `everywhere` adds where it holds, if no object was named."""
    if decision.role is None:
        return f"no: {decision.reason}"
    where = f", on {scope_text(decision.role)}" if everywhere else ""
    places = "".join(f", in group {group}" for group in decision.places.values())
    warning = f" (mode: warn lets through: {decision.warning})" if decision.warning else ""
    return f"yes: {decision.rule}{where}{places}{warning}"


def list_all(account: Account) -> list[list[str]]:
    """Rows of permission, role, where it holds, and what denies take away."""
    rows = []
    for permission in PERMISSIONS:
        denies = [deny.name for deny in account.denies if permission in deny.permissions]
        rows += [[permission, role.name, scope_text(role), ", ".join(denies)] for role in account.roles(permission)]
    return rows


def targets(opts: Any, permission: str, objects: Sequence[str]) -> list[Target]:
    """The objects that are named, with what luxid knows of them.

    Raises errors.OpPrereqError for a kind that is not known.
    """
    if not objects:
        return []
    try:
        client = None if opts.offline else state.luxi_client()
    except StateError as err:
        client = None
        text.err(f"Note: tags and groups are not known: {err}")
    return [_target(client, permission, one) for one in objects]


def named(permission: str, words: str) -> tuple[str, str]:
    """Kind and name of an object, as it is written; the cluster has no name.

    Raises errors.OpPrereqError for a kind that is not known.
    """
    kind, colon, name = words.partition(":")
    if not colon:
        name, kind = words, permission.partition(".")[0][:-1]
        kind = kind if kind in KINDS else "instance"
    if kind not in KINDS and (kind, name) != ("cluster", ""):
        raise errors.OpPrereqError(f"{kind!r} is none of {', '.join(KINDS)} or cluster", errors.ECODE_INVAL)
    return kind, name


def _target(client: Any, permission: str, words: str) -> Target:
    kind, name = named(permission, words)
    if kind == "cluster":
        return Target(kind, "")
    new = permission in ("instances.create", "instances.multi_alloc", "groups.create", "networks.create")
    if client is not None:
        from ganeti_ext.rapi.lookup import Lookup, NotThere

        lookup = Lookup(client)
        try:
            return lookup.one(kind, name).target
        except NotThere:
            if new and kind == "instance":
                return Target(kind, name, groups=None, new=True, choices=lookup.groups())
            if not new:
                text.err(f"Note: this cluster has no {kind} of exactly that name: it is decided by the name alone")
    # As `on` of a policy's own test: in a group that no policy names.
    return Target(kind, name, groups=frozenset([""]), new=new)
