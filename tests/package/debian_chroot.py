# SPDX-License-Identifier: BSD-2-Clause
"""Debian systems with Ganeti in them, made once, and throw-away copies of those.

A copy is an overlay in namespaces of its own: no network but its own, its own processes,
its own mounts. It is gone, with all that ran in it, when its first process ends.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import subprocess
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

CACHE = Path("/var/cache/ganeti-ext-test")

INSTALL_DEPS = Path(__file__).parents[1] / "install-deps"

PACKAGES = "ganeti iproute2 logrotate python3-ganeti-rapi python3-yaml systemd"

# How a chroot reaches the package mirror is the machine's affair: it is copied.
APT_CONFIGURATION = (
    "/etc/apt/apt.conf.d",
    "/etc/apt/auth.conf.d",
    "/etc/apt/preferences.d",
    "/etc/apt/trusted.gpg.d",
    "/etc/apt/keyrings",
    "/etc/ssl/certs",
    "/usr/local/share/ca-certificates",
    "/etc/hosts",
    "/etc/resolv.conf",
)

ENVIRONMENT = {
    "DEBIAN_FRONTEND": "noninteractive",
    "LC_ALL": "C.UTF-8",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
}

# However we end, it ends, with all its mounts and all that was started in it.
PRIVATE = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "unchanged"]
PRIVATE += ["--uts", "--pid", "--fork", "--kill-child"]

# What has to be made private is the mount that "/" lies on. In a chroot that is further up:
# entering one's own mount namespace leads there.
NO_MOUNT_GETS_OUT = "nsenter --mount=/proc/self/ns/mnt mount --make-rprivate /"

MAKE_COPY = f"""
{NO_MOUNT_GETS_OUT}
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
if [ -n "$2" ]; then tar -x -C /mnt/upper -f "$2"; fi
mount -t overlay -o "lowerdir=$1,upperdir=/mnt/upper,workdir=/mnt/work" overlay /mnt/root
mount -t proc proc /mnt/root/proc
mount -t sysfs sysfs /mnt/root/sys
mount -t devpts devpts /mnt/root/dev/pts
if [ -z "$3" ]; then
    ip link set lo up
    ip link add br0 type bridge
    ip link set br0 up
    ip address add 192.0.2.10/24 dev br0
    hostname node1.example.com
    cat > /mnt/root/etc/hosts << HOSTS
127.0.0.1 localhost
192.0.2.1 cluster.example.com
192.0.2.10 node1.example.com node1
HOSTS
fi
echo ready
# An ignored SIGCHLD lets the kernel bury what the daemons leave behind.
exec env --ignore-signal=CHLD sleep infinity
"""

WATCH = """
import os, select, sys
seen = set()
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0.0001)[0]:
    for path in sys.argv[1:]:
        try:
            seen.add(os.readlink(path) if os.access(path, os.X_OK) else "missing")
        except OSError:
            seen.add("missing")
print(*sorted(seen), sep="\\n")
"""

Copy = TypeVar("Copy", bound="Chroot")


class Chroot:
    """A throw-away copy of a base system; use it in a with statement.

    script: makes the copy; its first arguments are the layers, `state` and whether it is `online`.
    namespaces: options of unshare, for more of them.
    over: a directory whose files lie over those of the base.
    state: an archive that `save` made of another copy; this one goes on from there.
    online: with the machine's own network, to fetch packages; else with one of its own.
    """

    def __init__(
        self,
        base: Path,
        script: str = MAKE_COPY,
        namespaces: Sequence[str] = (),
        over: Path | None = None,
        state: Path | None = None,
        online: bool = False,
    ) -> None:
        layers = f"{over}:{base}" if over else str(base)
        self._first = subprocess.Popen(
            [*PRIVATE, *([] if online else ["--net"]), *namespaces]
            + ["sh", "-ec", script, "sh", layers, str(state or ""), "online" if online else ""],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._first.stdout is not None
        if self._first.stdout.readline() != "ready\n":
            raise RuntimeError(f"cannot make a copy of {base}: are you root?")
        pid = self._first.pid
        self._init = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0]
        self.root = Path(f"/proc/{self._init}/root/mnt/root")

    def __enter__(self: Copy) -> Copy:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._first.kill()
        self._first.wait()

    def enter(self) -> list[str]:
        """The command line that runs what follows in here, but with the machine's own files."""
        return ["nsenter", "--target", self._init, "--mount", "--root", "--net", "--uts", "--pid"]

    def command(self, *argv: str) -> list[str]:
        """The command line that runs argv in here."""
        return [*self.enter(), "chroot", "/mnt/root", *argv]

    def run(self, *argv: str, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command in here; with check, a failure shows what it said."""
        result = subprocess.run(
            self.command(*argv),
            env={**ENVIRONMENT, **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if check and result.returncode:
            raise AssertionError(f"{argv} ended with {result.returncode}\n{result.stdout}{result.stderr}")
        return result

    def sh(self, script: str) -> str:
        """What a few lines of shell print in here."""
        return self.run("sh", "-ec", script).stdout.strip()

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Make a file in here, with its directories."""
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)

    def put(self, file: Path) -> str:
        """Copy a file into /root in here, and say where it is."""
        shutil.copy(file, self.root / "root")
        return f"/root/{file.name}"

    def put_tree(self, tree: Path, path: str) -> None:
        """Copy a work tree to path in here: without git, and without what was built."""
        left_out = ["--exclude-vcs", "--exclude=./build", "--exclude=__pycache__", "--exclude=.*_cache"]
        self.run("mkdir", path)
        with subprocess.Popen(["tar", "--create", *left_out, "."], cwd=tree, stdout=subprocess.PIPE) as tar:
            unpack = self.command("tar", "--extract", "--no-same-owner", f"--directory={path}")
            subprocess.run(unpack, stdin=tar.stdout, env=ENVIRONMENT, check=True)

    def save(self, archive: Path) -> None:
        """Keep what is other in here than in the base."""
        with archive.open("wb") as stream:
            subprocess.run([*self.enter(), "tar", "-c", "-C", "/mnt/upper", "."], check=True, stdout=stream)


