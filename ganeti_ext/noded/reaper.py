# SPDX-License-Identifier: BSD-2-Clause
"""Burying the children that nobody waits for, where the node daemon serves in threads (Ganeti's next release).

Ganeti's thread for that takes any child that has ended, and with it the exit status that somebody is waiting for:
once a second a restricted command that failed could look like one that did not.
"""

from __future__ import annotations

import logging
import os
import time

from ganeti.http import server

from ganeti_ext.noded import run


class Reaper(server._ChildProcessReaper):  # type: ignore[misc]
    """Ganeti's thread, which leaves our commands to whoever collects them."""

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
