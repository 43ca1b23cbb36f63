# SPDX-License-Identifier: BSD-2-Clause
"""Signing in over TLS: every scheme, guessing at passwords, and bodies of any size."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ganeti_ext import compat
from ganeti_ext.rapi.passwords import hash_password, hash_token, new_token
from ganeti_ext.rapi.throttle import ALLOWANCE, INTERVAL
from tests.cluster.test_unconfigured import stock_rapi, unconfigure
from tests.cluster.vcluster import RAPI_PORT, Cluster
from tests.waiting import wait_for

MIB = 1 << 20
TOKEN = new_token()


def users() -> str:
    """A users file with each scheme, for an account of Ganeti's and one of ours."""
    rows = ["admin secret write"]
    for options in ("write", "@operator"):
        kind = options.strip("@")
        ha1 = hashlib.md5(f"ha1-{kind}:Ganeti Remote API:secret".encode()).hexdigest()
        rows += [
            f"plain-{kind} secret {options}",
            f"clear-{kind} {{cleartext}}secret {options}",
            f"ha1-{kind} {{HA1}}{ha1} {options}",
            f"sha256-{kind} {hash_token(TOKEN)} {options}",
            f"scrypt-{kind} {hash_password('secret')} {options}",
        ]
    rows.append("absurd {SCRYPT}1048576$8$1$" + hash_password("secret").split("$", 3)[3] + " @operator")
    return "\n".join(rows) + "\n"


USERS = users()
NAMES = [row.split()[0] for row in USERS.splitlines() if not row.startswith("absurd")]


def password_of(name: str) -> str:
    """The right one."""
    return TOKEN if name.startswith("sha256") else "secret"


@pytest.fixture(scope="module", name="prepared")
def _prepared(cluster: Cluster) -> Iterator[Cluster]:
    unconfigure(cluster)
    cluster.set_rapi_users(USERS)
    try:
        yield cluster
    finally:
        unconfigure(cluster)


@pytest.fixture(name="guessed")
def _guessed(prepared: Cluster) -> Iterator[Cluster]:
    """For a test that guesses: forgotten before it and after it."""
    prepared.restart("rapi")
    yield prepared
    prepared.restart("rapi")


def info(cluster: Cluster, name: str, password: str, source: str | None = None) -> int:
    """The status of a read."""
    return cluster.rapi("GET", "/2/instances", user=name, password=password, source=source)[0]


def guess_until_it_waits(cluster: Cluster, source: str) -> int:
    """Guesses one after another, each answered by a child of its own; how many were looked at."""
    for number in range(5 * ALLOWANCE):
        status, headers, _ = cluster.rapi("GET", "/2/info", user="admin", password=f"guess{number}", source=source)
        if status == 429:
            assert 1 <= int(headers["Retry-After"]) <= INTERVAL
            return number
        assert status == 401
    return 5 * ALLOWANCE


# Schemes.


def test_every_scheme(guessed: Cluster) -> None:
    for name in NAMES:
        assert info(guessed, name, password_of(name)) == 200, name
    assert info(guessed, "absurd", "secret", "node2") == 401
    assert "cannot be checked" in guessed.rapi_log()
    for name in NAMES:
        assert info(guessed, name, password_of(name) + "x", f"node{1 + NAMES.index(name) % 3}") == 401, name


CLIENT = """
import sys
from ganeti.rapi.client import GanetiRapiClient, GanetiApiError
for row in sys.stdin:
    name, password = row.split()
    client = GanetiRapiClient("node1", username=name, password=password)
    try:
        print(name, len(client.GetInstances()))
    except GanetiApiError as err:
        print(name, err.code)
"""


def test_every_scheme_with_ganetis_own_client(guessed: Cluster) -> None:
    rows = [(name, password_of(name)) for name in NAMES]
    rows += [("admin", "wrong")] * (ALLOWANCE + 1)
    text = "".join(f"{name} {password}\n" for name, password in rows)
    done = guessed.gnt("/usr/bin/python3", "-c", CLIENT, input=text)
    expected = [f"{name} 3" for name in NAMES] + ["admin 401"] * ALLOWANCE + ["admin 429"]
    assert done.stdout.splitlines() == expected


# Guessing.


def test_guessing_is_slowed_down_for_the_address_alone(guessed: Cluster) -> None:
    assert ALLOWANCE <= guess_until_it_waits(guessed, "node2") < 5 * ALLOWANCE
    for name in ("admin", "plain-operator", "no-such-user"):
        assert info(guessed, name, "secret", "node2") == 429
    assert guessed.rapi("GET", "/version", user="admin", source="node2")[0] == 429
    assert guessed.rapi("GET", "/version", source="node2")[0] == 401
    assert info(guessed, "admin", "secret", "node3") == 200
    assert info(guessed, "admin", "wrong", "node3") == 401
    assert "Too many wrong passwords from 192.0.2.11" in guessed.rapi_log()
    wait_for(lambda: info(guessed, "admin", "secret", "node2") == 200)
    # Time is all that helps: after one more there is the wait again.
    assert info(guessed, "admin", "wrong", "node2") == 401
    assert info(guessed, "admin", "secret", "node2") == 429


