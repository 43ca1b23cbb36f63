# SPDX-License-Identifier: BSD-2-Clause
"""What can go wrong while the package comes or goes: a node daemon is there all the time, and one command mends it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.package.debian_chroot import ENVIRONMENT, Chroot, Watch
from tests.package.test_package import (
    LINKS,
    OURS,
    STOCK,
    Variant,
    assert_ours,
    assert_stock,
    distrib,
    diversions,
    fails,
    install,
    links,
)

# Stands before the commands that the maintainer scripts run, and does something before the one of that number.
MEDDLER = """#!/bin/sh
count=$(($(cat /root/count) + 1))
echo $count > /root/count
[ $count != $(cat /root/number) ] || . /root/deed
PATH=${PATH#*:} exec ${0##*/} "$@"
"""
COMMANDS = ("cp", "dpkg-divert", "ln", "mv", "readlink", "rm")

# As when the power fails: nobody is left to notice.
KILL = """
pid=$PPID victims=$PPID
while [ $(cat /proc/$pid/comm) != dpkg ]; do
    pid=$(sed -n 's/^PPid:\t//p' /proc/$pid/status)
    victims="$pid $victims"
done
kill -KILL $victims
exit
"""
# Neither a byte nor a name has a place any more.
FILL = """
cat /dev/zero > /full 2> /dev/null
name=0
while (: > /full$name) 2> /dev/null; do name=$((name + 1)); done
"""


def mount(chroot: Chroot, *argv: str) -> None:
    subprocess.run([*chroot.enter(), "mount", *argv], check=True)


def meddle(chroot: Chroot, deed: str) -> None:
    """Put the meddler into place."""
    mount(chroot, "-t", "tmpfs", "tmpfs", "/mnt/root/root")  # where there is always room
    chroot.write("/root/deed", deed)
    for command in COMMANDS:
        chroot.write(f"/root/bin/{command}", MEDDLER, 0o755)
    for command in ("py3clean", "py3compile"):  # take most of the time and do nothing that matters here
        chroot.write(f"/root/bin/{command}", "#!/bin/sh\n", 0o755)


def stopped_at(chroot: Chroot, number: int, *argv: str) -> bool:
    """Run dpkg, with the deed done before command `number` of the maintainer scripts; whether there was one."""
    chroot.sh(f"echo 0 > /root/count; echo {number} > /root/number")
    done = chroot.run(*argv, check=False, PATH=f"/root/bin:{ENVIRONMENT['PATH']}")
    chroot.sh("rm -f /full*")
    with (chroot.root / "root/said").open("a") as stream:
        stream.write(done.stderr)
    return int(chroot.sh("cat /root/count")) >= number


def run(chroot: Chroot, *argv: str) -> None:
    """Run dpkg undisturbed."""
    chroot.sh("echo 0 > /root/count; echo 0 > /root/number")
    chroot.run(*argv, PATH=f"/root/bin:{ENVIRONMENT['PATH']}")


def status(chroot: Chroot) -> str:
    """What dpkg says of the package, e.g. "installed" or "half-configured"."""
    return chroot.sh("dpkg-query --show --showformat '${db:Status-Status}' ganeti-ext")


@pytest.mark.parametrize("deed", [KILL, FILL], ids=["killed", "disk full"])
def test_stopped_at_each_step(chroot: Chroot, deb: Path, variant: Variant, deed: str) -> None:
    """Before each command of each maintainer script; then one command of dpkg mends it."""
    meddle(chroot, deed)
    package, newer = chroot.put(deb), chroot.put(variant("9.0"))
    chroot.run("dpkg", "--unpack", package)
    # Almost full from the start, so that it is quickly done.
    used = subprocess.check_output([*chroot.enter(), "df", "--output=used,iused", "/mnt"], text=True).split()[-2:]
    mount(chroot, "-o", f"remount,size={int(used[0]) + 16000}K,nr_inodes={int(used[1]) + 600}", "/mnt")
    configured, upgraded, removed = 0, 0, 0
    with Watch(chroot, *LINKS) as watch:
        while stopped_at(chroot, configured + 1, "dpkg", "--configure", "ganeti-ext"):
            configured += 1
            run(chroot, "dpkg", "--remove", "ganeti-ext")
            assert_stock(chroot)
            run(chroot, "dpkg", "--unpack", package)
            assert stopped_at(chroot, configured, "dpkg", "--configure", "ganeti-ext")
            run(chroot, "dpkg", "--configure", "--pending")
            assert_ours(chroot)
            run(chroot, "dpkg", "--remove", "ganeti-ext")
            run(chroot, "dpkg", "--unpack", package)
        assert_ours(chroot)
        while stopped_at(chroot, removed + 1, "dpkg", "--remove", "ganeti-ext"):
            removed += 1
            if status(chroot) == "half-configured":
                # Whoever has changed his mind:
                run(chroot, "dpkg", "--configure", "ganeti-ext")
                assert_ours(chroot)
                assert stopped_at(chroot, removed, "dpkg", "--remove", "ganeti-ext")
            run(chroot, "dpkg", "--remove", "ganeti-ext")
            assert_stock(chroot)
            run(chroot, "dpkg", "--install", package)
        assert_stock(chroot)
    assert "missing" not in watch.seen

    run(chroot, "dpkg", "--install", package)
    with Watch(chroot, *LINKS) as watch:
        while stopped_at(chroot, upgraded + 1, "dpkg", "--install", newer):
            upgraded += 1
            run(chroot, "dpkg", "--configure", "--pending")
            assert_ours(chroot)
            run(chroot, "dpkg", "--install", package)
    assert watch.seen == OURS
    # The loops have gone through what they are about.
    assert ("No space left on device" in chroot.sh("cat /root/said")) == (deed is FILL)
    assert configured >= 10 and removed >= 8 and upgraded >= 4, (configured, removed, upgraded)


def test_read_only_usr(chroot: Chroot, deb: Path, suite: str) -> None:
    """Nothing is left half done, and it goes on as soon as /usr can be written to."""
    package = chroot.put(deb)
    mount(chroot, "--bind", "/mnt/root/usr", "/mnt/root/usr")

    def writable(yes: bool) -> None:
        mount(chroot, "-o", f"remount,bind,{'rw' if yes else 'ro'}", "/mnt/root/usr")

    with Watch(chroot, *LINKS) as watch:
        writable(False)
        assert "Read-only" in fails(chroot, "dpkg", "--install", package)
        assert_stock(chroot)
        writable(True)
        chroot.run("dpkg", "--unpack", package)
        writable(False)
        fails(chroot, "dpkg", "--configure", "ganeti-ext")
        if suite == "sid":  # py3compile does not fail there: the first diversion is noted already, no more
            assert (links(chroot), distrib(chroot), len(diversions(chroot))) == (STOCK, set(), 1)
        else:
            assert_stock(chroot)
        writable(True)
        chroot.run("dpkg", "--configure", "--pending")
        assert_ours(chroot)

        writable(False)
        assert "Read-only" in fails(chroot, "dpkg", "--remove", "ganeti-ext")
        assert_ours(chroot)
        # Debian 11's py3compile, by which a postinst begins, fails where it cannot write.
        assert status(chroot) == ("half-configured" if suite == "bullseye" else "installed")
        assert "Read-only" in fails(chroot, "dpkg", "--install", package)
        assert_ours(chroot)
        writable(True)
        install(chroot, deb)  # what dpkg has begun to unpack it wants to unpack
        chroot.run("dpkg", "--remove", "ganeti-ext")
        assert_stock(chroot)
    assert watch.seen == STOCK | OURS


@pytest.mark.parametrize("link", LINKS)
def test_a_diversion_of_the_administrators(chroot: Chroot, deb: Path, link: str) -> None:
    """One that was there before: nothing is changed, and the mend that is told does it."""
    chroot.sh(f"dpkg-divert --local --rename --add {link}")
    chroot.write(link, "#!/bin/sh\n", 0o755)
    before = chroot.sh("ls -l /usr/sbin/ganeti-*; dpkg-divert --list")
    said = fails(chroot, "dpkg", "--install", chroot.put(deb))
    assert f"{link} is already diverted by LOCAL" in said
    assert chroot.sh("ls -l /usr/sbin/ganeti-*; dpkg-divert --list") == before

    chroot.run("dpkg", "--remove", "ganeti-ext")
    assert chroot.sh("ls -l /usr/sbin/ganeti-*; dpkg-divert --list") == before

    fails(chroot, "dpkg", "--install", chroot.put(deb))
    (mend,) = (line for line in said.splitlines() if line.startswith("  mv "))
    chroot.sh(mend)
    assert_ours(chroot)
    # One that comes after ours is none: dpkg does not let it be.
    assert "clashes" in fails(chroot, "dpkg-divert", "--local", "--rename", "--add", link)
    assert_ours(chroot)


def test_cleared_away(chroot: Chroot, deb: Path) -> None:
    """Whoever takes the diverted files for rubbish has his node daemon all the same."""
    install(chroot, deb)
    chroot.sh("rm /usr/sbin/*.distrib")
    chroot.run("dpkg", "--remove", "ganeti-ext")
    assert_stock(chroot)
