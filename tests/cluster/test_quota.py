# SPDX-License-Identifier: BSD-2-Clause
"""Quotas, stamps and denies: no order and no number of requests gets round them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.cluster.world import CREATE, EVES, EVES_INNER, INNER, MALLORYS, SOURCE, World

#: Of the role `tagged`: what Mallory may have, and has (2 instances, 2 processors, 128 MiB, no disk).
INSTANCES, MEMORY, DISK, VCPUS = 8, 4096, 1000, 16
OWN = MALLORYS[0]
FILE = {"disk_template": "file"}


@pytest.fixture(autouse=True)
def _clean(world: World) -> Iterator[None]:
    """Whatever a test makes is gone after it."""
    before = world.names()
    yield
    world.cancel()
    world.remove(*(world.names() - before))


def create(world: World, name: str, user: str = "mallory", **more: Any) -> tuple[int, Any]:
    """Asks for an instance: the status and the answer."""
    return world.ask(user, "POST", "/2/instances", {**CREATE, "name": name, **more})


def is_quota(answer: tuple[int, Any]) -> bool:
    """Whether a request was refused for the quota, in so many words."""
    status, body = answer
    return status == 403 and "quota: " in body["message"]


def disk(size: Any) -> dict[str, Any]:
    """What makes an instance with one disk."""
    return {**FILE, "disks": [{"size": size}]}


# --- the count ---------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [2, 20])
def test_at_once(world: World, at_once: int) -> None:
    """With room for one of them, one of them is taken, however many come together."""
    with world.paused():
        assert create(world, "big.x", **disk(DISK - 60))[0] == 200
        with ThreadPoolExecutor(at_once) as pool:
            answers = list(pool.map(lambda number: create(world, f"q{number}.x", **disk(50)), range(at_once)))
        assert len(world.unfinished()) == 2
    assert sorted(answer[0] for answer in answers) == [200] + [403] * (at_once - 1)
    assert sum(map(is_quota, answers)) == at_once - 1


def test_mixed_at_once(world: World) -> None:
    """Creations, multi-allocs and modifications share one count."""
    more: dict[str, Any] = {"beparams": {"memory": 1024}}

    def ask(number: int) -> tuple[int, Any]:
        if number % 3 == 0:
            return create(world, f"q{number}.x", **more)
        if number % 3 == 1:
            body = {"instances": [{**INNER, "name": f"q{number}.x", **more}]}
            return world.ask("mallory", "POST", "/2/instances-multi-alloc", body)
        return world.ask("mallory", "PUT", f"/2/instances/{OWN}/modify", {"beparams": {"memory": 1024 + number}})

    with world.paused(), ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, range(12)))
        memory = 0
        changed = 0
        for job_id in world.unfinished():
            for opcode in world.stored(job_id):
                for one in opcode.get("instances") or [opcode]:
                    if one["OP_ID"] == "OP_INSTANCE_CREATE":
                        memory += one["beparams"]["memory"]
                    else:
                        changed = max(changed, one["beparams"]["memory"])
    assert memory + max(changed, 64) + 64 <= MEMORY
    assert any(map(is_quota, answers)) and any(answer[0] == 200 for answer in answers)


def test_queued_jobs_count_over_a_restart(world: World) -> None:
    """What is counted lies in the job queue: a daemon that starts anew knows it."""
    with world.paused():
        for number in range(INSTANCES - len(MALLORYS)):
            assert create(world, f"q{number}.x")[0] == 200
        assert is_quota(create(world, "more.x"))
        world.cluster.restart("rapi")
        assert is_quota(create(world, "more.x"))
    assert create(world, "more.x")[0] == 200  # they were cancelled


@pytest.mark.parametrize("parts", [(7,), (3, 4), (1, 6)])
def test_multi_alloc(world: World, parts: tuple[int, ...]) -> None:
    """Each inner creation counts, in one request or in some."""
    number = 0
    answers = []
    with world.paused():
        for part in parts:
            names = [f"q{number + one}.x" for one in range(part)]
            number += part
            body = {"instances": [{**INNER, "name": name} for name in names]}
            answers.append(world.ask("mallory", "POST", "/2/instances-multi-alloc", body))
    assert [answer[0] for answer in answers] == [200] * (len(parts) - 1) + [403]
    assert is_quota(answers[-1])


@pytest.mark.parametrize("first", ["create", "rename"])
def test_a_name_that_is_to_be_free(world: World, first: str) -> None:
    """A creation of a name that is taken, and a rename that frees it: the second of them is one too many."""
    rename = ("mallory", "PUT", f"/2/instances/{OWN}/rename", {"new_name": "moved.x"})
    with world.paused():
        for number in range(INSTANCES - len(MALLORYS)):
            assert create(world, f"q{number}.x")[0] == 200
        if first == "rename":
            assert world.ask(*rename)[0] == 200
            assert is_quota(create(world, OWN))
        else:
            assert create(world, OWN)[0] == 200
            assert is_quota(world.ask(*rename))


def test_a_name_that_is_to_be_free_twice(world: World) -> None:
    """Creations of one name: a rename between them would make room for each."""
    with world.paused():
        body = {"instances": [{**INNER, "name": OWN}] * (INSTANCES - len(MALLORYS) + 1)}
        assert world.ask("mallory", "POST", "/2/instances-multi-alloc", body)[0] == 200
        for number in range(INSTANCES - len(MALLORYS)):
            assert create(world, f"q{number}.x")[0] == 200
        assert is_quota(world.ask("mallory", "PUT", f"/2/instances/{OWN}/rename", {"new_name": "moved.x"}))


# --- ways to more ------------------------------------------------------------------------

#: At a creation: what is more than Mallory may have, in every way to say it.
TOO_MUCH: list[dict[str, Any]] = [
    {"beparams": {"memory": MEMORY}},
    {"beparams": {"maxmem": MEMORY}},
    {"beparams": {"maxmem": "4G"}},
    {"beparams": {"maxmem": "4096"}},
    {"beparams": {"memory": "0.004T"}},
    {"beparams": {"maxmem": 64, "memory": MEMORY}},
    {"beparams": {"memory": "default", "maxmem": MEMORY, "minmem": MEMORY}},
    {"beparams": {"vcpus": VCPUS}},
    {"beparams": {"vcpus": str(VCPUS)}},
    disk(DISK + 1),
    disk("1001"),
    {**FILE, "disks": [{"size": 501}, {"size": 501}]},
    {**FILE, "disks": [{"size": DISK + 1}, {"size": 0}]},
]
#: What cannot be a size: it would count for nothing, or for less.
NO_SIZES: list[dict[str, Any]] = [
    disk(-5),
    disk("-5"),
    disk(-(2**64) + 10**6),  # luxid keeps the last 64 bits
    disk(2**64 + 5),
    disk(10**30),
    {**FILE, "disks": [{"size": 2000}, {"size": -2000}]},
    {"beparams": {"memory": -5}},
    {"beparams": {"maxmem": -(2**64) + 4096}},
    {"beparams": {"vcpus": -5}},
    {"beparams": {"vcpus": 1.9}},
    {"beparams": {"maxmem": 128.5}},
    {"beparams": {"maxmem": True}},
    {"beparams": {"maxmem": [128]}},
    {"beparams": {"maxmem": {"a": 1}}},
    {"beparams": {"maxmem": "1e9"}},
]


@pytest.mark.parametrize("user", ["mallory", "eve"])
def test_sizes_that_are_none(world: World, user: str) -> None:
    """Refused as such, alone and in a multi-alloc, before they can be added up."""
    name = "q1.test.example.com"
    with world.no_job():
        answers = [create(world, name, user, **more) for more in NO_SIZES]
        bodies = [{"instances": [{**INNER, "name": name}, {**INNER, "name": f"a{name}", **more}]} for more in NO_SIZES]
        answers += [world.ask(user, "POST", "/2/instances-multi-alloc", body) for body in bodies]
    assert [(more, answer) for more, answer in zip(NO_SIZES * 2, answers) if answer[0] != 400] == []


def test_too_much(world: World) -> None:
    """Refused by the quota, however it is said."""
    with world.no_job():
        answers = [create(world, "q1.x", **more) for more in TOO_MUCH]
        bodies = [{"instances": [{**INNER, "name": "q1.x", **more}]} for more in TOO_MUCH]
        answers += [world.ask("mallory", "POST", "/2/instances-multi-alloc", body) for body in bodies]
    assert [(more, answer) for more, answer in zip(TOO_MUCH * 2, answers) if not is_quota(answer)] == []


def test_modify(world: World) -> None:
    """Memory, processors and disks of what is there, under each alias; what is queued adds up."""
    path = f"/2/instances/{OWN}/modify"
    too_much: list[dict[str, Any]] = [
        {key: value}
        for key in ("beparams", "custom_beparams")
        for value in (
            {"memory": MEMORY},
            {"maxmem": MEMORY},
            {"maxmem": 64, "memory": "4G"},
            {"maxmem": MEMORY, "memory": None},
            {"maxmem": MEMORY, "memory": "default"},
            {"vcpus": VCPUS},
        )
    ]
    too_much += [{"disks": [["add", {"size": DISK + 1}]]}, {"disks": [["add", -1, {"size": DISK + 1}]]}]
    too_much += [{"disks": [["add", {"size": 600}], ["add", {"size": 600}]]}]
    with world.no_job():
        answers = [world.ask("mallory", "PUT", path, body) for body in too_much]
    assert [(body, answer) for body, answer in zip(too_much, answers) if not is_quota(answer)] == []
    with world.paused():
        assert world.ask("mallory", "PUT", path, {"disks": [["add", {"size": 600}]]})[0] == 200
        assert is_quota(world.ask("mallory", "PUT", path, {"disks": [["add", {"size": 600}]]}))
        assert is_quota(create(world, "q1.x", **disk(600)))
        assert create(world, "q1.x", **disk(300))[0] == 200


def test_back_to_the_default(world: World) -> None:
    """`default` and null both mean what the cluster has, which may be more."""
    path = f"/2/instances/{OWN}/modify"
    world.run({"OP_ID": "OP_CLUSTER_SET_PARAMS", "beparams": {"memory": MEMORY, "vcpus": VCPUS}})
    try:
        with world.no_job():
            answers = [
                world.ask("mallory", "PUT", path, {"beparams": {key: value}})
                for key in ("maxmem", "vcpus")
                for value in ("default", None)
            ]
            answers += [create(world, "q1.x", beparams=beparams) for beparams in ({}, {"maxmem": None}, {"vcpus": 1})]
    finally:
        world.run({"OP_ID": "OP_CLUSTER_SET_PARAMS", "beparams": {"memory": 128, "vcpus": 1}})
    assert [answer for answer in answers if not is_quota(answer)] == []


def test_grow_and_recreate(world: World) -> None:
    """Disks that grow, by or to an amount, or come back larger; a growth that will fail takes nothing off."""
    name = "disky.x"
    world.done("mallory", "POST", "/2/instances", {**CREATE, "name": name, "start": False, **disk(400)})
    grow, recreate = f"/2/instances/{name}/disk/0/grow", f"/2/instances/{name}/recreate-disks"
    with world.no_job():
        assert is_quota(world.ask("mallory", "POST", grow, {"amount": DISK - 399}))
        assert is_quota(world.ask("mallory", "POST", grow, {"amount": DISK + 1, "absolute": True}))
        assert is_quota(world.ask("mallory", "POST", recreate, {"disks": [[0, {"size": DISK + 1}]]}))
    with world.paused():
        assert world.ask("mallory", "POST", grow, {"amount": 1, "absolute": True})[0] == 200
        assert is_quota(create(world, "q1.x", **disk(DISK - 399)))
        assert world.ask("mallory", "POST", grow, {"amount": 300})[0] == 200
        assert is_quota(world.ask("mallory", "POST", grow, {"amount": 301}))
        assert is_quota(world.ask("mallory", "POST", recreate, {"disks": [[0, {"size": DISK + 1}]]}))
        assert is_quota(create(world, "q2.x", **disk(301)))


def test_a_limit_of_a_disk_holds_for_two_growths(world: World) -> None:
    """Each alone would stay below Eve's 200 MiB a disk, and both together would not: each is to what was decided on."""
    path = f"/2/instances/{EVES[0]}/disk/0/grow"
    with world.paused():
        jobs = [world.submit("eve", "POST", path, {"amount": 100}) for _ in range(2)]
        stored = [world.stored(job)[0] for job in jobs]
    assert [(opcode["amount"], opcode["absolute"]) for opcode in stored] == [(108, True)] * 2


