# SPDX-License-Identifier: BSD-2-Clause
"""Every endpoint has its own permission, and a permission opens its own endpoints alone."""

from __future__ import annotations

import pytest
from ganeti import rapi
from ganeti.rapi import baserlib, connector, rlib2

from ganeti_ext.policy.parameters import PARAMETERS
from ganeti_ext.policy.vocabulary import NEVER_SCOPED, PERMISSIONS
from ganeti_ext.rapi import permissions, resources
from ganeti_ext.rapi.permissions import (
    METHODS,
    OPEN_RESOURCES,
    PERMISSION_OF,
    own_access_lists,
    permission_of,
    register_role,
    walk,
)
from tests.unit.rapi import fake
from tests.unit.rapi.fake import PAIRS, Server

Pair = tuple[type, str]

#: What releases after 3.0 added.
LATER = {("R_2_networks_name_rename", "PUT"), ("R_2_instances_name_export", "DELETE")}

#: What is ours, and in no connection map unless it is switched on.
OURS = {("R_2_nodes_name_restricted_command", "POST")}

PAIR_IDS = [f"{resource.__name__}-{method}" for resource, method in PAIRS]

#: Scopes: one that holds all objects of the tests, and one that holds none of them.
INSIDE = (
    "scope: {instances: {name: '*'}, nodes: [{name: '*'}, {group: '*'}], groups: {name: '*'}, networks: {name: '*'}},"
    " parameters: {%s}"
)
OUTSIDE = "scope: {instances: {name: elsewhere}, nodes: {name: elsewhere}}"
EVERYTHING = ", ".join(f"{name}: '*'" for name in PARAMETERS if name != "command")


def access_lists() -> dict[Pair, list[str]]:
    return {
        (resource, method): getattr(resource, f"{method}_ACCESS")
        for resource in set(connector.CONNECTOR.values())
        for method in METHODS
        if hasattr(resource, f"{method}_ACCESS")
    }


def scoped(permission: str, scope: str = OUTSIDE) -> str:
    return f"version: 1\nroles: {{r: {{permissions: [{permission}], {scope}}}}}\n"


# The table.


@pytest.mark.parametrize("pair", PAIRS, ids=PAIR_IDS)
def test_every_endpoint_has_a_permission_or_is_open(pair: Pair) -> None:
    resource, method = pair
    assert (permission_of(resource, method) is None) == (resource.__name__ in OPEN_RESOURCES)


def test_every_entry_is_an_endpoint_of_this_ganeti_or_of_a_later_one() -> None:
    served = {(resource.__name__, method) for resource, method in PAIRS}
    named = {(name, method) for name, methods in PERMISSION_OF.items() for method in methods}
    assert named - served - LATER == OURS
    assert named >= LATER


def test_every_permission_of_the_table_is_a_known_one() -> None:
    assert {name for methods in PERMISSION_OF.values() for name in methods.values()} <= PERMISSIONS.keys()


def test_every_permission_has_an_endpoint() -> None:
    named = {name for methods in PERMISSION_OF.values() for name in methods.values()}
    assert PERMISSIONS.keys() - named == set()


def test_the_open_resources_only_read() -> None:
    assert {method for resource, method in PAIRS if resource.__name__ in OPEN_RESOURCES} == {"GET"}


def test_an_endpoint_that_is_not_known_has_no_permission() -> None:
    assert permission_of(type("R_2_later", (), {}), "GET") is None
    assert permission_of(rlib2.R_2_instances, "PATCH") is None
    assert permission_of(rlib2.R_2_instances, "get") is None


def test_walking_finds_the_82_of_3_0_or_more_of_a_later_one() -> None:
    assert len(PAIRS) >= 82
    assert len(set(PAIRS)) == len(PAIRS)
    assert {resource for resource, _ in PAIRS} == set(connector.CONNECTOR.values())


def test_walking_finds_written_and_generated_methods() -> None:
    class Written:
        def GET(self) -> None: ...

    class Generated:
        PUT_OPCODE = object

    assert walk({"/a": Written, "/b": Generated, "/c": Written}) == [(Written, "GET"), (Generated, "PUT")]


def test_an_endpoint_of_a_later_ganeti_is_told() -> None:
    class R_2_later:
        def GET(self) -> None: ...

    assert permissions.unknown_endpoints(connector.CONNECTOR) == []
    assert permissions.unknown_endpoints({**connector.CONNECTOR, "/2/later": R_2_later}) == ["R_2_later GET"]


def test_our_own_endpoint_is_known_and_ganetis_map_stays_as_it_is() -> None:
    before = dict(connector.CONNECTOR)
    connections = resources.served(connector.CONNECTOR, False, True)
    assert {(resource.__name__, method) for resource, method in walk(connections)} - {
        (resource.__name__, method) for resource, method in PAIRS
    } == OURS
    assert permissions.unknown_endpoints(connections) == []
    assert resources.served(connector.CONNECTOR, False, False) == connector.CONNECTOR == before


