# SPDX-License-Identifier: BSD-2-Clause
"""Reading no more of a request than its sender may send, and answering one who is still sending.

Ganeti reads the whole body before anybody looks at the password. Once there is something to
protect, our reader stops after the headers, and the handler has the body read when it knows
whose it is (`signin`). Only then, too, can an error of the body be answered: an exception
while Ganeti's executor reads ends in an answer of HTTP/0.9, or in none.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import socket
import time
from collections.abc import Callable
from io import StringIO
from typing import Any

import ganeti.http.server
from ganeti import http

from ganeti_ext.rapi.access import AccessControl
from ganeti_ext.rapi.httperrors import HttpContentTooLarge

#: Bytes of a body that is read for anybody, and for whoever has shown a right password.
MAX_ANONYMOUS = 1 << 20
MAX_SIGNED_IN = 16 << 20

#: Seconds for which a client that is still sending is listened to after the answer: in all,
#: and without a byte of it.
LINGER_TIME = 30.0
LINGER_IDLE = 5.0

_LENGTH = re.compile("[0-9]+")

#: Ganeti's own classes: their names are ours once the patches are applied.
_GanetiReader = ganeti.http.server._HttpClientToServerMessageReader
_GanetiExecutor = ganeti.http.server.HttpServerRequestExecutor


class MessageReader(_GanetiReader):  # type: ignore[misc, valid-type]
    """Ganeti's reader of a request, which reads start line and headers and then waits.

    If there is a body, the message has the reader itself in its place; `read_body` puts the
    text there.
    """

    def __init__(self, sock: Any, msg: Any, read_timeout: float) -> None:
        """Reads up to the end of the headers, as Ganeti does; `read_timeout` in seconds.

        Raises what Ganeti's reader raises.
        """
        self.sock = sock
        self.msg = msg
        self.start_line_buffer = None
        self.header_buffer = StringIO()
        self.body_buffer = StringIO()
        self.parser_status = self.PS_START_LINE
        self.content_length = None
        self.peer_will_close = None
        self._read_timeout = read_timeout

        # Ganeti's parser wants characters. Latin-1 has one for each byte: where the headers
        # end in the middle of a segment, the rest is the same bytes again.
        buf = ""
        while self.parser_status in (self.PS_START_LINE, self.PS_HEADERS):
            data = self._receive()
            if not data:
                raise http.HttpError("Connection closed prematurely")
            buf = self._ContinueParsing(buf + data.decode("latin-1"), False)
        self._received = self.body_buffer.getvalue().encode("latin-1")
        #: Whether there may be something of the request that was not taken from the connection.
        self.unread = bool(
            self._received
            or msg.headers.get(http.HTTP_CONTENT_LENGTH, "0") != "0"
            or "Transfer-Encoding" in msg.headers
        )
        msg.body = self if self.unread else ""

    def ParseStartLine(self, start_line: str) -> Any:
        """Ganeti's, of the start line in UTF-8, as Ganeti reads it."""
        return super().ParseStartLine(start_line.encode("latin-1").decode("utf-8", "replace"))

    def read_body(self, limit: int) -> str:
        """The body, of at most `limit` bytes; not one of them is read if there are more.

        Raises HttpContentTooLarge, HttpLengthRequired, HttpRequestTimeout, or HttpBadRequest
        for a length that is none, a body that ends early, and one that is no UTF-8.
        """
        length = self._length()
        if length > limit:
            raise HttpContentTooLarge(f"The body has {length} bytes; at most {limit} are read")
        data = bytearray(self._received)
        self._received = b""
        try:
            while len(data) < length:
                part = self._receive()
                if not part:
                    raise http.HttpBadRequest(message="The body is shorter than its Content-Length")
                data += part
        except http.HttpSocketTimeout as err:
            raise http.HttpRequestTimeout(message="The rest of the body did not come") from err
        except OSError as err:
            raise http.HttpBadRequest(message="The connection broke in the middle of the body") from err
        self.unread = len(data) > length
        try:
            return data[:length].decode()
        except UnicodeDecodeError as err:
            raise http.HttpBadRequest(message=f"The body is no UTF-8, from byte {err.start} on") from err

    def _length(self) -> int:
        """How many bytes the body has (RFC 9112, 6.3)."""
        headers = self.msg.headers
        lengths = set(headers.get_all(http.HTTP_CONTENT_LENGTH, ()))
        if "Transfer-Encoding" in headers or not lengths:
            raise http.HttpLengthRequired(message="A body needs a Content-Length, and no Transfer-Encoding")
        text = lengths.pop().strip(" \t")
        if lengths or _LENGTH.fullmatch(text) is None:
            raise http.HttpBadRequest(message="Content-Length is no number, or more than one")
        return int(text)  # of at most 4096 digits: Ganeti's limit for the headers

    def _receive(self) -> bytes:
        # Ganeti makes a text of the end: then it is "".
        data = http.SocketOperation(self.sock, http.SOCKOP_RECV, http.SOCK_BUF_SIZE, self._read_timeout)
        return data or b""


