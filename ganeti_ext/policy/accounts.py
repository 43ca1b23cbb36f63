# SPDX-License-Identifier: BSD-2-Clause
"""What the tokens of a users-file line grant, worked out once, when the file is loaded."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ganeti_ext.policy.model import BUILTIN, Policy, Role
from ganeti_ext.policy.vocabulary import PERMISSIONS, PLAIN_ROLES


@dataclass(frozen=True)
class Account:
    """What a user with a token of ours may do, and what was wrong with his tokens.

    `grants` maps each permission to the roles that give it, unscoped ones first, so that a
    decision looks up one permission whatever the number of roles.
    """

    grants: Mapping[str, tuple[Role, ...]]
    problems: tuple[str, ...] = ()


def is_ours(token: str) -> bool:
    """Whether a token of the users file is for us, known or not (design, 3.1)."""
    return token.startswith(("@", "+", "-")) or "." in token or token in PLAIN_ROLES


def nearest(word: str, words: Iterable[str], text: str = "; did you mean {!r}?") -> str:
    """A hint at the one of `words` that is most like `word`, or nothing."""
    found = difflib.get_close_matches(word, sorted(words), n=1)
    return text.format(found[0]) if found else ""


def resolve(tokens: Iterable[str], policy: Policy) -> Account | None:
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
                return Account({}, tuple(problems))
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
    return Account(grants, tuple(problems))
