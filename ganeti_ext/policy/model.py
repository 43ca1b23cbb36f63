# SPDX-License-Identifier: BSD-2-Clause
"""What a policy is made of: roles, and the objects that a role is limited to."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ganeti_ext.policy.vocabulary import BUILTIN_ROLES, PLAIN_ROLES

#: The name of an object as a limited role may write it: Ganeti expands short names,
#: ignores case and folds Unicode, each call in its own way (`threats.md`), so only the full
#: name in lower-case ASCII means an object, and a name that cannot be one means none.
_LABEL = "[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?"
_EXACT_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_MAX_NAME = 253

#: The largest policy that is read, in bytes: far above ten thousand roles, far below
#: what would hurt the daemon.
MAX_SIZE = 16 * 1024 * 1024

#: What a name pattern of the policy may hold.
PATTERN = re.compile(r"[a-z0-9*?._-]+")


def is_exact_name(name: object) -> bool:
    """Whether `name` is a full name in the one spelling that is decided on."""
    return isinstance(name, str) and len(name) <= _MAX_NAME and _EXACT_NAME.fullmatch(name) is not None


class Glob:
    """A name pattern: `*` (which crosses dots) and `?`, anchored at both ends.

    `pattern` must fullmatch PATTERN.
    """

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        wild = {"*": ".*", "?": "."}
        self._regex = re.compile("".join(wild.get(char) or re.escape(char) for char in pattern))

    def matches(self, name: str) -> bool:
        """Whether `name`, an exact name, is one of those that the pattern means."""
        return self._regex.fullmatch(name) is not None

    def __repr__(self) -> str:
        return f"Glob({self.pattern!r})"


class Selector(Protocol):
    """What picks some objects of a kind."""

    def matches(self, name: str) -> bool:
        """Whether the object of that exact name is selected."""


@dataclass(frozen=True)
class NameSelector:
    """The objects that carry one of some names."""

    name: tuple[Glob, ...]

    def matches(self, name: str) -> bool:
        """Whether the object of that exact name is selected."""
        return any(glob.matches(name) for glob in self.name)


@dataclass(frozen=True)
class PredicateSelector:
    """The objects of which a middleware's function says so."""

    inside: Callable[[str], bool]

    def matches(self, name: str) -> bool:
        """Whether the object of that exact name is selected."""
        return self.inside(name) is True


@dataclass(frozen=True)
class Scope:
    """The objects that a role is limited to; a kind that is left out is none of them."""

    instances: tuple[Selector, ...] = ()

    def holds(self, kind: str, name: str) -> bool:
        """Whether the object is inside. `kind` is one word: `instance`, `node`, …

        A job is nobody's by its name: whose it is, is decided where it is read.
        """
        if kind == "job":
            return True
        if kind == "instance":
            return is_exact_name(name) and any(selector.matches(name) for selector in self.instances)
        return False


@dataclass(frozen=True, eq=False)
class Role:
    """A set of permissions, on the whole cluster or within a scope.

    Two roles are the same only if they are one object: a policy has one of each name.
    """

    name: str
    permissions: frozenset[str]
    description: str = ""
    scope: Scope | None = None
    #: The one kind of object that an unscoped role may touch; None is any.
    kind: str | None = None

    def covers(self, kind: str, name: str) -> bool:
        """Whether the role is about that object."""
        if self.scope is not None:
            return self.scope.holds(kind, name)
        return self.kind is None or self.kind == kind


@dataclass(frozen=True)
class Policy:
    """What an administrator wrote: his roles, by name."""

    roles: Mapping[str, Role] = field(default_factory=dict)


#: The roles that need no policy file, by name.
BUILTIN = {name: Role(name, permissions, kind=PLAIN_ROLES.get(name)) for name, permissions in BUILTIN_ROLES.items()}
