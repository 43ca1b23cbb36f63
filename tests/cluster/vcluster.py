#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""A real Ganeti cluster for everybody: up in seconds, gone without a trace.

N nodes with the installed daemons, the fake hypervisor and Ganeti's own "virtual
cluster" paths, all of it in network, mount and process namespaces of its own.

A *keeper* process holds the cluster together. The first process of the namespaces is
its child; when that one ends, for whatever reason, the kernel kills everything inside and
drops every mount and address, and the keeper removes the files. It ends it itself as
soon as the process that wanted the cluster is gone, `kill -9` included. (`ip netns`
would leave names behind, and does not work in a plain chroot.)

    with Cluster(instances=["web1.test.example.com"]) as cluster:
        cluster.rapi("GET", "/2/instances", user="admin")

By hand: `vcluster.py up`, `list`, `down NAME`, `sweep`, `save DIR`.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import ctypes
import fcntl
import functools
import http.client
import json
import os
import re
import secrets
import select
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable

#: Every cluster is NAME/ (its files) and NAME.json (its state, locked while it lives) below
#: this. Restricted commands want every directory from / down to be root's; short, because a
#: socket's path has 108 bytes at most.
BASE = "/var/lib/ganeti-vcluster"

#: Names a directory that `save` made with another Ganeti. Clusters then start from what it holds, as if
#: Debian had been upgraded under them: Ganeti 3.1.0~rc2-5 cannot make one with the pyOpenSSL of sid.
SAVED = "GANETI_EXT_SAVED_CLUSTERS"

DAEMON_UTIL = "/usr/lib/ganeti/daemon-util"
RAPI_PORT = 5080
DEFAULT_USERS = "admin secret write\n"
POLICY_FILE = "etc/ganeti/rapi-access.yaml"
IPOLICY = (
    "min:disk-size=0,cpu-count=1,disk-count=0,memory-size=1,nic-count=0,spindle-use=0/"
    "max:disk-size=1048576,cpu-count=8,disk-count=16,memory-size=32768,nic-count=8,spindle-use=12"
)
# Nothing of the caller's environment (PYTHONPATH, proxies, …) may reach a daemon.
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
}
# One key is enough in here, as the host's and as root's; Ganeti wants it under this name.
SSH_CONFIG = """\
Host *
  IdentityFile /etc/ssh/ssh_host_rsa_key
  IdentitiesOnly yes
  LogLevel ERROR
"""
SSHD_CONFIG = """\
HostKey /etc/ssh/ssh_host_rsa_key
AuthorizedKeysFile /etc/ssh/ssh_host_rsa_key.pub
PermitRootLogin yes
PasswordAuthentication no
UsePAM no
UseDNS no
PidFile none
"""

CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWNET = 0x00020000, 0x20000000, 0x40000000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
PR_SET_PDEATHSIG = 1


class ClusterError(Exception):
    """Something about the cluster failed; the text says what, with the ends of the logs."""


# --- the registry below BASE -------------------------------------------------------------


def _state_file(name: str) -> str:
    return os.path.join(BASE, name + ".json")


def _try_lock(name: str, create: bool = False) -> int | None:
    """Lock a cluster's state file; None if it is somebody's (so the cluster lives) or gone."""
    while True:
        try:
            if create:
                os.makedirs(BASE, exist_ok=True)
                os.chmod(BASE, 0o755)
            fd = os.open(_state_file(name), os.O_RDWR | (os.O_CREAT if create else 0), 0o600)
        except FileNotFoundError:
            if create:  # the last other cluster has just removed BASE
                continue
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between open and flock a sweep may have removed the file: then the lock is worth
            # nothing.
            if os.fstat(fd).st_ino == os.stat(_state_file(name)).st_ino:
                return fd
        except BlockingIOError:
            os.close(fd)
            return None
        except FileNotFoundError:
            pass
        os.close(fd)


def _read_state(name: str) -> dict[str, Any]:
    try:
        with open(_state_file(name), encoding="utf-8") as stream:
            state: dict[str, Any] = json.load(stream)
            return state
    except (FileNotFoundError, ValueError):  # gone, or not yet written
        return {}


def _write_state(name: str, **values: Any) -> None:
    # In place, because the lock is on the inode.
    with open(_state_file(name), "r+", encoding="utf-8") as stream:
        stream.write(json.dumps(values).ljust(200))


