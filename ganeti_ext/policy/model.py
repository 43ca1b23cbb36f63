# SPDX-License-Identifier: BSD-2-Clause
"""What a policy is made of: roles and denies, and the objects that they are about."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ganeti_ext.policy.parameters import Parameters
from ganeti_ext.policy.pattern import MAX_TAG, NO_PATTERNS, USER_IN_NAME, USER_IN_TAG, Pattern, Patterns, is_exact_name
from ganeti_ext.policy.vocabulary import BUILTIN_ROLES, PLAIN_ROLES

#: The largest policy that is read, in bytes: far above ten thousand roles, far below
#: what would hurt the daemon.
MAX_SIZE = 16 * 1024 * 1024

#: The kinds of objects that a scope can hold, as Ganeti's names of them.
KINDS = ("instance", "node", "group", "network")


_ANY_NAME = Pattern("*")


class Target(NamedTuple):
    """One object that a request touches, with what a policy can go by.

    `groups` are the names of the groups of all its nodes (of a node its group, of a group
    itself); None is a placement that nobody has chosen yet, out of the groups in `choices`, and
    `named` says that the request named that group. Of `several` that are made at once Ganeti's
    allocator obeys no group. `new` is an object that the request makes: its tags are those that
    the role will stamp, and `tags` what the client sent.
    """

    kind: str
    name: str
    tags: frozenset[str] = frozenset()
    groups: frozenset[str] | None = frozenset()
    new: bool = False
    choices: tuple[Target, ...] = ()  # type: ignore[misc]  # a tuple of its own kind
    named: bool = False
    several: bool = False


@dataclass(frozen=True)
class Selector:
    """Picks objects of a kind: its keys are AND, the values of a key OR (design, 3.2)."""

    name: Patterns = NO_PATTERNS
    tag: Patterns = NO_PATTERNS
    group: Patterns = NO_PATTERNS
    #: A middleware's function, asked with the name.
    inside: Callable[[str], bool] | None = None

    def matches(self, target: Target, tags: frozenset[str]) -> bool:
        """Whether the object is picked, with `tags` for its tags.

        An object is in a group only if all its nodes are; where nobody has chosen them yet, it is
        in none.
        """
        if self.name and not self.name.matches(target.name):
            return False
        if self.tag and not any(map(self.tag.matches, tags)):
            return False
        if self.group and not self.in_groups(target.groups or ()):
            return False
        return self.inside is None or self.inside(target.name) is True

    def in_groups(self, groups: Iterable[str]) -> bool:
        """Whether all of some groups, at least one, are those of the selector."""
        names = list(groups)
        return bool(names) and all(map(self.group.matches, names))

    def may_match(self, target: Target) -> bool:
        """Whether the object could be picked, wherever it is in doubt: for what forbids.

        One node inside of a group is enough, and so is a placement that is not known.
        """
        if self.name and not self.name.matches(target.name):
            return False
        if self.tag and not any(map(self.tag.matches, target.tags)):
            return False
        return not self.group or target.groups is None or any(map(self.group.matches, target.groups))

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
            name=Patterns(pattern.bound(user) for pattern in self.name),
            tag=Patterns(pattern.bound(user) for pattern in self.tag),
            group=Patterns(pattern.bound(user) for pattern in self.group),
        )


@dataclass(frozen=True)
class Scope:
    """The objects that a role is limited to; a kind that is left out is none of them."""

    instances: tuple[Selector, ...] = ()
    nodes: tuple[Selector, ...] = ()
    groups: tuple[Selector, ...] = ()
    networks: tuple[Selector, ...] = ()

    #: Kind -> the names that are inside whatever else is known, and the selectors that look at more.
    _inside: Mapping[str, tuple[Patterns, tuple[Selector, ...]]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Takes the selectors that go by names alone together: most do, and are compared at once."""
        inside = {}
        for kind in KINDS:
            more = tuple(one for one in self.of(kind) if one.tag or one.group or one.inside or not one.name)
            names = Patterns(name for one in self.of(kind) if one not in more for name in one.name)
            inside[kind] = (names, more)
        object.__setattr__(self, "_inside", inside)

    def of(self, kind: str) -> tuple[Selector, ...]:
        """The selectors of a kind, by Ganeti's word for it; none for a kind that no scope can hold."""
        by_kind = {"instance": self.instances, "node": self.nodes, "group": self.groups, "network": self.networks}
        return by_kind.get(kind, ())

    def holds(self, target: Target, stamps: frozenset[str] = frozenset()) -> bool:
        """Whether the object is inside; `stamps` are the tags that an object gets that is made."""
        found = self._inside.get(target.kind)
        if found is None:
            return target.kind == "job"  # whose it is, is decided where it is read
        names, selectors = found
        if names.matches(target.name):
            return is_exact_name(target.name)
        tags = stamps if target.new else target.tags
        for selector in selectors:
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
        if self.nodes and not self.holds_nodes_of(group.name):
            return False
        about = any(one.group and one.in_groups([group.name]) for one in (*self.instances, *self.nodes))
        return not target.named or about or self.holds(group)

    def holds_nodes_of(self, group: str) -> bool:
        """Whether all nodes of a group are inside, as far as its name alone tells."""
        return any(
            (not one.group or one.group.matches(group))
            and (not one.name or _ANY_NAME in one.name)
            and not one.tag
            and one.inside is None
            for one in self.nodes
        )

    def may_hold(self, kind: str, name: str) -> bool:
        """Whether an object could be inside as far as its name tells."""
        if kind == "job":
            return True
        return is_exact_name(name) and any(
            (not selector.name or selector.name.matches(name))
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

    #: What it is called where a decision names it.
    rule: str = field(init=False, repr=False, default="")
    #: The texts of `tags`; bound to a user, if one of them is.
    stamps: frozenset[str] = field(init=False, repr=False, default=frozenset())
    #: How the name of an instance inside of its scope has to end. Most that are outside are told by this alone.
    endings: tuple[str, ...] = field(init=False, repr=False, default=())
    #: Whether the role is another one for each user.
    per_user: bool = field(init=False, repr=False, default=False)

    def __post_init__(self) -> None:
        """Works out once what every decision needs."""
        selectors = [] if self.scope is None else [one for kind in KINDS for one in self.scope.of(kind)]
        patterns = itertools.chain(self.tags, *(one.patterns for one in selectors))
        object.__setattr__(self, "rule", f"role {self.name}")
        object.__setattr__(self, "stamps", frozenset(tag.text for tag in self.tags))
        instances = () if self.scope is None else self.scope.instances
        endings = {pattern.ending for one in instances for pattern in one.name or (_ANY_NAME,)}
        object.__setattr__(self, "endings", tuple(endings))
        object.__setattr__(self, "per_user", any(pattern.per_user for pattern in patterns))

    @property
    def limited(self) -> bool:
        """Whether the role sees and touches only what its scope holds."""
        return self.scope is not None and not self.warn

    def covers_all(self, kind: str) -> bool:
        """Whether the role is about all objects of a kind, mode warn included.

        That mode lifts a scope, and what no scope can hold (the cluster) is outside of any.
        """
        if self.scope is None:
            return self.kind is None or self.kind == kind
        return kind == "job" or (self.warn and kind in KINDS)

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
        if any(tag.per_user for tag in self.tags) and not USER_IN_TAG.fullmatch(user):
            return None
        if any(len(tag.text) > MAX_TAG for tag in tags):
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
        return dataclasses.replace(self, scope=scope, tags=tags)


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
        return any(one.matches(user) for one in self.users) and not any(one.matches(user) for one in self.excepted)

    def bound(self, user: str) -> Deny:
        """The same for one user. A name that `{user}` may not stand for matches everything: it forbids."""
        objects = {
            kind: tuple(selector.bound(user) or Selector() for selector in selectors)
            for kind, selectors in self.objects.items()
        }
        return self if objects == self.objects else dataclasses.replace(self, objects=objects)

    def matches(self, target: Target) -> bool:
        """Whether the object is, or could be, one of those that it protects."""
        return any(selector.may_match(target) for selector in self.objects.get(target.kind, ()))

    def forbids(self, permissions: AbstractSet[str], targets: Iterable[Target]) -> bool:
        """Whether it refuses a request: one object that it matches is enough, where it names any."""
        if self.permissions.isdisjoint(permissions):
            return False
        return not self.objects or any(self.matches(target) for target in targets)


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
