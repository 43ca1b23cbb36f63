# SPDX-License-Identifier: BSD-2-Clause
"""The mail's case, as a policy and as a middleware, and middleware that is not let in."""

from __future__ import annotations

import html
import json
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.cluster.table import ROWS
from tests.cluster.tenancy import last_job
from tests.cluster.test_unconfigured import endpoints, unconfigure
from tests.cluster.vcluster import DAEMON_UTIL, Cluster

EXAMPLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "examples", "test-domain")
OWN, FOREIGN = "web1.test.example.com", "db1.prod.example.com"

#: The endpoints of the mail's script, without the query resource.
MAIL = {
    ("GET", "/2/jobs/{job}/wait"),
    ("POST", "/2/instances"),
    ("DELETE", "/2/instances/{instance}"),
    ("PUT", "/2/instances/{instance}/tags"),
    ("DELETE", "/2/instances/{instance}/tags"),
    ("POST", "/2/instances/{instance}/reboot"),
    ("PUT", "/2/instances/{instance}/startup"),
    ("PUT", "/2/instances/{instance}/shutdown"),
}
OPEN = {"/", "/2", "/version", "/2/features"}
#: What Ganeti lets everybody read; of those the two that submit a job.
OPEN_TO_ALL = {row.endpoint for row in ROWS if row.access == "any"}
JOBS = {("GET", "/2/os"), ("GET", "/2/instances/{instance}/info")}
CREATE = {
    "__version__": 1, "mode": "create", "disk_template": "diskless", "disks": [], "nics": [], "os": "noop",
    "beparams": {"memory": 128},
}  # fmt: skip


def read(name: str) -> str:
    """A file of the example."""
    with open(os.path.join(EXAMPLE, name), encoding="utf-8") as stream:
        return stream.read()


def importable_directory() -> str:
    """A directory on the daemon's path in which only root writes."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for directory in (f"/usr/local/lib/{version}/dist-packages", "/usr/lib/python3/dist-packages"):
        path = directory
        while os.path.isdir(path):
            status = os.stat(path)
            if status.st_uid != 0 or stat.S_IMODE(status.st_mode) & 0o022:
                break
            if path == "/":
                return directory
            path = os.path.dirname(path)
    raise AssertionError("no directory on the path is root's alone")


@pytest.fixture(name="module")
def _module() -> Iterator[Callable[[str], str]]:
    """Makes an importable module of a text, and tells its name."""
    made: list[str] = []

    def make(text: str) -> str:
        name = "ganeti_ext_test_" + secrets.token_hex(4)
        made.append(os.path.join(importable_directory(), name + ".py"))
        with open(made[-1], "w", encoding="utf-8") as stream:
            stream.write(text)
        os.chmod(made[-1], 0o644)
        return name

    yield make
    for path in made:
        os.unlink(path)


@pytest.fixture(name="place")
def _place(cluster: Cluster) -> Iterator[str]:
    """A directory on the cluster for a file of a middleware, root's alone."""
    path = cluster.node_path("node1", f"etc/ganeti/middleware-{secrets.token_hex(4)}")
    os.mkdir(path)
    os.chmod(path, 0o755)
    yield path
    shutil.rmtree(path)


def write(path: str, text: str) -> str:
    """Writes a file that only root may write; its path."""
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(text)
    os.chmod(path, 0o644)
    return path


@pytest.fixture(name="case", params=["policy", "middleware"])
def _case(request: pytest.FixtureRequest, cluster: Cluster, module: Callable[[str], str]) -> Iterator[Cluster]:
    """The cluster with the mail's case configured, in either way; the user is `test1`."""
    unconfigure(cluster)
    token = "test"
    if request.param == "policy":
        token = "@test-operator"
        with cluster.rapi_logs("rapi-access.yaml loaded"):
            cluster.set_policy(read("rapi-access.yaml"))
    else:
        cluster.restart("rapi", args=["--middleware", module(read("middleware.py"))])
    cluster.set_rapi_users(f"admin secret write\nreader x read\ntest1 x {token}\n")
    yield cluster
    unconfigure(cluster)


def ask(cluster: Cluster, method: str, path: str, body: Any = None, user: str = "test1") -> tuple[int, Any]:
    """A request's status and what the answer says."""
    status, _, answer = cluster.rapi(method, path, user=user, body=body)
    return status, json.loads(answer)


def wait(cluster: Cluster, job: int) -> str:
    """Waits for the user's own job, by the endpoint of the mail; its last status."""
    seen: list[str] = []
    while not seen or seen[0] not in ("success", "error", "canceled"):
        body = {"fields": ["status"], "previous_job_info": seen or None}
        status, answer = ask(cluster, "GET", f"/2/jobs/{job}/wait", body)
        assert status == 200, answer
        seen = answer["job_info"] if answer else seen
    return seen[0]


