# SPDX-License-Identifier: BSD-2-Clause
"""Restricted commands through the remote API: their users, their turn, their output."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
from pathlib import Path
from typing import Any

import pytest
from ganeti import opcodes
from hypothesis import given
from hypothesis import strategies as st

from ganeti_ext.noded import Refused
from ganeti_ext.noded.verify import check_name
from ganeti_ext.policy.parameters import COMMAND_NAME
from ganeti_ext.rapi import passwords, quota, restricted
from ganeti_ext.rapi.jobs import REASON_SOURCE
from ganeti_ext.rapi.passwords import hash_password
from ganeti_ext.rapi.restricted import ASK_AGAIN, PAUSE, REALM, NotYet, RestrictedUsers, turn
from tests.unit.rapi.fake import NODE, PASSWORD, Answer, Cluster, Server

pytestmark = pytest.mark.usefixtures("registered")

OWNER = os.geteuid()
SECRET = "another secret".replace(" ", "-")
PATH = f"/2/nodes/{NODE}/restricted-command"


# The file.


class File:
    """The users file, and what is told of it."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "restricted-users"
        self.offered: list[bool] = []
        self.users = RestrictedUsers(str(self.path), self.offered.append, (OWNER,))

    def load(self, text: str | bytes, mode: int = 0o640) -> None:
        self.path.write_bytes(text if isinstance(text, bytes) else text.encode())
        self.path.chmod(mode)
        self.users.load()


@pytest.fixture(name="file")
def _file(tmp_path: Path) -> File:
    return File(tmp_path)


