# SPDX-License-Identifier: BSD-2-Clause
"""The daemons under the release's own systemd, as an administrator handles them, on a real cluster.

Up to trixie one init script has all of Ganeti's daemons, and systemd runs that; from sid on each
daemon is a unit of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.package.booted import INIT_CLUSTER, SHIM, Booted, NoSystemd, eventually
from tests.package.test_package import DAEMONS, Process, daemon_util, install, process

POLICY_RC = "/usr/sbin/policy-rc.d"
OTHERS = ("ganeti-wconfd", "ganeti-luxid", "ganeti-confd")
LOGS = {"ganeti-rapi": "/var/log/ganeti/rapi-daemon.log", "ganeti-noded": "/var/log/ganeti/node-daemon.log"}
AUDIT_LOG = "/var/log/ganeti/rapi-audit.log"

USERS = "admin secret write\nnoc secret @readonly\n"
ASK = """
import base64, ssl, sys, urllib.error, urllib.request
user, method, path = sys.argv[1:]
request = urllib.request.Request("https://127.0.0.1:5080" + path, method=method)
request.add_header("Authorization", "Basic " + base64.b64encode(f"{user}:secret".encode()).decode())
try:
    print(urllib.request.urlopen(request, context=ssl._create_unverified_context()).status)
except urllib.error.HTTPError as err:
    print(err.code)
except urllib.error.URLError as err:
    print(err.reason)
"""
CONNECT = "import socket; socket.create_connection(('192.0.2.10', 1811))"
HELLO = "#!/bin/sh\necho hello from $(id -un)\n"


@pytest.fixture(scope="module")
def machine(base: Path) -> Iterator[Booted]:
    """A booted machine that is a cluster's only node, stock, with the users above."""
    try:
        booted = Booted(base)
    except NoSystemd as err:
        pytest.skip(f"systemd does not boot here: {err}")
    with booted:
        booted.write("/usr/lib/python3/dist-packages/x509req.pth", SHIM)
        booted.sh(f"rm -f {POLICY_RC}")
        booted.sh(INIT_CLUSTER)
        booted.write("/var/lib/ganeti/rapi/users", USERS)
        booted.write("/etc/ganeti/restricted-commands/hello", HELLO, 0o755)
        yield booted


@pytest.fixture
def stock(machine: Booted) -> Booted:
    """The machine without our package, all daemons at work."""
    machine.run("dpkg", "--purge", "ganeti-ext")
    return at_work(machine)


@pytest.fixture
def ours(machine: Booted, deb: Path) -> Booted:
    """The machine with our package, all daemons at work."""
    machine.sh(f"rm -f {POLICY_RC}")
    if not (machine.root / "usr/sbin/gnt-ext").exists():
        install(machine, deb)
    return at_work(machine)


def at_work(machine: Booted) -> Booted:
    # A test starts them more often than systemd lets a broken daemon.
    machine.sh(f"rm -f {POLICY_RC}; systemctl reset-failed")
    for name in ("ganeti-noded", *OTHERS, "ganeti-rapi"):  # that one wants luxid
        assert daemon_util(machine, "check", name) or daemon_util(machine, "start", name)
    for name in DAEMONS:
        serving(machine, name)
    return machine


def native(machine: Booted) -> bool:
    """Whether each daemon is a unit of its own."""
    return (machine.root / "usr/lib/systemd/system/ganeti-rapi.service").exists()


def ask(machine: Booted, user: str, method: str, path: str) -> str:
    """The status of a request to the remote API, or why there is none."""
    return machine.run("python3", "-c", ASK, user, method, path).stdout.strip()


def serving(machine: Booted, name: str) -> Process:
    """A daemon as soon as it serves."""

    def answers() -> bool:
        if name == "ganeti-rapi":
            return ask(machine, "admin", "GET", "/version") == "200"
        return machine.run("python3", "-c", CONNECT, check=False).returncode == 0

    assert eventually(answers), f"{name} does not serve: {machine.sh(f'tail -n 20 {LOGS[name]}')}"
    found = process(machine, name)
    assert found
    return found


