# SPDX-License-Identifier: BSD-2-Clause
"""What a user is told about himself: his roles, permissions and limits, and nothing of others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ganeti_ext.policy.accounts import Account
from ganeti_ext.policy.model import KINDS, Role, Selector


def view(account: Account, tokens: Sequence[str]) -> dict[str, Any]:
    """His own account; `tokens` are the third column of his line.

    What a deny forbids altogether is left out. One that is about some objects is not told, for it may name what is
    not his to know of; nor is what is wrong with his tokens, for the hints name other roles.
    """
    forbidden = {permission for deny in account.denies if not deny.objects for permission in deny.permissions}
    granted: dict[Role, list[str]] = {}
    for permission in sorted(set(account.grants.roles) - forbidden):
        for role in account.roles(permission):
            granted.setdefault(role, []).append(permission)
    return {
        "user": account.user,
        "options": [token for token in tokens if token],
        "permissions": sorted({permission for names in granted.values() for permission in names}),
        "roles": [_role(role, names) for role, names in granted.items()],
    }


def _role(role: Role, permissions: list[str]) -> dict[str, Any]:
    """One role, with what it is limited to; null is no limit."""
    scope = role.scope
    return {
        "name": role.name,
        "description": role.description,
        "permissions": permissions,
        "scope": None if scope is None else {f"{kind}s": [_selector(one) for one in scope.of(kind)] for kind in KINDS},
        "parameters": (
            None if role.parameters is None else {name: str(one) for name, one in role.parameters.limits.items()}
        ),
        "tags": sorted(role.stamps),
        "jobs": "own" if role.own_jobs else "all",
        "quota": None if role.quota is None else dict(vars(role.quota)),
        "mode": "warn" if role.warn else "enforce",
    }


def _selector(selector: Selector) -> dict[str, list[str]]:
    keys = (("name", selector.name), ("tag", selector.tag), ("group", selector.group))
    return {key: [one.text for one in patterns] for key, patterns in keys if patterns}
