# SPDX-License-Identifier: BSD-2-Clause
"""Quotas count what there is and what is on its way, and nothing takes away before it is gone."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganeti_ext.policy.model import Quota, Role, Scope, Selector
from ganeti_ext.policy.pattern import NO_PATTERNS, Pattern, Patterns
from ganeti_ext.rapi.quota import (
    Counter,
    QuotaBusy,
    QuotaExceeded,
    Size,
    changes_size,
    has_limits,
    locked,
    size_after,
)
from tests.unit.rapi.fake import Cluster

DEFAULTS = {"vcpus": 1, "maxmem": 128, "minmem": 64}
WEB = "web1.test.example.com"
NEW = "new.test.example.com"


def creation(name: str = NEW, **settings: Any) -> dict[str, Any]:
    return {"OP_ID": "OP_INSTANCE_CREATE", "instance_name": name, "disks": [], "beparams": {}, "tags": [], **settings}


def grow(amount: Any, absolute: bool = False, disk: Any = 0) -> dict[str, Any]:
    return {
        "OP_ID": "OP_INSTANCE_GROW_DISK",
        "instance_name": WEB,
        "disk": disk,
        "amount": amount,
        "absolute": absolute,
    }


def change(name: str = WEB, **settings: Any) -> dict[str, Any]:
    return {"OP_ID": "OP_INSTANCE_SET_PARAMS", "instance_name": name, "beparams": {}, "disks": [], **settings}


def anew(*disks: Any) -> dict[str, Any]:
    return {"OP_ID": "OP_INSTANCE_RECREATE_DISKS", "instance_name": WEB, "disks": list(disks)}


# What one instance is.


@pytest.mark.parametrize(
    ("op", "size"),
    [
        (creation(), Size(1, 128, [])),
        (creation(beparams={"vcpus": 4, "maxmem": 512, "minmem": 64}), Size(4, 512, [])),
        (creation(beparams={"minmem": 512}), Size(1, 128, [])),
        (creation(beparams={"memory": 512}), Size(1, 512, [])),
        (creation(beparams={"memory": 512, "maxmem": 1}), Size(1, 512, [])),
        (creation(beparams={"vcpus": "default", "maxmem": "default"}), Size(1, 128, [])),
        (creation(beparams={"vcpus": "4", "maxmem": "1G"}), Size(4, 1024, [])),
        (creation(beparams={"vcpus": -4, "maxmem": -100}), Size(0, 0, [])),
        (creation(beparams={"vcpus": [1], "maxmem": "much"}), Size(0, 0, [])),
        (creation(beparams=None, disks=None), Size(1, 128, [])),
        (creation(disks=[{"size": 100}, {"size": "50"}, {"size": "1G"}, {}]), Size(1, 128, [100, 50, 1024, 0])),
        (creation(disks=[{"size": -100}, {"size": 100}]), Size(1, 128, [0, 100])),
        (creation(disks=[{"size": float("inf")}]), Size(1, 128, [0])),
    ],
    ids=str,
)
def test_the_size_of_a_new_instance(op: dict[str, Any], size: Size) -> None:
    assert size_after(op, None, DEFAULTS) == size


@pytest.mark.parametrize(
    ("op", "size"),
    [
        (change(), Size(2, 256, [100, 10])),
        (change(beparams={"vcpus": 4}), Size(4, 256, [100, 10])),
        (change(beparams={"vcpus": 1, "maxmem": 1}), Size(2, 256, [100, 10])),
        (change(beparams={"maxmem": 1, "memory": 512}), Size(2, 512, [100, 10])),
        (change(beparams={"vcpus": "default"}), Size(2, 256, [100, 10])),
        (change(disks=[["add", {"size": 7}]]), Size(2, 256, [100, 10, 7])),
        (change(disks=[["add", 0, {"size": 7}], ["add", -1, {"size": 8}]]), Size(2, 256, [100, 10, 7, 8])),
        (change(disks=[["add", {"size": -1000}]]), Size(2, 256, [100, 10, 0])),
        (change(disks=[["remove", 0, {}]]), Size(2, 256, [100, 10])),
        (change(disks=[["modify", 0, {"size": 7}], [0, {"size": 7}]]), Size(2, 256, [100, 10])),
        (grow(5), Size(2, 256, [105, 10])),
        (grow(5, disk=1), Size(2, 256, [100, 15])),
        (grow(5, disk=2), Size(2, 256, [100, 10])),
        (grow(150, absolute=True), Size(2, 256, [150, 10])),
        (grow(5, absolute=True), Size(2, 256, [100, 10])),
        (grow(-50), Size(2, 256, [100, 10])),
        (anew(), Size(2, 256, [100, 10])),
        (anew(0, 1), Size(2, 256, [100, 10])),
        (anew([0, {"size": 700}]), Size(2, 256, [700, 10])),
        (anew([1, {"size": 5}], [7, {"size": 700}], [0, {}]), Size(2, 256, [100, 10])),
    ],
    ids=str,
)
def test_the_size_of_one_that_is_changed(op: dict[str, Any], size: Size) -> None:
    before = Size(2, 256, [100, 10])
    assert size_after(op, before, DEFAULTS) == size
    assert before == Size(2, 256, [100, 10])


AMOUNTS = st.one_of(st.integers(-500, 500), st.sampled_from(["default", "1G", "x", None, 1.5]))
DISKS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["add", "remove", "modify", 0, 1]), st.fixed_dictionaries({"size": AMOUNTS})),
        st.integers(0, 3),
    ),
    max_size=3,
)
CHANGES = st.one_of(
    st.builds(
        lambda be, disks: change(beparams=be, disks=disks),
        st.dictionaries(st.sampled_from(["vcpus", "maxmem", "memory", "minmem"]), AMOUNTS),
        DISKS,
    ),
    st.builds(grow, AMOUNTS, st.booleans(), st.integers(0, 3)),
    st.builds(lambda disks: anew(*disks), DISKS),
)


@given(st.builds(Size, st.integers(0, 9), st.integers(0, 999), st.lists(st.integers(0, 99), max_size=3)), CHANGES)
def test_no_change_takes_anything_away(before: Size, op: dict[str, Any]) -> None:
    after = size_after(op, before, DEFAULTS)
    assert after.vcpus >= before.vcpus
    assert after.memory >= before.memory
    assert all(one >= other for one, other in zip(after.disks, before.disks))
    assert len(after.disks) >= len(before.disks)


@pytest.mark.parametrize(
    ("op_id", "changes"),
    [
        ("OP_INSTANCE_CREATE", True),
        ("OP_INSTANCE_MULTI_ALLOC", True),
        ("OP_INSTANCE_SET_PARAMS", True),
        ("OP_INSTANCE_GROW_DISK", True),
        ("OP_INSTANCE_RECREATE_DISKS", True),
        ("OP_INSTANCE_RENAME", True),
        ("OP_INSTANCE_REMOVE", False),
        ("OP_INSTANCE_STARTUP", False),
        (None, False),
    ],
)
def test_what_is_counted(op_id: Any, changes: bool) -> None:
    assert changes_size({"OP_ID": op_id}) is changes


def test_a_quota_without_a_limit_is_none() -> None:
    assert not has_limits(None)
    assert not has_limits(Quota())
    assert has_limits(Quota(instances=0))


# What a scope holds.


@pytest.fixture
def cluster() -> Cluster:
    cluster = Cluster({})
    cluster.add("instance", WEB, vcpus=2, memory=256, disks=(100, 10), tags=("tenant:she",))
    cluster.add("instance", "db1.prod.example.com", vcpus=50, memory=5000, disks=(9000,), tags=("tenant:he",))
    return cluster


def role(name: str = "*.test.example.com", tag: str = "", group: str = "", **quota: Any) -> Role:
    name_, tag_, group_ = (Patterns([Pattern(text)]) if text else NO_PATTERNS for text in (name, tag, group))
    selector = Selector(name_, tag_, group_)
    return Role("tenant", frozenset(), scope=Scope((selector,)), quota=Quota(**quota))


def room(cluster: Cluster, limited: Role, *ops: dict[str, Any]) -> bool:
    try:
        Counter(cluster.client(), limited).check(list(ops))
    except QuotaExceeded:
        return False
    return True


@pytest.mark.parametrize(
    ("quota", "op", "fits"),
    [
        ({"instances": 2}, creation(), True),
        ({"instances": 1}, creation(), False),
        ({"instances": 0}, creation(), False),
        ({"vcpus": 3}, creation(), True),
        ({"vcpus": 2}, creation(), False),
        ({"memory": 384}, creation(), True),
        ({"memory": 383}, creation(), False),
        ({"memory": 256 + 512}, creation(beparams={"memory": 512, "maxmem": 1}), True),
        ({"memory": 256 + 511}, creation(beparams={"memory": 512, "maxmem": 1}), False),
        ({"disk": 110}, creation(), True),
        ({"disk": 120}, creation(disks=[{"size": 10}]), True),
        ({"disk": 119}, creation(disks=[{"size": 10}]), False),
        ({"disk": 110}, creation(disks=[{"size": 1}]), False),
        ({"disk": 110}, creation(disks=[{"size": -50}, {"size": 40}]), False),
        ({"disk": 115}, grow(5), True),
        ({"disk": 114}, grow(5), False),
        ({"disk": 115}, grow(105, absolute=True), True),
        ({"disk": 114}, grow(105, absolute=True), False),
        ({"disk": 210}, anew([0, {"size": 200}]), True),
        ({"disk": 209}, anew([0, {"size": 200}]), False),
        ({"vcpus": 4}, change(beparams={"vcpus": 4}), True),
        ({"vcpus": 3}, change(beparams={"vcpus": 4}), False),
        ({"disk": 117}, change(disks=[["add", -1, {"size": 7}]]), True),
        ({"disk": 116}, change(disks=[["add", -1, {"size": 7}]]), False),
        ({"instances": 1, "vcpus": 2}, change(beparams={"maxmem": 9999}), True),
        ({"vcpus": 1}, change(beparams={"vcpus": 1}), True),
        ({"vcpus": 1, "memory": 1, "disk": 1}, change(beparams={"vcpus": 1, "maxmem": 128}), True),
        ({"vcpus": 1}, change(beparams={"maxmem": 512}), True),
        ({"vcpus": 1, "memory": 511}, change(beparams={"maxmem": 512}), False),
    ],
    ids=str,
)
def test_what_there_is_counts(cluster: Cluster, quota: dict[str, Any], op: dict[str, Any], fits: bool) -> None:
    """What is over its limit already may become less of, or more of something else."""
    assert room(cluster, role(**quota), op) is fits


def test_the_refusal_says_how_much_there_is(cluster: Cluster) -> None:
    with pytest.raises(QuotaExceeded, match=r"quota: 256 of 300 MiB of memory are taken, and this needs 128"):
        Counter(cluster.client(), role(memory=300)).check([creation()])
    with pytest.raises(QuotaExceeded, match=r"quota: 1 of 1 instances are taken, and this needs 1"):
        Counter(cluster.client(), role(instances=1)).check([creation()])


def test_a_multi_alloc_counts_all_its_instances(cluster: Cluster) -> None:
    op = {"OP_ID": "OP_INSTANCE_MULTI_ALLOC", "instances": [creation(f"n{n}.test.example.com") for n in range(3)]}
    assert room(cluster, role(instances=4), op)
    assert not room(cluster, role(instances=3), op)
    assert not room(cluster, role(vcpus=4), op)


def test_only_the_scope_counts(cluster: Cluster) -> None:
    assert not room(cluster, role("*", instances=2), creation())
    assert room(cluster, role("*.test.example.com", instances=2), creation())
    assert room(cluster, role("", tag="tenant:she", instances=2), creation())
    assert not room(cluster, role("", tag="tenant:*", instances=2), creation())
    assert not room(cluster, role("", group="group1", instances=2), creation())
    assert room(cluster, role("", group="elsewhere", instances=1), creation())


def test_a_change_of_what_is_outside_does_not_count(cluster: Cluster) -> None:
    assert room(cluster, role(vcpus=2), change("db1.prod.example.com", beparams={"vcpus": 500}))


def test_a_role_without_a_scope_counts_all(cluster: Cluster) -> None:
    assert room(cluster, Role("r", frozenset(), quota=Quota(instances=3)), creation())
    assert not room(cluster, Role("r", frozenset(), quota=Quota(instances=2)), creation())


# What is on its way.


def put(cluster: Cluster, *ops: dict[str, Any], status: str = "queued") -> None:
    job_id = 100 + len(cluster.jobs)
    cluster.jobs[job_id] = list(ops)
    cluster.status[job_id] = status


@pytest.mark.parametrize(
    ("status", "counts"),
    [
        ("queued", True),
        ("waiting", True),
        ("canceling", True),
        ("running", True),
        ("success", False),
        ("error", False),
        ("canceled", False),
    ],
)
def test_a_job_counts_until_it_ends(cluster: Cluster, status: str, counts: bool) -> None:
    put(cluster, creation("queued.test.example.com"), status=status)
    assert room(cluster, role(instances=2), creation()) is not counts
    assert room(cluster, role(instances=3), creation())


@pytest.mark.parametrize(
    ("op", "quota"),
    [
        (creation("q.test.example.com", beparams={"vcpus": 8}), {"vcpus": 10}),
        (creation("q.test.example.com", disks=[{"size": 80}]), {"disk": 190}),
        (change(beparams={"vcpus": 10}), {"vcpus": 10}),
        (change(disks=[["add", {"size": 80}]]), {"disk": 190}),
        (grow(80), {"disk": 190}),
        (grow(180, absolute=True), {"disk": 190}),
        (anew([0, {"size": 180}]), {"disk": 190}),
        (
            {"OP_ID": "OP_INSTANCE_MULTI_ALLOC", "instances": [creation("q.test.example.com", beparams={"vcpus": 8})]},
            {"vcpus": 10},
        ),
    ],
    ids=str,
)
def test_what_queued_jobs_add_counts(cluster: Cluster, op: dict[str, Any], quota: dict[str, Any]) -> None:
    asked = creation(disks=[{"size": 1}])
    assert room(cluster, role(**quota), asked)
    put(cluster, op)
    assert not room(cluster, role(**quota), asked)


@pytest.mark.parametrize(
    "op",
    [
        {"OP_ID": "OP_INSTANCE_REMOVE", "instance_name": WEB},
        change(beparams={"vcpus": 1, "maxmem": 1}),
        change(disks=[["remove", 0, {}]]),
        grow(0, absolute=True),
        grow(-100),
        creation("q.test.example.com", beparams={"vcpus": -50, "maxmem": -5000}, disks=[{"size": -500}]),
        anew([0, {"size": 0}]),
    ],
    ids=str,
)
def test_what_queued_jobs_take_away_does_not_count_yet(cluster: Cluster, op: dict[str, Any]) -> None:
    put(cluster, op)
    for limited in (role(instances=1), role(vcpus=2), role(memory=256), role(disk=110)):
        assert not room(cluster, limited, creation(disks=[{"size": 1}]))


def test_two_jobs_that_grow_the_same(cluster: Cluster) -> None:
    put(cluster, grow(5))
    put(cluster, grow(5))
    assert room(cluster, role(disk=125), grow(5))
    assert not room(cluster, role(disk=124), grow(5))


def test_a_queued_instance_may_be_grown_by_a_queued_job(cluster: Cluster) -> None:
    put(cluster, creation(disks=[{"size": 50}]))
    put(cluster, {**grow(50), "instance_name": NEW})
    assert not room(cluster, role(disk=210), grow(1))
    assert room(cluster, role(disk=211), grow(1))


def test_an_instance_that_is_being_made_counts_once(cluster: Cluster) -> None:
    """Its job runs on, for its disks to be in step, and it is there."""
    cluster.add("instance", NEW, vcpus=1)
    put(cluster, creation(), status="running")
    assert room(cluster, role(instances=3), creation("third.test.example.com"))


def test_a_name_that_will_be_free_again(cluster: Cluster) -> None:
    """Removed and made anew, larger: until the removal the larger of the two counts."""
    put(cluster, {"OP_ID": "OP_INSTANCE_REMOVE", "instance_name": WEB})
    assert not room(cluster, role(vcpus=8), creation(WEB, beparams={"vcpus": 9}))
    assert room(cluster, role(vcpus=9), creation(WEB, beparams={"vcpus": 9}))
    assert room(cluster, role(instances=1), creation(WEB))
    put(cluster, creation(WEB, beparams={"vcpus": 9}))
    assert not room(cluster, role(vcpus=9), creation())


def test_a_name_that_is_left_behind_by_a_rename(cluster: Cluster) -> None:
    put(cluster, {"OP_ID": "OP_INSTANCE_RENAME", "instance_name": WEB, "new_name": "web9.test.example.com"})
    assert not room(cluster, role(instances=1), creation(WEB))
    assert room(cluster, role(instances=1), change(WEB))
    put(cluster, creation(WEB))
    assert not room(cluster, role(instances=2), creation())
    assert room(cluster, role(instances=3), creation())


@pytest.mark.parametrize("name", [WEB, "web9.test.example.com"])
def test_a_rename_may_fail(cluster: Cluster, name: str) -> None:
    """What comes after it counts, by whichever of its two names."""
    put(cluster, {"OP_ID": "OP_INSTANCE_RENAME", "instance_name": WEB, "new_name": "web9.test.example.com"})
    put(cluster, change(name, beparams={"vcpus": 9}))
    assert not room(cluster, role(vcpus=9), creation())
    assert room(cluster, role(vcpus=10), creation())


def test_jobs_of_others_count_where_they_reach_into_the_scope(cluster: Cluster) -> None:
    put(cluster, creation("other.prod.example.com"))
    put(cluster, creation("tagged.prod.example.com", tags=["tenant:she"]))
    assert room(cluster, role(instances=2), creation())
    assert not room(cluster, role("", tag="tenant:she", instances=2), creation())
    assert room(cluster, role("", tag="tenant:she", instances=3), creation())
    # Where it will be is not known yet: it may be in the group.
    assert not room(cluster, role("", group="group1", instances=4), creation())


def test_jobs_of_any_form_are_read_over(cluster: Cluster) -> None:
    """Another's job was not looked at by us: its sizes may be anything that Ganeti stores."""
    put(
        cluster,
        {"OP_ID": "OP_TEST_DUMMY"},
        {"OP_ID": "OP_INSTANCE_MULTI_ALLOC", "instances": None},
        creation("q.test.example.com", disks=[{"size": "1T"}, {"size": "x"}, 5], beparams={"maxmem": {}}),
        change(disks=[5, [], ["add"], ["add", "x"], ["add", 0, {"size": None}]]),
        {"OP_ID": "OP_INSTANCE_GROW_DISK", "instance_name": WEB},
        {"OP_ID": "OP_INSTANCE_RENAME"},
    )
    assert room(cluster, role(instances=3), creation())
    assert not room(cluster, role(instances=2), creation())


# One at a time.


def test_the_lock_keeps_others_out(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    waited: list[float] = []
    now = iter(range(100))
    with locked(path), pytest.raises(QuotaBusy), locked(path, 5.0, waited.append, lambda: float(next(now))):
        raise AssertionError("not reached")
    assert len(waited) == 5
    with locked(path):
        pass
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_the_lock_is_given_back_after_an_error(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    with pytest.raises(ZeroDivisionError), locked(path):
        raise ZeroDivisionError
    with locked(path, 0.0):
        pass


def test_the_lock_is_taken_as_soon_as_it_is_free(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    other = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(other, fcntl.LOCK_EX)
    with locked(path, 10.0, lambda _: os.close(other)), pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(other)


def test_the_lock_is_no_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(QuotaBusy, match="cannot be counted"), locked(str(tmp_path / "link")):
        raise AssertionError("not reached")
    assert not (tmp_path / "elsewhere").exists()


def test_a_lock_that_cannot_be_had_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(QuotaBusy, match="the log"), locked(str(tmp_path / "none" / "lock")):
        raise AssertionError("not reached")
    assert "No such file" in caplog.text
