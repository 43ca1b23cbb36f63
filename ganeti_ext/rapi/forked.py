# SPDX-License-Identifier: BSD-2-Clause
"""Where each request has a process of its own (Ganeti 3.0 and 3.1): its body is left unread at first.

An exception while Ganeti's executor reads would end in an answer of HTTP/0.9, or in none.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Mapping
from io import StringIO
from typing import Any

import ganeti.http.server
from ganeti import http

from ganeti_ext import compat
from ganeti_ext.rapi.access import AccessControl
from ganeti_ext.rapi.body import UnreadBody, linger

#: Ganeti's own classes: their names are ours once the patches are applied.
_GanetiReader = ganeti.http.server._HttpClientToServerMessageReader
_GanetiExecutor = ganeti.http.server.HttpServerRequestExecutor


class MessageReader(UnreadBody, _GanetiReader):  # type: ignore[misc, valid-type]
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
            data = self.receive(http.SOCK_BUF_SIZE)
            if not data:
                raise http.HttpError("Connection closed prematurely")
            buf = self._ContinueParsing(buf + data.decode("latin-1"), False)
        self.headers = msg.headers
        self.received = self.body_buffer.getvalue().encode("latin-1")
        self.unread = bool(self.received) or self.announced()
        msg.body = self if self.unread else ""

    def ParseStartLine(self, start_line: str) -> Any:
        """Ganeti's, of the start line in UTF-8, as Ganeti reads it."""
        return super().ParseStartLine(start_line.encode("latin-1").decode("utf-8", "replace"))

    def receive(self, size: int) -> bytes:
        """What comes next, in one piece of Ganeti's size."""
        # Ganeti makes a text of the end: then it is "".
        data = http.SocketOperation(self.sock, http.SOCKOP_RECV, http.SOCK_BUF_SIZE, self._read_timeout)
        return data or b""


class RequestReader(_GanetiExecutor):  # type: ignore[misc, valid-type]
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


def prepare(stock: Callable[[], Any], load_files: Callable[[], None], files: Mapping[str, Callable[[], None]]) -> Any:
    """Prepares the daemon: users, then our files, which are taken again when they change. Nobody is served yet.

    `stock` is Ganeti's part; `files` are the functions that take the file of a path.
    """
    prepared = stock()
    for path, load in files.items():
        try:
            compat.watch_file(path, load)
        except Exception as err:
            logging.error("Changes of %s will be seen after a restart only: %s", path, err)
    load_files()
    return prepared
