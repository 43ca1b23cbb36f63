# SPDX-License-Identifier: BSD-2-Clause
"""A scope holds what it lists, a deny matches what could be meant, and `{user}` is a user's name or nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganeti_ext.policy.model import BUILTIN, Deny, Role, Scope, Selector, Target
from ganeti_ext.policy.pattern import Pattern, Patterns


def patterns(*texts: str) -> Patterns:
    return Patterns(Pattern(text) for text in texts)


def instance(
    name: str, *tags: str, groups: frozenset[str] | None = frozenset(["default"]), new: bool = False
) -> Target:
    return Target("instance", name, frozenset(tags), groups, new)


TEST = Selector(name=patterns("*.test.example.com", "db1.example.com"))
SCOPE = Scope((TEST,))


@pytest.mark.parametrize("name", ["web1.test.example.com", "db1.example.com"])
def test_inside(name: str) -> None:
    assert SCOPE.holds(instance(name))


@pytest.mark.parametrize("name", ["", "db1", "db1.example.com.", "WEB1.test.example.com", "-.test.example.com"])
def test_outside(name: str) -> None:
    assert not SCOPE.holds(instance(name))


@pytest.mark.parametrize("kind", ["node", "group", "network", "cluster", "filter", "query", "", "instances", "name"])
def test_a_kind_that_a_scope_leaves_out_is_an_empty_set(kind: str) -> None:
    assert not SCOPE.holds(Target(kind, "web1.test.example.com"))
    assert not SCOPE.holds(Target(kind, ""))
    assert not SCOPE.may_hold(kind, "web1.test.example.com")


@pytest.mark.parametrize("kind", ["instance", "node", "group", "network"])
def test_each_kind_has_its_own_selectors(kind: str) -> None:
    scope = Scope(**{kind + "s": (Selector(name=patterns("a*")),)})
    for other in ("instance", "node", "group", "network", "cluster"):
        assert scope.holds(Target(other, "a1")) == (other == kind)
        assert scope.may_hold(other, "a1") == (other == kind)


def test_an_empty_scope_holds_no_object_but_jobs() -> None:
    assert not Scope().holds(instance("web1.test.example.com"))
    assert Scope().holds(Target("job", "7"))
    assert Scope().may_hold("job", "7")


def test_keys_are_and_values_are_or_selectors_are_or() -> None:
    both = Selector(name=patterns("web*", "db*"), tag=patterns("a", "b"))
    scope = Scope((both, Selector(group=patterns("g1"))))
    assert scope.holds(instance("web1", "b"))
    assert scope.holds(instance("db1", "x", "a"))
    assert not scope.holds(instance("web1", "c"))
    assert not scope.holds(instance("mail1", "a"))
    assert scope.holds(instance("mail1", groups=frozenset(["g1"])))


def test_an_instance_is_in_a_group_only_if_all_its_nodes_are() -> None:
    scope = Scope((Selector(group=patterns("g1", "g2")),))
    assert scope.holds(instance("a", groups=frozenset(["g1", "g2"])))
    assert not scope.holds(instance("a", groups=frozenset(["g1", "g3"])))
    assert not scope.holds(instance("a", groups=frozenset()))
    assert not scope.holds(instance("a", groups=None))


def test_the_tags_of_a_new_object_are_the_roles() -> None:
    scope = Scope((Selector(tag=patterns("mine")),))
    assert scope.holds(instance("a", "mine"))
    assert not scope.holds(instance("a", "mine", new=True))
    assert scope.holds(instance("a", new=True), frozenset(["mine"]))
    assert not scope.holds(instance("a"), frozenset(["mine"]))


@pytest.mark.parametrize("stamp", ["tenant:acme", "tenant:{user}"])
def test_a_stamp_counts_for_the_scope(stamp: str) -> None:
    role = Role("r", frozenset(), scope=Scope((Selector(tag=patterns("tenant:*")),)), tags=(Pattern(stamp),))
    bound = role.bound("joe")
    assert bound is not None
    assert bound.covers(instance("a", new=True))
    assert role.per_user == ("{user}" in stamp)


def test_a_predicate_must_say_true_itself() -> None:
    def scope(answer: object) -> Scope:
        return Scope((Selector(inside=lambda name: answer),))  # type: ignore[arg-type,return-value]

    assert scope(True).holds(instance("a"))
    for answer in (False, "yes", 1, None):
        assert not scope(answer).holds(instance("a"))


def test_an_unscoped_role_covers_everything_or_its_kind() -> None:
    assert Role("r", frozenset()).covers(Target("node", "x"))
    assert BUILTIN["node_write"].covers(Target("node", "x"))
    assert not BUILTIN["node_write"].covers(instance("x"))
    assert not BUILTIN["instance_write"].covers(Target("cluster", ""))
    assert BUILTIN["instance_write"].covers_all("instance")
    assert not BUILTIN["instance_write"].covers_all("node")


def test_mode_warn_is_about_what_a_scope_can_hold() -> None:
    role = Role("r", frozenset(), scope=Scope(), warn=True)
    assert not role.limited
    assert role.covers_all("node")
    assert not role.covers_all("cluster")
    assert not role.covers(Target("node", "x"))


def test_roles_are_the_same_only_as_one_object() -> None:
    assert Role("r", frozenset({"tags.set"})) != Role("r", frozenset({"tags.set"}))


NAMED = Role("r", frozenset(), scope=Scope((Selector(name=patterns("*.{user}.example.com")),)))
TAGGED = Role("r", frozenset(), scope=Scope((Selector(tag=patterns("tenant:{user}")),)))
STAMPED = Role("r", frozenset(), tags=(Pattern("tenant:{user}"),))
IN_A_GROUP = Role("r", frozenset(), scope=Scope(nodes=(Selector(group=patterns("{user}")),)))


@pytest.mark.parametrize("user", ["joe", "a-b", "7", "-"])
def test_a_user_who_may_stand_in_a_name(user: str) -> None:
    for role in (NAMED, TAGGED, STAMPED, IN_A_GROUP):
        assert role.bound(user) is not None


@pytest.mark.parametrize("user", ["Joe", "a.b", "a_b", "joe@example.com"])
def test_a_user_who_may_stand_in_a_tag_only(user: str) -> None:
    assert NAMED.bound(user) is None
    assert IN_A_GROUP.bound(user) is None
    bound = TAGGED.bound(user)
    assert bound is not None
    assert bound.covers(instance("a", f"tenant:{user}"))
    assert not bound.covers(instance("a", "tenant:joe"))
    assert STAMPED.bound(user) is not None


@pytest.mark.parametrize("user", ["*", "?", "a*", "a:b", "a/b", "a+b", "é", "ſ", "", "a\n", "{user}", "a b", "joe\0"])
def test_a_user_who_may_stand_nowhere(user: str) -> None:
    for role in (NAMED, TAGGED, STAMPED, IN_A_GROUP):
        assert role.bound(user) is None
    assert Role("r", frozenset()).bound(user) is not None


def test_a_stamp_that_grows_too_long_grants_nothing() -> None:
    assert STAMPED.bound("a" * 121) is not None
    assert STAMPED.bound("a" * 122) is None


def test_one_selector_that_cannot_be_bound_is_enough() -> None:
    role = Role("r", frozenset(), scope=Scope((Selector(name=patterns("a", "b-{user}")),)))
    assert role.bound("A") is None
    bound = role.bound("x")
    assert bound is not None and bound.covers(instance("a")) and bound.covers(instance("b-x"))


def deny(**objects: tuple[Selector, ...]) -> Deny:
    return Deny((Pattern("*"),), frozenset(["instances.remove"]), (Pattern("root"),), objects)


def test_whom_a_deny_is_about() -> None:
    assert deny().concerns("joe")
    assert deny().concerns("")
    assert not deny().concerns("root")
    assert deny().concerns("Root")
    assert Deny((Pattern("a*"),), frozenset()).concerns("abe")
    assert not Deny((Pattern("a*"),), frozenset()).concerns("joe")


def test_a_deny_matches_in_doubt() -> None:
    in_group = deny(instance=(Selector(group=patterns("prod")),))
    assert in_group.matches(instance("a", groups=frozenset(["prod", "test"])))
    assert in_group.matches(instance("a", groups=None))
    assert not in_group.matches(instance("a", groups=frozenset(["test"])))
    assert not in_group.matches(Target("node", "a", groups=frozenset(["prod"])))
    kept = deny(instance=(Selector(tag=patterns("keep")),))
    assert kept.matches(instance("A..", "keep"))
    assert kept.matches(instance("a", "keep", new=True))
    assert not kept.matches(instance("a", "keeper"))


def test_what_a_deny_forbids() -> None:
    removal = frozenset(["instances.remove"])
    assert deny().forbids(removal, [])
    assert not deny().forbids(frozenset(["instances.reboot"]), [])
    named = deny(instance=(Selector(name=patterns("a")),))
    assert named.forbids(removal | {"tags.set"}, [instance("b"), instance("a")])
    assert not named.forbids(removal, [instance("b")])
    assert not named.forbids(removal, [])


@pytest.mark.parametrize("user", ["Joe", "a.b", "*", "é"])
def test_a_user_who_cannot_be_named_is_denied_all(user: str) -> None:
    own = deny(instance=(Selector(name=patterns("{user}-*")),))
    assert own.bound(user).matches(instance("anything"))
    assert own.bound("joe").matches(instance("joe-1"))
    assert not own.bound("joe").matches(instance("jim-1"))


TEXTS = st.sampled_from(["*", "a*", "*.test", "a.test", "b", "{user}-*", "?"])
SELECTORS = st.builds(
    lambda name, tag, group: Selector(patterns(*name), patterns(*tag), patterns(*group)),
    st.lists(TEXTS, max_size=2),
    st.lists(TEXTS, max_size=1),
    st.lists(TEXTS, max_size=1),
)
TARGETS = st.builds(
    Target,
    st.sampled_from(["instance", "node", "group", "network", "cluster", "job"]),
    st.sampled_from(["a.test", "b", "joe-1", "A.test", "", "a"]),
    st.frozensets(st.sampled_from(["a", "b", "joe-1"]), max_size=2),
    st.none() | st.frozensets(st.sampled_from(["a.test", "b", "default"]), max_size=2),
    st.booleans(),
    choices=st.just(()),
    named=st.just(False),
)


@given(st.lists(SELECTORS, max_size=3), SELECTORS, TARGETS)
def test_a_scope_that_is_widened_holds_no_less(selectors: list[Selector], more: Selector, target: Target) -> None:
    kind = target.kind + "s" if target.kind in ("instance", "node", "group", "network") else "instances"
    if Scope(**{kind: tuple(selectors)}).holds(target):
        assert Scope(**{kind: (*selectors, more)}).holds(target)
        assert Scope(**{kind: (more, *selectors)}).holds(target)


@given(st.lists(SELECTORS, max_size=3), TARGETS)
def test_a_scope_holds_what_one_of_its_selectors_matches(selectors: list[Selector], target: Target) -> None:
    scope = Scope(instances=tuple(selectors))
    if target.kind == "instance" and target.name in ("a.test", "b", "joe-1", "a"):
        tags: frozenset[str] = frozenset() if target.new else target.tags
        assert scope.holds(target) == any(one.matches(target, tags) for one in selectors)


@given(SELECTORS, TARGETS)
def test_what_forbids_matches_no_less_than_what_grants(selector: Selector, target: Target) -> None:
    if selector.matches(target, target.tags):
        assert selector.may_match(target)
