# SPDX-License-Identifier: BSD-2-Clause
"""A cluster with as many instances as wanted, and two RAPI daemons on it at once: Ganeti's and ours."""

from __future__ import annotations

import base64
import contextlib
import copy
import ctypes
import http.client
import json
import os
import re
import shutil
import ssl
import struct
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tests.cluster.vcluster import DAEMON_UTIL, Cluster, ClusterError

TENANT, OTHER = "tenant.example.com", "other.example.com"
TAG, GROUP = "tenant:one", "tenants"

#: How each user of the tenant is limited to the same instances. `admin` is not.
SCOPES = {"named": f'name: "*.{TENANT}"', "tagged": f'tag: "{TAG}"', "grouped": f"group: {GROUP}"}
USERS = "admin secret write\n" + "".join(f"{user} secret @{user}\n" for user in (*SCOPES, "colleague"))
POLICY = "version: 1\nroles:\n" + "".join(
    f"""\
  {user}:
    permissions: ["@operator", tags.set, jobs.cancel]
    scope: {{instances: {{{scope}}}}}
"""
    for user, scope in (*SCOPES.items(), ("colleague", SCOPES["named"]))
)

#: Jobs that wait, so that the machine does not run them in the middle of a measurement.
PAUSED = ("OP_INSTANCE_REBOOT", "OP_TAGS_SET")

#: The RAPI's user of Ganeti's packages.
RAPI_USER = "gnt-rapi"


def add_instances(cluster: Cluster, tenants: int, others: int) -> None:
    """Makes `vmN.` instances: the tenant's on node2, in a group and with a tag, the others on node1.

    One of each is made by Ganeti; the rest are written into its configuration, and into the files of its
    fake hypervisor, while its daemons are stopped: creating a thousand would take half an hour.
    """
    cluster.gnt("gnt-group", "add", GROUP)
    cluster.gnt("gnt-group", "assign-nodes", GROUP, "node2")
    cluster.add_instance(f"vm1.{TENANT}", "node2", tags=[TAG])
    cluster.add_instance(f"vm1.{OTHER}", "node1")
    for daemon in ("luxid", "wconfd"):
        cluster.run("node1", DAEMON_UTIL, "stop", f"ganeti-{daemon}")
    for node in cluster.nodes:
        path = cluster.node_path(node, "var/lib/ganeti/config.data")
        with open(path, encoding="utf-8") as stream:
            config = json.load(stream)
        models = {one["name"]: one for one in config["instances"].values()}
        for domain, count in ((TENANT, tenants), (OTHER, others)):
            for number in range(2, count + 1):
                instance = copy.deepcopy(models[f"vm1.{domain}"])
                instance["name"] = f"vm{number}.{domain}"
                instance["uuid"] = str(uuid.uuid5(uuid.NAMESPACE_DNS, instance["name"]))
                config["instances"][instance["uuid"]] = instance
        with open(path, "w", encoding="utf-8") as stream:
            json.dump(config, stream)
    for node, domain, count in (("node2", TENANT, tenants), ("node1", OTHER, others)):
        for number in range(2, count + 1):
            running = cluster.node_path(node, "var/run/ganeti/fake-hypervisor")
            shutil.copy2(f"{running}/vm1.{domain}", f"{running}/vm{number}.{domain}")
    for daemon in ("wconfd", "luxid"):
        cluster.run("node1", DAEMON_UTIL, "start", f"ganeti-{daemon}")
    _wait_for_luxid(cluster)
    assert len(cluster.luxi("QueryInstances", [], ["name"], False)) == tenants + others


