# SPDX-License-Identifier: BSD-2-Clause
"""The audit trail of a running cluster: complete, whole lines only, and no secret in any log."""

from __future__ import annotations

import base64
import contextlib
import glob
import json
import os
import pwd
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.cluster.test_unconfigured import unconfigure
from tests.cluster.vcluster import Cluster

OWN, FOREIGN = "web1.test.example.com", "db1.prod.example.com"
POLICY = """\
version: 1
roles:
  web:
    permissions: ["@operator", instances.modify]
    scope:
      instances: {name: "*.test.example.com"}
"""
USERS = """\
admin secret write
reader x read
web x @web
ops x @operator,+instances.create,+instances.modify,+instances.reinstall,+instances.multi_alloc,+cluster.modify
"""
INCOMPLETE = "The audit trail is not complete"


class Trail:
    """The audit trail of the master."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.directory = cluster.node_path(cluster.master, "var/log/ganeti")
        self.path = self.directory + "/rapi-audit.log"

    def lines(self) -> list[str]:
        """What is in the file, as it is seen inside; each line but the last has an end."""
        return self.cluster.enter("cat", self.path).stdout.splitlines()

    def records(self) -> list[dict[str, Any]]:
        """The same, where each line is a whole record."""
        return [json.loads(line) for line in self.lines()]

    @contextlib.contextmanager
    def added(self) -> Iterator[list[dict[str, Any]]]:
        """The records that come while the block runs, in the list after it."""
        before = len(self.lines()) if os.path.exists(self.path) else 0
        found: list[dict[str, Any]] = []
        yield found
        found += self.records()[before:]

    @contextlib.contextmanager
    def spoilt(self, spoil: Callable[[str], None]) -> Iterator[None]:
        """With something else in the place of the file; the daemon starts anew, and so complains anew."""
        self.remove()
        self.cluster.restart("rapi")
        self.remove()
        spoil(self.path)
        try:
            yield
        finally:
            self.remove()

    def remove(self) -> None:
        """No file, whatever has its name."""
        if os.path.isdir(self.path) and not os.path.islink(self.path):
            os.rmdir(self.path)
        elif os.path.lexists(self.path):
            os.unlink(self.path)


@pytest.fixture(scope="module", name="trail")
def _trail(cluster: Cluster) -> Iterator[Trail]:
    trail = Trail(cluster)
    trail.remove()
    with cluster.rapi_logs("rapi-access.yaml loaded"):
        cluster.set_policy(POLICY)
    cluster.set_rapi_users(USERS)
    try:
        yield trail
    finally:
        unconfigure(cluster)
        trail.remove()


def ask(cluster: Cluster, method: str, path: str, user: str | None = None, **options: Any) -> tuple[int, Any]:
    """A request's status and what the answer says."""
    status, _, answer = cluster.rapi(method, path, user=user, **options)
    return status, json.loads(answer)


# --- what is written ---------------------------------------------------------------------


@pytest.mark.parametrize(("user", "rule"), [("admin", "write"), ("ops", "role operator"), ("web", "role web")])
def test_a_change_is_written_with_its_job(trail: Trail, user: str, rule: str) -> None:
    with trail.added() as found:
        status, job = ask(trail.cluster, "POST", f"/2/instances/{OWN}/reboot?reason=why&dry-run=1", user)
    assert status == 200
    assert trail.cluster.job(job)[0] == "success"
    (record,) = found
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record.pop("time"))
    assert re.fullmatch("[0-9a-f]{16}", record.pop("id"))
    assert record == {
        "user": user, "address": trail.cluster.address("node1"), "method": "POST",
        "path": f"/2/instances/{OWN}/reboot", "permission": "instances.reboot", "objects": {"instance": [OWN]},
        "parameters": {"reason": "why", "dry-run": "1"}, "decision": "allow", "rule": rule, "reason": "",
        "status": 200, "jobs": [job],
    }  # fmt: skip
    assert os.stat(trail.path).st_mode & 0o7777 == 0o640
    assert pwd.getpwuid(os.stat(trail.path).st_uid).pw_name == "gnt-rapi"


