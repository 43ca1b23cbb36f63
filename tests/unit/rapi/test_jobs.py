# SPDX-License-Identifier: BSD-2-Clause
"""Whose a job is, and what is taken out of what it says."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ganeti import opcodes
from hypothesis import given
from hypothesis import strategies as st

from ganeti_ext.rapi.jobs import REASON_SOURCE, OwnJobs, cut, is_own, stamp, without
from tests.unit.rapi.fake import Cluster

OURS = [REASON_SOURCE, "she", 1]


def stamped(*trail: Any, nested: bool = False) -> list[Any]:
    op = opcodes.OpInstanceReboot(reason=list(trail))
    stamp(op, "she", nested)
    return [tuple(entry[:2]) for entry in op.reason]


@pytest.mark.parametrize(
    ("trail", "kept"),
    [
        ((), []),
        ((("gnt:user", "why", 5),), [("gnt:user", "why")]),
        ((("gnt:library:rlib2:x", "", 5),), [("gnt:library:rlib2:x", "")]),
        (((REASON_SOURCE, "root", 5),), []),
        (((REASON_SOURCE, "root", 5), ("gnt:user", REASON_SOURCE, 5)), [("gnt:user", REASON_SOURCE)]),
        ((("gnt:client", "x", 5), ("x", "y", 5)), []),
        ((("gnt:library:rlib2", "x", 5),), []),
    ],
)
def test_a_stamp(trail: Any, kept: list[Any]) -> None:
    assert stamped(*trail) == [(REASON_SOURCE, "she"), *kept]
    assert stamped(*trail, nested=True) == []


def test_a_trail_that_is_none() -> None:
    op = opcodes.OpInstanceReboot(reason=None)
    stamp(op, "she", False)
    assert [entry[:2] for entry in op.reason] == [(REASON_SOURCE, "she")]


def test_what_is_stamped_is_own() -> None:
    op = opcodes.OpInstanceReboot(reason=[("gnt:user", "why", 5)])
    stamp(op, "she", False)
    stored = [{"reason": [list(entry) for entry in op.reason]}]
    assert is_own(stored, "she")
    assert not is_own(stored, "he")


@pytest.mark.parametrize(
    "ops",
    [
        None,
        [],
        {},
        "x",
        [{}],
        [{"reason": None}],
        [{"reason": []}],
        [{"reason": [5, None, [], {}]}],
        [{"reason": [[REASON_SOURCE]]}],
        [{"reason": [[REASON_SOURCE, None, 1]]}],
        [{"reason": [[REASON_SOURCE, "he", 1]]}],
        [{"reason": [[REASON_SOURCE, "SHE", 1]]}],
        [{"reason": [[REASON_SOURCE, ["she"], 1]]}],
        [{"reason": [OURS, OURS]}],
        [{"reason": [OURS, [REASON_SOURCE, "he", 1]]}],
        [{"reason": [["x", "she", 1]]}],
        [{"reason": [OURS]}, {"reason": []}],
        [{"reason": [OURS]}, {"reason": [[REASON_SOURCE, "he", 1]]}],
        [{"reason": []}, {"reason": [OURS]}],
    ],
    ids=str,
)
def test_what_is_not_own(ops: Any) -> None:
    assert not is_own(ops, "she")


@pytest.mark.parametrize(
    "ops",
    [
        [{"reason": [OURS]}],
        [{"reason": [OURS]}, {"reason": [OURS]}],
        [{"reason": [["gnt:opcode:x", "job=5", 1], OURS]}],
        [{"reason": [OURS, ["gnt:user", REASON_SOURCE, 1], [], 5]}],
    ],
    ids=str,
)
def test_what_is_own(ops: Any) -> None:
    assert is_own(ops, "she")


@pytest.fixture
def cluster() -> Cluster:
    cluster = Cluster()
    cluster.jobs = {5: [{"reason": [OURS]}], 6: [{"reason": []}], 7: [{"reason": [OURS]}]}
    return cluster


@pytest.mark.parametrize("job_id", [5, "5", "005", "7"])
def test_an_own_job(cluster: Cluster, job_id: Any) -> None:
    assert OwnJobs(cluster.client(), "she").own(job_id) == int(job_id)


@pytest.mark.parametrize(
    "job_id", [6, "6", 8, "8", "-5", -5, True, None, "", "x", "5.0", 5.5, [5], "\u0665", " 5", "5\n", "9" * 19]
)
def test_anothers_job_or_none(cluster: Cluster, job_id: Any) -> None:
    assert OwnJobs(cluster.client(), "she").own(job_id) is None


def test_all_own_jobs(cluster: Cluster) -> None:
    own = OwnJobs(cluster.client(), "she")
    assert own.ids() == [5, 7]
    assert own.rows(["status", "id"]) == [["success", 5], ["success", 7]]
    assert OwnJobs(cluster.client(), "he").rows(["id"]) == []


# What it says.

FOREIGN = frozenset({"db1.prod.example.com", "x"})


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("on db1.prod.example.com: no", "on \u2026: no"),
        ("db1.prod.example.com", "\u2026"),
        ("db1.prod.example.com.", "\u2026"),
        ("(db1.prod.example.com)", "(\u2026)"),
        ("/x/y", "/\u2026/y"),
        ("db2.db1.prod.example.com", "db2.db1.prod.example.com"),
        ("db1.prod.example.com-old", "db1.prod.example.com-old"),
        ("web1", "web1"),
        (5, 5),
        (None, None),
        (True, True),
        (["x", ["x y"]], ["\u2026", ["\u2026 y"]]),
        (("x",), ["\u2026"]),
        ({"x": "secret", "y": {"z": ["x"]}}, {"\u2026": None, "y": {"z": ["\u2026"]}}),
    ],
    ids=str,
)
def test_names_are_taken_out(said: Any, shown: Any) -> None:
    assert without(said, FOREIGN) == shown


def test_only_what_a_job_says_is_cut() -> None:
    fields = ["id", "ops", "opresult", "oplog", "summary"]
    row = [5, [{"x": "x"}], [["x"]], [[[1, 2, "message", "x"]]], ["x"]]
    assert cut(fields, row, lambda: FOREIGN) == [5, [{"x": "x"}], [["\u2026"]], [[[1, 2, "message", "\u2026"]]], ["x"]]


@pytest.mark.parametrize("said", [[], [[]], [None], [[None]], [5], [{}]], ids=str)
def test_nobody_is_asked_about_a_job_that_says_nothing(said: Any) -> None:
    def fail() -> frozenset[str]:
        raise AssertionError("asked")

    assert cut(["opresult", "id"], [said, 5], fail) == [said, 5]


@given(st.lists(st.sampled_from(["x", "web1", " ", ",", "/", "(", "'", ":"]), max_size=8))
def test_no_foreign_word_is_left(words: list[str]) -> None:
    text = without("".join(words), FOREIGN)
    assert "x" not in re.findall(r"\w+", text)
