# SPDX-License-Identifier: BSD-2-Clause
"""The audit trail: what gets a line, what is in it, what never is, and what a bad file does."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import resource
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ganeti import http, opcodes, opcodes_base, serializer
from hypothesis import given
from hypothesis import strategies as st

from ganeti_ext.rapi import handler, quiet
from ganeti_ext.rapi.audit import MASK, MAX_LINE, AuditLog, Record, masked, parameters_of, record_of
from tests.unit.rapi import fake
from tests.unit.rapi.fake import CREATION, INSTANCE, PAIRS, Server

POLICY = """\
version: 1
roles:
  web:
    permissions: [instances.create, instances.remove, instances.reboot, instances.modify]
    scope:
      instances: {name: "*.test.example.com"}
"""
USERS = "root write\nreader read\nplain\nnoc @readonly\nshe @web"
FOREIGN = "db1.prod.example.com"
SECRET = "hunter2"
FIELDS = [
    "time", "id", "user", "address", "method", "path", "permission", "objects", "parameters", "decision", "rule",
    "reason", "status", "jobs",
]  # fmt: skip


@pytest.fixture(name="server")
def _server() -> Server:
    return Server(USERS, POLICY)


def only(server: Server) -> dict[str, Any]:
    """The one record that was written."""
    (record,) = server.trail.records
    return record


# --- what gets a line --------------------------------------------------------------------


def test_a_change_with_its_job(server: Server) -> None:
    answer = server.ask("POST", f"/2/instances/{INSTANCE}/reboot?type=soft&reason=why", "she")
    record = only(server)
    assert list(record) == FIELDS
    assert re.fullmatch("[0-9a-f]{16}", record.pop("id"))
    assert record == {
        "time": "2026-11-30T00:53:20.500Z", "user": "she", "address": "192.0.2.99", "method": "POST",
        "path": f"/2/instances/{INSTANCE}/reboot", "permission": "instances.reboot",
        "objects": {"instance": [INSTANCE]}, "parameters": {"type": "soft", "reason": "why"},
        "decision": "allow", "rule": "role web", "reason": "", "status": 200, "jobs": [answer.body],
    }  # fmt: skip


@pytest.mark.parametrize("user", ["root", "noc", "reader", "she", "plain"])
@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_every_pair(server: Server, pair: tuple[type, str], user: str) -> None:
    """A record for each denial and each change, none for a read that is allowed; the jobs are right."""
    answer = server.ask_pair(pair, user)
    jobs = [1000 + number for number in range(1, 1 + [call.name for call in answer.calls].count("SubmitJob"))]
    reads = pair[1] == "GET" or pair[0].__name__ == "R_2_query"
    denied = answer.status in (401, 403)
    if reads and not denied:
        assert server.trail.records == []
        return
    record = only(server)
    assert (record["user"], record["status"], record["method"]) == (user, answer.status, pair[1])
    assert record["decision"] == ("deny" if denied else "allow")
    assert record["jobs"] == ([] if denied else jobs)
    assert not denied or answer.body["message"].endswith((f"(audit record {record['id']})", "Forbidden"))


def test_denials(server: Server) -> None:
    """Of each kind; the answer may tell less."""
    asked: list[tuple[int, str, str, str | None, dict[str, Any]]] = [
        (401, "GET", "/2/instances", None, {}),
        (401, "GET", "/2/instances", "she", {"password": SECRET}),
        (401, "DELETE", f"/2/instances/{INSTANCE}", "nobody", {"body": {"osparams": {"a": SECRET}}}),
        (403, "PUT", "/2/modify", "plain", {"body": {"osparams": {"a": SECRET}}}),
        (403, "PUT", "/2/modify", "noc", {}),
        (403, "GET", "/2/instances", "she", {}),
        (404, "DELETE", f"/2/instances/{FOREIGN}", "she", {}),
        (404, "DELETE", "/2/instances/web9.test.example.com", "she", {}),
        (403, "PUT", f"/2/instances/{INSTANCE}/modify", "she", {"body": {"osparams": {"a": SECRET}}}),
    ]
    for status, method, path, user, options in asked:
        answer = server.ask(method, path, user, **options)
        record = server.trail.records.pop()
        assert server.trail.records == []
        assert answer.status == status
        assert (record["decision"], record["status"], record["user"]) == ("deny", status, user or "")
        assert record["jobs"] == []
        assert SECRET not in json.dumps(record)
        assert (record["reason"] == "") == (status == 401 or user == "plain")
        assert status == 404 or user == "plain" or status == 401 or record["id"] in answer.body["message"]
        assert status == 403 or record["id"] not in json.dumps(answer.body)
        assert (record["parameters"] == {"osparams": MASK}) == (status == 403 and "body" in options)


def test_a_limited_users_404_is_the_same_whatever_there_is(server: Server) -> None:
    answers = [server.ask("DELETE", f"/2/instances/{name}", "she") for name in (FOREIGN, "db9.prod.example.com")]
    answers.append(server.ask("GET", "/2/no-such-thing", "she"))
    assert answers[0][:2] == answers[1][:2] == answers[2][:2]
    assert [record["decision"] for record in server.trail.records] == ["deny", "deny"]


def test_what_comes_to_nothing(server: Server) -> None:
    """A change that Ganeti or we find wrong in itself has a line; a read has none."""
    for method, path, user, options, status in (
        ("PUT", "/2/no-such-thing", "root", {}, 404),
        ("PATCH", "/2/instances", "root", {}, 501),
        ("POST", "/2/instances", "root", {"raw": "{"}, 400),
        ("POST", "/2/instances", "root", {"raw": "{}", "headers": {"Content-Type": "text/plain"}}, 415),
        ("POST", "/2/instances", "she", {"raw": "[[[["}, 400),
    ):
        assert server.ask(method, path, user, **options).status == status
        record = server.trail.records.pop()
        assert (record["decision"], record["status"]) == ("error", status)
    assert server.ask("GET", "/2/no-such-thing", "root").status == 404
    assert server.trail.records == []


class Failing(handler.RemoteApiHandler):
    """A middleware that is broken."""

    def authorize(self, request: Any) -> None:
        raise ValueError(SECRET)


def test_an_error_of_ours_is_a_500_with_its_line() -> None:
    server = Server(USERS, POLICY, cls=Failing)
    assert server.ask("DELETE", f"/2/instances/{INSTANCE}", "root").status == 500
    assert (only(server)["decision"], only(server)["status"]) == ("error", 500)
    assert SECRET not in json.dumps(only(server))


def test_allowed_reads_if_asked_for() -> None:
    server = Server(USERS, POLICY + "audit: {reads: true}\n")
    assert server.ask("GET", "/2/instances?bulk=1", "root").status == 200
    assert server.ask("GET", "/2/no-such-thing", "root").status == 404
    records = server.trail.records
    assert [record["decision"] for record in records] == ["allow", "error"]
    assert (records[0]["permission"], records[0]["parameters"]) == ("instances.list", {"bulk": "1"})


def test_a_job_that_a_read_submits_is_noted() -> None:
    server = Server(USERS, POLICY + "audit: {reads: true}\n")
    answer = server.ask("GET", f"/2/instances/{INSTANCE}/info", "root")
    assert only(server)["jobs"] == [answer.body] != [None]


def test_a_warning_is_written_for_a_read_too(server: Server) -> None:
    class Warned(handler.RemoteApiHandler):
        """Stands for a policy in mode `warn`."""

        def authorize(self, request: Any) -> None:
            record_of(request.req).decision = "warn"

    server = Server(USERS, POLICY, cls=Warned)
    assert server.ask("GET", "/2/info", "root").status == 200
    assert (only(server)["decision"], only(server)["status"]) == ("warn", 200)


def test_a_refusal_is_a_denial_whatever_was_thought_before() -> None:
    class Confused(handler.RemoteApiHandler):
        """Allows and refuses."""

        def authorize(self, request: Any) -> None:
            record_of(request.req).decision = "allow"
            raise http.HttpForbidden(message="no")

    server = Server(USERS, POLICY, cls=Confused)
    answer = server.ask("GET", "/2/info", "root")
    assert (answer.status, only(server)["decision"]) == (403, "deny")
    assert answer.body["message"] == f"no (audit record {only(server)['id']})"


def test_nothing_is_written_unconfigured(tmp_path: Path) -> None:
    server = Server("root write\nreader read\nplain")
    log = AuditLog(str(tmp_path / "log"))
    server.handler.audit = log
    log.reads = True
    for user, password in (("root", fake.PASSWORD), ("reader", fake.PASSWORD), ("root", SECRET), (None, "")):
        for pair in PAIRS:
            server.ask_pair(pair, user, password=password)
    answer = server.ask("PUT", "/2/modify", "reader", body={})
    assert (answer.status, answer.body["message"]) == (403, "Forbidden")
    assert list(tmp_path.iterdir()) == []


# --- what is in a line -------------------------------------------------------------------


TEXTS = st.text() | st.text('"\\\n\r\0\x1b\x7f\x85\u2028\u202e\ud800\U0001f600{}[],:', max_size=2000)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS | st.sampled_from(["disks", "size"]), inner),
    max_leaves=60,
)
NAMES = TEXTS | st.sampled_from(["disks.size", "tags", "osparams.a", "beparams", "name", "hvparams.kernel_args"])


def read_line(line: bytes) -> dict[str, Any]:
    """A line as every reader must be able to read it: strictly JSON, printable ASCII, bounded."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    assert len(line) <= MAX_LINE and line.endswith(b"\n") and line.count(b"\n") == 1
    text = line[:-1].decode("ascii")
    assert text.isprintable()
    found: dict[str, Any] = json.loads(text, parse_constant=refuse)
    assert json.dumps(found, ensure_ascii=False).encode("utf-8"), "no half of a surrogate pair is in it"
    return found