def _wait_for_luxid(cluster: Cluster) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            cluster.luxi("QueryClusterInfo")
            return
        except (OSError, ClusterError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


@contextlib.contextmanager
def paused(cluster: Cluster) -> Iterator[None]:
    """Jobs of the kinds in PAUSED are taken, and wait."""
    predicate = json.dumps([["opcode", ["|", *(["=", "OP_ID", kind] for kind in PAUSED)]]])
    cluster.gnt("gnt-filter", "add", "--priority=0", f"--predicates={predicate}", "--action=PAUSE")
    try:
        yield
    finally:
        clear_jobs(cluster)
        for (identifier,) in cluster.luxi("QueryFilters", None, ["uuid"]):
            cluster.gnt("gnt-filter", "delete", identifier)


def clear_jobs(cluster: Cluster) -> None:
    """Cancels and archives the jobs that wait: luxid's work grows with their number."""
    for job, status in cluster.luxi("QueryJobs", None, ["id", "status"]):
        if status == "queued":
            cluster.luxi("CancelJob", job, False)
        with contextlib.suppress(ClusterError):  # not cancelled yet: the next time
            cluster.luxi("ArchiveJob", job)


def add_jobs(cluster: Cluster, users: Mapping[str, int]) -> dict[str, list[int]]:
    """Ended jobs in the queue, so many of each user of the RAPI; their ids.

    One is made by Ganeti; the rest are copies of its file, made while luxid is stopped.
    """
    opcode = {
        "OP_ID": "OP_INSTANCE_REBOOT",
        "instance_name": f"vm1.{TENANT}",
        "reboot_type": "hard",
        "reason": [["gnt:ext:rapi-user", "USER", 1], ["gnt:library:rlib2:R_2_instances_name_reboot", "", 2]],
    }
    with paused(cluster):
        model = int(cluster.luxi("SubmitJob", [opcode]))
        cluster.luxi("CancelJob", model, False)
        queue = cluster.node_path("node1", "var/lib/ganeti/queue")
        cluster.job(model)
        with open(f"{queue}/job-{model}", encoding="utf-8") as stream:
            text = stream.read()
    cluster.run("node1", DAEMON_UTIL, "stop", "ganeti-luxid")
    status = os.stat(f"{queue}/serial")
    found: dict[str, list[int]] = {user: [] for user in users}
    number = model
    for user, count in users.items():
        for _ in range(count):
            number += 1
            job = json.loads(text.replace('"USER"', f'"{user}"'))
            job["id"] = number
            found[user].append(number)
            with open(f"{queue}/job-{number}", "w", encoding="utf-8") as stream:
                json.dump(job, stream)
            os.chown(f"{queue}/job-{number}", status.st_uid, status.st_gid)
            os.chmod(f"{queue}/job-{number}", 0o640)
    with open(f"{queue}/serial", "w", encoding="ascii") as stream:
        stream.write(f"{number}\n")
    cluster.run("node1", DAEMON_UTIL, "start", "ganeti-luxid")
    _wait_for_luxid(cluster)
    return found


class Sample(NamedTuple):
    """One request: its status, the seconds until the last byte was there, and the CPU seconds of the daemon.

    `all_cpu` are those of the daemon and of luxid.
    """

    status: int
    latency: float
    cpu: float
    all_cpu: float


class Server:
    """A RAPI daemon beside the cluster's own: `program` on `port`, with a pid file of its own."""

    def __init__(self, cluster: Cluster, name: str, program: str, port: int) -> None:
        self.name = name
        self.port = port
        self._cluster = cluster
        self._command = [program, "-b", cluster.address("node1"), "-p", str(port), "--require-authentication"]
        self._own = cluster.node_path("node1", f"var/run/ganeti/bench-{name}.pid")
        self._ganetis = cluster.node_path("node1", "var/run/ganeti/ganeti-rapi.pid")
        self._pid = 0
        self._counter: CpuCounter | None = None
        self.find_luxid()
        self._certificate = cluster.node_path("node1", "var/lib/ganeti/rapi.pem")
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname = False
        self._context.load_verify_locations(self._certificate)
        # With TLS 1.3 Ganeti's answer waits 40 ms for the client's acknowledgement of the session tickets
        # (`facts.md`), in which all that is measured here would be lost.
        self._context.maximum_version = ssl.TLSVersion.TLSv1_2

    def find_luxid(self) -> None:
        """To be called when luxid was started anew."""
        self._luxid = CpuCounter(self._cluster.daemon_pid("luxid"))

    def start(self) -> None:
        """Starts it. Raises ClusterError, or AssertionError if it does not answer."""
        for path in (self._own, self._ganetis):
            with open(path, "a", encoding="ascii"):
                shutil.chown(path, RAPI_USER, RAPI_USER)
        script = 'mount --make-rprivate /; mount --bind "$1" "$2"; shift 2; exec "$@"'
        as_user = ["setpriv", f"--reuid={RAPI_USER}", f"--regid={RAPI_USER}", "--init-groups"]
        self._cluster.run(
            "node1", "unshare", "-m", "sh", "-c", script, "sh", self._own, self._ganetis, *as_user, *self._command
        )
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(ConnectionError, http.client.HTTPException, LookupError):
                if self._counter is None:
                    self._pid = self._find()
                    self._counter = CpuCounter(self._pid)
                assert self.ask("admin", "GET", "/2/features").status == 200
                return
            assert time.monotonic() < deadline, f"{self.name} does not answer"
            time.sleep(0.05)

    def _find(self) -> int:
        with open(self._own, encoding="ascii") as stream:
            inner = stream.read().strip()
        for pid in self._cluster.pids():
            with contextlib.suppress(OSError), open(f"/proc/{pid}/status", encoding="utf-8") as stream:
                if inner and re.search(rf"^NSpid:.*\s{inner}$", stream.read(), re.MULTILINE):
                    return pid
        raise LookupError("not there yet")

    def ask(self, user: str, method: str, path: str, body: Any = None) -> Sample:
        """One request on a connection of its own. Raises OSError, http.client.HTTPException."""
        token = base64.b64encode(f"{user}:secret".encode()).decode()
        fields = {"Authorization": f"Basic {token}"}
        data = None
        if body is not None:
            data, fields["Content-Type"] = json.dumps(body).encode(), "application/json"
        connection = http.client.HTTPConnection("node1", self.port)
        assert self._counter is not None
        luxid = self._luxid.read()
        before = self._counter.read()
        with self._cluster.connect(self.port) as plain:
            began = time.perf_counter()
            with self._context.wrap_socket(plain) as secure:
                connection.sock = secure
                connection.request(method, path, data, fields)
                response = connection.getresponse()
                response.read()
                latency = time.perf_counter() - began
        self._wait_for_child()
        cpu = self._counter.read() - before
        return Sample(response.status, latency, cpu, cpu + self._luxid.read() - luxid)

    def _wait_for_child(self) -> None:
        """Waits until the child that served a request has ended: only then its time is the daemon's."""
        deadline = time.monotonic() + 10
        while any(map(_runs, _children(self._pid))):
            assert time.monotonic() < deadline, f"a child of {self.name} does not end"
            time.sleep(0.0005)


def _children(pid: int) -> list[str]:
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as stream:
        return stream.read().split()


def _runs(pid: str) -> bool:
    """Whether a process is there and not only waiting to be buried."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", encoding="utf-8") as stream:
        return stream.read().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    return False


class CpuCounter:
    """CPU time of a process and of all children that it makes from now on, to the nanosecond.

    The kernel's own counters (perf_event_open): what /proc tells of ended children is in steps of 10 ms.
    """

    #: The number of the call, which the C library has no name for.
    _CALL = {"x86_64": 298, "aarch64": 241}
    _SOFTWARE, _TASK_CLOCK, _INHERIT = 1, 1, 1 << 1

    def __init__(self, pid: int) -> None:
        """Raises OSError."""
        self._files = [self._open(int(thread)) for thread in os.listdir(f"/proc/{pid}/task")]

    def _open(self, thread: int) -> int:
        size = 64
        attributes = struct.pack("=IIQQQQQ", self._SOFTWARE, size, self._TASK_CLOCK, 0, 0, 0, self._INHERIT)
        libc = ctypes.CDLL(None, use_errno=True)
        buffer = ctypes.create_string_buffer(attributes, size)
        file: int = libc.syscall(self._CALL[os.uname().machine], buffer, thread, -1, -1, 0)
        if file < 0:
            raise OSError(ctypes.get_errno(), "perf_event_open: " + os.strerror(ctypes.get_errno()))
        return file

    def read(self) -> float:
        """Seconds since it was made."""
        return sum(struct.unpack("Q", os.read(file, 8))[0] for file in self._files) / 1e9


def servers(cluster: Cluster) -> dict[str, Server]:
    """Ganeti's and ours, in place of the cluster's own."""
    cluster.run("node1", DAEMON_UTIL, "stop", "ganeti-rapi")
    started = {}
    for name, suffix, port in (("stock", ".distrib", 5081), ("ours", "", 5082)):
        started[name] = Server(cluster, name, f"/usr/sbin/ganeti-rapi{suffix}", port)
        started[name].start()
    os.sync()
    return started