def is_ours(daemon: Process) -> bool:
    return daemon.command.startswith(f"/usr/bin/python3 -I /usr/sbin/{daemon.comm}")


def pids(machine: Booted) -> dict[str, str]:
    """Every daemon's process, as soon as ours serve and the others have written theirs down."""
    assert eventually(lambda: all((machine.root / f"run/ganeti/{name}.pid").exists() for name in OTHERS))
    return {
        **{name: serving(machine, name).pid for name in DAEMONS},
        **{name: machine.sh(f"cat /run/ganeti/{name}.pid") for name in OTHERS},
    }


# What dpkg does


def test_install_upgrade_and_removal_restart_our_two_daemons_and_no_other(stock: Booted, deb: Path) -> None:
    before = pids(stock)
    assert not any(is_ours(serving(stock, name)) for name in DAEMONS)
    for step in ("install", "upgrade", "removal"):
        if step == "removal":
            stock.run("dpkg", "--remove", "ganeti-ext")
        else:
            install(stock, deb)
        for name in DAEMONS:
            assert is_ours(serving(stock, name)) == (step != "removal"), step
        after = pids(stock)
        assert {name for name in before if before[name] != after[name]} == set(DAEMONS), step
        before = after


@pytest.mark.parametrize("answer", [101, 0])
def test_policy_of_the_machine_is_obeyed(stock: Booted, deb: Path, answer: int) -> None:
    """Every step of it: the daemons that run stay, whichever they are."""
    before = pids(stock)
    stock.write(POLICY_RC, f"#!/bin/sh\nexit {answer}\n", 0o755)
    install(stock, deb)
    assert (pids(stock) == before) == (answer == 101)
    stock.run("dpkg", "--remove", "ganeti-ext")
    assert (pids(stock) == before) == (answer == 101)


def test_daemons_do_not_belong_to_what_runs_dpkg(stock: Booted, deb: Path) -> None:
    """As when a service installs it: what it leaves behind ends with it."""
    stock.write(
        "/run/systemd/system/installs.service", f"[Service]\nType=oneshot\nExecStart=dpkg --install {stock.put(deb)}\n"
    )
    stock.sh("systemctl daemon-reload; systemctl start installs")
    for name in DAEMONS:
        assert is_ours(serving(stock, name))


def test_what_was_stopped_is_not_started(stock: Booted, deb: Path) -> None:
    assert daemon_util(stock, "stop", "ganeti-rapi")
    install(stock, deb)
    assert not daemon_util(stock, "check", "ganeti-rapi")
    assert is_ours(serving(stock, "ganeti-noded"))


# What an administrator does


@pytest.mark.parametrize("name", DAEMONS)
def test_daemon_util_stops_and_starts_ours(ours: Booted, name: str) -> None:
    before = serving(ours, name)
    assert daemon_util(ours, "stop", name)
    assert not daemon_util(ours, "check", name)
    assert not (ours.root / "proc" / before.pid).exists()
    assert daemon_util(ours, "start", name)
    after = serving(ours, name)
    assert is_ours(after) and after.pid != before.pid


def test_restart_of_all(ours: Booted) -> None:
    """`service ganeti restart`, which every release has."""
    before = pids(ours)
    ours.run("service", "ganeti", "restart")
    assert all(is_ours(serving(ours, name)) for name in DAEMONS)
    if not native(ours):  # there it is an empty unit, which pulls in what is not there
        assert all(before[name] != pid for name, pid in pids(ours).items())
        assert is_ours(serving(ours, "ganeti-noded"))
        ours.run("service", "ganeti", "status")


