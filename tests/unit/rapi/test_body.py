# SPDX-License-Identifier: BSD-2-Clause
"""No more of a request is read than its sender may send, and he gets an answer all the same."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import ganeti.http.server
import pytest
from ganeti import http
from hypothesis import example, given
from hypothesis import strategies as st

from ganeti_ext.rapi import body
from ganeti_ext.rapi.access import AccessControl
from ganeti_ext.rapi.body import MAX_ANONYMOUS, MAX_SIGNED_IN, linger
from ganeti_ext.rapi.forked import MessageReader, RequestReader
from ganeti_ext.rapi.httperrors import HttpContentTooLarge
from tests.unit.rapi import fake

StockReader = ganeti.http.server._HttpClientToServerMessageReader


class Line:
    """A connection on which these pieces arrive one by one, and then nothing or the end."""

    def __init__(self, *pieces: bytes, ends: bool = True) -> None:
        # Something is always there to be read: what is read are the pieces.
        self.ours, self.theirs = socket.socketpair()
        if pieces or ends:
            self.theirs.send(b"x")
        self.pieces = list(pieces)
        self.ends = ends
        self.taken = 0

    def fileno(self) -> int:
        return self.ours.fileno()

    def recv(self, size: int) -> bytes:
        if not self.pieces:
            return b""
        piece, rest = self.pieces[0][:size], self.pieces[0][size:]
        self.pieces[:1] = [rest] if rest else []
        self.taken += len(piece)
        if not self.pieces and not self.ends:
            self.ours.recv(1)
        return piece

    def __del__(self) -> None:
        self.ours.close()
        self.theirs.close()


def head(*fields: str, line: str = "PUT /2/modify HTTP/1.1") -> bytes:
    return "\r\n".join([line, "Host: x", *fields, "", ""]).encode("latin-1")


def read(*pieces: bytes, cls: type = MessageReader, ends: bool = True) -> tuple[Any, Any, Line]:
    """The message, its reader, and the connection."""
    line = Line(*pieces, ends=ends)
    message = http.HttpMessage()
    return message, cls(line, message, 0.05), line


def body_of(*pieces: bytes, limit: int = MAX_ANONYMOUS, ends: bool = True) -> Any:
    message, _, line = read(*pieces, ends=ends)
    request = ganeti.http.server._HttpServerRequest("PUT", "/", message.headers, message.body, line)
    body.read_body(request, limit)
    return request.request_body


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The same bytes in pieces."""
    ends = sorted({place % (len(data) + 1) for place in places} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends) if start != end]


ASCII = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200)
PLACES = st.lists(st.integers(0, 600), max_size=6)


@given(ASCII, PLACES, st.sampled_from(["", "\r\n", "\r\n\r\n"]), st.sampled_from(["HTTP/1.0", "HTTP/1.1"]))
def test_what_ganeti_can_read_is_read_as_ganeti_reads_it(
    text: str, places: list[int], before: str, version: str
) -> None:
    line = f"PUT /2/x?y=z {version}"
    data = before.encode() + head(f"Content-Length: {len(text)}", "X-Y: z", line=line) + text.encode()
    stock, stocks, _ = read(*cut(data, places), cls=StockReader)
    ours, reader, _ = read(*cut(data, places))
    assert str(ours.start_line) == str(stock.start_line)
    assert ours.headers.items() == stock.headers.items()
    assert bool(reader.peer_will_close) == bool(stocks.peer_will_close)
    assert body_of(*cut(data, places)) == stock.body == text


@given(st.text(st.characters(blacklist_categories=["Cs"]), max_size=60), PLACES)
@example("\u00e4\u20ac\U0001f600", list(range(200)))
def test_a_body_is_read_in_utf_8_wherever_it_is_cut(text: str, places: list[int]) -> None:
    data = text.encode()
    assert body_of(*cut(head(f"Content-Length: {len(data)}") + data, places)) == text


@pytest.mark.parametrize("data", [b"\xff", b"{\xc3}", b"\xc3", b"a" * 4095 + b"\xe2\x82", b"\xed\xa0\x80"])
def test_a_body_that_is_no_utf_8_is_a_bad_request(data: bytes) -> None:
    for pieces in ([head(f"Content-Length: {len(data)}") + data], [head(f"Content-Length: {len(data)}"), data]):
        with pytest.raises(http.HttpBadRequest) as caught:
            body_of(*pieces, ends=False)
        assert "UTF-8" in caught.value.message


@pytest.mark.parametrize("line", ["PUT /2/\u00e4 HTTP/1.1", "PUT /\xff HTTP/1.1"])
def test_headers_that_are_not_ascii_stop_nobody(line: str) -> None:
    message, _, _ = read(head("X: \xff\u00e4", "Content-Length: 2", line=line) + b"{}")
    assert message.headers["Content-Length"] == "2"
    assert message.start_line.method == "PUT"
    utf8 = "PUT /2/\u00e4 HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    assert read(utf8)[0].start_line.path == read(utf8, cls=StockReader)[0].start_line.path == "/2/\u00e4"


