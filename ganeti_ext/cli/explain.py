# SPDX-License-Identifier: BSD-2-Clause
"""`gnt-ext explain`: a whole request, decided by the daemon's own handler on the live cluster, without its effect.

The handler, the access control and the client that decides on opcodes are those of the daemon. Only
what would change something stops short of luxid: it is noted instead. As in the daemon, it is done
with the rights of the daemon's user.
"""

from __future__ import annotations

import base64
import contextlib
import email.message
import json
import logging
import os
import re
import secrets
import sys
from collections.abc import Sequence
from http.client import responses
from typing import Any, NamedTuple
from urllib.parse import quote

from ganeti import errors, http, luxi, pathutils, runtime
from ganeti.http import auth, server
from ganeti.rapi import connector

from ganeti_ext.cli import ask, state, tables, text, trail
from ganeti_ext.cli.describe import scope_text
from ganeti_ext.cli.state import State, StateError
from ganeti_ext.policy.accounts import Account, Grants
from ganeti_ext.policy.decision import decide
from ganeti_ext.policy.model import Role
from ganeti_ext.policy.vocabulary import PERMISSIONS
from ganeti_ext.rapi.access import AccessControl
from ganeti_ext.rapi.audit import AuditLog, Record, masked, parameters_of
from ganeti_ext.rapi.handler import RemoteApiHandler
from ganeti_ext.rapi.permissions import PERMISSION_OF

_ID = re.compile("[0-9a-f]{16}")

#: The most that a body may be, in bytes: what the daemon reads.
_MAX_BODY = 16 * 1024 * 1024

#: What is a refusal; anything else is a mistake in the request, or trouble.
_REFUSALS = (401, 403, 404)
_REFUSED = "refused"

#: Values of an opcode that are as good as none.
_NOT_SET: tuple[Any, ...] = (None, False, [], {})


class _Enough(http.HttpException):  # type: ignore[misc]
    """The request has come to what would change something, and needs its result."""

    code = 200


class Outcome(NamedTuple):
    """What would become of a request. `effects` are the calls that were held back."""

    record: Record
    status: int
    message: str
    effects: list[tuple[str, Any]]

    @property
    def allowed(self) -> bool:
        """Whether it would be done."""
        return bool(self.effects) or self.status < 400


class _DryClient:
    """Ganeti's client for luxi, of which what changes something is only noted."""

    def __init__(self, effects: list[tuple[str, Any]]) -> None:
        self._client: Any = None
        self._effects = effects

    def __getattr__(self, call: str) -> Any:
        """A call that only reads; luxid is asked when it is needed first."""
        if call.startswith("_"):
            raise AttributeError(call)
        if not call.startswith("Query"):
            raise StateError(f"what {call} would do is not known")
        if self._client is None:
            self._client = luxi.Client(address=pathutils.QUERY_SOCKET)
        return getattr(self._client, call)

    def SubmitJob(self, ops: Any) -> int:
        """Notes the opcodes, as they would run."""
        self._effects.append(("job", [op.__getstate__() for op in ops]))
        return 0

    def CancelJob(self, job_id: Any, *args: Any, **kwargs: Any) -> Any:
        """Notes it."""
        self._effects.append(("CancelJob", job_id))
        return [True, ""]

    def ReplaceFilter(self, *args: Any) -> Any:
        """Notes it."""
        self._effects.append(("ReplaceFilter", list(args)))
        return ""

    def DeleteFilter(self, uuid: Any) -> Any:
        """Notes it."""
        self._effects.append(("DeleteFilter", uuid))

    def WaitForJobChangeOnce(self, job_id: Any, *args: Any, **kwargs: Any) -> Any:
        """Whoever waits has been allowed to; of a job that was held back there is nothing to wait for."""
        if not any(kind == "job" for kind, _ in self._effects):
            self._effects.append(("WaitForJobChangeOnce", job_id))
        raise _Enough


