# SPDX-License-Identifier: BSD-2-Clause
"""Installed and not configured, the remote API answers as Ganeti's own does, byte by byte."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest
from ganeti.rapi import connector

from ganeti_ext import compat
from tests.cluster.vcluster import DAEMON_UTIL, DEFAULT_USERS, Cluster

#: Where there is something once it is configured.
OUR_OWN = "/2/nodes/node1/restricted-command"
WHOAMI = "/2/ext/whoami"
METHODS = ("GET", "PUT", "POST", "DELETE")
OURS, STOCK = "/usr/sbin/ganeti-rapi", "/usr/sbin/ganeti-rapi.distrib"
INSTANCE = "web1.test.example.com"

USERS = """\
admin secret write
reader x read
plain x
stranger x some-option
"""


def endpoints() -> dict[tuple[str, str], type]:
    """Everything that Ganeti serves: (method, path) -> resource class; paths as `/2/nodes/{node}`."""

    def path(*parts: Any) -> str:
        return "".join(part if isinstance(part, str) else part.content for part in parts)

    kinds = ("node", "instance", "group", "network", "job", "disk", "filter", "query")
    handlers = connector.GetHandlers(*("{" + kind + "}" for kind in kinds), translate=path)
    return {
        (method, path): resource
        for path, resource in handlers.items()
        for method in METHODS
        if hasattr(resource, method) or hasattr(resource, method + "_OPCODE")
    }


def unconfigure(cluster: Cluster) -> None:
    """Brings the remote API back to what it is after installation: no policy, no token of ours."""
    cluster.remove_policy()
    # First, or it could still be taking the policy, and write the copy anew.
    cluster.run(cluster.master, DAEMON_UTIL, "stop", "ganeti-rapi")
    for node in cluster.nodes:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(cluster.node_path(node, "var/lib/ganeti/rapi/access.last-good.yaml"))
    cluster.restart("rapi")
    cluster.set_rapi_users(DEFAULT_USERS)


@contextlib.contextmanager
def stock_rapi(cluster: Cluster) -> Iterator[None]:
    """Ganeti's own `ganeti-rapi` in the place of ours, inside the cluster only.

    The caller restarts the daemon.
    """
    # Not by a mount upon the file: the script must be found where its `ganeti` package is.
    directory = os.path.dirname(os.path.realpath(OURS))
    with tempfile.TemporaryDirectory(dir=cluster.root) as stock:
        os.chmod(stock, 0o755)
        shutil.copytree(directory, stock, dirs_exist_ok=True)
        os.unlink(os.path.join(stock, "ganeti-rapi"))
        os.symlink(os.path.realpath(STOCK), os.path.join(stock, "ganeti-rapi"))
        cluster.enter("mount", "--bind", stock, directory)
        try:
            yield
        finally:
            cluster.enter("umount", directory)


@contextlib.contextmanager
def anonymous_allowed(cluster: Cluster) -> Iterator[None]:
    """Without `--require-authentication`; the caller restarts the daemon."""
    path = cluster.node_path(cluster.master, "etc/default/ganeti")
    with open(path, encoding="utf-8") as stream:
        before = stream.read()
    changed = before.replace("--require-authentication", "")
    assert changed != before
    try:
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(changed)
        yield
    finally:
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(before)


class Asked(NamedTuple):
    """One request."""

    method: str
    path: str
    user: str | None = "admin"
    password: str | None = None
    body: Any = None
    content_type: str = "application/json"


Answer = tuple[int, list[tuple[str, str]], bytes]

#: What changes by itself between two answers: the free memory and disk of this machine.
LIVE = re.compile(rb'("(?:mfree|mnode|dfree|sptotal|spfree)": )-?[0-9]+')


def ask(cluster: Cluster, asked: Asked) -> Answer:
    """One request: status, headers and body, without the date and what changes by itself."""
    fields = {"Content-Type": asked.content_type} if asked.body is not None else None
    status, headers, body = cluster.rapi(
        asked.method, asked.path, user=asked.user, password=asked.password, body=asked.body, headers=fields
    )
    assert asked.method == "HEAD" or int(headers["Content-Length"]) == len(body)
    kept = [header for header in headers.items() if header[0] not in ("Date", "Content-Length")]
    if asked.path == "/2/features" and status == 200:  # a set, in the order of the day
        body = json.dumps(sorted(json.loads(body))).encode()
    return status, kept, LIVE.sub(rb"\1N", body)


class Twins:
    """The same requests to both daemons, in turn, on one cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        cluster.gnt("gnt-network", "add", "--network=198.51.100.0/28", "net1")
        cluster.gnt("gnt-filter", "add", "--priority=9", "--action=CONTINUE")
        self.last_job = int(cluster.luxi("QueryJobs", None, ["id"])[-1][0])
        self.names = {
            "node": "node1", "instance": INSTANCE, "group": "default", "network": "net1", "disk": "0",
            "job": str(self.last_job), "query": "instance",
            "filter": cluster.luxi("QueryFilters", None, ["uuid"])[0][0],
        }  # fmt: skip

    def restore(self) -> None:
        """Undoes what was made."""
        self.cluster.gnt("gnt-filter", "delete", self.names["filter"])
        self.cluster.gnt("gnt-network", "remove", "net1")

    @contextlib.contextmanager
    def drained(self) -> Iterator[None]:
        """With a job queue that takes no jobs."""
        self.cluster.gnt("gnt-cluster", "queue", "drain")
        try:
            yield
        finally:
            self.cluster.gnt("gnt-cluster", "queue", "undrain")

    def both(self, requests: list[Asked]) -> list[tuple[Asked, Answer, Answer]]:
        """Each request with our answer and Ganeti's own."""
        answers: list[list[Answer]] = []
        for daemon in (contextlib.nullcontext(), stock_rapi(self.cluster)):
            with daemon:
                self.cluster.restart("rapi")
                assert self.is_ours() != bool(answers)
                with ThreadPoolExecutor(4) as pool:
                    answers.append(list(pool.map(lambda asked: ask(self.cluster, asked), requests)))
        return list(zip(requests, *answers))

    def is_ours(self) -> bool:
        """Whether the daemon that runs now is ours, which starts without the environment's Python path."""
        with open(f"/proc/{self.cluster.daemon_pid('rapi')}/cmdline", "rb") as stream:
            return stream.read().split(b"\0")[1] == b"-I"

    def old_jobs(self, answer: Answer) -> Answer:
        """A list of jobs without those that were made meanwhile."""
        status, headers, body = answer
        jobs = [job for job in json.loads(body) if int(job["id"]) <= self.last_job]
        return status, headers, json.dumps(jobs).encode()

    def gets(self) -> list[str]:
        """The path of each endpoint with GET, with real names; lists also in bulk."""
        paths = []
        for (method, template), resource in endpoints().items():
            path = template.format(**self.names)
            if method == "GET":
                paths.append(path)
                if path == template and "useBulk" in resource.GET.__code__.co_names:  # type: ignore[attr-defined]
                    paths.append(path + "?bulk=1")
        return paths