@given(
    st.tuples(TEXTS, TEXTS, TEXTS, TEXTS, TEXTS, TEXTS, TEXTS),
    st.lists(st.tuples(TEXTS, TEXTS)),
    st.dictionaries(NAMES, VALUES),
    st.lists(st.integers(0, 2**62)),
)
def test_whatever_comes_is_one_line(
    texts: tuple[str, ...], named: list[tuple[str, str]], parameters: dict[str, Any], jobs: list[int]
) -> None:
    record = Record(texts[0], texts[1], texts[2])
    record.user, record.permission, record.rule, record.reason = texts[3:]
    record.objects, record.parameters, record.jobs = named, parameters, jobs
    record.decision, record.status = "deny", 403
    found = read_line(record.line(1.5))
    assert list(found)[: len(FIELDS)] == FIELDS
    assert (found["id"], found["decision"], found["status"]) == (record.id, "deny", 403)


@pytest.mark.parametrize("filler", ["x", "\n", "\U0001f600", "\ud800", '"', "\x7f"])
def test_the_fullest_record_fits(filler: str) -> None:
    """All that can be long at once: nothing but parameters is left out of it, and it says so."""
    long = filler * 10_000
    record = Record(long, long, long)
    record.user = record.permission = record.rule = record.reason = long
    record.objects = [(f"{number}{long}", long) for number in range(99)]
    record.parameters = {f"disks.{number}": [long] * 99 for number in range(99)}
    record.jobs = [2**62] * 99
    found = read_line(record.line(1.5))
    assert found["cut"] is True
    assert [len(found[name]) for name in ("objects", "parameters", "jobs")] == [20, 32, 20]
    assert found["user"].endswith("...") and found["path"].endswith("...")


