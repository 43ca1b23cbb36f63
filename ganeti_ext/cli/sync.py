# SPDX-License-Identifier: BSD-2-Clause
"""`gnt-ext sync` and `verify`: the same policy on all nodes, over Ganeti's SSH, from the master."""

from __future__ import annotations

import grp
import hashlib
import json
import os
import pwd
import stat
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from ganeti import constants, errors, netutils, ssconf, utils
from ganeti.ssh import SshRunner

from ganeti_ext.cli import check, local, text
from ganeti_ext.cli.local import CARRIED, PATHS, POLICY
from ganeti_ext.cli.state import StateError

#: Seconds that all nodes together have to answer.
TIME_LIMIT = 60.0
#: The same while a job waits.
_HOOK_LIMIT = 15.0

#: So many nodes are asked at a time.
_AT_ONCE = 16

#: As much of what a node says is shown.
_SHOWN = 200

#: In the hook's one line.
_MOST_NODES = 5

#: What a node says of a file that it has not got.
_NOTHING = {"hash": None, "problem": ""}

#: What is to be done about a file that is not the same.
_MENDS = {"policy": "gnt-ext sync", "restricted-users": "gnt-ext sync", "users": "gnt-cluster redist-conf"}


class Node(NamedTuple):
    """A node, by ssconf. `port` is that of its SSH daemon, None for the usual one."""

    name: str
    candidate: bool
    offline: bool
    port: int | None


class Answer(NamedTuple):
    """What a node said: `local.found`, or why there is nothing."""

    state: Mapping[str, Any] | None
    error: str = ""


def nodes() -> list[Node]:
    """All nodes but this one, which is the master. Raises StateError if it is not."""
    store = ssconf.SimpleStore()
    try:
        master, names = store.GetMasterNode(), store.GetNodeList()
        candidates, online = set(store.GetMasterCandidates()), set(store.GetOnlineNodeList())
        ports = store.GetSshPortMap()
    except errors.ConfigurationError as err:
        raise StateError(f"This machine is not part of a cluster: {err}") from err
    if master != netutils.Hostname.GetSysName():
        raise StateError(f"This is not the master: run it on {master}")
    return [
        Node(name, name in candidates, name not in online, int(ports[name]) if name in ports else None)
        for name in names
        if name != master
    ]


def ask(asked: Sequence[Node], words: Sequence[str], data: bytes = b"", limit: float = TIME_LIMIT) -> dict[str, Answer]:
    """Runs `gnt-ext _node` on nodes, several at a time; all that they say, by their names.

    `data` is its standard input; `limit` is in seconds, for all of them together.
    """
    runner = SshRunner(ssconf.SimpleStore().GetClusterName())
    # The program as it is called here: a virtual cluster's nodes share a machine.
    command = utils.ShellQuoteArgs([os.path.abspath(sys.argv[0]), "_node", *words])
    deadline = time.monotonic() + limit

    def one(node: Node) -> Answer:
        argv = runner.BuildCmd(node.name, constants.SSH_LOGIN_USER, command, quiet=False, port=node.port)
        left = deadline - time.monotonic()
        try:
            if left <= 0:
                return Answer(None, "no answer in time")
            done = subprocess.run(argv, input=data, capture_output=True, timeout=left, check=False)
        except subprocess.TimeoutExpired:
            return Answer(None, "no answer in time")
        return answer_of(done.returncode, done.stdout, done.stderr)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return dict(zip((node.name for node in asked), pool.map(one, asked)))


