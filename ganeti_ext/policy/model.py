# SPDX-License-Identifier: BSD-2-Clause
"""What a policy is made of: roles and denies, and the objects that they are about."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ganeti_ext.policy.parameters import Parameters
from ganeti_ext.policy.pattern import USER_IN_NAME, USER_IN_TAG, Pattern, is_exact_name
from ganeti_ext.policy.vocabulary import BUILTIN_ROLES, PLAIN_ROLES

#: The largest policy that is read, in bytes: far above ten thousand roles, far below
#: what would hurt the daemon.
MAX_SIZE = 16 * 1024 * 1024

#: The kinds of objects that a scope can hold, as Ganeti's names of them.
KINDS = ("instance", "node", "group", "network")


class Target(NamedTuple):
    """One object that a request touches, with what a policy can go by.

    `groups` are the names of the groups of all its nodes (of a node its group, of a group
    itself); None is a placement that nobody has chosen yet, out of the groups in `choices`, and
    `named` says that the request named that group. `new` is an object that the
    request makes: its tags are those that the role will stamp, and `tags` what the client sent.
    """

    kind: str
    name: str
    tags: frozenset[str] = frozenset()
    groups: frozenset[str] | None = frozenset()
    new: bool = False
    choices: tuple[Target, ...] = ()  # type: ignore[misc]  # a tuple of its own kind
    named: bool = False


def _any(patterns: Iterable[Pattern], word: str) -> bool:
    return any(pattern.matches(word) for pattern in patterns)


@dataclass(frozen=True)
class Selector:
    """Picks objects of a kind: its keys are AND, the values of a key OR (design, 3.2)."""

    name: tuple[Pattern, ...] = ()
    tag: tuple[Pattern, ...] = ()
    group: tuple[Pattern, ...] = ()
    #: A middleware's function, asked with the name.
    inside: Callable[[str], bool] | None = None

    def matches(self, target: Target, tags: frozenset[str]) -> bool:
        """Whether the object is picked, with `tags` for its tags.

        An object is in a group only if all its nodes are; where nobody has chosen them yet, it is
        in none.
        """
        if self.name and not _any(self.name, target.name):
            return False
        if self.tag and not any(_any(self.tag, tag) for tag in tags):
            return False
        if self.group and not self.in_groups(target.groups or ()):
            return False
        return self.inside is None or self.inside(target.name) is True

    def in_groups(self, groups: Iterable[str]) -> bool:
        """Whether all of some groups, at least one, are those of the selector."""
        names = list(groups)
        return bool(names) and all(_any(self.group, name) for name in names)

    def may_match(self, target: Target) -> bool:
        """Whether the object could be picked, wherever it is in doubt: for what forbids.

        One node inside of a group is enough, and so is a placement that is not known.
        """
        if self.name and not _any(self.name, target.name):
            return False
        if self.tag and not any(_any(self.tag, tag) for tag in target.tags):
            return False
        return not self.group or target.groups is None or any(_any(self.group, group) for group in target.groups)

    @property
    def patterns(self) -> Iterator[Pattern]:
        """All its patterns."""
        yield from self.name
        yield from self.tag
        yield from self.group

    def bound(self, user: str) -> Selector | None:
        """The selector with the user's name for `{user}`; None if that name may not stand there."""
        if not any(pattern.per_user for pattern in self.patterns):
            return self
        names = any(pattern.per_user for pattern in (*self.name, *self.group))
        tags = any(pattern.per_user for pattern in self.tag)
        if (names and not USER_IN_NAME.fullmatch(user)) or (tags and not USER_IN_TAG.fullmatch(user)):
            return None
        return dataclasses.replace(
            self,
            name=tuple(pattern.bound(user) for pattern in self.name),
            tag=tuple(pattern.bound(user) for pattern in self.tag),
            group=tuple(pattern.bound(user) for pattern in self.group),
        )


@dataclass(frozen=True)
class Scope:
    """The objects that a role is limited to; a kind that is left out is none of them."""

    instances: tuple[Selector, ...] = ()
    nodes: tuple[Selector, ...] = ()
    groups: tuple[Selector, ...] = ()
    networks: tuple[Selector, ...] = ()

    def of(self, kind: str) -> tuple[Selector, ...]:
        """The selectors of a kind, by Ganeti's word for it; none for a kind that no scope can hold."""
        if kind == "instance":
            return self.instances
        return getattr(self, kind + "s", ()) if kind in KINDS else ()

    def holds(self, target: Target, stamps: frozenset[str] = frozenset()) -> bool:
        """Whether the object is inside; `stamps` are the tags that an object gets that is made."""
        if target.kind == "job":
            return True  # whose it is, is decided where it is read
        tags = stamps if target.new else target.tags
        for selector in self.of(target.kind):
            if selector.matches(target, tags):
                return is_exact_name(target.name)
        return False

    def limits_groups(self) -> bool:
        """Whether it matters in which group an instance is."""
        return bool(self.nodes) or any(selector.group for selector in self.instances)

    def fits(self, target: Target, group: Target, stamps: frozenset[str]) -> bool:
        """Whether a new instance, without a place yet, is inside once it is put into a group.

        That its nodes are inside can be told from the group alone, or else the request has to name
        them. Whoever names the group has to be allowed to: the scope must be about groups.
        """
        placed = target._replace(groups=frozenset([group.name]))
        if not self.holds(placed, stamps):
            return False
        about = [one for one in (*self.instances, *self.nodes) if one.group and one.in_groups([group.name])]
        if self.nodes and not any(not one.name and not one.tag for one in about if one in self.nodes):
            return False
        return not target.named or bool(about) or self.holds(group)

    def may_hold(self, kind: str, name: str) -> bool:
        """Whether an object could be inside as far as its name tells."""
        if kind == "job":
            return True
        return is_exact_name(name) and any(
            (not selector.name or _any(selector.name, name))
            and (selector.inside is None or selector.inside(name) is True)
            for selector in self.of(kind)
        )


