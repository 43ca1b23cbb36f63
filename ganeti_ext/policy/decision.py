# SPDX-License-Identifier: BSD-2-Clause
"""The decision: may this account do this to these objects?"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from ganeti_ext.policy.accounts import Account
from ganeti_ext.policy.model import Role


class Refusal(enum.Enum):
    """Why a request is refused, which decides what its user is told."""

    PERMISSION = "permission"  # he may not do such a thing at all: he is told which
    OUTSIDE = "outside"  # not to these objects: for him they do not exist


@dataclass(frozen=True)
class Decision:
    """The answer: the role that granted everything, or why none did."""

    role: Role | None
    refusal: Refusal | None = None
    reason: str = ""

    @property
    def allowed(self) -> bool:
        """Whether the request may go on."""
        return self.role is not None


def decide(account: Account, permissions: Iterable[str], objects: Iterable[tuple[str, str]]) -> Decision:
    """Decides on a request that needs all `permissions` and touches all `objects`.

    One role must grant all of it (design, 3.3): two roles that each grant a half do not add
    up, or the objects of one would be open to the permissions of the other. `objects` are
    (kind, name) pairs.
    """
    needed = list(permissions)
    roles: list[Role] = []
    for number, permission in enumerate(needed):
        granting = account.grants.get(permission, ())
        if not granting:
            return Decision(None, Refusal.PERMISSION, f"permission {permission} is not granted")
        roles = list(granting) if number == 0 else [role for role in roles if role in granting]
    if not roles:
        if not needed:
            return Decision(None, Refusal.PERMISSION, "the request needs no known permission")
        return Decision(None, Refusal.PERMISSION, f"no one role grants {' and '.join(sorted(set(needed)))} together")

    touched = list(objects)
    for role in roles:
        if all(role.covers(kind, name) for kind, name in touched):
            return Decision(role, reason=f"granted by role {role.name}")
    # A role without a scope hides nothing: its user may know that it is about one kind.
    refusal = Refusal.OUTSIDE if any(role.scope is not None for role in roles) else Refusal.PERMISSION
    names = ", ".join(f"{kind} {name!r}" if name else f"the {kind}" for kind, name in touched)
    return Decision(None, refusal, f"{names}: outside of role {', '.join(role.name for role in roles)}")
