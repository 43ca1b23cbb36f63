# SPDX-License-Identifier: BSD-2-Clause
"""`gnt-ext user`: changes one user of Ganeti's users file, and nothing else in it."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Callable, Sequence
from typing import Any

from ganeti import errors, netutils, pathutils, runtime, ssconf

from ganeti_ext.cli import files, state, text
from ganeti_ext.cli.files import Owner
from ganeti_ext.cli.state import Line, StateError
from ganeti_ext.policy.accounts import is_ours, nearest, resolve
from ganeti_ext.policy.model import Policy
from ganeti_ext.policy.vocabulary import PLAIN_ROLES
from ganeti_ext.rapi.passwords import hash_password, hash_token, new_token

ACTIONS = ("add", "passwd", "token", "grant", "revoke", "remove")

#: The parts of a line that Ganeti takes: name with the space around it, password, space, options.
_LINE = re.compile(r"(\s*\S+\s+)(\S+)(?:(\s+)(\S.*?))?(\s*)", re.DOTALL)

_NAME = re.compile(r"[^\s:#][^\s:]*")
_TOKEN = re.compile(r"[^\s,#]+")


def user(opts: Any, args: Sequence[str]) -> int:
    """Does one of ACTIONS. Raises errors.OpPrereqError, StateError, OSError: then nothing is changed."""
    action, name, words = args[0], args[1], list(args[2:])
    if action not in ACTIONS:
        raise _wrong(f"{action!r} is none of {', '.join(ACTIONS)}" + nearest(action, ACTIONS))
    if action in ("grant", "revoke") and not words:
        raise _wrong(f"Name what to {action}")
    if action in ("passwd", "token", "remove") and words:
        raise _wrong(f"{action} takes the name of a user alone")
    if opts.token and action != "add":
        raise _wrong("--token is for add; for a user that is there, say token")
    if name.startswith("-"):
        raise _wrong(f"Options such as {name} come before {action}")
    policy = Policy() if opts.force else state.load().policy

    def plan(users: dict[str, Line]) -> list[str]:
        """The options that he is to have."""
        if action == "add":
            _check_new(users, name)
        elif name not in users:
            raise StateError(f"the users file has no user {name!r}" + nearest(name, users))
        return _changed_tokens(action, users.get(name), words, policy, opts.force)

    plan(state.by_name(state.read_users()))  # before a password is asked for
    password, secret = "", ""
    if action == "token" or opts.token:
        secret = new_token()
        password = hash_token(secret)
    elif action in ("add", "passwd"):
        password = hash_password(_ask_password(name))

    def change(lines: list[str]) -> list[str]:
        tokens = plan(state.by_name(state.parsed(lines)))  # of what is there now
        return _changed(lines, action, name, password, tokens)

    rewrite(pathutils.RAPI_USERS_FILE, name, change)
    if secret:
        text.err("The token, which is shown this once:")
        text.out(secret)
    _tell_of_other_nodes()
    return 0


def _wrong(message: str) -> Exception:
    error: Exception = errors.OpPrereqError(message, errors.ECODE_INVAL)
    return error


def _check_new(users: dict[str, Line], name: str) -> None:
    if name in users:
        raise _wrong(f"There is a user {name!r} already")
    if not (_NAME.fullmatch(name) and name.isprintable()):
        raise _wrong(f"{name!r} cannot be a user's name: no spaces, no colon, no # at the start")


def _changed_tokens(action: str, line: Line | None, words: list[str], policy: Policy, force: bool) -> list[str]:
    """The options that the user is to have. Raises errors.OpPrereqError for what is hardly meant."""
    before = list(line.tokens or ()) if line is not None else []
    if action not in ("add", "grant", "revoke"):
        return before
    for word in words:
        if not (_TOKEN.fullmatch(word) and word.isprintable()):
            raise _wrong(f"{word!r} cannot be an option: no spaces, no comma, no #")
    if action == "revoke":
        missing = [word for word in words if word not in before]
        if missing:
            raise _wrong(f"{', '.join(missing)} is none of his options: {','.join(before) or 'he has none'}")
        after = [token for token in before if token not in words]
    else:
        after = [token for token in before if token] + [word for word in dict.fromkeys(words) if word not in before]
    if force:
        return after
    if not any(map(is_ours, after)) and not {"read", "write"} & set(after):
        raise _wrong(
            "Without an option Ganeti lets a user read almost everything: leave him one, or remove him (or say --force)"
        )
    known = resolve(before, policy)
    grants = resolve(after, policy)
    problems = list(grants.problems) if grants is not None else []
    problems = [one for one in problems if known is None or one not in known.problems]
    for word in words if action != "revoke" else ():
        if not is_ours(word) and word not in ("read", "write"):
            problems.append(f"unknown option {word!r}" + nearest(word, ("read", "write", *PLAIN_ROLES)))
    if problems:
        raise _wrong("; ".join(problems) + " (--force does it all the same)")
    return after


def _ask_password(name: str) -> str:
    """A new password: asked for twice, or a line of the standard input where that is no terminal."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    import getpass

    password = getpass.getpass(f"New password of {text.line(name)}: ")
    if getpass.getpass("The same again: ") != password:
        raise _wrong("The two are not the same: nothing is changed")
    return password


