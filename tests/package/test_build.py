# SPDX-License-Identifier: BSD-2-Clause
"""The package is the same whoever builds it, where and when, and its own pages say what it is."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ganeti_ext import __version__
from tests.package.conftest import TREE

# Somebody else, who is not root, far away from here and now.
SOMEBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
ELSEWHERE = {
    "HOME": "/nonexistent",
    "LANG": "C",
    "LC_ALL": "C",
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "TZ": "Pacific/Kiritimati",
    "USER": "somebody",
}
BUILD = "umask 077; cd {}; exec dpkg-buildpackage --no-sign --no-check-builddeps --build={}"


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A directory that anybody can get to."""
    with tempfile.TemporaryDirectory(prefix="a-longer-path-") as name:
        path = Path(name)
        path.chmod(0o777)
        yield path


def somebody(script: str) -> str:
    """What a few lines of shell print, run by somebody else."""
    argv = [*SOMEBODY, "sh", "-ec", script]
    return subprocess.run(argv, check=True, env=ELSEWHERE, stdout=subprocess.PIPE, text=True).stdout


def contents(tree: Path) -> dict[str, str]:
    """A digest of each file below a directory that a source package has."""
    return {
        str(file.relative_to(tree)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in tree.rglob("*")
        if file.is_file() and file.name != ".gitignore"
    }


def test_source_package_of_somebody_else_makes_the_same_package(deb: Path, elsewhere: Path) -> None:
    """Path, user, umask, time zone, language and the times of files are others. What was built is cleaned away."""
    first, second = elsewhere / "one" / "tree", elsewhere / "another-tree"
    ignored = shutil.ignore_patterns(".git", "build", "__pycache__", ".*_cache", ".hypothesis")
    shutil.copytree(TREE, first, ignore=ignored)
    somebodys = "find {} -exec touch -d 2001-02-03 {{}} + -exec chown 65534:65534 {{}} +"
    subprocess.run(["sh", "-ec", somebodys.format(elsewhere)], check=True)
    before = contents(first)

    somebody(BUILD.format(first, "source"))
    (source,) = first.parent.glob("*.dsc")
    somebody(f"dpkg-source --extract {source} {second}")
    assert contents(second) == before
    somebody(BUILD.format(second, "binary"))
    assert (elsewhere / deb.name).read_bytes() == deb.read_bytes()
    somebody(f"cd {second}; debian/rules clean")
    assert contents(second) == before


def test_what_lintian_says_is_explained(deb: Path) -> None:
    """By this release's lintian, which also the build has asked for errors and warnings."""
    (changes,) = deb.parent.glob("*.changes")
    argv = ["lintian", "--display-experimental", "--display-info", "--pedantic", str(changes)]
    said = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=False).stdout
    tags = re.findall(r"^[EWIPX]: [^:]+: (\S+)", said, re.MULTILINE)
    page = (TREE / "debian/README.source").read_text(encoding="utf-8")
    assert [tag for tag in tags if tag not in page] == []


def test_pages_of_the_package_know_its_version() -> None:
    """The code has it, too, since `gnt-ext verify` compares it between nodes."""
    for page in ("changelog", "NEWS"):
        assert (TREE / "debian" / page).read_text(encoding="utf-8").startswith(f"ganeti-ext ({__version__}) ")
