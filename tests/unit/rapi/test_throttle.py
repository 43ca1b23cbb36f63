# SPDX-License-Identifier: BSD-2-Clause
"""Failures are counted by address, in all processes together, and forgotten with time."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganeti_ext.rapi.throttle import ALLOWANCE, INTERVAL, Throttle, network_of

ONE, OTHER = "192.0.2.1", "192.0.2.2"


class Clock:
    """A time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def throttle(clock: Clock) -> Iterator[Throttle]:
    made = Throttle(_clock=clock)
    yield made
    made.close()


def in_child(run: Callable[[], None]) -> int:
    """Runs it in a forked child; its process id."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            run()
            code = 0
        finally:
            os._exit(code)
    return pid


def test_some_at_once_then_one_at_a_time(throttle: Throttle, clock: Clock) -> None:
    for _ in range(ALLOWANCE - 1):
        assert throttle.failed(ONE) == throttle.wait(ONE) == 0
    assert throttle.failed(ONE) == throttle.wait(ONE) == INTERVAL
    assert throttle.wait(OTHER) == 0
    for _ in range(3):
        clock.now += INTERVAL - 1
        assert throttle.wait(ONE) == 1
        clock.now += 1
        assert throttle.wait(ONE) == 0
        assert throttle.failed(ONE) == INTERVAL
    clock.now += ALLOWANCE * INTERVAL
    for _ in range(ALLOWANCE - 1):
        assert throttle.failed(ONE) == 0
    assert throttle.failed(ONE) == INTERVAL


def test_what_was_tried_at_once_is_paid_for(throttle: Throttle, clock: Clock) -> None:
    """Requests that were let in together, before the first of them had failed."""
    for _ in range(ALLOWANCE + 20):
        throttle.failed(ONE)
    assert throttle.wait(ONE) == 21 * INTERVAL


@given(st.lists(st.tuples(st.floats(0, 20), st.integers(0, 3)), max_size=60))
def test_nobody_gets_more_than_the_allowance_and_what_time_gives(steps: list[tuple[float, int]]) -> None:
    clock = Clock()
    throttle = Throttle(allowance=3, interval=5.0, _clock=clock)
    tried: list[float] = []
    try:
        for seconds, attempts in steps:
            clock.now += seconds
            for _ in range(attempts):
                if throttle.wait(ONE) == 0:
                    throttle.failed(ONE)
                    tried.append(clock.now)
        for start, since in enumerate(tried):
            for end, until in enumerate(tried[start:], start):
                assert end - start + 1 <= 3 + (until - since) / 5.0 + 1e-6
        wait = throttle.wait(ONE)
        clock.now += wait
        assert throttle.wait(ONE) < 1e-6
    finally:
        throttle.close()


@pytest.mark.parametrize(
    ("same", "other"),
    [
        (("192.0.2.1", "::ffff:192.0.2.1", "::FFFF:c000:201"), "192.0.2.3"),
        (("2001:db8:1:2::1", "2001:DB8:1:2:ffff::9", "2001:db8:1:2:3:4:5:6"), "2001:db8:1:3::1"),
        (("fe80::1", "fe80::2%eth0", "fe80::3%1"), "fe81::1"),
        (("", "localhost", "192.0.2.1\0", "1.2.3.4.5"), "192.0.2.1"),
    ],
)
def test_what_is_counted_as_one(throttle: Throttle, same: tuple[str, ...], other: str) -> None:
    assert len({network_of(address) for address in same}) == 1
    assert network_of(other) != network_of(same[0])
    for number in range(ALLOWANCE):
        throttle.failed(same[number % len(same)])
    assert {throttle.wait(address) for address in same} == {INTERVAL}
    assert throttle.wait(other) == 0


def test_many_addresses_need_no_more_memory_and_free_nobody(throttle: Throttle) -> None:
    for _ in range(ALLOWANCE):
        throttle.failed(ONE)
    size = os.fstat(throttle._file).st_size
    for number in range(20_000):
        throttle.failed(f"198.18.{number >> 8}.{number & 255}")
    assert os.fstat(throttle._file).st_size == size <= 1 << 20
    assert throttle.wait(ONE) == INTERVAL


def test_two_tables_put_the_same_address_in_different_places(throttle: Throttle, clock: Clock) -> None:
    places = set()
    for _ in range(20):
        another = Throttle(_clock=clock)
        places.add(another._place(ONE))
        another.close()
    assert len(places) == 20


def test_all_processes_count_together(throttle: Throttle) -> None:
    def fail() -> None:
        for _ in range(50):
            throttle.failed(ONE)

    children = [in_child(fail) for _ in range(8)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 8
    assert throttle.wait(ONE) == (400 - ALLOWANCE + 1) * INTERVAL
    assert throttle.wait(OTHER) == 0


def test_all_threads_count_together(throttle: Throttle) -> None:
    """The kernel's lock keeps no thread of the same process out."""
    with ThreadPoolExecutor(8) as pool:
        last = max(pool.map(lambda _: throttle.failed("192.0.2.1"), range(400)))
    assert throttle.wait("192.0.2.1") == last == pytest.approx((400 - ALLOWANCE + 1) * INTERVAL)


def test_a_child_that_is_killed_with_the_lock_holds_nobody(throttle: Throttle) -> None:
    ready, told = os.pipe()

    def hold() -> None:
        with throttle._locked(throttle._place(ONE)[1]):
            os.write(told, b"x")
            signal.pause()

    def fail() -> None:
        for _ in range(ALLOWANCE):
            throttle.failed(ONE)

    child = in_child(hold)
    assert os.read(ready, 1) == b"x"
    other = in_child(fail)
    assert os.waitpid(other, os.WNOHANG) == (0, 0)
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert os.waitpid(other, 0)[1] == 0
    assert throttle.failed(ONE) == 2 * INTERVAL
    os.close(ready)
    os.close(told)