def _erase(name: str) -> None:
    """Remove the files of a cluster whose processes are gone; the caller holds its lock."""
    shutil.rmtree(os.path.join(BASE, name), ignore_errors=True)
    with contextlib.suppress(OSError):
        os.unlink(_state_file(name))
    with contextlib.suppress(OSError):
        os.rmdir(BASE)


def names() -> list[str]:
    """The names of all clusters of this machine, dead ones included."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(f[:-5] for f in os.listdir(BASE) if f.endswith(".json"))
    return []


def sweep() -> list[str]:
    """Remove what clusters left behind that nobody keeps any more; their names."""
    swept = []
    for name in names():
        fd = _try_lock(name)
        if fd is not None:
            _erase(name)
            os.close(fd)
            swept.append(name)
    return swept


def stop(name: str, timeout: float = 60) -> None:
    """End the cluster of that name, whoever made it, and wait until nothing is left.

    `timeout` is in seconds. Raises ClusterError if it takes longer.
    """
    deadline = time.monotonic() + timeout
    while os.path.exists(_state_file(name)):
        fd = _try_lock(name)
        if fd is not None:  # its keeper is dead
            _erase(name)
            os.close(fd)
            return
        init = _read_state(name).get("init")
        if init:
            # The keeper lets its child be a zombie as long as the state names it, so the number
            # cannot mean another process.
            with contextlib.suppress(ProcessLookupError):
                os.kill(init, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise ClusterError(f"cluster {name} does not end")
        time.sleep(0.02)


# --- the keeper --------------------------------------------------------------------------


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _call(function: str, *args: Any) -> None:
    if getattr(_libc(), function)(*args) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{function}{args}: {os.strerror(error)}")


def _mount(source: str, target: str, kind: str = "none", flags: int = 0) -> None:
    _call("mount", source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), None)


def _become_init(root: str, ready: int) -> None:
    """In the first process of the process namespace: the other two, then sleep for good."""
    _call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL)
    _call("unshare", CLONE_NEWNS | CLONE_NEWNET)
    # No mount of ours may be seen outside. What has to be made private is the mount that "/"
    # lies on, which in a chroot is further up: entering one's own mount namespace leads there.
    top = os.open("/", os.O_RDONLY)
    own = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    _call("setns", own, CLONE_NEWNS)
    _mount("none", "/", flags=MS_REC | MS_PRIVATE)
    os.fchdir(top)
    os.chroot(".")
    host = os.path.join(root, "host")
    _mount("proc", "/proc", "proc")
    _mount("sysfs", "/sys", "sysfs")
    _mount("tmpfs", "/run", "tmpfs")  # also hides systemd, which daemon-util would ask
    os.mkdir("/run/sshd", 0o755)
    _mount(host + "/hosts", "/etc/hosts", flags=MS_BIND)
    _mount(host + "/ssh", "/etc/ssh", flags=MS_BIND)
    if os.path.isdir("/root/.ssh"):
        _mount(host + "/ssh", "/root/.ssh", flags=MS_BIND)
    os.write(ready, b"1")
    # Orphans end up here: an ignored SIGCHLD, which survives exec, makes the kernel bury them.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    os.execv("/bin/sleep", ["sleep", "infinity"])


def _keeper(name: str, owner: int, lock: int) -> int:
    """The keeper: makes the namespaces, waits until they or their owner end, and cleans up.

    It was started with the lock on the state file, and holds it as long as it lives.
    """
    poll = select.poll()
    owner_fd = os.pidfd_open(owner)
    if os.getppid() != owner:
        _erase(name)
        return 1
    os.set_inheritable(lock, False)
    _call("unshare", CLONE_NEWPID)
    reader, writer = os.pipe()
    init = os.fork()
    if init == 0:
        try:
            os.close(reader)
            _become_init(os.path.join(BASE, name), writer)
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    os.close(writer)
    init_fd = os.pidfd_open(init)
    if os.read(reader, 1):
        _write_state(name, init=init, keep=False)
        print("ready", flush=True)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 1)
        os.dup2(null, 2)
    poll.register(owner_fd, select.POLLIN)
    poll.register(init_fd, select.POLLIN)
    while True:
        ended = [fd for fd, _ in poll.poll()]
        if init_fd in ended:
            break
        poll.unregister(owner_fd)
        if not _read_state(name).get("keep"):
            os.kill(init, signal.SIGKILL)
    _write_state(name)
    os.waitpid(init, 0)
    _erase(name)
    return 0


# --- the cluster -------------------------------------------------------------------------


def _write(path: str, text: str, mode: int = 0o644, owner: str = "root", group: str = "root") -> None:
    """Write a file under a temporary name and move it, so that nobody reads half of it."""
    temporary = f"{path}.{secrets.token_hex(4)}"
    with open(temporary, "w", encoding="utf-8") as stream:
        stream.write(text)
    shutil.chown(temporary, owner, group)
    os.chmod(temporary, mode)
    os.rename(temporary, path)


def _text(path: str) -> str:
    """A file's text, "" if it cannot be read."""
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as stream:
        return stream.read()
    return ""