def test_guesses_at_once_are_counted_together(guessed: Cluster) -> None:
    with ThreadPoolExecutor(10) as pool:
        statuses = list(pool.map(lambda number: info(guessed, "admin", f"guess{number}", "node2"), range(100)))
    assert set(statuses) == {401, 429}
    # What was let in together was at most one for each child that Ganeti has at a time.
    assert ALLOWANCE <= statuses.count(401) <= ALLOWANCE + 10 + 20
    assert info(guessed, "admin", "secret", "node2") == 429
    with ThreadPoolExecutor(10) as pool:
        assert set(pool.map(lambda _: info(guessed, "admin", "secret", "node3"), range(30))) == {200}


def test_a_new_users_file_forgives_nothing(guessed: Cluster) -> None:
    assert guess_until_it_waits(guessed, "node2") < 5 * ALLOWANCE
    guessed.set_rapi_users(USERS)
    assert info(guessed, "admin", "secret", "node2") == 429


# Bodies.


#: Ganeti itself reads any body, but for its next release: that hangs up on one of more than 10 MB.
THREADS = compat.serves_in_threads()
LARGE = (9 if THREADS else 17) * MIB


def big(size: int) -> bytes:
    """JSON of that many bytes, with a parameter that no opcode has."""
    start, end = b'{"no_such_parameter": "', b'"}'
    return start + b"x" * (size - len(start) - len(end)) + end


@pytest.mark.parametrize(
    ("size", "name", "password", "status"),
    [
        (2 * MIB, "admin", "secret", 400),
        (16 * MIB, "admin", "secret", 400),
        (16 * MIB + 1, "admin", "secret", 413),
        (17 * MIB, "scrypt-write", "secret", 413),
        (17 * MIB, "admin", "wrong", 401),
        (2 * MIB, None, None, 401),
        (150 * MIB, "admin", "wrong", 401),
        (150 * MIB, "admin", "secret", 413),
        (150 * MIB, None, None, 401),
    ],
)
def test_bodies_with_pythons_client(
    prepared: Cluster, size: int, name: str | None, password: str | None, status: int
) -> None:
    """It sends all before it reads."""
    answer = prepared.rapi("PUT", "/2/modify", user=name, password=password, body=big(size), source="node3")
    assert answer[0] == status
    text = json.loads(answer[2])
    assert text["code"] == status
    assert (status == 400) == ("no_such_parameter" in text["message"])


@pytest.mark.parametrize("expect", ["100-continue", ""])
@pytest.mark.parametrize(
    ("size", "password", "status"),
    [(2 * MIB, "secret", 400), (17 * MIB, "secret", 413), (150 * MIB, "wrong", 401), (150 * MIB, "secret", 413)],
)
def test_bodies_with_curl(prepared: Cluster, size: int, password: str, status: int, expect: str) -> None:
    path = os.path.join(prepared.root, "body")
    with open(path, "wb") as stream:
        stream.write(big(size))
    done = prepared.enter(
        "curl", "-sSk", "-u", f"admin:{password}", "-X", "PUT", "-H", "Content-Type: application/json",
        "-H", f"Expect: {expect}" if expect else "Expect:", "--data-binary", f"@{path}",
        "-w", "\n%{http_code}", f"{prepared.rapi_url}/2/modify",
    )  # fmt: skip
    os.unlink(path)
    answer, _, code = done.stdout.rpartition("\n")
    assert int(code) == json.loads(answer)["code"] == status


@contextlib.contextmanager
def memory_bounded(cluster: Cluster, most: int) -> Iterator[Callable[[], None]]:
    """Gives a check that the daemon, or a child of it, has had no more than `most` KiB above what the daemon had."""

    def status(pid: int) -> dict[str, str]:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/status", encoding="utf-8") as stream:
            return dict(re.findall(r"^(\w+):\s+(\d+)", stream.read(), re.MULTILINE))
        return {}

    parent = cluster.daemon_pid("rapi")
    with open(f"/proc/{parent}/clear_refs", "w", encoding="ascii") as stream:
        stream.write("5")  # the peak begins anew (proc(5))
    before = int(status(parent)["VmRSS"])

    def check() -> None:
        children = [status(pid) for pid in cluster.pids()]
        found = [int(child["VmHWM"]) for child in children if child.get("PPid") == str(parent) and "VmHWM" in child]
        assert found or THREADS
        assert max([*found, int(status(parent)["VmHWM"])]) - before < most

    yield check


