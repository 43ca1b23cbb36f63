# SPDX-License-Identifier: BSD-2-Clause
"""The package keeps its promises: what is in force when, on a real Debian system."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.package.debian_chroot import Chroot, Watch

DAEMONS = ("ganeti-noded", "ganeti-rapi")
LINKS = tuple(f"/usr/sbin/{name}" for name in DAEMONS)
OURS = {f"../libexec/ganeti-ext/{name}" for name in DAEMONS}
AUDIT_LOG = "/var/log/ganeti/rapi-audit.log"
STOCK = {f"../share/ganeti/default/{name}" for name in DAEMONS}

Variant = Callable[..., Path]


def links(chroot: Chroot) -> set[str]:
    """Where the two names in /usr/sbin lead."""
    return set(chroot.sh(f"readlink {' '.join(LINKS)}").splitlines())


def diversions(chroot: Chroot) -> list[str]:
    listed = chroot.sh("dpkg-divert --list '/usr/sbin/*'").splitlines()
    return [line for line in listed if "ganeti-ext" in line]


def distrib(chroot: Chroot) -> set[str]:
    return {file.name for file in (chroot.root / "usr/sbin").glob("*.distrib")}


def assert_ours(chroot: Chroot) -> None:
    assert links(chroot) == OURS
    assert sorted(diversions(chroot)) == [f"diversion of {link} to {link}.distrib by ganeti-ext" for link in LINKS]
    kept = chroot.sh(f"readlink {' '.join(f'{link}.distrib' for link in LINKS)}")
    assert set(kept.splitlines()) == STOCK


def assert_stock(chroot: Chroot) -> None:
    assert links(chroot) == STOCK
    assert diversions(chroot) == []
    assert distrib(chroot) == set()
    chroot.run("dpkg", "--verify", "ganeti")


def install(chroot: Chroot, *debs: Path) -> None:
    chroot.run("dpkg", "--install", *(chroot.put(deb) for deb in debs))


def fails(chroot: Chroot, *argv: str) -> str:
    """What a command says that does not succeed."""
    result = chroot.run(*argv, check=False)
    assert result.returncode != 0, result.stdout
    return result.stdout + result.stderr


# What is in it


def test_contents(deb: Path) -> None:
    listing = subprocess.run(["dpkg-deb", "--contents", deb], check=True, capture_output=True, text=True).stdout
    found: dict[str, str] = {}
    for line in listing.splitlines():
        mode, owner, _size, _day, _time, name, *_target = line.split()
        assert owner == "root/root", line
        found[name.lstrip(".")] = mode
    assert found["/etc/ganeti/restricted-commands/"] == "drwxr-xr-x"
    for name in DAEMONS:
        assert found[f"/usr/libexec/ganeti-ext/{name}"] == "-rwxr-xr-x"
        assert f"/usr/sbin/{name}" not in found
    assert "/usr/lib/python3/dist-packages/ganeti_ext/entrypoint.py" in found
    assert found["/usr/sbin/gnt-ext"] == "-rwxr-xr-x"
    assert found["/usr/share/bash-completion/completions/gnt-ext"] == "-rw-r--r--"
    man = ("man5/rapi-access.yaml.5", "man7/ganeti-ext.7", "man8/gnt-ext.8")
    assert {f"/usr/share/man/{name}.gz" for name in man} == {
        name for name in found if name.endswith(".gz") and "/man/" in name
    }
    assert found["/etc/default/ganeti-ext"] == "-rw-r--r--"
    # The examples can be read as they are and none of them is active.
    examples = "/usr/share/doc/ganeti-ext/examples/restricted-commands/"
    assert {f"{examples}{name}" for name in ("restart-sshd", "memory-summary", "reboot-now")} <= set(found)
    hooks = [name for name in found if name.startswith("/etc/ganeti/hooks/") and not name.endswith("/")]
    kinds = ("cluster-modify", "cluster-verify", "master-ip-turnup", "node-add", "node-modify", "node-remove")
    assert [name.split("/")[4] for name in hooks] == [*(f"{kind}-post.d" for kind in kinds), "watcher"]
    # Ganeti passes over a hook whose name has a dot, or that is not executable.
    assert {(name.split("/")[5], found[name]) for name in hooks} == {("ganeti-ext", "-rwxr-xr-x")}
    assert [name for name in found if name.startswith("/etc/ganeti/") and "/hooks/" not in name] == [
        "/etc/ganeti/",
        "/etc/ganeti/restricted-commands/",
    ]
    assert not [name for name in found if name.endswith(".pyc") or "/tests" in name]


@pytest.mark.parametrize("name", DAEMONS)
def test_wrapper_in_the_package_is_isolated(chroot: Chroot, deb: Path, name: str) -> None:
    install(chroot, deb)
    first, *rest = chroot.sh(f"cat /usr/sbin/{name}").splitlines()
    assert first == "#!/usr/bin/python3 -I"
    assert len(rest) < 19


# Install, upgrade, remove: which daemon is behind the name at every moment


def test_install_and_remove(chroot: Chroot, deb: Path) -> None:
    with Watch(chroot, *LINKS) as watch:
        install(chroot, deb)
    assert watch.seen == STOCK | OURS
    assert_ours(chroot)

    with Watch(chroot, *LINKS) as watch:
        chroot.run("dpkg", "--remove", "ganeti-ext")
    assert watch.seen == STOCK | OURS
    assert_stock(chroot)


def test_install_together_with_ganeti(chroot: Chroot, deb: Path) -> None:
    chroot.run("apt-get", "purge", "--yes", "ganeti")
    assert not (chroot.root / "usr/sbin/ganeti-noded").is_symlink()
    package = chroot.put(deb)
    chroot.sh(f"apt-get install --yes --no-install-recommends /debs/*.deb {package}")
    assert_ours(chroot)

    chroot.run("apt-get", "purge", "--yes", "ganeti")
    left = chroot.sh("ls /usr/sbin")
    assert "ganeti-noded" not in left
    assert diversions(chroot) == []


def test_unpacked_before_ganeti(chroot: Chroot, deb: Path) -> None:
    chroot.run("apt-get", "purge", "--yes", "ganeti")
    chroot.run("dpkg", "--unpack", chroot.put(deb))
    assert "ganeti-noded" not in chroot.sh("ls /usr/sbin")
    chroot.sh("dpkg --install /debs/*.deb && dpkg --configure ganeti-ext")
    assert_ours(chroot)


def test_unconfigured_package_is_not_in_force(chroot: Chroot, deb: Path) -> None:
    chroot.run("dpkg", "--force-depends", "--remove", "python3-yaml")
    assert "python3-yaml" in fails(chroot, "dpkg", "--install", chroot.put(deb))
    assert_stock(chroot)
    chroot.run("dpkg", "--remove", "ganeti-ext")
    assert_stock(chroot)


def test_reinstall_of_ganeti_keeps_ours(chroot: Chroot, deb: Path) -> None:
    install(chroot, deb)
    with Watch(chroot, *LINKS) as watch:
        chroot.sh("dpkg --install /debs/*.deb")
    assert watch.seen == OURS
    assert_ours(chroot)


def test_upgrade_and_reinstall_keep_ours(chroot: Chroot, deb: Path, variant: Variant) -> None:
    install(chroot, deb)
    with Watch(chroot, *LINKS) as watch:
        install(chroot, variant("9.0"))
        install(chroot, deb)
        install(chroot, deb)
    assert watch.seen == OURS
    assert_ours(chroot)


def test_ganeti_removed_by_force_first(chroot: Chroot, deb: Path) -> None:
    install(chroot, deb)
    chroot.run("dpkg", "--force-depends", "--remove", "ganeti")
    assert distrib(chroot) == set()
    chroot.run("dpkg", "--remove", "ganeti-ext")
    left = chroot.sh("ls /usr/sbin")
    assert "ganeti-noded" not in left and "ganeti-rapi" not in left
    chroot.sh("dpkg --install /debs/*.deb")
    assert_stock(chroot)


# Nothing of ours is left, nothing of the administrator's is lost


def everything(chroot: Chroot) -> set[str]:
    """All that is in the system, but for the package manager's own notes and logs."""
    notes = "/proc /var/lib/dpkg /var/log /var/cache /root"
    skip = " -o ".join(f"-path {path}" for path in notes.split())
    return set(chroot.sh(rf"find / \( {skip} \) -prune -o -printf '%p %M %u %g %l\n'").splitlines())