@pytest.mark.parametrize("name", DAEMONS)
def test_unit_is_stopped_started_and_restarted(ours: Booted, name: str) -> None:
    if not native(ours):
        pytest.skip("the daemons have no units of their own in this release")
    before = serving(ours, name)
    status = ours.sh(f"systemctl status --no-pager --full {name}")
    assert "Active: active (running)" in status
    assert f"Main PID: {before.pid} ({name})" in status and f"/usr/bin/python3 -I /usr/sbin/{name} -f" in status
    ours.run("systemctl", "restart", name)
    restarted = serving(ours, name)
    assert is_ours(restarted) and restarted.pid != before.pid
    ours.run("systemctl", "stop", name)
    assert not daemon_util(ours, "check", name) and not (ours.root / "proc" / restarted.pid).exists()
    ours.run("systemctl", "start", name)
    assert is_ours(serving(ours, name))


def test_whole_targets(ours: Booted) -> None:
    """As at the boot of a node, and when it becomes the master."""
    if not native(ours):
        pytest.skip("there are no targets in this release")
    for target in ("ganeti-master.target", "ganeti.target"):
        ours.run("systemctl", "stop", target)
        # systemctl waits for the target alone, not for what goes down with it.
        assert eventually(lambda: "inactive" in ours.run("systemctl", "is-active", "ganeti-rapi", check=False).stdout)
        ours.run("systemctl", "start", target)
        assert all(is_ours(serving(ours, name)) for name in DAEMONS)


def test_systemd_finds_no_fault_with_units_that_run_ours(ours: Booted) -> None:
    """No other than before: what it says of Ganeti's own is not ours to mend."""
    if not native(ours):
        pytest.skip("the daemons have no units of their own in this release")
    verify = ("systemd-analyze", "verify", *(f"{name}.service" for name in DAEMONS))
    with_ours = ours.run(*verify, check=False)
    ours.run("dpkg", "--remove", "ganeti-ext")
    stock = ours.run(*verify, check=False)
    assert (with_ours.returncode, with_ours.stderr) == (stock.returncode, stock.stderr)


# What goes wrong


@pytest.mark.parametrize("name", DAEMONS)
def test_killed_daemon_comes_back_as_ours(ours: Booted, name: str) -> None:
    before = serving(ours, name)
    ours.run("kill", "-KILL", before.pid)
    if not native(ours):  # then it is Ganeti's watcher that looks after them, from cron
        assert eventually(lambda: not daemon_util(ours, "check", name))
        # A pid file that is not root's keeps start-stop-daemon from starting anything: of Ganeti's own, too.
        ours.sh(f"rm -f /run/ganeti/{name}.pid")
        assert daemon_util(ours, "check-and-start", name)
    assert eventually(lambda: ours.sh(f"cat /run/ganeti/{name}.pid") != before.pid)
    assert is_ours(serving(ours, name))


def test_broken_installation_starts_under_systemd(ours: Booted) -> None:
    """The node daemon as Ganeti made it, the remote API refusing; both are found and stopped by their names."""
    module = "/usr/lib/python3/dist-packages/ganeti_ext/entrypoint.py"
    ours.sh(f"mv {module} {module}.away; echo 'raise ImportError(1)' > {module}")
    try:
        for name in DAEMONS:
            assert daemon_util(ours, "stop", name) and daemon_util(ours, "start", name)
        assert "/usr/share/ganeti/default/ganeti-noded" in serving(ours, "ganeti-noded").command
        assert eventually(lambda: ask(ours, "admin", "GET", "/2/info") == "503")
        for name in DAEMONS:
            assert daemon_util(ours, "stop", name) and not daemon_util(ours, "check", name)
    finally:
        ours.sh(f"mv {module}.away {module}")


# What they do there


def test_requests_and_restricted_commands_are_served(ours: Booted) -> None:
    ours.sh(f"rm -f {AUDIT_LOG}")
    assert daemon_util(ours, "stop", "ganeti-rapi") and daemon_util(ours, "start", "ganeti-rapi")
    serving(ours, "ganeti-rapi")
    assert ask(ours, "noc", "GET", "/2/info") == "200"
    assert ask(ours, "noc", "PUT", "/2/redistribute-config") == "403"
    assert ask(ours, "admin", "PUT", "/2/redistribute-config") == "200"
    records = [json.loads(line) for line in ours.sh(f"cat {AUDIT_LOG}").splitlines()]
    assert [(record["user"], record["status"]) for record in records] == [("noc", 403), ("admin", 200)]

    said = ours.sh("gnt-node restricted-command hello node1.example.com")
    assert said.endswith("hello from root")
    assert ours.sh("stat -c '%U %a' /run/ganeti-ext") == "root 700"
    noded = serving(ours, "ganeti-noded")
    locked = ours.sh(f"sed -n 's/^VmLck:[^0-9]*//p' /proc/{noded.pid}/status")
    assert int(locked.split()[0]) > 10000