@pytest.mark.parametrize("data", [b"", b"PUT / HT", b"PUT / HTTP/1.1\r\nHost: x\r\n"])
def test_headers_that_end_early_are_ganetis_error(data: bytes) -> None:
    for cls in (StockReader, MessageReader):
        with pytest.raises(http.HttpError, match="prematurely"):
            read(*([data] if data else []), cls=cls)


@pytest.mark.parametrize(
    "data", [b"PUT /" + b"x" * 9000, head("X: " + "x" * 4100), b"PUT / HTTP/1.1\r\n" + b"X" * 5000]
)
def test_headers_that_are_too_long_are_ganetis_error(data: bytes) -> None:
    for cls in (StockReader, MessageReader):
        with pytest.raises(http.HttpError, match="longer than"):
            read(data, cls=cls)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("PUT / HTTP/2.0", http.HttpVersionNotSupported),
        ("PUT /", http.HttpBadRequest),
        ("PUT", http.HttpBadRequest),
        ("PUT / x HTTP/1.1", http.HttpBadRequest),
    ],
)
def test_a_start_line_that_is_none_is_ganetis_error(line: str, error: type[Exception]) -> None:
    for cls in (StockReader, MessageReader):
        with pytest.raises(error):
            read(head(line=line), cls=cls)


# Lengths.


@pytest.mark.parametrize("limit", [10, MAX_ANONYMOUS, MAX_SIGNED_IN])
def test_a_body_is_read_up_to_the_limit_and_not_a_byte_beyond(limit: int) -> None:
    assert len(body_of(head(f"Content-Length: {limit}"), b"x" * limit, limit=limit)) == limit
    for length in (limit + 1, 10**9, 10**3000):
        start = head(f"Content-Length: {length}") + b"x" * 100
        message, reader, line = read(start, b"x" * 1000)
        with pytest.raises(HttpContentTooLarge) as caught:
            message.body.read_body(limit)
        assert caught.value.code == 413
        assert line.taken == len(start)
        assert reader.unread


def test_nothing_is_read_before_it_is_asked_for() -> None:
    start = head("Content-Length: 3000")
    message, reader, line = read(start, *[b"x" * 100] * 40)
    assert line.taken == len(start)
    assert reader.unread
    assert message.body.read_body(MAX_ANONYMOUS) == "x" * 3000
    assert line.taken == len(start) + 3000
    assert not reader.unread


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        (["Content-Length: -5"], http.HttpBadRequest),
        (["Content-Length: +5"], http.HttpBadRequest),
        (["Content-Length: 0x5"], http.HttpBadRequest),
        (["Content-Length: 5_0"], http.HttpBadRequest),
        (["Content-Length: five"], http.HttpBadRequest),
        (["Content-Length: 5, 5"], http.HttpBadRequest),
        (["Content-Length: \xb2"], http.HttpBadRequest),
        (["Content-Length:"], http.HttpBadRequest),
        (["Content-Length: 5", "Content-Length: 7"], http.HttpBadRequest),
        (["Content-Length: 99"], http.HttpBadRequest),
        (["Transfer-Encoding: chunked"], http.HttpLengthRequired),
        (["Transfer-Encoding: chunked", "Content-Length: 5"], http.HttpLengthRequired),
        ([], http.HttpLengthRequired),
    ],
)
def test_a_length_that_is_none(fields: list[str], error: type[http.HttpException]) -> None:
    with pytest.raises(error):
        body_of(head(*fields) + b"[1,2]")


@pytest.mark.parametrize("fields", [["Content-Length: 5"] * 2, ["Content-Length:  5 "], ["content-length: 005"]])
def test_a_length_that_is_one(fields: list[str]) -> None:
    assert body_of(head(*fields) + b"[1,2]") == "[1,2]"
    assert body_of(head(*fields), b"[1,2]") == "[1,2]"


def test_what_comes_behind_the_body_is_left() -> None:
    message, reader, _ = read(head("Content-Length: 2") + b"{}GET / HTTP/1.1\r\n\r\n")
    assert message.body.read_body(100) == "{}"
    assert reader.unread


@pytest.mark.parametrize("fields", [[], ["Content-Length: 0"]])
def test_no_body(fields: list[str]) -> None:
    message, reader, _ = read(head(*fields))
    assert message.body == ""
    assert not reader.unread


def test_a_body_that_does_not_come() -> None:
    with pytest.raises(http.HttpRequestTimeout):
        body_of(head("Content-Length: 5") + b"[1", ends=False)


