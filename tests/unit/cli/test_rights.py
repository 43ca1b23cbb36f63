# SPDX-License-Identifier: BSD-2-Clause
"""What users may do, in words, and what a new policy changes."""

from __future__ import annotations

from ganeti_ext.cli import rights
from ganeti_ext.cli.state import State, by_name, parsed
from ganeti_ext.policy.loader import load_policy

USERS = ["root x write", "joe x @tester", "ann x @readonly", "bob x read"]
POLICY = """\
version: 1
roles:
  tester:
    permissions: [instances.reboot, instances.remove]
    scope: {instances: {name: "*.test", tag: [a, b]}}
    parameters: {beparams.maxmem: {max: 8G}}
    quota: {instances: 5}
"""


def state(text: str = POLICY, users: list[str] = USERS) -> State:
    return State(load_policy(text.encode(), "x"), by_name(parsed(users)))


def told(before: State, after: State) -> list[str]:
    return list(rights.told(rights.changes(before, after)))


def test_rights() -> None:
    known = state()
    where = "instances: name *.test and tag a, b"
    assert rights.rights(known.account("joe")) == {"instances.reboot": where, "instances.remove": where}
    assert set(rights.rights(known.account("root")).values()) == {"everything"}
    assert "instances.reboot" not in rights.rights(known.account("ann"))
    denying = POLICY + (
        "deny:\n  - {users: '*', permissions: [instances.remove], instances: {tag: keep}}\n"
        "  - {users: joe, permissions: [instances.reboot]}\n"
    )
    assert rights.rights(state(denying).account("joe")) == {"instances.remove": where + ", but not instances: tag keep"}


def test_nothing_changes() -> None:
    assert told(state(), state("# a comment\n" + POLICY)) == []


def test_who_gains_and_who_loses() -> None:
    after = POLICY.replace("instances.reboot", "instances.shutdown, instances.startup").replace("*.test", "*.demo")
    assert told(state(), state(after)) == [
        "user joe",
        "  gains instances.shutdown, instances.startup  (instances: name *.demo and tag a, b)",
        "  loses instances.reboot  (instances: name *.test and tag a, b)",
        "  moves instances.remove  (instances: name *.test and tag a, b -> instances: name *.demo and tag a, b)",
    ]
    lines = told(state(), state("version: 1\n"))
    assert lines[0] == "user joe" and lines[1].startswith("  loses instances.reboot, instances.remove")
    assert lines[-2:] == ["role tester", "  is gone"]
    denied = told(state(), state(POLICY + "deny:\n  - {users: [ann, bob], permissions: [jobs.list]}\n"))
    assert denied == [
        "user ann", "  loses jobs.list  (everything)", "user bob", "  loses jobs.list  (everything)",
    ]  # fmt: skip


def test_limits_of_roles() -> None:
    after = (
        POLICY.replace("8G", "16G").replace("instances: 5", "vcpus: 4").replace("    quota", "    jobs: all\n    quota")
    )
    assert told(state(), state(after)) == [
        "role tester",
        "  jobs: own -> all",
        "  parameter beparams.maxmem: at most 8192 -> at most 16384",
        "  quota instances: 5 -> no limit",
        "  quota vcpus: no limit -> 4",
    ]
    after = POLICY.replace("maxmem: {max: 8G}", "maxmem: {max: 8G}, os_type: noop")
    assert told(state(), state(after)) == ["role tester", "  parameter os_type: not to be set -> noop"]


def test_a_user_of_one_side_alone() -> None:
    lines = told(state(users=["root x write"]), state())
    assert "user joe" in lines and "user root" not in lines
