# SPDX-License-Identifier: BSD-2-Clause
"""What each patch of the transport earns: our daemon as it is beside one that leaves that patch out."""

from __future__ import annotations

import contextlib
import os
import random
import sys
from collections.abc import Iterator

from ganeti_ext import switches
from tests.bench.large import Server, World, world
from tests.bench.load import load
from tests.bench.progress import say
from tests.bench.report import Row, bootstrap, median, ratio, row
from tests.bench.sampling import Case, Sampler
from tests.bench.transport import BULK, beside

NAMES = tuple(name for name in switches.NAMES if name.startswith("RAPI_"))
#: The only one that is about clients that linger.
CLOSING = "RAPI_NO_CLOSE_WAIT"
FIRST_PORT = 5090


@contextlib.contextmanager
def without(here: World) -> Iterator[dict[str, Server]]:
    """A daemon of ours for each patch, which leaves it out."""
    settings = here.cluster.node_path("node1", switches.FILE)
    running: dict[str, Server] = {}
    try:
        for number, name in enumerate(NAMES):
            with open(settings, "w", encoding="ascii") as stream:
                stream.write(f"{name}=no\n")
            running[name] = Server(here.cluster, name.lower(), "/usr/sbin/ganeti-rapi", FIRST_PORT + number)
            running[name].start()
            log = here.cluster.rapi_log()
            assert f"{name}=no" in log, "a switch is not heard"
        yield running
    finally:
        os.unlink(settings)
        for server in running.values():
            server.stop()


def lingering(here: World, running: dict[str, Server], times: int, seconds: float) -> Row:
    """Forty clients that leave the closing to the server."""
    chance = random.Random(0)
    found: dict[str, list[float]] = {"ours": [], CLOSING: []}
    order = list(found)
    for number in range(times):
        chance.shuffle(order)
        for name in order:
            say(f"lingering clients, {number} of {times}")
            rate = load(here.cluster, running[name], "/version", 40, seconds, True).rate
            found[name].append(rate)
    mine, theirs = found["ours"], found[CLOSING]
    return row(
        f"without {CLOSING}: 40 lingering clients: answers per second",
        f"{median(mine):.1f}/s",
        f"{median(theirs):.1f}/s",
        bootstrap(mine, theirs, ratio),
    )


def measure(tiny: bool = False) -> Iterator[Row]:
    """All rows; `tiny` only shows that everything runs."""
    here = world()
    size = here.resize(*((2, 2) if tiny else (50, 950)))
    with without(here) as others:
        running = {**others, "ours": here.servers["ours"]}
        for what, path, rounds in (("GET /version", "/version", 50), (f"bulk list of {size}", BULK, 20)):
            cases = {name: Case(name, "admin", "GET", path) for name in running}
            sampler = Sampler(here.cluster, running, "each patch left out", tickets=True)
            found = sampler.sample(cases.values(), 1 if tiny else rounds)
            for name in NAMES:
                for cpu in (False, True):
                    yield beside(f"without {name}: {what}", found, cases["ours"], cases[name], cpu=cpu)
        yield lingering(here, running, 1 if tiny else 3, 1.2 if tiny else 3.5)


if __name__ == "__main__":
    from tests.bench.__main__ import main

    sys.exit(main(["patches", *sys.argv[1:]]))
