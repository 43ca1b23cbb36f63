# SPDX-License-Identifier: BSD-2-Clause
"""What `gnt-ext verify` makes of what nodes say, and what a node says of itself."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
from ganeti import pathutils

from ganeti_ext.cli import local, sync
from ganeti_ext.cli.state import StateError
from ganeti_ext.cli.sync import Node

CANDIDATE = Node("node2", True, False, None)
OTHER = Node("node3", False, False, 2222)
MASTER: dict[str, Any] = {
    "version": "1",
    "files": {name: {"hash": name, "problem": ""} for name in local.PATHS},
    "commands": {"problem": "", "refused": 0},
}


def changed(**settings: Any) -> dict[str, Any]:
    state = copy.deepcopy(MASTER)
    for name, value in settings.items():
        target = state if name in state else state["files"]
        target[name.replace("_", "-")] = value
    return state


def test_differences() -> None:
    assert sync.differences(CANDIDATE, MASTER, MASTER) == []
    (said,) = sync.differences(CANDIDATE, changed(version="2"), MASTER)
    assert said == "ganeti-ext 2, the master has 1 (install the same one)"
    state = changed(version="2", policy={"hash": "x", "problem": ""})
    assert sync.differences(CANDIDATE, state, MASTER, "this node") == [
        "ganeti-ext 2, this node has 1 (install the same one)",
        f"{local.PATHS['policy']} differs (install the same ganeti-ext, then gnt-ext sync)",
    ]
    for name in local.PATHS:
        for here, words in (("x", "differs"), (None, "is missing")):
            state = changed(**{name: {"hash": here, "problem": ""}})
            (said,) = sync.differences(CANDIDATE, state, MASTER)
            assert said.startswith(f"{local.PATHS[name]} {words} (gnt-")
            assert bool(sync.differences(OTHER, state, MASTER)) == (name == "users")
        (said,) = sync.differences(CANDIDATE, MASTER, changed(**{name: {"hash": None, "problem": ""}}))
        assert "is not on the master" in said
    (said,) = sync.differences(CANDIDATE, changed(policy={"hash": None, "problem": "bad"}), MASTER)
    assert said == "bad"
    assert sync.differences(OTHER, changed(commands={"problem": "x", "refused": 0}), MASTER) == [
        "no restricted command runs: x"
    ]
    assert sync.differences(OTHER, changed(commands={"problem": "", "refused": 2}), MASTER)[0].endswith(": 2")


@pytest.mark.parametrize(
    ("code", "output", "complaint", "said"),
    [
        (255, b"", b"ssh: connect: \xff\n", "cannot be reached by SSH: ssh: connect: \ufffd"),
        (127, b"", b"sh: gnt-ext: not found\n", "ganeti-ext is not installed"),
        (1, b"Usage", b"", "has another version of ganeti-ext, which does not know this"),
        (1, b"", b"a\n\x1b[2Jb\n", "\\x1b[2Jb"),
        (0, b"", b"", "says something that gnt-ext would not"),
        (0, b"[" * 100000, b"", "says something that gnt-ext would not"),
        (0, b'{"version": 1, "files": []}', b"", "says something that gnt-ext would not"),
    ],
)
def test_what_is_no_answer(code: int, output: bytes, complaint: bytes, said: str) -> None:
    answer = sync.answer_of(code, output, complaint)
    assert answer == (None, said)


def test_an_answer() -> None:
    assert sync.answer_of(0, json.dumps(MASTER).encode(), b"banner").state == MASTER


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it is about files of root's")
def test_the_safety_of_the_commands_without_their_names(tmp_path: Path) -> None:
    # Below a directory of root's: /tmp is for all, and refused for what lies directly in it alone.
    directory = tmp_path / "commands"
    assert local._commands(str(directory)) == {"problem": "", "refused": 0}
    directory.mkdir(mode=0o755)
    for name, mode in (("good", 0o755), ("bad", 0o775), ("README", 0o666), (".hidden", 0o777), ("a b", 0o777)):
        (directory / name).write_text("#!/bin/sh\n", encoding="ascii")
        (directory / name).chmod(mode)
    (directory / "gone").symlink_to("nowhere")
    assert local._commands(str(directory)) == {"problem": "", "refused": 2}
    directory.chmod(0o757)
    said = local._commands(str(directory))
    assert "mode 0757" in said["problem"] or "writable" in said["problem"]
    assert "bad" not in said["problem"]


def test_what_comes_is_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tmp_path / "policy"
    monkeypatch.setitem(local.PATHS, "policy", str(policy))
    monkeypatch.setattr("ganeti_ext.cli.files.os.fchown", lambda *args: None)
    good, bad = b"version: 1\n", b"version: 2\n"
    with pytest.raises(StateError, match="not all of the file"):
        local.take("policy", good[:-1], _hash(good), "644", "root", "root")
    with pytest.raises(Exception, match="version"):
        local.take("policy", bad, _hash(bad), "644", "root", "root")
    with pytest.raises(StateError, match="no such user or group"):
        local.take("policy", good, _hash(good), "644", "nobody-of-that-name", "root")
    assert not policy.exists()
    local.take("policy", good, _hash(good), "6777", "root", "root")
    assert policy.read_bytes() == good
    assert policy.stat().st_mode & 0o7777 == 0o755  # nobody else writes, whatever is asked for
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]


def _hash(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def test_paths() -> None:
    assert local.PATHS["users"] == pathutils.RAPI_USERS_FILE
    assert set(local.CARRIED) < set(local.PATHS) == set(sync._MENDS)


def test_a_node_that_hangs_holds_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them together have the one limit, also those that have to wait for a place."""

    class Hanging:
        def __init__(self, cluster: str) -> None:
            pass

        def BuildCmd(self, node: str, *args: Any, **kwargs: Any) -> list[str]:
            return ["sleep", "600"] if node != "node7" else ["echo", json.dumps(MASTER)]

    monkeypatch.setattr(sync, "SshRunner", Hanging)
    monkeypatch.setattr("ganeti.ssconf.SimpleStore", lambda: type("Store", (), {"GetClusterName": lambda self: "x"})())
    asked = [Node(f"node{number}", True, False, None) for number in range(sync._AT_ONCE + 4)]
    answers = sync.ask(asked, ["state"], limit=2)
    assert list(answers) == [node.name for node in asked]
    assert answers.pop("node7").state == MASTER
    assert {answer.error for answer in answers.values()} == {"no answer in time"}