def test_a_quota_that_others_cannot_use_up(world: World) -> None:
    """Mallory's instances and queued jobs are none of Eve's count."""
    with world.paused():
        assert create(world, "q1.x", **disk(900))[0] == 200
        assert create(world, "q1.test.example.com", "eve", **disk(100))[0] == 200


# --- stamps and protected tags -----------------------------------------------------------

PROTECTED = ["tenant:mallory", "tenant:eve", "tenant:trudy", "tenant:", "tenant:x:y", "keep"]


def test_protected_tags(world: World) -> None:
    """A tag by which a policy goes can neither be set nor removed, nor sent at a creation."""
    requests: list[tuple[str, str, str, Any]] = []
    for user, name in (("mallory", OWN), ("eve", EVES[2])):
        for tag in PROTECTED:
            for arguments in (f"tag={tag}", f"tag=mine&tag={tag}", f"tag={tag}&tag={tag}&dry-run=1"):
                requests += [
                    (user, method, f"/2/instances/{name}/tags?{arguments}", None) for method in ("PUT", "DELETE")
                ]
            new = {**CREATE, "name": "q1.test.example.com", "tags": ["mine", tag]}
            plain = EVES_INNER if user == "eve" else INNER
            inner = {**plain, "name": "q1.test.example.com", "tags": [tag]}
            requests.append((user, "POST", "/2/instances", new))
            requests.append((user, "POST", "/2/instances-multi-alloc", {"instances": [inner]}))
    with world.no_job():
        answers = [world.ask(*request) for request in requests]
    assert [(r, a) for r, a in zip(requests, answers) if a[0] != 403 or "tag" not in a[1]["message"]] == []


