# SPDX-License-Identifier: BSD-2-Clause
"""One role must grant all of a request; whatever is not granted is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganeti_ext.policy.accounts import Account
from ganeti_ext.policy.decision import Refusal, decide
from ganeti_ext.policy.model import BUILTIN, Glob, NameSelector, PredicateSelector, Role, Scope


def role(name: str, *permissions: str, scope: str | None = None) -> Role:
    limit = None if scope is None else Scope((NameSelector((Glob(scope),)),))
    return Role(name, frozenset(permissions), scope=limit)


def account(*roles: Role) -> Account:
    grants: dict[str, tuple[Role, ...]] = {}
    for one in roles:
        for permission in one.permissions:
            grants[permission] = (*grants.get(permission, ()), one)
    return Account(grants)


TEST = role("test", "instances.reboot", "instances.export.create", scope="*.test")
PROD = role("prod", "instances.reboot", "instances.remove", scope="*.prod")
ALL = role("all", "instances.reboot")


def test_granted_within_the_scope() -> None:
    decision = decide(account(TEST), ["instances.reboot"], [("instance", "a.test")])
    assert decision.allowed
    assert decision.role is TEST
    assert decision.refusal is None


def test_outside_of_the_scope() -> None:
    decision = decide(account(TEST), ["instances.reboot"], [("instance", "a.prod")])
    assert not decision.allowed
    assert decision.refusal is Refusal.OUTSIDE
    assert "a.prod" in decision.reason


def test_a_permission_that_is_not_granted_is_named() -> None:
    decision = decide(account(TEST), ["instances.remove"], [("instance", "a.test")])
    assert decision.refusal is Refusal.PERMISSION
    assert "instances.remove" in decision.reason


def test_all_objects_must_be_inside_one_role() -> None:
    both = [("instance", "a.test"), ("instance", "a.prod")]
    assert decide(account(TEST, PROD), ["instances.reboot"], both).refusal is Refusal.OUTSIDE
    assert decide(account(TEST, PROD), ["instances.reboot"], both[:1]).allowed
    assert decide(account(TEST, PROD), ["instances.reboot"], both[1:]).allowed
    assert decide(account(TEST, ALL), ["instances.reboot"], both).role is ALL


def test_one_role_must_hold_all_permissions() -> None:
    needed = ["instances.export.create", "instances.remove"]
    decision = decide(account(TEST, PROD), needed, [("instance", "a.test")])
    assert decision.refusal is Refusal.PERMISSION
    assert "together" in decision.reason
    whole = role("whole", *needed, scope="*.test")
    assert decide(account(TEST, PROD, whole), needed, [("instance", "a.test")]).role is whole


def test_nothing_granted_is_nothing_allowed() -> None:
    assert decide(Account({}), ["instances.reboot"], []).refusal is Refusal.PERMISSION


def test_a_request_that_needs_nothing_known_is_refused() -> None:
    assert decide(account(ALL), [], []).refusal is Refusal.PERMISSION
    assert decide(account(ALL), [], [("instance", "a.test")]).refusal is Refusal.PERMISSION


def test_a_role_of_one_kind_hides_nothing() -> None:
    decision = decide(account(BUILTIN["instance_write"]), ["tags.set"], [("node", "node1")])
    assert decision.refusal is Refusal.PERMISSION
    assert decide(account(BUILTIN["instance_write"]), ["tags.set"], [("instance", "a")]).allowed


def test_beside_a_limited_role_it_hides() -> None:
    limited = role("limited", "tags.set", scope="*.test")
    decision = decide(account(BUILTIN["instance_write"], limited), ["tags.set"], [("node", "node1")])
    assert decision.refusal is Refusal.OUTSIDE


def test_an_error_in_a_rule_allows_nothing() -> None:
    def fail(name: str) -> bool:
        raise ValueError(name)

    broken = Role("broken", frozenset({"instances.reboot"}), scope=Scope((PredicateSelector(fail),)))
    with pytest.raises(ValueError, match=r"a\.test"):
        decide(account(broken), ["instances.reboot"], [("instance", "a.test")])


ROLES = st.builds(
    lambda name, permissions, scope: role(name, *permissions, scope=scope),
    st.sampled_from(["r1", "r2", "r3"]),
    st.sets(st.sampled_from(["tags.set", "instances.reboot", "instances.remove"])),
    st.sampled_from([None, "*", "*.test", "*.prod", "a.test"]),
)
NEEDED = st.lists(st.sampled_from(["tags.set", "instances.reboot", "instances.remove", "no.such"]), max_size=3)
OBJECTS = st.lists(
    st.tuples(
        st.sampled_from(["instance", "node", "cluster", "job"]), st.sampled_from(["a.test", "b.prod", "A.test", ""])
    ),
    max_size=3,
)


@given(st.lists(ROLES, max_size=4), ROLES, NEEDED, OBJECTS)
def test_one_more_role_never_takes_a_right_away(
    roles: list[Role], more: Role, needed: list[str], objects: list[tuple[str, str]]
) -> None:
    if decide(account(*roles), needed, objects).allowed:
        assert decide(account(*roles, more), needed, objects).allowed


@given(st.lists(ROLES, max_size=4), NEEDED, OBJECTS)
def test_what_is_allowed_one_role_allows_by_itself(
    roles: list[Role], needed: list[str], objects: list[tuple[str, str]]
) -> None:
    alone = [one for one in roles if decide(account(one), needed, objects).allowed]
    decision = decide(account(*roles), needed, objects)
    assert decision.allowed == bool(alone)
    assert (decision.role in alone) if decision.allowed else (decision.refusal is not None)


@given(st.lists(ROLES, max_size=4), NEEDED, OBJECTS, NEEDED, OBJECTS)
def test_a_larger_request_needs_no_less(
    roles: list[Role],
    needed: list[str],
    objects: list[tuple[str, str]],
    more: list[str],
    touched: list[tuple[str, str]],
) -> None:
    if needed and decide(account(*roles), [*needed, *more], [*objects, *touched]).allowed:
        assert decide(account(*roles), needed, objects).allowed