def test_purge_leaves_nothing(chroot: Chroot, deb: Path) -> None:
    chroot.sh("mkdir -p /var/lib/ganeti/rapi")
    before = everything(chroot)
    install(chroot, deb)
    for name in (
        "/etc/ganeti/rapi-access.yaml",
        "/etc/ganeti/restricted-commands.conf",
        "/etc/ganeti/rapi-access.yaml.draft",
        "/var/lib/ganeti/rapi/access.last-good.yaml",
        "/var/lib/ganeti/rapi/restricted-users",
        "/run/ganeti-ext/lock",
        f"{AUDIT_LOG}.2.gz",
        f"{AUDIT_LOG}.1",
        AUDIT_LOG,
    ):
        chroot.write(name, "")
    chroot.run("dpkg", "--remove", "ganeti-ext")
    assert len(chroot.sh(f"ls {AUDIT_LOG}*").split()) == 3
    chroot.run("dpkg", "--purge", "ganeti-ext")
    assert everything(chroot) == before
    assert "audit" not in chroot.sh("ls /var/log/ganeti")
    assert "ganeti-ext" not in chroot.sh("ls /var/lib/dpkg/info")


def test_removal_keeps_settings_and_purge_keeps_programs(chroot: Chroot, deb: Path) -> None:
    install(chroot, deb)
    policy, program = "/etc/ganeti/rapi-access.yaml", "/etc/ganeti/restricted-commands/x"
    chroot.write(policy, "version: 1\n")
    chroot.write(program, "#!/bin/sh\n", 0o755)
    chroot.write("/var/lib/ganeti/rapi/users", "admin secret write\n")
    chroot.run("dpkg", "--remove", "ganeti-ext")
    assert chroot.sh(f"cat {policy} {program}") == "version: 1\n#!/bin/sh"
    chroot.run("dpkg", "--purge", "ganeti-ext")
    assert chroot.sh("ls /etc/ganeti/rapi-access.yaml || true") == ""
    assert chroot.sh(f"cat {program} /var/lib/ganeti/rapi/users") == ("#!/bin/sh\nadmin secret write")


