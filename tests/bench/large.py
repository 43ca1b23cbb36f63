# SPDX-License-Identifier: BSD-2-Clause
"""One cluster for all parts, with as many instances as wanted, and two RAPI daemons at once: Ganeti's and ours."""

from __future__ import annotations

import base64
import contextlib
import copy
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from tests.bench.counter import CpuCounter
from tests.cluster.nodes import children, lives
from tests.cluster.vcluster import DAEMON_UTIL, Cluster, ClusterError

TENANT, OTHER = "tenant.example.com", "other.example.com"
TAG, GROUP = "tenant:one", "tenants"
#: The nodes of the instances.
PLACES = {TENANT: "node2", OTHER: "node1"}

#: How each user of the tenant is limited to the same instances. `admin` is not.
SCOPES = {"named": f'name: "*.{TENANT}"', "tagged": f'tag: "{TAG}"', "grouped": f"group: {GROUP}"}
USERS = "admin secret write\nreader secret read\n"
USERS += "".join(f"{user} secret @{user}\n" for user in (*SCOPES, "colleague"))
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


class World:
    """A cluster of as many instances as wanted, with Ganeti's RAPI daemon and ours on it.

    The tenant's `vmN.` are on node2, in a group and with a tag, the others on node1.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        cluster.set_policy(POLICY)
        cluster.gnt("gnt-group", "add", GROUP)
        cluster.gnt("gnt-group", "assign-nodes", GROUP, "node2")
        for (domain, node), tags in zip(PLACES.items(), ([TAG], [])):
            cluster.add_instance(f"vm1.{domain}", node, tags=tags, nics=[{}])
        self.servers = servers(cluster)
        self._size = (1, 1)

    def resize(self, tenants: int, others: int) -> str:
        """Has so many instances from now on; says how many these are.

        One of each kind was made by Ganeti; the rest are written into its configuration, and into the files of its
        fake hypervisor, while its daemons are stopped: creating a thousand would take half an hour.
        """
        text = f"{tenants + others:,} instances"
        if self._size == (tenants, others):
            return text
        self._size = (tenants, others)
        counts = dict(zip(PLACES, (tenants, others)))
        for daemon in ("luxid", "wconfd"):
            self.cluster.run("node1", DAEMON_UTIL, "stop", f"ganeti-{daemon}")
        for node in self.cluster.nodes:
            path = self.cluster.node_path(node, "var/lib/ganeti/config.data")
            with open(path, encoding="utf-8") as stream:
                config = json.load(stream)
            models = {one["name"]: one for one in config["instances"].values() if one["name"].startswith("vm1.")}
            config["instances"] = {one["uuid"]: one for one in models.values()}
            for domain, count in counts.items():
                for number in range(2, count + 1):
                    instance = copy.deepcopy(models[f"vm1.{domain}"])
                    instance["name"] = f"vm{number}.{domain}"
                    own = uuid.uuid5(uuid.NAMESPACE_DNS, instance["name"])
                    instance["uuid"] = str(own)
                    (nic,) = instance["nics"]
                    nic["uuid"], nic["mac"] = str(uuid.uuid5(own, "nic")), "aa:00:00:" + own.bytes[:3].hex(":")
                    config["instances"][instance["uuid"]] = instance
            with open(path, "w", encoding="utf-8") as stream:
                json.dump(config, stream)
        for domain, node in PLACES.items():
            running = self.cluster.node_path(node, "var/run/ganeti/fake-hypervisor")
            for name in os.listdir(running):
                if name != f"vm1.{domain}":
                    os.unlink(f"{running}/{name}")
            for number in range(2, counts[domain] + 1):
                shutil.copy2(f"{running}/vm1.{domain}", f"{running}/vm{number}.{domain}")
        for daemon in ("wconfd", "luxid"):
            self.cluster.run("node1", DAEMON_UTIL, "start", f"ganeti-{daemon}")
        _wait_for_luxid(self.cluster)
        assert len(self.cluster.luxi("QueryInstances", [], ["name"], False)) == tenants + others
        for server in self.servers.values():
            server.find_luxid()
        return text


_kept: list[contextlib.ExitStack] = []
_worlds: list[World] = []


@contextlib.contextmanager
def sharing() -> Iterator[None]:
    """Inside there is one `world` for all who ask, to the end of the outermost."""
    if _kept:
        yield
        return
    with contextlib.ExitStack() as stack:
        stack.callback(_worlds.clear)
        stack.callback(_kept.clear)
        _kept.append(stack)
        yield


def world() -> World:
    """The one of `sharing`, made for the first who asks. Raises ClusterError."""
    assert _kept, "only inside of sharing()"
    if not _worlds:
        _worlds.append(World(_kept[0].enter_context(Cluster(nodes=2, rapi_users=USERS))))
    return _worlds[0]


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
        certificate = cluster.node_path("node1", "var/lib/ganeti/rapi.pem")
        self.as_clients_have_it = client_context(certificate)
        # With TLS 1.3 Ganeti's answer waits 40 ms for the client's acknowledgement of the session tickets
        # (`docs/performance.md`), in which what a decision takes would be lost.
        self.without_tickets = client_context(certificate)
        self.without_tickets.maximum_version = ssl.TLSVersion.TLSv1_2

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

    def stop(self) -> None:
        """Ends it."""
        os.kill(self._pid, signal.SIGTERM)
        while lives(self._pid):
            time.sleep(0.01)

    def _find(self) -> int:
        with open(self._own, encoding="ascii") as stream:
            inner = stream.read().strip()
        pid = self._cluster.pid_of(inner)
        if pid is None:
            raise LookupError("not there yet")
        return pid

    def ask(
        self,
        user: str,
        method: str,
        path: str,
        body: Any = None,
        tickets: bool = False,
        connect: Callable[[int], socket.socket] | None = None,
    ) -> Sample:
        """One request on a connection of its own, by TLS 1.2, or with `tickets` 1.3 as clients have it.

        `connect` makes the connection to a port of the server; else it comes from inside of the cluster.
        Raises OSError, http.client.HTTPException.
        """
        fields = {"Authorization": authorization(user)}
        context = self.as_clients_have_it if tickets else self.without_tickets
        data = None
        if body is not None:
            data, fields["Content-Type"] = json.dumps(body).encode(), "application/json"
        connection = http.client.HTTPConnection("node1", self.port)
        assert self._counter is not None
        luxid = self._luxid.read()
        before = self._counter.read()
        with (connect or self._cluster.connect)(self.port) as plain:
            began = time.perf_counter()
            with context.wrap_socket(plain) as secure:
                connection.sock = secure
                connection.request(method, path, data, fields)
                response = connection.getresponse()
                response.read()
                latency = time.perf_counter() - began
        self.wait_for_children()
        cpu = self._counter.read() - before
        return Sample(response.status, latency, cpu, cpu + self._luxid.read() - luxid)

    def wait_for_children(self) -> None:
        """Waits until the child that served a request has ended: only then its time is the daemon's."""
        deadline = time.monotonic() + 10
        while children(self._pid):
            assert time.monotonic() < deadline, f"a child of {self.name} does not end"
            time.sleep(0.0005)


def client_context(certificate: str) -> ssl.SSLContext:
    """As a client of the remote API has it, which knows the cluster's certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(certificate)
    return context


def authorization(user: str) -> str:
    """The value of the header."""
    return "Basic " + base64.b64encode(f"{user}:secret".encode()).decode()


def servers(cluster: Cluster) -> dict[str, Server]:
    """Ganeti's and ours, in place of the cluster's own."""
    cluster.run("node1", DAEMON_UTIL, "stop", "ganeti-rapi")
    started = {}
    for name, suffix, port in (("stock", ".distrib", 5081), ("ours", "", 5082)):
        started[name] = Server(cluster, name, f"/usr/sbin/ganeti-rapi{suffix}", port)
        started[name].start()
    os.sync()
    return started
