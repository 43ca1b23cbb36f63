# SPDX-License-Identifier: BSD-2-Clause
"""The decision: may this account do this to these objects?"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ganeti_ext.policy.accounts import Account
from ganeti_ext.policy.model import Deny, Role, Scope, Target


class Refusal(enum.Enum):
    """Why a request is refused, which decides what its user is told."""

    PERMISSION = "permission"  # he may not do such a thing at all: he is told which
    OUTSIDE = "outside"  # not to these objects: for him they do not exist
    PARAMETER = "parameter"  # not like this: he is told which parameter
    PLACE = "place"  # he must say where
    DENIED = "denied"  # a deny forbids what a role grants


@dataclass(frozen=True)
class Decision:
    """The answer: the role that granted everything, or why none did.

    `rule` names the role or the deny that decided. `places` are the groups that new objects
    must be put into, by their names. `warning` is what a role in mode warn let through.
    """

    role: Role | None
    refusal: Refusal | None = None
    reason: str = ""
    rule: str = ""
    places: Mapping[str, str] = field(default_factory=dict)
    warning: str = ""

    @property
    def allowed(self) -> bool:
        """Whether the request may go on."""
        return self.role is not None


def granting_roles(account: Account, permissions: Sequence[str]) -> Decision | tuple[Role, ...]:
    """The roles of which each grants all of some permissions; a refusal if there is none."""
    roles: tuple[Role, ...] = ()
    for number, permission in enumerate(permissions):
        granting = account.roles(permission)
        if not granting:
            return Decision(None, Refusal.PERMISSION, f"permission {permission} is not granted")
        roles = granting if number == 0 else tuple(role for role in roles if role in granting)
    if roles:
        return roles
    if not permissions:
        return Decision(None, Refusal.PERMISSION, "the request needs no known permission")
    return Decision(None, Refusal.PERMISSION, f"no one role grants {' and '.join(sorted(set(permissions)))} together")


def decide(
    account: Account,
    permissions: Sequence[str],
    targets: Sequence[Target],
    values: Sequence[tuple[str, Any]] = (),
    implied: Sequence[tuple[str, Any]] = (),
) -> Decision:
    """Decides on a request that needs all `permissions`, touches all `targets` and sets `values`.

    One role must grant all of it (design, 3.3): two roles that each grant a half do not add
    up, or the objects of one would be open to the permissions of the other. `values` are pairs of a
    parameter's name and its value; `implied` are those that result without being set.
    """
    roles = granting_roles(account, permissions)
    if isinstance(roles, Decision):
        return roles
    return decide_among(roles, account, permissions, targets, values, implied)


def decide_among(
    roles: Sequence[Role],
    account: Account,
    permissions: Sequence[str],
    targets: Sequence[Target],
    values: Sequence[tuple[str, Any]] = (),
    implied: Sequence[tuple[str, Any]] = (),
) -> Decision:
    """The same among some roles of which each grants all of the permissions."""
    deny = account.denied(permissions, targets) if account.denies else None
    refused: Decision | None = None
    for role in roles:
        decision = _by_role(role, targets, values, implied)
        if decision.role is not None:
            return decision if deny is None else _denied(deny)
        # What is inside of a role and refused by its parameters tells more than what is outside.
        if refused is None or refused.refusal is Refusal.OUTSIDE:
            refused = decision
    assert refused is not None
    for role in roles:
        if role.warn:
            if deny is not None:
                return _denied(deny)
            return Decision(role, None, "mode: warn", f"role {role.name}", warning=refused.reason)
    if refused.refusal is Refusal.OUTSIDE and not all(role.limited for role in roles):
        # A role without a scope hides nothing: its user may know that it is about one kind.
        return Decision(None, Refusal.PERMISSION, refused.reason, refused.rule)
    return refused


def _denied(deny: Deny) -> Decision:
    return Decision(None, Refusal.DENIED, f"{deny.name} forbids it", deny.name)


def _by_role(
    role: Role,
    targets: Sequence[Target],
    values: Sequence[tuple[str, Any]],
    implied: Sequence[tuple[str, Any]],
) -> Decision:
    """What one role says."""
    places: dict[str, str] = {}
    scope = role.scope
    # What is outside comes first: a place that is asked for would tell that the rest is there.
    if not _about(role, [target for target in targets if scope is None or target.groups is not None]):
        return _outside(role, targets)
    for target in targets:
        if scope is not None and target.groups is None:
            place = _place(role, scope, target)
            if isinstance(place, Decision):
                return place
            if place:
                places[target.name] = place
    if role.parameters is not None:
        reason = role.parameters.refusal(values) or role.parameters.refusal_of_implied(implied)
        if reason:
            return Decision(None, Refusal.PARAMETER, f"{reason}, by role {role.name}", f"role {role.name}")
    return Decision(role, None, f"granted by role {role.name}", f"role {role.name}", places)


def _about(role: Role, targets: Sequence[Target]) -> bool:
    """Whether a role is about a request that touches all `targets`.

    What a role about one kind grants concerns objects of that kind, tags aside; a request for one may name
    others, as the connection of a network names a group.
    """
    if role.scope is None and role.kind is not None:
        return any(role.covers(target) for target in targets)
    return all(role.covers(target) for target in targets)


def _place(role: Role, scope: Scope, target: Target) -> Decision | str:
    """The one group that a new instance has to be put into; empty if any will do."""
    if not target.named and not scope.nodes and role.covers(target):
        return ""
    fitting = [group.name for group in target.choices if scope.fits(target, group, role.stamps)]
    if len(fitting) == 1:
        return fitting[0]
    rule = f"role {role.name}"
    if fitting:
        names = ", ".join(sorted(fitting))
        return Decision(None, Refusal.PLACE, f"parameter group_name must name one of {names}, by {rule}", rule)
    if not target.named and scope.nodes and role.covers(target):
        return Decision(None, Refusal.PLACE, f"parameter pnode must name a node that is inside of {rule}", rule)
    return _outside(role, [target])


def _outside(role: Role, targets: Sequence[Target]) -> Decision:
    names = ", ".join(f"{target.kind} {target.name!r}" if target.name else f"the {target.kind}" for target in targets)
    return Decision(None, Refusal.OUTSIDE, f"{names}: outside of role {role.name}", f"role {role.name}")
