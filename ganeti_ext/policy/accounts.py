# SPDX-License-Identifier: BSD-2-Clause
"""What the tokens of a users-file line grant, worked out once, when the file is loaded."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ganeti_ext.policy.model import BUILTIN, Deny, Policy, Role, Target
from ganeti_ext.policy.vocabulary import BUILTIN_ROLES, PERMISSIONS, PLAIN_ROLES


@dataclass(frozen=True)
class Grants:
    """What some tokens grant to whoever has them, and what is wrong with them.

    `roles` maps each permission to the roles that give it, unscoped ones first, so that a
    decision looks up one permission whatever the number of roles.
    """

    roles: Mapping[str, tuple[Role, ...]]
    problems: tuple[str, ...] = ()


#: What Ganeti's own check has to narrow: an account without a token of ours that a deny can match.
EVERYTHING = Grants(dict.fromkeys(PERMISSIONS, (BUILTIN["admin"],)))


class Account:
    """One user's rights: what his tokens grant, less what the policy's denies take away.

    Roles and denies with `{user}` in them are bound to his name when they are first needed.
    """

    __slots__ = ("user", "grants", "policy", "_roles", "_one_of", "_denies")

    def __init__(self, user: str, grants: Grants, policy: Policy) -> None:
        self.user = user
        self.grants = grants
        self.policy = policy
        self._roles: dict[str, tuple[Role, ...]] = {}
        self._one_of: dict[str, Role | None] = {}
        self._denies: tuple[Deny, ...] | None = None

    def roles(self, permission: str) -> tuple[Role, ...]:
        """The roles that grant a permission, unscoped ones first."""
        try:
            return self._roles[permission]
        except KeyError:
            roles = [self._bind(role) for role in self.grants.roles.get(permission, ())]
            found = self._roles[permission] = tuple(role for role in roles if role is not None)
            return found

    def _bind(self, role: Role) -> Role | None:
        """The user's own role of that name: always the same object."""
        if role.name not in self._one_of:
            self._one_of[role.name] = role.bound(self.user) if role.per_user else role
        return self._one_of[role.name]

    @property
    def denies(self) -> tuple[Deny, ...]:
        """The denies that are about this user."""
        if self._denies is None:
            self._denies = tuple(deny.bound(self.user) for deny in self.policy.denies if deny.concerns(self.user))
        return self._denies

    def denied(self, permissions: Iterable[str], targets: Iterable[Target]) -> Deny | None:
        """The deny that refuses a request, if one does."""
        needed, touched = frozenset(permissions), tuple(targets)
        return next((deny for deny in self.denies if deny.forbids(needed, touched)), None)

    def keeps(self, changes: Iterable[tuple[Target, Target]]) -> Deny | None:
        """The deny that an object would get out of by a change of its name or group, from one to the other.

        Whatever it denies: a deny of removing would otherwise be got round by a new name.
        """
        pairs = tuple(changes)
        return next(
            (deny for deny in self.denies if any(deny.matches(old) and not deny.matches(new) for old, new in pairs)),
            None,
        )

    def hides(self, permission: str, kind: str) -> tuple[Deny, ...]:
        """The denies that take some objects of a kind out of what a permission shows."""
        return tuple(
            deny
            for deny in self.denies
            if permission in deny.permissions and (not deny.objects or kind in deny.objects)
        )


def is_ours(token: str) -> bool:
    """Whether a token of the users file is for us, known or not (design, 3.1)."""
    return token.startswith(("@", "+", "-")) or "." in token or token in PLAIN_ROLES


#: A hint is not worth comparing longer words than this, nor more of them.
_MAX_HINT = 64
_MAX_KNOWN = 1000


def nearest(word: str, words: Iterable[str], text: str = "; did you mean {!r}?") -> str:
    """A hint at the one of `words` that is most like `word`, or nothing."""
    known = sorted(words)
    if len(word) > _MAX_HINT or len(known) > _MAX_KNOWN:
        return ""
    found = difflib.get_close_matches(word, known, n=1)
    return text.format(found[0]) if found else ""


def resolve(tokens: Iterable[str], policy: Policy) -> Grants | None:
    """Works out what a user's tokens grant; None for an account that is Ganeti's alone.

    The rules are those of the design, 3.1. Nothing is ever granted by a token that is not
    known; a permission to be taken away that is not known could be any, so such an account
    is granted nothing at all.
    """
    tokens = tuple(tokens)
    if not any(is_ours(token) for token in tokens):
        return None

    roles: list[Role] = []
    bare: list[str] = []
    removed: set[str] = set()
    problems: list[str] = []
    for token in tokens:
        if token in ("write", "read"):
            roles.append(BUILTIN["admin" if token == "write" else "readonly"])
        elif token in PLAIN_ROLES:
            roles.append(BUILTIN[token])
        elif token.startswith("@"):
            role = BUILTIN.get(token[1:]) or policy.roles.get(token[1:])
            if role is None:
                known = [*BUILTIN, *policy.roles]
                problems.append(f"unknown role {token!r}" + nearest(token[1:], known, "; did you mean '@{}'?"))
            else:
                roles.append(role)
        elif token.startswith("-"):
            if token[1:] in PERMISSIONS:
                removed.add(token[1:])
            else:
                problems.append(
                    f"unknown permission {token!r}, so the account is granted nothing"
                    + nearest(token[1:], PERMISSIONS, "; did you mean '-{}'?")
                )
                return Grants({}, tuple(problems))
        else:
            name = token[1:] if token.startswith("+") else token
            if name in PERMISSIONS:
                bare.append(name)
            else:
                problems.append(f"unknown token {token!r}" + nearest(name, PERMISSIONS))

    scoped = [role for role in roles if role.scope is not None]
    if bare and scoped:
        problems.append(
            f"{', '.join(sorted(bare))} beside the limited role @{scoped[0].name} would mean"
            " the whole cluster: not granted; put it into the role"
        )
    elif bare:
        roles.append(Role("(users file)", frozenset(bare)))

    grants: dict[str, tuple[Role, ...]] = {}
    for role in sorted(dict.fromkeys(roles), key=lambda role: role.scope is not None):
        for permission in role.permissions - removed:
            grants[permission] = (*grants.get(permission, ()), role)
    return Grants(grants, tuple(problems))


def plain(tokens: Iterable[str]) -> Grants:
    """What Ganeti itself gives to an account without a token of ours, as grants.

    Its handlers know `write` for all that changes something and for waiting, `read` for consoles
    and queries beside that, and open all other reads to everybody (`permissions.tsv`).
    """
    tokens = set(tokens)
    if "write" in tokens:
        return EVERYTHING
    permissions = BUILTIN_ROLES["readonly"] - {"jobs.wait", "query.all"}
    if "read" in tokens:
        permissions |= {"query.all", "instances.query.console"}
    return plain_permissions(permissions)


def plain_permissions(permissions: Iterable[str]) -> Grants:
    """The same, by the permissions themselves, where Ganeti knows them."""
    known = frozenset(permissions).intersection(PERMISSIONS)
    role = BUILTIN["admin"] if len(known) == len(PERMISSIONS) else Role("(Ganeti's own)", known)
    return Grants(dict.fromkeys(known, (role,)))


def account_of(user: str, grants: Grants | None, policy: Policy) -> Account | None:
    """The account of a user; None if nothing of ours is about him.

    A user whose tokens are Ganeti's alone has one if a deny is about him (design, 3.1).
    """
    if grants is not None:
        return Account(user, grants, policy)
    if any(deny.concerns(user) for deny in policy.denies):
        return Account(user, EVERYTHING, policy)
    return None
