# SPDX-License-Identifier: BSD-2-Clause
"""Clients that ask again and again, each in a process of its own: how many requests a daemon serves."""

from __future__ import annotations

import gc
import json
import os
import socket
import ssl
import time
import traceback
from dataclasses import dataclass

from tests.bench.large import Server, authorization
from tests.bench.network import enter, namespace
from tests.cluster.vcluster import Cluster

#: Seconds in which lingering clients are not counted: at first all places of the daemon are free.
UNCOUNTED = 1.2


@dataclass(frozen=True)
class Load:
    """Answers per second that clients had, and what share of the processors' time they took themselves."""

    rate: float
    clients_share: float


def load(cluster: Cluster, server: Server, path: str, clients: int, seconds: float, lingering: bool = False) -> Load:
    """So many clients for so long, as user `admin`.

    Those that are `lingering` say `Connection: close`, and leave the closing to the server. Raises OSError,
    AssertionError if a client fails.
    """
    lines = [f"GET {path} HTTP/1.1", "Host: node1", f"Authorization: {authorization('admin')}"]
    if lingering:
        lines.append("Connection: close")
    request = "\r\n".join([*lines, "", ""]).encode()
    address = cluster.address("node1"), server.port
    inside = namespace(cluster.daemon_pid("luxid"))
    begins = time.monotonic() + 0.05 + 0.004 * clients  # until then all are there
    counted = begins + (UNCOUNTED if lingering else 0)
    pipes, children = [], []
    try:
        for _ in range(clients):
            reader, writer = os.pipe()
            child = os.fork()
            if child == 0:
                try:
                    gc.disable()
                    enter(inside)
                    time.sleep(max(0.0, begins - time.monotonic()))
                    found = _ask(address, server.as_clients_have_it, request, counted, counted + seconds, lingering)
                    os.write(writer, json.dumps(found).encode())
                except BaseException:
                    traceback.print_exc()
                os._exit(0)
            children.append(child)
            os.close(writer)
            pipes.append(os.fdopen(reader, "rb"))
        texts = [pipe.read() for pipe in pipes]
    finally:
        os.close(inside)
        for pipe in pipes:
            pipe.close()
    for child in children:
        os.waitpid(child, 0)
    assert all(texts), "a client failed"
    rate, share = map(sum, zip(*map(json.loads, texts)))
    server.wait_for_children()
    return Load(rate, share / (os.cpu_count() or 1))


def _ask(
    address: tuple[str, int], context: ssl.SSLContext, request: bytes, begins: float, until: float, lingering: bool
) -> tuple[float, float]:
    """Whole answers per second, and CPU seconds per second."""
    began, began_cpu = time.monotonic(), time.process_time()
    answers = 0
    while True:
        with socket.create_connection(address, 60) as plain, context.wrap_socket(plain) as secure:
            secure.sendall(request)
            reply = b""
            while not _is_whole(reply):
                data = secure.recv(1 << 16)
                assert data, reply
                reply += data
            assert reply.startswith(b"HTTP/1.1 200"), reply
            now = time.monotonic()
            answers += begins <= now and (now <= until or not lingering)
            if now > until:
                # One after the other: to the end of the last. One that lingers: what falls into the time.
                return answers / ((until if lingering else now) - begins), (time.process_time() - began_cpu) / (
                    now - began
                )
            while lingering and secure.recv(1 << 16):
                pass


def _is_whole(reply: bytes) -> bool:
    head, end, body = reply.partition(b"\r\n\r\n")
    if not end:
        return False
    (length,) = (int(line.split(b":")[1]) for line in head.lower().splitlines() if line.startswith(b"content-length:"))
    return len(body) >= length
