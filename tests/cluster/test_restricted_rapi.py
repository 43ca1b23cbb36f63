# SPDX-License-Identifier: BSD-2-Clause
"""Restricted commands through the remote API: real commands, real jobs, two passwords."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ganeti_ext import compat
from ganeti_ext.rapi.passwords import hash_password, hash_token, new_token
from ganeti_ext.rapi.restricted import PAUSE
from ganeti_ext.rapi.throttle import ALLOWANCE
from tests.cluster.tenancy import last_job
from tests.cluster.test_unconfigured import METHODS, unconfigure
from tests.cluster.vcluster import Cluster
from tests.waiting import wait_for

REALM = "Ganeti Restricted Commands"
RESTRICTED_USERS = "var/lib/ganeti/rapi/restricted-users"
COMMANDS = "etc/ganeti/restricted-commands"
FEATURE = "ext-restricted-command"

#: Name -> the script.
SCRIPTS = {
    "hello": "echo hello there",
    "fails": "echo sorry; exit 3",
    "waits": "touch {root}/waiting; while [ -e {root}/hold ]; do sleep 0.05; done; echo waited",
}
LISTED = "command: [hello, fails, waits, not-there]"
POLICY = f"""\
version: 1
roles:
  support:
    permissions: [nodes.restricted_command, jobs.query, jobs.wait, jobs.cancel, nodes.query, query.all]
    scope: {{nodes: {{name: [node1, node2]}}}}
    parameters: {{{LISTED}}}
  greeter:
    permissions: [nodes.restricted_command]
    scope: {{nodes: {{name: node1}}}}
    parameters: {{command: hello}}
  everywhere:
    permissions: [nodes.restricted_command, jobs.query]
    parameters: {{{LISTED}}}
  nothing:
    permissions: [nodes.restricted_command]
    scope: {{nodes: {{name: node1}}}}
  trial:
    permissions: [nodes.restricted_command]
    scope: {{nodes: {{name: node1}}}}
    parameters: {{command: hello}}
    mode: warn
  all-jobs:
    permissions: ["@readonly"]
    scope: {{nodes: {{name: node1}}}}
    jobs: all
deny:
  - {{users: kept, permissions: [nodes.restricted_command], nodes: {{name: node2}}}}
tests:
  - {{user: greeter, do: nodes.restricted_command, on: node1, parameters: {{command: hello}}, expect: allow}}
  - {{user: greeter, do: nodes.restricted_command, on: node1, parameters: {{command: fails}}, expect: deny}}
  - {{user: ours-admin, do: nodes.restricted_command, on: node1, parameters: {{command: hello}}, expect: deny}}
  - {{user: admin, do: nodes.restricted_command, on: node1, parameters: {{command: hello}}, expect: deny}}
"""
#: One for each test that runs something: a pause is a user's own.
SUPPORT = [
    "runner", "reader", "failing", "restarted", "busy", "two", "kept", "offline", "killed", "audited", "locked",
    "scrypt", "sha256", "ha1", "gone",
]  # fmt: skip
USERS = {
    **dict.fromkeys(SUPPORT, "@support"), "greeter": "@greeter", "everywhere": "@everywhere", "nothing": "@nothing",
    "trial": "@trial", "all-jobs": "@all-jobs", "watcher": "@readonly", "ours-admin": "@admin", "admin": "write",
    "plain": "", "denied": "write", "third": "@support", "twice": "@support", "same": "@support",
    "ordinary-only": "@support", "old-ha1": "@support", "both": "write,@greeter",
}  # fmt: skip
TOKEN = new_token()


def ha1(name: str, realm: str) -> str:
    """The {HA1} entry of the user's password for restricted commands."""
    return "{HA1}" + hashlib.md5(f"{name}:{realm}:{secret_of(name)}".encode()).hexdigest()


def secret_of(name: str) -> str:
    """A user's password for restricted commands; the ordinary one is `x` and his name."""
    return {"sha256": TOKEN, "same": "x-same"}.get(name, f"r-{name}")


