# SPDX-License-Identifier: BSD-2-Clause
"""Requests to several daemons in turn, so that whatever else the machine does meets all of them alike."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from tests.bench.large import Sample, Server, clear_jobs
from tests.bench.progress import say
from tests.bench.report import Interval, median
from tests.cluster.vcluster import Cluster

#: Seconds that one set of requests is sent at most, and how often each is at least, however slow the machine is.
TIME, ENOUGH = 6.0, 8


class Case(NamedTuple):
    """One request that is sent over and over, and the status that it must have."""

    server: str
    user: str
    method: str
    path: str
    status: int = 200
    #: Tells apart what is the same request.
    mark: str = ""


Found = Mapping[Case, Sequence[Sample]]


class Sampler:
    """Asks daemons on one cluster. `tickets` and `connect` are those of `Server.ask`."""

    def __init__(
        self,
        cluster: Cluster,
        running: Mapping[str, Server],
        size: str,
        tickets: bool = False,
        connect: Callable[[int], socket.socket] | None = None,
    ) -> None:
        self._cluster = cluster
        self._running = running
        self._size = size
        self._tickets = tickets
        self._connect = connect

    def sample(
        self, cases: Iterable[Case], rounds: int, submits: bool = False, seconds: float = TIME
    ) -> dict[Case, list[Sample]]:
        """Sends each of some requests so often, and once before that does not count.

        Less often, but ENOUGH times, if it would take more than `seconds`. The order is drawn anew for each round.
        `submits` says that jobs come of it, which are cleared away now and then.
        """
        ends = time.monotonic() + seconds
        chance = random.Random(0)
        order = list(cases)
        found: dict[Case, list[Sample]] = {case: [] for case in order}
        for number in range(rounds + 1):
            say(f"{self._size}: {len(order)} requests, {number} of {rounds}")
            if submits and number % 25 == 0:
                clear_jobs(self._cluster)
            if number > ENOUGH and time.monotonic() > ends:
                break
            chance.shuffle(order)
            for case in order:
                server, user, method, path, status, _ = case
                sample = self._running[server].ask(user, method, path, tickets=self._tickets, connect=self._connect)
                assert sample.status == status, (case, sample)
                if number:
                    found[case].append(sample)
        return found


def latencies(samples: Sequence[Sample]) -> list[float]:
    """Seconds."""
    return [sample.latency for sample in samples]


def cpus(samples: Sequence[Sample]) -> list[float]:
    """CPU seconds of the daemon."""
    return [sample.cpu for sample in samples]


def all_cpus(samples: Sequence[Sample]) -> list[float]:
    """CPU seconds of the daemon and luxid."""
    return [sample.all_cpu for sample in samples]


def ms(seconds: Sequence[float]) -> str:
    """Their median for a person."""
    return f"{median(seconds) * 1000:.2f} ms"


def in_ms(found: Interval) -> Interval:
    """Of one in seconds."""
    return Interval(*(value * 1000 for value in (found.value, found.low, found.high)))
