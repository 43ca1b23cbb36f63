# SPDX-License-Identifier: BSD-2-Clause
"""Policies and users files that are wrong, change or vanish: nothing is ever opened by it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.cluster.test_unconfigured import anonymous_allowed, unconfigure
from tests.cluster.vcluster import DAEMON_UTIL, POLICY_FILE, Cluster
from tests.waiting import wait_for

OWN, FOREIGN = "web1.test.example.com", "db1.prod.example.com"
LAST_GOOD = "var/lib/ganeti/rapi/access.last-good.yaml"

GOOD = """\
version: 1
roles:
  web:
    permissions: [instances.reboot]
    scope:
      instances: {name: "*.test.example.com"}
"""
#: The same role, for the other instances.
OTHER = GOOD.replace("*.test", "*.prod")
USERS = "admin secret write\nreader x read\nweb x @web\n"


def reboots(cluster: Cluster, name: str, user: str = "web") -> int:
    """The status of a reboot that has no effect: 400 for whoever may, else 403 or 404."""
    return cluster.rapi("POST", f"/2/instances/{name}/reboot?dry-run=x", user=user)[0]


def rights(cluster: Cluster) -> tuple[int, int]:
    """What the user may do to either instance."""
    return reboots(cluster, OWN), reboots(cluster, FOREIGN)


GRANTED, OTHERWISE, NOTHING = (400, 404), (404, 400), (403, 403)


def policy_path(cluster: Cluster) -> str:
    """Where the master's policy lies."""
    return cluster.node_path(cluster.master, POLICY_FILE)


def put(cluster: Cluster, data: bytes) -> None:
    """Writes the policy of the master, as `set_policy` does, whatever it is."""
    path = policy_path(cluster)
    with open(path + ".new", "wb") as stream:
        stream.write(data)
    os.chmod(path + ".new", 0o644)
    os.rename(path + ".new", path)


def lines(text: str) -> list[str]:
    """The lines of a log that are about a policy that is not taken."""
    return [line for line in text.splitlines() if "Access policy not taken" in line]


@contextlib.contextmanager
def one_line(cluster: Cluster, *parts: str) -> Iterator[None]:
    """Waits for a complaint; it is one line, of this process alone, and has all parts."""
    before = len(cluster.rapi_log())
    yield
    wait_for(lambda: bool(lines(cluster.rapi_log()[before:])))
    # Whatever else the same change may set off has happened when the next request is answered.
    cluster.rapi("GET", "/version", user="admin")
    found = lines(cluster.rapi_log()[before:])
    assert len(found) == 1, found
    assert all(part in found[0] for part in parts), found
    assert "Traceback" not in cluster.rapi_log()[before:]


@pytest.fixture(scope="module", name="prepared")
def _prepared(cluster: Cluster) -> Iterator[Cluster]:
    unconfigure(cluster)
    try:
        with cluster.rapi_logs("rapi-access.yaml loaded"):
            cluster.set_policy(GOOD)
        cluster.set_rapi_users(USERS)
        yield cluster
    finally:
        unconfigure(cluster)


@pytest.fixture(name="good")
def _good(prepared: Cluster) -> Iterator[Cluster]:
    """The cluster with the good policy in force."""
    path = policy_path(prepared)
    yield prepared
    if os.path.isdir(path) and not os.path.islink(path):
        os.rmdir(path)
    with prepared.rapi_logs("rapi-access.yaml loaded"):
        put(prepared, GOOD.encode())