class Watch:
    """Looks at links all the time: what each of them was, and whether it was missing."""

    def __init__(self, chroot: Chroot, *paths: str) -> None:
        self.seen: set[str] = set()
        self._process = subprocess.Popen(
            chroot.command("python3", "-c", WATCH, *paths),
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Watch:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *_error: object) -> None:
        output, _ = self._process.communicate()
        self.seen = set(output.splitlines())


def base_system(suite: str) -> Path:
    """The directory with this Debian release and Ganeti; made if it is not there.

    Raises subprocess.CalledProcessError.
    """
    return kept_system(suite, PACKAGES, lambda root: _make_base(root, suite))


def tools_system(suite: str) -> Path:
    """A base system in which the package can be built and every test be run; made if it is not there."""

    def make(root: Path) -> None:
        subprocess.run(["cp", "--archive", base_system(suite), root], check=True)
        shutil.copy(INSTALL_DEPS, root / "root")
        _install(root, "/root/install-deps build demo test\napt-get clean\nrm -rf /var/lib/apt/lists/*")

    return kept_system(f"{suite}-tools", PACKAGES + INSTALL_DEPS.read_text(), make)


def remove(suite: str) -> None:
    """Remove what is kept of a release, so that it is made anew."""
    for kept in CACHE.glob(f"{suite}-*"):
        if kept.is_dir():
            shutil.rmtree(kept)


def kept_system(name: str, packages: str, make: Callable[[Path], None]) -> Path:
    """The directory of that name, which `make` makes if it is not there; one with other packages is another."""
    CACHE.mkdir(parents=True, exist_ok=True)
    name = f"{name}-{zlib.crc32(packages.encode()):08x}"
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kept = CACHE / name
        if not kept.exists():
            unfinished = CACHE / f"{name}.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            make(unfinished)
            unfinished.rename(kept)
    return kept


def _mirror() -> str:
    """The mirror of Debian that this machine's apt is set to. Raises RuntimeError if there is none."""
    subprocess.run(["apt-get", "update", "-qq"], check=True)  # or apt does not know whose packages they are
    mirrors = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)"]
        + ["Created-By: Packages", "Origin: Debian", "Label: Debian", "Component: main"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    if not mirrors:
        raise RuntimeError("apt is not set to any mirror of Debian")
    return mirrors[0]


def _make(root: Path, script: str) -> None:
    """Run some lines of shell for a system that is being made, "$1", with this machine's network."""
    script = f"{NO_MOUNT_GETS_OUT}\n{script}"
    environment = {**os.environ, **ENVIRONMENT}
    command = [*PRIVATE, "sh", "-ec", script, "sh", str(root)]
    subprocess.run(command, check=True, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def _install(root: Path, script: str) -> None:
    """Run some lines of shell in it."""
    _make(root, f'mount -t proc proc "$1/proc"\nexec chroot "$1" sh -ec {shlex.quote(script)}')


def _make_base(root: Path, suite: str) -> None:
    mirror = _mirror()
    # It knows nothing of apt's proxy.
    proxy = 'eval "$(apt-config shell http_proxy Acquire::http::Proxy)"; export http_proxy'
    _make(root, f'{proxy}; exec debootstrap --variant=minbase {suite} "$1" {mirror}')
    for name in APT_CONFIGURATION:
        target = root / name.lstrip("/")
        if Path(name).is_dir():
            shutil.copytree(name, target, symlinks=True, dirs_exist_ok=True)
        elif Path(name).exists():
            shutil.copy(name, target)
    (root / "etc/apt/sources.list").write_text(f"deb {mirror} {suite} main\n")
    # Nothing starts by itself, nothing asks what to do about a file copied above, nothing waits for the disk.
    policy = root / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    (root / "etc/dpkg/dpkg.cfg.d/ganeti-ext-test").write_text("force-confold\nforce-unsafe-io\n")

    script = f"""
        apt-get update
        apt-get install --yes --no-install-recommends {PACKAGES}
        mkdir /debs
        cd /debs
        apt-get download ganeti
        apt-get clean
        rm -rf /var/lib/apt/lists/*
    """
    _install(root, script)