class Cluster:
    """A cluster; `with Cluster(...) as c:` brings it up and takes it down.

    nodes: how many; they are called node1, node2, … and node1 is the master.
    instances: names of diskless instances to make at once, spread over the nodes.
    disk_templates: what the cluster enables, e.g. ("diskless", "file").
    rapi_users: text of the RAPI's users file, with plain passwords.
    require_authentication: as Debian's /etc/default/ganeti has it.
    host_names: further names that resolve inside (the instances' own do anyway).
    defaults: shell lines added to every node's etc/default/ganeti, e.g. "NODED_ARGS=…".
    keep: leave it running when this process ends; `stop(name)` ends it.
    name: [a-z0-9-]+, up to 20 characters; one is made up if left out.
    progress: called with a line of text before every step.
    """

    def __init__(
        self,
        nodes: int = 3,
        instances: Sequence[str] = (),
        disk_templates: Sequence[str] = ("diskless",),
        rapi_users: str = DEFAULT_USERS,
        require_authentication: bool = True,
        host_names: Sequence[str] = (),
        defaults: str = "",
        keep: bool = False,
        name: str | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        self.name = name or secrets.token_hex(4)
        if not re.fullmatch("[a-z0-9-]{1,20}", self.name):
            raise ClusterError(f"not a name for a cluster: {self.name!r}")
        self.root = os.path.join(BASE, self.name)
        self.nodes = [f"node{number}" for number in range(1, nodes + 1)]
        #: Set it after a failover: where gnt(), rapi() and the RAPI's files are.
        self.master = self.nodes[0]
        #: Those made at the start, on the nodes in turn.
        self.instances = list(instances)
        self._disk_templates = list(disk_templates)
        self._rapi_users = rapi_users
        self._require_authentication = require_authentication
        self._host_names = list(host_names)
        self._defaults = defaults
        self._keep = keep
        self._progress = progress or (lambda text: None)
        self._ours = False  # down() ends nothing that is not
        self._init = 0  # the first process inside, as this process sees it
        self._keeper: subprocess.Popen[bytes] | None = None
        self._next_node = 0
        self._addresses = 0

    @classmethod
    def attach(cls, name: str) -> Cluster:
        """The running cluster of that name. Raises ClusterError if there is none."""
        state = _read_state(name)
        if not state.get("init"):
            raise ClusterError(f"no running cluster {name}")
        cluster = cls(nodes=state.get("nodes", 1), name=name)
        cluster._ours, cluster._init = True, state["init"]
        cluster._rapi_users = _text(cluster.node_path("node1", "var/lib/ganeti/rapi/users"))
        return cluster

    def __enter__(self) -> Cluster:
        return self.up()

    def __exit__(self, *exc: object) -> None:
        self.down()

    # -- up and down

    def up(self) -> Cluster:
        """Bring it up (15 to 40 s). Raises ClusterError, with nothing left behind."""
        try:
            self._progress("namespaces")
            self._start_keeper()
            self._prepare_nodes()
            if os.environ.get(SAVED):
                self._progress("a cluster that was saved")
                self._restore(self._saved())
            else:
                self._make()
            self.set_rapi_users(self._rapi_users)
            if self.instances:
                self._progress(f"{len(self.instances)} instances")
                self.add_instances(self.instances)
            self._progress("remote API")
            self.wait_rapi()
            _write_state(self.name, init=self._init, keep=self._keep, nodes=len(self.nodes))
            self._progress("ready")
        except BaseException:
            self.down()
            raise
        return self

    def _make(self) -> None:
        self._progress("cluster on node1")
        self.gnt(
            "gnt-cluster",
            "init",
            "--no-etc-hosts",
            "--no-ssh-init",
            "--master-netdev=lo",
            "--enabled-disk-templates=" + ",".join(self._disk_templates),
            "--enabled-hypervisors=fake",
            "--default-iallocator=hail",
            "--nic-parameters=mode=bridged,link=br0",
            "--ipolicy-bounds-specs=" + IPOLICY,
            "cluster",
        )
        self._progress("the other nodes")
        # Two at a time is a third quicker; Ganeti's locks keep them apart.
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(self._add_node, self.nodes[1:]))

    def save(self, directory: str) -> None:
        """Keep what makes this a cluster below `directory`, for one of as many nodes; its daemons end."""
        target = os.path.join(directory, str(len(self.nodes)))
        for node in self.nodes:
            self.run(node, DAEMON_UTIL, "stop-all")
            shutil.copytree(self.node_path(node, "var/lib/ganeti"), os.path.join(target, node))
        shutil.copytree(os.path.join(self.root, "host", "ssh"), os.path.join(target, "ssh"))

    def _saved(self) -> str:
        """Where one of as many nodes lies that was saved. Raises ClusterError if there is none."""
        saved = os.path.join(os.environ[SAVED], str(len(self.nodes)))
        if not os.path.isdir(saved):
            raise ClusterError(f"no cluster of {len(self.nodes)} nodes was saved: {saved}")
        return saved

    def _restore(self, saved: str) -> None:
        for node in reversed(self.nodes):  # the master starts when a majority agrees that it is the master
            shutil.copytree(os.path.join(saved, node), self.node_path(node, "var/lib/ganeti"), dirs_exist_ok=True)
            self.run(node, "/usr/lib/ganeti/ensure-dirs", "--full-run")  # users' numbers are each release's own
            self.run(node, DAEMON_UTIL, "start-all")
        templates = ",".join(self._disk_templates)
        options = [f"--enabled-disk-templates={templates}", f"--ipolicy-disk-templates={templates}"]
        if "file" in self._disk_templates:
            options.append("--file-storage-dir=" + self.node_path(self.master, "srv/ganeti/file-storage"))
        self.gnt("gnt-cluster", "modify", *options)

    def down(self) -> None:
        """Take it down: every process, mount, address and file of it. Harmless twice."""
        if self._ours:
            stop(self.name)
            self._ours = False
        if self._keeper:
            self._keeper.communicate()
            self._keeper = None

    def _start_keeper(self) -> None:
        sweep()
        lock = _try_lock(self.name, create=True)
        if lock is None:
            raise ClusterError(f"there is a cluster {self.name} already")
        self._ours = True
        try:
            self._write_host_files()
            self._keeper = subprocess.Popen(
                [sys.executable, "-I", os.path.abspath(__file__), "_keeper", self.name, str(os.getpid()), str(lock)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=[lock],
                start_new_session=True,
                cwd="/",
            )
        finally:
            os.close(lock)  # from here on the keeper holds it
        assert self._keeper.stdout and self._keeper.stderr
        if self._keeper.stdout.readline() != b"ready\n":
            reason = self._keeper.stderr.read().decode(errors="replace")
            raise ClusterError("cannot make the namespaces:\n" + reason[-2000:])
        self._init = _read_state(self.name)["init"]

    def _write_host_files(self) -> None:
        """What lies over the host's own files inside: names, and SSH with a key of its own."""
        ssh = os.path.join(self.root, "host", "ssh")
        for directory in (self.root, os.path.dirname(ssh), ssh):
            os.mkdir(directory)
            os.chmod(directory, 0o755)
        addresses = [("127.0.0.1", "localhost"), ("192.0.2.1", "cluster")]
        addresses += [(self.address(node), node) for node in self.nodes]
        _write(os.path.join(self.root, "host", "hosts"), "".join(f"{ip} {host}\n" for ip, host in addresses))
        self.add_host_names(*self.instances, *self._host_names)
        _write(os.path.join(ssh, "ssh_config"), SSH_CONFIG)
        _write(os.path.join(ssh, "sshd_config"), SSHD_CONFIG)
        if os.environ.get(SAVED):
            shutil.copytree(os.path.join(self._saved(), "ssh"), ssh, dirs_exist_ok=True)
            return
        self._execute(["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", ssh + "/ssh_host_rsa_key"])

    def _prepare_nodes(self) -> None:
        network = ["link set lo up", "link add br0 type bridge", "link set br0 up"]
        network += [f"addr add {self.address(node)}/24 dev br0" for node in self.nodes]
        self.enter("ip", "-batch", "-", input="\n".join(network) + "\n")
        self.enter("/usr/sbin/sshd")
        self._progress(f"{len(self.nodes)} nodes")
        self.enter(
            "/usr/lib/ganeti/tools/vcluster-setup",
            "-E",
            "-N",
            "-c",
            str(len(self.nodes)),
            "-p",
            "192.0.2",
            "-n",
            "br0",
            self.root,
        )
        for node in self.nodes:
            lines = [f"MOND_ARGS='-b {self.address(node)}'"]
            if self._require_authentication:
                lines.append('RAPI_ARGS="$RAPI_ARGS --require-authentication"')
            lines.append(self._defaults)
            with open(self.node_path(node, "etc/default/ganeti"), "a", encoding="utf-8") as stream:
                stream.write("\n".join(lines) + "\n")
            if "file" in self._disk_templates:
                # On each node the directory of the master: instances name one path for all.
                directory = self.node_path(self.master, "srv/ganeti/file-storage")
                os.makedirs(directory, exist_ok=True)
                _write(self.node_path(node, "etc/ganeti/file-storage-paths"), directory + "\n")
            target = self.node_path(node, "srv/ganeti/os/noop")
            shutil.copytree("/usr/share/ganeti/os/noop", target, symlinks=True)
        inside = f"nsenter -t {self._init} -m -n -p -r -w"
        _write(os.path.join(self.root, "enter"), f'#!/bin/sh\nexec {inside} -- "$@"\n', 0o755)

    def _add_node(self, node: str) -> None:
        self.gnt("gnt-node", "add", "--no-ssh-key-check", node, input="yes\n")

    # -- commands

    def _execute(
        self,
        argv: Sequence[str],
        check: bool = True,
        input: str | None = None,  # noqa: A002
        env: Mapping[str, str] | None = None,
        timeout: float = 180,
    ) -> subprocess.CompletedProcess[str]:
        try:
            done = subprocess.run(
                argv,
                input=input or "",
                capture_output=True,
                check=False,
                encoding="utf-8",
                errors="replace",
                cwd="/",
                umask=0o022,
                timeout=timeout,
                env={**ENVIRONMENT, **(env or {})},
            )
        except subprocess.TimeoutExpired as err:
            raise self._error(str(err)) from err
        if check and done.returncode != 0:
            output = (done.stdout + done.stderr)[-2000:]
            raise self._error(f"{' '.join(argv)}\nexit code {done.returncode}: {output}")
        return done

    def _error(self, text: str) -> ClusterError:
        """A ClusterError with the ends of all daemons' logs."""
        for node in self.nodes:
            directory = self.node_path(node, "var/log/ganeti")
            for log in sorted(os.listdir(directory) if os.path.isdir(directory) else []):
                lines = _text(os.path.join(directory, log)).splitlines()
                if lines:
                    text += "\n".join([f"\n--- {node}: {log}", *lines[-8:]])
        return ClusterError(text)

    def enter(self, *argv: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command inside, but not as on a node; options as of `run`."""
        return self._execute(["nsenter", "-t", str(self._init), "-m", "-n", "-p", "-r", "-w", "--", *argv], **options)

    def start(self, *argv: str) -> subprocess.Popen[str]:
        """Start a command inside, but not as on a node; its output is a pipe. It ends with the cluster."""
        command = ["nsenter", "-t", str(self._init), "-m", "-n", "-p", "-r", "-w", "--", *argv]
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, cwd="/", env=ENVIRONMENT
        )

    def run(
        self,
        node: str,
        *argv: str,
        check: bool = True,
        input: str | None = None,  # noqa: A002
        env: Mapping[str, str] | None = None,
        timeout: float = 180,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as on that node, without a shell; stdout and stderr as text.

        `env` adds to the environment; `timeout` is in seconds. Raises ClusterError if `check`
        and it fails, or when the time is over (what it started then runs on until down()).
        """
        variables = {"GANETI_ROOTDIR": os.path.join(self.root, node), "GANETI_HOSTNAME": node}
        return self.enter(*argv, check=check, input=input, env={**variables, **(env or {})}, timeout=timeout)

    def gnt(self, *argv: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """`run` on the master."""
        return self.run(self.master, *argv, **options)

    def node_path(self, node: str, path: str) -> str:
        """The path on the host of a node's file, e.g. `node_path("node2", "etc/ganeti")`."""
        return os.path.join(self.root, node, path.lstrip("/"))

    def address(self, node: str) -> str:
        """The IPv4 address of a node, valid inside."""
        return f"192.0.2.{9 + int(node[4:])}"

    def add_host_names(self, *host_names: str) -> None:
        """Make names resolve inside (for Ganeti's name_check), each to an address of its own."""
        with open(os.path.join(self.root, "host", "hosts"), "a", encoding="utf-8") as stream:
            for host_name in host_names:
                self._addresses += 1
                high, low = divmod(self._addresses, 250)
                stream.write(f"198.18.{high}.{low + 1} {host_name}\n")

    # -- daemons

    def restart(
        self,
        daemon: str,
        node: str | None = None,
        env: Mapping[str, str] | None = None,
        args: Sequence[str] = (),
    ) -> None:
        """Stop and start a daemon ("rapi", "noded", …; on the master unless named).

        `env` and `args` are added to the daemon's own for this start. Raises ClusterError.
        """
        node = node or self.master
        self.run(node, DAEMON_UTIL, "stop", "ganeti-" + daemon)
        self.run(node, DAEMON_UTIL, "start", "ganeti-" + daemon, *args, env=env)
        if daemon == "rapi" and node == self.master:
            self.wait_rapi()

    def daemon_pid(self, daemon: str, node: str | None = None) -> int:
        """A daemon's process id as the host sees it. Raises ClusterError if it does not run."""
        path = self.node_path(node or self.master, f"var/run/ganeti/ganeti-{daemon}.pid")
        pid = self.pid_of(_text(path).strip())
        if pid is None:
            raise self._error(f"ganeti-{daemon} does not run")
        return pid

    def pid_of(self, inner: str) -> int | None:
        """A process as the host sees it, by its number inside; None if there is none."""
        for pid in self.pids():
            seen = re.search(r"^NSpid:.*\s(\d+)$", _text(f"/proc/{pid}/status"), re.MULTILINE)
            if seen and seen.group(1) == inner:
                return pid
        return None

    def pids(self) -> list[int]:
        """The processes inside, as the host sees them."""
        inside = os.readlink(f"/proc/{self._init}/ns/pid")
        found = []
        for entry in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                if entry.isdigit() and os.readlink(f"/proc/{entry}/ns/pid") == inside:
                    found.append(int(entry))
        return found

    def rapi_log(self) -> str:
        """The text of the RAPI daemon's log."""
        return _text(self.node_path(self.master, "var/log/ganeti/rapi-daemon.log"))

    def node_log(self, node: str | None = None) -> str:
        """The text of a node daemon's log (the master's unless named)."""
        return _text(self.node_path(node or self.master, "var/log/ganeti/node-daemon.log"))

    @contextlib.contextmanager
    def rapi_logs(self, text: str, timeout: float = 10) -> Iterator[None]:
        """`with cluster.rapi_logs("loaded"): …` waits at the end until the RAPI's log has that.

        Only what the block added counts; seconds. Raises ClusterError if it does not come.
        """
        before = len(self.rapi_log())
        yield
        deadline = time.monotonic() + timeout
        while text not in self.rapi_log()[before:]:
            if time.monotonic() > deadline:
                raise self._error(f"not in the log of the RAPI: {text}")
            time.sleep(0.02)

    # -- the remote API

    @property
    def rapi_url(self) -> str:
        """Where the RAPI listens, inside."""
        return f"https://{self.address(self.master)}:{RAPI_PORT}"

    def connect(self, port: int = RAPI_PORT, timeout: float = 60, source: str | None = None) -> socket.socket:
        """A TCP connection to the master from inside, from the address of the node `source`.

        `timeout` in seconds. Raises OSError.
        """
        address = (self.address(source), 0) if source else None
        result: list[socket.socket | OSError] = []

        def inside() -> None:
            # Only this thread moves; a socket stays where it was made, whoever uses it.
            try:
                fd = os.open(f"/proc/{self._init}/ns/net", os.O_RDONLY)
                try:
                    _call("setns", fd, CLONE_NEWNET)
                finally:
                    os.close(fd)
                result.append(socket.create_connection((self.address(self.master), port), timeout, address))
            except OSError as err:
                result.append(err)

        thread = threading.Thread(target=inside)
        thread.start()
        thread.join()
        if isinstance(result[0], OSError):
            raise result[0]
        return result[0]

    def connect_tls(self, timeout: float = 60, source: str | None = None) -> ssl.SSLSocket:
        """A connection to the RAPI. Raises OSError (ssl.SSLError if the certificate is not the cluster's)."""
        certificate = self.node_path(self.master, "var/lib/ganeti/rapi.pem")
        context = _tls_context(certificate, os.stat(certificate).st_mtime_ns)
        plain = self.connect(timeout=timeout, source=source)
        try:
            return context.wrap_socket(plain)
        except BaseException:
            plain.close()
            raise

    def rapi(
        self,
        method: str,
        path: str,
        user: str | None = None,
        password: str | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 60,
        source: str | None = None,
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """One request over TLS: (status, headers, body). Can be called from many threads.

        Without `user` no credentials are sent; without `password` it is the one in the users
        file as last set. `body` is sent as JSON, `bytes` as they are; it comes from the address of
        the node `source`. Raises OSError (ssl.SSLError if the certificate is not the cluster's),
        http.client.HTTPException; KeyError if the users file has no such user.
        """
        fields = dict(headers or {})
        if user is not None:
            if password is None:
                password = self._passwords()[user]
            token = base64.b64encode(f"{user}:{password}".encode()).decode()
            fields.setdefault("Authorization", "Basic " + token)
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None:
            fields.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection(self.address(self.master), RAPI_PORT)
        with self.connect_tls(timeout, source) as secure:
            connection.sock = secure
            connection.request(method, path, body, fields)
            response = connection.getresponse()
            return response.status, response.headers, response.read()

    def _passwords(self) -> dict[str, str]:
        rows = [line.split() for line in self._rapi_users.splitlines()]
        return {row[0]: row[1] for row in rows if len(row) > 1 and not row[0].startswith("#")}

    def set_rapi_users(self, text: str, wait: bool = True) -> None:
        """Write the RAPI's users file on every node (Ganeti would carry it there), owned as by
        Ganeti and atomic on each; `wait` until the RAPI has read it. Raises ClusterError.
        """
        self._rapi_users = text
        with self.rapi_logs("Reading users file" if wait else ""):
            for node in self.nodes:
                path = self.node_path(node, "var/lib/ganeti/rapi/users")
                _write(path, text, 0o640, "gnt-rapi", "gnt-masterd")

    def set_policy(self, text: str) -> None:
        """Write the access policy on every node; atomic on each."""
        for node in self.nodes:
            _write(self.node_path(node, POLICY_FILE), text)

    def remove_policy(self) -> None:
        """Remove the access policy from every node."""
        for node in self.nodes:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.node_path(node, POLICY_FILE))

    def wait_rapi(self, timeout: float = 30) -> None:
        """Wait until the RAPI answers anything; seconds. Raises ClusterError."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                self.rapi("GET", "/version")
                return
            except (OSError, http.client.HTTPException) as err:
                if time.monotonic() > deadline:
                    raise self._error(f"the RAPI does not answer: {err}") from err
            time.sleep(0.05)

    # -- jobs and instances

    def luxi(self, method: str, *args: Any, timeout: float = 60) -> Any:
        """Call Ganeti's query daemon directly, e.g. `luxi("QueryJobs", [7], ["status"])`.

        Raises ClusterError if it answers with an error, OSError.
        """
        path = self.node_path(self.master, "var/run/ganeti/socket/ganeti-query")
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout)
            connection.connect(path)
            connection.sendall(json.dumps({"method": method, "args": args}).encode() + b"\3")
            parts: list[bytes] = []
            while not (parts and parts[-1].endswith(b"\3")):
                parts.append(connection.recv(1 << 20))
                if not parts[-1]:
                    raise self._error(f"luxid hung up on {method}")
        answer = json.loads(b"".join(parts)[:-1])
        if not answer["success"]:
            raise ClusterError(f"{method}: {answer['result']}")
        return answer["result"]

    def job(self, job_id: int, timeout: float = 120) -> tuple[str, list[Any]]:
        """Wait for a job's end: its status ("success", "error", "canceled"), and its opcodes'
        results. `timeout` in seconds. Raises ClusterError when it is over.
        """
        deadline = time.monotonic() + timeout
        while True:
            row = self.luxi("QueryJobs", [int(job_id)], ["status", "opresult"])[0]
            if row is None:
                raise ClusterError(f"there is no job {job_id}")
            if row[0] in ("success", "error", "canceled"):
                return row[0], row[1]
            if time.monotonic() > deadline:
                raise self._error(f"job {job_id} is still {row[0]} after {timeout} s")
            time.sleep(0.05)

    def add_instance(self, name: str, node: str | None = None, **fields: Any) -> None:
        """Make one instance and wait; see `add_instances`."""
        self.add_instances([name], node, **fields)

    def add_instances(self, instances: Sequence[str], node: str | None = None, **fields: Any) -> None:
        """Make instances, all at once, and wait: diskless, noop, no NIC, 128 MiB, started.

        On `node`, or on the nodes in turn. `fields` are more fields of OpInstanceCreate, e.g.
        `tags=["a"]`, `start=False`. Raises ClusterError.
        """
        jobs = []
        for name in instances:
            opcode = {
                "OP_ID": "OP_INSTANCE_CREATE",
                "mode": "create",
                "instance_name": name,
                "pnode": node or self.nodes[self._next_node % len(self.nodes)],
                "disk_template": "diskless",
                "disks": [],
                "nics": [],
                "os_type": "noop",
                "hypervisor": "fake",
                "beparams": {"memory": 128, "vcpus": 1},
                "name_check": False,
                "ip_check": False,
                "reason": [],
                **fields,
            }
            self._next_node += 1
            jobs.append([opcode])
        for success, job_id in self.luxi("SubmitManyJobs", jobs):
            if not success:
                raise ClusterError(f"job not accepted: {job_id}")
            status, result = self.job(job_id, timeout=120 + len(jobs))
            if status != "success":
                raise self._error(f"job {job_id}: {status}: {result}")


@functools.lru_cache(maxsize=8)
def _tls_context(certificate: str, changed: int) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # self-signed, for the name "ganeti.example.com"
    context.load_verify_locations(certificate)
    return context


# --- by hand -----------------------------------------------------------------------------


def _describe(cluster: Cluster) -> Iterator[str]:
    script = f"/usr/bin/python3 {os.path.abspath(__file__)}"
    yield f"root  {cluster.root}"
    yield f"run   {cluster.root}/enter {cluster.root}/node1/cmd gnt-instance list"
    yield f"rapi  {cluster.root}/enter curl -ku admin:secret {cluster.rapi_url}/2/instances"
    yield f"stop  {script} down {cluster.name}"


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(description="A real Ganeti cluster, to play with.")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start one that stays until it is stopped")
    up.add_argument("--nodes", type=int, default=3)
    up.add_argument("--name")
    up.add_argument("--instances", nargs="*", default=[])
    down = commands.add_parser("down", help="stop one, or all")
    down.add_argument("name", nargs="?")
    down.add_argument("--all", action="store_true")
    commands.add_parser("list", help="the names of all")
    commands.add_parser("sweep", help="remove what dead ones left behind")
    save = commands.add_parser("save", help=f"make clusters of one to three nodes, to start from: {SAVED}=DIRECTORY")
    save.add_argument("directory")
    options = parser.parse_args(argv)
    if options.command == "up":
        cluster = Cluster(
            options.nodes,
            options.instances,
            name=options.name,
            keep=True,
            progress=lambda text: print(text, file=sys.stderr),
        )
        print("\n".join(_describe(cluster.up())))
    elif options.command == "down":
        if not options.all and not options.name:
            parser.error("down needs a NAME or --all")
        for name in names() if options.all else [options.name]:
            stop(name)
    elif options.command == "list":
        for name in names():
            print(name, "running" if _read_state(name).get("init") else "starting")
    elif options.command == "save":
        for nodes in (1, 2, 3):
            with Cluster(nodes) as cluster:
                cluster.save(options.directory)
    else:
        for name in sweep():
            print(name)
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["_keeper"]:
        sys.exit(_keeper(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
    try:
        sys.exit(main())
    except ClusterError as err:
        sys.exit(f"vcluster: {err}")
