# SPDX-License-Identifier: BSD-2-Clause
"""Node daemons beside the cluster's own, Ganeti's or ours, and RPCs to them as any master candidate sends them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import ssl
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from tests.cluster import flood
from tests.cluster.vcluster import Cluster, ClusterError

NODED_PORT = 1811

#: Ganeti's own node daemon, which the package has put aside, and ours.
STOCK, OURS = "/usr/sbin/ganeti-noded.distrib", "/usr/sbin/ganeti-noded"


class Answer(NamedTuple):
    """What an RPC gave: whether it worked, its value or the reason, and the seconds that it took."""

    ok: bool
    value: Any
    took: float


def rpc(
    cluster: Cluster,
    method: str,
    params: Sequence[Any] = (),
    *,
    port: int = NODED_PORT,
    source: str = "node1",
    timeout: float = 120,
) -> Answer:
    """Call a node daemon of the master, from the address and with the certificate of the node `source`.

    Raises OSError (ssl.SSLError if one of the two does not take the other's certificate).
    """
    context = _context(cluster, source)
    body = json.dumps(list(params)).encode()
    # No library: what the client takes is in each figure of the benchmark.
    request = b"POST /%s HTTP/1.1\r\nHost: node\r\nContent-Length: %d\r\n\r\n%s" % (method.encode(), len(body), body)
    with cluster.connect(port, timeout, source) as plain:
        began = time.perf_counter()
        with context.wrap_socket(plain, suppress_ragged_eofs=True) as secure:
            secure.sendall(request)
            parts = []
            while part := secure.recv(1 << 16):
                parts.append(part)
        took = time.perf_counter() - began
    head, _, answer = b"".join(parts).partition(b"\r\n\r\n")
    status = head.split(b" ", 2)[1:2]
    if status != [b"200"]:
        return Answer(False, f"HTTP {head.decode(errors='replace')[:100]}", took)
    ok, value = json.loads(answer)
    return Answer(ok, value, took)


def _context(cluster: Cluster, source: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cluster.node_path("node1", "var/lib/ganeti/server.pem"))
    context.load_cert_chain(cluster.node_path(source, "var/lib/ganeti/client.pem"))
    return context


class NodeDaemon:
    """A node daemon of node1 on a port of its own, with memory lock unless `args` have --no-mlock.

    `with NodeDaemon(cluster, STOCK, 1840) as daemon: daemon.rpc("version")`
    """

    def __init__(self, cluster: Cluster, program: str, port: int, *args: str, before: Sequence[str] = ()) -> None:
        self.port = port
        self.pid = 0  # as the host sees it
        self._cluster = cluster
        self._command = [*before, program, "-b", cluster.address("node1"), "-p", str(port), *args]
        self._own = cluster.node_path("node1", f"var/run/ganeti/noded-{port}.pid")
        self._ganetis = cluster.node_path("node1", "var/run/ganeti/ganeti-noded.pid")

    def __enter__(self) -> NodeDaemon:
        """Start it and wait until it answers. Raises ClusterError."""
        with open(self._own, "w", encoding="ascii"):
            pass
        # With its own pid file, or it would not start beside the cluster's.
        script = 'mount --make-rprivate /; mount --bind "$1" "$2"; shift 2; exec "$@"'
        self._cluster.run("node1", "unshare", "-m", "sh", "-c", script, "sh", self._own, self._ganetis, *self._command)
        deadline = time.monotonic() + 60
        while True:
            try:
                self.pid = self.pid or self._find()
                assert self.rpc("version").ok
                return self
            except (OSError, LookupError) as err:
                if time.monotonic() > deadline:
                    raise ClusterError(f"{self._command} does not answer: {err}") from err
            time.sleep(0.05)

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
            while os.path.exists(f"/proc/{self.pid}"):
                time.sleep(0.02)
        os.unlink(self._own)

    def _find(self) -> int:
        with open(self._own, encoding="ascii") as stream:
            inner = stream.read().strip()
        pid = self._cluster.pid_of(inner)
        if pid is None:
            raise LookupError("no process yet")
        return pid

    def rpc(self, method: str, *params: Any, source: str = "node1", timeout: float = 120) -> Answer:
        """Call it (see `rpc`)."""
        return rpc(self._cluster, method, params, port=self.port, source=source, timeout=timeout)

    def children(self) -> list[int]:
        """Its children that live, as the host sees them."""
        return children(self.pid)


def children(parent: int) -> list[int]:
    """The children of a daemon that live: Ganeti's server may bury one only when the next comes."""
    with open(f"/proc/{parent}/task/{parent}/children", encoding="ascii") as stream:
        return [int(pid) for pid in stream.read().split() if lives(int(pid))]


def lives(pid: int) -> bool:
    """Whether a process is there and not only waiting to be buried."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", encoding="utf-8") as stream:
        return stream.read().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    return False


def kib(pid: int, field: str, file: str = "status") -> int:
    """A figure of a process from /proc/PID/`file` (status, smaps_rollup), in KiB. Raises OSError, KeyError."""
    with open(f"/proc/{pid}/{file}", encoding="utf-8") as stream:
        fields = dict(line.split(":", 1) for line in stream if ":" in line)
    return int(fields[field].split()[0])


# --- restricted commands


def add_command(cluster: Cluster, node: str, name: str, body: str, interpreter: str = "/bin/sh") -> str:
    """Put a restricted command onto a node; its path there."""
    directory = cluster.node_path(node, "etc/ganeti/restricted-commands")
    os.makedirs(directory, exist_ok=True)
    os.chmod(directory, 0o755)
    path = os.path.join(directory, name)
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(f"#!{interpreter}\n{body}\n")
    os.chmod(path, 0o755)
    return path


def set_limits(cluster: Cluster, node: str, text: str) -> None:
    """Write a node's restricted-commands.conf."""
    path = cluster.node_path(node, "etc/ganeti/restricted-commands.conf")
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(text)
    os.chmod(path, 0o644)


def remove_commands(cluster: Cluster, node: str) -> None:
    """Take away what the two above have made, and the delays of the node's locks."""
    for path in ("etc/ganeti/restricted-commands", "var/run/ganeti-ext"):
        shutil.rmtree(cluster.node_path(node, path), ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(cluster.node_path(node, "etc/ganeti/restricted-commands.conf"))


class Flood:
    """`with Flood(...) as flood:` a flood of wrong names (see `flood`) goes on meanwhile; then `flood.answers`.

    Each answer is its moment (`time.monotonic`), the seconds that it took, and what the daemon said.
    """

    def __init__(
        self, cluster: Cluster, clients: int, seconds: float = 0, *, source: str, port: int, name: str = "wrong-"
    ) -> None:
        files = [
            cluster.node_path(source, "var/lib/ganeti/client.pem"),
            cluster.node_path("node1", "var/lib/ganeti/server.pem"),
        ]
        arguments: list[object] = [
            clients,
            seconds,
            cluster.address(source),
            cluster.address("node1"),
            port,
            *files,
            name,
        ]
        self._command = ["/usr/bin/python3", flood.__file__, *map(str, arguments)]
        self._cluster = cluster
        self._reader = threading.Thread(target=self._read)
        self.answers: list[tuple[float, float, Any]] = []

    def __enter__(self) -> Flood:
        self._process = self._cluster.start(*self._command)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "flooding\n"
        # Read while it writes: the pipe does not hold them all.
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.join()
        self._process.communicate()
        assert self.answers, "the flood broke off"

    @property
    def goes_on(self) -> bool:
        """Whether an answer is still due."""
        return self._reader.is_alive()

    def _read(self) -> None:
        assert self._process.stdout is not None
        self.answers = [(moment, took, said) for moment, took, said in json.loads(self._process.stdout.read())]
