# SPDX-License-Identifier: BSD-2-Clause
"""The audit trail (design, 3.6): a line for each refusal and each change, with no secret in it."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import logging
import math
import mmap
import os
import re
import secrets
import stat
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from typing import Any, TypeVar

from ganeti import constants, http, opcodes, pathutils

#: It ends in `.log`: Ganeti's own logrotate file then rotates it with the others (`docs/audit.md`).
AUDIT_LOG = pathutils.LOG_DIR + "/rapi-audit.log"

#: Bytes of a line at most, its end included.
MAX_LINE = 8192

#: What stands in the place of a value that is not shown.
MASK = "***"

#: Bytes of a text as it is written. With the two below, all but the parameters' values fits.
_MAX_WORD, _MAX_NAME, _MAX_VALUE, _MAX_TEXT = 64, 128, 256, 512
_MAX_OBJECTS, _MAX_PARAMETERS = 20, 32
#: Entries of a list, and lists inside of lists.
_MAX_ENTRIES, _MAX_DEPTH = 32, 4
#: Values of a body that are looked at.
_MAX_VISITS = 2000

#: The same failure is told again after so many seconds.
_TELL_AGAIN = 3600.0

_READ_METHODS = ("GET", "HEAD")

#: The statuses that are a refusal, whoever gives them.
_DENIED = (401, 403, 429)

#: Secrets inside of other values: the password of a URL, and `-spice port=1,password=…`.
_SECRET_TEXT = re.compile(
    r"""(://)[^/\s@]*(?=@) | ((?:passw|passphrase|secret|token|key)[\w.-]*\s*[=:\s]\s*)\S+""",
    re.ASCII | re.IGNORECASE | re.VERBOSE,
)

#: One of these is in every text that holds one of those.
_HINTS = frozenset("=: \t\n\r\v\f")

#: Names that the handlers of rlib2 know beside the parameters of their opcodes.
_RLIB2_NAMES = (
    "__version__ action allocatable bulk destination filter lock nostartup os predicates previous_job_info"
    " previous_log_serial role tag type"
)

#: What Ganeti knows as a parameter, at any depth. Anything else is as good as secret: it may be a
#: misspelt `osparams_secret`, or belong to a plug-in of which we know nothing.
_KNOWN_NAMES = frozenset(
    [parameter[0] for opcode in opcodes.OP_MAPPING.values() for parameter in opcode.GetAllParams()]
    + _RLIB2_NAMES.split()
    + [constants.BE_MEMORY]
).union(
    constants.HVS_PARAMETERS,
    constants.BES_PARAMETERS,
    constants.INIC_PARAMS,
    constants.NICS_PARAMETERS,
    constants.IDISK_PARAMS,
    constants.NDS_PARAMETERS,
    constants.HYPER_TYPES,
)

#: A parameter with one of these in its name is secret, or may be.
_SECRET_WORDS = (
    "osparams",
    "passw",
    "passphrase",
    "secret",
    "private",
    "token",
    "credential",
    "key",
    "x509",
    "handshake",
)
_SECRET_NAMES = frozenset(name for name in _KNOWN_NAMES if any(word in name for word in _SECRET_WORDS))
_SHOWN_NAMES = _KNOWN_NAMES - _SECRET_NAMES

#: Of these a text names a node; a list holds what opens a remote import.
_ONLY_TEXT = frozenset({"destination", "target_node"})

Error = TypeVar("Error", bound=Exception)


