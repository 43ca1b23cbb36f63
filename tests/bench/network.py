# SPDX-License-Identifier: BSD-2-Clause
"""A client at the end of a long line to the cluster: what it sends and gets arrives later, packet by packet.

By netem where the kernel has it, else by two TUN devices and a process between them. (A relay of connections would
not do: each side of it would have its acknowledgements at once, and it is for those that TCP waits.)

    python3 -m tests.bench.network PID DELAY    PID is any process of the cluster, DELAY in seconds, one way
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import fcntl
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.cluster.vcluster import Cluster

CLONE_NEWNET = 0x40000000
#: `linux/if_tun.h`.
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000
DEVICE, CLUSTERS_END, CLIENTS_END, NODES = "bench", "198.51.100.1", "198.51.100.2", "192.0.2.0/24"
#: Packets on their way at once; a list of a thousand instances is not to be lost in between.
QUEUE = 10_000


def enter(namespace: int) -> None:
    """Moves this thread to a network namespace. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns: " + os.strerror(ctypes.get_errno()))


def namespace(pid: int) -> int:
    """The network namespace of a process, as an open file. Raises OSError."""
    return os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)


@contextlib.contextmanager
def far_client(cluster: Cluster, delay: float) -> Iterator[tuple[Callable[[int], socket.socket], str]]:
    """What connects to a port of node1 by a line of `delay` seconds each way, and what makes the delay.

    Raises OSError, AssertionError if the line is another.
    """
    command = [sys.executable, "-m", "tests.bench.network", str(cluster.daemon_pid("luxid")), str(delay)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    ) as line:
        assert line.stdin and line.stdout
        try:
            kind = line.stdout.readline().strip()
            assert kind, "no line to the cluster"
            here = namespace(line.pid)
            try:
                yield lambda port: _connect(here, (cluster.address("node1"), port), delay), kind
            finally:
                os.close(here)
        finally:
            line.stdin.close()


def _connect(here: int, address: tuple[str, int], delay: float) -> socket.socket:
    result: list[socket.socket] = []

    def inside() -> None:  # only this thread moves
        enter(here)
        began = time.monotonic()
        result.append(socket.create_connection(address, 60))
        took = time.monotonic() - began
        if took < 2 * delay:
            result.clear()

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert result, "no connection, or one without a delay"
    return result[0]


def main(pid: int, delay: float) -> None:
    """Makes the line, says what it is made of, and is it until its input ends."""
    cluster = namespace(pid)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare: " + os.strerror(ctypes.get_errno()))
    client = namespace(os.getpid())
    netem = f"netem delay {delay * 1000:g}ms limit {QUEUE}"
    ends = []
    if _can("tc", f"qdisc add dev lo root {netem}"):
        _must("ip", f"link add {DEVICE} type veth peer name {DEVICE} netns {pid}")
    else:
        ends = [_tun(cluster), _tun(client)]
    for here, own, other in ((cluster, CLUSTERS_END, CLIENTS_END), (client, CLIENTS_END, CLUSTERS_END)):
        enter(here)
        _must("ip", f"addr add {own} peer {other} dev {DEVICE}")
        _must("ip", f"link set {DEVICE} up txqueuelen {QUEUE}")
        if not ends:
            _must("tc", f"qdisc add dev {DEVICE} root {netem}")
    _must("ip", f"route add {NODES} via {CLUSTERS_END}")
    print("TUN" if ends else "netem", flush=True)
    if ends:
        _relay(ends[0], ends[1], delay)
    else:
        sys.stdin.read()
        _must("ip", f"link del {DEVICE}")


def _tun(here: int) -> int:
    enter(here)
    file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(file, TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), IFF_TUN | IFF_NO_PI))
    return file


def _can(program: str, arguments: str) -> bool:
    return subprocess.run([program, *arguments.split()], stderr=subprocess.DEVNULL, check=False).returncode == 0


def _must(program: str, arguments: str) -> None:
    subprocess.run([program, *arguments.split()], check=True)


def _relay(one: int, two: int, delay: float) -> None:
    """Each packet is written to the other end when its time has come."""
    other, end_of_input = {one: two, two: one}, sys.stdin.fileno()
    on_the_way: collections.deque[tuple[float, int, bytes]] = collections.deque()
    while True:
        wait = max(0.0, on_the_way[0][0] - time.monotonic()) if on_the_way else None
        ready = select.select([one, two, end_of_input], [], [], wait)[0]
        if end_of_input in ready:
            return
        for end in ready:
            with contextlib.suppress(BlockingIOError):
                while True:
                    packet = os.read(end, 65536)
                    on_the_way.append((time.monotonic() + delay, other[end], packet))
        while on_the_way and on_the_way[0][0] <= time.monotonic():
            _, end, packet = on_the_way.popleft()
            os.write(end, packet)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
