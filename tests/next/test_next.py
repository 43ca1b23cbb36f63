# SPDX-License-Identifier: BSD-2-Clause
"""Ganeti's next release: our own tests, on a real cluster of it.

`GANETI_EXT_NEXT_LIB` names a copy of its `lib/`, or several with `:` between, such as that of the branch
master and that of the pull request that brings permissions. Without it there is nothing to run.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.next.chroot import GANETI, SUITE, TREE, install, lay_over
from tests.package.debian_chroot import Chroot, tools_system

LIBS = [path for path in os.environ.get("GANETI_EXT_NEXT_LIB", "").split(os.pathsep) if path]

#: The tests that run there.
FILES = (
    "test_concurrent.py",
    "test_middleware.py",
    "test_noded_commands.py",
    "test_noded_flood.py",
    "test_policy_file.py",
    "test_restricted_rapi.py",
    "test_roles.py",
    "test_scoped.py",
    "test_scoped_jobs.py",
    "test_signin.py",
    "test_startup.py",
    "test_unconfigured.py",
)

#: Those that live on the reads which Ganeti opens to everybody, as long as it has no permissions.
OPEN_READS = (
    "test_middleware.py",
    "test_policy_file.py::test_anonymous_reads_end_with_a_token_or_a_policy",
    "test_policy_file.py::test_users_change_without_restart",
)


@pytest.fixture(scope="module", name="deb")
def _deb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outdir = tmp_path_factory.mktemp("deb")
    subprocess.run([TREE / "debian/build-deb", outdir], check=True, stdout=subprocess.DEVNULL)
    (file,) = outdir.glob("*.deb")
    return file


@pytest.fixture(scope="module", name="system", params=LIBS or [""])
def _system(request: pytest.FixtureRequest) -> Iterator[Chroot]:
    """A Debian with the later Ganeti and our package."""
    if not request.param:
        pytest.skip("GANETI_EXT_NEXT_LIB names no copy of the lib/ of Ganeti's next release")
    deb = request.getfixturevalue("deb")
    with Chroot(tools_system(SUITE)) as chroot:
        install(chroot, deb)
        added = lay_over(chroot, Path(request.param))
        print(f"{request.param}: over Ganeti 3.1, with its luxid and wconfd; added constants: {added}")
        yield chroot


@pytest.mark.parametrize("file", FILES)
def test_our_tests_pass(system: Chroot, file: str) -> None:
    command = ["python3", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", f"tests/cluster/{file}"]
    if "RAPI_ROLES" in (system.root / GANETI / "rapi/__init__.py").read_text():
        if file in OPEN_READS:
            pytest.skip("its accounts have only what a middleware gives them, since Ganeti gives nothing to everybody")
        command += [f"--deselect=tests/cluster/{one}" for one in OPEN_READS]
    done = system.run("sh", "-c", 'cd /tree && exec "$@"', "sh", *command, check=False)
    print(done.stdout[-8000:], done.stderr[-2000:])
    assert done.returncode == 0