#: What is wrong -> the file, and what the log must say of it.
BAD: dict[str, tuple[bytes, list[str]]] = {
    "wrong-key": (b"version: 1\nrole: {}\n", ["line 2, column 1", "unknown key 'role'", "'roles'"]),
    "inner-key": (GOOD.encode().replace(b"scope", b"scpoe"), ["line 5, column 5", "'scpoe'", "'scope'"]),
    "selector-key": (GOOD.encode().replace(b"{name:", b"{nmae:"), ["line 6", "'nmae'", "'name'"]),
    "unknown-kind": (GOOD.encode().replace(b"instances:", b"instance:"), ["line 6, column 7", "'instances'"]),
    "wrong-type": (b"version: 1\nroles: [web]\n", ["line 2, column 8", "must be a mapping"]),
    "text-for-list": (GOOD.encode().replace(b"[instances.reboot]", b"instances.reboot"), ["line 4, column 18", "list"]),
    "boolean-name": (GOOD.encode().replace(b'"*.test.example.com"', b"yes"), ["line 6", "quotes"]),
    "version": (GOOD.encode().replace(b"version: 1", b"version: 2"), ["line 1, column 10", "version: 1"]),
    "no-version": (b"roles: {}\n", ["line 1, column 1", "lacks `version: 1`"]),
    "permission": (
        GOOD.encode().replace(b"s.reboot", b"s.rebot"),
        ["line 4, column 19", "did you mean 'instances.reboot'"],
    ),
    "builtin": (GOOD.encode().replace(b"[instances.reboot]", b'["@operater"]'), ["line 4", "'@operator'"]),
    "never-scoped": (GOOD.encode().replace(b"instances.reboot", b"cluster.modify"), ["line 4", "cluster.modify"]),
    "duplicate-key": (GOOD.encode() + b"  web:\n    permissions: [instances.remove]\n", ["line 7, column 3", "twice"]),
    "duplicate-top": (GOOD.encode() + b"version: 1\n", ["line 7, column 1", "twice"]),
    "tab": (GOOD.encode().replace(b"    scope", b"\tscope"), ["line 5, column 1", "tab"]),
    "anchor": (GOOD.encode().replace(b"[inst", b"&a [inst"), ["line 4", "anchors"]),
    "tag": (GOOD.encode().replace(b"[inst", b"!!python/object/apply:os.system [inst"), ["line 4"]),
    "not-utf-8": (GOOD.encode().replace(b"web", b"w\xff"), ["line 3, column 4", "UTF-8"]),
    "control": (GOOD.encode().replace(b"web", b"w\x01"), ["line 3, column 4", "not allowed"]),
    "half": (GOOD.encode()[:-30], ["line "]),
    "empty": (b"", ["line 1, column 1", "empty"]),
    "comment-only": (b"# nothing\n", ["line ", "empty"]),
    "two-documents": (GOOD.encode() + b"---\n" + GOOD.encode(), ["line 7"]),
    "deep": (b"[" * 1500, ["line 1"]),
    "pattern": (GOOD.encode().replace(b"*.test", b"*.TEST"), ["line 6", "lower-case"]),
    "built-in-name": (GOOD.encode().replace(b"web", b"admin"), ["line 3, column 3", "built-in"]),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_policy(good: Cluster, kind: str) -> None:
    """The running policy stays; one line tells file, line, column and the nearest right word."""
    data, parts = BAD[kind]
    with one_line(good, "rapi-access.yaml: ", "the policy before it stays in force", *parts):
        put(good, data)
    assert rights(good) == GRANTED


def no_permission(path: str) -> None:
    """The daemon is not root."""
    os.chmod(path, 0o600)


def group_writable(path: str) -> None:
    """Its group could have written it."""
    os.chmod(path, 0o664)


def everybodys(path: str) -> None:
    """Anybody could have written it."""
    os.chmod(path, 0o646)


def not_roots(path: str) -> None:
    """Somebody else could have written it."""
    shutil.chown(path, "nobody")


def the_daemons(path: str) -> None:
    """The daemon itself could have written it."""
    shutil.chown(path, "gnt-rapi")


@pytest.mark.parametrize("spoil", [no_permission, group_writable, everybodys, not_roots, the_daemons])
def test_unsafe_policy(good: Cluster, spoil: Callable[[str], None]) -> None:
    """It is not taken, though it is right; mended by mode and owner alone, it is."""
    path = policy_path(good)
    with open(path + ".new", "w", encoding="utf-8") as stream:
        stream.write(OTHER)
    os.chmod(path + ".new", 0o644)
    spoil(path + ".new")
    with one_line(good, "rapi-access.yaml"):
        os.rename(path + ".new", path)
    assert rights(good) == GRANTED
    with good.rapi_logs("rapi-access.yaml loaded"):
        os.chown(path, 0, 0)
        os.chmod(path, 0o644)
    assert rights(good) == OTHERWISE


def vanished(path: str) -> None:
    """It is gone."""
    os.unlink(path)


def link(path: str) -> None:
    """It is a link, though to a file of root's."""
    os.rename(path, path + ".real")
    os.symlink(path + ".real", path)


def dangling(path: str) -> None:
    """It is a link to nothing."""
    os.unlink(path)
    os.symlink("/no/such/file", path)


def directory(path: str) -> None:
    """It is a directory."""
    os.unlink(path)
    os.mkdir(path)


def fifo(path: str) -> None:
    """It is a fifo, which nobody writes to: reading it must not hold the daemon."""
    os.unlink(path)
    os.mkfifo(path)


@pytest.mark.parametrize("spoil", [vanished, link, dangling, directory, fifo])
def test_no_policy_file(good: Cluster, spoil: Callable[[str], None]) -> None:
    before = len(good.rapi_log())
    spoil(policy_path(good))
    wait_for(lambda: bool(lines(good.rapi_log()[before:])))
    assert rights(good) == GRANTED
    with contextlib.suppress(FileNotFoundError):
        os.unlink(policy_path(good) + ".real")


def kill(cluster: Cluster) -> None:
    """The daemon dies, as in a crash, and is started again."""
    os.kill(cluster.daemon_pid("rapi"), signal.SIGKILL)
    # Ganeti's own trouble: start-stop-daemon does not trust the file that is left, of gnt-rapi.
    os.unlink(cluster.node_path(cluster.master, "var/run/ganeti/ganeti-rapi.pid"))
    wait_for(lambda: cluster.gnt(DAEMON_UTIL, "check", "ganeti-rapi", check=False).returncode != 0)
    cluster.gnt(DAEMON_UTIL, "start", "ganeti-rapi")
    cluster.wait_rapi()


@pytest.mark.parametrize("spoil", [b"version: 2\n", b"", None])
def test_last_good_copy(good: Cluster, spoil: bytes | None) -> None:
    """A daemon that starts with a bad file, or without one, goes by the last good copy."""
    with one_line(good):
        if spoil is None:
            os.unlink(policy_path(good))
        else:
            put(good, spoil)
    with one_line(good, "the last good one is in force"):
        kill(good)
    assert rights(good) == GRANTED
    assert os.stat(good.node_path("node1", LAST_GOOD)).st_mode & 0o077 == 0


def test_killed_daemon(good: Cluster) -> None:
    kill(good)
    assert rights(good) == GRANTED


def test_spoilt_copy(good: Cluster) -> None:
    """Neither file nor copy: the roles grant nothing, and nothing is anonymous."""
    with one_line(good):
        put(good, b"version: 2\n")
    copy = good.node_path("node1", LAST_GOOD)
    with open(copy, "w", encoding="utf-8") as stream:
        stream.write("version: 3\n")
    with one_line(good, "its roles grant nothing"), anonymous_allowed(good):
        kill(good)
    assert rights(good) == NOTHING
    assert good.rapi("GET", "/2/instances")[0] == 401
    assert good.rapi("GET", "/2/instances", user="reader")[0] == 200


def test_bad_first_policy(good: Cluster) -> None:
    """It grants nothing and opens nothing."""
    unconfigure(good)
    good.set_rapi_users(USERS)
    assert rights(good) == NOTHING
    with one_line(good, "its roles grant nothing"):
        put(good, b"version: 2\n")
    assert rights(good) == NOTHING
    assert good.rapi("GET", "/2/instances", user="web")[0] == 403
    assert good.rapi("GET", "/2/instances", user="reader")[0] == 200
    with good.rapi_logs("rapi-access.yaml loaded"):
        put(good, OTHER.encode())
    assert rights(good) == OTHERWISE


def test_policy_changes(good: Cluster) -> None:
    """Users are worked out anew: their file did not change."""
    for data, expected in ((OTHER, OTHERWISE), (GOOD, GRANTED)):
        with good.rapi_logs("rapi-access.yaml loaded"):
            put(good, data.encode())
        assert rights(good) == expected
    with good.rapi_logs("unknown role '@web'"), good.rapi_logs("rapi-access.yaml loaded"):
        put(good, GOOD.replace("web:", "wep:").encode())
    assert rights(good) == NOTHING


def test_written_in_place(good: Cluster) -> None:
    """An editor that writes the file itself: what counts is the end."""
    with good.rapi_logs("rapi-access.yaml loaded"), open(policy_path(good), "w", encoding="utf-8") as stream:
        for line in OTHER.splitlines(keepends=True):
            stream.write(line)
            stream.flush()
    assert rights(good) == OTHERWISE


# --- the users file ----------------------------------------------------------------------

#: A third column that is not right -> what the log must say of it.
TOKENS = {
    "@weeb": "unknown role '@weeb'; did you mean '@web'?",
    "@": "unknown role '@'",
    "+instances.rebot": "did you mean 'instances.reboot'",
    "instances.*": "unknown token 'instances.*'",
    "-instances.rebot,write": "granted nothing",
    "@web,+nodes.list": "beside the limited role @web",
    "@weeb  # a comment": "unknown role",
}


@pytest.mark.parametrize("tokens", TOKENS)
def test_bad_tokens(good: Cluster, tokens: str) -> None:
    """They grant nothing and open nothing, not even what everybody may read; one line tells."""
    before = len(good.rapi_log())
    good.set_rapi_users(f"admin secret write\nodd x {tokens}\n")
    good.rapi("GET", "/version", user="admin")  # answered once the file is worked out
    found = [line for line in good.rapi_log()[before:].splitlines() if "user 'odd'" in line]
    assert len(found) == 1 and TOKENS[tokens] in found[0], found
    own = 400 if tokens.startswith("@web,") else 403
    assert reboots(good, OWN, "odd") == own
    for path in ("/2/instances", "/2/nodes", "/2/info", "/2/jobs", "/2/query/instance?fields=name"):
        assert good.rapi("GET", path, user="odd")[0] == 403, path
    assert good.rapi("PUT", "/2/modify", user="odd", body={})[0] == 403
    good.set_rapi_users(USERS)


def test_users_change_without_restart(good: Cluster) -> None:
    pid = good.daemon_pid("rapi")
    good.set_rapi_users("admin secret write\nweb x @operator\n")
    assert rights(good) == (400, 400)
    good.set_rapi_users("admin secret write\nweb x\n")
    assert rights(good) == NOTHING
    assert good.rapi("GET", "/2/instances", user="web")[0] == 200
    good.set_rapi_users("admin secret write\nweb x @web,-instances.reboot\n")
    assert rights(good) == NOTHING
    good.set_rapi_users("admin secret write\n")
    assert good.rapi("GET", "/2/instances", user="web", password="x")[0] == 401
    good.set_rapi_users(USERS)
    assert rights(good) == GRANTED
    assert good.daemon_pid("rapi") == pid


def test_users_file_that_cannot_be_read(good: Cluster) -> None:
    """Nobody gets in, as with Ganeti's own."""
    path = good.node_path("node1", "var/lib/ganeti/rapi/users")
    with good.rapi_logs("No users file"):
        os.rename(path, path + ".away")
    assert good.rapi("GET", "/2/instances", user="admin")[0] == 401
    with good.rapi_logs("Reading users file"):
        os.rename(path + ".away", path)
    assert rights(good) == GRANTED


def test_changes_while_requests_run(good: Cluster) -> None:
    """Between two right policies, and two right users files, there is no moment that is neither."""
    stop = threading.Event()
    seen: list[tuple[int, ...]] = []
    failures: list[Exception] = []

    def ask() -> None:
        while not stop.is_set():
            try:
                plain = good.rapi("GET", "/2/instances", user="web", password="x")[0]
                write = good.rapi("PUT", "/2/modify", user="web", password="x", body={"no_such_parameter": 1})[0]
                own = good.rapi("POST", f"/2/instances/{OWN}/reboot?dry-run=x", user="web", password="x")[0]
                seen.append((plain, write, own))
            except Exception as err:
                failures.append(err)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            for data in (OTHER, "version: 2\n", GOOD):
                put(good, data.encode())
            good.set_rapi_users(USERS + "# changed\n")
            good.set_rapi_users(USERS)
        wait_for(lambda: len(seen) >= 20)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert {(plain, write) for plain, write, _ in seen} == {(403, 403)}
    assert {own for _, _, own in seen} <= {400, 404}


# --- anonymous ---------------------------------------------------------------------------

OPEN = ("/", "/version", "/2", "/2/features")
READS = ("/2/instances", "/2/nodes", "/2/info", "/2/jobs?bulk=1", f"/2/instances/{OWN}/tags", "/2/query/node/fields")


def anonymous(cluster: Cluster, paths: tuple[str, ...]) -> set[int]:
    """The statuses of requests without credentials."""
    return {cluster.rapi("GET", path)[0] for path in paths}


def test_anonymous_reads_end_with_a_token_or_a_policy(good: Cluster) -> None:
    """Open as in Ganeti until something of ours is configured, then closed but for the four."""
    unconfigure(good)
    with anonymous_allowed(good):
        good.restart("rapi")
    assert anonymous(good, OPEN + READS) == {200}
    good.set_rapi_users("admin secret write\nodd x @no-such-role\n")
    assert (anonymous(good, OPEN), anonymous(good, READS)) == ({200}, {401})
    good.set_rapi_users("admin secret write\nplain x\n")
    assert anonymous(good, OPEN + READS) == {200}
    with good.rapi_logs("rapi-access.yaml loaded"):
        put(good, GOOD.encode())
    assert (anonymous(good, OPEN), anonymous(good, READS)) == ({200}, {401})
    with one_line(good):
        os.unlink(policy_path(good))
    assert (anonymous(good, OPEN), anonymous(good, READS)) == ({200}, {401})
    assert good.rapi("GET", "/no-such-path")[0] == 404
    good.restart("rapi")
    good.set_rapi_users(USERS)
