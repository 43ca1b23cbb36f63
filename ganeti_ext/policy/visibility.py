# SPDX-License-Identifier: BSD-2-Clause
"""What a user sees of a kind of objects: the decision on reads, for whole lists at once."""

from __future__ import annotations

from dataclasses import dataclass

from ganeti_ext.policy.accounts import Account
from ganeti_ext.policy.model import Deny, Role, Target


@dataclass(frozen=True)
class Visibility:
    """The objects of one kind that a permission shows to an account.

    It is what `decide` says of each of them, in a form from which a filter can be made.
    """

    kind: str
    #: Whether some role shows all of them.
    unlimited: bool
    #: The roles that show what their scope holds; none where they do not matter.
    roles: tuple[Role, ...]
    #: The denies that hide some, or all.
    denies: tuple[Deny, ...]

    @property
    def everything(self) -> bool:
        """Whether nothing is hidden."""
        return self.unlimited and not self.denies

    @property
    def nothing(self) -> bool:
        """Whether everything is hidden, whatever there is."""
        return not (self.unlimited or self.roles) or any(not deny.objects for deny in self.denies)

    def sees(self, target: Target) -> bool:
        """Whether one object is shown; one of another kind never is."""
        if target.kind != self.kind or not (self.unlimited or any(role.covers(target) for role in self.roles)):
            return False
        return not any(not deny.objects or deny.matches(target) for deny in self.denies)

    def may_see(self, name: str) -> bool:
        """Whether an object of that name could be shown, as far as the name tells."""
        return self.unlimited or any(
            role.scope is not None and role.scope.may_hold(self.kind, name) for role in self.roles
        )


def visibility(account: Account, permission: str, kind: str) -> Visibility:
    """What an account sees of a kind (Ganeti's word for it) by a permission; a role in mode warn hides nothing."""
    granting = account.roles(permission)
    unlimited = any(role.covers_all(kind) for role in granting)
    # A role without a scope that is not about all objects of the kind is about none of them.
    roles = () if unlimited else tuple(role for role in granting if role.scope is not None)
    return Visibility(kind, unlimited, roles, account.hides(permission, kind))