def test_a_short_parameter_is_not_pushed_out_by_long_ones() -> None:
    record = Record("PUT", "/2/x")
    record.parameters = {"tags": ["x" * 250] * 32, "reason": "x" * 250, "force": True, "name": "web1"}
    found = read_line(record.line())
    assert found["parameters"] == {"tags": "...", "reason": "x" * 250, "force": True, "name": "web1"}
    assert found["cut"] is True


@pytest.mark.parametrize(
    "text", ["", "x" * 128, "a\nb", "\u00e9" * 21, "\U0001f600", "\\" * 64, "x" * 127 + "\n", "x" * 129]
)
def test_texts_are_cut_only_if_they_are_too_long(text: str) -> None:
    record = Record("GET", "/")
    record.user = text
    size = len(json.dumps(text)) - 2
    found = read_line(record.line())["user"]
    assert found == text if size <= 128 else found.endswith("...") and text.startswith(found[:-3])


def test_the_path_is_written_without_its_query() -> None:
    assert Record("GET", f"/2/instances?password={SECRET}").as_dict()["path"] == "/2/instances"


# --- parameters --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "body", "expected"),
    [
        ({}, None, {}),
        ({"bulk": ["1"], "tag": ["a", "b"]}, None, {"bulk": "1", "tag": ["a", "b"]}),
        ({}, {"beparams": {"maxmem": 1}, "nics": [], "tags": {}}, {"beparams.maxmem": 1, "nics": [], "tags": {}}),
        ({}, {"disks": [{"size": 1}, {"size": 2, "mode": "rw"}]}, {"disks.size": [1, 2], "disks.mode": "rw"}),
        ({}, {"disks": [["add", 0, {"size": 1}]]}, {"disks": ["add", 0], "disks.size": 1}),
        ({"force": ["1"]}, "regular", {"force": "1", "role": "regular"}),
        ({}, [1, 2], {"role": [1, 2]}),
    ],
)  # fmt: skip
def test_parameters_by_their_dotted_names(query: dict[str, list[str]], body: Any, expected: dict[str, Any]) -> None:
    assert parameters_of(query, body) == expected


