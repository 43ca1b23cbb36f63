# SPDX-License-Identifier: BSD-2-Clause
"""A bad policy never replaces a good one, and each mistake is told in one line."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest
from ganeti import utils

from ganeti_ext.errors import UnsafeFile
from ganeti_ext.policy.loader import load_policy
from ganeti_ext.rapi.access import AccessControl, read_policy_file
from tests.unit.rapi import fake

GOOD = "version: 1\nroles:\n  r: {permissions: [tags.set]}\n"
BETTER = "version: 1\nroles:\n  r: {permissions: [tags.get]}\n"
BAD = "version: 1\nroles:\n  r: {permissions: [tags.sat]}\n"
OWNER = os.geteuid()


class Daemon:
    """An access control over files in a directory; one user has the role `r`."""

    def __init__(self, path: Path, copy: Path | None = None) -> None:
        self.policy = path / "rapi-access.yaml"
        self.copy = copy or path / "access.last-good.yaml"
        self.start()

    def start(self) -> None:
        self.control = AccessControl(str(self.policy), str(self.copy), OWNER)
        self.users = fake.parse_users("she @r\nroot write")
        self.control.load_policy()
        self.control.resolve_users(self.users)

    def write(self, text: str) -> None:
        self.policy.write_text(text)
        self.policy.chmod(0o644)

    @property
    def granted(self) -> list[str]:
        return sorted(self.control.user("she").grants.roles)


@pytest.fixture
def daemon(tmp_path: Path) -> Daemon:
    daemon = Daemon(tmp_path)
    daemon.write(GOOD)
    daemon.control.load_policy()
    assert daemon.granted == ["tags.set"]
    return daemon


def errors_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


# Each makes a policy unfit; the text is what the log must say beside the file's name.


def vanish(daemon: Daemon) -> str:
    daemon.policy.unlink()
    return "vanished"


def bad_permission(daemon: Daemon) -> str:
    daemon.write(BAD)
    return "line 3, column 21: unknown permission 'tags.sat'; did you mean 'tags.set'?"


def wrong_key(daemon: Daemon) -> str:
    daemon.write("version: 1\nrols: {}\n")
    return "line 2, column 1: unknown key 'rols' in the policy; did you mean 'roles'?"


def wrong_type(daemon: Daemon) -> str:
    daemon.write("version: 1\nroles: [r]\n")
    return "line 2, column 8: roles must be a mapping"


def twice(daemon: Daemon) -> str:
    daemon.write(GOOD + "roles: {}\n")
    return "line 4, column 1: key 'roles' stands twice"


def tab(daemon: Daemon) -> str:
    daemon.write("version: 1\nroles:\n\tr: {permissions: [tags.set]}\n")
    return "line 3, column 1: while scanning for the next token: found character"


def empty(daemon: Daemon) -> str:
    daemon.write("")
    return "line 1, column 1: the file is empty"


def not_text(daemon: Daemon) -> str:
    daemon.policy.write_bytes(b"version: 1\n\xff\n")
    return "line 2, column 1: not UTF-8"


def too_large(daemon: Daemon) -> str:
    daemon.policy.write_bytes(b"#" * 64)
    return "larger than"


def group_writable(daemon: Daemon) -> str:
    daemon.write(BETTER)
    daemon.policy.chmod(0o664)
    return "may be written by others: chmod go-w"


def world_writable(daemon: Daemon) -> str:
    daemon.write(BETTER)
    daemon.policy.chmod(0o646)
    return "may be written by others: chmod go-w"


def others(daemon: Daemon) -> str:
    daemon.write(BETTER)
    os.chown(daemon.policy, 65534, 0)
    return "must belong to root: chown root"


def link(daemon: Daemon) -> str:
    daemon.policy.unlink()
    target = daemon.policy.with_name("elsewhere")
    target.write_text(BETTER)
    daemon.policy.symlink_to(target)
    return "cannot be read by this daemon"


def fifo(daemon: Daemon) -> str:
    daemon.policy.unlink()
    os.mkfifo(daemon.policy, 0o600)
    return "is not a regular file"


def directory(daemon: Daemon) -> str:
    daemon.policy.unlink()
    daemon.policy.mkdir(0o755)
    return str(daemon.policy)


MISTAKES = [
    vanish,
    bad_permission,
    wrong_key,
    wrong_type,
    twice,
    tab,
    empty,
    not_text,
    too_large,
    group_writable,
    world_writable,
    others,
    link,
    fifo,
    directory,
]


@pytest.mark.parametrize("spoil", MISTAKES)
def test_a_mistake_changes_nothing_and_is_told_once(
    daemon: Daemon, spoil: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    if spoil is too_large:
        monkeypatch.setattr("ganeti_ext.policy.loader.MAX_SIZE", 63)
    caplog.clear()
    complaint = spoil(daemon)
    daemon.control.load_policy()
    daemon.control.load_policy()  # one change of a file raises several events
    assert daemon.granted == ["tags.set"]
    assert daemon.control.active
    (line,) = errors_in(caplog)
    assert str(daemon.policy) in line
    assert complaint in line
    assert "\n" not in line
    assert "the policy before it stays in force" in line


@pytest.mark.parametrize("spoil", MISTAKES)
def test_after_a_restart_the_last_good_one_is_in_force(
    daemon: Daemon, spoil: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    if spoil is too_large:
        monkeypatch.setattr("ganeti_ext.policy.loader.MAX_SIZE", 63)
    complaint = spoil(daemon)
    caplog.clear()
    daemon.start()
    assert daemon.granted == ["tags.set"]
    assert daemon.control.active
    (line,) = errors_in(caplog)
    assert complaint in line
    assert str(daemon.copy) in line


@pytest.mark.parametrize("spoil", MISTAKES)
def test_without_a_copy_its_roles_grant_nothing(
    daemon: Daemon, spoil: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    if spoil is too_large:
        monkeypatch.setattr("ganeti_ext.policy.loader.MAX_SIZE", 63)
    spoil(daemon)
    daemon.copy.unlink()
    caplog.clear()
    daemon.start()
    assert daemon.granted == []
    assert daemon.control.active  # by the token in the users file, whatever the policy
    if spoil is not vanish:  # then nothing was ever configured
        (line,) = [line for line in errors_in(caplog) if "unknown role '@r'" not in line]
        assert "its roles grant nothing" in line


def test_a_mended_one_is_taken_and_the_same_mistake_is_told_again(
    daemon: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        caplog.clear()
        daemon.write(BAD)
        daemon.control.load_policy()
        assert len(errors_in(caplog)) == 1
        daemon.write(BETTER)
        daemon.control.load_policy()
        assert daemon.granted == ["tags.get"]
    assert daemon.copy.read_text() == BETTER


def test_another_mistake_is_another_line(daemon: Daemon, caplog: pytest.LogCaptureFixture) -> None:
    caplog.clear()
    bad_permission(daemon)
    daemon.control.load_policy()
    wrong_key(daemon)
    daemon.control.load_policy()
    assert len(errors_in(caplog)) == 2


def test_without_a_policy_there_is_nothing_to_enforce(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    control = AccessControl(str(tmp_path / "none"), str(tmp_path / "no-copy"), OWNER)
    control.load_policy()
    control.resolve_users(fake.parse_users("root write\nnoc read\nx "))
    assert not control.active
    assert errors_in(caplog) == []
    control.resolve_users(fake.parse_users("she @readonly"))
    assert control.active


def test_a_policy_alone_is_something_to_enforce(tmp_path: Path) -> None:
    (tmp_path / "policy").write_text(GOOD)
    control = AccessControl(str(tmp_path / "policy"), str(tmp_path / "copy"), OWNER)
    control.load_policy()
    assert control.active


def test_the_copy_is_the_daemons_alone(daemon: Daemon) -> None:
    assert daemon.copy.read_text() == GOOD
    assert daemon.copy.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", ["", BAD, "\0"])
def test_a_copy_that_is_spoilt_too(daemon: Daemon, content: str, caplog: pytest.LogCaptureFixture) -> None:
    daemon.write(BAD)
    daemon.copy.write_text(content)
    caplog.clear()
    daemon.start()
    assert daemon.granted == []
    assert daemon.control.active
    assert any("of no use" in line for line in errors_in(caplog))


def test_a_copy_that_others_could_write_is_not_taken(daemon: Daemon) -> None:
    daemon.write(BAD)
    daemon.copy.chmod(0o666)
    daemon.start()
    assert daemon.granted == []


@pytest.mark.parametrize("where", ["below a file", "no such directory", "a directory"])
def test_a_copy_that_cannot_be_written(tmp_path: Path, where: str, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "directory").mkdir()
    copy = {"below a file": "file/copy", "no such directory": "none/copy", "a directory": "directory"}[where]
    daemon = Daemon(tmp_path, tmp_path / copy)
    daemon.write(GOOD)
    caplog.clear()
    daemon.control.load_policy()
    assert daemon.granted == ["tags.set"]
    (line,) = errors_in(caplog)
    assert "no copy could be kept" in line


def test_a_full_disk(daemon: Daemon, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(utils, "WriteFile", full)
    daemon.write(BETTER)
    caplog.clear()
    daemon.control.load_policy()
    assert daemon.granted == ["tags.get"]
    assert daemon.copy.read_text() == GOOD
    assert "No space left" in errors_in(caplog)[0]


def test_loading_never_raises(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """The main loop calls it: what it raises would end the daemon."""

    def fail(*_: Any) -> Any:
        raise ValueError("a bug")

    for name in ("policy.loader.load_policy", "rapi.access.resolve"):
        with monkeypatch.context() as patched:
            patched.setattr(f"ganeti_ext.{name}", fail)
            daemon.write(BETTER)
            daemon.control.load_policy()
        assert daemon.granted in (["tags.set"], [])


def test_a_restart_with_a_loader_that_fails(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise ValueError("a bug")

    monkeypatch.setattr("ganeti_ext.policy.loader.load_policy", fail)
    daemon.start()
    assert daemon.granted == []
    assert daemon.control.active


# What users are given.


def test_tokens_are_kept_and_options_become_permissions() -> None:
    control = AccessControl("/nonexistent/a", "/nonexistent/b")
    users = fake.parse_users("she +tags.set,+tags.get\nroot write\nnone ")
    control.resolve_users(users)
    control.resolve_users(users)
    she, root, none = users.values()
    assert (she.tokens, she.options) == (("+tags.set", "+tags.get"), ["tags.get", "tags.set"])
    assert (root.tokens, root.options, root.grants) == (("write",), ["write"], None)
    assert none.grants is None


DENY = "version: 1\ndeny:\n  - {users: [noc, she], permissions: [tags.set]}\n"


def test_an_account_is_of_whoever_has_our_tokens_or_a_deny_about_him() -> None:
    control = AccessControl("/nonexistent/a", "/nonexistent/b")
    control._take(load_policy(DENY.encode(), "policy"))
    users = fake.parse_users("she +tags.set\nroot write\nnoc write\nreader read\nnobody @typo")
    control.resolve_users(users)
    accounts = {name: control.account_of(user) for name, user in users.items()}
    assert {name for name, account in accounts.items() if account is not None} == {"she", "noc", "nobody"}
    for name in ("she", "noc"):
        account = accounts[name]
        assert account is not None
        assert account.denied(["tags.set"], ()) is not None
        assert account.denied(["tags.get"], ()) is None
    assert users["noc"].options == ["write"]  # Ganeti's own check of him stays what it is


def test_without_a_policy_there_are_accounts_of_our_tokens_alone() -> None:
    control = AccessControl("/nonexistent/a", "/nonexistent/b")
    users = fake.parse_users("she +tags.set\nnoc write")
    control.resolve_users(users)
    assert control.account_of(users["noc"]) is None
    account = control.account_of(users["she"])
    assert account is not None
    assert [role.permissions for role in account.roles("tags.set")] == [{"tags.set"}]
    assert account.roles("tags.get") == ()


def test_a_user_who_was_never_worked_out_has_no_account_of_ours() -> None:
    """He is Ganeti's own; `RapiUsers` lets nobody see him before that."""
    control = AccessControl("/nonexistent/a", "/nonexistent/b")
    assert control.account_of(fake.parse_users("she @admin")["she"]) is None