def entries() -> dict[str, str]:
    """The second file: name -> password."""
    found = {name: secret_of(name) for name in USERS if name != "ordinary-only"}
    found.update({"restricted-only": secret_of("restricted-only"), "third": secret_of("third") + " @admin"})
    found.update({"scrypt": hash_password(secret_of("scrypt")), "sha256": hash_token(TOKEN)})
    found.update({"ha1": ha1("ha1", REALM), "old-ha1": ha1("old-ha1", "Ganeti Remote API")})
    return found


def text_of(rows: dict[str, str]) -> str:
    """The same as a file."""
    return "# for emergencies\n" + "".join(f"{name} {entry}\n" for name, entry in rows.items())


class Hatch:
    """The cluster with commands on two nodes."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.file = cluster.node_path("node1", RESTRICTED_USERS)
        self.hold = os.path.join(cluster.root, "hold")
        for node in ("node1", "node2"):
            directory = cluster.node_path(node, COMMANDS)
            os.makedirs(directory, 0o755, exist_ok=True)
            for name, script in SCRIPTS.items():
                path = os.path.join(directory, name)
                with open(path, "w", encoding="ascii") as stream:
                    stream.write("#!/bin/sh\n" + script.format(root=cluster.root) + "\n")
                os.chmod(path, 0o755)

    def write(self, text: str, mode: int = 0o640, owner: str = "root") -> None:
        """Writes the second users file, readable for the daemon, as an administrator would: moved into place."""
        temporary = self.file + ".new"
        with open(temporary, "w", encoding="utf-8") as stream:
            stream.write(text)
        shutil.chown(temporary, owner, "gnt-rapi")
        os.chmod(temporary, mode)
        os.rename(temporary, self.file)

    def remove(self) -> None:
        """Takes it away."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.file)

    @contextlib.contextmanager
    def logs(self, text: str) -> Iterator[None]:
        """The daemon's log gets a line by what is done."""
        with self.cluster.rapi_logs(text):
            yield

    def ask(
        self, user: str | None, command: Any, node: str = "node1", password: str | None = None, **options: Any
    ) -> tuple[int, Any, Any]:
        """Asks for a command: status, headers, and the answer."""
        body = {"command": command} if isinstance(command, str) else command
        password = secret_of(user or "") if password is None else password
        status, headers, answer = self.cluster.rapi(
            "POST", f"/2/nodes/{node}/restricted-command", user=user, password=password, body=body, **options
        )
        assert status not in (500, 502, 504), answer
        return status, headers, json.loads(answer)

    def submit(self, user: str, command: str, node: str = "node1") -> int:
        """Asks for a command that must be taken: its job."""
        status, _, answer = self.ask(user, command, node)
        assert status == 200, answer
        return int(answer)

    def refused(self, user: str, command: Any, status: int, node: str = "node1", **options: Any) -> str:
        """Asks for one that must be refused, without a job: the message."""
        before = last_job(self.cluster)
        found, _, answer = self.ask(user, command, node, **options)
        assert (found, last_job(self.cluster)) == (status, before), answer
        return str(answer["message"])

    def job(self, user: str, job: int, fields: str = "") -> tuple[int, Any]:
        """What an account reads of a job with its ordinary password."""
        status, _, answer = self.cluster.rapi("GET", f"/2/jobs/{job}", user=user)
        return status, json.loads(answer)

    def result(self, job: int) -> list[Any]:
        """Of a command on one node, when its job has ended well: [whether it ran, output]."""
        status, results = self.cluster.job(job)
        assert status == "success", results
        ((pair,),) = results
        return list(pair)

    def features(self) -> list[str]:
        """What the remote API says of itself."""
        return list(json.loads(self.cluster.rapi("GET", "/2/features", user="admin")[2]))

    @contextlib.contextmanager
    def held(self, user: str, node: str = "node1") -> Iterator[int]:
        """While a command of a user runs."""
        waiting = os.path.join(self.cluster.root, "waiting")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(waiting)
        with open(self.hold, "wb"):
            pass
        try:
            job = self.submit(user, "waits", node)
            wait_for(lambda: os.path.exists(waiting))
            yield job
        finally:
            os.unlink(self.hold)
        self.cluster.job(job)


