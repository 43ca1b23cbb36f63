# SPDX-License-Identifier: BSD-2-Clause
"""The package is the same whoever builds it, where and when, and its own pages say what it is."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ganeti_ext import __version__
from tests.package.conftest import TREE
from tests.package.debian_chroot import Chroot

IGNORED = shutil.ignore_patterns(".git", "build", "__pycache__", ".*_cache", ".hypothesis")

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
BUILD = "umask {}; cd {}; exec dpkg-buildpackage --no-sign --no-check-builddeps --build={}"


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


def test_source_package_of_somebody_else_makes_the_same_package(elsewhere: Path) -> None:
    """Path, user, umask, time zone, language and the times of files are others. What was built is cleaned away."""
    first, second = elsewhere / "one" / "tree", elsewhere / "another-tree"
    shutil.copytree(TREE, first, ignore=IGNORED)
    before = contents(first)
    subprocess.run(["sh", "-ec", BUILD.format("022", first, "full")], check=True)
    subprocess.run(["debian/rules", "clean"], cwd=first, check=True)
    assert contents(first) == before

    (source,) = first.parent.glob("*.dsc")
    somebody(f"dpkg-source --extract {source} {second}; find {second} -exec touch --date=2001-02-03 {{}} +")
    assert contents(second) == before
    somebody(BUILD.format("077", second, "binary"))
    (package,) = first.parent.glob("*.deb")
    assert (elsewhere / package.name).read_bytes() == package.read_bytes()
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


def test_tests_of_the_installed_package(chroot: Chroot, deb: Path) -> None:
    """Those of debian/tests that need no more than it, as autopkgtest runs them; the others find what is installed."""
    chroot.run("dpkg", "--install", chroot.put(deb))
    shutil.copytree(TREE, chroot.root / "root/tree", ignore=IGNORED)
    chroot.sh("mkdir /tmp/one /tmp/other; cd /root/tree; export AUTOPKGTEST_TMP=/tmp/one; debian/tests/examples")
    where = "import ganeti_ext.rapi.handler as module; import os; print(os.path.realpath(module.__file__))"
    stage = "cd /root/tree; export AUTOPKGTEST_TMP=/tmp/other; . debian/tests/stage"
    found = chroot.sh(f"{stage}; PYTHONPATH=/usr/share/ganeti/default python3 -c '{where}'")
    assert found == "/usr/lib/python3/dist-packages/ganeti_ext/rapi/handler.py"

    control = (TREE / "debian/tests/control").read_text(encoding="utf-8")
    scripts = [TREE / "debian/tests" / name for name in re.findall("^Tests: (.*)$", control, re.MULTILINE)]
    assert len(scripts) == 3 and all(os.access(script, os.X_OK) for script in scripts)


def test_pages_of_the_package_know_its_version() -> None:
    """The code has it, too, since `gnt-ext verify` compares it between nodes."""
    for page in ("changelog", "NEWS"):
        assert (TREE / "debian" / page).read_text(encoding="utf-8").startswith(f"ganeti-ext ({__version__}) ")
