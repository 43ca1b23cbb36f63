# SPDX-License-Identifier: BSD-2-Clause
"""The decision: may this account do this to these objects?"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from ganeti_ext.policy.accounts import Account
from ganeti_ext.policy.model import Deny, Role, Scope, Target
from ganeti_ext.policy.parameters import LISTED


class Refusal(enum.Enum):
    """Why a request is refused, which decides what its user is told."""

    PERMISSION = "permission"  # he may not do such a thing at all: he is told which
    OUTSIDE = "outside"  # not to these objects: for him they do not exist
    PARAMETER = "parameter"  # not like this: he is told which parameter
    PLACE = "place"  # he must say where
    DENIED = "denied"  # a deny forbids what a role grants


_NOWHERE: Mapping[str, str] = MappingProxyType({})


class Decision(NamedTuple):
    """The answer: the role that granted everything, or why none did.

    `rule` names the role or the deny that decided. `places` are the groups that new objects
    must be put into, by their names. `warning` is what a role in mode warn let through.
    """

    role: Role | None
    refusal: Refusal | None = None
    reason: str = ""
    rule: str = ""
    places: Mapping[str, str] = _NOWHERE
    warning: str = ""

    @property
    def allowed(self) -> bool:
        """Whether the request may go on."""
        return self.role is not None


def granting_roles(account: Account, permissions: Sequence[str]) -> Decision | tuple[Role, ...]:
    """The roles of which each grants all of some permissions; a refusal if there is none."""
    roles: tuple[Role, ...] | None = None
    for permission in permissions:
        granting = account.roles(permission)
        if not granting:
            return Decision(None, Refusal.PERMISSION, f"permission {permission} is not granted")
        roles = granting if roles is None else tuple(role for role in roles if role in granting)
    if roles:
        return roles
    if roles is None:
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
    # Nearly all requests need one permission.
    roles = account.roles(permissions[0]) if len(permissions) == 1 else ()
    if not roles:
        granting = granting_roles(account, permissions)
        if isinstance(granting, Decision):
            return granting
        roles = granting
    return decide_among(roles, account, permissions, targets, values, implied)


def decide_among(
    roles: Sequence[Role],
    account: Account,
    permissions: Sequence[str],
    targets: Sequence[Target],
    values: Sequence[tuple[str, Any]] = (),
    implied: Sequence[tuple[str, Any]] = (),
) -> Decision:
    """The same among some roles, at least one, of which each grants all of the permissions."""
    refused: list[tuple[Role, _Obstacle]] = []
    denied: Deny | None = None
    instance = targets[0].name if targets and targets[0].kind == "instance" else None
    for role in roles:
        if instance is not None and role.scope is not None and not instance.endswith(role.endings):
            refused.append((role, _OUTSIDE))
            continue
        places: dict[str, str] = {}
        obstacle = _obstacle(role, targets, values, implied, places)
        if obstacle is not None:
            refused.append((role, obstacle))
            continue
        deny = _denial(account, role, permissions, targets, places) if account.denies else None
        if deny is None:
            return Decision(role, None, "granted", role.rule, places)
        denied = denied or deny
    for role, obstacle in refused:
        if role.warn and not _stands(role, targets, values):
            deny = _denial(account, role, permissions, targets, _NOWHERE) if account.denies else None
            if deny is None:
                return Decision(role, None, "mode: warn", role.rule, _NOWHERE, obstacle.reason(role, targets))
            denied = denied or deny
    if denied is not None:
        return Decision(None, Refusal.DENIED, f"{denied.name} forbids it", denied.name)
    return _refusal(refused, targets)


class _Obstacle(NamedTuple):
    """Why one role does not grant a request. Told in words only if no other role does."""

    refusal: Refusal
    text: str = ""

    def reason(self, role: Role, targets: Iterable[Target]) -> str:
        """The same in words."""
        if self.refusal is not Refusal.OUTSIDE:
            return f"{self.text}, by role {role.name}"
        names = (f"{target.kind} {target.name!r}" if target.name else f"the {target.kind}" for target in targets)
        return f"{', '.join(names)}: outside of role {role.name}"


_OUTSIDE = _Obstacle(Refusal.OUTSIDE)


def _obstacle(
    role: Role,
    targets: Sequence[Target],
    values: Sequence[tuple[str, Any]],
    implied: Sequence[tuple[str, Any]],
    places: dict[str, str],
) -> _Obstacle | None:
    """What keeps a role from granting a request; notes in `places` where new objects have to go."""
    obstacle = None
    if role.scope is not None:
        obstacle = _outside(role, role.scope, targets, places)
    elif role.kind is not None and targets and not any(role.covers(target) for target in targets):
        # One that is about its kind may name others, too: a network is connected to a group.
        obstacle = _OUTSIDE
    if obstacle is not None:
        return obstacle
    if (values or implied) and role.parameters is not None:
        refusal = role.parameters.refusal(values) or role.parameters.refusal_of_implied(implied)
        if refusal:
            return _Obstacle(Refusal.PARAMETER, refusal)
    elif values and _unlisted(role, values):
        return _Obstacle(Refusal.PARAMETER, "parameter command may only be set to what is listed: nothing is")
    return None


def _unlisted(role: Role, values: Iterable[tuple[str, Any]]) -> bool:
    """Whether something is set that a role would have to list, and does not."""
    known = role.parameters
    return any(name in LISTED and (known is None or known.refusal([(name, value)]) != "") for name, value in values)


def _outside(role: Role, scope: Scope, targets: Sequence[Target], places: dict[str, str]) -> _Obstacle | None:
    """What is outside of a scope, or has to be put inside."""
    unplaced = []
    for target in targets:
        inside = scope.holds(target, role.stamps)
        # Where nobody has chosen its nodes yet, they have to be inside, too, if the scope names any.
        if target.groups is None and (scope.nodes or target.named or not inside):
            unplaced.append(target)
        elif not inside:
            return _OUTSIDE
    # What is outside comes first: a place that is asked for would tell that the rest is there.
    for target in unplaced:
        obstacle = _place(role, scope, target, places)
        if obstacle is not None:
            return obstacle
    return None


def _place(role: Role, scope: Scope, target: Target, places: dict[str, str]) -> _Obstacle | None:
    """Notes the one group where a new object is inside of the role, if the allocator is to choose its nodes.

    A node that is yet to be chosen is no new object: all of its group have to be inside.
    """
    if target.kind == "node":
        if not scope.nodes or all(scope.holds_nodes_of(group.name) for group in target.choices):
            return None
        return _Obstacle(Refusal.PLACE, "parameters target_node or remote_node must name a node of the role")
    fitting = [group.name for group in target.choices if scope.fits(target, group, role.stamps)]
    if fitting and target.several:
        return _Obstacle(
            Refusal.PLACE,
            "parameter pnode must name a node, or each be created alone: Ganeti chooses their groups freely",
        )
    if len(fitting) == 1:
        places[target.name] = fitting[0]
        return None
    if fitting:
        return _Obstacle(Refusal.PLACE, f"parameter group_name must name one of {', '.join(sorted(fitting))}")
    if scope.nodes and not target.named and role.covers(target):
        return _Obstacle(Refusal.PLACE, "parameter pnode must name a node of the role")
    return _OUTSIDE


def _denial(
    account: Account,
    role: Role,
    permissions: Sequence[str],
    targets: Sequence[Target],
    places: Mapping[str, str],
) -> Deny | None:
    """The deny that forbids what a role would grant: with the tags and the group that it gives to new objects."""
    touched = []
    for target in targets:
        tags = target.tags | role.stamps if target.new else target.tags
        groups = target.groups
        if groups is None and target.name in places:
            groups = frozenset([places[target.name]])
        elif groups is None and target.named:
            groups = frozenset(group.name for group in target.choices)
        touched.append(target._replace(tags=tags, groups=groups))
    return account.denied(permissions, touched)


def _stands(role: Role, targets: Iterable[Target], values: Sequence[tuple[str, Any]]) -> bool:
    """Whether something is refused that mode warn does not lift.

    What is in no scope at all, protected tags, and commands that are not listed.
    """
    if not all(role.covers_all(target.kind) for target in targets) or _unlisted(role, values):
        return True
    return role.parameters is not None and role.parameters.protection(values) != ""


def _refusal(refused: Sequence[tuple[Role, _Obstacle]], targets: Sequence[Target]) -> Decision:
    """The refusal to be told: what is inside of a role and refused by a parameter tells more than what is outside."""
    inside = [one for one in refused if one[1].refusal is not Refusal.OUTSIDE]
    role, obstacle = (inside or refused)[0]
    kind = obstacle.refusal
    if kind is Refusal.OUTSIDE and not any(role.scope is not None for role, _ in refused):
        kind = Refusal.PERMISSION  # roles without a scope hide nothing: each is about one kind of object
    return Decision(None, kind, obstacle.reason(role, targets), role.rule)