@pytest.fixture(scope="module", name="hatch")
def _hatch(cluster: Cluster) -> Iterator[Hatch]:
    unconfigure(cluster)
    hatch = Hatch(cluster)
    cluster.set_rapi_users("".join(f"{name} x-{name} {tokens}\n" for name, tokens in USERS.items()))
    with cluster.rapi_logs("rapi-access.yaml loaded"):
        cluster.set_policy(POLICY)
    with hatch.logs("through the remote API are on"):
        hatch.write(text_of(entries()))
    try:
        yield hatch
    finally:
        hatch.remove()
        for node in cluster.nodes:
            shutil.rmtree(cluster.node_path(node, COMMANDS), ignore_errors=True)
        unconfigure(cluster)


# There, and not there.


def test_it_is_there_as_long_as_its_file(hatch: Hatch) -> None:
    off, on = "through the remote API are off", "through the remote API are on"
    assert FEATURE in hatch.features()
    with hatch.logs(off):
        hatch.remove()
    cluster = hatch.cluster
    assert FEATURE not in hatch.features()
    # To any other method Ganeti's next release says no before it is known who asks, and for what.
    for method in (*METHODS, *([] if compat.serves_in_threads() else ["PATCH"])):
        for user, password in (("admin", None), ("runner", "r-runner"), ("runner", "x-runner"), (None, None)):
            answers = [
                cluster.rapi(method, f"/2/nodes/node1/{name}", user=user, password=password, body={"command": "hello"})
                for name in ("restricted-command", "no-such-resource")
            ]
            ours, unknown = (
                (status, headers["WWW-Authenticate"], body.replace(b"no-such-resource", b"restricted-command"))
                for status, headers, body in answers
            )
            assert ours == unknown and ours[0] == (401 if user is None else 404 if method in METHODS else 501)
    with hatch.logs(on):
        hatch.write(text_of(entries()))
    assert FEATURE in hatch.features()
    assert hatch.ask("runner", "hello", password="x-runner")[0] == 401
    # As other resources: what it has no method for, and what lies beside it.
    assert cluster.rapi("GET", "/2/nodes/node1/restricted-command", user="runner", password="r-runner")[0] == 501
    assert cluster.rapi("POST", "/2/nodes/node1/restricted-command/", user="runner", password="r-runner")[0] == 404


def test_it_survives_a_restart(hatch: Hatch) -> None:
    hatch.cluster.restart("rapi")
    assert FEATURE in hatch.features()
    assert hatch.refused("runner", "no", 403)


@pytest.mark.parametrize(
    ("mode", "owner", "complaint"),
    [
        (0o644, "root", "may be read by others"),
        (0o660, "root", "may be written by others"),
        (0o602, "gnt-rapi", "may be written by others"),
        (0o640, "nobody", "must belong to root"),
        (0o600, "root", "cannot be read by this daemon"),
    ],
)
def test_an_unsafe_file_is_as_good_as_none(hatch: Hatch, mode: int, owner: str, complaint: str) -> None:
    before = len(hatch.cluster.rapi_log())
    with hatch.logs("are off"):
        hatch.write(text_of(entries()), mode, owner)
    assert hatch.ask("runner", "hello")[0] == 404
    os.utime(hatch.file)
    with hatch.logs("are on"):
        hatch.write(text_of(entries()), 0o640, "gnt-rapi")
    assert hatch.cluster.rapi_log()[before:].count(complaint) == 1
    assert hatch.refused("runner", "no", 403)


