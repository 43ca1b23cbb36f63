# SPDX-License-Identifier: BSD-2-Clause
"""Users are seen only once their tokens are worked out; on an error nobody gets in."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from ganeti_ext.rapi.access import AccessControl
from ganeti_ext.rapi.users import RapiUsers


@pytest.fixture
def users() -> Any:
    cls = type("Users", (RapiUsers,), {"access": AccessControl("/nonexistent/a", "/nonexistent/b")})
    return cls()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "users"
    path.write_text("root secret write\nshe secret @readonly,-cluster.info\n# comment\n\nnone secret\n")
    return path


def test_a_good_file(users: Any, file: Path) -> None:
    assert users.Load(str(file)) is True
    assert users.Get("root").grants is None
    assert users.Get("root").options == ["write"]
    assert users.Get("none").grants is None
    assert "cluster.info" not in users.Get("she").grants.roles
    assert "tags.get" in users.Get("she").options
    assert users.Get("stranger") is None
    assert users.access.active


def test_before_it_is_loaded_nobody_is_there(users: Any) -> None:
    assert users.Get("root") is None


def test_an_account_of_ours_has_no_plain_option(users: Any, file: Path) -> None:
    file.write_text("she secret write,-tags.set\nhe secret read,@typo\n")
    users.Load(str(file))
    for name in ("she", "he"):
        assert {"write", "read"}.isdisjoint(users.Get(name).options)


def test_what_cannot_be_parsed_leaves_the_old_ones(users: Any, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    users.Load(str(file))
    file.write_bytes(b"root secret write\nmallory secret write\n\xff\xfe")
    assert users.Load(str(file)) is False
    assert users.Get("mallory") is None
    assert users.Get("she").grants is not None
    assert users.Get("root").grants is None
    assert users.access.active


@pytest.mark.parametrize("how", ["vanished", "a directory", "below a file"])
def test_what_cannot_be_read_lets_nobody_in(users: Any, file: Path, how: str) -> None:
    users.Load(str(file))
    path = file
    if how == "below a file":
        path = file / "users"
    else:
        file.unlink()
        if how == "a directory":
            file.mkdir()
    assert users.Load(str(path)) is False
    assert users.Get("root") is None
    assert users.Get("she") is None


@pytest.mark.parametrize("how", ["vanished", "a directory"])
def test_what_cannot_be_read_opens_nothing_to_the_anonymous(users: Any, file: Path, how: str) -> None:
    """There was something to protect, and it did not go away with the file."""
    users.Load(str(file))
    assert users.access.active
    file.unlink()
    if how == "a directory":
        file.mkdir()
    users.Load(str(file))
    assert users.access.active


def test_an_error_in_working_out_lets_nobody_in(
    users: Any, file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    users.Load(str(file))

    def fail(*_: Any) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(users.access, "resolve_users", fail)
    assert users.Load(str(file)) is False
    assert users.Get("root") is None
    assert users.Get("she") is None
    assert any("nobody is let in" in record.message for record in caplog.records if record.levelno >= logging.ERROR)
    monkeypatch.undo()
    assert users.Load(str(file)) is True
    assert users.Get("root") is not None


def test_a_removed_user_is_gone(users: Any, file: Path) -> None:
    users.Load(str(file))
    file.write_text("root secret write\n")
    users.Load(str(file))
    assert users.Get("she") is None
    assert not users.access.active
