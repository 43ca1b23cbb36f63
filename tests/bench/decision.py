# SPDX-License-Identifier: BSD-2-Clause
"""What a decision takes, beside other policy engines on the same policy, and what loading takes.

All by CPU time, each engine in a process of its own, one after the other in one run.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ganeti_ext import compat
from ganeti_ext.policy.accounts import Account, account_of, resolve
from ganeti_ext.policy.decision import decide
from ganeti_ext.policy.loader import load_policy
from ganeti_ext.policy.model import Policy, Target
from tests.bench.engines import PERMISSIONS, resident
from tests.bench.progress import say
from tests.bench.report import Interval, Row, row
from tests.bench.timing import Timing, timed

ROOT = Path(__file__).parents[2]

#: Where `make bench` installs the other engines.
VENV = ROOT / "build" / "bench" / "venv" / "bin" / "python"

#: What the floor took on the machine on which the bars were set, in µs (`facts.md`).
FLOOR_THERE = 0.2

DECISION_BAR = 2.0
TEN_ROLES_BAR = 5.0
LOAD_BAR = 100.0
MEMORY_BAR = 15.0

#: One role of a hundred, with everything that a role has.
ROLE = """\
  role{number}:
    description: Runs the instances below t{number}.example.com
    permissions: ["@operator", instances.create, instances.modify, instances.remove, tags.set]
    scope:
      instances: {{name: "*.t{number}.example.com"}}
      nodes: {{group: default}}
      networks: {{name: [net{number}]}}
    parameters:
      preset: restricted
      os_type: [noop, "debootstrap+*"]
      beparams.maxmem: {{max: 8G}}
      disks.size: {{max: 100G}}
    tags: ["tenant:{{user}}"]
    quota: {{instances: 10, vcpus: 32, memory: 64G, disk: 1T}}
"""


def policy_text(roles: int) -> str:
    """A policy of so many roles."""
    return "version: 1\nroles:\n" + "".join(ROLE.format(number=number) for number in range(roles))


def interval(timing: Timing, scale: float = 1e6) -> Interval:
    """The median of the batches, and the middle half of them."""
    ordered = sorted(timing.batches)
    count = len(ordered)
    return Interval(timing.median * scale, ordered[count // 4] * scale, ordered[3 * count // 4] * scale)


# --- decisions ---------------------------------------------------------------------------


def one_role(count: int, seconds: float) -> Timing:
    """An allowed reboot, with `count` roles and users loaded."""
    listed = ", ".join(PERMISSIONS)
    text = "version: 1\nroles:\n" + "".join(
        f'  r{number}:\n    permissions: [{listed}]\n    scope: {{instances: {{name: "*.t{number}.example.com"}}}}\n'
        for number in range(count)
    )
    policy = load_policy(text.encode(), "policy")
    accounts = [_account(f"user{number}", [f"@r{number}"], policy) for number in range(count)]
    number = count // 2
    account, needed = accounts[number], ("instances.reboot",)
    targets = (Target("instance", f"web1.t{number}.example.com"),)
    assert decide(account, needed, targets).allowed
    return timed(lambda: decide(account, needed, targets), seconds)


def ten_roles(seconds: float) -> Timing:
    """A modification of three parameters, granted by the last of a user's ten roles."""
    policy = load_policy(policy_text(10).encode(), "policy")
    account = _account("user", [f"@role{number}" for number in range(10)], policy)
    last = account.roles("instances.modify")[-1].name.replace("role", "t")
    targets = (Target("instance", f"web1.{last}.example.com", groups=frozenset(["default"])),)
    values = (("beparams.maxmem", 4096), ("beparams.minmem", 1024), ("beparams.vcpus", 2))
    needed = ("instances.modify",)
    assert decide(account, needed, targets, values).allowed
    assert not decide(account, needed, targets, (("beparams.maxmem", 9000),)).allowed
    return timed(lambda: decide(account, needed, targets, values), seconds)


def _account(user: str, tokens: list[str], policy: Policy) -> Account:
    account = account_of(user, resolve(tokens, policy), policy)
    assert account is not None
    return account