@pytest.mark.parametrize("kind", ["link", "directory", "fifo", "bytes", "huge"])
def test_what_is_no_file_is_as_good_as_none(hatch: Hatch, kind: str) -> None:
    aside = hatch.file + ".aside"
    with hatch.logs("are off"):
        os.rename(hatch.file, aside)
    try:
        if kind == "link":
            os.symlink(aside, hatch.file)
        elif kind == "directory":
            os.mkdir(hatch.file)
        elif kind == "fifo":
            os.mkfifo(hatch.file)
        elif kind == "bytes":
            with open(hatch.file, "wb") as stream:
                stream.write(b"runner \xff\n")
            shutil.chown(hatch.file, "root", "gnt-rapi")
            with hatch.logs("no UTF-8"):
                os.chmod(hatch.file, 0o640)
        else:
            shutil.copy(aside, hatch.file)
            os.chmod(hatch.file, 0o640)
            with open(hatch.file, "a", encoding="ascii") as stream:
                stream.write("#" * (1 << 20))
            with hatch.logs("bytes"):
                shutil.chown(hatch.file, "root", "gnt-rapi")
        assert hatch.ask("runner", "hello")[0] == 404
    finally:
        if os.path.isdir(hatch.file) and not os.path.islink(hatch.file):
            os.rmdir(hatch.file)
        with hatch.logs("are on"):
            os.rename(aside, hatch.file)


def test_a_file_that_comes_and_goes_while_it_is_asked(hatch: Hatch) -> None:
    """Each request finds it all there, or nothing."""
    before = last_job(hatch.cluster)
    stop: list[bool] = []

    def flip() -> None:
        while not stop:
            os.rename(hatch.file, hatch.file + ".aside")
            time.sleep(0.01)
            os.rename(hatch.file + ".aside", hatch.file)
            time.sleep(0.01)

    with ThreadPoolExecutor(3) as pool:
        flipping = pool.submit(flip)
        asked = list(pool.map(lambda number: hatch.ask("runner", "no")[0], range(40)))
        stop.append(True)
        flipping.result()
    assert set(asked) <= {403, 404}
    assert last_job(hatch.cluster) == before
    wait_for(lambda: FEATURE in hatch.features())
    assert hatch.refused("runner", "no", 403)


# Two passwords.


@pytest.mark.parametrize("name", ["scrypt", "sha256", "ha1"])
def test_every_scheme(hatch: Hatch, name: str) -> None:
    assert hatch.result(hatch.submit(name, "hello")) == [True, "hello there\n"]


def test_each_password_works_in_its_own_place_alone(hatch: Hatch) -> None:
    cluster = hatch.cluster
    before = last_job(cluster)
    wrong = [
        ("runner", "x-runner"),
        ("runner", "wrong"),
        ("runner", ""),
        ("same", "x-same"),
        ("third", "r-third"),
        ("restricted-only", "r-restricted-only"),
        ("restricted-only", "wrong"),
        ("ordinary-only", "x-ordinary-only"),
        ("nobody", "x"),
        ("old-ha1", "r-old-ha1"),
        ("", "r-"),
    ]
    answers = set()
    for number, (user, password) in enumerate(wrong):
        source = f"node{1 + number % 3}"
        status, headers, answer = hatch.ask(user, "hello", password=password, source=source)
        assert status == 401, user
        answers.add((headers["WWW-Authenticate"], json.dumps(answer)))
    status, headers, answer = hatch.ask(None, "hello")
    answers.add((headers["WWW-Authenticate"], json.dumps(answer)))
    assert status == 401 and len(answers) == 1
    assert headers["WWW-Authenticate"] == f'Basic realm="{REALM}"'
    for path in ("/2/info", "/2/jobs", "/2/nodes/node1", "/2/features"):
        status, headers, _ = cluster.rapi("GET", path, user="runner", password="r-runner", source="node3")
        assert status == 401 and headers["WWW-Authenticate"] == 'Basic realm="Ganeti Remote API"'
    assert last_job(cluster) == before
    assert "User 'same' has the same password" in cluster.rapi_log()
    cluster.restart("rapi")


