# SPDX-License-Identifier: BSD-2-Clause
"""Luxid is asked for the exact name, and its answer is compared."""

from __future__ import annotations

from typing import Any

import pytest
from ganeti import errors, query

from ganeti_ext.policy.model import Target
from ganeti_ext.rapi.filters import of_names
from ganeti_ext.rapi.lookup import FIELDS, INSTANCES_ON, RESOURCE, Lookup, NotThere
from tests.unit.rapi import fake
from tests.unit.rapi.fake import INSTANCE, NODE, Cluster


@pytest.fixture
def cluster() -> Cluster:
    cluster = Cluster()
    cluster.add("group", "group2", tags=("g",))
    cluster.add("node", "node2.example.com", group="group2", tags=("n",))
    cluster.add("instance", "two.example.com", nodes=(NODE, "node2.example.com"), tags=("a", "b"), disks=(5, 6))
    cluster.add("instance", "nowhere.example.com", nodes=())
    cluster.add("network", "net2", tags=("w",))
    return cluster


@pytest.mark.parametrize(
    ("kind", "name", "target"),
    [
        ("instance", INSTANCE, Target("instance", INSTANCE, frozenset(), frozenset({"group1"}))),
        (
            "instance",
            "two.example.com",
            Target("instance", "two.example.com", frozenset({"a", "b"}), frozenset({"group1", "group2"})),
        ),
        ("instance", "nowhere.example.com", Target("instance", "nowhere.example.com")),
        ("node", "node2.example.com", Target("node", "node2.example.com", frozenset({"n"}), frozenset({"group2"}))),
        ("group", "group2", Target("group", "group2", frozenset({"g"}), frozenset({"group2"}))),
        ("network", "net2", Target("network", "net2", frozenset({"w"}))),
    ],
)
def test_what_is_known_of_an_object(cluster: Cluster, kind: str, name: str, target: Target) -> None:
    found = Lookup(cluster.client()).one(kind, name)
    assert found.target == target
    assert found.uuid == ("uuid-of-web1" if name == INSTANCE else f"uuid-of-{name}")
    assert found.more == ()


@pytest.mark.parametrize(
    "name",
    [
        "two",
        "two.example",
        "Two.example.com",
        "two.example.com.",
        "uuid-of-two.example.com",
        "gone.example.com",
        "",
        "tw\u00f6",
    ],
)
def test_any_other_spelling_is_nothing(cluster: Cluster, name: str) -> None:
    with pytest.raises(NotThere):
        Lookup(cluster.client()).one("instance", name)


@pytest.mark.parametrize("name", ["Two.example.com", "", "-", "a..b", "tw\u00f6", "a b", "*", "a" * 64, "a\n"])
def test_what_cannot_be_a_name_is_not_even_asked_for(cluster: Cluster, name: str) -> None:
    with pytest.raises(NotThere):
        Lookup(cluster.client()).one("instance", name)
    assert cluster.calls == []


@pytest.mark.parametrize("kind", ["cluster", "job", "filter", "", "Instance"])
def test_other_kinds_are_not_asked_for(cluster: Cluster, kind: str) -> None:
    with pytest.raises(NotThere):
        Lookup(cluster.client()).one(kind, "a")
    assert cluster.calls == []


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [["two.example.com.victim.org", "u", [], "g", []]],
        [["two.example.com", "u", [], "g", []], ["two.example.com", "v", [], "g", []]],
        [["TWO.EXAMPLE.COM", "u", [], "g", []]],
    ],
    ids=str,
)
def test_the_answer_is_compared(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, rows: list[list[Any]]) -> None:
    response = type("Response", (), {"data": [[[0, value] for value in row] for row in rows]})
    monkeypatch.setattr(fake.Client, "Query", lambda *_: response)
    with pytest.raises(NotThere):
        Lookup(cluster.client()).one("instance", "two.example.com")


def test_luxids_complaint_is_a_name_that_is_not_there(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def complain(*_: Any) -> Any:
        raise errors.OpPrereqError("ambiguous", errors.ECODE_INVAL)

    monkeypatch.setattr(fake.Client, "Query", complain)
    with pytest.raises(NotThere):
        Lookup(cluster.client()).one("instance", "two.example.com")


def test_one_question_for_each_object(cluster: Cluster) -> None:
    lookup = Lookup(cluster.client())
    for _ in range(3):
        lookup.one("instance", "two.example.com")
    assert len(cluster.calls) == 1
    assert lookup.one("instance", "two.example.com", ["disk.sizes"]).more == ([5, 6],)
    assert len(cluster.calls) == 2
    assert lookup.uuids() == {("instance", "two.example.com"): "uuid-of-two.example.com"}


def test_the_instances_on_an_object(cluster: Cluster) -> None:
    cluster.add("instance", "Odd_.example.com", networks=("net2",))  # an administrator may call it so
    lookup = Lookup(cluster.client())
    for kind, name, expected in (
        ("node", NODE, [INSTANCE, "Odd_.example.com", "two.example.com"]),
        ("node", "node2.example.com", ["two.example.com"]),
        ("group", "group1", [INSTANCE, "Odd_.example.com", "two.example.com"]),
        ("network", "net2", ["Odd_.example.com"]),
        ("network", "network1", []),
    ):
        found = lookup.on(lookup.one(kind, name, INSTANCES_ON[kind]))
        assert {one.target.name for one in found} == set(expected)


def test_many_names_are_asked_for_in_parts(cluster: Cluster) -> None:
    names = [f"i{number}.example.com" for number in range(450)]
    for name in names[:-1]:
        cluster.add("instance", name)
    lookup = Lookup(cluster.client())
    assert [found.target.name for found in lookup.many("instance", names)] == names[:-1]
    assert [call.arguments[2] for call in cluster.calls] == [
        of_names(names[:200]),
        of_names(names[200:400]),
        of_names(names[400:]),
    ]
    cluster.calls.clear()
    assert len(lookup.many("instance", names[:-1])) == 449
    assert cluster.calls == []
    assert lookup.many("instance", []) == []


def test_all_groups(cluster: Cluster) -> None:
    assert {group.name for group in Lookup(cluster.client()).groups()} == {"group1", "group2"}


@pytest.mark.parametrize("kind", RESOURCE)
def test_the_fields_are_ganetis_and_of_the_configuration(kind: str) -> None:
    """For live ones luxid would ask the nodes (`facts.md`)."""
    known = query.ALL_FIELDS[RESOURCE[kind]]
    live = {query.NQ_LIVE, query.IQ_LIVE, query.IQ_CONSOLE, query.IQ_DISKUSAGE}
    for field in (*FIELDS[kind], *INSTANCES_ON.get(kind, ())):
        assert known[field][1] not in live, field
