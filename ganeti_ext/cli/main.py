# SPDX-License-Identifier: BSD-2-Clause
"""The table of gnt-ext's sub-commands, as each Ganeti command has one.

A sub-command's own module is imported when it is called: on a node that is short of memory every
module counts.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from ganeti import cli

from ganeti_ext.errors import ExtError

#: Seconds; above what the node daemon gives a command by itself.
TIME_LIMIT = 120

DIRECT_OPT = cli.cli_option(
    "--direct",
    action="store_true",
    default=False,
    help="Ask the node daemons themselves: without the job queue and its locks, and nodes that are marked offline, too",
)
TIME_LIMIT_OPT = cli.cli_option(
    "--timeout",
    dest="time_limit",
    type="int",
    default=None,
    metavar="<seconds>",
    help=f"With --direct, how long to wait for each node (default: {TIME_LIMIT})",
)
OUTPUT_OPT = cli.cli_option(
    "--output",
    dest="output",
    type="choice",
    choices=["text", "json"],
    default="text",
    metavar="text|json",
    help="Form of what is written to the standard output",
)

USERS_OPT = cli.cli_option(
    "--users",
    dest="users_file",
    default=None,
    metavar="<file>",
    help="Go by this users file in place of Ganeti's own",
)
OFFLINE_OPT = cli.cli_option(
    "--offline", dest="offline", action="store_true", default=False, help="Don't ask luxid about anything"
)
RBAC_OPT = cli.cli_option(
    "--for-ganeti-rbac",
    dest="ganeti_rbac",
    action="store_true",
    default=False,
    help="Tell what the accounts would be under the access control of Ganeti's next release",
)
POLICY_OPT = cli.cli_option(
    "--policy",
    dest="policy_file",
    default=None,
    metavar="<file>",
    help="Go by this policy in place of the one in force",
)
LIST_OPT = cli.cli_option(
    "--list", dest="list", action="store_true", default=False, help="Tell all that the user may do"
)
BODY_OPT = cli.cli_option(
    "--body",
    dest="body",
    default=None,
    metavar="<file>",
    help="Decide on the whole request that has this body, parameters included; - is the standard input",
)
USER_OPT = cli.cli_option("--user", dest="user", default=None, metavar="<user>", help="Of this user only")
DENIED_OPT = cli.cli_option("--denied", dest="denied", action="store_true", default=False, help="Only what was refused")
SINCE_OPT = cli.cli_option(
    "--since",
    dest="since",
    default=None,
    metavar="<time>",
    help="From then on: so long ago (90s, 5m, 2h, 3d, 1w), or a date as 2026-12-31T14:00",
)
FOLLOW_OPT = cli.cli_option(
    "--follow", dest="follow", action="store_true", default=False, help="Go on with what is written from now on"
)
TOKEN_OPT = cli.cli_option(
    "--token", dest="token", action="store_true", default=False, help="With add: make up a token, for a program"
)
ROLES_OPT = cli.cli_option("--roles", dest="roles", action="store_true", default=False, help="Roles in place of users")
HTML_OPT = cli.cli_option(
    "--html", dest="html", default=None, metavar="<file>", help="Write a page for a browser to this file"
)
_STATE_OPTS = [POLICY_OPT, USERS_OPT]
_TABLE_OPTS = [cli.NOHDR_OPT, cli.SEP_OPT, *_STATE_OPTS]


def _call(module: str, name: str) -> Any:
    """The function of that name in a module of ours."""

    def run(opts: Any, args: list[str]) -> int:
        return int(getattr(importlib.import_module(f"ganeti_ext.cli.{module}"), name)(opts, args))

    return run


def _restricted_command(opts: Any, args: list[str]) -> int:
    from ganeti_ext.cli import restricted

    return restricted.restricted_command(opts, args, TIME_LIMIT)


#: Name -> function, arguments, options, usage, description: `ganeti.cli.GenericMain`.
COMMANDS: dict[str, Any] = {
    "check": (
        _call("check", "check"),
        [cli.ArgFile(min=0, max=1)],
        [USERS_OPT, OFFLINE_OPT, RBAC_OPT],
        "[--for-ganeti-rbac] [<file>]",
        "Tells what is wrong with a policy and with the users file",
    ),
    "edit": (
        _call("edit", "edit"),
        cli.ARGS_NONE,
        [],
        "",
        "Edits the policy, checks it and tells who gains and loses what",
    ),
    "can": (
        _call("ask", "can"),
        [cli.ArgUnknown(min=1, max=3)],
        [LIST_OPT, BODY_OPT, OFFLINE_OPT, *_TABLE_OPTS],
        "{--list <user> | [--body <file>] <user> <permission> [<object>]}",
        "Tells whether a user may do something",
    ),
    "who-can": (
        _call("ask", "who_can"),
        [cli.ArgUnknown(min=1, max=2)],
        [OFFLINE_OPT, *_TABLE_OPTS],
        "<permission> [<object>]",
        "Tells who may do something",
    ),
    "roles": (_call("tables", "roles"), cli.ARGS_NONE, _TABLE_OPTS, "", "Lists the roles"),
    "permissions": (_call("tables", "permissions"), cli.ARGS_NONE, _TABLE_OPTS, "", "Lists the permissions"),
    "users": (_call("tables", "users"), cli.ARGS_NONE, _TABLE_OPTS, "", "Lists the users of the remote API"),
    "matrix": (
        _call("matrix", "matrix"),
        cli.ARGS_NONE,
        [ROLES_OPT, HTML_OPT, *_TABLE_OPTS],
        "[--roles] [--html <file>]",
        "Shows users or roles against permissions",
    ),
    "explain": (
        _call("explain", "explain"),
        [cli.ArgUnknown(min=1, max=4)],
        [OFFLINE_OPT, *_STATE_OPTS],
        "{<user> <method> <path> [<body>] | <audit-record>}",
        "Tells what would become of a request, and why",
    ),
    "user": (
        _call("accounts", "user"),
        [cli.ArgUnknown(min=2)],
        [TOKEN_OPT, cli.FORCE_OPT],
        "{add | passwd | token | grant | revoke | remove} <user> [<option>...]",
        "Changes a user of the remote API",
    ),
    "audit": (
        _call("trail", "audit"),
        cli.ARGS_NONE,
        [USER_OPT, DENIED_OPT, SINCE_OPT, FOLLOW_OPT, OUTPUT_OPT],
        "[--user <user>] [--denied] [--since <time>] [--follow]",
        "Shows the audit trail of this node",
    ),
    "replay": (
        _call("replay", "replay"),
        [cli.ArgFile(min=0, max=1)],
        [USER_OPT, SINCE_OPT, USERS_OPT, OFFLINE_OPT, OUTPUT_OPT],
        "[<file>]",
        "Tells what a new policy would have decided otherwise",
    ),
    "sync": (
        _call("sync", "sync"),
        cli.ARGS_NONE,
        [cli.DRY_RUN_OPT],
        "[--dry-run]",
        "Carries the policy to all master candidates",
    ),
    "verify": (
        _call("sync", "verify"),
        cli.ARGS_NONE,
        [OUTPUT_OPT],
        "",
        "Compares package, policy, users and restricted commands on all nodes",
    ),
    "restricted-command": (
        _restricted_command,
        [cli.ArgUnknown(min=1)],
        [
            DIRECT_OPT,
            TIME_LIMIT_OPT,
            OUTPUT_OPT,
            cli.NODEGROUP_OPT,
            cli.SHOW_MACHINE_OPT,
            cli.SYNC_OPT,
            cli.PRIORITY_OPT,
            *cli.SUBMIT_OPTS,
        ],
        "[--direct] {--node-group <group> | <node>...} <command>",
        "Runs a restricted command on nodes; the command comes last",
    ),
}

#: What programs call, and nobody has to see.
HIDDEN: dict[str, Any] = {
    "_node": (
        _call("local", "node"),
        [cli.ArgUnknown(min=1)],
        [],
        "",
        "What this node has, for sync and verify on the master",
    ),
    "_hook": (
        _call("sync", "hook"),
        [cli.ArgChoice(min=0, max=1, choices=["watcher"])],
        [],
        "",
        "What verify finds, for Ganeti's hooks",
    ),
}


def main() -> int:
    """Runs the sub-command that the command line names; its exit code."""
    try:
        return int(cli.GenericMain(HIDDEN if sys.argv[1:2] and sys.argv[1] in HIDDEN else COMMANDS))
    except (ExtError, OSError) as err:
        cli.ToStderr("%s", err)
        return 1
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:  # a reader that has enough, such as head: nothing to complain about
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