class _Trail(AuditLog):
    """Keeps the records in place of writing them."""

    def __init__(self) -> None:
        super().__init__(os.devnull)
        self.records: list[Record] = []

    def write(self, record: Record) -> None:
        """Keeps it, described as it would be in the file."""
        if record.describe is not None:
            with contextlib.suppress(Exception):  # the body may be anything
                record.describe()
        self.records.append(record)


class _Control(AccessControl):
    """The access control with a policy that was read before, and with an account that may be a part of one."""

    def __init__(self, known: State) -> None:
        super().__init__(policy=known.policy)
        self.part: Account | None = None

    def account_of(self, user: Any, always: bool = False) -> Account | None:
        """The daemon's answer, or the part that is looked at."""
        return self.part or super().account_of(user, always)

    @property
    def active(self) -> bool:
        """Records are kept in any case."""
        return True

    @property
    def audit_reads(self) -> bool:
        """Whatever the policy says, the record is wanted."""
        return True


class Explainer:
    """Sends requests of one user through the daemon's handler."""

    def __init__(self, known: State, name: str, client: Any = _DryClient) -> None:
        if name not in known.users:
            raise StateError(f"the users file has no user {name!r}")
        self._name = name
        self._password = secrets.token_hex(16)
        self.control = _Control(known)
        # His own password is neither known nor needed.
        password = "{CLEARTEXT}" + self._password
        users = {name: auth.PasswordFileUser(name, password, list(known.users[name].tokens or ()))}
        self.control.resolve_users(users)
        self._user = users[name]
        self._client = client

    def ask(self, method: str, path: str, body: str | None, part: Account | None = None) -> Outcome:
        """What would become of a request, by all that the user has, or by a part of it."""
        effects: list[tuple[str, Any]] = []
        keeping = _Trail()
        self.control.part = part
        cls = type("Handler", (RemoteApiHandler,), {"access": self.control, "audit": keeping})
        handler = cls({self._name: self._user}.get, True, _client_cls=lambda: self._client(effects))
        headers = email.message.Message()
        credentials = base64.b64encode(f"{self._name}:{self._password}".encode()).decode()
        headers[http.HTTP_AUTHORIZATION] = f"Basic {credentials}"
        if body:
            headers[http.HTTP_CONTENT_TYPE] = http.HTTP_APP_JSON
        req = server._HttpServerRequest(method, path, headers, body, None)
        status, told = 200, ""
        try:
            handler.PreHandleRequest(req)
            handler.HandleRequest(req)
        except http.HttpException as err:
            status, told = err.code, str(err.message or responses.get(err.code, "")) if err.code >= 400 else ""
        except Exception:  # as the daemon, which answers whatever happens
            logging.exception("Handling a request")
            status, told = 500, "Unknown error"
        record = keeping.records[-1] if keeping.records else Record(method, path)
        return Outcome(record, status, re.sub(r" \(audit record [0-9a-f]{16}\)", "", told), effects)


def request_of(permission: str, kind: str, name: str) -> tuple[str, str]:
    """Method and path of the request that needs a permission; `name` is of an object of that kind, or empty.

    Of an instance's disks it is the first. Raises errors.OpPrereqError if there is no such request.
    """
    paths = connector.GetHandlers(*5 * ["{}"], "0", *2 * ["{}"], translate=_template)
    found = [
        (method, path)
        for path, resource in paths.items()
        for method, needed in PERMISSION_OF.get(resource.__name__, {}).items()
        if needed == permission
    ]
    for method, path in found:
        if path.startswith(f"/2/{kind}s/{{}}") if name else "{}" not in path:
            return method, path.format(quote(name, safe=""))
    if found and name and all("{}" not in path for _, path in found):
        why = "its request names no object but in the body: leave it out"
    elif found and not name:
        why = "its request is about an object: name it"
    else:
        why = "gnt-ext explain decides on such requests, by their path"
    raise errors.OpPrereqError(f"{permission} with --body: {why}", errors.ECODE_INVAL)


