# SPDX-License-Identifier: BSD-2-Clause
"""Restricted commands, run by the node daemon: what the whole room shares.

The modules, in the order in which a call passes through them (design, section 4): ``memory`` (the
child that serves it), ``handler`` (the sequence and the answer), ``settings`` (its limits), ``lock``
(who may try now), ``verify`` (what may be run), ``run`` (running it).

The node daemon is locked into memory and forks for each request, so that each page costs every
node: nothing is imported here that ``ganeti.server.noded`` has not imported.
"""

from __future__ import annotations

from typing import NamedTuple

from ganeti_ext.errors import ExtError

#: Owner (user and group id) of all that may be run, and of the locks.
ROOT = (0, 0)


class Refused(ExtError):
    """A call that did not run anything; its text is for this node's log."""


class Unchecked(Refused):
    """Refused before the name was looked at, so that no delay is due."""


class Limits(NamedTuple):
    """How long, how much and how many (times in seconds).

    ``wait_limit`` bounds the wait for a lock; it and all the others together stay far below the
    hour after which Ganeti's RPC client gives up.
    """

    time_limit: float = 60.0
    grace: float = 5.0  # between TERM and KILL
    output_limit: int = 256 * 1024  # bytes
    delay: float = 10.0  # after a refusal; Ganeti's own figure
    wait_limit: float = 60.0
    poll: float = 0.05  # between two looks at a lock that is taken
    waiting: int = 3  # calls that wait or sit out a delay
    running: int = 8  # commands that run


DEFAULT_LIMITS = Limits()