def test_stamps(world: World) -> None:
    """What is created has the stamp, once, with the tags that were sent, and is its maker's from the start."""
    with world.paused():
        single = create(world, "q1.x", tags=["mine"])
        multi = world.ask("mallory", "POST", "/2/instances-multi-alloc", {"instances": [{**INNER, "name": "q2.x"}]})
        stored = [world.stored(single[1])[0], world.stored(multi[1])[0]["instances"][0]]
    assert [opcode["tags"] for opcode in stored] == [["mine", "tenant:mallory"], ["tenant:mallory"]]
    world.done("mallory", "POST", "/2/instances", {**CREATE, "name": "q1.x", "start": False})
    assert world.ask("mallory", "GET", "/2/instances/q1.x/tags") == (200, ["tenant:mallory"])
    assert world.ask("trudy", "GET", "/2/instances/q1.x/tags")[0] == 404
    world.done("mallory", "PUT", "/2/instances/q1.x/rename", {"new_name": "q2.x"})
    assert world.ask("mallory", "GET", "/2/instances/q2.x/tags") == (200, ["tenant:mallory"])


# --- denies ------------------------------------------------------------------------------


def test_deny_in_every_way(world: World) -> None:
    """What is tagged `keep` is removed by nobody but the administrator: not by an export, not under another name."""
    kept = EVES[2]
    removing: list[tuple[str, str, Any]] = [
        ("DELETE", "", None),
        ("DELETE", "?dry-run=1", None),
        ("DELETE", "", {"shutdown_timeout": 120}),
        ("PUT", "/export", {"target_node": "node1", "shutdown": True, "remove_instance": True}),
        ("PUT", "/export", {"destination": "node1", "shutdown": True, "remove_instance": True}),
    ]
    with world.no_job():
        answers = [world.ask("eve", method, f"/2/instances/{kept}{path}", body) for method, path, body in removing]
    assert [answer for answer in answers if answer[0] != 403 or "deny" not in answer[1]["message"]] == []
    new = "moved.test.example.com"
    world.done("eve", "PUT", f"/2/instances/{kept}/rename", {"new_name": new})
    try:
        with world.no_job():
            assert world.ask("eve", "DELETE", f"/2/instances/{new}")[0] == 403
            assert world.ask("eve", "DELETE", f"/2/instances/{kept}")[0] == 404
    finally:
        world.done("eve", "PUT", f"/2/instances/{new}/rename", {"new_name": kept})
    # A creation or a rename cannot take its place either.
    with world.paused():
        jobs = [
            create(world, kept, "eve"),
            world.ask("eve", "PUT", f"/2/instances/{EVES[1]}/rename", {"new_name": kept}),
        ]
        for _, job_id in jobs:
            assert [entry[1] for entry in world.stored(job_id)[0]["reason"] if entry[0] == SOURCE] == ["eve"]
    assert [row[1] for row in world.query("instance", "name tags", kept)] == [["keep"]]
