# SPDX-License-Identifier: BSD-2-Clause
"""How long each daemon takes until it listens: our wrapper beside Ganeti's own script.

Run by `make bench`. The two are started in turn, on one cluster, and what counts is the
ratio of the medians (bar of the first issue: at most 1.15).
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.bench.progress import say
from tests.bench.report import Row, bootstrap, median, ratio, row
from tests.cluster.vcluster import Cluster

#: Daemon -> its port.
DAEMONS = {"rapi": 5080, "noded": 1811}
BAR = 1.15

#: Runs inside the cluster's namespaces: starts the daemon in the foreground, tries its port
#: until it answers, and prints wall and CPU seconds up to then.
PROBE = """
import os, signal, socket, subprocess, sys, time
port, address, *command = sys.argv[1:]
began = time.monotonic()
daemon = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
while True:
    try:
        socket.create_connection((address, int(port)), 1).close()
        break
    except OSError:
        if daemon.poll() is not None:
            sys.exit("the daemon ended: " + str(daemon.returncode))
        time.sleep(0.002)
wall = time.monotonic() - began
fields = open("/proc/%d/stat" % daemon.pid).read().rsplit(")", 1)[1].split()
cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
daemon.send_signal(signal.SIGTERM)
daemon.wait()
print(wall, cpu)
"""


def start(cluster: Cluster, daemon: str, program: str) -> tuple[float, float]:
    """Wall and CPU seconds of one start until the port answers."""
    command = [program, "-f", "-b", cluster.address("node1")]
    if daemon == "rapi":
        command = ["setpriv", "--reuid=gnt-rapi", "--regid=gnt-rapi", "--init-groups", *command]
    probe = ["/usr/bin/python3", "-c", PROBE, str(DAEMONS[daemon]), cluster.address("node1"), *command]
    wall, cpu = cluster.run("node1", *probe).stdout.split()
    return float(wall), float(cpu)


def measure(tiny: bool = False) -> Iterator[Row]:
    """A row for each daemon."""
    runs = 1 if tiny else 10
    with Cluster(nodes=1, rapi_users="admin secret write\n") as cluster:
        for daemon in DAEMONS:
            cluster.run("node1", "/usr/lib/ganeti/daemon-util", "stop", f"ganeti-{daemon}")
            results: dict[str, list[tuple[float, float]]] = {"stock": [], "ours": []}
            for number in range(runs + 1):
                for kind, suffix in (("stock", ".distrib"), ("ours", "")):
                    result = start(cluster, daemon, f"/usr/sbin/ganeti-{daemon}{suffix}")
                    if number:  # the first of each only warms the caches
                        results[kind].append(result)
                say(f"{daemon}: {number} of {runs}")
            (ours, ours_cpu), (stock, stock_cpu) = (zip(*results[kind]) for kind in ("ours", "stock"))
            yield row(
                f"ganeti-{daemon} until it listens",
                f"{median(ours) * 1000:.0f} ms (CPU {median(ours_cpu) * 1000:.0f})",
                f"{median(stock) * 1000:.0f} ms (CPU {median(stock_cpu) * 1000:.0f})",
                bootstrap(ours, stock, ratio),
                BAR,
                form=".3f",
            )
