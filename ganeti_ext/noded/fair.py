# SPDX-License-Identifier: BSD-2-Clause
"""Whose connection is served next, so that no caller shuts out another.

Ganeti's server forks for each connection in the order in which they come; with more than
``max_clients`` children (20) it stands still until one of them has ended, and whatever does not
speak keeps a child for ten seconds. So a hundred calls at once, or two dozen connections that say
nothing and need no certificate, take the node daemon from everybody.

Here the parent never stands still. It takes the connections that come and lets them wait in
``lines``.
"""

from __future__ import annotations

import collections
import logging
import os
import socket
from typing import Any

import OpenSSL
from ganeti import utils
from ganeti.http import server

from ganeti_ext.noded.lines import MOST_WAITING, Lines


class Server(server.HttpServer):  # type: ignore[misc]
    """Ganeti's server, with a line for each address."""

    socket: Any

    def Start(self) -> None:
        """Listen, as Ganeti's does."""
        super().Start()
        # Of our own, so that what waits is a socket and no TLS connection, which takes memory.
        self._listener = socket.socket(fileno=os.dup(self.socket.fileno()))
        self._listener.setblocking(False)
        self._lines = Lines(self.max_clients + 1)  # Ganeti's own server has one more than it is told, too
        self._served: dict[int, str] = {}  # addresses by child

    def readable(self) -> bool:
        """Serve who waits, and tell that connections are taken.

        The main loop asks before it sleeps, also when the end of a child has woken it.
        """
        self._CollectChildren(True)
        while (turn := self._lines.take(collections.Counter(self._served.values()))) is not None:
            self._serve(*turn)
        return True

    def _IncomingConnection(self) -> None:
        try:
            for _ in range(MOST_WAITING):
                self._arrive(*self._listener.accept())
        except BlockingIOError:
            pass
        except OSError:  # which the main loop would take for a reason to listen no more
            logging.exception("Failed to accept a connection")

    def _arrive(self, connection: socket.socket, client: Any) -> None:
        dropped = self._lines.arrive(connection, client)
        if dropped is not None:
            dropped.close()

    def _CollectChildren(self, quick: bool) -> None:
        for child in list(self._served):
            try:
                ended, _ = os.waitpid(child, os.WNOHANG)
            except ChildProcessError:
                ended = child
            if ended:
                del self._served[child]

    def _serve(self, connection: socket.socket, client: Any) -> None:
        """Fork a child that serves one connection."""
        try:
            child = os.fork()
        except OSError:
            logging.exception("Failed to fork on request from %s:%s", *client[:2])
            connection.close()
            return
        if child:
            self._served[child] = client[0]
            connection.close()
            return
        status = 1
        try:
            self._execute(connection, client)
            status = 0
        except Exception:
            logging.exception("Error while handling request from %s:%s", *client[:2])
        finally:
            os._exit(status)

    def _execute(self, connection: socket.socket, client: Any) -> None:
        """Serve one connection, in the child; all others are the parent's."""
        served: Any = connection
        if self.using_ssl:
            served = OpenSSL.SSL.Connection(self.socket.get_context(), connection)
        self.socket.close()
        self.socket = None
        self._listener.close()
        for waiting in self._lines:
            waiting.close()
        utils.ResetTempfileModule()
        self.request_executor(self, self.handler, served, client)