def test_names_and_passwords(file: File, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        file.load("# comment\n\n  she  {HA1}x \r\nhe\t{SCRYPT}1$2$3$4$5\n#he no\n")
    assert file.users.password_of("she") == "{HA1}x"
    assert file.users.password_of("he") == "{SCRYPT}1$2$3$4$5"
    assert [file.users.password_of(name) for name in ("", "#", "#he", "She", "{HA1}x")] == [None] * 5
    assert file.offered == [True]
    assert caplog.messages == ["Restricted commands through the remote API are on"]


@pytest.mark.parametrize(
    ("text", "granted", "problems"),
    [
        ("", {}, 0),
        ("she", {}, 1),
        ("she secret @admin", {}, 1),
        ("she secret # comment", {}, 1),
        ("she secret\nshe secret", {}, 1),
        ("she secret\nhe word\nshe other", {"he": "word"}, 1),
        ("she a\nshe b\nshe c", {}, 2),
        ("she a\nshe b\nshe c\nshe d", {}, 3),
        ("she secret write\nshe other", {}, 2),
        ("she other\nshe secret write", {}, 2),
        ("secret\nshe other", {"she": "other"}, 1),
        ("she\nsecret", {}, 2),
        ("she\u00a0secret", {"she": "secret"}, 0),
        ("\ufeffshe secret", {"\ufeffshe": "secret"}, 0),
    ],
)
def test_lines_that_grant_nothing(
    file: File, caplog: pytest.LogCaptureFixture, text: str, granted: dict[str, str], problems: int
) -> None:
    file.load(text)
    assert file.users._passwords == granted
    assert file.offered == [True]
    assert len(caplog.messages) == problems
    assert not any(word in message for message in caplog.messages for word in ("she", "secret", "other", "write", "@"))


@given(st.text(alphabet="ab \n#\t\r\0\u2028", max_size=40))
def test_a_name_on_two_lines_never_grants(text: str) -> None:
    passwords_of, _ = restricted._parse(text)
    lines = [line.split() for line in text.split("\n")]
    for name, password in passwords_of.items():
        assert [words for words in lines if words[:1] == [name]] == [[name, password]]


@pytest.mark.parametrize("mode", [0o644, 0o641, 0o642, 0o660, 0o620, 0o777])
def test_a_file_that_others_may_read_or_write(file: File, caplog: pytest.LogCaptureFixture, mode: int) -> None:
    file.load("she secret")
    file.load("she secret", mode)
    file.users.load()
    assert file.offered == [True, False, False]
    assert file.users.password_of("she") is None
    (message,) = caplog.messages  # errors are told once
    assert "chmod" in message and "restricted commands are off" in message
    file.load("she secret")
    assert file.users.password_of("she") == "secret"


def test_a_file_of_somebody_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = File(tmp_path)
    file.users = RestrictedUsers(str(file.path), file.offered.append, ())
    file.load("she secret")
    assert file.offered == [True]  # the daemon's own
    os.chown(file.path, OWNER + 1, -1) if OWNER == 0 else pytest.skip("needs root")
    file.users.load()
    assert file.offered == [True, False]
    assert "must belong to root" in caplog.text


@pytest.mark.parametrize("kind", ["missing", "link", "directory", "fifo", "latin", "huge"])
def test_what_is_no_file(file: File, caplog: pytest.LogCaptureFixture, kind: str) -> None:
    other = file.path.with_name("other")
    other.write_text("she secret")
    other.chmod(0o600)
    if kind == "link":
        file.path.symlink_to(other)
    elif kind == "directory":
        file.path.mkdir(0o700)
    elif kind == "fifo":
        os.mkfifo(file.path, 0o600)
    elif kind in ("latin", "huge"):
        file.load(b"she secret\xff" if kind == "latin" else "she secret\n" + "#" * (1 << 20))
    file.users.load()
    assert set(file.offered) == {False}
    assert file.users.password_of("she") is None
    assert len(caplog.messages) == (kind != "missing")


def test_an_error_that_nobody_thought_of_closes_it(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    file.load("she secret")
    monkeypatch.setattr(restricted, "_parse", lambda text: 1 / 0)
    file.users.load()
    assert file.offered == [True, False]
    assert file.users.password_of("she") is None


@given(st.text(max_size=70) | st.from_regex(COMMAND_NAME) | st.sampled_from(["a" * 64, "a" * 65, "-a", ".", "a\n"]))
def test_what_a_policy_may_list_is_what_the_node_daemon_takes(name: str) -> None:
    try:
        taken = check_name(name) == name
    except Refused:
        taken = False
    assert (COMMAND_NAME.fullmatch(name) is not None) == taken


# Their turn.


def job(user: str | None = "she", op: str = "OP_RESTRICTED_COMMAND") -> list[dict[str, Any]]:
    trail = [[REASON_SOURCE, user, 1]] if user is not None else []
    return [{"OP_ID": op, "command": "hello", "reason": [*trail, ["gnt:user", "why", 2]]}]


RAN, FAILED = [[[True, "output"]]], [[[False, "message"]]]


def wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: Cluster, now: float) -> int:
    """For how long she has to wait."""
    monkeypatch.setattr(restricted, "LOCK_FILE", str(tmp_path / "lock"))
    try:
        with turn(cluster.client(), "she", _clock=lambda: now):
            return 0
    except NotYet as err:
        assert str(err).endswith(f": wait {err.seconds} s") and "job 5 " in str(err)
        return err.seconds


@pytest.mark.parametrize(
    ("ops", "status", "result", "age", "expected"),
    [
        *((job(), status, [None], 5000, ASK_AGAIN) for status in ("queued", "waiting", "canceling", "running", "?")),
        (job(), "success", RAN, 0, 0),
        (job(), "success", FAILED, 0, PAUSE),
        (job(), "success", FAILED, 59.5, 1),
        (job(), "success", FAILED, 60, 0),
        (job(), "success", FAILED, -5000, PAUSE),
        (job(), "success", [[[True, "x"], [False, "x"]]], 10, PAUSE - 10),
        (job(), "error", [None], 10, PAUSE - 10),
        (job(), "error", RAN, 10, PAUSE - 10),
        (job(), "canceled", [None], 0, 0),
        (job(user="he"), "running", [None], 0, 0),
        (job(user=None), "running", [None], 0, 0),
        (job() + job("he"), "running", [None], 0, 0),
        (job(op="OP_INSTANCE_REBOOT"), "running", [None], 0, 0),
        (job(op="OP_INSTANCE_REBOOT"), "error", [None], 0, 0),
        (job() + job(op="OP_TEST_DELAY"), "running", [None, None], 0, ASK_AGAIN),
    ],
)
def test_who_has_to_wait(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ops: list[dict[str, Any]],
    status: str,
    result: Any,
    age: float,
    expected: int,
) -> None:
    cluster = Cluster()
    cluster.jobs = {3: job(user="he"), 5: ops, 7: job()}
    cluster.status = {5: status, 7: "success"}
    ended = 10_000 - age
    times = {"received_ts": [1, 0], "start_ts": None, "end_ts": [int(ended), int(ended % 1 * 1e6)]}
    cluster.said = {5: {"opresult": result, **times}, 7: {"opresult": RAN, **times}}
    assert wait(tmp_path, monkeypatch, cluster, 10_000) == expected


def test_one_that_was_archived_meanwhile_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster()
    cluster.jobs = {5: job()}
    cluster.said = {5: {"opresult": FAILED, "end_ts": [10_000, 0]}}
    client = cluster.client()
    query = client.QueryJobs

    def archived(job_ids: Any, fields: list[str]) -> Any:
        found = query(job_ids, fields)
        return found if job_ids is None else [None for _ in job_ids]

    monkeypatch.setattr(restricted, "LOCK_FILE", str(tmp_path / "lock"))
    monkeypatch.setattr(client, "QueryJobs", archived)
    with turn(client, "she", _clock=lambda: 10_000):
        pass


def test_only_one_request_is_looked_at_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restricted, "LOCK_FILE", str(tmp_path / "lock"))
    monkeypatch.setattr(quota, "locked", functools.partial(quota.locked, timeout=0.0))
    client = Cluster().client()
    with turn(client, "she"), pytest.raises(quota.QuotaBusy), turn(client, "he"):
        pass
    with turn(client, "he"):
        pass


