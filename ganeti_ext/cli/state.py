# SPDX-License-Identifier: BSD-2-Clause
"""The policy and the users that there are, read with the daemon's own code, and what luxid knows."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ganeti import constants, errors, pathutils, runtime, utils
from ganeti.http import auth

from ganeti_ext.errors import ExtError, UnsafeFile
from ganeti_ext.policy.accounts import Account, Grants, plain, resolve
from ganeti_ext.policy.loader import load_policy
from ganeti_ext.policy.model import MAX_SIZE, Policy, Target
from ganeti_ext.policy.selftest import failures
from ganeti_ext.policy.strict_yaml import PolicyError
from ganeti_ext.rapi.access import LAST_GOOD_FILE, POLICY_FILE, read_policy_file
from ganeti_ext.rapi.lookup import FIELDS, RESOURCE, plain_rows, target_of


class StateError(ExtError):
    """What is needed for an answer cannot be read."""


class Line(NamedTuple):
    """A line of the users file that is no comment; `tokens` is None if Ganeti does not take it."""

    number: int
    text: str
    name: str = ""
    password: str = ""
    tokens: tuple[str, ...] | None = None


def read_users(path: str | None = None) -> list[Line]:
    """The lines of a users file (Ganeti's own unless named), each read by Ganeti's parser.

    None at all if Ganeti's own is not there. Raises StateError.
    """
    try:
        text = utils.ReadFile(path or pathutils.RAPI_USERS_FILE)
    except FileNotFoundError as err:
        if path is None:
            return []
        raise StateError(f"{path}: {err.strerror}") from err
    except OSError as err:
        raise StateError(f"{path or pathutils.RAPI_USERS_FILE}: {err.strerror}") from err
    except UnicodeDecodeError as err:
        raise StateError(f"{path or pathutils.RAPI_USERS_FILE} is not UTF-8: Ganeti cannot read it") from err
    return parsed(text.splitlines())


def parsed(texts: Iterable[str]) -> list[Line]:
    """The lines among some texts that are no comments."""
    lines = []
    for number, line in enumerate(texts, 1):
        if utils.FilterEmptyLinesAndComments(line):
            users = list(auth.ParsePasswordFile(line).values())
            fields = [(user.name, user.password, tuple(user.options)) for user in users]
            lines.append(Line(number, line, *(fields[0] if fields else ())))
    return lines


class State(NamedTuple):
    """What decisions are made of. `remark` is what has to be said of the policy, if anything."""

    policy: Policy
    users: dict[str, Line]
    remark: str = ""

    def grants_of(self, name: str) -> Grants | None:
        """What a user's line grants; None if there is no such user."""
        return grants_of(self.users, name, self.policy)

    def account(self, name: str) -> Account:
        """A user's account. Raises StateError if there is none."""
        grants = self.grants_of(name)
        if grants is None:
            raise StateError(f"the users file has no user {name!r}")
        return Account(name, grants, self.policy)


def grants_of(users: dict[str, Line], name: str, policy: Policy) -> Grants | None:
    """What a policy grants to a user, Ganeti's own options included; None if there is no such user."""
    user = users.get(name)
    return None if user is None or user.tokens is None else resolve(user.tokens, policy) or plain(user.tokens)


def by_name(lines: Iterable[Line]) -> dict[str, Line]:
    """The users; of two lines of one name Ganeti takes the last."""
    return {line.name: line for line in lines if line.tokens is not None}


def load(policy_file: str | None = None, users_file: str | None = None) -> State:
    """The state that a daemon would work with, or what is to become of it.

    Where the policy in force is asked for and the file is bad, the daemon's last good copy is
    taken, as it does itself, and the remark says so. Raises ExtError if a named file is bad, or if
    there is nothing to fall back on.
    """
    users = by_name(read_users(users_file))
    if policy_file is not None:
        return State(load_policy(read_draft(policy_file)[0], policy_file), users)
    try:
        policy = load_policy(read_policy_file(POLICY_FILE), POLICY_FILE)
        problems = failures(policy, lambda name: grants_of(users, name, policy))
        if problems:
            raise PolicyError(POLICY_FILE, problems)
        return State(policy, users)
    except FileNotFoundError:
        if not os.path.lexists(LAST_GOOD_FILE):
            return State(Policy(), users)
        complaint = f"{POLICY_FILE} has vanished"
    except OSError as err:
        complaint = f"{POLICY_FILE}: {err.strerror}"
    except ExtError as err:
        complaint = str(err)
    try:
        copy = read_policy_file(LAST_GOOD_FILE, (0, runtime.GetEnts().rapi_uid))
        policy = load_policy(copy, LAST_GOOD_FILE)
    except (OSError, ExtError) as err:
        reason = err.strerror if isinstance(err, OSError) else err
        raise StateError(f"{complaint}; and the last good copy is of no use: {reason}") from err
    return State(policy, users, f"{complaint}; what is told is by the last good copy, {LAST_GOOD_FILE}")


def read_draft(path: str) -> tuple[bytes, str]:
    """A policy that is not (yet) where the daemon looks for it, and what would keep it from being taken.

    The daemon's own checks are made, but only told: a draft is often its author's. Raises
    StateError if it cannot be read.
    """
    try:
        return read_policy_file(path), ""
    except UnsafeFile as err:
        complaint = str(err)
    except OSError as err:
        if not os.path.islink(path):
            raise StateError(f"{path}: {err.strerror}") from err
        complaint = f"{path} is a link, and the daemon follows none"
    if not os.path.isfile(path):
        raise StateError(f"{path} is not a regular file")
    with open(path, "rb") as file:
        return file.read(MAX_SIZE + 1), complaint


def unreadable(path: str, private: bool = False) -> str:
    """Why the daemon, which is not root, cannot read a file, and the mend; "" if it can."""
    status = os.stat(path)
    ents = runtime.GetEnts()
    readable = status.st_mode & stat.S_IROTH or (status.st_mode & stat.S_IRGRP and status.st_gid == ents.rapi_gid)
    if readable or (status.st_mode & stat.S_IRUSR and status.st_uid == ents.rapi_uid):
        return ""
    mend = f"chgrp {constants.RAPI_GROUP} {path} && chmod g+r" if private else "chmod a+r"
    return f"the daemon, which is not root, cannot read it: {mend} {path}"


def luxi_client() -> Any:
    """A client of luxid. Raises StateError where there is none, without a long wait."""
    from ganeti import luxi
    from ganeti.rpc import errors as rpcerr

    if not os.path.exists(pathutils.QUERY_SOCKET):
        raise StateError("luxid does not run on this node: only the master can be asked")
    try:
        return luxi.Client(address=pathutils.QUERY_SOCKET, timeouts=(2, constants.LUXI_DEF_RWTO))
    except (errors.GenericError, rpcerr.ProtocolError) as err:
        raise StateError(f"luxid does not answer: {err}") from err


def all_objects(client: Any, kinds: Sequence[str]) -> dict[str, list[Target]]:
    """Kind -> all objects of the cluster, with what a policy can go by. Raises StateError."""
    from ganeti.rpc import errors as rpcerr

    try:
        return {
            kind: [target_of(kind, row) for row in plain_rows(client.Query(RESOURCE[kind], list(FIELDS[kind]), None))]
            for kind in kinds
        }
    except (errors.GenericError, rpcerr.ProtocolError) as err:
        raise StateError(f"luxid does not answer: {err}") from err
