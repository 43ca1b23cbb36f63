# SPDX-License-Identifier: BSD-2-Clause
"""One role must grant all of a request; whatever is not granted is refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganeti_ext.policy.accounts import Account
from ganeti_ext.policy.decision import Refusal, decide
from ganeti_ext.policy.model import BUILTIN, KINDS, Deny, Role, Scope, Selector, Target
from ganeti_ext.policy.parameters import ANY, RESTRICTED, Limit, Parameters
from ganeti_ext.policy.pattern import Pattern, Patterns
from tests.unit.policy import world
from tests.unit.policy.world import account as account_of
from tests.unit.policy.world import patterns


def role(name: str, *permissions: str, scope: str | None = None, **more: Any) -> Role:
    limit = None if scope is None else Scope((Selector(patterns([scope])),))
    return Role(name, frozenset(permissions), scope=limit, **more)


def account(*roles: Role, denies: tuple[Deny, ...] = (), user: str = "joe") -> Account:
    return account_of(user, list(roles), list(denies))


def instance(name: str, *tags: str, groups: frozenset[str] | None = frozenset(["default"]), **more: Any) -> Target:
    return Target("instance", name, frozenset(tags), groups, **more)


def groups(*names: str) -> tuple[Target, ...]:
    return tuple(Target("group", name, groups=frozenset([name])) for name in names)


TEST = role("test", "instances.reboot", "instances.export.create", scope="*.test")
PROD = role("prod", "instances.reboot", "instances.remove", scope="*.prod")
ALL = role("all", "instances.reboot")
REBOOT = ["instances.reboot"]


def test_granted_within_the_scope() -> None:
    decision = decide(account(TEST), REBOOT, [instance("a.test")])
    assert decision.allowed
    assert decision.role is TEST
    assert decision.rule == "role test"
    assert decision.refusal is None
    assert not decision.places
    assert not decision.warning


def test_outside_of_the_scope() -> None:
    decision = decide(account(TEST), REBOOT, [instance("a.prod")])
    assert not decision.allowed
    assert decision.refusal is Refusal.OUTSIDE
    assert decision.reason == "instance 'a.prod': outside of role test"


def test_a_permission_that_is_not_granted_is_named() -> None:
    decision = decide(account(TEST), ["instances.remove"], [instance("a.test")])
    assert decision.refusal is Refusal.PERMISSION
    assert "instances.remove" in decision.reason


def test_all_objects_must_be_inside_one_role() -> None:
    both = [instance("a.test"), instance("a.prod")]
    assert decide(account(TEST, PROD), REBOOT, both).refusal is Refusal.OUTSIDE
    assert decide(account(TEST, PROD), REBOOT, both[:1]).allowed
    assert decide(account(TEST, PROD), REBOOT, both[1:]).allowed
    assert decide(account(TEST, ALL), REBOOT, both).role is ALL


def test_one_role_must_hold_all_permissions() -> None:
    needed = ["instances.export.create", "instances.remove"]
    decision = decide(account(TEST, PROD), needed, [instance("a.test")])
    assert decision.refusal is Refusal.PERMISSION
    assert "together" in decision.reason
    whole = role("whole", *needed, scope="*.test")
    assert decide(account(TEST, PROD, whole), needed, [instance("a.test")]).role is whole


def test_nothing_granted_is_nothing_allowed() -> None:
    assert decide(account(), REBOOT, []).refusal is Refusal.PERMISSION
    assert decide(account(ALL), [], []).refusal is Refusal.PERMISSION
    assert decide(account(ALL), [], [instance("a.test")]).refusal is Refusal.PERMISSION


def test_a_role_of_one_kind_hides_nothing() -> None:
    decision = decide(account(BUILTIN["instance_write"]), ["tags.set"], [Target("node", "node1")])
    assert decision.refusal is Refusal.PERMISSION
    assert decide(account(BUILTIN["instance_write"]), ["tags.set"], [instance("a")]).allowed


def test_beside_a_limited_role_it_hides() -> None:
    limited = role("limited", "tags.set", scope="*.test")
    decision = decide(account(BUILTIN["instance_write"], limited), ["tags.set"], [Target("node", "node1")])
    assert decision.refusal is Refusal.OUTSIDE


def test_the_clusters_tags_are_in_no_scope() -> None:
    everything = Scope(*((Selector(patterns(["*"])),) for _ in KINDS))
    limited = Role("limited", frozenset(["tags.set"]), scope=everything)
    for warn in (False, True):
        held = dataclasses.replace(limited, warn=warn)
        assert not decide(account(held), ["tags.set"], [Target("cluster", "")]).allowed
    assert decide(account(role("wide", "tags.set")), ["tags.set"], [Target("cluster", "")]).allowed


def test_an_error_in_a_rule_allows_nothing() -> None:
    def fail(name: str) -> bool:
        raise ValueError(name)

    broken = Role("broken", frozenset(REBOOT), scope=Scope((Selector(inside=fail),)))
    with pytest.raises(ValueError, match=r"a\.test"):
        decide(account(broken), REBOOT, [instance("a.test")])


# Parameters.

SMALL = Parameters({"disks.size": Limit(high=100)})
LARGE = Parameters({"disks.size": Limit(high=900)})


def test_a_parameter_is_named_when_the_object_is_inside() -> None:
    small = role("small", *REBOOT, scope="*.test", parameters=SMALL)
    other = role("other", *REBOOT, scope="*.prod", parameters=LARGE)
    assert decide(account(small, other), REBOOT, [instance("a.test")], [("disks.size", 100)]).allowed
    for held in (account(small, other), account(other, small)):
        decision = decide(held, REBOOT, [instance("a.test")], [("disks.size", 101)])
        assert decision.refusal is Refusal.PARAMETER
        assert decision.reason == ("parameter disks.size may not be set to this: allowed is at most 100, by role small")
    assert decide(account(small, other), REBOOT, [instance("b")], [("disks.size", 101)]).refusal is Refusal.OUTSIDE


def test_limits_of_two_roles_do_not_add_up() -> None:
    small = role("small", *REBOOT, scope="*", parameters=Parameters({"disks.size": ANY}))
    other = role("other", *REBOOT, scope="*", parameters=Parameters({"start": ANY}))
    values = [("disks.size", 1), ("start", True)]
    assert not decide(account(small, other), REBOOT, [instance("a")], values).allowed
    assert decide(account(small, other), REBOOT, [instance("a")], values[:1]).role is small
    assert decide(account(small, other), REBOOT, [instance("a")], values[1:]).role is other


def test_a_role_without_parameters_sets_anything() -> None:
    assert decide(account(ALL), REBOOT, [instance("a")], [("hvparams.kvm_path", "/x")]).allowed
    restricted = role("r", *REBOOT, parameters=RESTRICTED)
    assert not decide(account(restricted), REBOOT, [instance("a")], [("hvparams.kvm_path", "/x")]).allowed


# Denies.

KEEP = Deny((Pattern("*"),), frozenset(REBOOT), (), {"instance": (Selector(tag=patterns(["keep"])),)}, 7)


def test_a_deny_wins_over_every_grant() -> None:
    kept = [instance("a.test", "keep")]
    for held in (ALL, TEST, BUILTIN["admin"]):
        decision = decide(account(held, denies=(KEEP,)), REBOOT, kept)
        assert decision.refusal is Refusal.DENIED
        assert decision.rule == "deny (line 7)"
        assert decision.reason == "deny (line 7) forbids it"
        assert decide(account(held, denies=(KEEP,)), REBOOT, [instance("a.test")]).allowed


def test_one_object_that_is_denied_is_enough() -> None:
    assert not decide(account(ALL, denies=(KEEP,)), REBOOT, [instance("b"), instance("a", "keep")]).allowed


def test_a_deny_does_not_tell_of_what_is_hidden() -> None:
    decision = decide(account(TEST, denies=(KEEP,)), REBOOT, [instance("a.prod", "keep")])
    assert decision.refusal is Refusal.OUTSIDE


def test_a_deny_knows_the_tags_that_a_role_gives() -> None:
    stamped = role("stamped", *REBOOT, tags=(Pattern("keep"),))
    new = [instance("a", new=True)]
    assert decide(account(stamped, denies=(KEEP,)), REBOOT, new).refusal is Refusal.DENIED
    assert decide(account(stamped, ALL, denies=(KEEP,)), REBOOT, new).role is ALL
    assert decide(account(stamped, denies=(KEEP,)), REBOOT, [instance("a")]).allowed


def test_a_deny_knows_the_group_that_a_role_gives() -> None:
    deny = Deny((Pattern("*"),), frozenset(REBOOT), (), {"instance": (Selector(group=patterns(["prod"])),)})
    limited = Role("r", frozenset(REBOOT), scope=Scope((Selector(group=patterns(["test"])),)))
    new = instance("a", groups=None, new=True, choices=groups("prod", "test"))
    assert decide(account(limited, denies=(deny,)), REBOOT, [new]).places == {"a": "test"}
    assert decide(account(ALL, denies=(deny,)), REBOOT, [new]).refusal is Refusal.DENIED
    for name, refusal in (("prod", Refusal.DENIED), ("test", None)):
        named = new._replace(choices=groups(name), named=True)
        assert decide(account(ALL, denies=(deny,)), REBOOT, [named]).refusal is refusal


# Mode warn.

WARN = role("warned", *REBOOT, scope="*.test", parameters=Parameters({"tags": ANY}, patterns(["keep"])), warn=True)


def test_warn_lets_through_and_tells() -> None:
    decision = decide(account(WARN), REBOOT, [instance("a.prod")])
    assert decision.role is WARN
    assert decision.warning == "instance 'a.prod': outside of role warned"
    decision = decide(account(WARN), REBOOT, [instance("a.test")], [("start", True)])
    assert decision.warning == "parameter start may not be set, by role warned"
    assert decide(account(WARN), REBOOT, [instance("a.test")]).warning == ""


def test_a_role_that_grants_comes_before_one_that_warns() -> None:
    for held in (account(WARN, PROD), account(PROD, WARN)):
        assert decide(held, REBOOT, [instance("a.prod")]).role is PROD


def test_warn_lifts_no_permission_no_deny_and_no_protection() -> None:
    assert decide(account(WARN), ["instances.remove"], [instance("a.test")]).refusal is Refusal.PERMISSION
    denied = decide(account(WARN, denies=(KEEP,)), REBOOT, [instance("a.prod", "keep")])
    assert denied.refusal is Refusal.DENIED
    protected = decide(account(WARN), REBOOT, [instance("a.test")], [("tags", "keep")])
    assert protected.refusal is Refusal.PARAMETER
    assert "that the policy goes by" in protected.reason


# Commands.

RUN = ["nodes.restricted_command"]
NODES = [Target("node", "n1", groups=frozenset(["default"]))]
COMMAND = Parameters({"command": Limit((Pattern("ls"),))})


def test_a_command_is_allowed_by_a_role_that_lists_it_alone() -> None:
    lists = role("lists", *RUN, parameters=COMMAND)
    free = role("free", *RUN)
    none = role("none", *RUN, parameters=RESTRICTED)
    for held in (account(lists), account(free, none, lists), account(BUILTIN["admin"], lists)):
        assert decide(held, RUN, NODES, [("command", "ls")]).role is lists
        for name in ("LS", "ls\n", "ls*", "l?", "", "w", None, 5, ["ls"]):
            assert decide(held, RUN, NODES, [("command", name)]).refusal is Refusal.PARAMETER
    for held in (account(free), account(none), account(BUILTIN["admin"])):
        assert decide(held, RUN, NODES, [("command", "ls")]).refusal is Refusal.PARAMETER


def test_no_mode_lifts_the_list_of_commands() -> None:
    for warns in (role("w", *RUN, warn=True, parameters=COMMAND), role("w", *RUN, warn=True)):
        assert decide(account(warns), RUN, NODES, [("command", "w")]).refusal is Refusal.PARAMETER
    scope = Scope(nodes=(Selector(patterns(["n2"])),))
    warns = dataclasses.replace(role("w", *RUN, warn=True, parameters=COMMAND), scope=scope)
    assert decide(account(warns), RUN, NODES, [("command", "w")]).refusal is not None
    assert decide(account(warns), RUN, NODES, [("command", "ls")]).warning == "node 'n1': outside of role w"


# Where new objects go.


def placed(scope: Scope, *names: str, tags: tuple[str, ...] = (), named: bool = False) -> Any:
    held = Role("r", frozenset(REBOOT), scope=scope, tags=tuple(map(Pattern, tags)))
    new = instance("a.test", groups=None, new=True, choices=groups(*names), named=named)
    return decide(account(held), REBOOT, [new])


def test_a_scope_without_places_leaves_the_choice_to_the_allocator() -> None:
    decision = placed(Scope((Selector(patterns(["*.test"])),)), "g1", "g2")
    assert decision.allowed and not decision.places


def test_a_scope_of_one_group_gives_the_place() -> None:
    assert placed(Scope((Selector(group=patterns(["g1"])),)), "g1", "g2").places == {"a.test": "g1"}
    nodes = Scope((Selector(patterns(["*.test"])),), nodes=(Selector(group=patterns(["g1"])),))
    assert placed(nodes, "g1", "g2").places == {"a.test": "g1"}


def test_a_choice_among_groups_is_refused() -> None:
    for scope in (
        Scope((Selector(group=patterns(["g*"])),)),
        Scope((Selector(patterns(["*.test"])),), nodes=(Selector(group=patterns(["g*"])),)),
    ):
        decision = placed(scope, "g2", "g1", "x")
        assert decision.refusal is Refusal.PLACE
        assert "group_name must name one of g1, g2" in decision.reason


def test_single_nodes_have_to_be_named() -> None:
    for selector in (Selector(patterns(["n1"])), Selector(tag=patterns(["t"]), group=patterns(["g1"]))):
        decision = placed(Scope((Selector(patterns(["*.test"])),), nodes=(selector,)), "g1")
        assert decision.refusal is Refusal.PLACE
        assert "pnode must name a node of the role" in decision.reason


def test_no_group_fits() -> None:
    assert placed(Scope((Selector(group=patterns(["g1"])),)), "g2").refusal is Refusal.OUTSIDE
    assert placed(Scope((Selector(group=patterns(["g1"])),))).refusal is Refusal.OUTSIDE
    assert placed(Scope((Selector(patterns(["x"]), group=patterns(["g1"])),)), "g1").refusal is Refusal.OUTSIDE


def test_a_group_that_is_named_must_be_one_of_the_scope() -> None:
    by_name = Selector(patterns(["*.test"]))
    assert placed(Scope((by_name,)), "g1", named=True).refusal is Refusal.OUTSIDE
    of_groups = Scope((by_name,), groups=(Selector(patterns(["g1"])),))
    assert placed(of_groups, "g1", named=True).places == {"a.test": "g1"}
    assert placed(of_groups, "g2", named=True).refusal is Refusal.OUTSIDE
    several = Scope((Selector(group=patterns(["g1", "g2"])),))
    assert placed(several, "g2", named=True).places == {"a.test": "g2"}
    assert placed(several, "g3", named=True).refusal is Refusal.OUTSIDE


def test_what_is_outside_comes_before_a_place_that_is_asked_for() -> None:
    scope = Scope((Selector(group=patterns(["g*"])),))
    held = Role("r", frozenset(REBOOT), scope=scope)
    new = instance("a.test", groups=None, new=True, choices=groups("g1", "g2"))
    assert decide(account(held), REBOOT, [new]).refusal is Refusal.PLACE
    assert decide(account(held), REBOOT, [new, instance("b.test", groups=frozenset(["x"]))]).refusal is Refusal.OUTSIDE


def test_what_is_implied_is_held_to_the_limits_that_there_are() -> None:
    held = Role("r", frozenset(REBOOT), parameters=Parameters({"disks.size": Limit(high=10)}))
    for implied, refusal in (
        ([("disks.size", 10), ("beparams.vcpus", 1)], None),
        ([("disks.size", 11)], Refusal.PARAMETER),
    ):
        assert decide(account(held), REBOOT, [instance("a")], (), implied).refusal is refusal


def test_a_place_counts_together_with_the_stamps() -> None:
    scope = Scope((Selector(tag=patterns(["mine"]), group=patterns(["g1"])),))
    assert placed(scope, "g1", tags=("mine",)).places == {"a.test": "g1"}
    assert placed(scope, "g1").refusal is Refusal.OUTSIDE


# Properties.

REQUESTS = st.tuples(
    world.needed,
    st.lists(world.targets | world.unplaced, max_size=2),
    st.lists(world.values, max_size=2),
    st.lists(world.values, max_size=1),
)
HELD = st.lists(world.roles, max_size=3)
DENIES = st.lists(world.denies, max_size=2)


@given(world.users, HELD, world.roles, DENIES, REQUESTS)
def test_one_more_role_never_takes_a_right_away(
    user: str, held: list[Role], more: Role, denies: list[Deny], request: Any
) -> None:
    if more.name not in {one.name for one in held} and decide(account_of(user, held, denies), *request).allowed:
        assert decide(account_of(user, [*held, more], denies), *request).allowed


@given(world.users, HELD, DENIES, world.denies, REQUESTS)
def test_one_more_deny_never_adds_a_right(
    user: str, held: list[Role], denies: list[Deny], more: Deny, request: Any
) -> None:
    if decide(account_of(user, held, [*denies, more]), *request).allowed:
        assert decide(account_of(user, held, denies), *request).allowed


@given(world.users, HELD, DENIES, REQUESTS)
def test_what_is_allowed_one_role_allows_by_itself(
    user: str, held: list[Role], denies: list[Deny], request: Any
) -> None:
    held = world.unique(held)
    alone = [one.name for one in held if decide(account_of(user, [one], denies), *request).allowed]
    decision = decide(account_of(user, held, denies), *request)
    assert decision.allowed == bool(alone)
    if decision.role is not None:
        assert decision.role.name in alone
    else:
        assert decision.refusal is not None
        assert decision.reason


@given(world.users, world.roles, world.selectors, st.sampled_from(KINDS), REQUESTS)
def test_a_scope_that_is_widened_never_takes_a_right_away(
    user: str, held: Role, more: Selector, kind: str, request: Any
) -> None:
    """But for the name of the user, which has to fit everywhere, and for a place that was given and is a choice now."""
    needed, targets, values, implied = request
    targets = [target for target in targets if target.groups is not None]
    scope = held.scope
    if scope is None or more.bound(user) is None:
        return
    change: dict[str, Any] = {kind + "s": (*scope.of(kind), more)}
    wider = dataclasses.replace(scope, **change)
    if decide(account_of(user, [held]), needed, targets, values, implied).allowed:
        widened = dataclasses.replace(held, scope=wider)
        assert decide(account_of(user, [widened]), needed, targets, values, implied).allowed


@given(world.users, HELD, DENIES, REQUESTS, REQUESTS)
def test_a_larger_request_needs_no_less(
    user: str, held: list[Role], denies: list[Deny], request: Any, more: Any
) -> None:
    """But for a role about one kind, which asks for one object of that kind: more may bring it."""
    whole = account_of(user, [one for one in held if one.kind is None], denies)
    larger = [[*one, *other] for one, other in zip(request, more)]
    if decide(whole, *larger).allowed:
        assert decide(whole, *request).allowed


def test_no_patterns_are_shared_by_mistake() -> None:
    assert Selector().name == Patterns()


@given(world.users, world.roles, world.targets | world.unplaced)
def test_what_is_told_by_the_ending_alone_is_outside(user: str, held: Role, target: Target) -> None:
    mine = held.bound(user)
    if mine is not None and mine.scope is not None and target.kind == "instance" and mine.covers(target):
        assert target.name.endswith(mine.endings)


def moved(scope: Scope, *choices: str) -> Refusal | None:
    """The refusal of moving a.test to a node of some groups that the allocator chooses."""
    held = Role("r", frozenset(REBOOT), scope=scope)
    node = Target("node", "", groups=None, choices=groups(*choices))
    return decide(account(held), REBOOT, [instance("a.test", groups=frozenset(choices)), node]).refusal


def test_a_node_that_the_allocator_chooses_is_inside() -> None:
    by_name = Selector(patterns(["*.test"]))
    assert moved(Scope((by_name,)), "g1") is None  # it is not about nodes
    assert moved(Scope((by_name,), nodes=(Selector(group=patterns(["g1"])),)), "g1") is None
    assert moved(Scope((by_name,), nodes=(Selector(patterns(["*"])),)), "g1", "g2") is None
    for selector in (
        Selector(patterns(["n1"])),
        Selector(group=patterns(["g2"])),
        Selector(patterns(["n*"]), group=patterns(["g1"])),
        Selector(tag=patterns(["t"])),
    ):
        assert moved(Scope((by_name,), nodes=(selector,)), "g1") is Refusal.PLACE
    assert moved(Scope((by_name,), nodes=(Selector(group=patterns(["g1"])),)), "g1", "g2") is Refusal.PLACE


def test_nothing_gets_out_of_a_deny() -> None:
    by_name = Deny(
        (Pattern("*"),), frozenset(["instances.remove"]), objects={"instance": (Selector(patterns(["k*"])),)}
    )
    held = account(ALL, denies=(by_name,))
    assert held.keeps([(instance("k1"), instance("x"))]) is by_name
    assert held.keeps([(instance("x"), instance("y")), (instance("k1"), instance("k2"))]) is None
    assert held.keeps([(instance("x"), instance("k1"))]) is None
    assert account(ALL).keeps([(instance("k1"), instance("x"))]) is None