# What goes wrong half way


@pytest.mark.parametrize(
    "broken",
    [
        {"DEBIAN/preinst": "#!/bin/sh\nexit 1\n"},
        {"usr/bin/dpkg": "a file that another package has\n"},
    ],
    ids=["preinst", "file conflict"],
)
def test_failed_unpack(chroot: Chroot, deb: Path, variant: Variant, broken: dict[str, str]) -> None:
    worse = chroot.put(variant("9.0", **broken))
    with Watch(chroot, *LINKS) as watch:
        fails(chroot, "dpkg", "--install", worse)
    assert watch.seen == STOCK
    assert_stock(chroot)

    install(chroot, deb)
    with Watch(chroot, *LINKS) as watch:
        fails(chroot, "dpkg", "--install", worse)
    assert watch.seen == OURS
    assert_ours(chroot)


def test_removal_that_is_given_up(chroot: Chroot, variant: Variant) -> None:
    good = variant("9.0")
    prerm = subprocess.run(["dpkg-deb", "--info", good, "prerm"], check=True, capture_output=True, text=True).stdout
    install(chroot, variant("9.1", **{"DEBIAN/prerm": f"{prerm}\n[ $1 != remove ]\n"}))
    with Watch(chroot, *LINKS) as watch:
        fails(chroot, "dpkg", "--remove", "ganeti-ext")
    assert "missing" not in watch.seen
    assert_ours(chroot)
    install(chroot, good)
    chroot.run("dpkg", "--remove", "ganeti-ext")
    assert_stock(chroot)


def test_removal_of_an_upgrade_that_was_not_configured(chroot: Chroot, deb: Path, variant: Variant) -> None:
    install(chroot, deb)
    chroot.run("dpkg", "--unpack", chroot.put(variant("9.0")))
    assert_ours(chroot)
    chroot.run("dpkg", "--remove", "ganeti-ext")
    assert_stock(chroot)


@pytest.mark.parametrize("step", ["copied", "diverted", "link put back by hand", "diversion removed by hand"])
def test_interrupted_scripts_are_taken_up_again(chroot: Chroot, deb: Path, step: str) -> None:
    link = LINKS[0]
    divert = f"dpkg-divert --package ganeti-ext --no-rename --divert {link}.distrib"
    if step == "link put back by hand":
        install(chroot, deb)
        chroot.sh(f"mv -T {link}.distrib {link}")
    elif step == "diversion removed by hand":
        install(chroot, deb)
        chroot.sh(f"{divert} --remove {link}")
        install(chroot, deb)
        assert_ours(chroot)
    else:
        chroot.sh(f"cp -a {link} {link}.distrib")
        if step == "diverted":
            chroot.sh(f"{divert} --add {link}")
        install(chroot, deb)
        assert_ours(chroot)
    chroot.run("dpkg", "--remove", "ganeti-ext")
    assert_stock(chroot)


