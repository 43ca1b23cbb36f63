# SPDX-License-Identifier: BSD-2-Clause
"""How the daemons start and stop: as Ganeti's own, and without their checks not at all or as Ganeti's."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import tempfile
from collections.abc import Iterator

import pytest

from tests.cluster.vcluster import DAEMON_UTIL, Cluster, ClusterError
from tests.waiting import wait_for

GANETI = os.path.realpath("/usr/share/ganeti/default/ganeti")


@contextlib.contextmanager
def changed_ganeti(cluster: Cluster, file: str, old: str, new: str) -> Iterator[None]:
    """Another Ganeti, inside the cluster only: a copy in which one text is replaced."""
    with tempfile.TemporaryDirectory(dir=cluster.root) as copy:
        shutil.copytree(GANETI, copy, dirs_exist_ok=True, symlinks=True)
        os.chmod(copy, 0o755)
        path = os.path.join(copy, file)
        with open(path, encoding="utf-8") as stream:
            text = stream.read()
        assert old in text
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(text.replace(old, new))
        with mounted(cluster, copy, GANETI):
            yield


@contextlib.contextmanager
def mounted(cluster: Cluster, source: str, target: str) -> Iterator[None]:
    """A directory in the place of another, inside the cluster only."""
    cluster.enter("mount", "--bind", source, target)
    try:
        yield
    finally:
        cluster.enter("umount", "-l", target)


def check(cluster: Cluster, daemon: str, node: str) -> int:
    """What daemon-util says: 0 for a daemon that runs."""
    return cluster.run(node, DAEMON_UTIL, "check", "ganeti-" + daemon, check=False).returncode


@pytest.mark.parametrize(("daemon", "node"), [("rapi", "node1"), ("noded", "node2")])
def test_daemon_util_knows_it(cluster: Cluster, daemon: str, node: str) -> None:
    """It goes by the process's name: a wrapper of another name would look dead, and not be stopped."""
    assert check(cluster, daemon, node) == 0
    pid = cluster.daemon_pid(daemon, node)
    with open(f"/proc/{pid}/comm", encoding="ascii") as stream:
        assert stream.read() == f"ganeti-{daemon}\n"
    try:
        cluster.run(node, DAEMON_UTIL, "stop", "ganeti-" + daemon)
        assert check(cluster, daemon, node) != 0
        assert not os.path.exists(f"/proc/{pid}")
        with pytest.raises(ClusterError):
            cluster.daemon_pid(daemon, node)
        if daemon == "rapi":
            with pytest.raises((OSError, http.client.HTTPException)):
                cluster.rapi("GET", "/version")
    finally:
        cluster.restart(daemon, node)
    assert check(cluster, daemon, node) == 0
    if daemon == "noded":
        cluster.run(node, DAEMON_UTIL, "check-and-start", "ganeti-noded")
        assert live(cluster, node)


def live(cluster: Cluster, node: str) -> bool:
    """Whether the node's daemon answers RPCs."""
    rows = cluster.luxi("QueryNodes", [node], ["name", "mtotal"], False)
    return rows[0][1] is not None


