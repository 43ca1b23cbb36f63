# SPDX-License-Identifier: BSD-2-Clause
"""`gnt-ext restricted-command`: on which nodes, by which way, and what came of it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ganeti import cli, constants, errors, utils

from ganeti_ext.cli import text

RULE = "-" * 48  # as gnt-node's

_EXIT_CODE = re.compile("exited with exit code ([0-9]{1,9})(,.*)?", re.DOTALL)


class Answer(NamedTuple):
    """What a node said. `ran` is None where nobody knows; `error` is None after exit code 0."""

    node: str
    ran: bool | None
    exit_code: int | None
    output: str
    error: str | None


def restricted_command(opts: Any, args: Sequence[str], default_limit: int) -> int:
    """Runs a command on some nodes; success only if each ran it and got 0.

    Raises errors.OpPrereqError before anything is run anywhere.
    """
    *names, command = args
    _check_arguments(opts, names, command)
    report = Report(opts.output == "json", opts.show_machine_names)
    if opts.direct:
        _run_directly(opts, names, command, opts.time_limit or default_limit, report)
    else:
        _run_as_job(opts, names, command, report)
    code = report.end()
    if opts.direct and code != constants.EXIT_SUCCESS:
        _tell_who_is_answered()
    return code


def _check_arguments(opts: Any, names: Sequence[str], command: str) -> None:
    if not command:
        raise _wrong("The command's name is empty")
    if names and opts.nodegroup:
        raise _wrong("Name either a node group or nodes; the command comes last")
    if not names and not opts.nodegroup:
        raise _wrong("Name nodes, or a group with --node-group, before the command")
    if opts.time_limit is not None and (opts.time_limit < 1 or not opts.direct):
        raise _wrong("--timeout wants at least 1 second" if opts.direct else "--timeout is for --direct: a job waits")
    if opts.direct and (opts.submit_only or opts.do_locking or opts.priority is not None):
        raise _wrong("--submit, --sync and --priority are about jobs: with --direct there is none")
    if opts.output == "json" and opts.show_machine_names:
        raise _wrong("--show-machine-names is for text")


def _wrong(message: str) -> Exception:
    error: Exception = errors.OpPrereqError(message, errors.ECODE_INVAL)
    return error


def resolve(names: Iterable[str], command: str, known: Sequence[str]) -> list[str]:
    """The full names of nodes, each once, by Ganeti's own rule for abbreviated ones.

    Raises errors.OpPrereqError if one is not that of exactly one node. gnt-node has the command
    first: whoever writes it so is told, and so is whoever forgot it.
    """
    if command in known:
        raise _wrong(f"{command} is a node, not a command: the command comes last")
    found = []
    for name in names:
        node = utils.MatchNameComponent(name, known, case_sensitive=False)
        if node is None:
            several = [one for one in known if one.lower().startswith(name.lower() + ".")]
            hint = f" alone: {', '.join(sorted(several))}" if several else " (the command comes last)"
            raise errors.OpPrereqError(f"There is no node {name!r}{hint}", errors.ECODE_NOENT)
        found.append(str(node))
    return list(dict.fromkeys(found))


class Report:
    """Tells what came of it: text as it comes, JSON at the end, and what failed in a summary."""

    def __init__(self, as_json: bool, in_lines: bool) -> None:
        self._as_json = as_json
        self._in_lines = in_lines
        self._progress = text.Progress(sys.stderr)
        self._nodes: list[str] = []
        self._answers: dict[str, Answer] = {}

    def begin(self, nodes: Sequence[str]) -> None:
        """Says which nodes there will be something about, in their order."""
        self._nodes = list(nodes)
        self._show_progress()

    def add(self, answer: Answer) -> None:
        """Takes the answer of a node, and shows it."""
        self._answers[answer.node] = answer
        self._progress.clear()
        if not self._as_json:
            self._show(answer)
        self._show_progress()

    def missing(self, error: str, ran: bool | None) -> None:
        """Takes what is to be said about each node that there is no answer of."""
        for node in self._nodes:
            if node not in self._answers:
                self.add(Answer(node, ran, None, "", error))

    def _show_progress(self) -> None:
        waiting = [node for node in self._nodes if node not in self._answers]
        if waiting and len(self._nodes) > 1:
            done = len(self._nodes) - len(waiting)
            self._progress.show(f"{done} of {len(self._nodes)} nodes have answered; waiting for {', '.join(waiting)}")

    def _show(self, answer: Answer) -> None:
        output = answer.output[:-1] if answer.output.endswith("\n") else answer.output
        if self._in_lines:
            lines = [*output.split("\n")] if output else []
            if answer.error is not None:
                lines.append(f"({answer.error})")
            for one in lines:
                text.out(f"{answer.node}: {one}")
            return
        text.out(RULE)
        text.out(f"Node: {answer.node}" + ("" if answer.error is None else f" ({text.line(answer.error)})"))
        if output:
            text.out(output)

    def end(self) -> int:
        """Says what failed, first of all; the exit code."""
        self._progress.clear()
        answers = [self._answers[node] for node in self._nodes]
        if self._as_json:
            cli.ToStdout("%s", json.dumps([answer._asdict() for answer in answers], indent=2))
        failed = [answer for answer in answers if answer.error is not None]
        if failed:
            text.err(f"Failed on {len(failed)} of {len(answers)} nodes:")
            for answer in failed:
                text.err(f"  {answer.node}: {text.line(answer.error or '')}")
        good = [answer.node for answer in answers if answer.error is None]
        if good and len(answers) > 1:
            text.err(f"Exit code 0 on {len(good)} of {len(answers)} nodes: {', '.join(good)}")
        return int(constants.EXIT_FAILURE if failed else constants.EXIT_SUCCESS)


def _run_directly(opts: Any, names: Sequence[str], command: str, time_limit: int, report: Report) -> None:
    from ganeti_ext.cli import direct

    addresses = direct.addresses()
    if opts.nodegroup:
        names = direct.group_members(opts.nodegroup)
        if not names:
            raise _wrong(f"There is no node in the group {opts.nodegroup}")
    nodes = resolve(names, command, list(addresses))

    def told(node: str, asked: bool, result: Any) -> None:
        report.add(_answer(node, command, result.fail_msg, result.payload, None if asked else False))

    report.begin(nodes)
    try:
        direct.call({node: addresses[node] for node in nodes}, command, time_limit, told)
    except KeyboardInterrupt:
        report.missing("no answer when it was interrupted: it may be running", None)


def _tell_who_is_answered() -> None:
    from ganeti_ext.cli import direct

    if not direct.is_candidate():
        text.err("Note: this node is no master candidate, and node daemons answer those alone")


def _run_as_job(opts: Any, names: Sequence[str], command: str, report: Report) -> None:
    from ganeti import opcodes
    from ganeti.rpc import errors as rpcerr

    fields = ["name", "offline", "group", "group.uuid"]
    try:
        client = cli.GetClient()
        rows = [[value for _, value in row] for row in client.Query(constants.QR_NODE, fields, None).data]
    except (errors.OpPrereqError, rpcerr.ProtocolError):
        text.err("Note: a job needs the daemons of the master; --direct does not")
        raise
    offline = {row[0]: row[1] for row in rows}
    if opts.nodegroup:
        names = [row[0] for row in rows if opts.nodegroup in row[2:]]
        if not names:
            raise _wrong(f"There is no node group {opts.nodegroup!r}, or no node in it")
    nodes = resolve(names, command, list(offline))
    asked = [node for node in nodes if not offline[node]]
    results = []
    if asked:
        op = opcodes.OpRestrictedCommand(command=command, nodes=asked, use_locking=opts.do_locking)
        try:
            results = cli.SubmitOrSend(op, opts, cl=client)
        except UnicodeDecodeError as err:  # luxid writes what is not ASCII in bytes of another encoding
            raise errors.OpExecError(
                "The nodes have answered, but the output is not ASCII, which Ganeti's job queue cannot hand over;"
                " --direct can"
            ) from err
    report.begin(nodes)
    for node, (success, said) in zip(asked, results):
        error = None
        if not success:
            start = f"Command '{command}' on node '{node}' failed: "  # LURestrictedCommand's
            error = said[len(start) :] if said.startswith(start) else said
        report.add(_answer(node, command, error, said, None))
    report.missing("marked offline: jobs don't ask it, --direct does", False)


def _answer(node: str, command: str, error: Any, output: Any, ran: bool | None) -> Answer:
    """Takes apart what a node daemon says: Ganeti's messages are all that there is.

    `ran` is what is known if the answer does not tell.
    """
    if error is None:
        if isinstance(output, str):
            return Answer(node, True, 0, output, None)
        return Answer(node, None, None, "", "not an answer of a node daemon: the output is not text")
    error = error if isinstance(error, str) else json.dumps(error)
    start = f"Restricted command '{command}' failed: "
    if error.startswith(start):
        how, _, output = error[len(start) :].partition("; output: ")
        code = _EXIT_CODE.fullmatch(how)
        return Answer(node, True, int(code[1]) if code else None, output, how)
    if error == f"Executing command '{command}' failed":
        return Answer(node, False, None, "", "refused; the reason is in the node's own log (node-daemon.log)")
    if ran is None:
        error += " (whether it ran is not known)"
    return Answer(node, ran, None, "", error)
