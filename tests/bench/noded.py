# SPDX-License-Identifier: BSD-2-Clause
"""The node daemon: its RPCs, its memory, and restricted commands while it is flooded or has no memory left.

Ganeti's own daemon and ours run at once on one node, each locked into memory as on a real node. RPCs are sent one
after the other in an order drawn anew for each round.
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import os
import random
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.bench.batch import batch
from tests.bench.progress import say
from tests.bench.report import (
    MET,
    MISSED,
    Interval,
    Row,
    bootstrap,
    difference,
    median,
    rank_test,
    ratio,
    row,
)
from tests.cluster import memgroup, nodes
from tests.cluster.memgroup import MIB, MemoryGroup
from tests.cluster.nodes import Flood, NodeDaemon, kib
from tests.cluster.vcluster import Cluster

PROGRAMS = {"stock": nodes.STOCK, "ours": nodes.OURS}
#: ms over a `version` RPC; share of stock's; KiB; seconds.
NOTHING_BAR, UNCHECKED_BAR = 5.0, 1.0
VERSION_BAR, PRIVATE_BAR, LOCKED_BAR, FLOOD_BAR = 0.5, 0.2, 256, 1.0
#: A difference that is called one although there is none, in so many comparisons.
SIGNIFICANT = 0.01
#: What is left to the daemon, in MiB, when the memory is filled.
LEFT = (4, 6, 8, 16, 32)

Daemons = Mapping[str, NodeDaemon]


def measure(tiny: bool = False) -> Iterator[Row]:
    """All rows; `tiny` only shows that everything runs."""
    with Cluster(nodes=3) as cluster:
        nodes.add_command(cluster, "node1", "nothing", "exit 0")
        os.chmod(nodes.add_command(cluster, "node1", "unsafe", ""), 0o775)
        with contextlib.ExitStack() as stack:
            daemons = {
                kind: stack.enter_context(NodeDaemon(cluster, program, 1840 + number))
                for number, (kind, program) in enumerate(PROGRAMS.items())
            }
            yield from _latencies(cluster, daemons, 3 if tiny else 120)
            yield from _memory(daemons)
            # Ganeti's own sleeps through its flood, so it goes on beside the others.
            with ThreadPoolExecutor(1) as pool:
                stocks = [] if tiny else [pool.submit(lambda: list(_flood(cluster, daemons["stock"], "stock", 25)))]
                yield from _refusals(cluster, daemons["ours"], 2 if tiny else 8)
                for clients, seconds in [(5, 0.0)] if tiny else [(25, 0.0), (100, 15.0)]:
                    yield from _flood(cluster, daemons["ours"], "ours", clients, seconds, 1 if tiny else 2)
                for one in stocks:
                    yield from one.result()
        yield from _no_memory(cluster, LEFT[3:4] if tiny else LEFT, 1 if tiny else 2)
        yield from batch(cluster, 1 if tiny else 3)


def _latencies(cluster: Cluster, daemons: Daemons, rounds: int) -> Iterator[Row]:
    """What RPCs take."""
    kinds = [(kind, what) for kind in daemons for what in ("version", "nothing")] + [("ours", "unchecked")]
    found: dict[tuple[str, str], list[float]] = collections.defaultdict(list)
    chance = random.Random(0)
    with _no_place(cluster):
        for number in range(rounds + 1):
            say(f"RPCs, {number} of {rounds}")
            chance.shuffle(kinds)
            for kind, what in kinds:
                # The guests' lock is held, so that what they ask for is turned away at once.
                source = "node3" if what == "unchecked" else "node2"
                call = ["version"] if what == "version" else ["restricted_command", "nothing"]
                answer = daemons[kind].rpc(*call, source=source)
                assert answer.ok == (what != "unchecked"), (kind, what, answer)
                if number:
                    found[kind, what].append(answer.took)
    version, stock = found["ours", "version"], found["stock", "version"]
    yield row(
        "`version` RPC: ours beside stock", _ms(version), _ms(stock), bootstrap(version, stock, ratio), VERSION_BAR
    )
    for what, text, bar in (
        ("nothing", "RPC of a command that does nothing, over `version`", NOTHING_BAR),
        ("unchecked", "call turned away unchecked, over `version`", UNCHECKED_BAR),
    ):
        more = bootstrap(found["ours", what], version, difference)
        in_ms = Interval(*(1000 * value for value in (more.value, more.low, more.high)))
        stocks = found.get(("stock", what))
        remark = f"stock's own: {_ms(stocks)}, over its `version` {_ms(stock)}" if stocks else ""
        yield row(text, _ms(found["ours", what]), _ms(version), in_ms, bar, " ms", remark=remark)


@contextlib.contextmanager
def _no_place(cluster: Cluster) -> Iterator[None]:
    """The lock of node3's address and all waiting places are taken."""
    directory = cluster.node_path("node1", "var/run/ganeti-ext")
    os.makedirs(directory, exist_ok=True)
    os.chmod(directory, 0o700)
    names = [f"lock-{cluster.address('node3')}", *(f"waiting-{number}" for number in range(3))]
    with contextlib.ExitStack() as stack:
        for name in names:
            file = stack.enter_context(open(f"{directory}/{name}", "a+", encoding="ascii"))
            os.chmod(file.name, 0o600)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _memory(daemons: Daemons) -> Iterator[Row]:
    """What is locked, and what a child has of its own."""
    locked = {kind: kib(daemon.pid, "VmLck") for kind, daemon in daemons.items()}
    more = float(locked["ours"] - locked["stock"])
    yield row(
        "locked by the daemon",
        f"{locked['ours']} KiB",
        f"{locked['stock']} KiB",
        Interval(more, more, more),
        LOCKED_BAR,
        " KiB",
        form=".0f",
    )
    private = {kind: [_private(daemon) for _ in range(5)] for kind, daemon in daemons.items()}
    yield row(
        "memory private to an idle child",
        f"{median(private['ours']):.0f} KiB",
        f"{median(private['stock']):.0f} KiB",
        bootstrap(private["ours"], private["stock"], ratio),
        PRIVATE_BAR,
        form=".3f",
    )


