# SPDX-License-Identifier: BSD-2-Clause
"""The rules of the house that ruff and mypy do not know."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "ganeti_ext"
MODULES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = [path for path in sorted((ROOT / "sbin").iterdir()) if path.is_file()]
TESTS = [path for path in sorted((ROOT / "tests").rglob("*.py")) if "__pycache__" not in path.parts]

#: Calls that run something or change what is on the disk, and the only files that may.
DANGEROUS = re.compile(
    r"os\.(chmod|fchmod|lchmod|chown|fchown|lchown|exec\w*|spawn\w*|posix_spawn\w*|system|popen|fork\w*|kill\w*|set\w*id"
    r"|setgroups|unlink|remove|rename|replace|link|symlink|mkdir|makedirs|rmdir|mknod|mkfifo|truncate|umask|chroot)"
    r"|subprocess\.\w+|shutil\.\w+|pty\.\w+|ctypes\.\w+|tempfile\.\w+|pickle\.\w+|marshal\.\w+"
    r"|eval|exec|compile|__import__|\w+\.exec_module|yaml\.(load|load_all|unsafe_load|full_load)"
)
ALLOWED = {
    "ganeti_ext/cli/files.py": re.compile(r"os\.fch(own|mod)"),
    "ganeti_ext/cli/edit.py": re.compile(r"subprocess\.run"),
    "ganeti_ext/cli/sync.py": re.compile(r"subprocess\.run"),
    "ganeti_ext/cli/explain.py": re.compile(r"os\.set(groups|gid|uid)"),
    "ganeti_ext/noded/run.py": re.compile(r"subprocess\.(Popen|TimeoutExpired)|os\.killpg"),
    "ganeti_ext/noded/fair.py": re.compile(r"os\.fork"),
    "ganeti_ext/noded/memory.py": re.compile(r"ctypes\.(CDLL|get_errno)"),
    "ganeti_ext/noded/lock.py": re.compile(r"os\.(mkdir|unlink)"),
    "ganeti_ext/rapi/audit.py": re.compile(r"os\.fchmod"),
    "ganeti_ext/rapi/middleware.py": re.compile(r"compile|exec"),
    "sbin/ganeti-noded": re.compile(r"os\.execv"),
}

#: What a room may import of ours (design, section 6): arrows point downwards.
MAY_IMPORT = {
    "policy": ("ganeti_ext.policy", "ganeti_ext.errors"),
    "rapi": ("ganeti_ext.rapi", "ganeti_ext.policy", "ganeti_ext.errors", "ganeti_ext.compat", "ganeti_ext.rootfile"),
    "noded": ("ganeti_ext.noded", "ganeti_ext.errors", "ganeti_ext.compat", "ganeti_ext.rootfile"),
    "cli": tuple(
        f"ganeti_ext.{room}" for room in ("cli", "rapi", "noded", "policy", "errors", "compat", "__version__")
    ),
}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def calls_of(path: Path) -> Iterator[tuple[ast.Call, str]]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0]


@pytest.mark.parametrize("path", [*MODULES, *SCRIPTS, *TESTS], ids=name_of)
def test_a_file_starts_with_its_licence_and_says_what_it_is_for(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert "# SPDX-License-Identifier: BSD-2-Clause" in lines[:2]
    if path in TESTS and len(lines) < 8:
        return
    documentation = ast.get_docstring(tree_of(path))
    assert documentation
    assert documentation.splitlines()[0].endswith((".", "?", ":"))


@pytest.mark.parametrize("path", SCRIPTS, ids=name_of)
def test_a_wrapper_is_short_and_isolated(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "#!/usr/bin/python3 -I"
    assert len(lines) < 20


@pytest.mark.parametrize("path", [path for path in MODULES if room_of(path) in MAY_IMPORT], ids=name_of)
def test_imports_point_downwards(path: Path) -> None:
    for name in imports_of(path):
        if name.split(".")[0] == "ganeti_ext":
            assert f"{name}.".startswith(tuple(f"{room}." for room in MAY_IMPORT[room_of(path)])), name


@pytest.mark.parametrize("path", [path for path in MODULES if room_of(path) in ("policy", "errors.py")], ids=name_of)
def test_the_policy_knows_no_ganeti_no_file_and_no_socket(path: Path) -> None:
    roots = {name.split(".")[0] for name in imports_of(path)}
    assert roots.isdisjoint({"ganeti", "os", "io", "pathlib", "socket", "subprocess", "logging", "time", "sys"})
    assert "open" not in {name for _, name in calls_of(path)}


@pytest.mark.parametrize("path", [*MODULES, *SCRIPTS], ids=name_of)
def test_dangerous_calls_are_in_their_own_rooms(path: Path) -> None:
    allowed = ALLOWED.get(name_of(path))
    for node, name in calls_of(path):
        if DANGEROUS.fullmatch(name):
            assert allowed is not None and allowed.fullmatch(name), f"{name_of(path)}:{node.lineno}: {name}"
        for keyword in node.keywords:
            assert keyword.arg != "shell", f"{name_of(path)}:{node.lineno}: shell="
            assert keyword.arg != "preexec_fn", f"{name_of(path)}:{node.lineno}: preexec_fn="


def test_the_rule_sees_what_it_is_to_see() -> None:
    for call in ("os.chmod", "os.execv", "subprocess.run", "subprocess.Popen", "os.system", "spec.exec_module", "eval"):
        assert DANGEROUS.fullmatch(call)
    for call in ("os.open", "os.path.join", "os.stat", "os.fstat", "re.compile"):
        assert not DANGEROUS.fullmatch(call)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_pattern_is_matched_in_full(path: Path) -> None:
    for node, name in calls_of(path):
        assert name.rpartition(".")[2] not in ("match", "search"), f"{name_of(path)}:{node.lineno}: use fullmatch"
        if name == "re.compile" and isinstance(node.args[0], ast.Constant):
            assert not str(node.args[0].value).endswith("$"), f"{name_of(path)}:{node.lineno}: a pattern with $"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_is_left_to_an_assert_or_a_bare_except(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Assert):  # one for mypy alone checks nothing
            for_mypy = ast.unparse(node.test).endswith(" is not None")
            assert for_mypy, f"{name_of(path)}:{node.lineno}: an assert is gone with -O"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{name_of(path)}:{node.lineno}: a bare except"


@pytest.mark.parametrize("path", [path for path in MODULES if path.name != "entrypoint.py"], ids=name_of)
def test_only_the_entry_point_patches(path: Path) -> None:
    """Permissions on access lists and parameters of one opcode are the two other things set by name."""
    allowed = {"ganeti_ext/rapi/permissions.py", "ganeti_ext/rapi/opcodes.py"}
    assert name_of(path) in allowed or "setattr" not in {name for _, name in calls_of(path)}


@pytest.mark.parametrize("path", [*MODULES, *SCRIPTS, *TESTS], ids=name_of)
def test_no_path_of_one_machine_is_in_a_file(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "/" + "work/" not in text
    assert "/" + "home/" not in text