class Record:
    """What is noted of one request; the handler fills it in as the request goes on.

    `objects` are (kind, name) pairs, `parameters` the request's by their dotted names (such as
    `beparams.maxmem`), secrets included: they are masked when it is written. `decision` is
    "allow", "deny", "warn" (a rule in mode `warn` would have refused it) or "error" (it came to
    nothing, whoever asked); left empty, the status says which. `reason` must hold no value of
    a parameter.
    """

    def __init__(self, method: str, path: str, address: str = "") -> None:
        self.id = secrets.token_hex(8)
        self.user = ""
        self.address = address
        self.method = method
        self.path = path.split("?", 1)[0]
        self.permission = ""
        self.objects: list[tuple[str, str]] = []
        self.parameters: dict[str, Any] = {}
        self.decision = ""
        self.rule = ""
        self.reason = ""
        self.status = 0
        self.jobs: list[int] = []
        #: Fills in what costs something; called only if the record is to be written.
        self.describe: Callable[[], None] | None = None

    @property
    def is_read(self) -> bool:
        """Whether the request changes nothing. `PUT /2/query/…` reads, too."""
        return self.method.upper() in _READ_METHODS or self.permission == "query.all"

    def as_dict(self, now: float = 0.0) -> dict[str, Any]:
        """What is written, for the time `now` (seconds since 1970): bounded, without secrets."""
        objects: dict[str, list[str]] = {}
        for kind, name in self.objects[:_MAX_OBJECTS]:
            objects.setdefault(_cut(kind, _MAX_WORD // 2), []).append(_cut(name, _MAX_NAME))
        moment = datetime.fromtimestamp(now, timezone.utc)
        found = {
            "time": moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03}Z",
            "id": self.id,
            "user": _cut(self.user, _MAX_NAME),
            "address": _cut(self.address, _MAX_WORD),
            "method": _cut(self.method, _MAX_WORD // 2),
            "path": _cut(self.path, _MAX_TEXT),
            "permission": _cut(self.permission, _MAX_WORD),
            "objects": objects,
            "parameters": masked(self.parameters),
            "decision": self.decision,
            "rule": _cut(self.rule, _MAX_NAME),
            "reason": _cut(self.reason, _MAX_TEXT),
            "status": self.status,
            "jobs": self.jobs[:_MAX_OBJECTS],
        }
        if len(self.objects) > _MAX_OBJECTS or len(self.parameters) > _MAX_PARAMETERS or len(self.jobs) > _MAX_OBJECTS:
            found["cut"] = True
        return found

    def line(self, now: float = 0.0) -> bytes:
        """The line that is written, with its end: ASCII, one JSON object, MAX_LINE bytes at most.

        What is too much is the longest values of parameters.
        """
        found = self.as_dict(now)
        line = _encode(found)
        if len(line) <= MAX_LINE:
            return line
        found["cut"] = True
        excess = len(_encode(found)) - MAX_LINE
        parameters = found["parameters"]
        for size, name in sorted(((len(_escaped(value)), name) for name, value in parameters.items()), reverse=True):
            if excess > 0:
                parameters[name] = "..."
                excess -= size - len('"..."')
        return _encode(found)


class AuditLog:
    """The file. Each record is one write(), so that those of many processes do not mix.

    It is opened for each: it may be rotated at any time. `clock` gives seconds since 1970.
    """

    def __init__(self, path: str = AUDIT_LOG, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        #: Whether allowed reads are written, too; the policy says so.
        self.reads = False
        # A request is served in a process of its own, whose memory is gone with it; this page is
        # shared by all. It begins with the time at which each kind of failure was told last, and
        # its last byte is 1 if the file is known to end with a whole line.
        self._shared = mmap.mmap(-1, mmap.PAGESIZE)

    @contextlib.contextmanager
    def follow(self, req: Any, active: bool, last: bool = False) -> Iterator[None]:
        """Goes around a step of a request, and writes its record when the request ends there.

        `req` is Ganeti's request, `last` says that no step follows. Nothing is written unless
        `active`. The record is `record_of(req)`; a refusal with a text gets its id.
        """
        record = record_of(req)
        if active and last:
            _note_jobs(req, record)
        try:
            yield
        except http.HttpException as err:
            record.decision, record.rule, record.reason = getattr(
                err, "audit", (record.decision, record.rule, record.reason)
            )
            if active:
                self._end(record, err.code)
                if err.code == http.HttpForbidden.code and err.message:
                    err.message = f"{err.message} (audit record {record.id})"
            raise
        except BaseException:
            if active:
                self._end(record, http.HttpInternalServerError.code)
            raise
        if active and last:
            self._end(record, http.HTTP_OK)

    def _end(self, record: Record, status: int) -> None:
        record.status = status
        if status in _DENIED:
            record.decision = "deny"
        elif not record.decision:  # a 404 hides something only if somebody said so
            record.decision = "allow" if status < 400 else "error"
        if record.is_read and record.decision in ("allow", "error") and not self.reads:
            return
        self.write(record)

    def write(self, record: Record) -> None:
        """Writes a record. Never raises: what was decided stays, whatever becomes of the file."""
        try:
            if record.describe is not None:
                with contextlib.suppress(Exception):  # the body may be anything
                    record.describe()
            self._append(record.line(self._clock()))
        except OSError as err:
            self._tell(err.errno or 0, f"{self._path}: {err.strerror}")
        except Exception as err:
            # Its text may hold anything that was in the request.
            self._tell(0, f"unexpected {type(err).__name__}")

    def _append(self, line: bytes) -> None:
        file = self._open()
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            if not self._shared[-1]:
                self._shared[-1] = 1  # nobody else looks: he might see a line that is just being written
                if status.st_size and os.pread(file, 1, status.st_size - 1) != b"\n":
                    line = b"\n" + line
            if os.write(file, line) != len(line):
                raise OSError(errno.ENOSPC, "a record was cut off")
        except OSError:
            self._shared[-1] = 0
            raise
        finally:
            os.close(file)

    def _open(self) -> int:
        # A link could lead to any file of the daemon's; a fifo could hold it for ever.
        flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        with contextlib.suppress(FileNotFoundError):
            return os.open(self._path, flags)
        try:
            file = os.open(self._path, flags | os.O_CREAT | os.O_EXCL, 0o640)
        except FileExistsError:
            return os.open(self._path, flags)
        os.fchmod(file, 0o640)  # whatever the daemon's umask
        return file

    def _tell(self, kind: int, text: str) -> None:
        """Says in the daemon's log what is wrong; `kind` is an errno, or 0."""
        now, place = self._clock(), kind % 256 * 8
        (before,) = struct.unpack_from("d", self._shared, place)
        if before and 0 <= now - before < _TELL_AGAIN:
            return
        struct.pack_into("d", self._shared, place, now)
        logging.error("The audit trail is not complete: %s", text)


def record_of(req: Any) -> Record:
    """The record of a request of Ganeti's, made when it is asked for first."""
    if not hasattr(req, "audit"):
        req.audit = Record(req.request_method, req.request_path, _address_of(req.request_sock))
    record: Record = req.audit
    return record


def denied(err: Error, reason: str, rule: str = "") -> Error:
    """`err`, an HTTP error, marked as a refusal for `reason`: the answer may tell less, as a 404 does."""
    err.audit = ("deny", rule, reason)  # type: ignore[attr-defined]
    return err


def _address_of(sock: Any) -> str:
    """The IP address of the other side; "" if it has gone."""
    try:
        return str(sock.getpeername()[0])
    except (OSError, AttributeError, LookupError, TypeError):
        return ""


def _note_jobs(req: Any, record: Record) -> None:
    """Makes the client of a request's handler note the jobs that it submits."""
    if req.private is None:
        return  # a middleware has gone round Ganeti's check
    handler = req.private.handler
    new_client = handler._client_cls

    def noting() -> Any:
        client = new_client()

        def submit_job(ops: Any) -> Any:
            job = submit(ops)
            record.jobs.append(job)
            return job

        # Of the ways to submit, the one that a handler takes (`facts.md`, "RAPI").
        submit = client.SubmitJob
        client.SubmitJob = submit_job
        return client

    handler._client_cls = noting


# --- parameters --------------------------------------------------------------------------


def parameters_of(query: Mapping[str, Any], body: Any) -> dict[str, Any]:
    """The parameters of a request by their dotted names, as sent: nothing is masked yet.

    A name that comes more than once, as `disks.size` does, has a list of its values.
    """
    found: dict[str, list[Any]] = {}
    # A body that is no dictionary is the role of a node.
    todo: list[tuple[str, Any]] = [("", body if isinstance(body, dict) else {"role": body})] if body is not None else []
    todo += [(name, list(values)) for name, values in query.items()]
    for _ in range(_MAX_VISITS):
        if not todo:
            break
        name, value = todo.pop()
        if value and isinstance(value, dict):
            start = name and name + "."
            todo += [(f"{start}{key}", part) for key, part in reversed(list(value.items())[:_MAX_VISITS])]
        elif value and isinstance(value, (list, tuple)):
            todo += [(name, part) for part in reversed(value[:_MAX_VISITS])]
        else:
            found.setdefault(name, []).append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


def masked(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The same parameters as they may be shown: bounded, MASK in the place of what may be secret.

    Shown is what Ganeti knows by a name that does not sound of a secret. Below `osparams` and
    below a name that is not known not even the names are: a client may have mixed them up.
    """
    return _shown_parameters(parameters, _MAX_PARAMETERS, 0)


def _shown_parameters(parameters: Mapping[Any, Any], limit: int, depth: int) -> dict[str, Any]:
    found = {}
    for key, value in itertools.islice(parameters.items(), limit):
        name, secret = _shown_name(str(key))
        hidden = secret or (name in _ONLY_TEXT and not isinstance(value, str))
        found[_cut(name, _MAX_WORD)] = MASK if hidden else _shown(value, depth)
    return found


def _shown_name(name: str) -> tuple[str, bool]:
    """As much of a dotted name as may be shown, and whether its value is secret."""
    if name in _SHOWN_NAMES:
        return name, False
    parts = name[:_MAX_VALUE].split(".")
    for number, part in enumerate(parts):
        plain = part.replace("-", "_")
        if plain not in _SHOWN_NAMES and not (part.isdecimal() and len(part) < 4):
            return ".".join([*parts[:number], part if plain in _SECRET_NAMES else MASK]), True
    return name, False


def _shown(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        text = _cut(value, _MAX_VALUE)
        if not _HINTS.isdisjoint(text):  # the search costs more than all the rest
            text = _cut(_SECRET_TEXT.sub(rf"\1\2{MASK}", text), _MAX_VALUE)
        return text
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and value.bit_length() < 64:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if depth < _MAX_DEPTH and isinstance(value, dict):
        return _shown_parameters(value, _MAX_ENTRIES, depth + 1)
    if depth < _MAX_DEPTH and isinstance(value, (list, tuple)):
        return [_shown(part, depth + 1) for part in value[:_MAX_ENTRIES]]
    return MASK


# --- text --------------------------------------------------------------------------------


def _cut(text: str, limit: int) -> str:
    """A text that takes at most `limit` bytes as it is written; "..." at the end if it was cut."""
    text = text[: limit + 1]
    if text.isascii() and text.isprintable() and len(text) <= limit // 2:
        return text  # the usual case: an escape of what can be printed takes two bytes
    # No other program need know what half a surrogate pair is.
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    if len(_escaped(text)) - 2 <= limit:
        return text
    size = 3
    for number, character in enumerate(text):
        size += len(_escaped(character)) - 2
        if size > limit:
            return text[:number] + "..."
    return text


_encoded = json.JSONEncoder(allow_nan=False).encode


def _escaped(value: Any) -> str:
    # json leaves the one control character that is no control character to Unicode's blocks.
    return _encoded(value).replace("\x7f", "\\u007f")


def _encode(record: dict[str, Any]) -> bytes:
    return _escaped(record).encode("ascii") + b"\n"
