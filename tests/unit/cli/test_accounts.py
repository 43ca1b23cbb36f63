# SPDX-License-Identifier: BSD-2-Clause
"""Changes of the users file: one user's, whole or not at all."""

from __future__ import annotations

import io
import os
import random
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ganeti import errors, pathutils, utils

from ganeti_ext.cli import accounts, state
from ganeti_ext.cli.state import Line, State, StateError
from ganeti_ext.policy.loader import load_policy
from ganeti_ext.rapi.passwords import PasswordError, verify_password
from tests.unit import cli

POLICY = load_policy(
    b"version: 1\nroles:\n  ours:\n    permissions: [instances.reboot]\n    scope: {instances: {name: a}}\n", "policy"
)
CONTENT = "# the users\n\n joe\t pw1  @ours\t\nann pw2\r\nann pw3 read # old\n\u00fcwe pw4   @readonly,jobs.cancel"

Users = Any


class File:
    """A users file, and gnt-ext user on it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(CONTENT.encode())
        path.chmod(0o640)

    def __call__(self, *args: str, token: bool = False, force: bool = False) -> str:
        assert accounts.user(SimpleNamespace(token=token, force=force), args) == 0
        return self.text

    @property
    def text(self) -> str:
        return self.path.read_bytes().decode()

    def line(self, name: str) -> Line:
        return state.by_name(state.read_users(str(self.path)))[name]


@pytest.fixture(name="file")
def _file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> File:
    path = tmp_path / "users"
    monkeypatch.setattr(pathutils, "RAPI_USERS_FILE", str(path))
    monkeypatch.setattr(state, "load", lambda: State(POLICY, {}))
    monkeypatch.setattr(accounts, "_tell_of_other_nodes", lambda: None)
    monkeypatch.setattr(sys, "stdin", io.StringIO("a password\n"))
    return File(path)


def test_add(file: File) -> None:
    assert file("add", "zoe", "@ours", "@ours").startswith(CONTENT + "\nzoe {SCRYPT}")
    line = file.line("zoe")
    assert line.tokens == ("@ours",)
    assert verify_password("zoe", "a password", line.password, "realm")
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o640


def test_a_token_is_shown_once_and_not_kept(file: File, capsys: pytest.CaptureFixture[str]) -> None:
    file("add", "ci", "@readonly", token=True)
    secret = capsys.readouterr().out.strip()
    assert verify_password("ci", secret, file.line("ci").password, "realm")
    assert secret not in file.text
    file("token", "joe")
    assert verify_password("joe", capsys.readouterr().out.strip(), file.line("joe").password, "realm")
    assert file.line("joe").tokens == ("@ours",)


def test_passwd_grant_revoke_and_remove_leave_the_rest_to_the_byte(file: File) -> None:
    password = file("passwd", "joe").partition(" joe\t ")[2].partition(" ")[0]
    assert file.text == CONTENT.replace("pw1", password)
    assert file("grant", "joe", "@readonly", "@ours").count("@ours,@readonly\t\n") == 1
    assert file("revoke", "joe", "@ours").count("  @readonly\t\n") == 1
    assert file("grant", "ann", "write", force=True).count("ann pw3 read # old,write\n") == 1
    assert file("remove", "ann") == CONTENT.replace("pw1  @ours", f"{password}  @readonly").replace(
        "ann pw2\r\nann pw3 read # old\n", ""
    )
    assert file("revoke", "\u00fcwe", "jobs.cancel").endswith("\n\u00fcwe pw4   @readonly")
    assert file("revoke", "\u00fcwe", "@readonly", force=True).endswith("\n\u00fcwe pw4")
    assert file("grant", "\u00fcwe", "read").endswith("\n\u00fcwe pw4  read")


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["add", "joe", "@ours"], "is a user 'joe' already"),
        (["add", "a:b", "@ours"], "cannot be a user's name"),
        (["add", "#a", "@ours"], "cannot be a user's name"),
        (["add", "a\nroot x write", "@ours"], "cannot be a user's name"),
        (["add", "a\x1b", "@ours"], "cannot be a user's name"),
        (["add", "--token", "ci", "@ours"], "come before add"),
        (["add", "zoe"], "read almost everything"),
        (["add", "zoe", "@our"], "did you mean '@ours'"),
        (["add", "zoe", "wirte", "@ours"], "did you mean 'write'"),
        (["add", "zoe", "@ours\nroot", "write"], "cannot be an option"),
        (["add", "zoe", "@ours,write"], "cannot be an option"),
        (["grant", "joe"], "Name what to grant"),
        (["grant", "joe", "jobs.cancel"], "beside the limited role"),
        (["grant", "joe", "-jobs.cancle"], "granted nothing"),
        (["revoke", "joe", "@our"], "none of his options"),
        (["revoke", "joe", "@ours"], "read almost everything"),
        (["passwd", "joe", "secret"], "name of a user alone"),
        (["remove", "zoe"], "no user 'zoe'"),
        (["grnt", "joe", "write"], "did you mean 'grant'"),
    ],
)
def test_what_is_hardly_meant_changes_nothing(file: File, args: list[str], told: str) -> None:
    with pytest.raises((errors.OpPrereqError, StateError)) as caught:
        file(*args)
    assert told in str(caught.value)
    assert file.text == CONTENT


def test_a_password_that_cannot_be_used(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    for bad in ("\n", "", "p\u00e4ss\n"):
        monkeypatch.setattr(sys, "stdin", io.StringIO(bad))
        with pytest.raises(PasswordError):
            file("passwd", "joe")
    assert file.text == CONTENT


def test_a_full_disk_and_a_link_change_nothing(file: File, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(utils.io.os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            file("passwd", "joe")
    assert file.text == CONTENT and os.listdir(tmp_path) == ["users"]
    file.path.rename(tmp_path / "other")
    file.path.symlink_to(tmp_path / "other")
    monkeypatch.setattr(sys, "stdin", io.StringIO("a password\n"))
    with pytest.raises(OSError, match="symbolic links"):
        file("passwd", "joe")
    assert (tmp_path / "other").read_bytes() == CONTENT.encode()


def test_a_change_by_somebody_else_is_not_lost(file: File) -> None:
    def change(lines: list[str]) -> list[str]:
        file.path.write_text("eve pw write\n", encoding="utf-8")
        return lines

    with pytest.raises(StateError, match="somebody else"):
        accounts.rewrite(str(file.path), "joe", change)
    assert file.text == "eve pw write\n"
    with pytest.raises(StateError, match="other users"):
        accounts.rewrite(str(file.path), "joe", lambda lines: [])


PROGRAM = """
import sys
from ganeti_ext import compat
compat.put_ganeti_first()
from ganeti_ext.cli import accounts
path, name, count = sys.argv[1:]
for number in range(int(count)):
    accounts.rewrite(path, f"{name}{number}", lambda lines: [*lines, f"{name}{number} pw read\\n"])
"""


def start(path: Path, name: str, count: int) -> subprocess.Popen[bytes]:
    root = Path(cli.__file__).parents[3]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(path), name, str(count)], cwd=root, stderr=subprocess.DEVNULL
    )


def test_many_at_once(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text("root pw write\n", encoding="utf-8")
    processes = [start(path, f"p{number}-", 10) for number in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    assert len(state.by_name(state.read_users(str(path)))) == 41


def test_killed_at_any_moment(tmp_path: Path) -> None:
    path = tmp_path / "users"
    chance = random.Random(0)
    lines = 0
    for number in range(8):
        path.write_text("root pw write\n", encoding="utf-8")
        path.chmod(0o640)
        process = start(path, "u", 100000)
        while path.stat().st_size < 20:
            time.sleep(0.001)
        time.sleep(chance.random() / 20)
        process.send_signal(signal.SIGKILL)
        process.wait()
        text = path.read_text(encoding="utf-8")
        expected = "root pw write\n" + "".join(f"u{one} pw read\n" for one in range(text.count("\n") - 1))
        assert text == expected, number
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        lines += text.count("\n")
    assert lines > 8