def test_denials_are_written_and_reads_are_not(trail: Trail) -> None:
    asked: list[tuple[int, str, str, str | None, dict[str, Any]]] = [
        (200, "GET", "/2/instances", "admin", {}),
        (200, "GET", "/2/info", "ops", {}),
        (200, "GET", "/2/os", "admin", {}),
        (200, "PUT", "/2/query/instance", "admin", {"body": {"fields": ["name"]}}),
        (404, "GET", "/2/no-such-thing", "admin", {}),
        (401, "GET", "/2/info", None, {}),
        (401, "GET", "/2/info", "admin", {"password": "wrong"}),
        (401, "DELETE", f"/2/instances/{OWN}", "no\nbody \x1b[2J\"}", {"password": "wrong"}),
        (403, "PUT", "/2/modify", "reader", {"body": {}}),
        (403, "PUT", "/2/modify", "web", {"body": {}}),
        (403, "GET", "/2/filters", "web", {}),
        (404, "POST", f"/2/instances/{FOREIGN}/reboot", "web", {}),
        (404, "POST", "/2/instances/web9.test.example.com/reboot", "web", {}),
        (403, "PUT", f"/2/instances/{OWN}/modify", "web", {"body": {"hvparams": {"acpi": True}}}),
    ]  # fmt: skip
    with trail.added() as found:
        answers = [ask(trail.cluster, method, path, user, **options) for _, method, path, user, options in asked]
    assert [status for status, _ in answers] == [status for status, *_ in asked]
    assert [(record["status"], record["method"], record["path"], record["user"] or None) for record in found] == [
        (status, method, path, user) for status, method, path, user, _ in asked[5:]
    ]
    assert {record["decision"] for record in found} == {"deny"}
    assert {str(record["jobs"]) for record in found} == {"[]"}
    for record, (status, answer) in zip(found, answers[5:]):
        ours = status == 403 and record["user"] != "reader"
        assert answer["message"].endswith(f"(audit record {record['id']})") == ours
        assert (record["id"] in json.dumps(answer)) == ours


def test_many_at_once_leave_whole_lines(trail: Trail) -> None:
    """Two hundred requests of four kinds, from many threads: one record each, and no id twice."""
    kinds: list[tuple[str, str, str, str, Any]] = [
        ("admin", "secret", "PUT", f"/2/instances/{OWN}/tags?tag=a&dry-run=1&reason=" + "r" * 900, None),
        ("web", "x", "POST", f"/2/instances/{FOREIGN}/reboot", None),
        ("ops", "x", "PUT", f"/2/instances/{OWN}/modify?dry-run=1", {"force": True, "tags": ["t" * 250] * 30}),
        ("u" * 2000, "x", "PUT", "/2/modify", {"tags": ["t" * 250] * 30}),
    ]  # fmt: skip

    def one(number: int) -> tuple[int, Any]:
        user, password, method, path, body = kinds[number % 4 if number < 80 else 1 + number % 3]  # 20 jobs
        return ask(trail.cluster, method, path, user, password=password, body=body)

    with trail.added() as found, ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(one, range(200)))
    assert [status for status, _ in answers[:4]] == [200, 404, 400, 401]
    assert sorted(record["status"] for record in found) == sorted(status for status, _ in answers)
    assert len({record["id"] for record in found}) == 200
    jobs = [job for status, job in answers if status == 200]
    assert sorted(job for record in found for job in record["jobs"]) == sorted(jobs)


# --- the file ----------------------------------------------------------------------------


def directory(path: str) -> None:
    """A directory has its name."""
    os.mkdir(path)


def roots(path: str) -> None:
    """The daemon may not write it."""
    with open(path, "w", encoding="ascii"):
        os.chmod(path, 0o600)


def link(path: str) -> None:
    """A link leads to a file that the daemon could write: its users."""
    os.symlink(path.replace("log/ganeti/rapi-audit.log", "lib/ganeti/rapi/users"), path)


def dangling(path: str) -> None:
    """A link leads to nothing, where the daemon could make a file."""
    os.symlink(path + ".nothing", path)


def full(path: str) -> None:
    """A link leads to a disk that is always full."""
    os.symlink("/dev/full", path)


def fifo(path: str) -> None:
    """A fifo that nobody reads."""
    os.mkfifo(path)
    shutil.chown(path, "gnt-rapi")


def changes_and_denials(cluster: Cluster) -> None:
    """Requests that are answered as ever."""
    assert ask(cluster, "POST", f"/2/instances/{OWN}/reboot?dry-run=1", "admin")[0] == 200
    assert ask(cluster, "POST", f"/2/instances/{FOREIGN}/reboot", "web")[0] == 404
    status, answer = ask(cluster, "PUT", "/2/modify", "web", body={})
    assert status == 403 and "cluster.modify" in answer["message"]


