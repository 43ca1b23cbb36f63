# SPDX-License-Identifier: BSD-2-Clause
"""What each patch of the transport earns: our daemon as it is beside one that leaves that patch out.

Two of them help against the same wait, so that each alone seems to earn nothing: both are left out together, too, and
all of them.
"""

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
#: What is left out, by its name in the table.
LEFT_OUT = {
    **{name: (name,) for name in NAMES},
    f"RAPI_NO_DELAY, {CLOSING}": ("RAPI_NO_DELAY", CLOSING),
    "all": NAMES,
}
FIRST_PORT = 5090


@contextlib.contextmanager
def without(here: World) -> Iterator[dict[str, Server]]:
    """A daemon of ours for each of LEFT_OUT."""
    settings = here.cluster.node_path("node1", switches.FILE)
    running: dict[str, Server] = {}
    try:
        for number, (text, names) in enumerate(LEFT_OUT.items()):
            with open(settings, "w", encoding="ascii") as stream:
                stream.writelines(f"{name}=no\n" for name in names)
            before = len(here.cluster.rapi_log())
            server = Server(here.cluster, f"without-{number}", "/usr/sbin/ganeti-rapi", FIRST_PORT + number)
            server.start()
            running[text] = server
            log = here.cluster.rapi_log()[before:]
            assert all(f"{name} is switched off" in log for name in names), "a switch is not heard"
        yield running
    finally:
        with contextlib.suppress(FileNotFoundError):
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
        f"{CLOSING} left out: 40 lingering clients: answers per second",
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
        for what, path, rounds, kinds in (
            ("GET /version", "/version", 40, (False, True)),
            (f"bulk list of {size}", BULK, 8, (True,)),
        ):
            cases = {name: Case(name, "admin", "GET", path) for name in running}
            sampler = Sampler(here.cluster, running, "patches left out", tickets=True)
            found = sampler.sample(cases.values(), 1 if tiny else rounds, seconds=15)
            for cpu in kinds:
                for name in LEFT_OUT:
                    yield beside(f"{name} left out: {what}", found, cases["ours"], cases[name], cpu=cpu)
        yield lingering(here, running, 1 if tiny else 2, 1.2 if tiny else 2)


if __name__ == "__main__":
    from tests.bench.__main__ import main

    sys.exit(main(["patches", *sys.argv[1:]]))