def test_a_body_without_end_ends() -> None:
    body: Any = {"disks": [{"size": 1}] * 10**5, "name": "x"}
    deep: Any = 1
    for _ in range(10**5):
        deep = [deep]
    assert len(parameters_of({}, body)["disks.size"]) <= 2000
    assert parameters_of({}, deep) == {}


SHOWN: list[tuple[str, Any]] = [
    ("beparams.maxmem", 512), ("disks.size", [1, 2]), ("disks.0.size", 1), ("hvparams.kvm.kernel_path", "/x"),
    ("nics", [{"link": "br0", "mac": "auto"}]), ("tags", ["a"]), ("dry-run", "1"), ("role", "drained"),
    ("os_type", "noop"), ("target_node", "node1"), ("command", "restart-sshd"), ("force", True), ("memory", None),
    ("name", "x"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), SHOWN, ids=str)
def test_what_is_harmless_is_shown(name: str, value: Any) -> None:
    assert masked({name: value}) == {name: value}


HIDDEN: list[tuple[str, Any]] = [
    ("osparams", SECRET), ("osparams", {SECRET: SECRET}), ("osparams", [[SECRET]]), ("osparams.root_pw", SECRET),
    (f"osparams.{SECRET}", 1), ("osparams_private.a", SECRET), ("osparams_secret.a", SECRET),
    ("osparams_private_cluster.noop.a", SECRET), ("instances.osparams.a", SECRET),
    ("instances", [{"osparams": SECRET}]),
    ("osparam_secret.a", SECRET), ("OSPARAMS.a", SECRET), (SECRET, 1), (f"beparams.{SECRET}", 1),
    ("hvparams.vnc_password_file", SECRET), ("hvparams", {"spice_password_file": SECRET}), ("x509_key_name", [SECRET]),
    ("source_handshake", [SECRET]), ("destination", [["node1", 1, SECRET]]), ("target_node", [["node1", 1, SECRET]]),
    ("disks", [{"size": 1, "access-password": SECRET}]), ("ext_params", {"token": SECRET}), ("passwd", SECRET),
    ("hvparams.kvm_extra", f"-spice port=1,password={SECRET}"), ("reason", f'password: "{SECRET}"'),
    ("hvparams.kernel_args", f"root=/dev/x luks.key={SECRET}"), ("hvparams.cdrom_image_path", f"http://u:{SECRET}@h/x"),
    ("comment", f"PASSWORD {SECRET}"), ("hvparams.kvm_extra", f"secret,id=s,Secret={SECRET}"), ("name", {"a": SECRET}),
    ("tags", {SECRET: 1}), ("name", serializer.Private(SECRET)), ("name", SECRET.encode()),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), HIDDEN, ids=str)
def test_what_may_be_secret_is_not(name: str, value: Any) -> None:
    assert SECRET not in json.dumps(masked({name: value}))


def test_every_parameter_of_every_opcode_is_known_or_secret() -> None:
    """What a later Ganeti adds is either shown by its name or says by it that it is secret."""
    names = {name for opcode in opcodes.OP_MAPPING.values() for name, _, _, _ in opcode.GetAllParams()}
    hidden = {name for name in names if masked({name: "x"}) == {name: MASK}}
    assert {name for name in names if masked({name: "x"}) == {name: "x"}} == names - hidden
    assert hidden >= {"osparams", "osparams_private", "osparams_secret", "osparams_private_cluster", "x509_key_name"}
    assert len(hidden) < 15


