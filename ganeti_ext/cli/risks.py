# SPDX-License-Identifier: BSD-2-Clause
"""What a grant amounts to that does not say so."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet

from ganeti_ext.policy.accounts import Account
from ganeti_ext.policy.model import KINDS, Role

#: Permissions that are as good as root by themselves, whatever the parameters.
_ALONE = {
    "cluster.modify": "it sets the cluster's hvparams and programs",
    "filter.create": "a filter stops anybody's jobs",
    "filter.modify": "a filter stops anybody's jobs",
}

#: Parameter (what lies below it included) -> the permissions that set it, and what it can do.
_PARAMETERS = {
    "hvparams": (("instances.create", "instances.modify"), "hvparams name files and programs of the node"),
    "ndparams": (("nodes.modify", "groups.create", "groups.modify"), "ndparams name a program that runs as root"),
    "disks.adopt": (("instances.create", "instances.recreate_disks"), "disks.adopt takes any volume of the node"),
    "disks.provider": (("instances.create", "instances.modify"), "disks.provider runs scripts on the node"),
    "nics.link": (("instances.create", "instances.modify"), "nics.link reaches any network of the node"),
    "changes": (("nodes.storage.modify",), "it changes the node's own storage"),
}

#: Values of `mode` -> the same.
_MODES = {
    "import": (("instances.create",), "an import reads what lies on a node"),
    "remote-import": (("instances.create",), "an import takes what another cluster sends"),
    "remote": (("instances.export.create",), "an export goes to any other cluster"),
}


def root_reasons(role: Role, held: AbstractSet[str] | None = None) -> list[str]:
    """Why a role is as good as root on a node, or may be; nothing if it is not.

    `held` is what an account has of the role's permissions; None is all of them. `admin` is as good as
    root: nobody has to be told.
    """
    if role.name == "admin":
        return []
    held = role.permissions if held is None else held
    found = [f"{name} ({why})" for name, why in _ALONE.items() if name in held]
    for parameter, (permissions, why) in _PARAMETERS.items():
        by = [name for name in permissions if name in held]
        if by and _may_set(role, parameter):
            found.append(f"{' and '.join(by)} ({why})")
    for mode, (permissions, why) in _MODES.items():
        by = [name for name in permissions if name in held]
        if by and _may_set(role, "mode", mode):
            found.append(f"{' and '.join(by)} ({why})")
    return found


def held_of(account: Account, role: Role) -> frozenset[str]:
    """What an account has of a role's permissions: less what its line, or a deny whatever the object, takes away."""
    denied = {name for deny in account.denies if not deny.objects for name in deny.permissions}
    return frozenset(name for name, roles in account.grants.roles.items() if role in roles) - denied


def _may_set(role: Role, parameter: str, value: str | None = None) -> bool:
    """Whether a role may set a parameter to a value, or one that is it or below it to what it likes.

    Values that a role lists one by one were thought about.
    """
    if role.parameters is None or role.warn:
        return True
    for name, limit in role.parameters.limits.items():
        if name == parameter and value is not None:
            return limit.allows(value)
        below = name == parameter or name.startswith(parameter + ".")
        if below and (limit.anything or not all(pattern.literal for pattern in limit.texts)):
            return True
    return False


def tag_reasons(account: Account) -> Iterator[str]:
    """The roles and denies that go by a tag which the user may change himself.

    Roles with a scope never change a tag that the policy goes by; beside them, a role without one
    does (design, 3.2).
    """
    for kind in KINDS:
        free = [
            role.name
            for permission in ("tags.set", "tags.delete", *(["instances.create"] if kind == "instance" else []))
            for role in account.roles(permission)
            if role.scope is None and role.kind in (None, kind) and role.parameters is None
        ]
        if not free:
            continue
        roles = {role for granting in account.grants.roles.values() for role in granting if role.scope is not None}
        for role in sorted(roles, key=lambda one: one.name):
            if role.scope is not None and any(one.tag for one in role.scope.of(kind)):
                yield f"role {role.name} goes by tags of {kind}s, which role {free[0]} lets him change"
        for deny in account.denies:
            if any(one.tag for one in deny.objects.get(kind, ())):
                yield f"{deny.name} goes by tags of {kind}s, which role {free[0]} lets him change"