def test_lines_that_grant_nothing_are_told_without_what_they_hold(hatch: Hatch) -> None:
    rows = text_of(entries()) + "twice other-secret\ntwo-secret\n"
    before = len(hatch.cluster.rapi_log())
    with hatch.logs("grants nothing"):
        hatch.write(rows)
    assert hatch.ask("twice", "hello")[0] == hatch.ask("twice", "hello", password="other-secret")[0] == 401
    log = hatch.cluster.rapi_log()[before:]
    assert log.count("neither grants anything") == 1
    assert log.count("grants nothing: it must hold a name and a password") == 2
    assert "secret" not in log and "@admin" not in log
    with hatch.logs("restricted-users"):
        hatch.write(text_of(entries()))


def test_guesses_are_counted_with_all_others(hatch: Hatch) -> None:
    hatch.cluster.restart("rapi")
    statuses = [hatch.ask("runner", "hello", password=f"guess{n}", source="node2")[0] for n in range(3 * ALLOWANCE)]
    assert set(statuses) == {401, 429} and statuses.count(401) >= ALLOWANCE
    assert hatch.ask("runner", "no", source="node2")[0] == 429
    assert hatch.cluster.rapi("GET", "/2/nodes/node1", user="runner", source="node2")[0] == 429
    assert hatch.ask("runner", "no", source="node3")[0] == 403
    hatch.cluster.restart("rapi")


# Running.


def test_a_command_runs_and_its_output_is_read_with_the_ordinary_password(hatch: Hatch) -> None:
    job = hatch.submit("runner", "hello", "node2")
    assert hatch.result(job) == [True, "hello there\n"]
    status, answer = hatch.job("runner", job)
    assert (status, answer["status"], answer["opresult"]) == (200, "success", [[[True, "hello there\n"]]])
    (op,) = answer["ops"]
    (uuid,) = [row[0] for row in hatch.cluster.luxi("QueryNodes", ["node2"], ["uuid"], False)]
    assert (op["OP_ID"], op["command"], op["nodes"], op["node_uuids"]) == (
        "OP_RESTRICTED_COMMAND", "hello", [], [uuid],
    )  # fmt: skip
    assert op["use_locking"] is False
    # One that has ended well is followed by another at once.
    done = hatch.cluster.enter(
        "curl", "-sSk", "-u", "runner:r-runner", "-H", "Content-Type: application/json", "-d", '{"command": "hello"}',
        f"{hatch.cluster.rapi_url}/2/nodes/node2/restricted-command",
    )  # fmt: skip
    assert hatch.result(int(done.stdout))[0] is True


def test_a_role_without_a_scope_runs_what_it_lists_anywhere(hatch: Hatch) -> None:
    assert hatch.result(hatch.submit("everywhere", "hello", "node2"))[0] is True
    hatch.refused("everywhere", "reboot", 403)
    # Ganeti's own client library sends a reason so.
    status, _, answer = hatch.cluster.rapi(
        "POST", "/2/nodes/node1/restricted-command?reason=why", user="everywhere", password="r-everywhere",
        body={"command": "hello"},
    )  # fmt: skip
    assert status == 200
    hatch.result(int(answer))
    trail = hatch.cluster.luxi("QueryJobs", [int(answer)], ["ops"])[0][0][0]["reason"]
    assert [entry[:2] for entry in trail[:2]] == [["gnt:ext:rapi-user", "everywhere"], ["gnt:user", "why"]]


def test_what_is_not_listed_reaches_no_node(hatch: Hatch) -> None:
    asked = [hatch.cluster.node_log(node).count("asked for") for node in ("node1", "node2")]
    assert sum(asked) > 0
    for name in (
        "reboot",
        "HELLO",
        "hello ",
        " hello",
        "hello\n",
        "../hello",
        "hell?",
        "*",
        "-v",
        ".",
        "hello\0",
        "h" * 65,
    ):
        message = hatch.refused("runner", name, 403)
        assert "parameter command may not be set to this: allowed is hello, fails" in message
    hatch.refused("greeter", "fails", 403)
    for user in ("admin", "ours-admin", "nothing"):
        assert "command may" in hatch.refused(user, "hello", 403)
    for user in ("plain", "watcher", "all-jobs"):
        assert "nodes.restricted_command is not granted" in hatch.refused(user, "hello", 403)
    hatch.refused("both", "fails", 403)  # what is granted beside it lists nothing
    assert [hatch.cluster.node_log(node).count("asked for") for node in ("node1", "node2")] == asked


