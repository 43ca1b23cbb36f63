# SPDX-License-Identifier: BSD-2-Clause
"""Patches are put in place all together or not at all, and a start never ends in a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from ganeti_ext import entrypoint
from ganeti_ext.entrypoint import Patch, apply, noded_patches, rapi_patches, take_middleware
from ganeti_ext.errors import StartupError

ROOT = Path(__file__).parents[2]


# Whose middleware.


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        ([], {}, (None, [])),
        (["-d", "-b", "0.0.0.0"], {}, (None, ["-d", "-b", "0.0.0.0"])),
        (["--middleware", "a.b"], {}, ("a.b", [])),
        (["--middleware=a.b"], {}, ("a.b", [])),
        (["-d", "--middleware", "a", "-f"], {}, ("a", ["-d", "-f"])),
        (["-d", "--middleware=/etc/a=b.py", "-f"], {}, ("/etc/a=b.py", ["-d", "-f"])),
        (["--middleware"], {}, ("", [])),
        (["--middleware="], {}, ("", [])),
        (["--middleware", ""], {}, ("", [])),
        (["--middleware", "a", "--middleware", "b"], {}, ("b", [])),
        (["--middlewares", "a"], {}, (None, ["--middlewares", "a"])),
        (["--require-authentication"], {"GANETI_RAPI_MIDDLEWARE": "c"}, ("c", ["--require-authentication"])),
        (["--middleware", "a"], {"GANETI_RAPI_MIDDLEWARE": "c"}, ("a", [])),
        (["--middleware"], {"GANETI_RAPI_MIDDLEWARE": "c"}, ("", [])),
        ([], {"GANETI_RAPI_MIDDLEWARE": ""}, (None, [])),
    ],
)
def test_taking_the_middleware(
    arguments: list[str], environment: dict[str, str], expected: tuple[str | None, list[str]]
) -> None:
    assert take_middleware(arguments, environment) == expected


# Patches.


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = types.ModuleType("a_ganeti")

    class Holder:
        def method(self, one: int) -> None: ...

    module.Holder = Holder  # type: ignore[attr-defined]
    module.function = lambda one, two=None: None  # type: ignore[attr-defined]
    module.table = {}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "a_ganeti", module)
    return module


def a_patch(name: str, expects: str, make: Any = None) -> Patch:
    return Patch("a_ganeti", name, expects, "for the test", make)


def test_a_patch_gets_what_is_there_and_is_put_in_its_place(target: Any) -> None:
    before = target.function
    made: list[Any] = []

    def replace(old: Any) -> str:
        made.append(old)
        return "new"

    apply(
        [
            a_patch("function", "(one, two=None)", replace),
            a_patch("Holder.method", "(self, one: 'int') -> 'None'", lambda _: "method"),
            a_patch("table", "dict"),
            a_patch("Holder", "type"),
        ]
    )
    assert made == [before]
    assert (target.function, target.Holder.method, target.table) == ("new", "method", {})


@pytest.mark.parametrize(
    "wrong",
    [
        a_patch("missing", "()"),
        a_patch("Holder.missing", "()"),
        a_patch("missing.method", "()"),
        a_patch("function", "(one)"),
        a_patch("function", "(one, two=0)"),
        a_patch("Holder.method", "(self)"),
        a_patch("table", "list"),
        a_patch("function", "type"),
        Patch("no_such_module", "x", "()", "for the test"),
        Patch("a_ganeti.inner", "x", "()", "for the test"),
    ],
    ids=lambda patch: f"{patch.module}.{patch.name} {patch.expects}",
)
@pytest.mark.parametrize("first", [True, False])
def test_one_that_is_not_as_expected_stops_all(target: Any, wrong: Patch, first: bool) -> None:
    before, attributes = dict(vars(target)), dict(vars(target.Holder))
    right = [
        a_patch("function", "(one, two=None)", lambda _: "new"),
        a_patch("Holder.method", "(self, one: 'int') -> 'None'", lambda _: "new"),
    ]
    with pytest.raises(StartupError, match="Ganeti") as caught:
        apply([wrong, *right] if first else [*right, wrong])
    assert f"{wrong.module}.{wrong.name}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert dict(vars(target)) == before
    assert dict(vars(target.Holder)) == attributes


def test_one_that_cannot_be_made_stops_all(target: Any) -> None:
    def fail(_: Any) -> Any:
        raise StartupError("why")

    before = target.function
    with pytest.raises(StartupError, match="why"):
        apply([a_patch("function", "(one, two=None)", lambda _: "new"), a_patch("table", "dict", fail)])
    assert target.function is before


@pytest.mark.parametrize(("needs", "fits"), [((), True), (("loads",), True), (("loads", 4096), True), (("x",), False)])
def test_what_the_code_of_a_target_must_have(target: Any, needs: tuple[Any, ...], fits: bool) -> None:
    """Its names and constants: nothing is read from its source, which takes long and need not be there."""
    exec("def function(one, two=None):\n    return loads(one, 4096)", vars(target))
    patch = Patch("a_ganeti", "function", "(one, two=None)", "for the test", needs=needs)
    if fits:
        assert entrypoint._look_at(patch).target is target.function
    else:
        with pytest.raises(StartupError, match="a_ganeti.function is another now, without 'x'"):
            entrypoint._look_at(patch)


def test_one_with_a_switch_is_left_out_with_its_like_where_it_does_not_fit(
    target: Any, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    before = target.Holder.method
    target.Prepare = lambda options: f"prepared {options}"
    patches = [
        Patch("a_ganeti", "Holder.method", "(self, one: 'int') -> 'None'", "x", lambda _: "new", "RAPI_NO_DELAY"),
        Patch("a_ganeti", "table", "list", "for the test", lambda _: [], "RAPI_NO_DELAY"),
        a_patch("function", "(one, two=None)", lambda _: "new"),
        Patch("a_ganeti", "Prepare", "(options)", "for the test", lambda stock: lambda options: stock(options) + "!"),
    ]
    entrypoint._put_wanted(patches, target, "Prepare")
    assert (target.Holder.method, target.table, target.function) == (before, {}, "new")
    assert target.Prepare("well") == "prepared well!"
    said = "RAPI_NO_DELAY is left out: Ganeti's a_ganeti.table is dict, not list: install a newer ganeti-ext"
    assert [record.getMessage() for record in caplog.records] == [said]
    assert capsys.readouterr().err.strip().endswith(said)


@pytest.mark.parametrize("make", [lambda: rapi_patches(None), noded_patches], ids=["rapi", "noded"])
def test_every_target_is_as_expected_in_this_ganeti(make: Any) -> None:
    patches = make()
    for patch in patches:
        entrypoint._look_at(patch)
        assert patch.why
    names = [(patch.module, patch.name) for patch in patches]
    assert len(set(names)) == len(names)


# The daemons, as processes of their own.

PRELUDE = """
import sys
sys.path.insert(0, {root!r})
from ganeti_ext import compat, entrypoint
"""
STOCK_RAPI = (
    PRELUDE
    + """