@pytest.mark.parametrize("spoil", [directory, roots, link, dangling, full, fifo])
def test_a_file_that_cannot_be_written(trail: Trail, spoil: Callable[[str], None]) -> None:
    """Requests go on, nothing is written elsewhere, and the daemon's log says it, once."""
    with trail.spoilt(spoil):
        before = len(trail.cluster.rapi_log())
        changes_and_denials(trail.cluster)
        log = trail.cluster.rapi_log()[before:]
        assert log.count(INCOMPLETE) == 1, log
        assert "Traceback" not in log
        assert not os.path.exists(trail.path + ".nothing")
    with open(trail.cluster.node_path("node1", "var/lib/ganeti/rapi/users"), encoding="ascii") as stream:
        assert stream.read() == USERS
    with trail.added() as found:
        changes_and_denials(trail.cluster)
    assert [record["status"] for record in found] == [200, 404, 403]


def test_a_disk_that_is_full(trail: Trail) -> None:
    """Once there is room again the next record starts on a line of its own, by itself."""
    cluster = trail.cluster
    for (job,) in cluster.luxi("QueryJobs", None, ["id"]):
        cluster.job(job)  # one that runs has its log open, there where the disk will be
    cluster.restart("rapi")
    owner = os.stat(trail.directory)
    options = f"size=8k,mode=0770,uid={owner.st_uid},gid={owner.st_gid}"
    cluster.enter("mount", "-t", "tmpfs", "-o", options, "tmpfs", trail.directory)
    try:
        before = len(cluster.rapi_log())
        answers = [ask(cluster, "POST", f"/2/instances/{FOREIGN}/reboot", "web")[0] for _ in range(30)]
        assert answers == [404] * 30
        log = cluster.rapi_log()[before:]
        assert INCOMPLETE in log and log.count(INCOMPLETE) <= 2, "cut off, and no room at all, have one errno or two"
        *whole, torn = trail.lines()
        assert 5 < len(whole) < 30 and {json.loads(line)["status"] for line in whole} == {404}
        with pytest.raises(ValueError):
            json.loads(torn)
        cluster.enter("mount", "-o", "remount,size=1m", trail.directory)
        assert [ask(cluster, "PUT", "/2/modify", "web", body={})[0] for _ in range(2)] == [403, 403]
        lines = trail.lines()
        assert lines[: len(whole) + 1] == [*whole, torn]
        assert [json.loads(line)["status"] for line in lines[len(whole) + 1 :]] == [403, 403]
    finally:
        cluster.enter("umount", trail.directory)


def test_a_file_that_is_moved_away(trail: Trail) -> None:
    """As logrotate does it; requests run meanwhile, and no record is lost."""
    moved = [f"{trail.path}.{number}" for number in range(5)]
    try:
        with ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(ask, trail.cluster, "PUT", "/2/modify", "web", body={}) for _ in range(60)]
            for number, name in enumerate(moved):
                asked[number * 10].result()
                with contextlib.suppress(FileNotFoundError):
                    os.rename(trail.path, name)
        answered = {re.sub(".*audit record ([0-9a-f]+).*", r"\1", request.result()[1]["message"]) for request in asked}
        written: list[str] = []
        for name in [trail.path, *moved]:
            if os.path.exists(name):
                with open(name, encoding="ascii") as stream:
                    written += [json.loads(line)["id"] for line in stream]
        assert len(answered) == 60 and answered <= set(written)
        assert len(set(written)) == len(written)
    finally:
        for name in glob.glob(trail.path + ".*"):
            os.unlink(name)


# --- secrets -----------------------------------------------------------------------------


CREATE = {
    "__version__": 1, "mode": "create", "name": "new.test.example.com", "os": "noop", "disk_template": "diskless",
    "disks": [], "nics": [], "beparams": {"memory": 128}, "name_check": False, "ip_check": False,
}  # fmt: skip
INNER = {key: value for key, value in CREATE.items() if key != "__version__"}