def read_body(req: Any, limit: int) -> None:
    """Has the body of a request read if it was not; for the limit and errors see the reader."""
    if isinstance(req.request_body, MessageReader):
        req.request_body = req.request_body.read_body(limit)


class RequestExecutor(_GanetiExecutor):  # type: ignore[misc, valid-type]
    """Ganeti's way through one connection, with our reader; Ganeti's alone while nothing is configured."""

    #: Set by the entry point.
    access = AccessControl()
    _reader: MessageReader | None = None
    _line: socket.socket | None = None

    def __init__(self, server: Any, handler: Any, sock: Any, client_addr: Any) -> None:
        """Answers one request, as Ganeti's does, and lets the client get the answer."""
        try:
            super().__init__(server, handler, sock, client_addr)
        finally:
            if self._line is not None:
                with self._line:
                    linger(self._line)

    def _ReadRequest(self, sock: Any, timeout: float) -> Any:
        """The message and its reader."""
        if not self.access.active:
            return super()._ReadRequest(sock, timeout)
        msg = http.HttpMessage()
        try:
            self._reader = MessageReader(sock, msg, timeout)
        except http.HttpSocketTimeout as err:
            raise http.HttpError("Timeout while reading request") from err
        except OSError as err:
            raise http.HttpError(f"Error reading request: {err}") from err
        return msg, self._reader

    def _SendResponse(self, sock: Any, req_msg: Any, msg: Any, timeout: float) -> None:
        """Sends the answer; the connection of a client that is still sending is kept for `linger`."""
        super()._SendResponse(sock, req_msg, msg, timeout)
        if self._reader is None or not self._reader.unread:
            return
        if isinstance(sock, socket.socket):  # without TLS: Ganeti will shut it down both ways
            linger(sock)
        else:
            # Ganeti will say goodbye and close its descriptor; the connection lasts as long as this.
            self._line = socket.socket(fileno=os.dup(sock.fileno()))


def linger(line: socket.socket, *, _clock: Callable[[], float] = time.monotonic) -> None:
    """Takes from a connection what still comes and drops it, until the client has closed its end.

    A connection that is closed with bytes unread is reset, and the answer lost on a client
    that sends all before it reads (RFC 9112, 9.6). Nothing is deciphered or kept: the kernel
    drops the bytes (MSG_TRUNC, tcp(7)).
    """
    poll = select.poll()
    poll.register(line, select.POLLIN)
    end = _clock() + LINGER_TIME
    with contextlib.suppress(OSError):  # the client is gone
        line.shutdown(socket.SHUT_WR)
        while (left := min(end - _clock(), LINGER_IDLE)) > 0 and poll.poll(left * 1000):
            if not line.recv(1 << 20, socket.MSG_TRUNC):
                return
