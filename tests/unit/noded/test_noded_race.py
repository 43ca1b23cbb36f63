# SPDX-License-Identifier: BSD-2-Clause
"""A local user who changes files and links between the check and the use, as fast as he can.

For some seconds; `GANETI_EXT_RACE_CALLS=100000` (in the environment) makes so many calls instead.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from ganeti import backend

from ganeti_ext.noded import Refused, run, verify

NOBODY = 65534
SECONDS = 3
CALLS = int(os.environ.get("GANETI_EXT_RACE_CALLS", "0"))

#: Does to each name what its user is able to, over and over.
FLIP = """
import itertools, os, shutil, sys
base, his = sys.argv[1:]
os.chdir(his)

def link(target, name):
    os.symlink(target, "new")
    os.rename("new", name)

def copy(name):
    shutil.copy("evil", "new")
    os.rename("new", name)

def attempt(act, *arguments):
    try:
        act(*arguments)
    except OSError:
        pass

print("ready", flush=True)
for number in itertools.count():
    # a file that is root's, or his own
    link(base + "/programs/good", "tool")
    copy("tool")
    # a directory that is root's, or his own
    attempt(os.rename, "directory", "own-directory")
    attempt(os.symlink, base + "/programs", "directory")
    attempt(os.unlink, "directory")
    attempt(os.rename, "own-directory", "directory")
    # and what he may in a sticky directory
    for name in ("tool", "link", "gone"):
        attempt(os.unlink, base + "/sticky/" + name)
        attempt(shutil.copy, "evil", base + "/sticky/" + name)
        attempt(os.link, base + "/programs/good", base + "/sticky/" + name)
        attempt(os.symlink, base + "/programs/good", base + "/sticky/" + name)
    attempt(os.rename, base + "/sticky/roots", base + "/sticky/moved")
"""


class Place:
    """Commands of root's, and what a user has a hand in on the way to them; he flips it while it is open."""

    def __init__(self, public: Path) -> None:
        self.commands = public / "commands"
        #: There as soon as a program of his has been run.
        self.marker = self.commands / "evil-ran"
        for name in ("commands", "programs", "his", "his/directory", "sticky", "sticky/roots"):
            (public / name).mkdir(mode=0o755)
        good = public / "programs" / "good"
        good.write_text("#!/bin/sh\necho good\n")
        good.chmod(0o755)
        evil = public / "his" / "evil"
        evil.write_text(f"#!/bin/sh\ntouch {self.marker}\necho evil\n")
        evil.chmod(0o755)
        shutil.copy(good, public / "sticky" / "roots" / "tool")
        shutil.copy(good, public / "sticky" / "tool")
        (public / "sticky" / "link").symlink_to(good)
        (public / "sticky").chmod(0o1777)
        shutil.copy(evil, public / "his" / "directory" / "good")
        for path in [public / "his", *(public / "his").rglob("*")]:
            os.chown(path, NOBODY, NOBODY)
        self.links = {
            "right": good,
            "roots": public / "sticky" / "roots" / "tool",
            "flipped": public / "his" / "tool",
            "below": public / "his" / "directory" / "good",
            "sticky": public / "sticky" / "tool",
            "sticky-link": public / "sticky" / "link",
            "sticky-gone": public / "sticky" / "gone",
        }
        for name, target in self.links.items():
            (self.commands / name).symlink_to(target)
        self._flip = ["/usr/bin/python3", "-c", FLIP, str(public), str(public / "his")]

    @contextlib.contextmanager
    def flipped(self) -> Iterator[None]:
        """He is at work meanwhile, and has not given up at the end."""
        with subprocess.Popen(
            self._flip, user=NOBODY, group=NOBODY, extra_groups=[], stdout=subprocess.PIPE
        ) as flipper:
            try:
                assert flipper.stdout is not None
                assert flipper.stdout.readline() == b"ready\n"
                yield
                assert flipper.poll() is None
            finally:
                flipper.kill()


def test_nothing_of_his_is_run(public: Path) -> None:
    place = Place(public)
    accepted: dict[str, int] = dict.fromkeys(place.links, 0)
    owners = set()  # of what a check by path alone would have seen
    calls = 0
    end = time.monotonic() + SECONDS
    with place.flipped():
        while calls < CALLS if CALLS else time.monotonic() < end:
            with contextlib.suppress(OSError):
                owners.add((place.commands / "flipped").stat().st_uid)
            for name in place.links:
                calls += 1
                try:
                    command = verify.verify(str(place.commands), name)
                except (Refused, OSError):
                    continue
                accepted[name] += 1
                if accepted[name] % 50 == 1:
                    result = run.collect(run.start(command, name))
                    assert result == run.Result("good\n", None)
    assert not place.marker.exists()
    assert owners == {0, NOBODY}  # so there was a race to be lost
    assert calls > 1000
    assert {name for name in place.links if accepted[name]} == {"right", "roots"}
    assert accepted["right"] == accepted["roots"] == calls // len(place.links)
    print(f"{calls} calls, {sum(accepted.values())} accepted, {NOBODY}'s program was not run")


def test_ganetis_own_function_loses_the_race(public: Path, tmp_path: Path) -> None:
    """So the harness sees it."""
    place = Place(public)
    calls = 0
    patience = time.monotonic() + 120
    with place.flipped():
        while not place.marker.exists():
            assert time.monotonic() < patience
            calls += 1
            with contextlib.suppress(backend.RPCFail):
                backend.RunRestrictedCmd(
                    "flipped",
                    _lock_file=str(tmp_path / "lock"),
                    _path=str(place.commands),
                    _sleep_fn=lambda _: None,
                    _enabled=True,
                )
    print(f"Ganeti's own function ran {NOBODY}'s program as root after {calls} calls")
