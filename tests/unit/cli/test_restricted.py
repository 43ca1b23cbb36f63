# SPDX-License-Identifier: BSD-2-Clause
"""Which nodes are meant, and what an answer of a node daemon says."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from ganeti import errors

from ganeti_ext.cli import restricted
from ganeti_ext.cli.restricted import Answer, Report, resolve

KNOWN = ["a.example.com", "b.example.com", "b.example.org", "c", "c.example.com"]


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["a"], ["a.example.com"]),
        (["A.example", "a"], ["a.example.com"]),
        (["b.example.org", "c"], ["b.example.org", "c"]),
        (["b.example.com", "a.example.com"], ["b.example.com", "a.example.com"]),
    ],
)
def test_a_name_is_ganetis_abbreviation(names: list[str], found: list[str]) -> None:
    assert resolve(names, "command", KNOWN) == found


@pytest.mark.parametrize("name", ["b", "b.example", "d", "", "a.exam", "a.example.com.", "*", ".*", "a\n"])
def test_a_name_of_none_or_several_is_refused(name: str) -> None:
    with pytest.raises(errors.OpPrereqError):
        resolve(["a", name], "command", KNOWN)


def test_a_node_is_no_command() -> None:
    with pytest.raises(errors.OpPrereqError, match="comes last"):
        resolve(["a"], "b.example.com", KNOWN)


@pytest.mark.parametrize(
    ("error", "output", "asked", "expected"),
    [
        (None, "fine\n", None, (True, 0, "fine\n", None)),
        (None, ["no text"], None, (None, None, "", "not an answer of a node daemon: the output is not text")),
        (
            "Restricted command 'x' failed: exited with exit code 255; output: a; output: b",
            None,
            None,
            (True, 255, "a; output: b", "exited with exit code 255"),
        ),
        (
            "Restricted command 'x' failed: terminated by signal 9; output: ",
            None,
            None,
            (True, None, "", "terminated by signal 9"),
        ),
        (
            "Executing command 'x' failed",
            None,
            None,
            (False, None, "", "refused; the reason is in the node's own log (node-daemon.log)"),
        ),
        ("Error 7: refused", None, False, (False, None, "", "Error 7: refused")),
        ("Error 28: late", None, None, (None, None, "", "Error 28: late (whether it ran is not known)")),
        ({"code": 500}, None, None, (None, None, "", '{"code": 500} (whether it ran is not known)')),
    ],
)
def test_answers(error: Any, output: Any, asked: bool | None, expected: tuple[Any, ...]) -> None:
    assert restricted._answer("node", "x", error, output, asked) == Answer("node", *expected)


def test_the_failures_lead_the_summary(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(False, False)
    report.begin(["a", "b", "c"])
    report.add(Answer("c", True, 0, "\x1b[2J", None))
    report.add(Answer("a", True, 0, "", None))
    report.add(Answer("b", True, 1, "", "exited\nwith \x07"))
    assert report.end() == 1
    out, err = capsys.readouterr()
    assert err == "Failed on 1 of 3 nodes:\n  b: exited\\nwith \\x07\nExit code 0 on 2 of 3 nodes: a, c\n"
    assert out.count("\n") == 7 and "\x1b" not in out and "\x07" not in out


def test_json_is_exact_and_in_the_order_that_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(True, False)
    report.begin(["a", "b"])
    report.add(Answer("b", True, 0, "\x1b[2J\ud800\n", None))
    report.missing("no answer", None)
    assert report.end() == 1
    found = json.loads(capsys.readouterr().out)
    assert [one["node"] for one in found] == ["a", "b"]
    assert found[1] == {"node": "b", "ran": True, "exit_code": 0, "output": "\x1b[2J\ud800\n", "error": None}


def test_a_dying_node_has_no_memory_for_yaml_and_the_policy() -> None:
    program = (
        "import sys; from ganeti_ext import compat; compat.put_ganeti_first();"
        "from ganeti_ext.cli import main, restricted, direct;"
        "print([name for name in sys.modules if name == 'yaml' or name.startswith(('ganeti_ext.', 'ganeti.rapi'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = ["ganeti_ext." + name for name in ("errors", "compat", "cli", "cli.main", "cli.text", "cli.restricted")]
    assert sorted(eval(done.stdout)) == sorted([*loaded, "ganeti_ext.cli.direct"])
