# SPDX-License-Identifier: BSD-2-Clause
"""`gnt-ext sync` and `verify`: the same package and policy on all nodes, over Ganeti's SSH."""

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

from ganeti_ext import __version__
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

#: What is known of a node that has no program of this name.
NOT_INSTALLED = "ganeti-ext is not installed"

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


class Members(NamedTuple):
    """The nodes of the cluster, as this one knows them."""

    master: str
    #: Whether this node is the master.
    own: bool
    this: Node
    others: list[Node]


def members() -> Members:
    """All nodes. Raises StateError if this machine is none."""
    store = ssconf.SimpleStore()
    try:
        master, names = store.GetMasterNode(), store.GetNodeList()
        candidates, online = set(store.GetMasterCandidates()), set(store.GetOnlineNodeList())
        ports = store.GetSshPortMap()
    except errors.ConfigurationError as err:
        raise StateError(f"This machine is not part of a cluster: {err}") from err
    found = [
        Node(name, name in candidates, name not in online, int(ports[name]) if name in ports else None)
        for name in names
    ]
    here = netutils.Hostname.GetSysName()
    this = next((node for node in found if node.name == here), Node(here, False, False, None))
    return Members(master, master == here, this, [node for node in found if node.name != here])


def nodes() -> list[Node]:
    """All nodes but this one, which is the master. Raises StateError if it is not."""
    known = members()
    if not known.own:
        raise StateError(f"This is not the master: run it on {known.master}")
    return known.others


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
        return Answer(None, NOT_INSTALLED)
    if code != 0:
        return Answer(None, last or "has another version of ganeti-ext, which does not know this")
    try:
        state = json.loads(output)
        state["version"], state["files"][POLICY]["hash"], state["commands"]["problem"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return Answer(None, "says something that gnt-ext would not")
    return Answer(state)


def differences(node: Node, state: Mapping[str, Any], here: Mapping[str, Any], where: str = "the master") -> list[str]:
    """What is wrong on a node, or is not as `here`, which is said to be `where`, with the mend.

    The policy and the users of restricted commands matter where the remote API may run one day.
    """
    found = []
    other_version = state["version"] != here["version"]
    if other_version:
        found.append(f"ganeti-ext {state['version']}, {where} has {here['version']} (install the same one)")
    for daemon in state.get("stale", ()):
        found.append(f"{daemon} was started before ganeti-ext {state['version']} was installed (restart it)")
    found += _of_ganeti(node, state, here, where)
    for name, path in PATHS.items():
        if name in CARRIED and not node.candidate:
            continue
        there, wanted = state["files"].get(name, {}), here["files"][name]
        if there.get("problem"):
            found.append(str(there["problem"]))
        elif there.get("hash") != wanted["hash"]:
            how = "is missing" if not there.get("hash") else "differs" if wanted["hash"] else f"is not on {where}"
            mend = _MENDS[name] if wanted["hash"] else f"remove it, or {_MENDS[name]} from a master that has it"
            first = "install the same ganeti-ext, then " if other_version and name in CARRIED else ""
            found.append(f"{path} {how} ({first}{mend})")
    return found + _of_commands(state)


def _of_ganeti(node: Node, state: Mapping[str, Any], here: Mapping[str, Any], where: str) -> list[str]:
    """The same for Ganeti itself. Older versions of this package say nothing of it."""
    there, wanted = state.get("ganeti"), here.get("ganeti")
    if not there or not wanted:
        return []
    found = []
    if there["version"] != wanted["version"]:
        found.append(f"Ganeti {there['version']}, {where} has {wanted['version']}")
    if there["problem"]:
        means = "its node daemon runs as Ganeti made it"
        means += ", and as the master it would answer every request with 503" if node.candidate else ""
        found.append(f"{there['problem']}: {means}")
    return found


def _of_no_answer(node: Node, error: str, here: Mapping[str, Any]) -> str:
    """What it means that a node has said nothing of itself."""
    if error != NOT_INSTALLED:
        return error
    if not node.candidate:
        return f"{error}: restricted commands there have Ganeti's own checks (install it)"
    if all(here["files"][name] == _NOTHING for name in CARRIED):
        return f"{error} (install it)"
    return f"{error}: after a failover to this node no policy is in force (install it, or {_DEMOTE} {node.name})"


_DEMOTE = "gnt-node modify --master-candidate=no"


def _of_commands(state: Mapping[str, Any]) -> list[str]:
    commands = state["commands"]
    if commands["problem"]:
        return [f"no restricted command runs: {commands['problem']}"]
    count = commands.get("refused")
    return [f"restricted commands whose files are not safe, so that they are refused: {count}"] if count else []


def examine(limit: float = TIME_LIMIT) -> list[tuple[Node, list[str]]]:
    """All nodes, this one first, and what is wrong on each; one that is offline is not asked. Raises StateError.

    They are compared with this node, which is the master, unless it is asked where that cannot tell.
    """
    known = members()
    here = local.found()
    where = "the master" if known.own else "this node"
    configured = any(here["files"][name] != _NOTHING for name in CARRIED)
    rows = [(known.this, differences(known.this, here, here))]
    answers = ask([node for node in known.others if not node.offline], ["state"], limit=limit)
    for node in known.others:
        answer = answers.get(node.name, Answer(None))
        if node.offline:
            rows.append((node, []))
        elif node.name == known.master and configured and _cannot_tell(answer):
            rows.append((node, [_of_the_master(answer)]))
        elif answer.state is None:
            rows.append((node, [_of_no_answer(node, answer.error, here)]))
        else:
            rows.append((node, differences(node, answer.state, here, where)))
    return rows


def _cannot_tell(master: Answer) -> bool:
    """Whether nothing on the master would warn of it: there is none of our files there, or no package."""
    if master.state is None:
        return master.error == NOT_INSTALLED
    return all(master.state["files"].get(name) == _NOTHING for name in CARRIED)


def _of_the_master(answer: Answer) -> str:
    mend = f"copy {PATHS[POLICY]} there" if answer.state else "install it there"
    what = "it has no policy" if answer.state else answer.error
    return f"the master, and {what}: none is in force ({mend}, or gnt-cluster master-failover on a node that has it)"


def verify(opts: Any, args: Sequence[str]) -> int:
    """Compares all nodes with this one; 1 if there is anything to be told of one that is not offline."""
    known = members()
    if not known.own:
        text.err(f"Note: this is not the master, {known.master}: what is told is how others differ from this node")
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
    """The same for Ganeti's hooks: one line, once there is something that should be everywhere.

    Ganeti puts the output of a hook that ends with 1 into the job's log; in the phase after a job, it
    does nothing else. The master speaks of all nodes, unless it is called by the watcher (`watcher`), which
    comes every five minutes. Another candidate looks at the master alone, and speaks where that cannot.
    """
    if not any(os.path.lexists(PATHS[name]) for name in CARRIED):
        return 0
    try:
        known = members()
    except StateError:  # a node that is just being added
        return 0
    wrong = []
    if not known.own:
        wrong = [f"{known.master}: {said}" for said in _seen_from_here(known)]
    elif not args:
        wrong = [f"{node.name}: {', '.join(problems)}" for node, problems in examine(_HOOK_LIMIT) if problems]
    if wrong:
        more = f"; and {len(wrong) - _MOST_NODES} nodes more" if len(wrong) > _MOST_NODES else ""
        text.out(text.line(f"gnt-ext verify: {'; '.join(wrong[:_MOST_NODES])}{more}"))
    return 1 if wrong else 0


def _seen_from_here(known: Members) -> list[str]:
    """What another node than the master has to say of that."""
    masters = [node for node in known.others if node.name == known.master]
    answers = ask(masters, ["state"], limit=_HOOK_LIMIT) if known.this.candidate else {}
    return [_of_the_master(answer) for answer in answers.values() if _cannot_tell(answer)]


def sync(opts: Any, args: Sequence[str]) -> int:
    """Carries what is not the same to all master candidates; 1 if one did not get it."""
    candidates = [node for node in nodes() if node.candidate]
    return carry(candidates, opts.dry_run)


def carry(candidates: Sequence[Node], dry_run: bool = False) -> int:
    """The same to some nodes. Raises StateError if the policy is one that a daemon would not take."""
    sent = _to_be_sent()
    here = local.found()
    failed = 0
    answers = ask(candidates, ["state"])
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
        for node in candidates:
            state = answers[node.name].state
            if state is not None and state["files"].get(name, {}) != {"hash": words[0], "problem": ""}:
                stale.append(node)
        if dry_run:
            for node in stale:
                text.out(f"{node.name}: would get {PATHS[name]}")
            continue
        for node_name, answer in ask(stale, [name, *words], data).items():
            failed += answer.state is None
            version = (answers[node_name].state or {}).get("version")
            older = f" (it has ganeti-ext {version})" if version != __version__ else ""
            how = f"NOT carried{older}: {answer.error}; what it has stays" if answer.error else "carried"
            text.out(text.line(f"{node_name}: {PATHS[name]} {how}"))
    for node in candidates:
        if answers[node.name].state is None:
            failed += 1
            text.out(text.line(f"{node.name}: {_of_no_answer(node, answers[node.name].error, here)}"))
    if sent and not failed:
        text.err("All master candidates " + ("were asked" if dry_run else "have the same"))
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