def _changed(lines: list[str], action: str, name: str, password: str, tokens: Sequence[str]) -> list[str]:
    """The lines of a users file after a change; all but the user's stay as they are, to the byte."""
    theirs = [number for number, line in enumerate(lines) if _name_of(line) == name]
    if action == "add":
        if lines and not lines[-1].endswith("\n"):
            lines = [*lines[:-1], lines[-1] + "\n"]
        return [*lines, " ".join([name, password, ",".join(tokens)]).rstrip() + "\n"]
    if action == "remove":
        return [line for number, line in enumerate(lines) if number not in theirs]
    last = theirs[-1]  # the one that Ganeti goes by
    parts = _LINE.fullmatch(lines[last])
    if parts is None:
        raise StateError(f"the line of {name!r} cannot be read")
    start, old, space, _, end = parts.groups()
    options = (space or "  ") + ",".join(tokens) if tokens else ""
    return [*lines[:last], f"{start}{password or old}{options}{end}", *lines[last + 1 :]]


def _name_of(line: str) -> str | None:
    """Whose line it is, by Ganeti's own rule."""
    return next((one.name for one in state.parsed([line]) if one.tokens is not None), None)


def rewrite(path: str, name: str, change: Callable[[list[str]], list[str]]) -> None:
    """Puts a changed users file in the place of the old one, at once: it is the old or the new one, whole.

    Owner and mode stay. One change at a time; another program's change in between is noticed. Raises
    StateError or OSError: then the file is as it was.
    """
    with files.locked(path, "the users file"):
        before, status = _read(path)
        lines = before.splitlines(keepends=True)
        after = "".join(change(lines))
        others = _others(before, name)
        if _others(after, name) != others:
            raise StateError("other users would be changed, too: nothing is done; look at the file with gnt-ext check")
        if _read(path)[0] != before:
            raise StateError("somebody else has just changed the users file: try again")
        files.replace(path, after.encode("utf-8", "surrogateescape"), status)


def _others(content: str, name: str) -> list[Line]:
    lines = state.parsed(content.splitlines())
    return [line._replace(number=0, text="") for line in lines if line.tokens is not None and line.name != name]


def _read(path: str) -> tuple[str, Owner]:
    """The content of a users file, and whose it is or should be."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        ents = runtime.GetEnts()
        return "", Owner(ents.rapi_uid, ents.masterd_gid, 0o640)
    with open(descriptor, encoding="utf-8", errors="surrogateescape", newline="") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise StateError(f"{path} is not a regular file")
        return file.read(), Owner(status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))


def _tell_of_other_nodes() -> None:
    """Ganeti carries the file from the master to the other nodes, when it is told to."""
    try:
        master = ssconf.SimpleStore().GetMasterNode()
    except errors.ConfigurationError:
        return
    if master == netutils.Hostname.GetSysName():
        text.err("Note: in force here; gnt-cluster redist-conf carries it to the other nodes")
    else:
        text.err(f"Note: this is not the master, {master}: what is changed here, its next redist-conf overwrites")