@pytest.fixture(scope="module", name="twins")
def _twins(cluster: Cluster) -> Iterator[Twins]:
    unconfigure(cluster)
    cluster.set_rapi_users(USERS)
    twins = Twins(cluster)
    try:
        yield twins
    finally:
        twins.restore()
        unconfigure(cluster)


def differences(twins: Twins, answers: list[tuple[Asked, Answer, Answer]]) -> list[tuple[Asked, Answer, Answer]]:
    """The requests that were answered differently."""
    assert answers
    found = []
    for asked, ours, stock in answers:
        if asked.path.split("?")[0] == "/2/jobs" and ours[0] == stock[0] == 200:
            ours, stock = twins.old_jobs(ours), twins.old_jobs(stock)
        if ours != stock:
            found.append((asked, ours, stock))
    return found


def test_every_get(twins: Twins) -> None:
    """With what it costs: live data of nodes and instances, jobs for two of them."""
    paths = twins.gets()
    assert len(paths) >= 35
    paths += [f"/2/query/{kind}?fields=name" for kind in ("node", "instance", "group", "network", "os", "export")]
    paths += ["/2/query/instance?fields=name,no-such-field", "/2/query/no-such-kind?fields=name"]
    requests = [Asked("GET", path) for path in paths]
    requests += [
        Asked("GET", f"/2/jobs/{twins.last_job}/wait", body={"fields": ["id", "status"]}),
        Asked("PUT", "/2/query/instance", "reader", body={"fields": ["name"], "qfilter": ["=", "name", INSTANCE]}),
        Asked("PUT", "/2/query/instance", body={"fields": ["name"], "filter": ["=", "name", "x"]}),
    ]
    requests += [
        Asked(method, path)
        for method in ("GET", "HEAD", "OPTIONS", "get", "PATCH")
        for path in (
            "/2/instances/no-such.example.com",
            "/2/nodes/no-such",
            "/2/jobs/999999",
            "/2/groups/x",
            "/2/networks/x",
            "/2/filters/x",
            "/2/instances/web1",
            "/2/instances/web1.test.example.com?lock=1",
            "/2/",
            "/2/x",
            "//2",
            "/2/%69nstances",
            "/2/instances/a%2fb",
            "/2/instances?bulk=x",
            "/3",
            "/2/instances/no-such/tags",
            OUR_OWN,
            WHOAMI,
            WHOAMI + "/",
        )  # fmt: skip
    ]
    answers = twins.both(requests)
    assert {asked.path for asked, ours, _ in answers if ours[0] == 200} >= {"/2/os", "/2/info", "/2/nodes?bulk=1"}
    for number, (asked, ours, stock) in enumerate(answers):
        if asked.path.endswith("/info") and asked.path != "/2/info":  # the id of a job
            assert ours[0] == stock[0] == 200 and int(ours[2]) and int(stock[2])
            answers[number] = asked, ours, ours
    assert differences(twins, answers) == []