def answer_of(code: int, output: bytes, complaint: bytes) -> Answer:
    """What a call by SSH amounts to."""
    last = text.line((complaint.decode("utf-8", "replace").strip().splitlines() or [""])[-1])[:_SHOWN]
    if code == 255:
        return Answer(None, f"cannot be reached by SSH: {last}")
    if code in (126, 127):
        return Answer(None, "ganeti-ext is not installed")
    if code != 0:
        return Answer(None, last or "has another version of ganeti-ext, which does not know this")
    try:
        state = json.loads(output)
        state["version"], state["files"][POLICY]["hash"], state["commands"]["problem"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return Answer(None, "says something that gnt-ext would not")
    return Answer(state)


def differences(node: Node, state: Mapping[str, Any], master: Mapping[str, Any]) -> list[str]:
    """What is wrong on a node, or is not as on the master.

    The policy and the users of restricted commands matter where the remote API may run one day.
    """
    found = []
    if state["version"] != master["version"]:
        found.append(f"ganeti-ext {state['version']}, the master has {master['version']}")
    for name, path in PATHS.items():
        if name in CARRIED and not node.candidate:
            continue
        here, there = state["files"].get(name, {}), master["files"][name]
        if here.get("problem"):
            found.append(str(here["problem"]))
        elif here.get("hash") != there["hash"]:
            how = "is missing" if not here.get("hash") else "differs" if there["hash"] else "is not on the master"
            mend = _MENDS[name] if there["hash"] else f"remove it, or {_MENDS[name]} from a master that has it"
            found.append(f"{path} {how} ({mend})")
    return found + _of_commands(state)


def _of_commands(state: Mapping[str, Any]) -> list[str]:
    commands = state["commands"]
    if commands["problem"]:
        return [f"no restricted command runs: {commands['problem']}"]
    count = commands.get("refused")
    return [f"restricted commands whose files are not safe, so that they are refused: {count}"] if count else []


def examine(limit: float = TIME_LIMIT) -> list[tuple[Node, list[str]]]:
    """All nodes, the master first, and what is wrong on each; one that is offline is not asked. Raises StateError."""
    others = nodes()
    master = local.found()
    own = Node(netutils.Hostname.GetSysName(), True, False, None)
    rows = [(own, differences(own, master, master))]
    answers = ask([node for node in others if not node.offline], ["state"], limit=limit)
    for node in others:
        answer = answers.get(node.name, Answer(None))
        if node.offline:
            rows.append((node, []))
        elif answer.state is None:
            rows.append((node, [answer.error]))
        else:
            rows.append((node, differences(node, answer.state, master)))
    return rows


def verify(opts: Any, args: Sequence[str]) -> int:
    """Compares all nodes with the master; 1 if there is anything to be told of one that is not offline."""
    rows = examine()
    wrong = [node.name for node, problems in rows if problems]
    if opts.output == "json":
        shown = [{"node": node.name, "offline": node.offline, "problems": problems} for node, problems in rows]
        text.out(json.dumps(shown, indent=2))
        return 1 if wrong else 0
    for node, problems in rows:
        for problem in problems:
            text.out(text.line(f"{node.name}: {problem}"))
    offline = [node.name for node, _ in rows if node.offline]
    if offline:
        text.err(f"Offline, so not asked: {', '.join(offline)}")
    asked = len(rows) - len(offline)
    text.err(f"{len(wrong)} of {asked} nodes are not as they should be" if wrong else f"All is well on {asked} nodes")
    return 1 if wrong else 0


def hook(opts: Any, args: Sequence[str]) -> int:
    """The same for Ganeti's hooks: one line, on the master, once there is something that should be everywhere.

    Ganeti puts the output of a hook that ends with 1 into the job's log; in the phase after a job, it
    does nothing else.
    """
    if not any(os.path.lexists(PATHS[name]) for name in CARRIED):
        return 0
    try:
        if ssconf.SimpleStore().GetMasterNode() != netutils.Hostname.GetSysName():
            return 0
    except errors.ConfigurationError:  # a node that is just being added
        return 0
    wrong = [f"{node.name}: {', '.join(problems)}" for node, problems in examine(_HOOK_LIMIT) if problems]
    if wrong:
        more = f"; and {len(wrong) - _MOST_NODES} nodes more" if len(wrong) > _MOST_NODES else ""
        text.out(text.line(f"gnt-ext verify: {'; '.join(wrong[:_MOST_NODES])}{more}"))
    return 1 if wrong else 0


def sync(opts: Any, args: Sequence[str]) -> int:
    """Carries what is not the same to all master candidates; 1 if one did not get it."""
    candidates = [node for node in nodes() if node.candidate]
    return carry(candidates, opts.dry_run)


def carry(candidates: Sequence[Node], dry_run: bool = False) -> int:
    """The same to some nodes. Raises StateError if the policy is one that a daemon would not take."""
    sent = _to_be_sent()
    online = [node for node in candidates if not node.offline]
    failed = 0
    answers = ask(online, ["state"])
    if not sent:
        text.err("There is nothing to carry: this node has no policy")
    for name in CARRIED:
        having = [
            one for one, answer in answers.items() if answer.state and answer.state["files"].get(name) != _NOTHING
        ]
        if name not in sent and having:
            text.err(f"Note: {PATHS[name]} is not here, but on {', '.join(having)}: nothing is done about it")
    for name, (data, words) in sent.items():
        stale = []
        for node in online:
            state = answers[node.name].state
            if state is not None and state["files"].get(name, {}) != {"hash": words[0], "problem": ""}:
                stale.append(node)
        if dry_run:
            for node in stale:
                text.out(f"{node.name}: would get {PATHS[name]}")
            continue
        for node_name, answer in ask(stale, [name, *words], data).items():
            failed += answer.state is None
            text.out(
                text.line(
                    f"{node_name}: {PATHS[name]} " + (f"NOT carried: {answer.error}" if answer.error else "carried")
                )
            )
    for node in candidates:
        if node.offline:
            text.out(f"{node.name}: offline, so not asked: run this again when it is back")
        elif answers[node.name].state is None:
            failed += 1
            text.out(text.line(f"{node.name}: {answers[node.name].error}"))
    if sent and not failed:
        text.err("All master candidates that are online " + ("were asked" if dry_run else "have the same"))
    return 1 if failed else 0


def _to_be_sent() -> dict[str, tuple[bytes, list[str]]]:
    """The content of each file that is there, with the words for `gnt-ext _node`. Raises StateError, OSError."""
    _check_policy()
    sent = {}
    for name in CARRIED:
        try:
            data = local.read(name)
            status = os.stat(PATHS[name])
        except FileNotFoundError:
            continue
        try:
            owner, group = pwd.getpwuid(status.st_uid).pw_name, grp.getgrgid(status.st_gid).gr_name
        except KeyError as err:
            raise StateError(f"{PATHS[name]} belongs to a user or group without a name: {err.args[0]}") from err
        mode = format(stat.S_IMODE(status.st_mode), "o")
        sent[name] = data, [hashlib.sha256(data).hexdigest(), mode, owner, group]
    return sent


def _check_policy() -> None:
    """Raises StateError for a policy that a daemon would not take."""
    told = [one for one in check.examine(None, None, None) if one.severity == check.ERROR]
    if told:
        raise StateError(
            "\n".join(_lines(told))
            + f"\nNothing is carried: mend {PATHS[POLICY]} first, or the users it is tested with"
        )


def _lines(found: Iterable[check.Finding]) -> Iterable[str]:
    return (line for one in found for line in check.told(one))