def test_restart_of_the_node_daemon_leaves_a_running_command_alone(ours: Booted) -> None:
    """And the port is free for the new one."""
    ours.write(
        "/etc/ganeti/restricted-commands/slow", "#!/bin/sh\ntouch /root/began\nsleep 3\ntouch /root/ended\n", 0o755
    )
    ours.sh(
        "rm -f /root/began /root/ended; gnt-ext restricted-command --direct node1.example.com slow >/dev/null 2>&1 &"
    )
    assert eventually((ours.root / "root/began").exists)
    before = serving(ours, "ganeti-noded")
    assert daemon_util(ours, "stop", "ganeti-noded") and daemon_util(ours, "start", "ganeti-noded")
    after = serving(ours, "ganeti-noded")
    assert is_ours(after) and after.pid != before.pid
    assert eventually((ours.root / "root/ended").exists)


def test_logs_go_on_in_new_files_after_a_rotation(ours: Booted) -> None:
    """By Ganeti's own entry for logrotate: a signal to each daemon, found by its name."""
    before = pids(ours)

    def make_lines() -> None:
        assert ask(ours, "noc", "PUT", "/2/redistribute-config") == "403"
        ours.sh("gnt-node restricted-command hello node1.example.com")

    make_lines()
    ours.sh("logrotate --force --state /root/state /etc/logrotate.conf")
    for log in (*LOGS.values(), AUDIT_LOG):
        assert ours.sh(f"grep -v 'reopen log files' {log} || true") == ""
    make_lines()
    for log, line in zip((*LOGS.values(), AUDIT_LOG), (" 403", "restricted", '"noc"')):
        assert ours.sh(f"grep -c -- '{line}' {log} || true") != "0", log
    assert pids(ours) == before


# Settings of an administrator who shuts the daemons in
RAPI_HARDENED = """[Service]
CapabilityBoundingSet=
LockPersonality=yes
MemoryDenyWriteExecute=yes
NoNewPrivileges=yes
PrivateDevices=yes
PrivateTmp=yes
ProtectControlGroups=yes
ProtectHome=yes
ProtectKernelTunables=yes
ProtectSystem=strict
ReadWritePaths=/var/lib/ganeti /var/log/ganeti /run/ganeti
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
SystemCallFilter=@system-service
"""
# Without MemoryDenyWriteExecute: pyOpenSSL asks for such memory where clients show certificates, in Ganeti's own, too.
NODED_HARDENED = """[Service]
LimitMEMLOCK=0
LockPersonality=yes
ProtectControlGroups=yes
ProtectKernelTunables=yes
ProtectSystem=full
ReadWritePaths=/etc/ganeti
RestrictRealtime=yes
"""


def test_daemons_work_when_they_are_shut_in(ours: Booted) -> None:
    if not native(ours):
        pytest.skip("the daemons have no units of their own in this release")
    for name, text in (("ganeti-rapi", RAPI_HARDENED), ("ganeti-noded", NODED_HARDENED)):
        ours.write(f"/etc/systemd/system/{name}.service.d/hardened.conf", text)
    ours.sh("systemctl daemon-reload; rm -rf /run/ganeti-ext; systemctl restart ganeti-noded ganeti-rapi")
    try:
        for name in DAEMONS:
            assert is_ours(serving(ours, name))
        test_requests_and_restricted_commands_are_served(ours)
        assert "strict" in ours.sh("systemctl show --property ProtectSystem ganeti-rapi")
    finally:
        ours.sh("rm -r /etc/systemd/system/ganeti-*.service.d; systemctl daemon-reload")