def test_in_mode_warn_the_list_holds(hatch: Hatch) -> None:
    hatch.refused("trial", "fails", 403)
    with hatch.logs("would be refused, were its role not in mode warn"):
        assert hatch.result(hatch.submit("trial", "hello", "node2"))[0] is True


@pytest.mark.parametrize(
    "body",
    [
        None, {}, [], "hello", {"command": None}, {"command": ["hello"]}, {"command": 7}, {"command": ""},
        {"command": "hello", "nodes": ["node2"]}, {"command": "hello", "node_uuids": ["x"]},
        {"command": "hello", "depends": [[1, []]]}, {"command": "hello", "priority": -20},
        {"command": "hello", "use_locking": True}, {"command": {"hello": 1}}, {"Command": "hello"},
        {"command": "hell\u00f6"}, b"{", b'{"command": "hello", "command": 5}', b"\xff",
    ],
    ids=repr,
)  # fmt: skip
def test_bodies_that_are_none(hatch: Hatch, body: Any) -> None:
    before = last_job(hatch.cluster)
    for user in ("reader", "everywhere"):
        status, _, answer = hatch.cluster.rapi(
            "POST", "/2/nodes/node1/restricted-command", user=user, password=f"r-{user}", body=body
        )
        assert status == 400, answer
    assert last_job(hatch.cluster) == before


def test_outside_of_the_scope_there_is_nothing(hatch: Hatch) -> None:
    answers = set()
    for node in ("node3", "node9", "node", "NODE1", "node1.", "192.0.2.10"):
        for command in ("hello", "reboot"):
            status, _, answer = hatch.ask("reader", command, node)
            answers.add((status, json.dumps(answer)))
    (uuid,) = [row[0] for row in hatch.cluster.luxi("QueryNodes", ["node1"], ["uuid"], False)]
    status, _, answer = hatch.ask("reader", "hello", uuid)
    assert answers == {(status, json.dumps(answer))} and status == 404


def test_a_deny_wins(hatch: Hatch) -> None:
    assert "deny" in hatch.refused("kept", "hello", 403, "node2")
    assert hatch.result(hatch.submit("kept", "hello"))[0] is True


# Whose output.


def test_who_reads_the_output(hatch: Hatch) -> None:
    cluster = hatch.cluster
    job = hatch.submit("runner", "hello")
    hatch.result(job)
    shown, hidden = [[[True, "hello there\n"]]], [None]
    expected = {"runner": shown, "admin": shown, "ours-admin": shown, "everywhere": shown}
    for user in ("runner", "admin", "ours-admin", "everywhere", "watcher", "all-jobs"):
        status, answer = hatch.job(user, job)
        assert (status, answer["opresult"]) == (200, expected.get(user, hidden)), user
        assert answer["ops"][0]["command"] == "hello"
    status, nothing = hatch.job("reader", job)
    assert status == 404 and nothing == hatch.job("reader", 999999)[1]

    def ask(user: str, method: str, path: str, body: Any) -> tuple[int, str]:
        status, _, answer = cluster.rapi(method, path, user=user, body=body)
        return status, answer.decode()

    query = {"fields": ["id", "opresult"], "filter": ["=", "id", job]}
    wait = {"fields": ["opresult"], "previous_job_info": shown, "previous_log_serial": 0}
    for user in ("watcher", "all-jobs"):
        status, answer = ask(user, "PUT", "/2/query/job", query)
        assert status == 200 and json.loads(answer)["data"] == [[[0, job], [0, [None]]]] and "hello there" not in answer
        assert len(json.loads(answer)["fields"]) == 2
        assert ask(user, "PUT", "/2/query/job", {**query, "filter": ["=~", "opresult", "hello"]})[0] == 403
        # The fields of a wait are compared with what the client knows: a guess must not be told.
        assert ask(user, "GET", f"/2/jobs/{job}/wait", wait)[0] == 403
        assert ask(user, "GET", f"/2/jobs/{job}/wait", {"fields": ["status"]})[0] == 200
        assert "hello there" not in ask(user, "GET", "/2/jobs?bulk=1", None)[1]
    assert ask("watcher", "GET", "/2/os", None) == (200, '["noop"]\n')  # which is the result of a job, too
    assert "hello there" in ask("ours-admin", "PUT", "/2/query/job", query)[1]
    assert "hello there" in ask("runner", "PUT", "/2/query/job", {"fields": ["opresult"]})[1]
    assert "hello there" not in ask("reader", "PUT", "/2/query/job", {"fields": ["opresult"]})[1]