# An installation that does not load


BREAK = "echo 'raise ImportError(\"first\\nsecond\")' > {}"
ENTRYPOINT = "/usr/lib/python3/dist-packages/ganeti_ext/entrypoint.py"


@pytest.mark.parametrize("damage", [BREAK.format(ENTRYPOINT), f"rm -r $(dirname {ENTRYPOINT})"])
def test_noded_starts_whatever_is_broken(chroot: Chroot, deb: Path, damage: str) -> None:
    install(chroot, deb)
    stock = chroot.run("/usr/share/ganeti/default/ganeti-noded", "--version")
    chroot.sh(damage)
    broken = chroot.run("/usr/sbin/ganeti-noded", "--version")
    assert broken.stdout == stock.stdout
    assert re.fullmatch(r"ganeti-noded: starting without ganeti_ext, .*\n", broken.stderr)


def test_rapi_says_that_it_refuses(chroot: Chroot, deb: Path) -> None:
    install(chroot, deb)
    chroot.sh(BREAK.format(ENTRYPOINT))
    result = chroot.run("/usr/sbin/ganeti-rapi", "--version")
    assert re.fullmatch(r"ganeti-rapi: every request is refused: .*\n", result.stderr)


@pytest.mark.parametrize("name", DAEMONS)
def test_wrappers_start_ganeti(chroot: Chroot, deb: Path, name: str) -> None:
    install(chroot, deb)
    assert chroot.run(name, "--version").stdout.startswith(f"{name} (ganeti) 3.")


@pytest.mark.parametrize("name", DAEMONS)
def test_planted_modules_are_not_loaded(chroot: Chroot, deb: Path, name: str) -> None:
    install(chroot, deb)
    for module in ("ganeti_ext/entrypoint", "ganeti_ext/__init__", "yaml", "usercustomize"):
        chroot.write(f"/tmp/planted/{module}.py", "raise SystemExit('planted')\n")
    result = chroot.run("sh", "-c", f"cd /tmp/planted && {name} --version", PYTHONPATH="/tmp/planted")
    assert "planted" not in result.stdout + result.stderr


# The daemons themselves


def daemon_util(node: Chroot, action: str, name: str) -> bool:
    done = node.run("/usr/lib/ganeti/daemon-util", action, name, check=False)
    return done.returncode == 0


class Process(NamedTuple):
    """A daemon that runs, as daemon-util finds it."""

    pid: str
    comm: str
    command: str


def process(node: Chroot, name: str) -> Process | None:
    if not daemon_util(node, "check", name):
        return None
    pid = node.sh(f"cat /run/ganeti/{name}.pid")
    comm = node.sh(f"cat /proc/{pid}/comm")
    return Process(pid, comm, node.sh(f"tr '\\0' ' ' < /proc/{pid}/cmdline"))


@pytest.mark.parametrize("name", DAEMONS)
def test_running_daemon_is_restarted(node: Chroot, deb: Path, name: str) -> None:
    assert daemon_util(node, "start", name)
    before = process(node, name)

    install(node, deb)
    ours = process(node, name)
    assert before and ours and ours.pid != before.pid
    assert ours.comm == name
    assert ours.command.startswith(f"/usr/bin/python3 -I /usr/sbin/{name} ")

    node.run("dpkg", "--remove", "ganeti-ext")
    after = process(node, name)
    assert after and after.pid != ours.pid
    assert after.command == before.command
    assert daemon_util(node, "stop", name)
    assert not Path(f"{node.root}/proc/{after.pid}").exists()


def test_noded_without_our_code_is_a_full_daemon(node: Chroot, deb: Path) -> None:
    install(node, deb)
    node.sh(BREAK.format(ENTRYPOINT))
    assert daemon_util(node, "start", "ganeti-noded")
    found = process(node, "ganeti-noded")
    assert found and found.comm == "ganeti-noded"
    assert found.command == "/usr/bin/python3 /usr/share/ganeti/default/ganeti-noded -b 127.0.0.1 --no-mlock"
    assert daemon_util(node, "stop", "ganeti-noded")
    assert process(node, "ganeti-noded") is None