def test_the_mails_case(case: Cluster, request: pytest.FixtureRequest) -> None:
    """An application makes, runs and removes instances with one suffix, and nothing else.

    With the policy it has no reads; with the middleware those that Ganeti gives to everybody, cut to what is its own.
    """
    new = "new.test.example.com"
    done = [
        ("POST", "/2/instances", {**CREATE, "name": new}),
        ("PUT", f"/2/instances/{new}/tags?tag=a&tag=b", None),
        ("DELETE", f"/2/instances/{new}/tags?tag=a", None),
        ("POST", f"/2/instances/{new}/reboot", None),
        ("PUT", f"/2/instances/{new}/shutdown", None),
        ("PUT", f"/2/instances/{new}/startup", None),
        ("DELETE", f"/2/instances/{new}", None),
    ]
    for method, path, body in done:
        status, job = ask(case, method, path, body)
        assert status == 200, (method, path, job)
        assert wait(case, job) == "success", (method, path, case.job(job))

    before = last_job(case)
    outside = [FOREIGN, "db9.prod.example.com", "test.example.com", "eviltest.example.com", "db1", OWN.upper()]
    for name in [*outside, "x.test.example.com.prod.example.com"]:
        body = {**CREATE, "name": name}
        assert ask(case, "POST", "/2/instances", body)[0] == 404, name
        for method, path, _ in done[1:]:
            assert ask(case, method, path.replace(new, name))[0] == 404, (method, path, name)
    # What she could not do with Ganeti's own names either.
    body = {**CREATE, "name": new, "hvparams": {"kvm_path": "/tmp/x"}}
    assert ask(case, "POST", "/2/instances", body)[0] == 403
    body = {"instances": [{**CREATE, "name": FOREIGN}]}
    assert ask(case, "POST", "/2/instances-multi-alloc", body)[0] == 403
    # Jobs: not the administrator's.
    assert ask(case, "GET", "/2/jobs/1/wait", {"fields": ["status", "ops"]})[0] == 404
    assert last_job(case) == before

    names = {
        "node": "node1", "instance": OWN, "group": "default", "network": "net1", "job": "1", "disk": "0",
        "filter": "none", "query": "instance",
    }  # fmt: skip
    reads = request.node.callspec.params["case"] == "middleware"
    for method, path in endpoints():
        if (method, path) in MAIL or (method, path) in JOBS:
            continue
        status, answer = ask(case, method, path.format(**names))
        # `tags.set` is about tags of any kind, of which no other object is in her scope; and who may
        # wait for her own jobs may read them.
        wanted = {403, 404} if path.endswith("/tags") or path == "/2/jobs/{job}" else {403}
        if path in OPEN:
            wanted = {200}
        elif reads and (method, path) in OPEN_TO_ALL:
            wanted = {200, 404} if "filters" not in path else {403}
        assert status in wanted and FOREIGN not in json.dumps(answer), (method, path, answer)
    assert last_job(case) == before

    assert ask(case, "GET", "/2/instances", user="reader")[0] == 200
    assert ask(case, "DELETE", f"/2/instances/{OWN}", user="reader")[0] == 403
    status, job = ask(case, "PUT", f"/2/instances/{FOREIGN}/tags?tag=a&dry-run=1", user="admin")
    assert status == 200
    assert case.job(job)[0] == "success"


@pytest.mark.parametrize("way", ["--middleware FILE", "--middleware=FILE", "--middleware=MODULE", "variable", "both"])
def test_ways_to_name_it(cluster: Cluster, module: Callable[[str], str], place: str, way: str) -> None:
    """Option or variable, module or file; the option wins."""
    name = module(read("middleware.py")) if "MODULE" in way else write(place + "/domain.py", read("middleware.py"))
    args, env = {
        "--middleware FILE": (["--middleware", name], {}),
        "--middleware=FILE": ([f"--middleware={name}"], {}),
        "--middleware=MODULE": ([f"--middleware={name}"], {}),
        "variable": ([], {"GANETI_RAPI_MIDDLEWARE": name}),
        "both": (["--middleware", name], {"GANETI_RAPI_MIDDLEWARE": "no.such.module"}),
    }[way]
    try:
        cluster.restart("rapi", args=args, env=env)
        cluster.set_rapi_users("admin secret write\ntest1 x test\n")
        before = last_job(cluster)
        assert ask(cluster, "DELETE", f"/2/instances/{FOREIGN}")[0] == 404
        status, listed = ask(cluster, "GET", "/2/instances")
        assert status == 200 and {one["id"] for one in listed} == {OWN, "web2.test.example.com"}
        assert ask(cluster, "POST", f"/2/instances/{OWN}/reboot?dry-run=x")[0] == 400
        assert ask(cluster, "GET", "/2/instances", user="admin")[0] == 200
        assert last_job(cluster) == before
    finally:
        unconfigure(cluster)