# One at a time.


def test_one_unfinished_command_at_a_time(hatch: Hatch) -> None:
    with hatch.held("busy") as job:
        for _ in range(2):
            status, headers, answer = hatch.ask("busy", "hello", "node2")
            assert status == 429 and int(headers["Retry-After"]) > 0
            assert f"job {job} has not ended" in answer["message"]
            hatch.cluster.restart("rapi")  # which forgets nothing
        assert hatch.result(hatch.submit("runner", "hello")) == [True, "hello there\n"]
        # What is not right is told before it.
        hatch.refused("busy", "reboot", 403)
        hatch.refused("busy", "hello", 404, "node3")
    assert hatch.result(hatch.submit("busy", "hello"))[0] is True


def test_of_several_at_once_one_is_taken(hatch: Hatch) -> None:
    with open(hatch.hold, "wb"), ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: hatch.ask("two", "waits", f"node{1 + number % 2}"), range(8)))
    os.unlink(hatch.hold)
    assert sorted(status for status, _, _ in answers) == [200] + [429] * 7
    (job,) = [int(answer) for status, _, answer in answers if status == 200]
    assert hatch.result(job)[0] is True


@pytest.mark.parametrize(("user", "command"), [("failing", "fails"), ("restarted", "not-there")])
def test_after_one_that_failed_there_is_a_pause(hatch: Hatch, user: str, command: str) -> None:
    job = hatch.submit(user, command)
    ran, output = hatch.result(job)
    assert ran is False
    assert ("exit code 3; output: sorry" in output) == (command == "fails")
    for _ in range(2):
        status, headers, answer = hatch.ask(user, "hello")
        assert status == 429 and 0 < int(headers["Retry-After"]) <= PAUSE
        assert f"job {job} has failed" in answer["message"]
        hatch.cluster.restart("rapi")
    assert hatch.result(hatch.submit("runner", "hello"))[0] is True


def test_an_offline_node_is_not_asked(hatch: Hatch) -> None:
    hatch.cluster.gnt("gnt-node", "modify", "--offline=yes", "node2")
    try:
        ran, output = hatch.result(hatch.submit("offline", "hello", "node2"))
        assert ran is False and "offline" in output
    finally:
        hatch.cluster.gnt("gnt-node", "modify", "-f", "--offline=no", "node2")
    assert hatch.ask("offline", "hello")[0] == 429


def test_a_node_daemon_that_is_killed_meanwhile(hatch: Hatch) -> None:
    with hatch.held("killed", "node2") as job:
        pid = hatch.cluster.daemon_pid("noded", "node2")
        children = [one for one in hatch.cluster.pids() if _parent_of(one) == pid]
        for one in (pid, *children):
            os.kill(one, signal.SIGKILL)
        ran, _ = hatch.result(job)
        assert ran is False
    hatch.cluster.restart("noded", "node2")
    assert hatch.ask("killed", "hello", "node2")[0] == 429
    assert hatch.result(hatch.submit("runner", "hello", "node2"))[0] is True


def _parent_of(pid: int) -> int:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", encoding="ascii") as stream:
        return int(stream.read().rpartition(")")[2].split()[1])
    return 0


