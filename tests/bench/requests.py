# SPDX-License-Identifier: BSD-2-Clause
"""What requests cost: ours beside Ganeti's own, a limited user beside one that is not, refused beside allowed.

On a real cluster of 4 and of 1,000 instances, Ganeti's daemon and ours run at once. Requests are sent one after the
other in an order drawn anew for each round, so that whatever else the machine does meets all of them alike. Of each the
latency is measured and, to the nanosecond, the CPU time of the daemon with its child, and of luxid.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from tests.bench.large import OTHER, SCOPES, TENANT, Sample, add_jobs, clear_jobs, paused, world
from tests.bench.report import (
    MET,
    MISSED,
    Interval,
    Row,
    bootstrap,
    difference,
    rank_test,
    ratio,
    row,
)
from tests.bench.sampling import Case, Found, Sampler, all_cpus, cpus, in_ms, latencies, ms

MORE_BAR = 1.5  # ms that the request of a limited user may cost more
STOCK_BAR, STOCK_CPU_BAR = 0.1, 1.02
BULK_BAR, BULK_CPU_BAR = 0.5, 0.25
#: A difference that is called one although there is none, in so many comparisons.
SIGNIFICANT = 0.01


#: What is asked of one instance.
ON_INSTANCE = {
    "read": ("GET", "/2/instances/{}"),
    "tags": ("GET", "/2/instances/{}/tags"),
    "reboot": ("POST", "/2/instances/{}/reboot?dry-run=1"),
    "add tag": ("PUT", "/2/instances/{}/tags?tag=x&dry-run=1"),
}
OWN, FOREIGN = f"vm1.{TENANT}", f"vm1.{OTHER}"
MISSING_INSIDE, MISSING = f"none.{TENANT}", f"none.{OTHER}"


class Bench(Sampler):
    """Makes rows of what it asks."""

    # -- rows

    def _latency_more(self, what: str, found: Found, ours: Case, other: Case, bar: float) -> Row:
        mine, theirs = latencies(found[ours]), latencies(found[other])
        more = in_ms(bootstrap(mine, theirs, difference))
        return row(
            f"{self._size}: {what}", ms(mine), ms(theirs), more, bar, " ms", remark=_cpu_remark(found, ours, other)
        )

    def _ratio(self, what: str, mine: Sequence[float], theirs: Sequence[float], bar: float) -> Row:
        return row(f"{self._size}: {what}", ms(mine), ms(theirs), bootstrap(mine, theirs, ratio), bar, form=".3f")

    def beside_stock(self, rounds: int) -> list[Row]:
        """A `write` user, for whom nothing of ours is but the look at him."""
        cases = {
            (server, what): Case(server, "admin", method, path.format(OWN))
            for server in ("stock", "ours")
            for what, (method, path) in (*ON_INSTANCE.items(), ("list", ("GET", "/2/instances")))
        }
        rows = []
        with paused(self._cluster):
            found = self.sample(cases.values(), rounds, submits=True)
        for what in (*ON_INSTANCE, "list"):
            ours, stock = cases["ours", what], cases["stock", what]
            rows.append(self._latency_more(f"write user, {what} beside stock: latency", found, ours, stock, STOCK_BAR))
            cpu = f"write user, {what} beside stock: CPU"
            rows.append(self._ratio(cpu, cpus(found[ours]), cpus(found[stock]), STOCK_CPU_BAR))
        return rows

    def limited(self, rounds: int) -> list[Row]:
        """Limited users beside one that is not; refused beside allowed."""
        cases = {
            (user, what): Case("ours", user, method, path.format(OWN))
            for user in ("admin", *SCOPES)
            for what, (method, path) in ON_INSTANCE.items()
        }
        method, path = ON_INSTANCE["reboot"]
        refused = {
            (user, name): Case("ours", user, method, path.format(name), 404)
            for user in SCOPES
            for name in (FOREIGN, MISSING_INSIDE)
        }
        rows = []
        with paused(self._cluster):
            found = self.sample([*cases.values(), *refused.values()], rounds, submits=True)
        for user in SCOPES:
            for what in ON_INSTANCE:
                ours, other = cases[user, what], cases["admin", what]
                text = f"{user}, {what}, beside write user"
                rows.append(self._latency_more(f"{text}: latency", found, ours, other, MORE_BAR))
                mine, theirs = all_cpus(found[ours]), all_cpus(found[other])
                more = in_ms(bootstrap(mine, theirs, difference))
                what_of = f"{self._size}: {text}: CPU with luxid's"
                rows.append(row(what_of, ms(mine), ms(theirs), more, MORE_BAR, " ms"))
        for (user, name), case in refused.items():
            text = f"{user}, refused reboot of {name.removesuffix('.example.com')} beside allowed: latency"
            rows.append(self._latency_more(text, found, case, cases[user, "reboot"], 0.0))
        return rows

    def bulk(self, rounds: int) -> list[Row]:
        """A tenant's list beside the whole."""
        path = "/2/instances?bulk=1"
        cases = {("ours", user): Case("ours", user, "GET", path) for user in ("admin", *SCOPES)}
        cases["stock", "admin"] = Case("stock", "admin", "GET", path)
        found = self.sample(cases.values(), rounds)
        full, rows = found[cases["ours", "admin"]], []
        for user in SCOPES:
            own = found[cases["ours", user]]
            rows.append(self._ratio(f"bulk list, {user}: latency", latencies(own), latencies(full), BULK_BAR))
            rows.append(self._ratio(f"bulk list, {user}: CPU", cpus(own), cpus(full), BULK_CPU_BAR))
        stock = found[cases["stock", "admin"]]
        rows.append(
            self._latency_more(
                "bulk list, write user beside stock: latency",
                found,
                cases["ours", "admin"],
                cases["stock", "admin"],
                STOCK_BAR,
            )
        )
        rows.append(self._ratio("bulk list, write user beside stock: CPU", cpus(full), cpus(stock), STOCK_CPU_BAR))
        return rows

    def jobs(self, count: int, rounds: int) -> list[Row]:
        """The list of jobs, of which half are the user's own; another's job beside none."""
        clear_jobs(self._cluster)
        others = add_jobs(self._cluster, {"named": count // 2, "colleague": count // 2})["colleague"]
        for server in self._running.values():
            server.find_luxid()
        rows = []
        cases = {
            (user, bulk): Case("ours", user, "GET", f"/2/jobs{bulk}")
            for user in ("admin", "named")
            for bulk in ("", "?bulk=1")
        }
        found = self.sample(cases.values(), rounds)
        for bulk, what in (("", "list"), ("?bulk=1", "bulk list")):
            ours, other = cases["named", bulk], cases["admin", bulk]
            more = bootstrap(latencies(found[ours]), latencies(found[other]), ratio)
            rows.append(
                row(
                    f"{count:,} jobs: {what}, named beside write user",
                    ms(latencies(found[ours])),
                    ms(latencies(found[other])),
                    more,
                    remark=_cpu_remark(found, ours, other),
                )
            )
        job = others[len(others) // 2]
        pairs = [
            (
                "another's job",
                Case("ours", "named", "GET", f"/2/jobs/{job}", 404),
                Case("ours", "named", "GET", "/2/jobs/999999", 404),
            ),
            (
                "cancelling it",
                Case("ours", "named", "DELETE", f"/2/jobs/{job}", 404),
                Case("ours", "named", "DELETE", "/2/jobs/999999", 404),
            ),
        ]
        rows += self._same(pairs, rounds * 10)
        clear_jobs(self._cluster)
        return rows

    def same_404(self, rounds: int) -> list[Row]:
        """What is outside beside what is not there: the time must not tell."""
        pairs = []
        for what in ("read", "reboot"):
            method, path = ON_INSTANCE[what]

            def case(user: str, name: str) -> Case:
                return Case("ours", user, method, path.format(name), 404)  # noqa: B023

            pairs.append((f"outside by name, {what}", case("named", FOREIGN), case("named", MISSING)))
            for user in ("tagged", "grouped"):
                pairs.append((f"outside, {user}, {what}", case(user, FOREIGN), case(user, MISSING)))
        return self._same(pairs, rounds)

    def _same(self, pairs: Sequence[tuple[str, Case, Case]], rounds: int) -> list[Row]:
        control = pairs[0][2]
        cases = [case for _, there, missing in pairs for case in (there, missing)]
        again = control._replace(mark="again")
        found = self.sample([*cases, again], rounds)
        rows = [
            self._compare(f"404 {what}: there beside missing", found[there], found[missing])
            for what, there, missing in pairs
        ]
        rows.append(self._compare("404, a request beside itself (control)", found[again], found[control], control=True))
        return rows

    def _compare(self, what: str, one: Sequence[Sample], two: Sequence[Sample], control: bool = False) -> Row:
        mine, theirs = latencies(one), latencies(two)
        chance = rank_test(mine, theirs)
        return Row(
            f"{self._size}: {what}",
            ms(mine),
            ms(theirs),
            _shown(bootstrap(mine, theirs, difference), "ms", 1000),
            "" if control else f"p ≥ {SIGNIFICANT:g}",
            "" if control else MISSED if chance < SIGNIFICANT else MET,
            f"p = {chance:.2g}; CPU {_shown(bootstrap(cpus(one), cpus(two), difference), 'ms', 1000)},"
            f" p = {rank_test(cpus(one), cpus(two)):.2g}",
        )


def _shown(found: Interval, unit: str, scale: float = 1.0) -> str:
    return f"{found.value * scale:.3f} {unit} [{found.low * scale:.3f}; {found.high * scale:.3f}]"


def _cpu_remark(found: Found, ours: Case, other: Case) -> str:
    mine, theirs = cpus(found[ours]), cpus(found[other])
    return f"CPU {ms(mine)} and {ms(theirs)}, {len(mine)} times"


def measure(tiny: bool = False) -> Iterator[Row]:
    """All rows; `tiny` only shows that everything runs."""
    here = world()
    bench = Bench(here.cluster, here.servers, here.resize(*((2, 2) if tiny else (50, 950))))
    yield from bench.beside_stock(2 if tiny else 300)
    yield from bench.limited(2 if tiny else 150)
    yield from bench.bulk(2 if tiny else 30)
    yield from bench.same_404(2 if tiny else 300)
    yield from bench.jobs(10 if tiny else 1000, 2 if tiny else 30)


if __name__ == "__main__":
    from tests.bench.__main__ import main

    sys.exit(main(["requests", *sys.argv[1:]]))