CLASS = "from ganeti_ext import middleware\n\n\nclass RemoteApiHandler(middleware.RemoteApiHandler):\n    pass\n"
#: Texts that are no middleware -> a part of the reason.
BROKEN = {
    "syntax": ("class RemoteApiHandler(:\n", "SyntaxError"),
    "exit": ("import sys\nsys.exit(0)\n", "SystemExit"),
    "import": ("import no_such_thing\n", "no_such_thing"),
    "no-class": ("x = 1\n", "has no class RemoteApiHandler"),
    "not-derived": ("class RemoteApiHandler:\n    pass\n", "has no class RemoteApiHandler"),
    "ganetis-own": ("from ganeti.server.rapi import RemoteApiHandler\n", "has no class RemoteApiHandler"),
}


def refuses(cluster: Cluster, reason: str) -> None:
    """Checks that the daemon runs, and refuses all but `/version` with a reason, whoever asks."""
    assert cluster.rapi("GET", "/version", user="admin")[::2] == (200, b"2\n")
    for method, path, user, password in (
        ("GET", "/2/instances", "admin", None),
        ("GET", "/2/instances", "admin", "wrong"),
        ("PUT", "/2/modify", "admin", None),
        ("GET", "/2/info", None, None),
        ("GET", "/", None, None),
        ("GET", "/no-such-path", None, None),
    ):
        status, _, answer = cluster.rapi(method, path, user=user, password=password)
        assert status == 503, (method, path, user, answer)
        assert reason in html.unescape(json.loads(answer)["message"]), answer
    assert cluster.rapi("GET", "/version?x=1", user="admin")[0] == 200
    assert cluster.rapi("GET", "/version/../2/instances", user="admin")[0] == 503
    assert cluster.gnt(DAEMON_UTIL, "check", "ganeti-rapi", check=False).returncode == 0
    assert cluster.rapi_log().count("Every request is refused") >= 1


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_middleware(cluster: Cluster, place: str, kind: str) -> None:
    text, reason = BROKEN[kind]
    path = write(place + "/broken.py", text)
    try:
        cluster.restart("rapi", args=["--middleware", path])
        refuses(cluster, reason)
    finally:
        cluster.restart("rapi")
    assert cluster.rapi("GET", "/2/instances", user="admin")[0] == 200


@pytest.mark.parametrize("name", ["no.such.module", "/no/such/file.py", "/etc/hosts", "", "."])
def test_missing_middleware(cluster: Cluster, name: str) -> None:
    try:
        cluster.restart("rapi", args=[f"--middleware={name}"])
        refuses(cluster, "middleware")
    finally:
        cluster.restart("rapi")


def owner(path: str) -> None:
    """The file belongs to somebody else."""
    shutil.chown(path, "nobody")


def group(path: str) -> None:
    """The file may be written by its group."""
    os.chmod(path, 0o664)


def directory(path: str) -> None:
    """The directory may be written by everybody."""
    os.chmod(os.path.dirname(path), 0o777)


def sticky(path: str) -> None:
    """The directory is like /tmp."""
    os.chmod(os.path.dirname(path), 0o1777)


def link(path: str) -> None:
    """It is a link to a file in a directory that anybody may write."""
    unsafe = os.path.join(os.path.dirname(path), "unsafe")
    os.mkdir(unsafe)
    os.rename(path, os.path.join(unsafe, "real.py"))
    os.chmod(unsafe, 0o777)
    os.symlink("unsafe/real.py", path)


@pytest.mark.parametrize("spoil", [owner, group, directory, sticky, link])
def test_unsafe_middleware(cluster: Cluster, place: str, spoil: Callable[[str], None]) -> None:
    """Right in itself, but somebody else could have written it: it is not even run."""
    ran = os.path.join(place, "ran")
    path = write(place + "/domain.py", CLASS + f"\nopen({ran!r}, 'w').close()\n")
    spoil(path)
    try:
        cluster.restart("rapi", args=["--middleware", path])
        refuses(cluster, "reached by a link" if spoil is link else "must be root's alone")
        assert not os.path.exists(ran)
    finally:
        cluster.restart("rapi")