def request(size: str | int, password: str, *fields: str) -> bytes:
    """The start of a request by `admin`; `size` is the length that it claims."""
    token = base64.b64encode(f"admin:{password}".encode()).decode()
    lines = ["PUT /2/modify HTTP/1.1", "Host: node1", f"Authorization: Basic {token}", *fields]
    lines += ["Content-Type: application/json"] + ([f"Content-Length: {size}"] if size != "" else [])
    return "\r\n".join([*lines, "", ""]).encode()


def rest(stream: object) -> bytes:
    """What comes until the end."""
    answer = b""
    while part := stream.recv(65536):  # type: ignore[attr-defined]
        answer += part
    return answer


@pytest.mark.parametrize(("password", "status"), [("wrong", 401), ("secret", 413)])
def test_memory_is_bounded(prepared: Cluster, password: str, status: int) -> None:
    """The child is there as long as the connection; 150 MiB took 301 MiB of Ganeti's own."""
    # 16 MiB of it are {SCRYPT}'s
    with memory_bounded(prepared, 24 * 1024) as check, prepared.connect_tls(source="node3") as stream:
        stream.sendall(request(150 * MIB, password))
        chunk = b"x" * MIB
        for _ in range(149):
            stream.sendall(chunk)
        check()
        stream.sendall(chunk)
        assert f"HTTP/1.1 {status} ".encode() in rest(stream)


def exchange(cluster: Cluster, data: bytes) -> bytes:
    """One request as it is, and the answer without its date."""
    with cluster.connect_tls(source="node3") as stream:
        stream.sendall(data)
        return re.sub(rb"Date: [^\r]*\r\n", b"", rest(stream))


UNKNOWN = b'{"no_such_parameter": 1}'
UMLAUTS = '{"no_such_parameter": "äöü"}'.encode()

#: What is odd -> the request, the status of our answer, and what is in it.
ODD = {
    "non-ascii": (request(len(UMLAUTS), "secret") + UMLAUTS, 400, b"no_such_parameter"),
    "no-utf-8": (request(5, "secret") + b'"\xc3\xa4\xc3"', 400, b"UTF-8"),
    "cut-character": (request(8000, "secret") + b'"' + b"\xc3\xa4" * 4000, 400, b"UTF-8"),
    "cut-records": (request(80_002, "secret") + b'"' + b"\xe2\x82\xac" * 26_667, 400, b"JSON"),
    "negative": (request(-5, "secret") + UNKNOWN, 400, b"Content-Length"),
    "none": (request("", "secret") + UNKNOWN, 411, b"Content-Length"),
    "no-number": (request("many", "secret") + UNKNOWN, 400, b"Content-Length"),
    "two": (request(24, "secret", "Content-Length: 23") + UNKNOWN, 400, b"Content-Length"),
    "chunked": (
        request("", "secret", "Transfer-Encoding: chunked") + b"18\r\n" + UNKNOWN + b"\r\n0\r\n\r\n",
        411,
        b"Length",
    ),
    "less-than-sent": (request(24, "secret") + UNKNOWN * 2, 400, b"no_such_parameter"),
    "negative-guess": (request(-5, "wrong") + UNKNOWN, 401, b"Unauthorized"),
    "huge": (request("9" * 3000, "secret"), 413, b"at most"),
    "non-ascii-header": (request(24, "secret", "X: ä") + UNKNOWN, 400, b"no_such_parameter"),
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_bodies(prepared: Cluster, kind: str) -> None:
    data, status, text = ODD[kind]
    answer = exchange(prepared, data)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer
    assert text in answer


# Installed, and not configured.


def test_unconfigured_nothing_of_it_is_there(prepared: Cluster) -> None:
    """No wait, no limit, and odd bodies are what they are to Ganeti."""
    requests = [request(24, f"guess{number}") + b'{"no_such_parameter": 1}' for number in range(3 * ALLOWANCE)]
    requests += [request(len(big(size)), "secret") + big(size) for size in (100, 2 * MIB, LARGE)]
    requests += [request(2 * MIB, "wrong") + big(2 * MIB)]
    odd = ("negative", "none", "no-number", "two", "chunked", "less-than-sent", "negative-guess")
    requests += [ODD[kind][0] for kind in odd]
    unconfigure(prepared)
    ours = [exchange(prepared, data) for data in requests]
    with stock_rapi(prepared):
        prepared.restart("rapi")
        stock = [exchange(prepared, data) for data in requests]
    prepared.restart("rapi")
    prepared.set_rapi_users(USERS)
    assert ours == stock
    # Of no-number Ganeti's next release makes a 500.
    assert {answer[:12] for answer in ours} - {b"HTTP/1.1 500"} == {b"HTTP/1.1 401", b"HTTP/1.1 400"}


def test_the_port_is_still_ganetis(prepared: Cluster) -> None:
    """A connection that says nothing, and one that is no TLS, stop nobody."""
    with prepared.connect(RAPI_PORT) as silent, prepared.connect(RAPI_PORT) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert info(prepared, "admin", "secret") == 200
        assert silent.fileno() >= 0