def test_a_middleware_alone_is_something_to_enforce() -> None:
    control = AccessControl("/nonexistent/a", "/nonexistent/b")
    assert not control.active
    control.has_middleware = True
    assert control.active


def test_a_users_file_that_cannot_be_read_leaves_nobody() -> None:
    control = AccessControl("/nonexistent/a", "/nonexistent/b")
    control.resolve_users(fake.parse_users("she @admin"))
    control.resolve_users(None)
    assert control.active  # what was closed to the anonymous stays closed
    control._take(load_policy(GOOD.encode(), "policy"))
    assert control.active


def test_problems_of_a_user_are_logged_once_a_load(caplog: pytest.LogCaptureFixture) -> None:
    control = AccessControl("/nonexistent/a", "/nonexistent/b")
    control.resolve_users(fake.parse_users("she @oparator,@oparator2\nboss @admin"))
    assert errors_in(caplog) == []  # the policy is yet to come, and with it its roles
    control.start()
    lines = errors_in(caplog)
    assert len(lines) == 2
    assert all("'she'" in line for line in lines)
    assert "did you mean '@operator'" in lines[0]


# Reading the file.


def test_reading_tells_what_is_unsafe(tmp_path: Path) -> None:
    path = tmp_path / "policy"
    path.write_text("x")
    path.chmod(0o600)
    assert read_policy_file(str(path), (OWNER,)) == b"x"
    with pytest.raises(UnsafeFile, match="chown root"):
        read_policy_file(str(path), (OWNER + 1,))
    path.chmod(0o620)
    with pytest.raises(UnsafeFile, match="chmod go-w"):
        read_policy_file(str(path), (OWNER,))
    with pytest.raises(FileNotFoundError):
        read_policy_file(str(tmp_path / "none"), (OWNER,))


@pytest.mark.parametrize("kind", ["regular", "unsafe", "fifo", "directory", "link"])
def test_reading_leaves_no_descriptor_open(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "policy"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "link":
        path.symlink_to("/etc/passwd")
    else:
        path.write_text("x")
        path.chmod(0o666 if kind == "unsafe" else 0o600)
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        try:
            read_policy_file(str(path), (OWNER,))
        except (OSError, UnsafeFile):
            assert kind != "regular"
    assert len(os.listdir("/proc/self/fd")) == len(before)
