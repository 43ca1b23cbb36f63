# SPDX-License-Identifier: BSD-2-Clause
"""`gnt-ext _node`, which runs on the other nodes: what this node has, in hashes, and files that it is given.

No command of people. Neither names nor contents leave the node by it.
"""

from __future__ import annotations

import grp
import hashlib
import json
import os
import pwd
import stat
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from ganeti import cli, constants, errors, pathutils, runtime, utils

from ganeti_ext import __version__, compat
from ganeti_ext.cli import files, state
from ganeti_ext.cli.state import StateError
from ganeti_ext.errors import ExtError, StartupError
from ganeti_ext.noded import Refused
from ganeti_ext.noded.verify import check_name, verify, verify_directory
from ganeti_ext.policy.loader import load_policy
from ganeti_ext.policy.model import MAX_SIZE
from ganeti_ext.policy.strict_yaml import PolicyError
from ganeti_ext.rapi.access import POLICY_FILE, read_policy_file
from ganeti_ext.rapi.restricted import USERS_FILE

POLICY, USERS, RESTRICTED_USERS = "policy", "users", "restricted-users"

#: What has to be the same on the nodes.
PATHS = {POLICY: POLICY_FILE, USERS: pathutils.RAPI_USERS_FILE, RESTRICTED_USERS: USERS_FILE}

#: What of it gnt-ext carries; the rest is Ganeti's.
CARRIED = (POLICY, RESTRICTED_USERS)


def node(opts: Any, args: Sequence[str]) -> int:
    """`state`; or one of CARRIED with hash, mode, owner and group, and the content on the standard input."""
    if args[0] in CARRIED and len(args) == 5:
        take(args[0], sys.stdin.buffer.read(MAX_SIZE + 1), *args[1:])
    elif list(args) != ["state"]:
        raise errors.OpPrereqError("This is for other nodes, not for people", errors.ECODE_INVAL)
    cli.ToStdout("%s", json.dumps(found()))
    return 0


def found() -> dict[str, Any]:
    """What this node has."""
    return {
        "version": __version__,
        "ganeti": {"version": constants.RELEASE_VERSION, "problem": _release()},
        "stale": [name for name in (constants.NODED, constants.RAPI) if _stale(name)],
        "files": {name: _file(name) for name in PATHS},
        "commands": _commands(pathutils.RESTRICTED_COMMANDS_DIR),
    }


def _release() -> str:
    """Why the daemons would start without us or refuse, as far as Ganeti's version tells; "" if they would not."""
    try:
        compat.check_release()
    except StartupError as err:
        return str(err)
    return ""


def _stale(daemon: str) -> bool:
    """Whether a daemon runs that is older than what is installed: it may know nothing of it.

    The package restarts both, unless policy-rc.d forbids it.
    """
    pid = utils.ReadPidFile(utils.DaemonPidFileName(daemon))
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            ticks = int(file.read().rpartition(")")[2].split()[19])  # proc(5), field 22
    except OSError:  # it does not run
        return False
    runs_for = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    there_for = time.time() - os.stat(compat.__file__).st_ctime
    return runs_for > there_for + 1


def read(name: str) -> bytes:
    """The content of one of PATHS, by the rules of the daemon that reads it. Raises OSError, ExtError."""
    if name == POLICY:
        return read_policy_file(POLICY_FILE)
    if name == RESTRICTED_USERS:
        return read_policy_file(USERS_FILE, (0, runtime.GetEnts().rapi_uid), private=True)
    content: bytes = utils.ReadFile(PATHS[name]).encode("utf-8", "surrogateescape")
    return content


def _file(name: str) -> dict[str, Any]:
    """Its hash, null if it is not there or cannot be read, and what is wrong with it."""
    try:
        data = read(name)
        problem = state.unreadable(PATHS[name], private=name != POLICY) or _not_taken(name, data)
        return {"hash": hashlib.sha256(data).hexdigest(), "problem": problem}
    except FileNotFoundError:
        return {"hash": None, "problem": ""}
    except OSError as err:
        return {"hash": None, "problem": f"{PATHS[name]} cannot be read: {err.strerror}"}
    except UnicodeDecodeError:
        return {"hash": None, "problem": f"{PATHS[name]} is not UTF-8"}
    except ExtError as err:
        return {"hash": None, "problem": str(err)}


def _not_taken(name: str, data: bytes) -> str:
    """What keeps this version of the package from a policy, which another version may have made; not what is in it."""
    if name != POLICY:
        return ""
    try:
        load_policy(data, PATHS[name])
    except PolicyError as err:
        where = ", ".join(f"line {problem.line}" for problem in err.problems[:1] if problem.line)
        return f"{PATHS[name]} is not taken by ganeti-ext {__version__}{where and f' ({where})'}: {_AFTER_IT}"
    return ""


#: What a daemon does that starts with a bad policy (`rapi.access`).
_AFTER_IT = "as the master this node would go by its last good policy, or grant no role of one"


def _commands(directory: str) -> dict[str, Any]:
    """What is wrong with the directory of restricted commands, and how many in it would be refused for their files.

    What can be no command by its name, and what nobody may execute, is meant to be none.
    """
    refused = 0
    try:
        if not os.path.lexists(directory):
            return {"problem": "", "refused": 0}
        verify_directory(directory)
        for entry in os.listdir(directory):
            refused += _is_command(directory, entry) and not _passes(verify, directory, entry)
    except Refused as err:
        return {"problem": str(err), "refused": 0}
    except OSError as err:
        return {"problem": f"{directory} cannot be read: {err.strerror}", "refused": 0}
    return {"problem": "", "refused": refused}


def _is_command(directory: str, entry: str) -> bool:
    try:
        executable = os.stat(os.path.join(directory, entry)).st_mode & (stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    except OSError:
        executable = stat.S_IXUSR  # a link to nowhere is meant to be something
    return bool(executable) and _passes(check_name, entry)


def _passes(check: Callable[..., object], *arguments: str) -> bool:
    try:
        check(*arguments)
    except (Refused, OSError):
        return False
    return True


def take(name: str, data: bytes, digest: str, mode: str, owner: str, group: str) -> None:
    """Puts a file that the master has sent in its place, at once. Raises ExtError, OSError: then nothing is changed.

    It is looked at again: this node may have another version of the package.
    """
    if hashlib.sha256(data).hexdigest() != digest:
        raise StateError("not all of the file has come: nothing is changed")
    if name == POLICY:
        load_policy(data, "the policy")
    try:
        whose = files.Owner(pwd.getpwnam(owner).pw_uid, grp.getgrnam(group).gr_gid, int(mode, 8) & 0o755)
    except KeyError as err:
        raise StateError(f"this node has no such user or group: {err.args[0]}") from err
    with files.locked(PATHS[name], os.path.basename(PATHS[name])):
        files.replace(PATHS[name], data, whose)