# Requests.

POLICY = """\
version: 1
roles:
  run:
    permissions: [nodes.restricted_command, "@readonly"]
    scope: {nodes: {name: "node*.example.com"}}
    parameters: {command: [hello, dmesg]}
  wide: {permissions: [nodes.restricted_command, "@readonly"], parameters: {command: hello}}
  scoped-all: {permissions: ["@readonly"], scope: {nodes: {name: "*"}}, jobs: all}
"""
USERS = (
    "she @run\nhe @run\nwide @wide\nboth write,@run\nroot write\nours @admin\nnoc @readonly\nall @scoped-all\nread read"
)


@pytest.fixture(name="server")
def _server(file: File, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setattr(restricted, "LOCK_FILE", str(tmp_path / "lock"))
    cluster = Cluster()
    cluster.add("node", "other.example.com")
    server = Server(USERS, POLICY, cluster)
    offer = functools.partial(setattr, server.access, "has_restricted_users")
    file.users = RestrictedUsers(str(file.path), offer, (OWNER,))
    file.load("".join(f"{row.split()[0]} {SECRET}\n" for row in USERS.splitlines()))
    server.handler.restricted = file.users
    return server


def ask(server: Server, user: str, body: Any, path: str = PATH, **options: Any) -> Answer:
    body = {"command": body} if isinstance(body, str) else body
    return server.ask("POST", path, user, body, **{"password": SECRET, **options})


def test_a_command_is_pinned_and_stamped(server: Server) -> None:
    for user in ("she", "wide", "both"):
        assert ask(server, user, "hello").status == 200
    pinned, wide, both = (ops[0] for ops in server.cluster.submitted)
    for op, user in ((pinned, "she"), (wide, "wide"), (both, "both")):
        assert op["OP_ID"] == opcodes.OpRestrictedCommand.OP_ID
        assert (op["command"], op["use_locking"]) == ("hello", False)
        assert op["reason"][0][:2] == (REASON_SOURCE, user)
    assert (pinned["nodes"], pinned["node_uuids"]) == ([], [f"uuid-of-{NODE}"])
    assert (wide["nodes"], wide["node_uuids"]) == ([NODE], None)
    assert (both["nodes"], both["node_uuids"]) == ([], [f"uuid-of-{NODE}"])


@pytest.mark.parametrize("user", ["she", "wide", "both", "root", "ours"])
@pytest.mark.parametrize("name", ["reboot", "Hello", "hello\n", "*", "a" * 1000, "-c"])
def test_what_is_not_listed_is_refused_before_anything_is_looked_up(server: Server, user: str, name: str) -> None:
    answer = ask(server, user, name)
    assert answer.status == 403 and "parameter command may" in answer.message
    assert answer.calls == []


@pytest.mark.parametrize("user", ["noc", "read", "all"])
def test_without_the_permission(server: Server, user: str) -> None:
    answer = ask(server, user, "hello")
    assert (answer.status, answer.calls) == (403, [])
    assert answer.message == "permission nodes.restricted_command is not granted"


@pytest.mark.parametrize(
    "name", ["other.example.com", "none.example.com", "node1", "node9.example.com", "uuid-of-" + NODE]
)
def test_outside_is_as_good_as_missing(server: Server, name: str) -> None:
    answer = ask(server, "she", "hello", f"/2/nodes/{name}/restricted-command")
    assert (answer.status, answer.message) == (404, "Not Found")
    assert server.cluster.submitted == []


@pytest.mark.parametrize(
    "body", [None, [], 5, {}, {"command": None}, {"command": [1]}, {"command": "hello", "reason": []}, {"nodes": []}]
)
@pytest.mark.parametrize("user", ["she", "wide", "ours"])
def test_bodies_that_are_none(server: Server, user: str, body: Any) -> None:
    answer = ask(server, user, body)
    assert (answer.status, answer.calls) == (400, [])


def test_a_second_one_waits(server: Server) -> None:
    assert ask(server, "she", "hello").status == 200
    (job_id,) = (number for number in server.cluster.jobs if number >= 1000)
    server.cluster.status[job_id] = "running"
    answer = ask(server, "she", "dmesg")
    assert answer.status == 429 and f"job {job_id} has not ended" in answer.message
    assert server.trail.records[-1]["decision"] == "deny" and server.trail.records[-1]["rule"] == "role run"
    assert ask(server, "he", "dmesg").status == 200


def test_without_a_lock_nothing_is_submitted(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No directory, no room, no right: whatever `open` says."""
    monkeypatch.setattr(restricted, "LOCK_FILE", str(tmp_path / "none" / "lock"))
    assert ask(server, "she", "hello").status == 503
    assert server.cluster.submitted == []
    assert "cannot be counted" in caplog.text


# Signing in.


@pytest.fixture(name="costs")
def _costs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """The parameters of each scrypt that was worked out."""
    spent: list[tuple[int, int, int]] = []
    scrypt = hashlib.scrypt

    def counted(*args: Any, n: int, r: int, p: int, **kwargs: Any) -> bytes:
        spent.append((n, r, p))
        return scrypt(*args, n=n, r=r, p=p, **kwargs)

    monkeypatch.setattr(hashlib, "scrypt", counted)
    return spent


def test_each_password_in_its_own_place(server: Server) -> None:
    assert ask(server, "she", "hello", password=PASSWORD).status == 401
    assert server.ask("GET", "/2/nodes", "she", password=SECRET).status == 401
    assert server.ask("GET", "/2/nodes", "she").status == 200
    assert ask(server, "she", "hello").status == 200


def test_one_password_for_everything_is_none(server: Server, file: File, caplog: pytest.LogCaptureFixture) -> None:
    for entry in (PASSWORD, hash_password(PASSWORD)):
        file.load(f"she {entry}\n")
        assert ask(server, "she", "hello", password=PASSWORD).status == 401
    server.users["she"].password = hash_password(PASSWORD)
    file.load(f"she {PASSWORD}\n")
    assert ask(server, "she", "hello", password=PASSWORD).status == 401
    assert "has the same password" in caplog.text and PASSWORD not in caplog.text.replace("restricted", "")


@pytest.mark.parametrize("realm", [REALM, "Ganeti Remote API", ""])
def test_ha1_goes_over_the_realm(server: Server, file: File, realm: str) -> None:
    digest = hashlib.md5(f"she:{realm}:{SECRET}".encode()).hexdigest()
    file.load(f"she {{HA1}}{digest}\n")
    assert ask(server, "she", "hello").status == (200 if realm == REALM else 401)


@pytest.mark.parametrize("strong", ["ordinary", "restricted"])
@pytest.mark.parametrize("user", ["she", "he", "only-here", "noc", "nobody"])
def test_a_refusal_costs_the_same_whoever_is_refused(
    server: Server, file: File, costs: list[tuple[int, int, int]], user: str, strong: str
) -> None:
    """Strong, not strong, in one file alone, in none; by the passwords that are asked for here."""
    entry = hash_password(SECRET)
    if strong == "ordinary":
        server.users["she"].password = entry
        server.access.resolve_users(server.users)
        entry = SECRET
    file.load(f"she {entry}\nhe {SECRET}\nonly-here {entry}\n")
    costs.clear()
    assert ask(server, user, "hello", password="wrong").status == 401
    assert costs == ([] if strong == "ordinary" else [(passwords.SCRYPT_N, passwords.SCRYPT_R, passwords.SCRYPT_P)])


def test_who_is_in_one_file_alone_is_nobody(server: Server, file: File) -> None:
    file.load(f"only-here {SECRET}\nhe {SECRET}\n")
    answers = [ask(server, user, "hello") for user in ("only-here", "she", "nobody")]
    answers += [ask(server, user, "hello", password=PASSWORD) for user in ("only-here", "she", "he")]
    assert {(answer.status, answer.message) for answer in answers} == {(401, "Unauthorized")}


# What the others read.


@pytest.mark.parametrize(
    ("user", "shown"),
    [("she", True), ("he", None), ("wide", True), ("ours", True), ("noc", False), ("all", False), ("read", True)],
)
def test_the_output_is_for_who_may_run_it_anywhere(server: Server, user: str, shown: bool | None) -> None:
    cluster = server.cluster
    cluster.jobs = {5: job() + job(op="OP_TEST_DELAY"), 6: job("he", "OP_TEST_DELAY"), 8: job(user)}
    output = [[[True, "kernel says"]], 5]
    cluster.said = {5: {"opresult": output}, 8: {"opresult": output[:1]}}
    answer = server.ask("GET", "/2/jobs/5", user)
    assert answer.status == (404 if shown is None else 200)
    if shown is not None:
        assert answer.body["opresult"] == (output if shown else [None, 5])
        assert answer.body["ops"] == cluster.jobs[5]
    query = {"fields": ["opresult", "id"]}
    if user != "read":
        rows = [[value for _, value in row] for row in server.ask("PUT", "/2/query/job", user, query).body["data"]]
        known = {number: result for result, number in rows}
        assert known.get(5) == (None if shown is None else output if shown else [None, 5])
        assert known[8] == output[:1]
        answer = server.ask("PUT", "/2/query/job", user, {**query, "filter": ["=", "opresult", "x"]})
        assert answer.status == {"wide": 200, "ours": 200, "noc": 403, "all": 403}.get(user, 400)
    body = {"fields": ["opresult"], "previous_job_info": [output]}
    if user != "read":
        answer = server.ask("GET", "/2/jobs/5/wait", user, body)
        assert answer.status == {True: 200, False: 403, None: 404}[shown]
        assert ("kernel says" in str(answer.body)) == bool(shown)
        assert server.ask("GET", "/2/jobs/8/wait", user, body).status == 200
