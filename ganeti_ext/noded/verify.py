# SPDX-License-Identifier: BSD-2-Clause
"""What may be run: the rules for a command's name and for its file."""

from __future__ import annotations

import os
import re
import stat
from typing import NamedTuple

from ganeti_ext.noded import ROOT, Refused

#: Longest name of a command, in characters.
MAX_NAME = 64

#: Links followed on the way to one file; the kernel's own bound.
MAX_LINKS = 40

_NAME = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]*")

#: The most that a command, or the directory of the commands, may permit.
_MAX_MODE = 0o755

# O_PATH opens anything without waking a device or waiting for a fifo's writer, and gives the
# link itself where it is one.
_OPEN = os.O_PATH | os.O_NOFOLLOW


class Resolved(NamedTuple):
    """A path without links, of which nobody but its owner can change a part."""

    path: str
    stat: os.stat_result


def check_name(name: object) -> str:
    """Return name if it can be a command's; Refused otherwise.

    One path component of the characters of Ganeti's plugin names and the dot, which neither is
    hidden nor looks like an option (design, section 4, step 2).
    """
    if not isinstance(name, str):
        raise Refused("the name is not a string")
    if len(name) > MAX_NAME:
        raise Refused(f"the name has more than {MAX_NAME} characters")
    if not _NAME.fullmatch(name):
        raise Refused("the name is not one of a command")
    return name


def resolve(path: str, *, owner: tuple[int, int] = ROOT, max_links: int = MAX_LINKS) -> Resolved:
    """Walk from "/" to what path names, as the kernel would, but warily.

    Each component is opened below the one before and looked at through that descriptor. All of
    them, links too, must belong to the user owner[0], and no directory may be writable by its
    group or by others (design, section 4, steps 3 and 4). Nobody else can then change what the
    returned path means.

    The exception is a sticky directory such as /tmp, in which others can make new entries but
    not touch the owner's. What lies directly in it must be a directory: a file or link of the
    owner's may have been put there by somebody else, as a hard link or by moving it out of a
    directory of his own, so that he would choose what is run. A directory has no hard links,
    and the kernel moves one to another parent only for who may write to it.

    Raises Refused, which names the component and the rule, and OSError.
    """
    if not path.startswith("/"):
        raise Refused(f"{path!r} is not absolute")
    todo = _components(path)
    walked: list[str] = []
    links = 0
    others_write = False  # to the directory that we stand in
    here = os.open("/", _OPEN)
    try:
        while todo:
            part = todo.pop()
            if part in ("", "."):
                continue
            at = _step(walked, part)
            name = "/" + "/".join(at)
            try:
                entry = os.open(part, _OPEN, dir_fd=here)
            except OSError as err:
                raise Refused(f"{name!r}: {err.strerror}") from err
            try:
                found = os.fstat(entry)
                if found.st_uid != owner[0]:
                    raise Refused(f"{name!r} belongs to user {found.st_uid}")
                if stat.S_ISDIR(found.st_mode):
                    others_write = _is_shared(name, found.st_mode)
                    walked = at
                    here, entry = entry, here
                elif others_write:
                    raise Refused(f"{name!r} lies in a directory for all")
                elif stat.S_ISLNK(found.st_mode):
                    links += 1
                    if links > max_links:
                        raise Refused(f"{name!r} is one link too many")
                    todo += _components(os.readlink("", dir_fd=entry))
                elif todo:
                    raise Refused(f"{name!r} is not a directory")
                else:
                    return Resolved(name, found)
            finally:
                os.close(entry)
        return Resolved("/" + "/".join(walked), os.fstat(here))
    finally:
        os.close(here)


def verify_directory(directory: str, *, owner: tuple[int, int] = ROOT) -> Resolved:
    """Return the directory of the commands, if what is in it may be run at all.

    Raises Refused and OSError.
    """
    place = resolve(directory, owner=owner, max_links=0)
    if not stat.S_ISDIR(place.stat.st_mode):
        raise Refused(f"{place.path!r} is not a directory")
    _check_last(place, owner)
    return place


def verify(directory: str, name: str, *, owner: tuple[int, int] = ROOT) -> str:
    """Return the path by which the command called name is to be executed.

    The path has no links any more. It, and not a descriptor, is what the kernel is given: only
    root could make it mean something else than what was checked (see ``resolve``), so that
    there is no window between the check and the use, and a script needs no descriptor left open
    in it and sees a path that it can work with as its ``$0`` (design, section 4, step 5).

    The directory is reached without any link and is, like the command, of owner and mode 0755
    or stricter; the command is a regular file that its owner may execute, without set-id bits,
    itself or at the end of links (steps 3 and 4).

    Raises Refused and OSError.
    """
    place = verify_directory(directory, owner=owner)
    command = resolve(f"{place.path}/{name}", owner=owner)
    if not stat.S_ISREG(command.stat.st_mode):
        raise Refused(f"{command.path!r} is not a regular file")
    _check_last(command, owner)
    if not command.stat.st_mode & stat.S_IXUSR:
        raise Refused(f"{command.path!r} is not executable")
    return command.path


def _check_last(found: Resolved, owner: tuple[int, int]) -> None:
    if (found.stat.st_uid, found.stat.st_gid) != owner:
        raise Refused(f"{found.path!r} is not owned by {owner}")
    mode = stat.S_IMODE(found.stat.st_mode)
    if mode & ~_MAX_MODE:
        raise Refused(f"{found.path!r} has the mode {mode:04o}")


def _components(path: str) -> list[str]:
    """Return the components of path, the next one last; "/" starts afresh.

    Empty ones are kept: they make "file/" name no file, as for the kernel.
    """
    parts = path.split("/")
    if not parts[0]:
        parts[0] = "/"
    return parts[::-1]


def _step(walked: list[str], part: str) -> list[str]:
    """Return the components walked after one step more."""
    if part == "/":
        return []
    if part == "..":
        return walked[:-1]
    return [*walked, part]


def _is_shared(name: str, mode: int) -> bool:
    """Tell whether others can make entries in a directory; they must be unable to touch those
    that they have not made.
    """
    shared = bool(mode & (stat.S_IWGRP | stat.S_IWOTH))
    if shared and not mode & stat.S_ISVTX:
        raise Refused(f"{name!r} is writable by group or others")
    return shared
