# SPDX-License-Identifier: BSD-2-Clause
"""What `gnt-ext check` finds, and where."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from ganeti_ext.cli import check, state
from ganeti_ext.cli.check import ERROR, WARNING, Finding
from ganeti_ext.policy.model import Target

HEAD = "version: 1\nroles:\n"
ROLE = HEAD + "  ours:\n    permissions: [instances.reboot]\n    scope: {instances: {name: '*.test'}}\n"

Objects = Mapping[str, Sequence[Target]]


class Checker:
    """Writes the two files and checks them."""

    def __init__(self, directory: Path) -> None:
        self.policy, self.users = directory / "policy.yaml", directory / "users"

    def __call__(self, policy: str, users: str = "joe x @ours\n", objects: Objects | None = None) -> list[Finding]:
        self.policy.write_text(policy, encoding="utf-8")
        self.users.write_text(users, encoding="utf-8")
        self.policy.chmod(0o644)
        os.chown(self.policy, 0, 0) if os.geteuid() == 0 else None
        found = list(check.examine(str(self.policy), str(self.users), objects))
        return [one for one in found if os.geteuid() == 0 or "must belong to root" not in one.message]


@pytest.fixture(name="checked")
def _checked(tmp_path: Path) -> Checker:
    return Checker(tmp_path)


def test_a_good_policy_is_no_finding(checked: Checker) -> None:
    assert checked(ROLE) == []


def test_every_problem_at_once_with_its_place(checked: Checker) -> None:
    found = checked(HEAD + '  ours:\n    permissions: ["@operatr", instances.rebot]\n    scop: {}\n')
    assert [(one.line, one.column, one.severity) for one in found] == [(4, 19, ERROR), (4, 31, ERROR), (5, 5, ERROR)]
    assert "did you mean '@operator'" in found[0].message and "did you mean 'scope'" in found[2].message
    lines = list(check.told(found[1]))
    assert lines[0] == f"{checked.policy}:4:31: error: unknown permission 'instances.rebot'; did you mean" + (
        " 'instances.reboot'?"
    )
    assert lines[1:] == ['        permissions: ["@operatr", instances.rebot]', " " * 34 + "^"]


def test_the_tests_of_the_policy_are_run_with_the_users_that_there_are(checked: Checker) -> None:
    test = "tests:\n  - {user: joe, do: instances.reboot, on: a.test, expect: deny}\n"
    (found,) = checked(ROLE + test)
    assert (found.line, found.severity) == (7, ERROR) and "should be refused" in found.message
    assert checked(ROLE + test, "joe x read\nann x @ours\n") == []


def test_a_caret_stands_below_what_is_meant(tmp_path: Path) -> None:
    shown = "x" * 500 + "\t\x1b[31mhere"
    line = list(check.told(Finding("f", 1, 502, ERROR, "m", shown)))
    assert line[1].index("\\x1b") == line[2].index("^")
    assert all(char.isprintable() for char in "".join(line)) and max(map(len, line)) < 200


@pytest.mark.parametrize(
    ("users", "place", "told"),
    [
        ("joe x @ours # for Joe", (1, 7), "knows no comments at the end"),
        ("joe x @ours,jobs.cancel", (1, 13), "beside the limited role @ours"),
        ("joe x @ours,@our", (1, 13), "did you mean '@ours'?"),
        ("joe x @ours,jobs.cancle", (1, 13), "did you mean 'jobs.cancel'?"),
        ("joe x @ours,-jobs.cancle", (1, 13), "granted nothing"),
        ("joe x @ours\nann x raed", (2, 7), "unknown option 'raed'"),
        ("joe x @ours\nann @ours", (2, 0), "has no password"),
        ("joe x @ours\nann read,+jobs.list", (2, 0), "has no password"),
        ("joe x @ours\nann", (2, 0), "ignores this line"),
        ("joe x read\n\n# joe\n joe x @ours", (4, 1), "in line 1, too"),
        ("joe x @ours\nann x instance_write", (2, 7), "hvparams name files"),
        ("joe x @ours\nann x cluster.modify", (2, 0), "as good as root"),
    ],
)
def test_what_is_wrong_with_a_line_of_the_users_file(
    checked: Checker, users: str, place: tuple[int, int], told: str
) -> None:
    found = [one for one in checked(ROLE, users + "\n") if one.source == str(checked.users)]
    assert [(one.line, one.column) for one in found if told in one.message] == [place], found
    assert {one.severity for one in found} == {WARNING}


def test_no_password_is_shown(checked: Checker) -> None:
    users = "joe hunter2.x @our,bad\njoe hunter2.x\nhunter2.x\nann hunter2.x # read\n"
    found = checked(ROLE, users)
    assert len(found) == 4
    assert not [line for one in found for line in check.told(one) if "hunter2" in line]


@pytest.mark.parametrize(
    ("role", "told"),
    [
        ("permissions: [instances.modify]", "hvparams name files"),
        ("permissions: [instances.create]\n    parameters: {mode: [create, import]}", "an import reads"),
        ("permissions: [instances.create]\n    parameters: {hvparams.kernel_path: '*'}", "hvparams name files"),
        ("permissions: [nodes.modify]\n    scope: {nodes: {name: n}}\n    parameters: {ndparams.x: 'a*'}", "ndparams"),
        ("permissions: [cluster.modify]", "cluster's hvparams"),
        ("permissions: [filter.create]", "anybody's jobs"),
        ("permissions: [instances.export.create]", "any other cluster"),
        ("permissions: [instances.reboot]\n    mode: warn\n    scope: {instances: {name: a}}", "mode: warn"),
    ],
)
def test_a_grant_that_amounts_to_more_than_it_says(checked: Checker, role: str, told: str) -> None:
    found = checked(HEAD + f"  ours:\n    {role}\n")
    assert [(one.line, one.column) for one in found if told in one.message] == [(3, 3)], found
    assert {one.severity for one in found} == {WARNING}


def test_what_a_line_takes_away_is_nothing_to_warn_of(checked: Checker) -> None:
    """It is looked at the account: a role grants less to him whose line, or a deny, takes some of it away."""

    def warned(tokens: str, deny: str = "") -> str:
        policy = ROLE + (f"deny:\n  - {{users: ann, permissions: [instances.export.create]{deny}}}\n" if deny else "")
        return " ".join(one.message for one in checked(policy, f"joe x @ours\nann x {tokens}\n"))

    assert "instances.export.create" in warned("@operator")
    assert warned("@operator,-instances.export.create") == ""
    assert warned("@operator,-instances.reboot") == warned("@operator")
    assert warned("@operator", " ") == ""
    assert "instances.export.create" in warned("@operator", ", instances: {name: x}")
    told = warned("instance_write,-instances.create")
    assert "instances.modify (hvparams" in told and "instances.create" not in told


@pytest.mark.parametrize(
    "role",
    [
        "permissions: ['@operator', instances.create, instances.modify, nodes.modify]\n"
        "    scope: {instances: {name: a}, nodes: {name: n}}\n    parameters: {os_type: ['*']}",
        "permissions: [instances.modify]\n    parameters: {hvparams.boot_order: [cd], beparams.maxmem: '*'}",
        "permissions: ['@readonly']",
    ],
)
def test_a_grant_that_says_what_it_is(checked: Checker, role: str) -> None:
    assert checked(HEAD + f"  ours:\n    {role}\n") == []


def test_a_role_that_nobody_has(checked: Checker) -> None:
    (found,) = checked(ROLE, "joe x read\n")
    assert (found.line, found.column, found.message) == (3, 3, "role ours: nobody has it")


def test_a_scope_that_matches_nothing_here(checked: Checker) -> None:
    policy = HEAD + (
        "  ours:\n    permissions: [instances.reboot]\n    scope:\n      instances:"
        " [{name: '*.test'}, {tag: 'of:{user}'}, {name: x}]\n      nodes: {group: g2}\n"
    )
    objects = {
        "instance": [Target("instance", "a.test"), Target("instance", "b", frozenset({"of:ann"}))],
        "node": [Target("node", "n", groups=frozenset({"g1"}))],
        "group": [],
        "network": [],
    }
    found = checked(policy, "joe x @ours\nann x @ours\n", objects)
    assert [one.message.partition(": ")[2] for one in found] == [
        "the scope's instances (name x) match none of the 2 on this cluster",
        "the scope's nodes (group g2) match none of the 1 on this cluster",
    ]
    assert "of:{user}" in checked(policy, "joe x @ours\n", objects)[0].message
    assert checked(policy, objects=None) == []


def test_a_tag_that_its_tenants_may_change(checked: Checker) -> None:
    policy = HEAD + (
        "  ours:\n    permissions: [instances.reboot, tags.set]\n    scope: {instances: {tag: t}}\n"
        "  tagger:\n    permissions: [tags.set]\n"
        "  nodes:\n    permissions: [tags.delete]\n    scope: {nodes: {name: n}}\n"
    )
    others = "a x @ours,@nodes\nb x @tagger\n"
    assert checked(policy, others) == []
    (found,) = checked(policy, others + "c x @ours,@tagger\n")
    assert found.line == 3 and "role ours goes by tags of instances, which role tagger lets him change" in found.message
    assert len(checked(policy, others + "c x @ours,instance_write\n")) == 2  # which is as good as root, too
    deny = "deny:\n  - {users: c, permissions: [instances.remove], instances: {tag: keep}}\n"
    (found,) = checked(policy + deny, others + "c x @tagger\n")
    assert "deny (line 12) goes by tags" in found.message


def test_a_name_that_user_may_not_stand_for(checked: Checker) -> None:
    policy = HEAD + "  ours:\n    permissions: [instances.reboot]\n    scope: {instances: {name: '*.{user}'}}\n"
    (found,) = checked(policy, "Joe x @ours\njoe x @ours\n")
    assert (found.line, found.column) == (1, 7) and "cannot stand for {user}" in found.message


def test_files_that_cannot_be_read(checked: Checker, tmp_path: Path) -> None:
    assert checked(ROLE) == []
    checked.policy.chmod(0o664)
    found = list(check.examine(str(checked.policy), str(checked.users), None))
    assert [one.severity for one in found] == [WARNING] and "chmod go-w" in found[0].message
    (missing,) = check.examine(str(tmp_path / "none"), str(checked.users), None)
    assert missing.severity == ERROR and "No such file" in missing.message
    (tmp_path / "link").symlink_to(checked.policy)
    checked.policy.chmod(0o644)
    (link,) = check.examine(str(tmp_path / "link"), str(checked.users), None)
    assert link.severity == WARNING and "is a link" in link.message
    os.mkfifo(tmp_path / "fifo")
    (fifo,) = check.examine(str(tmp_path / "fifo"), str(checked.users), None)
    assert fifo.severity == ERROR and "not a regular file" in fifo.message
    found = list(check.examine(str(checked.policy), str(tmp_path / "none"), None))
    assert (found[0].severity, found[0].source) == (ERROR, str(tmp_path / "none"))


def test_the_exit_code(checked: Checker, capsys: pytest.CaptureFixture[str]) -> None:
    opts = SimpleNamespace(users_file=str(checked.users), offline=True, ganeti_rbac=False)
    checked(ROLE, "joe x read\n")
    assert check.check(opts, [str(checked.policy)]) == 0
    assert capsys.readouterr().err == "0 errors, 1 warning\n"
    checked(ROLE + "x: 1\n")
    assert check.check(opts, [str(checked.policy)]) == 1
    assert capsys.readouterr().err == "1 error, 0 warnings\n"


def test_users_are_read_as_ganeti_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text("# a\n\n a  b  c , d \nonly\nx y\n", encoding="utf-8")
    lines = state.read_users(str(path))
    assert [(one.number, one.name, one.tokens) for one in lines] == [
        (3, "a", ("c", "d")),
        (4, "", None),
        (5, "x", ()),
    ]
