# SPDX-License-Identifier: BSD-2-Clause
"""Tests of whose connection is served next; the server itself is tested on a real node."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable

import pytest

from ganeti_ext.noded import fair, lines


class Quiet(fair.Server):
    """Serves nobody, but keeps the order in which it would."""

    def __init__(self, served: Iterable[str] = ()) -> None:
        self.max_clients = 20
        self.order: list[str] = []
        self._lines = lines.Lines(self.max_clients + 1)
        self._served = dict(enumerate(served))

    def arrive(self, *addresses: str) -> None:
        for address in addresses:
            assert self._lines.arrive(None, (address, 4711)) is None

    def _CollectChildren(self, quick: bool) -> None:
        pass

    def _serve(self, connection: object, client: tuple[str, int]) -> None:
        self.order.append(client[0])
        self._served[1000 + len(self.order)] = client[0]

    @property
    def waiting(self) -> dict[str, int]:
        return {address: len(line) for address, line in self._lines._lines.items()}


def test_in_the_order_in_which_they_come_while_there_is_room() -> None:
    server = Quiet()
    server.arrive("a", "b", "c")
    assert server.readable()
    assert server.order == ["a", "b", "c"]
    assert server.waiting == {}


def test_who_has_the_fewest_children_is_served_first() -> None:
    server = Quiet(["a"] * 15)
    server.arrive(*"aaaaaa", *"bbb", "c")
    server.readable()
    assert server.order == [*"bcbb", *"aa"]
    assert server.waiting == {"a": 4}


def test_one_address_alone_gets_what_ganeti_gives() -> None:
    server = Quiet()
    server.arrive(*"a" * 100)
    server.readable()
    assert len(server.order) == 21
    assert server.waiting == {"a": 79}


def test_the_last_places_are_for_who_has_none() -> None:
    server = Quiet(["a"] * 21)
    server.arrive("a", *"bb", "c", "d", "e", "f")
    server.readable()
    assert server.order == ["b", "c", "d", "e"]
    assert server.waiting == {"a": 1, "b": 1, "f": 1}
    server._served.pop(0)  # one of a's has ended: 24 are left
    server.readable()
    assert server.order[4:] == ["f"]
    for number in range(1, 6):
        server._served.pop(number)
    server.readable()
    assert server.order[5:] == ["b"]
    assert server.waiting == {"a": 1}


def test_when_too_many_wait_the_newest_of_the_longest_line_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MOST_WAITING", 5)
    server = Quiet(["a"] * 21)
    pairs = [socket.socketpair() for _ in range(7)]
    for (connection, _), address in zip(pairs, "baaaaab"):
        server._arrive(connection, (address, 4711))
    assert server.waiting == {"b": 2, "a": 3}
    closed = []
    for number, (_, other) in enumerate(pairs):
        other.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            closed.append((number, other.recv(1)))
    assert closed == [(4, b""), (5, b"")]
    for pair in pairs:
        for one in pair:
            one.close()


def test_as_many_addresses_as_can_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then no line is longer than another, and one of them is no more."""
    monkeypatch.setattr(lines, "MOST_WAITING", 3)
    server = Quiet([*"pqrstuvwxyz"] * 3)
    pairs = [socket.socketpair() for _ in range(4)]
    for (connection, _), address in zip(pairs, "abcd"):
        server._arrive(connection, (address, 4711))
    assert sorted(server.waiting.values()) == [1, 1, 1]
    server._served = {}
    server.readable()
    assert len(server.order) == 3 and server.waiting == {}
    for pair in pairs:
        for one in pair:
            one.close()


def test_a_fork_that_fails_ends_that_connection_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fork() -> int:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(os, "fork", fork)
    server = Quiet()
    mine, other = socket.socketpair()
    with other:
        fair.Server._serve(server, mine, ("192.0.2.10", 4711))
        assert other.recv(1) == b""
    assert server._served == {}
    assert "Failed to fork on request from 192.0.2.10:4711" in caplog.text


def test_children_that_have_ended_are_forgotten() -> None:
    server = Quiet()
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    server._served = {child: "a", 1: "not a child of ours"}
    fair.Server._CollectChildren(server, True)
    assert server._served == {}