def _private(daemon: NodeDaemon) -> int:
    thread = threading.Thread(target=lambda: daemon.rpc("test_delay", 0.6))
    thread.start()
    time.sleep(0.4)
    (child,) = daemon.children()
    found = kib(child, "Private_Dirty", "smaps_rollup") + kib(child, "Private_Clean", "smaps_rollup")
    thread.join()
    return found


def _refusals(cluster: Cluster, daemon: NodeDaemon, rounds: int) -> Iterator[Row]:
    """The time of an answer must not tell why nothing ran. (With the shortest delay: it is the same for all.)"""
    nodes.set_limits(cluster, "node1", "[DEFAULT]\ndelay = 1 s\n")
    names = ["missing", "unsafe", "../forbidden"]
    found: dict[str, list[float]] = {name: [] for name in names}
    chance = random.Random(0)
    for _ in range(rounds):
        chance.shuffle(names)
        for name in names:
            answer = daemon.rpc("restricted_command", name, source="node2")
            assert answer.value == f"Executing command '{name}' failed"
            found[name].append(answer.took)
    nodes.set_limits(cluster, "node1", "")
    for name in ("unsafe", "../forbidden"):
        chance_of = rank_test(found[name], found["missing"])
        more = bootstrap(found[name], found["missing"], difference)
        yield Row(
            f"refusal of {name} beside one of a missing command",
            _ms(found[name]),
            _ms(found["missing"]),
            f"{more.value * 1000:.3f} ms [{more.low * 1000:.3f}; {more.high * 1000:.3f}]",
            f"p ≥ {SIGNIFICANT:g}",
            MISSED if chance_of < SIGNIFICANT else MET,
            f"p = {chance_of:.2g}",
        )