def test_every_get_for_everybody(twins: Twins) -> None:
    """Read, no option, an option that means nothing, wrong password, unknown, anonymous."""
    accounts: list[tuple[str | None, str | None]] = [
        ("reader", None), ("plain", None), ("stranger", None), ("admin", "wrong"), ("nobody", "x"), (None, None),
    ]  # fmt: skip
    requests = [Asked("GET", path, user, password) for user, password in accounts for path in twins.gets()]
    with twins.drained():
        answers = twins.both(requests)
    assert {ours[0] for asked, ours, _ in answers if asked.user is None} == {401}
    assert {ours[0] for asked, ours, _ in answers if asked.user == "plain"} >= {200, 403}
    assert differences(twins, answers) == []


def test_anonymous(twins: Twins) -> None:
    """Without `--require-authentication` most reads are open to everybody, as ever."""
    requests = [Asked("GET", path, None) for path in twins.gets()]
    requests += [Asked("GET", "/2/instances", "admin", "wrong"), Asked("PUT", "/2/modify", None)]
    with twins.drained(), anonymous_allowed(twins.cluster):
        answers = twins.both(requests)
    assert {ours[0] for _, ours, _ in answers} >= {200, 401}
    assert differences(twins, answers) == []


BODIES: list[tuple[bytes | None, str]] = [
    (None, "application/json"),
    (b"{", "application/json"),
    (b"[1]", "application/json"),
    (b'"text"', "application/json"),
    (b"7", "application/json"),
    (b'{"no_such_parameter": 1}', "application/json"),
    (b'{"no_such_parameter": 1}', "text/plain"),
    (b"{}", "APPLICATION/JSON"),
]


#: What Ganeti says of a path that is not there; from its next release on also to whoever is not known.
NOT_THERE = {404} if compat.has_permissions() else {401, 404}


def test_bodies_of_every_kind(twins: Twins) -> None:
    """Every endpoint that changes something, with a job queue that takes no jobs."""
    requests = []
    for method, template in [*endpoints(), ("POST", OUR_OWN), ("PUT", OUR_OWN), ("POST", WHOAMI)]:
        if method == "GET":
            continue
        names = dict(twins.names, filter="no-such-filter")
        path = template.format(**names)
        # With an empty body there would be one more filter, without a job.
        bodies = BODIES[:-1] if "/filters" in path and method != "DELETE" else BODIES
        requests += [Asked(method, path, body=body, content_type=kind) for body, kind in bodies]
        requests += [Asked(method, path, user, body={}) for user in ("reader", "plain", None)]
    with twins.drained():
        answers = twins.both(requests)
    assert {ours[0] for _, ours, _ in answers} >= {400, 401, 403, 415}
    assert {ours[0] for asked, ours, _ in answers if asked.path == OUR_OWN} == NOT_THERE
    assert differences(twins, answers) == []


#: Requests that leave the cluster as it was, in this order.
CHANGES: list[tuple[str, str, Any]] = [
    ("PUT", f"/2/instances/{INSTANCE}/tags?tag=one&tag=two", None),
    ("GET", f"/2/instances/{INSTANCE}/tags", None),
    ("DELETE", f"/2/instances/{INSTANCE}/tags?tag=one&tag=two&reason=because", None),
    ("PUT", f"/2/instances/{INSTANCE}/shutdown", {"timeout": 1}),
    ("PUT", f"/2/instances/{INSTANCE}/startup?reason=a+reason", None),
    ("POST", f"/2/instances/{INSTANCE}/reboot?type=soft", {"shutdown_timeout": 1}),
    ("PUT", f"/2/instances/{INSTANCE}/modify", {"beparams": {"vcpus": 1}, "comment": "x"}),
    ("DELETE", "/2/instances/no-such.example.com?dry-run=1", None),
    ("GET", f"/2/instances/{INSTANCE}/tags", None),
]


def test_changes_and_their_jobs(twins: Twins) -> None:
    """The same changes, one after another, and each job as Ganeti keeps it, reason trail included."""
    cluster = twins.cluster

    def steady(job: dict[str, Any]) -> dict[str, Any]:
        for opcode in job["ops"]:
            opcode["reason"] = [[source, re.sub("job=[0-9]+", "job=N", text)] for source, text, _ in opcode["reason"]]
        times = dict.fromkeys(("id", "received_ts", "start_ts", "end_ts", "oplog"))
        return {**job, **times}

    def run() -> list[Any]:
        seen: list[Any] = []
        for method, path, body in CHANGES:
            status, headers, answer = ask(cluster, Asked(method, path, body=body))
            if method == "GET":
                seen.append((status, headers, sorted(json.loads(answer))))
                continue
            assert status == 200 and re.fullmatch(rb"[0-9]+\n", answer), answer
            cluster.job(int(answer))
            job = ask(cluster, Asked("GET", f"/2/jobs/{int(answer)}"))
            cancelled = ask(cluster, Asked("DELETE", f"/2/jobs/{int(answer)}"))
            text = cancelled[2].replace(answer.strip(), b"N")
            seen += [(status, headers), steady(json.loads(job[2])), job[:2], cancelled[:2], text]
        return seen

    cluster.restart("rapi")
    ours = run()
    with stock_rapi(cluster):
        cluster.restart("rapi")
        stock = run()
    assert ours == stock
