# SPDX-License-Identifier: BSD-2-Clause
"""Runs one file of Ganeti's own unit tests, with or without our patches.

    run_patched.py [--stock] FILE [ARGUMENT…]

`FILE` is a name in the directory of tests of Debian's package ganeti-testsuite.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

from ganeti_ext import compat, entrypoint

#: Its tests look for their data below the directory that they are started in.
TESTSUITE = Path("/usr/share/ganeti/testsuite")
TESTS = TESTSUITE / "test" / "py"
if (TESTS / "legacy").is_dir():  # from 3.1 on
    TESTS = TESTS / "legacy"


def main(arguments: list[str]) -> None:
    """Becomes the test file, which ends the process."""
    stock = arguments[:1] == ["--stock"]
    file, *rest = arguments[1:] if stock else arguments
    compat.put_ganeti_first()
    if not stock:
        compat.check_release()
        entrypoint.apply(entrypoint.rapi_patches(None))
        entrypoint.apply(entrypoint.noded_patches())
    os.chdir(TESTSUITE)
    sys.path.insert(0, str(TESTS))
    sys.argv = [str(TESTS / file), *rest]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