# What logrotate and the daemon make of the audit trail, `create` and all, after each other.
ROTATE = """
logrotate --force --state /root/state /etc/logrotate.conf 2>&1
"""
REFUSED = """
import ssl, urllib.error, urllib.request
request = urllib.request.Request("https://127.0.0.1:5080/2/modify", b"{}", method="PUT")
try:
    urllib.request.urlopen(request, context=ssl._create_unverified_context())
except urllib.error.HTTPError as err:
    print(err.code)
"""


def test_logrotate_and_the_daemon_agree_on_the_audit_trail(node: Chroot, deb: Path) -> None:
    """Ganeti's own entry does it; one of ours would be a second for the same file, which is an error."""
    install(node, deb)
    node.write("/var/lib/ganeti/rapi/users", "noc x @readonly\n")
    node.sh("chmod 755 /var/lib/ganeti/rapi && chmod 644 /var/lib/ganeti/rapi/users")
    assert daemon_util(node, "start", "ganeti-rapi")
    daemon = process(node, "ganeti-rapi")
    for number in (1, 2, 3):
        assert node.run("python3", "-c", REFUSED).stdout == "401\n"
        assert node.sh(f"grep -c . {AUDIT_LOG}") == "1"
        assert node.sh(f"stat -c '%U %G %a' {AUDIT_LOG}") == "gnt-rapi gnt-rapi 640"
        assert node.sh(ROTATE) == ""
        assert len(node.sh(f"ls {AUDIT_LOG}*").split()) == number + 1
    assert node.sh(f"zcat -f {AUDIT_LOG}* | grep -c '\"status\": 401'") == "3"
    assert process(node, "ganeti-rapi") == daemon


def test_what_stands_still_is_not_started(node: Chroot, deb: Path) -> None:
    assert daemon_util(node, "start", "ganeti-rapi")
    install(node, deb)
    assert process(node, "ganeti-noded") is None
    assert process(node, "ganeti-rapi")
    node.run("dpkg", "--remove", "ganeti-ext")
    assert process(node, "ganeti-noded") is None


def test_machine_policy_is_obeyed(node: Chroot, deb: Path) -> None:
    assert daemon_util(node, "start", "ganeti-noded")
    before = process(node, "ganeti-noded")
    node.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", 0o755)
    result = node.run("dpkg", "--install", node.put(deb))
    assert "ganeti-noded is not restarted" in result.stderr
    assert process(node, "ganeti-noded") == before


def test_no_cluster_no_restart(node: Chroot, deb: Path) -> None:
    assert daemon_util(node, "start", "ganeti-noded")
    before = process(node, "ganeti-noded")
    node.sh("mv /var/lib/ganeti/server.pem /tmp")
    install(node, deb)
    assert process(node, "ganeti-noded") == before


def test_failing_restart_does_not_fail_the_install(node: Chroot, deb: Path) -> None:
    assert daemon_util(node, "start", "ganeti-noded")
    node.write("/etc/default/ganeti", 'NODED_ARGS="--no-such-option"\n')
    result = node.run("dpkg", "--install", node.put(deb))
    assert "ganeti-noded could not be restarted" in result.stderr
    assert_ours(node)
    node.run("dpkg", "--remove", "ganeti-ext")
    assert_stock(node)


SYSTEMCTL = """#!/bin/sh
echo "$*" >> /root/systemctl.log
case "$*" in *is-active*ganeti-rapi*) exit 3;; esac
"""


@pytest.mark.parametrize("allowed", [True, False])
def test_units_of_their_own_are_restarted_by_systemd(chroot: Chroot, deb: Path, allowed: bool) -> None:
    """As on sid; what systemd would do is only written down here."""
    chroot.write("/var/lib/ganeti/server.pem", "")
    chroot.sh("mkdir -p /run/systemd/system")
    chroot.write("/usr/bin/systemctl", SYSTEMCTL, 0o755)
    if allowed:
        chroot.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 104\n", 0o755)
    install(chroot, deb)
    log = chroot.sh("cat /root/systemctl.log").splitlines()
    restarted = [line.split()[-1] for line in log if " restart " in f" {line} "]
    assert restarted == (["ganeti-noded.service"] if allowed else [])