def _template(*parts: Any) -> str:
    """A path of Ganeti's connector, with its patterns as they were given."""
    return "".join(getattr(part, "content", part) for part in parts)


def can_request(known: State, user: str, request: tuple[str, str], file: str) -> int:
    """Tells whether a user may send a request with the body in a file (`-` is the standard input): 0 for yes."""
    body = _body(file if file == "-" else f"@{file}")
    explainer = Explainer(known, user)
    state.luxi_client().Close()
    _become_the_daemons_user()
    outcome, without = explainer.ask(*request, body), explainer.ask(*request, None)
    if outcome.allowed and _lasting(outcome) == _lasting(without):
        text.err("Note: the daemon does not look at this body; parameters in the path are for gnt-ext explain")
    verdict, why = _decision(outcome, explainer.control.account_of(explainer._user) is not None)
    said = "yes" if outcome.allowed else "no" if verdict == _REFUSED else f"no: {verdict}"
    text.out(text.line(f"{said}: {why}"))
    return 0 if outcome.allowed else 1


def _lasting(outcome: Outcome) -> tuple[int, list[str]]:
    """What of an outcome is not about when it was asked for."""
    return outcome.status, [_opcode(op) for kind, what in outcome.effects if kind == "job" for op in what]


def explain(opts: Any, args: Sequence[str]) -> int:
    """Explains a request, or a record of the audit trail; 1 if it would be refused."""
    known = tables.load(opts)
    if len(args) == 1:
        return _explain_record(opts, known, args[0])
    if len(args) < 3:
        raise errors.OpPrereqError("Name a user, a method and a path; or the id of an audit record", errors.ECODE_INVAL)
    user, method, path = args[0], args[1].upper(), args[2]
    body = _body(args[3]) if len(args) > 3 else None
    explainer = Explainer(known, user)
    state.luxi_client().Close()  # to say in one line that there is none
    _become_the_daemons_user()
    outcome = explainer.ask(method, path, body)
    for label, said in _told(known, user, explainer, outcome, (method, path, body)):
        text.out(f"{label:<12} {text.line(said)}")
    return 0 if outcome.allowed else 1


def _told(
    known: State, user: str, explainer: Explainer, outcome: Outcome, request: tuple[str, str, str | None]
) -> list[tuple[str, str]]:
    """The lines of an explanation: label and text."""
    record = outcome.record
    permission = record.permission
    lines = [
        ("request", f"{request[0]} {request[1]}"),
        ("user", f"{user} ({','.join(known.users[user].tokens or ()) or 'no options'})"),
        ("permission", f"{permission} ({PERMISSIONS[permission]})" if permission in PERMISSIONS else "none"),
    ]
    lines += [("object", f"{kind} {name}") for kind, name in record.objects]
    lines += [("parameter", f"{name} = {json.dumps(value)}") for name, value in masked(record.parameters).items()]
    account = known.account(user)
    lines += [("problem", problem) for problem in account.grants.problems]
    ours = explainer.control.account_of(explainer._user) is not None
    for role in _roles(account) if ours else ():
        bound = {one.name: one for one in account.roles(permission)}
        if role.name not in bound:
            lines.append((f"role {role.name}", f"does not grant {permission or 'that'}"))
            continue
        part = explainer.ask(*request, part=_only(account, role))
        said = "would allow it" if part.allowed else f"would refuse it: {_why(part)}"
        lines.append((f"role {role.name}", f"({scope_text(bound[role.name])}) {said}"))
    lines += [(deny.name, "is about this permission") for deny in account.denies if permission in deny.permissions]
    lines.append(("decision", ("{}, by {}" if outcome.allowed else "{}: {}").format(*_decision(outcome, ours))))
    if not outcome.allowed:
        lines.append(("answer", f"{outcome.status} {outcome.message}"))
    for kind, what in outcome.effects:
        lines += [("job", _opcode(op)) for op in what] if kind == "job" else [("call", f"{kind} {json.dumps(what)}")]
    return lines


