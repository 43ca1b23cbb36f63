# SPDX-License-Identifier: BSD-2-Clause
"""The faster transport does what Ganeti's does: answers whole, errors the same, nothing for good."""

from __future__ import annotations

import collections
import gc
import logging
import os
import socket
import threading
from typing import Any

import pytest
from ganeti import constants, serializer
from ganeti.rpc import errors
from ganeti.rpc.transport import Transport
from hypothesis import given
from hypothesis import strategies as st

from ganeti_ext.rapi import transport

EOM = constants.LUXI_EOM


class Connected(Transport):  # type: ignore[misc]
    """Ganeti's, on one end of a pair of sockets."""

    Recv = transport.receive

    def __init__(self, end: socket.socket, timeout: float) -> None:
        self.socket = end
        self._rwtimeout = timeout
        self._buffer = b""
        self._msgs: Any = collections.deque()
        end.settimeout(timeout)


@pytest.fixture(name="pair")
def _pair() -> Any:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Connected(ours, 5), theirs


def test_an_answer_in_any_pieces(pair: Any) -> None:
    client, luxid = pair
    text = "ä" * 700_000
    data = text.encode() + EOM + b"second" + EOM + b"third"

    def send() -> None:
        for start in range(0, len(data), 33_333):
            luxid.sendall(data[start : start + 33_333])
        luxid.sendall(EOM)

    thread = threading.Thread(target=send)
    thread.start()
    assert client.Recv() == text
    assert (client.Recv(), client.Recv()) == ("second", "third")
    thread.join()


def test_an_answer_that_does_not_come(pair: Any) -> None:
    client, luxid = pair
    client.socket.settimeout(0.01)
    luxid.sendall(b"half of it")
    with pytest.raises(errors.TimeoutError):
        client.Recv()
    luxid.sendall(EOM)
    assert client.Recv() == "half of it"
    luxid.sendall(b"half of it")
    luxid.close()
    with pytest.raises(errors.ConnectionClosedError):
        client.Recv()


def test_an_answer_that_never_ends(pair: Any) -> None:
    client, luxid = pair
    client._rwtimeout = -1
    luxid.sendall(b"x")
    with pytest.raises(errors.TimeoutError):
        client.Recv()


def test_no_connection(pair: Any) -> None:
    client, _ = pair
    client.Close()
    with pytest.raises(errors.ProtocolError):
        client.Recv()


def test_the_listening_socket_and_what_it_accepts_do_not_wait() -> None:
    class Server:
        def __init__(self) -> None:
            self.socket = socket.socket()

        def Start(self) -> None:
            self.socket.bind(("127.0.0.1", 0))
            self.socket.listen()

    server = Server()
    with server.socket:
        transport.without_delay(Server.Start)(server)
        with socket.create_connection(server.socket.getsockname()), server.socket.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_the_collector_rests_in_the_child_and_goes_on_in_the_parent() -> None:
    def incoming(_: Any) -> None:
        child = os.fork()
        if child == 0:
            os._exit(3 if gc.isenabled() else 0)
        assert os.waitpid(child, 0)[1] == 0
        raise KeyError("whatever happens")

    with pytest.raises(KeyError):
        transport.without_garbage(incoming)(None)
    assert gc.isenabled()


def test_records_that_a_handler_writes_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.RootLogger(logging.NOTSET)
    monkeypatch.setattr(logging, "getLogger", lambda: root)
    run = transport.without_unheard_records(lambda *args: args)
    assert run(1) == (1,) and root.level == logging.NOTSET  # no handler: as it was
    for level in (logging.ERROR, logging.INFO):
        handler = logging.NullHandler()
        handler.setLevel(level)
        root.addHandler(handler)
    run()
    assert root.level == logging.INFO


@given(st.text(alphabet="ab \t\n", max_size=12))
def test_the_ends_of_lines_are_as_ganetis(text: str) -> None:
    stock = serializer._RE_EOLSP
    assert transport.LineEnds(stock).sub("", text) == stock.sub("", text)
