# SPDX-License-Identifier: BSD-2-Clause
"""What a node may answer, and which nodes there are."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ganeti import errors, pathutils

from ganeti_ext.cli import direct, restricted


def told(body: bytes, status: int = 200, error: str | None = None, sent: int = 100) -> restricted.Answer:
    """What is made of an answer."""
    found: list[restricted.Answer] = []

    def take(node: str, asked: bool, result: Any) -> None:
        found.append(restricted._answer(node, "x", result.fail_msg, result.payload, None if asked else False))

    call = direct._Call("node", 5, take)
    call.curl = SimpleNamespace(getinfo=lambda _: sent)
    assert call.take(body) is None
    call.done(SimpleNamespace(error=error, resp_status_code=status))
    return found[0]


def test_answers() -> None:
    assert told(b'[true, "fine\\n"]') == restricted.Answer("node", True, 0, "fine\n", None)
    answer = told(b"[false, \"Restricted command 'x' failed: exited with exit code 2; output: no\"]")
    assert answer == restricted.Answer("node", True, 2, "no", "exited with exit code 2")
    assert told(b"", 0, "Error 7: refused", sent=0).ran is False
    assert told(b"", 0, "Error 28: late").ran is None


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 200),
        (b"\xff\xfe", 200),
        (b"[" * 100000, 200),
        (b"{}", 200),
        (b"7", 200),
        (b"null", 200),
        (b"[true]", 200),
        (b"[true, null]", 200),
        (b"[true, {}]", 200),
        (b"[false, {}]", 200),
        (b"[false, null]", 200),
        (b"\x1b[2J\xff" * 1000, 500),
    ],
)
def test_nonsense_is_a_failure_of_that_node(body: bytes, status: int) -> None:
    answer = told(body, status)
    assert (answer.ran, answer.exit_code) == (None, None) and answer.error and len(answer.error) < 1200


def test_an_answer_without_end_is_cut_off() -> None:
    call = direct._Call("node", 5, lambda *_: None)
    assert call.take(b"x" * direct.MAX_ANSWER) is None
    assert call.take(b"x") == 0  # which curl takes for an error


def test_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.data"
    monkeypatch.setattr(pathutils, "CLUSTER_CONF_FILE", str(path))
    with pytest.raises(errors.OpPrereqError, match="master candidates alone"):
        direct.group_members("g")
    for bad in ("", "[]", "{}", '{"nodegroups": {"u": {}}, "nodes": {}}'):
        path.write_text(bad, encoding="utf-8")
        with pytest.raises(errors.OpPrereqError, match="cannot be read"):
            direct.group_members("g")
    groups = {"u1": {"name": "g"}, "u2": {"name": "empty"}}
    config = {"nodegroups": groups, "nodes": {"n": {"name": "node1", "group": "u1"}}}
    path.write_text(json.dumps(config), encoding="utf-8")
    assert direct.group_members("g") == direct.group_members("u1") == ["node1"]
    assert direct.group_members("empty") == []
    with pytest.raises(errors.OpPrereqError, match="no node group"):
        direct.group_members("G")