@given(NAMES, VALUES)
def test_nothing_below_osparams_is_shown(key: str, value: Any) -> None:
    assert masked({"osparams": value, f"osparams_secret.{key}": value}) == {"osparams": MASK, "osparams_secret": MASK}


@pytest.mark.parametrize("user", ["root", "she", "noc", "plain"])
def test_no_secret_of_a_creation_is_written(server: Server, user: str, caplog: pytest.LogCaptureFixture) -> None:
    for extra in (
        {"osparams": {"a": SECRET}},
        {"osparams": {SECRET: "a"}},
        {"osparams_secret": {"a": SECRET}, "osparams_private": {"a": SECRET}},
        {"osparams_secret": [[SECRET, SECRET]]},
        {"hvparams": {"vnc_password_file": SECRET}},
        {"password": SECRET},
        {"disks": [{"size": 1, "secret": SECRET}]},
    ):
        server.ask("POST", "/2/instances", user, body={**CREATION, **extra})
    assert len(server.trail.records) == 7
    assert SECRET not in json.dumps(server.trail.records) + caplog.text


# --- the file ----------------------------------------------------------------------------


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    return tmp_path / "rapi-audit.log"


def ids(path: Path) -> list[str]:
    """The id in each line of a file in which nothing is cut off."""
    text = path.read_bytes()
    assert text.endswith(b"\n")
    return [str(json.loads(line)["id"]) for line in text.splitlines()]


def test_the_file_is_made_for_owner_and_group(path: Path) -> None:
    before = os.umask(0o077)
    try:
        AuditLog(str(path)).write(Record("GET", "/"))
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o7777 == 0o640


def test_the_mode_of_a_file_that_is_there_stays(path: Path) -> None:
    path.write_bytes(b"")
    path.chmod(0o600)
    AuditLog(str(path)).write(Record("GET", "/"))
    assert path.stat().st_mode & 0o7777 == 0o600


def test_a_rotated_file_is_left_alone(path: Path) -> None:
    log = AuditLog(str(path))
    first, second = Record("GET", "/"), Record("GET", "/")
    log.write(first)
    path.rename(f"{path}.1")
    log.write(second)
    assert (ids(Path(f"{path}.1")), ids(path)) == ([first.id], [second.id])


def test_many_processes_write_whole_lines(path: Path) -> None:
    log = AuditLog(str(path))
    log.write(Record("PUT", "/"))
    children = []
    for _ in range(8):
        child = os.fork()
        if child == 0:
            for _ in range(50):
                record = Record("PUT", "/")
                record.parameters = {f"disks.{number}": "x" * 250 for number in range(30)}
                log.write(record)
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 8
    assert len(set(ids(path))) == 401


def directory(path: Path) -> None:
    """A directory has its name."""
    path.mkdir()


def no_directory(path: Path) -> None:
    """Its directory is gone."""
    path.parent.rmdir()


def link(path: Path) -> None:
    """A link leads to a file that the daemon could write."""
    target = path.parent / "target"
    target.write_bytes(b"other\n")
    path.symlink_to(target)


def dangling(path: Path) -> None:
    """A link leads to nothing."""
    path.symlink_to(path.parent / "nothing")


def full(path: Path) -> None:
    """A link leads to a disk that is always full."""
    path.symlink_to("/dev/full")


def fifo(path: Path) -> None:
    """A fifo that nobody reads must not hold a request."""
    os.mkfifo(path)


@pytest.mark.parametrize("spoil", [directory, no_directory, link, dangling, full, fifo])
def test_a_file_that_is_none(path: Path, spoil: Callable[[Path], None], caplog: pytest.LogCaptureFixture) -> None:
    """It is said once, the request goes on, and nothing is written to what is there."""
    spoil(path)
    before = {entry: entry.lstat().st_size for entry in path.parent.glob("*")}
    server = Server(USERS, POLICY)
    server.handler.audit = AuditLog(str(path))
    for _ in range(3):
        assert server.ask("POST", f"/2/instances/{INSTANCE}/reboot", "root").status == 200
        assert server.ask("PUT", "/2/modify", "noc").status == 403
    told = [record for record in caplog.records if "audit trail" in record.getMessage()]
    assert [record.levelno for record in told] == [logging.ERROR]
    assert str(path) in told[0].getMessage()
    assert {entry: entry.lstat().st_size for entry in path.parent.glob("*")} == before


