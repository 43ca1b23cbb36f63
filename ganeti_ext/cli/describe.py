# SPDX-License-Identifier: BSD-2-Clause
"""Roles and their limits in words, for tables and messages."""

from __future__ import annotations

from ganeti_ext.policy.model import KINDS, Role, Selector


def selector_text(selector: Selector) -> str:
    """A selector as a policy has it, shortened to one line."""
    keys = (("name", selector.name), ("tag", selector.tag), ("group", selector.group))
    return " and ".join(f"{key} {', '.join(one.text for one in patterns)}" for key, patterns in keys if patterns)


def scope_text(role: Role) -> str:
    """Where a role holds."""
    if role.scope is None:
        return f"all {role.kind}s" if role.kind else "everything"
    parts = [
        f"{kind}s: {' or '.join(map(selector_text, role.scope.of(kind)))}" for kind in KINDS if role.scope.of(kind)
    ]
    return ("; ".join(parts) or "nothing") + (" (mode: warn)" if role.warn else "")