# The access lists.


@pytest.mark.usefixtures("registered")
def test_no_two_lists_are_one_object() -> None:
    lists = [*access_lists().values()]
    assert len({id(words) for words in lists}) == len(lists)


def test_in_stock_they_are() -> None:
    lists = [*access_lists().values()]
    assert len({id(words) for words in lists}) < len(lists) / 2


@pytest.mark.usefixtures("registered")
def test_the_classes_that_resources_derive_from_are_as_they_were() -> None:
    assert baserlib.ResourceBase.GET_ACCESS == []
    for method in ("PUT", "POST", "DELETE"):
        assert getattr(baserlib.ResourceBase, f"{method}_ACCESS") == [rapi.RAPI_ACCESS_WRITE]


def test_the_lists_hold_what_they_held() -> None:
    before = {pair: list(words) for pair, words in access_lists().items()}
    with fake.unchanged_access_lists():
        own_access_lists(connector.CONNECTOR)
        assert access_lists() == before
    assert access_lists() == before


def test_doing_it_twice_changes_nothing() -> None:
    with fake.unchanged_access_lists():
        own_access_lists(connector.CONNECTOR)
        once = {pair: list(words) for pair, words in access_lists().items()}
        own_access_lists(connector.CONNECTOR)
        assert access_lists() == once


def test_a_middlewares_role_is_put_on_the_named_lists_alone() -> None:
    before = {pair: list(words) for pair, words in access_lists().items()}
    named = [(rlib2.R_2_instances, "POST"), (rlib2.R_2_query, "PUT"), (rlib2.R_2_instances_name, "GET")]
    with fake.unchanged_access_lists():
        register_role("test", named)
        register_role("test", named)
        for pair, words in access_lists().items():
            assert words == before[pair] + (["test"] if pair in named[:2] else [])


@pytest.mark.parametrize("first", [True, False])
def test_a_middlewares_role_and_lists_of_ones_own_go_together(first: bool) -> None:
    with fake.unchanged_access_lists():
        if first:
            register_role("test", [(rlib2.R_2_instances, "POST")])
        own_access_lists(connector.CONNECTOR)
        if not first:
            register_role("test", [(rlib2.R_2_instances, "POST")])
        assert sorted(rlib2.R_2_instances.POST_ACCESS) == ["test", "write"]
        assert rlib2.R_2_instances_name_reboot.POST_ACCESS == ["write"]


# All pairs: what is granted for one endpoint opens no other one.


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("permission", [name for name in PERMISSIONS if name != "nodes.restricted_command"])
def test_a_permission_opens_its_own_endpoints_alone(permission: str) -> None:
    server = Server(f"user +{permission}")
    opened = 0
    for pair in PAIRS:
        answer = server.ask_pair(pair, "user")
        if pair[0].__name__ in OPEN_RESOURCES:
            assert (answer.status, answer.calls) == (200, []), pair
        elif permission_of(*pair) == permission:
            if permission == "instances.multi_alloc":
                assert "instances.create" in answer.message  # of which it is made
                continue
            assert answer.status == 200, (pair, answer)
            assert answer.calls, pair
            opened += 1
        else:
            assert answer.status == 403, (pair, answer)
            assert answer.calls == [], pair
    served = {permission_of(*pair) for pair in PAIRS}  # a later release has more
    assert opened or permission == "instances.multi_alloc" or permission not in served


SCOPED = [name for name in PERMISSIONS if name not in NEVER_SCOPED]
WHOLE = INSIDE % EVERYTHING