def test_on_a_full_disk_nothing_runs(hatch: Hatch) -> None:
    """There is no room for the file that is locked; not a byte is written into it."""
    directory = os.path.dirname(hatch.file)
    hatch.cluster.enter("mount", "-t", "tmpfs", "-o", "nr_inodes=1,mode=0777", "none", directory)
    try:
        with hatch.logs("Requests cannot be counted: [Errno 28] No space left on device"):
            hatch.refused("locked", "hello", 503)
    finally:
        hatch.cluster.enter("umount", directory)
    assert hatch.result(hatch.submit("locked", "hello"))[0] is True


def test_a_drained_queue_says_so(hatch: Hatch) -> None:
    hatch.cluster.gnt("gnt-cluster", "queue", "drain")
    try:
        assert "drained" in hatch.refused("locked", "hello", 503)
    finally:
        hatch.cluster.gnt("gnt-cluster", "queue", "undrain")


# What is written.


def test_what_is_recorded_and_that_no_password_is(hatch: Hatch) -> None:
    job = hatch.submit("audited", "hello", "node2")
    hatch.result(job)
    hatch.refused("audited", "evil\nname", 403, "node2")
    hatch.refused("audited", "hello", 404, "node3")
    hatch.ask("audited", "hello", password="not-the-password", source="node3")
    assert hatch.ask("failing", "hello")[0] == 429
    with open(hatch.cluster.node_path("node1", "var/log/ganeti/rapi-audit.log"), encoding="ascii") as stream:
        records = [json.loads(line) for line in stream]
    found = [record for record in records if record["user"] in ("audited", "failing")][-5:]
    assert [(record["decision"], record["status"], record["jobs"]) for record in found] == [
        ("allow", 200, [job]), ("deny", 403, []), ("deny", 404, []), ("deny", 401, []), ("deny", 429, []),
    ]  # fmt: skip
    assert {record["permission"] for record in found} == {"nodes.restricted_command"}
    assert [record["parameters"] for record in found] == [
        {"command": "hello"}, {"command": "evil\nname"}, {"command": "hello"}, {}, {"command": "hello"},
    ]  # fmt: skip
    assert [record["objects"].get("node") for record in found[:3]] == [["node2"], ["node2"], ["node3"]]
    assert found[0]["rule"] == found[1]["rule"] == "role support"
    for node in hatch.cluster.nodes:
        directory = hatch.cluster.node_path(node, "var/log/ganeti")
        for name in os.listdir(directory):
            if not name.endswith(".log"):
                continue
            with open(os.path.join(directory, name), encoding="utf-8", errors="replace") as stream:
                text = stream.read()
            for secret in (TOKEN, "r-audited", "r-failing", "x-audited", "not-the-password", "\nname"):
                assert secret not in text, name


def test_a_daemon_that_tells_everything_tells_no_password(hatch: Hatch) -> None:
    cluster = hatch.cluster
    cluster.restart("rapi", args=["-d"])
    try:
        hatch.result(hatch.submit("runner", "hello"))
        hatch.ask("runner", "hello", password="r-wrong-one", source="node3")
    finally:
        cluster.restart("rapi")
    token = "cnVubmVyOnItcnVubmVy"  # runner:r-runner
    for secret in ("r-runner", token, "r-wrong-one"):
        assert secret not in cluster.rapi_log()


def test_without_a_policy_the_file_opens_nothing(hatch: Hatch) -> None:
    """Nobody lists a command; but what is there is protected."""
    cluster = hatch.cluster
    cluster.remove_policy()
    os.unlink(cluster.node_path("node1", "var/lib/ganeti/rapi/access.last-good.yaml"))
    cluster.restart("rapi")
    try:
        assert FEATURE in hatch.features()
        hatch.refused("admin", "hello", 403)
        hatch.refused("plain", "hello", 403)
        hatch.refused("gone", "hello", 403)
    finally:
        with cluster.rapi_logs("rapi-access.yaml loaded"):
            cluster.set_policy(POLICY)
