# SPDX-License-Identifier: BSD-2-Clause
"""`gnt-ext edit`: the policy in an editor, as visudo does it: what is not right never gets in force."""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from ganeti import runtime, utils

from ganeti_ext.cli import check, files, rights, state, sync, text
from ganeti_ext.cli.files import Owner
from ganeti_ext.cli.state import State, StateError
from ganeti_ext.policy.model import MAX_SIZE, Policy
from ganeti_ext.rapi.access import POLICY_FILE

#: The copy that is edited. It is there as long as somebody edits, or after he was cut off.
DRAFT = POLICY_FILE + ".draft"

#: What a file starts with that was not there.
_EMPTY = b"version: 1\nroles:\n"


def edit(opts: Any, args: Sequence[str]) -> int:
    """Edits the policy; 1 if it is left as it was. Raises StateError, OSError: then it is, too."""
    if os.geteuid() != 0:
        raise StateError("The policy is root's: run this as root")
    with files.locked(POLICY_FILE, "the policy", patience=0):
        before, owner = _live()
        _prepare_draft(before, owner)
        after = _edited(before)
        if after is None:
            utils.RemoveFile(DRAFT)
            text.err("The policy is as it was")
            return 1
        if _live()[0] != before:
            raise StateError(f"{POLICY_FILE} was changed by somebody else: nothing is done; yours is {DRAFT}")
        files.replace(POLICY_FILE, after, owner)
        utils.RemoveFile(DRAFT)
    text.err("Saved: the daemon takes it at once")
    return _offer_sync()


def _live() -> tuple[bytes | None, Owner]:
    """The policy that is there, None if there is none, and whose it is or should be."""
    try:
        data, _ = state.read_draft(POLICY_FILE)
        status = os.lstat(POLICY_FILE)
    except StateError:
        if os.path.lexists(POLICY_FILE):
            raise
        return None, Owner(0, runtime.GetEnts().rapi_gid, 0o640)
    if not stat.S_ISREG(status.st_mode):
        raise StateError(f"{POLICY_FILE} is a link: edit what it leads to, or put the file itself there")
    if len(data) > MAX_SIZE:
        raise StateError(f"{POLICY_FILE} has more than {MAX_SIZE} bytes")
    return data, Owner(status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))


def _prepare_draft(live: bytes | None, owner: Owner) -> None:
    """Makes the copy, or takes the one of an edit that was cut off."""
    if os.path.lexists(DRAFT):
        text.err(f"There is a draft of an edit that did not end, {DRAFT}")
        choice = _choose("(g)o on with it, (b)egin anew, or e(x)it?", "gbx")
        if choice == "x":
            raise StateError("Nothing is done, and the draft stays")
        if choice == "g":
            return
    files.replace(DRAFT, _EMPTY if live is None else live, owner._replace(mode=0o600))


def _edited(live: bytes | None) -> bytes | None:
    """What somebody makes of the draft, once it is right and he says so; None if he gives up."""
    while True:
        _run_editor()
        data, _ = state.read_draft(DRAFT)
        if data == (_EMPTY if live is None else live):
            return None
        found = list(check.examine(DRAFT, None, None))
        for finding in sorted(found, key=lambda one: (one.source, one.line, one.column)):
            for line in check.told(finding):
                text.err(line)
        if any(finding.severity == check.ERROR for finding in found):
            choice = _choose("What now? (e)dit again, or e(x)it without saving:", "ex")
        else:
            _show_change()
            choice = _choose("What now? (s)ave, (e)dit again, or e(x)it without saving:", "sex")
        if choice == "x":
            return None
        if choice == "s" and state.read_draft(DRAFT)[0] == data:  # an editor may be at it still
            return data


def _run_editor() -> None:
    """Raises StateError if it fails."""
    words = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "") or ["sensible-editor"]
    try:
        code = subprocess.run([*words, DRAFT], check=False).returncode
    except OSError as err:
        raise StateError(f"The editor {words[0]} does not start: {err.strerror}; set EDITOR") from err
    if code != 0:
        raise StateError(f"The editor {words[0]} failed ({code}): nothing is done; yours is {DRAFT}")


def _show_change() -> None:
    """Tells who gains and who loses what."""
    after = state.load(policy_file=DRAFT)
    try:
        before = state.load()
    except StateError as err:
        text.err(f"Note: what is in force cannot be read, so that all is new: {err}")
        before = State(Policy(), after.users)
    if before.remark:
        text.err(f"Note: {before.remark}")
    lines = list(rights.told(rights.changes(before, after)))
    for line in lines or ["No user gains or loses anything by this"]:
        text.out(line)


def _choose(question: str, letters: str) -> str:
    """One of some letters; the last one, which does nothing, where nobody answers."""
    while True:
        sys.stdout.flush()
        sys.stderr.write(question + " ")
        sys.stderr.flush()
        answer = sys.stdin.readline()
        if not answer:
            sys.stderr.write("\n")
            return letters[-1]
        if answer.strip().lower()[:1] in letters and answer.strip():
            return answer.strip().lower()[0]


def _offer_sync() -> int:
    """Carries the policy to the other master candidates, if that is wanted."""
    try:
        candidates = [node for node in sync.nodes() if node.candidate]
    except StateError as err:
        text.err(f"Note: it is in force here alone: {err}")
        return 0
    if not candidates:
        return 0
    if _choose(f"Carry it to {len(candidates)} other master candidates? (y)es, (n)o:", "yn") == "y":
        return sync.carry(candidates)
    text.err("Note: gnt-ext sync carries it to the other master candidates")
    return 0
