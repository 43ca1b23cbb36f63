# SPDX-License-Identifier: BSD-2-Clause
"""A throw-away Debian system that its own systemd has booted, with a Ganeti cluster of one node.

systemd is the first process in namespaces of its own, as in a container. It wants a control group
of its own and the unified hierarchy, which is mounted for it whatever this machine has mounted; no
controller is needed. What belongs to the whole kernel (/proc/sys, /sys) is read-only, so that
systemd leaves it alone.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from tests.package.debian_chroot import Chroot

BOOT = """
nsenter --mount=/proc/self/ns/mnt mount --make-rprivate /
mount -t tmpfs tmpfs /mnt
mkdir /mnt/cgroup /mnt/upper /mnt/work /mnt/root
mount -t cgroup2 cgroup2 /mnt/cgroup
# The number that this process has outside.
read -r outside _ < /proc/self/stat
mkdir "/mnt/cgroup/ganeti-ext-test.$outside"
echo 0 > "/mnt/cgroup/ganeti-ext-test.$outside/cgroup.procs"
mount -t overlay -o "lowerdir=$1,upperdir=/mnt/upper,workdir=/mnt/work" overlay /mnt/root
ip link set lo up
ip address add 192.0.2.10/32 dev lo
hostname node1.example.com
exec unshare --cgroup sh -ec '
cd /mnt/root
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do cp -a "/dev/$device" dev/; done
ln -s /proc/self/fd dev/fd
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs tmpfs dev/shm
echo node1.example.com > etc/hostname
printf "%s\n" "127.0.0.1 localhost" "192.0.2.10 node1.example.com node1" "192.0.2.1 cluster.example.com" > etc/hosts
# What the package systemd-sysv has: where nothing is /sbin/init, invoke-rc.d takes it for a chroot.
[ -e sbin/init ] || ln -s ../lib/systemd/systemd sbin/init
# Nothing of the machine happens by itself while it is looked at.
rm -f etc/cron.d/ganeti
echo ready
exec env -i container=ganeti-ext-test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    chroot . /lib/systemd/systemd --show-status=no --log-target=null >/dev/null 2>&1 </dev/null
'
"""

CLEAR_UP = """
mount -t cgroup2 cgroup2 /mnt
# Its processes take a moment to end.
for _ in $(seq 50); do
    find "/mnt/ganeti-ext-test.$1" -depth -type d -exec rmdir {} + 2>/dev/null && break
    sleep 0.1
done
"""

# Ganeti 3.1 with the pyOpenSSL of sid has no class for a signing request any more, and so cannot
# make a certificate for a node. Of what it asks of that class the certificate's own does the same.
SHIM = "import OpenSSL.crypto as c; c.X509Req = getattr(c, 'X509Req', c.X509)\n"

INIT_CLUSTER = """
echo 'NODED_ARGS=""' > /etc/default/ganeti
echo 'RAPI_ARGS="-b 127.0.0.1 --require-authentication"' >> /etc/default/ganeti
gnt-cluster init --no-etc-hosts --no-ssh-init --master-netdev=lo --enabled-disk-templates=diskless \
    --enabled-hypervisors=fake --ipolicy-bounds-specs="$(printf %s \
    min:disk-size=0,cpu-count=1,disk-count=0,memory-size=1,nic-count=0,spindle-use=0/ \
    max:disk-size=1048576,cpu-count=8,disk-count=16,memory-size=32768,nic-count=8,spindle-use=12)" \
    cluster.example.com
"""


class NoSystemd(Exception):
    """systemd does not boot here; the text says why."""


class Booted(Chroot):
    """A copy of a base system with its own systemd as first process; use it in a with statement.

    Raises NoSystemd if it does not come up.
    """

    def __init__(self, base: Path) -> None:
        if not (base / "lib/systemd/systemd").exists():
            raise NoSystemd(f"{base} has no systemd")
        try:
            super().__init__(base, BOOT, ["--ipc"])
        except RuntimeError as err:
            raise NoSystemd(f"no namespaces and control group for it: {err}") from err
        # systemd runs in it.
        self.root = Path(f"/proc/{self._init}/root")
        if not eventually(lambda: self._state() in ("running", "degraded")):
            state = self._state()
            self.__exit__(None, None, None)
            raise NoSystemd(f"it does not come up: {state}")

    def command(self, *argv: str) -> list[str]:
        """The command line that runs argv in here."""
        return [
            "nsenter",
            "--target",
            self._init,
            "--mount",
            "--root",
            "--wd",
            "--net",
            "--uts",
            "--ipc",
            "--pid",
            *argv,
        ]

    def _state(self) -> str:
        return self.run("systemctl", "is-system-running", check=False).stdout.strip()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        subprocess.run(["unshare", "--mount", "sh", "-ec", CLEAR_UP, "sh", self._init], check=False)


def eventually(condition: Callable[[], bool], attempts: int = 300) -> bool:
    """Whether a condition comes to hold, asked ten times a second."""
    for _ in range(attempts):
        if condition():
            return True
        time.sleep(0.1)
    return False
