# SPDX-License-Identifier: BSD-2-Clause
"""A request's body that is not read before it is known whose it is, and no further than he may send.

Ganeti reads the whole body before anybody looks at the password. Once there is something to
protect, its reader stops after the headers (`forked`, `threaded`), and the handler has the body read
when it knows whose it is (`signin`). Only then, too, can an error of the body be answered.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from ganeti import http

from ganeti_ext.rapi.httperrors import HttpContentTooLarge

#: Bytes of a body that is read for anybody, and for whoever has shown a right password.
MAX_ANONYMOUS = 1 << 20
MAX_SIGNED_IN = 16 << 20

#: Seconds for which a client that is still sending is listened to after the answer: in all,
#: and without a byte of it.
LINGER_TIME = 30.0
LINGER_IDLE = 5.0

_LENGTH = re.compile("[0-9]+")


class UnreadBody(ABC):
    """A body that lies in the connection yet; it stands in the place of its text."""

    #: The message's headers (`email.message.Message`).
    headers: Any
    #: What was taken from the connection with the headers.
    received: bytes = b""
    #: Whether there may be something of the request that was not taken from the connection.
    unread: bool

    @abstractmethod
    def receive(self, size: int) -> bytes:
        """What comes next, about `size` bytes at most; empty at the end.

        Raises http.HttpSocketTimeout or OSError.
        """

    def announced(self) -> bool:
        """Whether the headers say that there is a body."""
        return bool(self.headers.get(http.HTTP_CONTENT_LENGTH, "0") != "0" or "Transfer-Encoding" in self.headers)

    def read_body(self, limit: int) -> str:
        """The body, of at most `limit` bytes; not one of them is read if there are more.

        Raises HttpContentTooLarge, HttpLengthRequired, HttpRequestTimeout, or HttpBadRequest
        for a length that is none, a body that ends early, and one that is no UTF-8.
        """
        length = self._length()
        if length > limit:
            raise HttpContentTooLarge(f"The body has {length} bytes; at most {limit} are read")
        data = bytearray(self.received)
        self.received = b""
        try:
            while len(data) < length:
                part = self.receive(length - len(data))
                if not part:
                    raise http.HttpBadRequest(message="The body is shorter than its Content-Length")
                data += part
        except (http.HttpSocketTimeout, socket.timeout) as err:
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
        lengths = set(self.headers.get_all(http.HTTP_CONTENT_LENGTH, ()))
        if "Transfer-Encoding" in self.headers or not lengths:
            raise http.HttpLengthRequired(message="A body needs a Content-Length, and no Transfer-Encoding")
        text = lengths.pop().strip(" \t")
        if lengths or _LENGTH.fullmatch(text) is None:
            raise http.HttpBadRequest(message="Content-Length is no number, or more than one")
        if len(text) > 4096:  # Ganeti's limit for the headers; Python has one, too
            raise HttpContentTooLarge("The body has more bytes than can be counted")
        return int(text)


def read_body(req: Any, limit: int) -> None:
    """Has the body of a request read if it was not; for the limit and errors see the reader."""
    if isinstance(req.request_body, UnreadBody):
        req.request_body = req.request_body.read_body(limit)


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