compat.put_ganeti_first()
from ganeti import constants
from ganeti.server import rapi
def main():
    handler = rapi.RemoteApiHandler
    print([cls.__module__ + "." + cls.__name__ for cls in handler.__mro__[:3]], rapi.RapiUsers.__module__, sys.argv[1:])
rapi.Main = main
{more}
sys.exit(entrypoint.run_rapi())
"""
)
STOCK_NODED = (
    PRELUDE
    + """
import logging
compat.put_ganeti_first()
from ganeti import constants
from ganeti.server import noded
logging.basicConfig(stream=sys.stdout, format="LOG %(message)s")
noded.PrepNoded = lambda *args: print("prepared", args)
def main():
    noded.PrepNoded(1, 2)
    print(noded.NodeRequestHandler.__module__)
noded.Main = main
{more}
sys.exit(entrypoint.run_noded())
"""
)


def run(script: str, *arguments: str, more: str = "", **environment: str) -> Any:
    text = script.replace("{root!r}", repr(str(ROOT))).replace("{more}", more)
    return subprocess.run(
        [sys.executable, "-I", "-c", text, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**{key: value for key, value in os.environ.items() if key != "GANETI_RAPI_MIDDLEWARE"}, **environment},
    )


@pytest.mark.parametrize("daemon", ["rapi", "noded"])
@pytest.mark.parametrize("fake", ["missing", "empty", "broken", "no daemons"])
def test_without_a_ganeti_that_loads_there_is_one_line(tmp_path: Path, daemon: str, fake: str) -> None:
    if fake != "missing":
        (tmp_path / "ganeti").mkdir()
    if fake in ("broken", "no daemons"):
        text = "raise ValueError('broken')" if fake == "broken" else ""
        (tmp_path / "ganeti" / "__init__.py").write_text(text)
    script = (
        PRELUDE + f"compat.put_ganeti_first.__defaults__ = ({str(tmp_path)!r},)\nsys.exit(entrypoint.run_{daemon}())"
    )
    result = run(script)
    assert result.returncode == 1
    assert result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert fake in ("broken", "no daemons") or "Ganeti is not installed" in result.stderr


def test_rapi_runs_with_our_classes() -> None:
    result = run(STOCK_RAPI, "-d", "-p", "1")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(
        "['ganeti_ext.rapi.handler.RemoteApiHandler', 'ganeti_ext.rapi.signin.SignIn',"
        " 'ganeti.server.rapi.RemoteApiHandler']"
    )
    assert result.stdout.rstrip().endswith("ganeti_ext.rapi.users ['-d', '-p', '1']")
    assert result.stderr == ""


REFUSALS = {
    "another release": "constants.VERSION_MINOR = 9",
    "a missing method": "del rapi.RemoteApiHandler.Authenticate",
    "another signature": "rapi.RapiUsers.Load = lambda self, filename, more: None",
    "a missing function": "del rapi.PrepRapi",
    "a module that fails": "sys.modules['ganeti_ext.rapi.permissions'] = None",
}


@pytest.mark.parametrize("more", REFUSALS.values(), ids=REFUSALS)
def test_rapi_starts_and_refuses(more: str) -> None:
    result = run(STOCK_RAPI, "-d", more=more)
    assert result.returncode == 0
    assert "ganeti_ext.rapi.refuse.RefusingHandler" in result.stdout
    assert "['-d']" in result.stdout
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("ganeti-rapi: every request is refused: ")


@pytest.mark.parametrize("how", ["--middleware", "--middleware=", "environment"])
def test_rapi_with_a_middleware_that_is_missing(how: str) -> None:
    if how == "environment":
        result = run(STOCK_RAPI, "-d", GANETI_RAPI_MIDDLEWARE="no_such_module_at_all")
    elif how == "--middleware=":
        result = run(STOCK_RAPI, "-d", "--middleware=no_such_module_at_all")
    else:
        result = run(STOCK_RAPI, "-d", "--middleware", "no_such_module_at_all")
    assert result.returncode == 0
    assert "RefusingHandler" in result.stdout
    assert "['-d']" in result.stdout
    assert "no_such_module_at_all" in result.stderr


def test_rapi_exits_as_its_main_does() -> None:
    assert run(STOCK_RAPI, more="rapi.Main = lambda: 3").returncode == 3


def test_noded_runs_with_our_class() -> None:
    result = run(STOCK_NODED)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["prepared", "(1,", "2)", "ganeti_ext.noded.handler"]
    assert result.stderr == ""


@pytest.mark.parametrize(
    "more",
    [
        "constants.VERSION_MINOR = 9",
        "del noded.NodeRequestHandler.perspective_restricted_command",
        "noded.NodeRequestHandler.HandleRequest = lambda self: None",
        "sys.modules['ganeti_ext.noded.handler'] = None",
    ],
)
def test_noded_runs_as_ganeti_made_it_and_logs_it(more: str) -> None:
    result = run(STOCK_NODED, more=more)
    assert result.returncode == 0
    first, *rest = result.stdout.splitlines()
    assert first.startswith("LOG Runs without ganeti-ext: ")
    assert rest == ["prepared (1, 2)", "ganeti.server.noded"]
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("ganeti-noded: runs without ganeti-ext: ")
