# SPDX-License-Identifier: BSD-2-Clause
"""A list shows just what a decision on each of its objects allows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganeti_ext.policy.decision import decide
from ganeti_ext.policy.model import BUILTIN, Deny, Role, Scope, Selector, Target
from ganeti_ext.policy.pattern import Pattern
from ganeti_ext.policy.visibility import visibility
from tests.unit.policy import world
from tests.unit.policy.world import account, patterns

LIST = "instances.list"
TEST = Role("test", frozenset([LIST]), scope=Scope((Selector(patterns(["*.test"])),)))
WIDE = Role("wide", frozenset([LIST]))
KEEP = Deny((Pattern("*"),), frozenset([LIST]), (), {"instance": (Selector(tag=patterns(["keep"])),)})
ALL = Deny((Pattern("*"),), frozenset([LIST]))


def instance(name: str, *tags: str) -> Target:
    return Target("instance", name, frozenset(tags), frozenset(["default"]))


def test_an_unlimited_role_shows_everything() -> None:
    found = visibility(account("joe", [TEST, WIDE]), LIST, "instance")
    assert found.everything and found.unlimited and not found.nothing
    assert found.roles == ()
    assert found.sees(instance("a.prod"))


def test_a_limited_role_shows_its_scope() -> None:
    found = visibility(account("joe", [TEST]), LIST, "instance")
    assert not found.everything and not found.unlimited and not found.nothing
    assert found.roles == (TEST,)
    assert found.sees(instance("a.test"))
    assert not found.sees(instance("a.prod"))
    assert not found.sees(Target("node", "a.test"))


def test_without_the_permission_nothing_is_seen() -> None:
    found = visibility(account("joe", [TEST]), "nodes.list", "node")
    assert found.nothing and not found.everything
    assert not found.sees(Target("node", "a.test"))


def test_a_deny_hides() -> None:
    found = visibility(account("joe", [WIDE], [KEEP]), LIST, "instance")
    assert found.unlimited and not found.everything
    assert found.denies == (KEEP,)
    assert found.sees(instance("a"))
    assert not found.sees(instance("a", "keep"))
    assert visibility(account("joe", [WIDE], [KEEP]), LIST, "node").everything
    assert visibility(account("joe", [WIDE], [ALL]), LIST, "instance").nothing
    assert not visibility(account("joe", [WIDE], [ALL]), LIST, "instance").sees(instance("a"))


def test_mode_warn_hides_nothing() -> None:
    role = Role("r", frozenset([LIST]), scope=TEST.scope, warn=True)
    assert visibility(account("joe", [role]), LIST, "instance").everything


@pytest.mark.parametrize(("kind", "everything"), [("instance", True), ("node", False)])
def test_a_role_of_one_kind(kind: str, everything: bool) -> None:
    found = visibility(account("joe", [BUILTIN["instance_write"]]), "tags.set", kind)
    assert found.everything is everything
    assert found.nothing is not everything
    assert found.sees(Target(kind, "a")) is everything


@given(
    world.users,
    st.lists(world.roles, max_size=3),
    st.lists(world.denies, max_size=2),
    st.sampled_from(world.PERMISSIONS),
    world.targets.filter(lambda target: target.groups is not None and not target.new),
)
def test_it_agrees_with_the_decision(
    user: str, held: list[Role], denies: list[Deny], permission: str, target: Target
) -> None:
    who = account(user, held, denies)
    found = visibility(who, permission, target.kind)
    assert found.sees(target) == decide(who, [permission], [target]).allowed
    if found.everything:
        assert found.sees(target)
    if found.nothing:
        assert not found.sees(target)
