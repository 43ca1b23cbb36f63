# SPDX-License-Identifier: BSD-2-Clause
"""Where Ganeti's transport waits or works for nothing (design, section 5): each of these can be switched off."""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import os
import re
import socket
import time
from collections.abc import Callable
from typing import Any

from ganeti import constants
from ganeti.rpc import errors

#: Bytes; more than a local socket holds at once.
_STEP = 1 << 20


def without_delay(start: Callable[[Any], None]) -> Callable[[Any], None]:
    """`HttpServer.Start` after which no reply is held back.

    The child writes the session tickets of TLS and then the reply: Nagle's algorithm keeps the second until
    the client's kernel has acknowledged the first, which it puts off for 40 ms. Accepted sockets inherit the
    option from the listening one.
    """

    @functools.wraps(start)
    def Start(self: Any) -> None:
        start(self)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    return Start


def without_garbage(incoming: Callable[[Any], None]) -> Callable[[Any], None]:
    """`HttpServer._IncomingConnection`, which forks: no collector runs in the child.

    A child lives for one request. Where its collector looks at an object it writes to it, and so copies the page.
    (To collect and freeze in the parent before each fork was tried: 0.8 ms more for every request, nothing less.)
    """

    @functools.wraps(incoming)
    def _IncomingConnection(self: Any) -> None:
        gc.disable()
        try:
            incoming(self)  # the child does not come back
        finally:
            gc.enable()

    return _IncomingConnection


def without_waiting(shut_down: Callable[..., None]) -> Callable[..., None]:
    """`http.ShutdownConnection` that does not wait a second for the client to close first.

    The kernel goes on sending what is on its way to a slow client, as long as nothing that the client sent lies
    there unread: that would make it break the connection off. So it is read, and the client told that no more
    comes.
    """

    @functools.wraps(shut_down)
    def ShutdownConnection(sock: Any, close_timeout: Any, write_timeout: Any, msgreader: Any, force: Any) -> None:
        shut_down(sock, close_timeout, write_timeout, msgreader, True)
        with contextlib.suppress(OSError):
            plain = socket.socket(fileno=os.dup(sock.fileno()))
            with plain:
                plain.shutdown(socket.SHUT_WR)
                plain.setblocking(False)
                while plain.recv(_STEP):
                    pass

    return ShutdownConnection


def receive(self: Any) -> str:
    """`Transport.Recv` in large steps: Ganeti's takes 4 KiB, and splits all that it has after each.

    Raises what Ganeti's raises.
    """
    self._CheckSocket()
    deadline = time.time() + self._rwtimeout
    while not self._msgs:
        if time.time() > deadline:
            raise errors.TimeoutError("Extended receive timeout")
        try:
            data = self.socket.recv(_STEP)
        except BlockingIOError:
            continue
        except socket.timeout as err:
            raise errors.TimeoutError(f"Receive timeout: {err}") from err
        if not data:
            raise errors.ConnectionClosedError("Connection closed while reading")
        *messages, self._buffer = (self._buffer + data).split(constants.LUXI_EOM)
        self._msgs.extend(messages)
    message: bytes = self._msgs.popleft()
    return message.decode("utf-8")


class LineEnds:
    """In place of the expression by which `serializer.DumpJson` takes the spaces from the ends of lines.

    It looks through all of an answer, which is one line without a space at its end: the encoder makes no others.
    """

    def __init__(self, stock: re.Pattern[str]) -> None:
        self._stock = stock

    def sub(self, new: str, text: str) -> str:
        """What the expression makes of a text."""
        if "\n" in text or text.endswith((" ", "\t")):
            return self._stock.sub(new, text)
        return text


def without_unheard_records(execute: Callable[..., Any]) -> Callable[..., Any]:
    """`ExecRapi`, the daemon's main loop, without log records that no handler would write.

    Ganeti leaves the choice to its handlers, so that each record is made before it is dropped.
    """

    @functools.wraps(execute)
    def ExecRapi(*args: Any) -> Any:
        root = logging.getLogger()
        if root.handlers:
            root.setLevel(min(handler.level for handler in root.handlers))
        return execute(*args)

    return ExecRapi