def test_a_connection_that_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    message, reader, _ = read(head("Content-Length: 5") + b"[1")

    def fail(*args: Any) -> bytes:
        raise ConnectionResetError

    monkeypatch.setattr(http, "SocketOperation", fail)
    with pytest.raises(http.HttpBadRequest):
        message.body.read_body(100)


# The whole way, over a real connection.


class FakeServer:
    """As much of Ganeti's server as its executor looks at."""

    using_ssl = False


def handler_for(active: bool) -> Any:
    server = fake.Server("she @admin" if active else "she write")
    assert server.access.active == active
    return server.handler


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def exchange(listener: socket.socket, data: bytes, active: bool) -> bytes:
    """Sends all, as http.client does, before it reads; the answer up to the end."""
    handler = handler_for(active)
    executor = type("Executor", (RequestReader,), {"access": handler.access})

    def serve() -> None:
        connection, address = listener.accept()
        with connection:
            executor(FakeServer(), handler, connection, address)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with socket.create_connection(listener.getsockname(), timeout=60) as client:
            client.sendall(data)
            answer = b""
            while part := client.recv(65536):
                answer += part
            return answer
    finally:
        thread.join()


AUTHORIZATION = "Authorization: Basic c2hlOnNlY3JldA=="
WRONG = "Authorization: Basic c2hlOndyb25n"
JSON = "Content-Type: application/json"


@pytest.mark.parametrize(
    ("fields", "size", "status"),
    [
        ([AUTHORIZATION], 2 << 20, 400),  # Ganeti's, for the parameter
        ([AUTHORIZATION], MAX_SIGNED_IN + 1, 413),
        ([AUTHORIZATION], 60 << 20, 413),
        ([WRONG], 100, 401),
        ([WRONG], 60 << 20, 401),
        ([], 60 << 20, 401),
    ],
)
def test_the_answer_reaches_a_client_that_sends_all_before_it_reads(
    listening: socket.socket, fields: list[str], size: int, status: int
) -> None:
    data = b'{"no_such_parameter": "' + b"x" * size
    data = data[: size - 2] + b'"}'
    answer = exchange(listening, head(*fields, JSON, f"Content-Length: {size}") + data, True)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    text = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert text["code"] == status
    assert (status != 400) or "no_such_parameter" in text["message"]


def test_an_open_resource_reads_a_little_of_anybody(listening: socket.socket) -> None:
    for size, status in ((10, 200), (MAX_ANONYMOUS, 200), (MAX_ANONYMOUS + 1, 413)):
        start = head(JSON, f"Content-Length: {size}", line="GET /version HTTP/1.1")
        answer = exchange(listening, start + b'"' + b"x" * (size - 2) + b'"', True)
        assert answer.startswith(f"HTTP/1.1 {status} ".encode()), size


def test_an_answer_to_a_body_that_is_no_utf_8(listening: socket.socket) -> None:
    data = b'"' + b"\xc3\xa4" * 3000 + b"\xc3"
    answer = exchange(listening, head(AUTHORIZATION, JSON, f"Content-Length: {len(data)}") + data, True)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"UTF-8" in answer


@pytest.mark.parametrize("active", [True, False])
def test_ganetis_own_reader_reads_while_nothing_is_configured(active: bool) -> None:
    control = AccessControl("/nonexistent/policy", "/nonexistent/copy")
    control.has_middleware = active
    executor: Any = object.__new__(type("Executor", (RequestReader,), {"access": control}))
    line = Line(head("Content-Length: 5") + b"[1,2]", ends=False)
    message, reader = executor._ReadRequest(line, 0.05)
    assert type(reader) is (MessageReader if active else StockReader)
    assert message.body == (reader if active else "[1,2]")


@pytest.mark.parametrize("active", [True, False])
def test_a_request_that_does_not_come_is_ganetis_error(active: bool) -> None:
    control = AccessControl("/nonexistent/policy", "/nonexistent/copy")
    control.has_middleware = active
    executor: Any = object.__new__(type("Executor", (RequestReader,), {"access": control}))
    line = Line(ends=False)
    with pytest.raises(http.HttpError, match="Timeout while reading request"):
        executor._ReadRequest(line, 0.01)


def test_whoever_sends_for_ever_is_listened_to_for_a_while(listening: socket.socket) -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 1.0
        return now[0]

    with socket.create_connection(listening.getsockname()) as client:
        connection, _ = listening.accept()
        client.sendall(b"x" * 100_000)
        client.setblocking(False)

        def more(*args: Any) -> float:
            client.send(b"x")
            return clock()

        with connection:
            linger(connection, _clock=more)
    assert now[0] >= body.LINGER_TIME


def test_whoever_is_gone_is_not_listened_to(listening: socket.socket) -> None:
    client = socket.create_connection(listening.getsockname())
    connection, _ = listening.accept()
    client.close()
    with connection:
        linger(connection)
        linger(connection)
