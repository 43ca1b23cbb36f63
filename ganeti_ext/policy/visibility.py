# SPDX-License-Identifier: BSD-2-Clause
"""What a permission lets an account see of a kind of objects: for lists and queries."""

from __future__ import annotations

from dataclasses import dataclass

from ganeti_ext.policy.accounts import Account
from ganeti_ext.policy.model import Deny, Role, Target


@dataclass(frozen=True)
class Visibility:
    """What any of the `roles` is about, less what one of the `denies` hides (design, 3.2).

    `roles_see_all` says that one role hides nothing; then `roles` is empty.
    """

    kind: str
    roles_see_all: bool
    roles: tuple[Role, ...]
    denies: tuple[Deny, ...]

    @property
    def everything(self) -> bool:
        """Whether nothing is hidden."""
        return self.roles_see_all and not self.denies

    def sees(self, target: Target) -> bool:
        """Whether the object is shown."""
        if not self.roles_see_all and not any(role.covers(target) for role in self.roles):
            return False
        return not any(not deny.objects or deny.matches(target) for deny in self.denies)

    def may_see(self, name: str) -> bool:
        """Whether an object of that name could be shown, as far as the name tells."""
        return self.roles_see_all or any(
            role.scope is not None and role.scope.may_hold(self.kind, name) for role in self.roles
        )


def visibility(account: Account, permission: str, kind: str) -> Visibility:
    """What `permission` lets an account see of a kind: `instance`, `node`, `group` or `network`."""
    roles = account.roles(permission)
    see_all = any(not role.limited and role.kind in (None, kind) for role in roles)
    limited = () if see_all else tuple(role for role in roles if role.limited)
    return Visibility(kind, see_all, limited, account.hides(permission, kind))
