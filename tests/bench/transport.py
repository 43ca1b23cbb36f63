# SPDX-License-Identifier: BSD-2-Clause
"""What the faster transport earns: Ganeti's daemon and ours at once, clients as they are in the field (TLS 1.3).

One client; ten; forty that leave the closing to the server; one at the end of a long line; and how it grows with
the instances.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator

from tests.bench.large import OTHER, TENANT, World, world
from tests.bench.load import Load, load
from tests.bench.network import far_client
from tests.bench.progress import say
from tests.bench.report import Row, bootstrap, median, ratio, row
from tests.bench.sampling import Case, Found, Sampler, cpus, latencies, ms

VERSION_BAR = 0.22
#: Times as many answers per second: of one client, of ten, of forty that linger.
RATE_BARS = {"one": 5.0, "ten": 1.15, "lingering": 5.0}
BULK_CPU_BAR = 0.9
TENANT_BAR, TENANT_CPU_BAR = 0.4, 0.2
#: No worse, and what chance may do to that.
FAR_BAR = 1.01
#: Seconds each way.
DELAY = 0.025

BULK = "/2/instances?bulk=1"
#: What is asked of both daemons. Refused is a writer's request of somebody who may only read.
REQUESTS = {
    "version": ("admin", "GET", "/version", 200),
    "list": ("admin", "GET", "/2/instances", 200),
    "bulk list": ("admin", "GET", BULK, 200),
    "one instance": ("admin", "GET", f"/2/instances/vm1.{OTHER}", 200),
    "refused": ("reader", "PUT", f"/2/instances/vm1.{TENANT}/tags?tag=x", 403),
}


def cases(*names: str) -> dict[tuple[str, str], Case]:
    """Of REQUESTS, to each daemon."""
    return {(server, name): Case(server, *REQUESTS[name]) for server in ("stock", "ours") for name in names}


def beside(what: str, found: Found, ours: Case, stock: Case, bar: float | None = None, cpu: bool = False) -> Row:
    """The ratio of two latencies, or of the daemon's CPU."""
    of = cpus if cpu else latencies
    mine, theirs = of(found[ours]), of(found[stock])
    text = f"{what}: {'CPU of the daemon' if cpu else 'latency'}"
    return row(text, ms(mine), ms(theirs), bootstrap(mine, theirs, ratio), bar, remark=f"{len(mine)} times")


def version(here: World, size: str, rounds: int) -> Iterator[Row]:
    """The smallest request of one client."""
    asked = cases("version")
    found = Sampler(here.cluster, here.servers, size, tickets=True).sample(asked.values(), rounds)
    ours, stock = asked["ours", "version"], asked["stock", "version"]
    yield beside("GET /version, one client", found, ours, stock, VERSION_BAR)
    yield beside("GET /version, one client", found, ours, stock, cpu=True)


def bulk(here: World, size: str, rounds: int) -> Iterator[Row]:
    """The bulk list: all of it, and a tenant's beside stock's, which has no tenants and lists all."""
    asked = cases("bulk list")
    tenant = Case("ours", "named", "GET", BULK)
    found = Sampler(here.cluster, here.servers, size, tickets=True).sample([*asked.values(), tenant], rounds)
    ours, stock = asked["ours", "bulk list"], asked["stock", "bulk list"]
    yield beside(f"bulk list of {size}", found, ours, stock, BULK_CPU_BAR, cpu=True)
    yield beside("a tenant's bulk list beside stock's full one", found, tenant, stock, TENANT_BAR)
    yield beside("a tenant's bulk list beside stock's full one", found, tenant, stock, TENANT_CPU_BAR, cpu=True)


def growth(here: World, size: str, rounds: int) -> Iterator[Row]:
    """Lists and one instance, with as many instances as there are now."""
    names = ("list", "bulk list", "one instance")
    asked = cases(*names)
    found = Sampler(here.cluster, here.servers, size, tickets=True).sample(asked.values(), rounds)
    for name in names:
        for cpu in (False, True):
            yield beside(f"{size}: {name}", found, asked["ours", name], asked["stock", name], cpu=cpu)


def rates(here: World, what: str, clients: int, times: int, seconds: float) -> Row:
    """How many requests per second are answered, in slices of both daemons in turn."""
    chance = random.Random(0)
    found: dict[str, list[Load]] = {"stock": [], "ours": []}
    order = list(found)
    for number in range(times):
        chance.shuffle(order)
        for name in order:
            say(f"{clients} clients at once, {number} of {times}")
            one = load(here.cluster, here.servers[name], "/version", clients, seconds, what == "lingering")
            found[name].append(one)

    def rate(name: str) -> list[float]:
        return [one.rate for one in found[name]]

    shares = " and ".join(f"{median(one.clients_share for one in found[name]):.0%}" for name in ("ours", "stock"))
    text = {"one": "one client", "ten": "ten clients", "lingering": f"{clients} lingering clients"}[what]
    return row(
        f"GET /version, {text}: answers per second",
        f"{median(rate('ours')):.1f}/s",
        f"{median(rate('stock')):.1f}/s",
        bootstrap(rate("ours"), rate("stock"), ratio),
        RATE_BARS[what],
        at_least=True,
        remark=f"the clients themselves took {shares} of the processors",
    )


def far(here: World, size: str, rounds: int) -> Iterator[Row]:
    """A client on a line with a round trip of 50 ms."""
    asked = cases("version", "list", "bulk list", "refused")
    with far_client(here.cluster, DELAY) as (connect, kind):
        sampler = Sampler(here.cluster, here.servers, f"{size}, 50 ms away", tickets=True, connect=connect)
        found = sampler.sample(asked.values(), rounds)
    for name in ("version", "list", "bulk list", "refused"):
        one = beside(f"50 ms away ({kind}): {name}", found, asked["ours", name], asked["stock", name], FAR_BAR)
        yield one


def measure(tiny: bool = False) -> Iterator[Row]:
    """All rows; `tiny` only shows that everything runs."""
    here = world()
    for tenants, others in ((2, 2),) if tiny else ((2, 2), (10, 190), (50, 950)):
        size = here.resize(tenants, others)
        yield from growth(here, size, 1 if tiny else 20)
    yield from version(here, size, 1 if tiny else 60)
    yield from bulk(here, size, 1 if tiny else 25)
    yield rates(here, "one", 1, 1 if tiny else 6, 0.1 if tiny else 0.7)
    yield rates(here, "ten", 10, 1 if tiny else 6, 0.1 if tiny else 0.8)
    yield rates(here, "lingering", 40, 1 if tiny else 2, 1.2 if tiny else 2.5)
    yield from far(here, size, 1 if tiny else 8)


if __name__ == "__main__":
    from tests.bench.__main__ import main

    sys.exit(main(["transport", *sys.argv[1:]]))