#: What a Ganeti may have that is not as expected -> the file, the change, and the reason that is told.
CHANGES: dict[str, tuple[str, str, str, str]] = {
    "release": ("_constants.py", "\nVERSION_MINOR = ", "\nVERSION_MINOR = 9", "is not known to this ganeti-ext"),
    "signature": (
        "rapi/baserlib.py",
        "def GetHandlerAccess(handler, method):",
        "def GetHandlerAccess(handler, method, more=None):",
        "ganeti.rapi.baserlib.GetHandlerAccess is (handler, method, more=None)",
    ),
    "missing": ("luxi.py", "def CancelJob(", "def CancelJobs(", "no ganeti.luxi.Client.CancelJob"),
    "no-connector": (
        "rapi/connector.py",
        "CONNECTOR = {}",
        "CONNECTOR = __import__('collections').OrderedDict()",
        "CONNECTOR",
    ),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_rapi_refuses(cluster: Cluster, kind: str) -> None:
    """It runs, says why once, and answers nothing but its version."""
    file, old, new, reason = CHANGES[kind]
    try:
        before = len(cluster.rapi_log())
        with changed_ganeti(cluster, file, old, new):
            cluster.restart("rapi")
        assert cluster.rapi("GET", "/version", user="admin")[::2] == (200, b"2\n")
        requests = [
            ("GET", "/2/instances"),
            ("PUT", "/2/modify"),
            ("GET", "/"),
            ("DELETE", "/2/instances/web1.test.example.com"),
        ]
        for method, path in requests:
            status, _, answer = cluster.rapi(method, path, user="admin")
            assert status == 503
            assert reason in json.loads(answer)["message"]
        assert cluster.rapi("GET", "/2/instances")[0] == 503
        assert check(cluster, "rapi", "node1") == 0
        assert cluster.rapi_log()[before:].count("Every request is refused") == 1
        assert "Traceback" not in cluster.rapi_log()[before:]
    finally:
        cluster.restart("rapi")
    assert cluster.rapi("GET", "/2/instances", user="admin")[0] == 200


def test_rapi_refuses_without_our_code(cluster: Cluster) -> None:
    """A broken installation: a new master is not left without its other daemons, nor open."""
    try:
        with tempfile.TemporaryDirectory(dir=cluster.root) as empty:
            os.chmod(empty, 0o755)
            with mounted(cluster, empty, "/usr/lib/python3/dist-packages/ganeti_ext"):
                cluster.restart("rapi")
        for method, path in (("GET", "/2/instances"), ("GET", "/version"), ("PUT", "/2/modify")):
            status, _, answer = cluster.rapi(method, path, user="admin")
            assert (status, "ganeti_ext does not load" in json.loads(answer)["message"]) == (503, True)
        assert check(cluster, "rapi", "node1") == 0
    finally:
        cluster.restart("rapi")
    assert cluster.rapi("GET", "/2/instances", user="admin")[0] == 200


@pytest.mark.parametrize(
    ("file", "old", "new", "reason"),
    [
        CHANGES["release"],
        (
            "server/noded.py",
            "def perspective_restricted_command(params):",
            "def perspective_restricted_command(params, more=None):",
            "perspective_restricted_command is (params, more=None)",
        ),
    ],
    ids=["release", "signature"],
)
def test_noded_runs_as_ganetis(cluster: Cluster, file: str, old: str, new: str, reason: str) -> None:
    """The lifeline: it logs that it runs without us, and does all its work."""
    before = len(cluster.node_log("node2"))
    try:
        with changed_ganeti(cluster, file, old, new):
            cluster.restart("noded", "node2")
        assert check(cluster, "noded", "node2") == 0
        log = cluster.node_log("node2")[before:]
        assert log.count("Runs without ganeti-ext") == 1 and reason in log
        assert "Traceback" not in log
        assert live(cluster, "node2")
        reboot = {"OP_ID": "OP_INSTANCE_REBOOT", "instance_name": "web2.test.example.com", "reboot_type": "hard"}
        assert cluster.job(cluster.luxi("SubmitJob", [{**reboot, "reason": []}]))[0] == "success"
        assert "node2" in cluster.gnt("gnt-cluster", "command", "-n", "node2", "true").stdout
    finally:
        cluster.restart("noded", "node2")


def test_verify_with_a_noded_of_ganetis(cluster: Cluster) -> None:
    """Ganeti's own check of the cluster finds nothing about that node that it does not about the others."""
    try:
        with changed_ganeti(cluster, *CHANGES["release"][:3]):
            cluster.restart("noded", "node3")
        done = cluster.gnt("gnt-cluster", "verify", check=False)
    finally:
        cluster.restart("noded", "node3")
    assert "Verifying node status" in done.stdout
    errors = [line.split("ERROR:")[1] for line in done.stdout.splitlines() if "ERROR:" in line]
    of_node = {node: sorted(line.replace(node, "N") for line in errors if node in line) for node in cluster.nodes}
    assert of_node["node3"] == of_node["node2"] == of_node["node1"]


@pytest.mark.parametrize("daemon", ["rapi", "noded"])
def test_no_ganeti(cluster: Cluster, daemon: str) -> None:
    """One clear line, and no traceback."""
    with tempfile.TemporaryDirectory(dir=cluster.root) as empty, mounted(cluster, empty, GANETI):
        done = cluster.gnt("/usr/sbin/ganeti-" + daemon, "-f", check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"ganeti-{daemon}: Ganeti is not installed")


@pytest.mark.parametrize(("daemon", "node"), [("rapi", "node1"), ("noded", "node2")])
def test_planted_modules(cluster: Cluster, daemon: str, node: str) -> None:
    """What the environment offers as `ganeti` is not imported."""
    with tempfile.TemporaryDirectory(dir=cluster.root) as planted:
        os.chmod(planted, 0o777)
        evil = f"open({planted!r} + '/ran', 'w').close()\nraise SystemExit('planted')\n"
        for module in ("ganeti/__init__.py", "ganeti_ext/__init__.py", "sitecustomize.py", "yaml.py", "logging.py"):
            path = os.path.join(planted, module)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8") as stream:
                stream.write(evil)
        env = {
            "PYTHONPATH": planted,
            "PYTHONSTARTUP": planted + "/yaml.py",
            "PYTHONHOME": planted,
            "PYTHONINSPECT": "1",
        }
        try:
            # daemon-util itself runs Ganeti's tools, which the environment may mislead as ever.
            start(cluster, daemon, node, env)
            assert os.listdir(planted).count("ran") == 0
            if daemon == "rapi":
                assert cluster.rapi("GET", "/2/instances", user="admin")[0] == 200
            else:
                assert live(cluster, node)
        finally:
            cluster.restart(daemon, node)


def start(cluster: Cluster, daemon: str, node: str, env: dict[str, str]) -> None:
    """Starts a daemon with an environment of its own, as daemon-util does."""
    cluster.run(node, DAEMON_UTIL, "stop", "ganeti-" + daemon)
    user = {"rapi": "gnt-rapi:gnt-rapi", "noded": "root:root"}[daemon]
    pid_file = cluster.node_path(node, f"var/run/ganeti/ganeti-{daemon}.pid")
    cluster.run(
        node, "start-stop-daemon", "--start", "--pidfile", pid_file, "--startas", "/usr/sbin/ganeti-" + daemon,
        "--chuid", user, "--", "-b", cluster.address(node), env=env,
    )  # fmt: skip
    wait_for(lambda: check(cluster, daemon, node) == 0, 20)
    if daemon == "rapi":
        cluster.wait_rapi()