def decisions(seconds: float, largest: int) -> list[Row]:
    """The rows about one decision of ours."""
    floor = engine("floor", 10, seconds, sys.executable)["allow"] * 1e6
    there = FLOOR_THERE / floor

    def beside(found: Interval) -> str:
        return f"where the bar was set, by the floor's {FLOOR_THERE} µs there: {found.value * there:.1f} µs"

    few, many = one_role(10, seconds), one_role(largest, seconds)
    rows = []
    for count, timing in ((10, few), (largest, many)):
        found = interval(timing)
        rows.append(
            row(
                f"a decision, {count:,} roles and users",
                f"{found.value:.2f} µs",
                f"floor {floor:.2f} µs",
                found,
                DECISION_BAR,
                " µs",
                remark=beside(found),
            )
        )
    ratios = sorted(large / small for large, small in zip(sorted(many.batches), sorted(few.batches)))
    found = Interval(many.median / few.median, ratios[len(ratios) // 4], ratios[3 * len(ratios) // 4])
    rows.append(
        row(f"{largest:,} roles beside 10", f"{many.median * 1e6:.2f} µs", f"{few.median * 1e6:.2f} µs", found, 1.1)
    )
    found = interval(ten_roles(seconds))
    rows.append(
        row(
            "with parameters, the last of ten roles",
            f"{found.value:.2f} µs",
            f"floor {floor:.2f} µs",
            found,
            TEN_ROLES_BAR,
            " µs",
            remark=beside(found),
        )
    )
    return rows


# --- other engines -----------------------------------------------------------------------


def engine(name: str, count: int, seconds: float, python: str) -> dict[str, Any]:
    """One engine in a process of its own. Raises subprocess.CalledProcessError."""
    command = [python, "-m", "tests.bench.engines", name, str(count), str(seconds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def engines(seconds: float, sizes: tuple[int, ...]) -> list[Row]:
    """A row for each engine and size, beside ours in the same run."""
    rows = []
    for count in sizes:
        say(f"other engines, {count:,} roles and users")
        ours = engine("ours", count, seconds, sys.executable)
        asked = engine("ours_request", count, seconds, sys.executable)
        rows.append(
            Row(
                f"{count:,} roles and users: ours",
                _figures(ours),
                _figures(asked),
                remark="beside it: user and object made anew, as in a request",
            )
        )
        for name in ("pycasbin", "oslo.policy", "cedarpy", "vakt"):
            what = f"{count:,} roles and users: {name}"
            try:
                other = engine(name, count, seconds, str(VENV))
            except (OSError, subprocess.CalledProcessError) as err:
                text = (getattr(err, "stderr", None) or str(err)).strip().splitlines()[-1]
                rows.append(Row(what, _figures(ours), "not measured", remark=text[:80]))
                continue
            rows.append(Row(what, _figures(ours), _figures(other), f"{ours['allow'] / other['allow']:.4f} of its time"))
    return rows


def _figures(found: dict[str, Any]) -> str:
    return (
        f"{found['allow'] * 1e6:,.1f} / {found['deny'] * 1e6:,.1f} µs,"
        f" load {found['load'] * 1000:,.0f} ms, {found['memory']:.0f} MiB"
    )


# --- loading -----------------------------------------------------------------------------


def load(users: int, roles: int, traced: bool) -> dict[str, float]:
    """Loads users and policy as the daemon does at its start: CPU seconds of both steps, and MiB.

    The first step is Ganeti's own reading of the users file.
    """
    compat.put_ganeti_first()
    from ganeti.http import auth

    import ganeti_ext.policy.loader
    import ganeti_ext.policy.selftest  # noqa: F401  both of which a daemon with a policy has anyway
    from ganeti_ext.rapi.access import AccessControl

    lines = "".join(f"user{number} {{HA1}}{number:032x} @role{number % roles}\n" for number in range(users))
    with tempfile.TemporaryDirectory() as directory:
        policy_file = os.path.join(directory, "policy.yaml")
        with open(policy_file, "w", encoding="utf-8") as stream:
            stream.write(policy_text(roles))
        os.chmod(policy_file, 0o644)
        control = AccessControl(policy_file, os.path.join(directory, "copy"), os.geteuid())
        gc.collect()
        began = time.process_time()
        known = auth.ParsePasswordFile(lines)
        parsed = time.process_time() - began
        gc.collect()
        before = resident()
        if traced:
            tracemalloc.start()
        began = time.process_time()
        control.resolve_users(known)
        control.start()
        taken = time.process_time() - began
        gc.collect()
        after, kept = resident(), tracemalloc.get_traced_memory()[0] / 2**20 if traced else 0.0
    user = control.user("user7")
    assert user.grants.roles and control.active and control.account_of(user) is not None
    return {"parse": parsed, "load": taken, "resident": after - before, "traced": kept}


def _load_in_process(users: int, roles: int, traced: bool) -> dict[str, float]:
    code = f"import json; from tests.bench.decision import load; print(json.dumps(load({users}, {roles}, {traced})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def loading(users: int, roles: int, times: int) -> list[Row]:
    """The rows about loading, each time in a new process."""
    runs = [_load_in_process(users, roles, False) for _ in range(times)]
    traced = _load_in_process(users, roles, True)

    def of(value: Callable[[dict[str, float]], float]) -> Interval:
        ordered = sorted(map(value, runs))
        return Interval(ordered[len(ordered) // 2], ordered[len(ordered) // 4], ordered[3 * len(ordered) // 4])

    taken, resident_more = of(lambda run: run["load"] * 1000), of(lambda run: run["resident"])
    parse = of(lambda run: run["parse"] * 1000)
    what = f"{users:,} users and {roles} roles load"
    return [
        row(
            f"{what}: CPU",
            f"{taken.value:.0f} ms",
            f"Ganeti's own reading: {parse.value:.0f} ms",
            taken,
            LOAD_BAR,
            " ms",
            ".0f",
            f"with Ganeti's own {taken.value + parse.value:.0f} ms",
        ),
        row(
            f"{what}: memory",
            f"{resident_more.value:.1f} MiB",
            f"kept, by tracemalloc: {traced['traced']:.1f} MiB",
            resident_more,
            MEMORY_BAR,
            " MiB",
            ".1f",
        ),
    ]


def measure(tiny: bool = False) -> Iterator[Row]:
    """All rows; `tiny` only shows that everything runs."""
    yield from decisions(0.01 if tiny else 0.5, 20 if tiny else 10_000)
    yield from loading(20, 2, 1) if tiny else loading(10_000, 100, 5)
    yield from engines(0.01, (3,)) if tiny else engines(0.3, (10, 1_000, 10_000))


if __name__ == "__main__":
    from tests.bench.__main__ import main

    sys.exit(main(["decision", *sys.argv[1:]]))