def write_at_limit(path: Path, size: int) -> AuditLog:
    """A file of one record which, by this process, can grow by `size` bytes only; then two more."""
    log = AuditLog(str(path))
    log.write(Record("GET", "/"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + size, hard))
    try:
        log.write(Record("GET", "/"))
        log.write(Record("GET", "/"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    return log


@pytest.mark.parametrize("restarted", [False, True])
def test_after_a_record_that_was_cut_off_comes_a_new_line(
    path: Path, restarted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    log = write_at_limit(path, 100)
    assert not path.read_bytes().endswith(b"\n")
    assert "a record was cut off" in caplog.text
    record = Record("GET", "/")
    (AuditLog(str(path)) if restarted else log).write(record)
    first, torn, last = path.read_bytes().splitlines()
    assert json.loads(first) and len(torn) == 100 and json.loads(last)["id"] == record.id


def test_a_record_for_which_there_is_no_room(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_at_limit(path, 0)
    assert len(ids(path)) == 1
    assert os.strerror(errno.EFBIG) in caplog.text


def test_each_kind_of_failure_is_told_once_an_hour_by_all_processes(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = [1e9]
    log = AuditLog(str(path / "x"), clock=lambda: now[0])
    child = os.fork()
    if child == 0:
        log.write(Record("GET", "/"))
        os._exit(0)
    os.waitpid(child, 0)
    log.write(Record("GET", "/"))
    assert caplog.text == ""  # the child has told it
    path.write_bytes(b"")
    log.write(Record("GET", "/"))
    assert os.strerror(errno.ENOTDIR) in caplog.text
    caplog.clear()
    now[0] += 3601
    for _ in range(2):
        log.write(Record("GET", "/"))
    assert len(caplog.records) == 1


def test_an_error_in_a_record_breaks_nothing_and_tells_nothing(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    record = Record("GET", "/")
    record.user = SECRET.encode()  # type: ignore[assignment]
    AuditLog(str(path)).write(record)
    assert "The audit trail is not complete: unexpected" in caplog.text
    assert SECRET not in caplog.text


def test_a_description_that_fails_leaves_the_rest(path: Path) -> None:
    record = Record("GET", "/")

    def describe() -> None:
        raise ValueError

    record.describe = describe
    AuditLog(str(path)).write(record)
    assert ids(path) == [record.id]


def test_threads_keep_their_records_apart(path: Path) -> None:
    """As with Ganeti's next release, whose requests are threads."""
    log = AuditLog(str(path))
    records = [Record("GET", f"/{number}") for number in range(200)]
    log.write(records.pop())
    threads = [threading.Thread(target=log.write, args=(record,)) for record in records]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids(path))) == 200 and {record.id for record in records} < set(ids(path))


# --- Ganeti's own log --------------------------------------------------------------------


def test_the_repr_of_a_request_shows_no_password_once_active() -> None:
    request = ganeti_request()
    stock: Any = type(request).__repr__
    active = [False]
    shown = quiet.short_repr(stock, lambda: active[0])
    assert shown(request) == stock(request)
    assert SECRET in stock(request)
    active[0] = True
    assert shown(request) == "<request PUT /2/modify, body of 9 bytes>"


def ganeti_request() -> Any:
    """A request with secrets in each part but its path."""
    server = fake.ganeti.http.server
    headers = {"Authorization": SECRET}
    return server._HttpServerRequest("PUT", f"/2/modify?a={SECRET}", headers, f'"{SECRET}"', None)


def test_a_wrong_parameter_is_logged_without_its_value_once_active(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    active = [False]
    monkeypatch.setattr(opcodes_base, "logging", quiet.QuietLogging(lambda: active[0]))
    server = Server(USERS, POLICY)
    for active[0] in (False, True):
        caplog.clear()
        answer = server.ask("PUT", f"/2/instances/{INSTANCE}/modify", "root", body={"osparams": SECRET})
        assert answer.status == 400
        assert "OP_INSTANCE_SET_PARAMS, parameter osparams" in caplog.text
        assert (SECRET in caplog.text) != active[0]
    assert opcodes_base.logging.INFO == logging.INFO
