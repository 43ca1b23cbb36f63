# SPDX-License-Identifier: BSD-2-Clause
"""The node daemon where it serves in threads (Ganeti's next release): whose children are whose, and whose turn it is.

There `fair` and `memory` have nothing to do: no child is forked.
"""

from __future__ import annotations

import collections
import logging
import os
import threading
import time
from typing import Any

from ganeti.http import server

from ganeti_ext.noded import run
from ganeti_ext.noded.lines import RESERVED, Lines


class Reaper(server._ChildProcessReaper):  # type: ignore[misc]
    """Ganeti's thread that buries children nobody waits for; it leaves our commands to whoever collects them.

    Ganeti's takes any child that has ended, and with it the exit status that somebody is waiting for: once a
    second a restricted command that failed could look like one that did not.
    """

    def _reaper_loop(self) -> None:
        while self._running:
            try:
                while _bury_one():
                    pass
            except OSError:
                logging.exception("Looking for children that have ended")
            time.sleep(self._check_interval)


def _bury_one() -> bool:
    """Takes one child that has ended, and is no command of ours; returns whether there was one."""
    with run.starting:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            # One of ours is in the way of others only for a moment: it is being collected.
            if found is None or found.si_pid in run.commands:
                return False
            os.waitid(os.P_PID, found.si_pid, os.WEXITED | os.WNOHANG)
        except ChildProcessError:  # there is none, or somebody else has taken it meanwhile
            return False
    return True


class Server(server.HttpServer):  # type: ignore[misc]
    """Ganeti's server, with `Lines` before its threads.

    Ganeti's serves in the order in which connections come; two dozen that say nothing hold its threads for
    ten seconds, whoever else calls.
    """

    _thread_pool: Any

    def __init__(self, *args: Any, max_clients: int = 20, **kwargs: Any) -> None:
        super().__init__(*args, max_clients=max_clients + RESERVED, **kwargs)
        self._turns = threading.Lock()
        self._lines = Lines(max_clients)
        self._served: collections.Counter[str] = collections.Counter()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Put a connection at the end of its line."""
        with self._turns:
            dropped = self._lines.arrive(request, client_address)
        if dropped is not None:
            self.shutdown_request(dropped)
        self._serve()

    def _serve(self) -> None:
        """Give a thread to whoever is next, as long as there is a place for him."""
        with self._turns:
            while (turn := self._lines.take(self._served)) is not None:
                request, client_address = turn
                self._served[client_address[0]] += 1
                self._thread_pool.submit(self._serve_one, request, client_address)

    def _serve_one(self, request: Any, client_address: Any) -> None:
        """Serve one connection, in its thread, and then whoever is next."""
        try:
            self._process_request_thread(request, client_address)
        finally:
            with self._turns:
                self._served[client_address[0]] -= 1
                if not self._served[client_address[0]]:
                    del self._served[client_address[0]]
            self._serve()
