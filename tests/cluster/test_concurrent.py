# SPDX-License-Identifier: BSD-2-Clause
"""Many requests of different users at once, while users and policy change: each is decided on by one state, its own."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ganeti_ext import compat
from tests.cluster.vcluster import Cluster
from tests.waiting import wait_for

WEB1, WEB2, DB1 = "web1.test.example.com", "web2.test.example.com", "db1.prod.example.com"

#: User -> what he sees under the first policy and under the second.
SEES = {
    "one": ({WEB1}, {WEB2}),
    "two": ({WEB2, DB1}, {WEB1}),
    "three": ({DB1}, {DB1}),
    "all": ({WEB1, WEB2, DB1}, {WEB1, WEB2, DB1}),
    "none": (set(), set()),
}
USERS = "admin secret write\n" + "".join(f"{name} {name}-secret @{name}\n" for name in SEES)
REQUESTS = 60


def policy(state: int) -> str:
    roles = "".join(
        f"  {name}: {{permissions: ['@readonly'], description: 'state {state}', scope: {{instances:"
        f" {{name: [{', '.join(sorted(seen[state])) or 'nothing.example.com'}]}}}}}}\n"
        for name, seen in SEES.items()
    )
    return f"version: 1\nroles:\n{roles}"


@pytest.fixture(name="served")
def _served(fresh: Cluster) -> Iterator[Cluster]:
    fresh.set_rapi_users(USERS)
    with fresh.rapi_logs("rapi-access.yaml loaded"):
        fresh.set_policy(policy(0))
    yield fresh


def listed(cluster: Cluster, user: str) -> set[str]:
    status, _, answer = cluster.rapi("GET", "/2/instances", user=user)
    assert status == 200, answer
    return {entry["id"] for entry in json.loads(answer)}


def who(cluster: Cluster, user: str) -> int:
    """The state of which the user is told; all that he is told must be of that one, and of him."""
    status, _, answer = cluster.rapi("GET", "/2/ext/whoami", user=user)
    assert status == 200, answer
    told = json.loads(answer)
    (role,) = told["roles"]
    state = int(role["description"].split()[1])
    assert (told["user"], told["options"], role["name"]) == (user, [f"@{user}"], user)
    names = {name for selector in role["scope"]["instances"] for name in selector["name"]}
    assert names == (SEES[user][state] or {"nothing.example.com"})
    return state


def ask(cluster: Cluster, user: str, seed: int, states: tuple[int, ...]) -> None:
    """Some requests of one user, each answered as he should be under one of the states."""
    choice = random.Random(seed)
    for _ in range(REQUESTS):
        what = choice.randrange(4)
        if what == 0:
            assert listed(cluster, user) in [SEES[user][state] for state in states]
        elif what == 1:
            assert who(cluster, user) in states
        elif what == 2:
            name = choice.choice([WEB1, WEB2, DB1])
            status, _, answer = cluster.rapi("GET", f"/2/instances/{name}", user=user)
            assert status in {200 if name in SEES[user][state] else 404 for state in states}, (user, name, answer)
            assert status == 404 or json.loads(answer)["name"] == name
        else:
            body = {"qfilter": None, "fields": ["name"]}
            status, _, answer = cluster.rapi("PUT", "/2/query/instance", user=user, body=body)
            names = {row[0][1] for row in json.loads(answer)["data"]}
            assert names in [SEES[user][state] for state in states]


def all_at_once(cluster: Cluster, states: tuple[int, ...]) -> None:
    # Twice as many as the daemon has cores, less than it has places.
    with ThreadPoolExecutor(10) as pool:
        jobs = [pool.submit(ask, cluster, user, seed, states) for seed in range(2) for user in SEES]
        for job in jobs:
            job.result()


def test_nobody_sees_anothers(served: Cluster) -> None:
    all_at_once(served, (0,))


def test_nobody_sees_half_of_a_change(served: Cluster) -> None:
    """Policy and users change all the while; at the end the last ones are in force."""
    over = threading.Event()

    def change() -> None:
        number = 0
        while not over.is_set():
            number += 1
            served.set_policy(policy(number % 2))
            if number % 3 == 0:
                served.set_rapi_users(USERS, wait=False)
            time.sleep(0.1)

    changing = threading.Thread(target=change)
    changing.start()
    try:
        all_at_once(served, (0, 1))
    finally:
        over.set()
        changing.join()
    served.set_policy(policy(1))
    wait_for(lambda: who(served, "one") == 1)
    assert listed(served, "two") == SEES["two"][1]


@pytest.mark.skipif(not compat.serves_in_threads(), reason="3.0 and 3.1 only reopen their logs")
def test_a_signal_has_all_files_taken(served: Cluster) -> None:
    """At once, in the order in which they came, however many there are."""
    pid = served.daemon_pid("rapi")
    for _ in range(50):
        os.kill(pid, signal.SIGHUP)
    with served.rapi_logs("Reading users file"), served.rapi_logs("rapi-access.yaml loaded"):
        os.kill(pid, signal.SIGHUP)
    assert listed(served, "one") == SEES["one"][0]
    assert served.daemon_pid("rapi") == pid


def test_nobody_is_served_before_the_policy_is_there(served: Cluster) -> None:
    """Whoever asks while it starts is refused by the policy, or not heard."""
    over = threading.Event()
    found: list[int] = []

    def keep_asking(ask_one: Callable[[], int]) -> None:
        while not over.is_set():
            try:
                found.append(ask_one())
            except OSError:
                time.sleep(0.005)

    def anonymous() -> int:
        return served.rapi("GET", "/2/instances")[0]

    def outside() -> int:
        return served.rapi("GET", f"/2/instances/{DB1}", user="one")[0]

    threads = [threading.Thread(target=keep_asking, args=(one,)) for one in (anonymous, outside)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):
            served.restart("rapi")
    finally:
        time.sleep(0.5)
        over.set()
        for thread in threads:
            thread.join()
    assert set(found) == {401, 404}