@dataclass(frozen=True)
class Quota:
    """How much the objects of a role's scope may be, all together; None is no limit.

    `memory` and `disk` are in MiB.
    """

    instances: int | None = None
    vcpus: int | None = None
    memory: int | None = None
    disk: int | None = None


@dataclass(frozen=True, eq=False)
class Role:
    """A set of permissions, on the whole cluster or within a scope.

    Two roles are the same only if they are one object: an account has one of each name.
    """

    name: str
    permissions: frozenset[str]
    description: str = ""
    scope: Scope | None = None
    #: The one kind of object that an unscoped role may touch; None is any.
    kind: str | None = None
    #: What may be set; None is anything, for a role without a scope alone.
    parameters: Parameters | None = None
    #: Tags that are put on what the role creates.
    tags: tuple[Pattern, ...] = ()
    #: Whether jobs of others do not exist for the role.
    own_jobs: bool = False
    quota: Quota | None = None
    #: Whether what its scope or parameters forbid is logged and let through.
    warn: bool = False
    #: Where it stands in the policy, for whoever looks for it; 0 is nowhere.
    line: int = 0
    stamps: frozenset[str] = frozenset()

    @property
    def limited(self) -> bool:
        """Whether the role sees and touches only what its scope holds."""
        return self.scope is not None and not self.warn

    def covers(self, target: Target) -> bool:
        """Whether the role is about that object."""
        if self.scope is not None:
            return self.scope.holds(target, self.stamps)
        return self.kind is None or self.kind == target.kind

    def may_touch(self, kind: str, name: str) -> bool:
        """Whether the role could be about an object, as far as its name tells."""
        if self.scope is None or self.warn:
            return self.kind in (None, kind)
        return self.scope.may_hold(kind, name)

    def may_choose(self, kind: str) -> bool:
        """Whether a request may choose a node, a group or a network for an instance at all."""
        if self.scope is None or self.warn:
            return True
        return bool(self.scope.of(kind)) or (kind == "group" and self.scope.limits_groups())

    def bound(self, user: str) -> Role | None:
        """The role with the user's name for `{user}`; None if it grants him nothing (design, 3.2)."""
        tags = tuple(tag.bound(user) for tag in self.tags)
        if tags != self.tags and not USER_IN_TAG.fullmatch(user):
            return None
        scope = self.scope
        if scope is not None:
            kinds = {}
            for kind in KINDS:
                selectors = [selector.bound(user) for selector in scope.of(kind)]
                if None in selectors:
                    return None
                kinds[kind + "s"] = tuple(selectors)
            scope = Scope(**kinds)  # type: ignore[arg-type]
        return dataclasses.replace(self, scope=scope, tags=tags, stamps=frozenset(tag.text for tag in tags))

    @property
    def per_user(self) -> bool:
        """Whether the role is another one for each user."""
        selectors = [] if self.scope is None else [one for kind in KINDS for one in self.scope.of(kind)]
        return any(p.per_user for p in self.tags) or any(p.per_user for one in selectors for p in one.patterns)


@dataclass(frozen=True)
class Deny:
    """What is refused whatever grants it."""

    users: tuple[Pattern, ...]
    permissions: frozenset[str]
    excepted: tuple[Pattern, ...] = ()
    #: Kind -> what it is about; nothing at all is any request.
    objects: Mapping[str, tuple[Selector, ...]] = field(default_factory=dict)
    line: int = 0

    @property
    def name(self) -> str:
        """What it is called in a log."""
        return f"deny (line {self.line})"

    def concerns(self, user: str) -> bool:
        """Whether it is about that user."""
        return _any(self.users, user) and not _any(self.excepted, user)

    def bound(self, user: str) -> Deny:
        """The same for one user. A name that `{user}` may not stand for matches everything: it forbids."""
        return dataclasses.replace(
            self,
            objects={
                kind: tuple(selector.bound(user) or Selector() for selector in selectors)
                for kind, selectors in self.objects.items()
            },
        )

    def matches(self, target: Target) -> bool:
        """Whether the object is, or could be, one of those that it protects."""
        return any(selector.may_match(target) for selector in self.objects.get(target.kind, ()))


@dataclass(frozen=True)
class Test:
    """What an administrator expects of his policy; it is not taken unless that holds."""

    __test__ = False  # for pytest

    user: str
    permission: str
    expect: bool
    target: Target | None = None
    parameters: tuple[tuple[str, Any], ...] = ()
    #: The third column of the users file to go by in place of the user's own.
    tokens: str | None = None
    line: int = 0
    column: int = 0


@dataclass(frozen=True)
class Policy:
    """What an administrator wrote."""

    roles: Mapping[str, Role] = field(default_factory=dict)
    denies: tuple[Deny, ...] = ()
    tests: tuple[Test, ...] = ()
    #: Whether allowed reads are recorded in the audit trail, too.
    audit_reads: bool = False


#: The roles that need no policy file, by name.
BUILTIN = {name: Role(name, permissions, kind=PLAIN_ROLES.get(name)) for name, permissions in BUILTIN_ROLES.items()}