#: What a limited role reads without asking for an object of its own: a list, or of the cluster as a whole.
LISTS = {"R_2_instances", "R_2_nodes", "R_2_groups", "R_2_networks", "R_2_jobs", "R_2_info", "R_2_os"}
QUERIES = {"R_2_query", "R_2_query_fields"}


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("permission", SCOPED)
@pytest.mark.parametrize("scope", [OUTSIDE, WHOLE], ids=["outside", "inside"])
def test_a_permission_within_a_scope_opens_no_other_endpoint(permission: str, scope: str) -> None:
    server = Server("user @r", scoped(permission, scope))
    for pair in PAIRS:
        if permission_of(*pair) == permission:
            continue
        answer = server.ask_pair(pair, "user")
        open_to_all = pair[0].__name__ in OPEN_RESOURCES
        assert answer.status == (200 if open_to_all else 403), (pair, answer)
        assert answer.calls == [], pair


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("permission", SCOPED)
def test_a_permission_opens_what_is_inside_of_the_scope(permission: str) -> None:
    server = Server("user @r", scoped(permission, WHOLE))
    for pair in PAIRS:
        name = pair[0].__name__
        if permission_of(*pair) != permission or name == "R_2_instances_multi_alloc":
            continue
        answer = server.ask_pair(pair, "user")
        if name == "R_2_tags" or name.startswith("R_2_jobs_id"):
            assert answer.status == 404, (pair, answer)  # the cluster's tags; a job that is nobody's own
            continue
        assert answer.status == 200, (pair, answer)
        for ops in [call.arguments[0] for call in answer.calls if call.name == "SubmitJob"]:
            for op in ops:
                assert op["reason"][0][:2] == ("gnt:ext:rapi-user", "user")
                assert op.get("instance_uuid", "uuid-of-web1") == "uuid-of-web1"
                assert op.get("node_uuid", f"uuid-of-{fake.NODE}") == f"uuid-of-{fake.NODE}"


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("permission", SCOPED)
def test_a_permission_opens_nothing_outside_of_the_scope(permission: str) -> None:
    server = Server("user @r", scoped(permission))
    for pair in PAIRS:
        name = pair[0].__name__
        if permission_of(*pair) != permission:
            continue
        answer = server.ask_pair(pair, "user")
        assert "SubmitJob" not in [call.name for call in answer.calls] or name == "R_2_os", pair
        if name in LISTS and pair[1] == "GET":
            assert answer.status == 200, (pair, answer)
            rows = [row for row in answer.body if isinstance(row, dict)] if isinstance(answer.body, list) else []
            assert rows == [], (pair, answer)
        elif name in QUERIES:
            assert answer.status == 200, (pair, answer)
            assert not answer.body.get("data"), (pair, answer)
        else:
            assert answer.status == 404, (pair, answer)


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    "options", ["+", "@none", "no.such", "-tags.set", "@admin,-typo", "@r", "instance_write,-no.such"]
)
def test_an_account_that_is_granted_nothing_reaches_nothing(options: str) -> None:
    server = Server(f"user {options}")
    for pair in PAIRS:
        answer = server.ask_pair(pair, "user")
        assert answer.status == (200 if pair[0].__name__ in OPEN_RESOURCES else 403), (pair, answer)
        assert answer.calls == [], pair


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("role", ["admin", "readonly", "operator", *("instance", "node", "group", "network")])
def test_a_builtin_role_opens_what_it_lists(role: str) -> None:
    token = f"@{role}" if role in ("admin", "readonly", "operator") else f"{role}_write"
    server = Server(f"user {token}")
    granted_to = server.users["user"].grants.roles
    for pair in PAIRS:
        answer = server.ask_pair(pair, "user")
        granted = permission_of(*pair) in granted_to
        if pair[0].__name__.endswith("tags") and granted and token.endswith("_write"):
            granted = f"R_2_{role}s_name_tags" == pair[0].__name__
        expected = 200 if granted or pair[0].__name__ in OPEN_RESOURCES else 403
        assert answer.status == expected, (pair, answer)
        assert granted or answer.calls == [], pair


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("options", ["write", "read", "", "anything"])
def test_plain_accounts_reach_what_they_reach_in_stock(options: str) -> None:
    """With the permissions registered, a policy in force and accounts of ours beside them."""
    ours = Server(f"user {options}\nother @readonly", scoped("tags.set"))
    with fake.unchanged_access_lists():
        for name in PERMISSIONS:
            for words in access_lists().values():
                if name in words:
                    words.remove(name)
        stock = Server(f"user {options}", cls=fake.STOCK)
        for pair in PAIRS:
            expected = stock.ask_pair(pair, "user")
            answer = ours.ask_pair(pair, "user")
            assert (answer.status, fake.without_times(answer.calls)) == (
                expected.status,
                fake.without_times(expected.calls),
            ), pair
            assert answer.body == expected.body, pair


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("pair", PAIRS, ids=PAIR_IDS)
def test_nothing_is_anonymous_once_there_is_something_to_protect(pair: Pair) -> None:
    open_to_all = pair[0].__name__ in OPEN_RESOURCES
    for server in (Server("user @readonly"), Server("root write", scoped("tags.set"))):
        answer = server.ask_pair(pair)
        assert answer.status == (200 if open_to_all else 401)
        assert answer.calls == []


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("reqauth", [True, False])
def test_before_that_what_is_anonymous_is_ganetis_own(reqauth: bool) -> None:
    ours = Server("root write", reqauth=reqauth)
    stock = Server("root write", reqauth=reqauth, cls=fake.STOCK)
    for pair in PAIRS:
        answer, expected = ours.ask_pair(pair), stock.ask_pair(pair)
        assert (answer.status, answer.body) == (expected.status, expected.body)
        assert fake.without_times(answer.calls) == fake.without_times(expected.calls)


def test_an_endpoint_that_is_not_known_needs_the_option_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(permissions.PERMISSION_OF, "R_2_info")
    monkeypatch.delitem(permissions.PERMISSION_OF, "R_2_redist_config")
    with fake.unchanged_access_lists():
        own_access_lists(connector.CONNECTOR)
        server = Server("user @admin\nroot write")
        for pair in (fake.pair_named("R_2_info", "GET"), fake.pair_named("R_2_redist_config", "PUT")):
            assert server.ask_pair(pair, "user").status == 403
            assert server.ask_pair(pair, "root").status == 200
