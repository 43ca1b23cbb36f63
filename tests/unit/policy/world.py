# SPDX-License-Identifier: BSD-2-Clause
"""Small worlds for property tests: any roles, denies, users and objects out of a few words."""

from __future__ import annotations

from hypothesis import strategies as st

from ganeti_ext.policy.accounts import Account, Grants
from ganeti_ext.policy.model import BUILTIN, KINDS, Deny, Policy, Role, Scope, Selector, Target
from ganeti_ext.policy.parameters import ANY, Limit, Parameters
from ganeti_ext.policy.pattern import Pattern, Patterns

PERMISSIONS = ["tags.set", "instances.reboot", "instances.list", "nodes.list"]
NAMES = ["a.test", "b.test", "c.prod", "joe-1", "Joe", "-x", ""]
TAGS = ["keep", "tenant:joe", "tenant:jim"]
GROUPS = ["default", "g2"]

_words = st.sampled_from(["*", "*.test", "a*", "c.prod", "{user}-*", "*{user}*", "?.*t"])
_tags = st.sampled_from(["keep", "tenant:{user}", "tenant:*", "*"])
_groups = st.sampled_from(["default", "*", "g?", "{user}"])


def patterns(texts: list[str]) -> Patterns:
    return Patterns(Pattern(text) for text in texts)


def lists(words: st.SearchStrategy[str]) -> st.SearchStrategy[Patterns]:
    return st.lists(words, max_size=2).map(patterns)


selectors = st.builds(Selector, lists(_words), lists(_tags), lists(_groups)).filter(
    lambda one: bool(one.name or one.tag or one.group)
)
several = st.lists(selectors, max_size=2).map(tuple)
scopes = st.none() | st.builds(Scope, several, several, several, several)
limits = st.sampled_from([ANY, Limit((Pattern("a*"),)), Limit(low=1, high=8), Limit((True,)), Limit()])
parameters = st.none() | st.builds(
    Parameters, st.dictionaries(st.sampled_from(["tags", "disks.size", "start"]), limits), lists(_tags)
)
stamps = st.lists(st.sampled_from(["keep", "tenant:{user}"]), max_size=1).map(lambda texts: tuple(map(Pattern, texts)))
roles = st.sampled_from([BUILTIN["admin"], BUILTIN["instance_write"]]) | st.builds(
    Role,
    st.sampled_from(["r1", "r2", "r3", "r4"]),
    st.frozensets(st.sampled_from(PERMISSIONS)),
    scope=scopes,
    parameters=parameters,
    tags=stamps,
    warn=st.booleans(),
)
denies = st.builds(
    Deny,
    st.sampled_from(["*", "joe", "j*"]).map(lambda text: (Pattern(text),)),
    st.frozensets(st.sampled_from(PERMISSIONS)),
    st.sampled_from([(), (Pattern("jim"),)]),
    st.dictionaries(st.sampled_from(KINDS), several, max_size=2),
)
users = st.sampled_from(["joe", "jim", "Joe", "*", "a.b", "é"])
groups = st.builds(
    lambda name, tags: Target("group", name, tags, frozenset([name])),
    st.sampled_from(GROUPS),
    st.frozensets(st.sampled_from(TAGS), max_size=1),
)
targets = st.builds(
    Target,
    st.sampled_from([*KINDS, "cluster", "job"]),
    st.sampled_from(NAMES),
    st.frozensets(st.sampled_from(TAGS), max_size=2),
    st.frozensets(st.sampled_from(GROUPS)),
    st.booleans(),
    st.just(()),
    st.just(False),
)
#: New ones whose place nobody has chosen, or whose group the request names.
unplaced = st.builds(
    lambda name, tags, choices, named: Target(
        "instance", name, tags, None, True, tuple(choices[:1] if named else choices), named and bool(choices)
    ),
    st.sampled_from(NAMES),
    st.frozensets(st.sampled_from(TAGS), max_size=2),
    st.lists(groups, max_size=2, unique_by=lambda group: group.name),
    st.booleans(),
)
values = st.tuples(
    st.sampled_from(["tags", "disks.size", "start", "os_type"]),
    st.sampled_from(["keep", "a", 5, True, None]) | st.lists(st.integers(), max_size=1),
)
needed = st.lists(st.sampled_from([*PERMISSIONS, "no.such"]), min_size=1, max_size=2)


def unique(found: list[Role]) -> list[Role]:
    """An account has one role of each name."""
    return list({role.name: role for role in found}.values())


def account(user: str, held: list[Role], forbidden: list[Deny] | None = None) -> Account:
    """An account that holds some roles, unscoped ones first as `resolve` has them."""
    grants: dict[str, tuple[Role, ...]] = {}
    for role in sorted(unique(held), key=lambda role: role.scope is not None):
        for permission in role.permissions:
            grants[permission] = (*grants.get(permission, ()), role)
    return Account(user, Grants(grants), Policy(denies=tuple(forbidden or ())))