def _flood(
    cluster: Cluster, daemon: NodeDaemon, kind: str, clients: int, seconds: float = 0.0, delay: float = 0.0
) -> Iterator[Row]:
    """Wrong names from one candidate; what others get meanwhile. Stock's `delay` is its own, of 10 s."""
    if kind == "ours":
        nodes.set_limits(cluster, "node1", f"[DEFAULT]\ndelay = {delay:g} s\n")
    before = len(cluster.node_log("node1"))
    versions: list[float] = []
    rights: list[float] = []
    ran = 0
    children = 0
    with Flood(cluster, clients, seconds, source="node3", port=daemon.port) as flood:
        began = time.monotonic()
        while flood.goes_on:
            children = max(children, len(daemon.children()))
            versions.append(daemon.rpc("version").took)
            answer = daemon.rpc("restricted_command", "nothing", source="node2")
            rights.append(answer.took)
            ran += answer.ok
            say(f"flood of {clients}, {time.monotonic() - began:.0f} s")
            time.sleep(0.05)
        took = time.monotonic() - began
    if kind == "ours":
        nodes.set_limits(cluster, "node1", "")
    log = cluster.node_log("node1")[before:]
    verdicts = len(re.findall(r"'wrong-\d+' from \S+: refused: '/.*No such file", log))
    what = f"{clients} wrong names at once" + (f", for {seconds:g} s" if seconds else "")
    worst = max(versions)
    remark = (
        f"median {median(versions):.3f} s of {len(versions)}; up to {children} children;"
        f" {len(flood.answers)} wrong names answered in {took:.0f} s"
    )
    if kind == "ours":
        remark += f", {verdicts} of them checked"
        yield row(f"{what}: slowest `version`", f"{worst:.2f} s", "", Interval(worst, worst, worst), FLOOD_BAR, " s",
                  remark=remark)  # fmt: skip
    else:
        yield Row(f"{what}: slowest `version`", "", f"{worst:.2f} s", remark=f"stock; {remark}")
    shown = f"{ran} of {len(rights)} ran, slowest {max(rights):.2f} s"
    ours, other = (shown, "") if kind == "ours" else ("", shown)
    yield Row(
        f"{what}: right names from another candidate",
        ours,
        other,
        "",
        "all run" if kind == "ours" else "",
        ("" if kind == "stock" else MET if ran == len(rights) else MISSED),
    )


def _no_memory(cluster: Cluster, left: Sequence[int], times: int) -> Iterator[Row]:
    """How often a command runs in a group of processes whose memory others have filled."""
    if not memgroup.available():
        yield Row("commands run with no memory left", "", "", "no memory cgroup of version 1 can be written here")
        return
    ran = {kind: dict.fromkeys(left, 0) for kind in PROGRAMS}
    for kind, program in PROGRAMS.items():
        with MemoryGroup(200 * MIB) as group, contextlib.ExitStack() as stack:
            with group.inside():
                daemon = stack.enter_context(NodeDaemon(cluster, program, 1842))
            stack.callback(group.empty)
            for free in left:
                for _ in range(times):
                    say(f"{free} MiB left, {kind}")
                    group.fill(free * MIB)
                    with contextlib.suppress(OSError):
                        ran[kind][free] += daemon.rpc("restricted_command", "nothing", timeout=2).ok
                    group.empty()
                    while daemon.children():
                        time.sleep(0.02)
    total = times * len(left)
    of_each = {kind: ", ".join(f"{free} MiB {count}" for free, count in found.items()) for kind, found in ran.items()}
    yield Row(
        f"commands run of {total}, with {left[0]} to {left[-1]} MiB left",
        f"{sum(ran['ours'].values())}",
        f"{sum(ran['stock'].values())}",
        bar="more",
        verdict=MET if sum(ran["ours"].values()) > sum(ran["stock"].values()) else MISSED,
        remark=f"ours: {of_each['ours']}; stock: {of_each['stock']}",
    )


def _ms(seconds: Sequence[float]) -> str:
    return f"{median(seconds) * 1000:.2f} ms"


if __name__ == "__main__":
    from tests.bench.__main__ import main

    sys.exit(main(["noded", *sys.argv[1:]]))