def _decision(outcome: Outcome, ours: bool) -> tuple[str, str]:
    """The decision, and by what, or why; `ours` is whether the account is not Ganeti's alone."""
    record = outcome.record
    if outcome.allowed:
        by = record.rule or ("an endpoint that is open to all" if ours else "Ganeti's own options")
        return "allowed", by + (f"; mode: warn lets through: {record.reason}" if record.decision == "warn" else "")
    return _REFUSED if outcome.status in _REFUSALS else "nothing would come of it", _why(outcome)


def _opcode(op: dict[str, Any]) -> str:
    """An opcode with what is set in it, without secrets."""
    given = {key: value for key, value in op.items() if key not in ("OP_ID", "reason") and value not in _NOT_SET}
    return f"{op['OP_ID']} {json.dumps(masked(parameters_of({}, given)))}"


def _why(outcome: Outcome) -> str:
    return outcome.record.reason or outcome.message or f"status {outcome.status}"


def _roles(account: Account) -> list[Role]:
    """All roles of an account that grant anything, each once."""
    return list(dict.fromkeys(role for granting in account.grants.roles.values() for role in granting))


def _only(account: Account, role: Role) -> Account:
    """The account as it would be with one of its roles alone."""
    held = {name: (role,) for name, granting in account.grants.roles.items() if role in granting}
    return Account(account.user, Grants(held), account.policy)


def _explain_record(opts: Any, known: State, record_id: str) -> int:
    """An audit record, and what would be decided today about its permission and its objects."""
    if not _ID.fullmatch(record_id):
        raise errors.OpPrereqError(f"{record_id!r} is no id: they have 16 hexadecimal digits", errors.ECODE_INVAL)
    found = [record for record in trail.records() if record.get("id") == record_id]
    if not found:
        raise StateError(f"The audit trail of this node has no record {record_id}")
    record = found[-1]
    for name, value in record.items():
        text.out(f"{name:<12} {text.line(value if isinstance(value, str) else json.dumps(value))}")
    permission, user = record.get("permission"), record.get("user")
    if permission not in PERMISSIONS or user not in known.users:
        why = "there is no such user" if permission in PERMISSIONS else "no permission is known"
        text.out(f"{'today':<12} {why}")
        return 1
    names = [f"{kind}:{name}" for kind, some in (record.get("objects") or {}).items() for name in some]
    decision = decide(known.account(user), (permission,), ask.targets(opts, permission, names))
    text.out(f"{'today':<12} {ask.answer(decision)} (by permission and objects; the parameters are not looked at)")
    return 0 if decision.allowed else 1


def _body(words: str) -> str:
    """A body: JSON as it stands there, or of the file after `@`, or of the standard input for `-`."""
    if words == "-":
        data = sys.stdin.buffer.read(_MAX_BODY + 1)
    elif words.startswith("@"):
        with open(words[1:], "rb") as file:
            data = file.read(_MAX_BODY + 1)
    else:
        data = os.fsencode(words)
    if len(data) > _MAX_BODY:
        raise errors.OpPrereqError("The body is longer than the daemon reads", errors.ECODE_INVAL)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as err:
        raise errors.OpPrereqError("The body is not UTF-8: the daemon would answer 400", errors.ECODE_INVAL) from err


def _become_the_daemons_user() -> None:
    """Gives up root: what the request leads to is done with the rights that the daemon has."""
    if os.geteuid() != 0:
        return
    ents = runtime.GetEnts()
    os.setgroups([ents.rapi_gid, ents.daemons_gid, ents.admin_gid])
    os.setgid(ents.rapi_gid)
    os.setuid(ents.rapi_uid)
