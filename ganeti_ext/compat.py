# SPDX-License-Identifier: BSD-2-Clause
"""What differs between Ganeti's versions and installations, and nothing else."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from ganeti_ext.errors import GanetiMissing, StartupError

#: Where Debian's package keeps the real Ganeti; `python3-ganeti-rapi` puts another,
#: smaller package of the same name into dist-packages.
GANETI_DIR = "/usr/share/ganeti/default"

#: The releases whose code the patches were written for (design, section 1).
SUPPORTED_RELEASES = ((3, 0), (3, 1))


def put_ganeti_first(directory: str = GANETI_DIR) -> None:
    """Makes `import ganeti` find the real Ganeti.

    The links below `directory` are resolved once: `gnt-cluster upgrade` flips them while
    daemons run, and a later import must not mix two releases.

    Raises GanetiMissing if there is no Ganeti.
    """
    real = os.path.realpath(directory)
    if not os.path.isfile(os.path.join(real, "ganeti", "__init__.py")):
        raise GanetiMissing(f"Ganeti is not installed: there is no {directory}/ganeti")
    sys.path.insert(0, real)


def check_release(supported: tuple[tuple[int, int], ...] = SUPPORTED_RELEASES) -> None:
    """Checks that Ganeti is of a release that the patches know.

    It is asked at each start, since the release changes without dpkg (`facts.md`, "The
    package").

    Raises StartupError for any other release.
    """
    from ganeti import constants

    release = (constants.VERSION_MAJOR, constants.VERSION_MINOR)
    if release not in supported:
        known = ", ".join(f"{major}.{minor}" for major, minor in supported)
        raise StartupError(
            f"Ganeti {constants.RELEASE_VERSION} is not known to this ganeti-ext"
            f" (it knows {known}): install a newer ganeti-ext"
        )


def serves_in_threads() -> bool:
    """Whether Ganeti's servers have a thread for each request (its next release), not a process."""
    from ganeti.http import server

    return hasattr(server, "GanetiRequestHandler")


def has_permissions() -> bool:
    """Whether Ganeti's remote API knows permissions itself (its next release), one for each method of a resource.

    Before it has lists of the options of which a user needs one; an empty list is an open resource, which is None now.
    """
    from ganeti.rapi import baserlib

    return isinstance(baserlib.ResourceBase.GET_ACCESS, str)


def watch_file(path: str, changed: Callable[[], None]) -> None:
    """Calls `changed` after each change of the file `path`, from the daemon's main loop.

    Ganeti's own watcher (inotify, in 3.0 and 3.1) misses a change of owner or mode, which
    is how an administrator mends a policy that the daemon may not read.

    Raises whatever inotify does if the directory of `path` cannot be watched.
    """
    from ganeti import asyncnotifier

    try:
        from pyinotify import pyinotify
    except ImportError:
        import pyinotify

    class Watcher(asyncnotifier.FileEventHandlerBase):  # type: ignore[misc]
        """Looks at one name in a directory, as Ganeti's own does."""

        def __init__(self, manager: object) -> None:
            super().__init__(manager)
            flags = pyinotify.EventsCodes.ALL_FLAGS
            mask = 0
            for name in ("IN_CLOSE_WRITE", "IN_DELETE", "IN_MOVED_FROM", "IN_MOVED_TO", "IN_ATTRIB"):
                mask |= flags[name]
            self.AddWatch(os.path.dirname(path), mask)

        def process_default(self, event: object) -> None:
            if getattr(event, "name", None) == os.path.basename(path):
                changed()

    manager = pyinotify.WatchManager()
    asyncnotifier.AsyncNotifier(manager, default_proc_fun=Watcher(manager))
