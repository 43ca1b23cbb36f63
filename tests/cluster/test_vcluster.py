# SPDX-License-Identifier: BSD-2-Clause
"""The test cluster itself: it works, and however it ends nothing is left of it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys

import pytest

from tests.cluster import vcluster
from tests.cluster.vcluster import Cluster, ClusterError
from tests.waiting import wait_for

SCRIPT = os.path.abspath(vcluster.__file__)
#: What is there before; a chroot of `make matrix` has a bridge of its own.
DEVICES = socket.if_nameindex()
#: A process that makes a cluster, says so, and does nothing until it is killed.
CALLER = """
import sys, time
sys.path.insert(0, sys.argv[1])
from tests.cluster.vcluster import Cluster
cluster = Cluster(nodes=1, name=sys.argv[2])
cluster.up()
print("up", flush=True)
time.sleep(3600)
"""


def host_files() -> dict[str, bytes]:
    """Every file of the host that a careless cluster could touch."""
    found = {}
    for top in ("/etc/hosts", "/etc/ssh", "/etc/netns", "/root/.ssh", "/run/netns"):
        paths = [top] if os.path.isfile(top) else []
        for directory, _, files in os.walk(top):
            paths += [directory] + [os.path.join(directory, file) for file in files]
        for path in paths:
            if os.path.isdir(path):
                found[path] = b"directory"
            else:
                with open(path, "rb") as stream:
                    found[path] = stream.read()
    return found


def namespace(cluster: Cluster) -> str:
    """The process namespace of a running cluster."""
    return os.readlink(f"/proc/{min(cluster.pids())}/ns/pid")


def traces(name: str, inside: str) -> list[str]:
    """What is left of a cluster: processes, mounts, files, network devices."""
    left = (
        [path for path in os.listdir(vcluster.BASE) if path.startswith(name)] if os.path.exists(vcluster.BASE) else []
    )
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as stream:
                command = stream.read()
            if os.readlink(f"/proc/{pid}/ns/pid") == inside or vcluster.BASE + "/" + name in command:
                left.append(command)
    with open("/proc/self/mountinfo", encoding="utf-8") as stream:
        left += [line for line in stream if name in line]
    left += [device[1] for device in socket.if_nameindex() if device[1] == "br0" and device not in DEVICES]
    return left


def names_of(cluster: Cluster) -> list[str]:
    """The instances that a GET over TLS shows."""
    status, _, body = cluster.rapi("GET", "/2/instances", user="admin")
    assert status == 200
    return sorted(instance["id"] for instance in json.loads(body))


def test_version(cluster: Cluster) -> None:
    status, headers, body = cluster.rapi("GET", "/version", user="admin")
    assert (status, headers["Content-Type"], body) == (200, "application/json", b"2\n")


def test_instances(cluster: Cluster) -> None:
    assert set(cluster.instances) <= set(names_of(cluster))


def test_credentials(cluster: Cluster) -> None:
    assert cluster.rapi("GET", "/2/instances")[0] == 401
    assert cluster.rapi("GET", "/2/instances", user="admin", password="wrong")[0] == 401
    assert cluster.rapi("GET", "/2/instances", user="nobody", password="secret")[0] == 401


def test_creation_without_a_node_asks_hail(cluster: Cluster) -> None:
    body = {
        "__version__": 1,
        "mode": "create",
        "instance_name": "new.test.example.com",
        "disk_template": "diskless",
        "disks": [],
        "nics": [],
        "os_type": "noop",
        "name_check": False,
        "ip_check": False,
        "beparams": {"memory": 128},
    }
    status, _, answer = cluster.rapi("POST", "/2/instances", user="admin", body=body)
    assert status == 200
    assert cluster.job(int(answer))[0] == "success"
    assert "new.test.example.com" in names_of(cluster)


def test_failed_job(cluster: Cluster) -> None:
    job_id = cluster.luxi(
        "SubmitJob",
        [{"OP_ID": "OP_INSTANCE_REBOOT", "instance_name": "none.example.com", "reboot_type": "hard", "reason": []}],
    )
    status, result = cluster.job(job_id)
    assert status == "error"
    assert "none.example.com" in str(result)


def test_users_and_policy(fresh: Cluster) -> None:
    fresh.set_rapi_users("reader other read\n")
    assert fresh.rapi("GET", "/2/nodes", user="reader")[0] == 200
    assert fresh.rapi("GET", "/2/nodes", user="admin", password="secret")[0] == 401
    fresh.set_policy("version: 1\n")
    for node in fresh.nodes:
        path = fresh.node_path(node, vcluster.POLICY_FILE)
        info = os.stat(path)
        assert (info.st_uid, info.st_gid, info.st_mode & 0o7777) == (0, 0, 0o644)
    fresh.remove_policy()
    assert not os.path.exists(path)


def test_restart_with_arguments(cluster: Cluster) -> None:
    old = cluster.daemon_pid("rapi")
    cluster.restart("rapi", env={"VCLUSTER_TEST": "yes"}, args=["--debug"])
    pid = cluster.daemon_pid("rapi")
    assert pid != old
    with open(f"/proc/{pid}/cmdline", "rb") as stream:
        command = stream.read().split(b"\0")
    assert b"--debug" in command and b"--require-authentication" in command
    with open(f"/proc/{pid}/environ", "rb") as stream:
        assert b"VCLUSTER_TEST=yes" in stream.read().split(b"\0")
    cluster.restart("rapi")
    cluster.restart("noded", "node2")


def test_run(cluster: Cluster) -> None:
    assert cluster.run("node2", "cat", input="süß").stdout == "süß"
    assert cluster.run("node2", "false", check=False).returncode == 1
    with pytest.raises(ClusterError, match="no such thing(.|\n)*node1: rapi-daemon.log"):
        cluster.gnt("sh", "-c", "echo no such thing; exit 3")
    # SSH goes from node to node with the cluster's own keys.
    ssh = cluster.run(
        "node1",
        "ssh",
        "-oStrictHostKeyChecking=no",
        "-oUserKnownHostsFile=/dev/null",
        "node3",
        "echo",
        "$SSH_CONNECTION",
    )
    assert ssh.stdout.split()[2] == cluster.address("node3")


def test_directories_are_safe_for_restricted_commands(cluster: Cluster) -> None:
    path = cluster.node_path("node1", "etc/ganeti")
    while path != "/":
        info = os.stat(path)
        assert info.st_uid == 0 and not info.st_mode & 0o022, path
        path = os.path.dirname(path)


def test_killed_caller_leaves_nothing(cluster: Cluster) -> None:
    """A second cluster, of another process, beside the first; then kill -9 of that process."""
    before = host_files()
    with subprocess.Popen(
        [sys.executable, "-c", CALLER, os.path.dirname(SCRIPT), "killed-test"],
        stdout=subprocess.PIPE,
        text=True,
    ) as caller:
        assert caller.stdout
        assert caller.stdout.readline() == "up\n"
        other = Cluster.attach("killed-test")
        inside = namespace(other)
        assert inside != namespace(cluster)
        assert names_of(other) == [] and set(cluster.instances) <= set(names_of(cluster))
        caller.kill()
    wait_for(lambda: traces("killed-test", inside) == [], 60)
    assert host_files() == before
    assert set(cluster.instances) <= set(names_of(cluster))


def test_by_hand(cluster: Cluster) -> None:
    """The script's `up` outlives its process; `down` leaves nothing."""
    before = host_files()
    script = [sys.executable, SCRIPT]
    made = subprocess.run(
        [*script, "up", "--nodes", "1", "--name", "hand-test"], stdout=subprocess.PIPE, text=True, check=True
    )
    try:
        commands = dict(line.split(None, 1) for line in made.stdout.splitlines())
        inside = namespace(Cluster.attach("hand-test"))
        assert "hand-test running" in subprocess.check_output([*script, "list"], text=True)
        answer = subprocess.check_output(commands["rapi"], shell=True, text=True)
        assert json.loads(answer) == []
        with pytest.raises(ClusterError, match="already"):
            Cluster(name="hand-test").up()
        assert "hand-test" in vcluster.names()
    finally:
        subprocess.run([*script, "down", "hand-test"], check=True)
    assert traces("hand-test", inside) == []
    assert host_files() == before
    with pytest.raises(ClusterError):
        Cluster.attach("hand-test")
    assert cluster.rapi("GET", "/version", user="admin")[0] == 200


def test_killed_keeper_is_swept() -> None:
    """Without its keeper a cluster dies too; its files wait for the next sweep."""
    cluster = Cluster(name="swept-test")
    cluster._start_keeper()
    inside = namespace(cluster)
    assert cluster._keeper
    cluster._keeper.kill()
    cluster._keeper.wait()
    wait_for(lambda: not any(inside in line for line in traces("swept-test", inside)), 60)
    wait_for(lambda: "swept-test" in vcluster.sweep() or not os.path.exists(cluster.root), 60)
    wait_for(lambda: traces("swept-test", inside) == [], 60)
    cluster.down()


def test_failed_start_leaves_nothing() -> None:
    cluster = Cluster(nodes=1, name="failed-test", disk_templates=["no-such-template"])
    with pytest.raises(ClusterError, match="gnt-cluster (.|\n)*no-such-template"):
        cluster.up()
    assert traces("failed-test", "none") == []
