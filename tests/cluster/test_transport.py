# SPDX-License-Identifier: BSD-2-Clause
"""A reply arrives whole at whoever is slow, and nobody holds the daemon by leaving the closing to it."""

from __future__ import annotations

import json
import os
import socket
import time
from typing import Any

from OpenSSL import SSL

from ganeti_ext import switches
from tests.cluster.nodes import children
from tests.cluster.vcluster import RAPI_PORT, Cluster
from tests.waiting import wait_for

FIELDS = ["name"] * 2500
BODY = json.dumps({"fields": FIELDS})


class Slow:
    """A client with a window of some KiB, which reads when it is told to."""

    def __init__(self, cluster: Cluster, request: str) -> None:
        self.socket = cluster.connect(RAPI_PORT)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
        context = SSL.Context(SSL.SSLv23_METHOD)  # any TLS; bullseye has no other name for it
        self.tls = SSL.Connection(context, self.socket)
        self.socket.settimeout(None)
        self.tls.set_connect_state()
        self.tls.do_handshake()
        self.tls.sendall(request.encode())

    def read(self, pause: float = 0) -> bytes:
        """All that comes, to the end that TLS has for it."""
        data = b""
        while True:
            time.sleep(pause)
            try:
                data += self.tls.recv(1 << 16)
            except SSL.ZeroReturnError:
                return data


def request(method: str, path: str, body: str = "", *headers: str) -> str:
    """As a client that would keep the connection writes it."""
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: node1",
        "Authorization: Basic YWRtaW46c2VjcmV0",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return "\r\n".join([*lines, "", body])


LARGE = request("PUT", "/2/query/instance", BODY, "Connection: close")


def check(reply: bytes) -> None:
    """Whether it is all of it."""
    head, _, body = reply.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    rows = json.loads(body)["data"]
    assert rows and all(len(row) == len(FIELDS) for row in rows)


def wait_idle(cluster: Cluster) -> None:
    """Until the remote API serves nobody."""
    wait_for(lambda: not children(cluster.daemon_pid("rapi")), 30)


def test_a_slow_client_gets_all(fresh: Cluster) -> None:
    """Also what has long been closed by the daemon."""
    client = Slow(fresh, LARGE)
    wait_idle(fresh)
    check(client.read(pause=0.001))


def test_a_client_that_has_said_all_gets_all(fresh: Cluster) -> None:
    """Its goodbye is there before the reply, and nobody has read it."""
    client = Slow(fresh, LARGE)
    client.tls.shutdown()
    client.socket.shutdown(socket.SHUT_WR)
    wait_idle(fresh)
    check(client.read())


def test_clients_that_linger_hold_nobody(fresh: Cluster) -> None:
    """As many as the daemon has places; Ganeti's own waits a second for each."""
    clients = [Slow(fresh, request("GET", "/version", "", "Connection: close")) for _ in range(25)]
    wait_idle(fresh)
    for client in clients:
        assert client.read().endswith(b"2\n")
        client.socket.close()


def test_each_can_be_switched_off(fresh: Cluster) -> None:
    """And what is wrong in the file is told, and changes nothing."""
    path = fresh.node_path(fresh.master, "etc/default/ganeti-ext")
    names = [name for name in switches.NAMES if name.startswith("RAPI_")]
    with open(path, "w", encoding="utf-8") as stream:
        stream.writelines(f"{name}=no\n" for name in names)
        stream.write("RAPI_NO_SUCH=no\n")
    try:
        before = len(fresh.rapi_log())
        fresh.restart("rapi")
        log = fresh.rapi_log()[before:]
        for name in names:
            assert f"{name} is switched off" in log
        assert f"line {len(names) + 1} is not taken: 'RAPI_NO_SUCH'" in log
        client = Slow(fresh, LARGE)
        check(client.read())
    finally:
        os.unlink(path)
        fresh.restart("rapi")
    before = len(fresh.rapi_log())
    fresh.restart("rapi")
    assert "is switched off" not in fresh.rapi_log()[before:]


def test_a_log_at_debug_level_has_all(fresh: Cluster) -> None:
    before = len(fresh.rapi_log())
    fresh.restart("rapi", args=["-d"])
    try:
        answers: Any = fresh.rapi("GET", "/version", user="admin")
        assert answers[0] == 200
        assert "Connection from" in fresh.rapi_log()[before:]
    finally:
        fresh.restart("rapi")