def requests_with_secrets(secret: str) -> list[tuple[str, str, Any]]:
    """Secrets at each place where one belongs, and where one may end up by mistake."""
    wrong = [secret, [secret], [[secret, secret]], {"a": [secret]}, {"a": {"b": secret}}, {secret: "a"}]
    right = {"a": secret}
    create, modify = "/2/instances?dry-run=1", f"/2/instances/{OWN}/modify?dry-run=1"
    return [
        ("POST", create, {**CREATE, "osparams": right}),
        ("POST", create, {**CREATE, "osparams_private": right, "osparams_secret": right}),
        *(("POST", create, {**CREATE, "osparams": value}) for value in wrong[:5]),
        *(("POST", create, {**CREATE, "osparams_secret": value}) for value in wrong),
        *(("PUT", modify, {"osparams": value}) for value in wrong[:3]),
        *(("PUT", modify, {"osparams_private": value}) for value in wrong),
        ("POST", create, {**CREATE, "osparam_secret": right}),
        ("POST", create, {**CREATE, "disks": [{"size": 1, "password": secret}]}),
        ("POST", create, {**CREATE, "password": secret}),
        ("PUT", "/2/modify?dry-run=1", {"osparams": {"noop": secret}}),
        ("PUT", "/2/modify?dry-run=1", {"osparams_private_cluster": {"noop": secret}}),
        ("POST", "/2/instances-multi-alloc?dry-run=1", {"instances": [{**INNER, "osparams": secret}]}),
        ("POST", "/2/instances-multi-alloc?dry-run=1", {"instances": [{**INNER, "osparams_secret": right}]}),
        ("PUT", f"/2/instances/{FOREIGN}/modify?dry-run=1", {"osparams_secret": right}),
        ("POST", f"/2/instances/{FOREIGN}/reinstall?dry-run=1", {"os": "none", "osparams": right}),
        ("POST", f"/2/instances/{FOREIGN}/reinstall?dry-run=1", {"os": "none", "osparams": {"a": [secret]}}),
    ]


@pytest.mark.parametrize("debug", [False, True])
def test_no_log_of_any_daemon_has_a_secret(trail: Trail, debug: bool) -> None:
    """Whoever sends it, allowed or not, well-formed or not; the remote API also with `-d`."""
    cluster, secret = trail.cluster, "hunter2debug" if debug else "hunter2plain"
    cluster.restart("rapi", args=["-d"] if debug else [])
    statuses, jobs = set(), []
    users = ("ops", "web") if debug else ("admin", "ops", "web", "reader")
    with trail.added() as found:
        for user in users:
            for method, path, body in requests_with_secrets(secret):
                status, answer = ask(cluster, method, path, user, body=body)
                statuses.add(status)
                jobs += [answer] if status == 200 else []
        for user, password in (("admin", secret), ("nobody", secret), ("web", secret + "\u00e9")):
            statuses.add(ask(cluster, "PUT", "/2/modify", user, password=password, body={"a": secret})[0])
        for scheme in ("Basic", "Digest", ""):
            header = {"Authorization": f"{scheme} {secret}".strip()}
            statuses.add(ask(cluster, "GET", "/2/info", headers=header)[0])
    assert statuses >= {200, 400, 401, 403, 404}
    assert len(found) == len(users) * len(requests_with_secrets(secret)) + 6
    assert sum(bool(record["parameters"]) for record in found) > 20
    for job in jobs:
        cluster.job(job)

    encoded = [base64.b64encode(f"{user}:{secret}".encode())[:-4] for user in ("admin", "nobody", "web")]
    needles = [secret.encode(), *encoded]
    read = 0
    for node in cluster.nodes:
        for place, _, names in os.walk(cluster.node_path(node, "var/log")):
            for name in names:
                with open(os.path.join(place, name), "rb") as stream:
                    text = stream.read()
                read += 1
                for needle in needles:
                    assert needle not in text, (node, name, text[: text.index(needle)][-300:])
    assert read > 20
    if debug:
        assert "<request PUT /2/modify, body of " in cluster.rapi_log()
    cluster.restart("rapi")


# --- unconfigured ------------------------------------------------------------------------


def test_there_is_no_file_until_something_is_configured(cluster: Cluster) -> None:
    unconfigure(cluster)
    trail = Trail(cluster)
    trail.remove()
    assert ask(cluster, "PUT", f"/2/instances/{OWN}/tags?tag=a&dry-run=1", "admin")[0] == 200
    assert ask(cluster, "PUT", "/2/modify", "admin", password="wrong", body={})[0] == 401
    assert ask(cluster, "GET", "/2/no-such-thing", "admin")[0] == 404
    assert not os.path.lexists(trail.path)
    cluster.set_rapi_users("admin secret write\nnoc x @readonly\n")
    assert ask(cluster, "PUT", "/2/modify", "noc", body={})[0] == 403
    assert [record["user"] for record in trail.records()] == ["noc"]
    unconfigure(cluster)
    trail.remove()
