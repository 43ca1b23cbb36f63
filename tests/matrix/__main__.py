# SPDX-License-Identifier: BSD-2-Clause
"""`make matrix [RELEASE…]`: builds, installs and tests the package in each Debian release, and says what came of it.

Each release is a system of its own: kept in a cache as it came from Debian, and for the run a throw-away
copy of that, without a network. Logs are kept: build/matrix/RELEASE/STEP.log. Exit status 1 if not all was well.
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.vcluster import SAVED
from tests.matrix.table import FAILED, NOT_HAD, OK, Cell, all_well, of_tests, picked, read_tests, render
from tests.package import debian_chroot
from tests.package.debian_chroot import Chroot

TREE = Path(__file__).parents[2]
RELEASES = ("bullseye", "bookworm", "trixie", "sid")
COLUMNS = ("system", "build", "lintian", "install", "unit", "ganeti", "cluster", "demo", "package", "upgrade", "purge")
#: Columns that are some of the tests of the package, by their names.
PICKED = {"upgrade": "upgrade", "purge": "purge|remov"}
#: What of tests/cluster is run where there are a few minutes only.
FEW = ("test_unconfigured", "test_roles", "test_signin", "test_noded_commands", "test_transport")
#: What of tests/package, by the names of the tests.
FEW_OF_PACKAGE = "(install or upgrade or purge or remov or restart) and not next_release and not killed"

LOGS = TREE / "build" / "matrix"
INSIDE = "/srv/ganeti-ext"
PYTEST = "--quiet --tb=short -p no:cacheprovider"
TIME_LIMIT = 3600  # seconds, for a step

# As `make test` finds it on a machine; the memory controller is for the tests of a node without memory.
PREPARE = """
mountpoint -q /sys || mount -t sysfs sysfs /sys
mountpoint -q /dev/pts || mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /sys/fs/cgroup
mkdir /sys/fs/cgroup/memory
mount -t cgroup -o memory cgroup /sys/fs/cgroup/memory || true
"""
CAN_MAKE_CLUSTERS = "import OpenSSL.crypto; OpenSSL.crypto.X509Req"
NO_CLUSTER = "for its Ganeti needs OpenSSL.crypto.X509Req, to make one, add nodes and renew certificates"


def in_turn(day: datetime.date) -> list[str]:
    """The releases but bookworm, where `make test` runs itself: first the one whose turn it is on that day."""
    others = [release for release in RELEASES if release != "bookworm"]
    first = day.toordinal() % len(others)
    return others[first:] + others[:first]


class Release:
    """The steps in one release; `cells` has what came of each."""

    def __init__(self, name: str, few: bool) -> None:
        self.name = name
        self.cells: dict[str, Cell] = {}
        self._few = few
        self._env = dict(debian_chroot.ENVIRONMENT)  # of what is run inside
        self._logs = LOGS / name
        shutil.rmtree(self._logs, ignore_errors=True)
        self._logs.mkdir(parents=True)

    def run(self) -> None:
        """Take every step. What a failed one leaves impossible is not run."""
        started = time.monotonic()
        try:
            base = debian_chroot.tools_system(self.name)
        except (subprocess.CalledProcessError, RuntimeError) as err:
            self._enter("system", Cell(FAILED, time.monotonic() - started, [f"cannot be had: {err}"]))
            return
        self._enter("system", Cell(OK, time.monotonic() - started))
        with Chroot(base) as chroot:
            self._inside(chroot)
        if self.cells["build"].outcome == OK:
            # From outside: these make systems of the release themselves.
            command = ["setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "pytest", *PYTEST.split()]
            report = self._logs / "package.xml"
            env = {**os.environ, "GANETI_EXT_SUITE": self.name}
            few = ["-k", FEW_OF_PACKAGE] if self._few else []
            self._step("package", [*command, f"--junit-xml={report}", *few, "tests/package"], env, report)
            for column, pattern in PICKED.items() if report.exists() else ():
                self._enter(column, picked(read_tests(report), pattern))

    def _inside(self, chroot: Chroot) -> None:
        chroot.sh(PREPARE)
        chroot.put_tree(TREE, INSIDE)
        if not self._shell(chroot, "build", "debian/build-deb build/deb"):
            return
        self._shell(chroot, "lintian", "debian/check-deb build/deb")
        if not self._shell(chroot, "install", "dpkg --install build/deb/*.deb"):
            return
        self._tests(chroot, "unit", "tests/unit")
        self._tests(chroot, "ganeti", "tests/ganeti")
        own_clusters = chroot.run("python3", "-c", CAN_MAKE_CLUSTERS, check=False).returncode == 0
        if self._few and not own_clusters:  # those of trixie take some minutes to make
            self._enter("cluster", Cell(NOT_HAD, notes=[f"{NOT_HAD} in a few minutes: a cluster, {NO_CLUSTER}"]))
            return
        if not own_clusters:
            shutil.copytree(saved_clusters(), chroot.root / "srv/saved")
            self._env[SAVED] = "/srv/saved"
        self._tests(
            chroot, "cluster", *([f"tests/cluster/{name}.py" for name in FEW] if self._few else ["tests/cluster"])
        )
        if not own_clusters:
            self.cells["cluster"] = self.cells["cluster"].with_note(
                f"{NOT_HAD}: its own cluster, {NO_CLUSTER}: trixie's"
            )
        if not self._few:
            self._shell(chroot, "demo", "/usr/bin/python3 -m tests.demo")

    def _shell(self, chroot: Chroot, name: str, script: str, report: Path | None = None) -> bool:
        command = chroot.command("sh", "-ec", f"cd {INSIDE}; {script}")
        return self._step(name, command, self._env, report)

    def _tests(self, chroot: Chroot, name: str, *paths: str) -> None:
        inside = f"{INSIDE}/build/{name}.xml"
        report = chroot.root / inside.lstrip("/")
        script = f"/usr/bin/python3 -m pytest {PYTEST} --junit-xml={inside} {' '.join(paths)}"
        self._shell(chroot, name, script, report)
        if report.exists():
            shutil.copy(report, self._logs)

    def _step(self, name: str, command: Sequence[str], env: dict[str, str], report: Path | None = None) -> bool:
        """Run a command into its log; whether it ended well. With a report of tests, the cell is theirs."""
        started = time.monotonic()
        log = self._logs / f"{name}.log"
        with log.open("w") as stream:
            try:
                status = subprocess.run(
                    command,
                    env=env,
                    cwd=TREE,
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                    check=False,
                    timeout=TIME_LIMIT,
                ).returncode
            except subprocess.TimeoutExpired:
                stream.write(f"\nended after {TIME_LIMIT} s\n")
                status = 1
        cell = of_tests(read_tests(report)) if report and report.exists() else Cell(OK)
        if status and cell.outcome != FAILED:
            lines = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
            telling = [line for line in lines if re.search(r"^[EW]: |\berror\b|\[WRONG\]", line, re.IGNORECASE)]
            cell = Cell(FAILED, notes=[*cell.notes, (telling or lines[-1:])[0]])
        self._enter(name, cell._replace(seconds=time.monotonic() - started))
        return not status

    def _enter(self, name: str, cell: Cell) -> None:
        self.cells[name] = cell
        print(f"{self.name}: {name}: {cell}", flush=True)


def saved_clusters() -> Path:
    """Clusters that trixie's Ganeti made, for a release whose own cannot make one."""
    saved = LOGS / "trixie-clusters"
    shutil.rmtree(saved, ignore_errors=True)
    with Chroot(debian_chroot.tools_system("trixie")) as chroot:
        chroot.sh(PREPARE)
        chroot.put_tree(TREE, INSIDE)
        chroot.sh(f"cd {INSIDE}; python3 tests/cluster/vcluster.py save /srv/saved")
        shutil.copytree(chroot.root / "srv/saved", saved)
    return saved


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; the exit status."""
    parser = argparse.ArgumentParser(prog="tests.matrix", description="The package in each Debian release.")
    parser.add_argument("--rebuild", action="store_true", help="make the systems anew")
    parser.add_argument("--few", action="store_true", help="some of the cluster's tests only")
    parser.add_argument("--in-turn", action="store_true", help="one: today's, or the next one that can be had")
    parser.add_argument("releases", nargs="*", metavar="RELEASE", help=f"of {', '.join(RELEASES)}; all if left out")
    options = parser.parse_args(argv)
    names = in_turn(datetime.date.today()) if options.in_turn else options.releases or RELEASES
    unknown = set(names) - set(RELEASES)
    if unknown:
        parser.error(f"unknown release {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # or the throw-away copies would not be thrown away
    columns = [column for column in COLUMNS if not (options.few and column == "demo")]
    rows: dict[str, dict[str, Cell]] = {}
    for name in names:
        if options.rebuild:
            debian_chroot.remove(name)
        release = Release(name, options.few)
        rows[name] = release.cells
        release.run()
        if options.in_turn and release.cells["system"].outcome == OK:
            break
    print(render(columns, rows))
    return 0 if all_well(columns, [rows[name]] if options.in_turn else rows.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
