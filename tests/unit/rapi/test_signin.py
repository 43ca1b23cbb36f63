# SPDX-License-Identifier: BSD-2-Clause
"""What a request is told that guesses a password, and what it costs."""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Iterator
from typing import Any

import ganeti.http.server
import pytest
from ganeti import http

from ganeti_ext.rapi import passwords
from ganeti_ext.rapi.passwords import hash_password, hash_token, new_token
from ganeti_ext.rapi.throttle import ALLOWANCE, INTERVAL, Throttle
from tests.unit.rapi import fake
from tests.unit.rapi.fake import PASSWORD, Server
from tests.unit.rapi.test_throttle import Clock

pytestmark = pytest.mark.usefixtures("registered")

HERE, THERE = "192.0.2.1", "192.0.2.2"
TOKEN = new_token()
STRONG = hash_password(PASSWORD)


def ask(server: Server, credentials: str | None, *, address: str = HERE, path: str = "/2/info") -> tuple[int, Any]:
    """Status and headers of a GET; `credentials` as `user:password`, or a header as it is."""
    message = http.HttpMessage()
    message.start_line = http.HttpClientToServerStartLine("GET", path, http.HTTP_1_0)
    message.headers = {"User-Agent": "test"}
    if credentials is not None:
        header = credentials
        if ":" in credentials:
            header = "Basic " + base64.b64encode(credentials.encode()).decode()
        message.headers[http.HTTP_AUTHORIZATION] = header
    reader = type("Reader", (), {"sock": fake.Socket(address)})
    _, _, _, response = ganeti.http.server.HttpResponder(server.handler)(lambda: (message, reader))
    return response.start_line.code, response.headers


def with_passwords(users: str, **entries: str) -> Server:
    """A server some of whose users have other entries than the plain password."""
    server = Server(users)
    for name, entry in entries.items():
        server.users[name].password = entry
    server.access.resolve_users(server.users)
    return server


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(clock: Clock) -> Iterator[Server]:
    """With something to protect."""
    made = Server("she @readonly\nroot write\nnoc read")
    made.handler.throttle = Throttle(_clock=clock)
    yield made
    made.handler.throttle.close()


# Schemes.


def test_every_scheme_signs_in() -> None:
    ha1 = hashlib.md5(f"ha:Ganeti Remote API:{PASSWORD}".encode()).hexdigest()
    entries = {
        "plain": PASSWORD,
        "clear": "{cleartext}" + PASSWORD,
        "ha": "{HA1}" + ha1,
        "sha": hash_token(TOKEN),
        "strong": STRONG,
    }
    for options in ("@readonly", "write"):
        server = with_passwords("\n".join(f"{name} {options}" for name in entries), **entries)
        for name in entries:
            password = TOKEN if name == "sha" else PASSWORD
            assert ask(server, f"{name}:{password}")[0] == 200, name
            assert ask(server, f"{name}:{password}x")[0] == 401, name
            assert ask(server, f"{name}:")[0] == 401, name


# Time.


@pytest.fixture
def costs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """The parameters of each scrypt that was worked out."""
    spent: list[tuple[int, int, int]] = []
    scrypt = hashlib.scrypt

    def counted(*args: Any, n: int, r: int, p: int, **kwargs: Any) -> bytes:
        spent.append((n, r, p))
        return scrypt(*args, n=n, r=r, p=p, **kwargs)

    monkeypatch.setattr(hashlib, "scrypt", counted)
    return spent


OURS = [(passwords.SCRYPT_N, passwords.SCRYPT_R, passwords.SCRYPT_P)]


@pytest.mark.parametrize("credentials", ["strong:wrong", "plain:wrong", "sha:wrong", "bad:wrong", "nobody:x", ":x"])
def test_a_refusal_costs_the_same_whoever_is_refused(credentials: str, costs: list[tuple[int, int, int]]) -> None:
    bad = "{SCRYPT}1048576$8$1$" + STRONG.split("$", 3)[3]
    server = with_passwords(
        "strong @readonly\nplain write\nsha @readonly\nbad write", strong=STRONG, sha=hash_token(TOKEN), bad=bad
    )
    assert ask(server, credentials)[0] == 401
    assert costs == OURS


def test_a_right_password_costs_what_its_scheme_costs_and_that_once(costs: list[tuple[int, int, int]]) -> None:
    server = with_passwords("strong @readonly\nplain write", strong=STRONG)
    assert ask(server, f"plain:{PASSWORD}")[0] == 200
    assert costs == []
    assert ask(server, f"strong:{PASSWORD}")[0] == 200
    assert costs == OURS


@pytest.mark.parametrize("credentials", ["plain:wrong", "nobody:x"])
def test_nobody_pays_for_a_scheme_that_nobody_has(credentials: str, costs: list[tuple[int, int, int]]) -> None:
    server = with_passwords("plain @readonly\nother write")
    assert ask(server, credentials)[0] == 401
    assert costs == []


# Guessing.


def test_wrong_passwords_make_an_address_wait(server: Server, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for number in range(ALLOWANCE):
            assert ask(server, ("she:wrong", "root:wrong", "nobody:x")[number % 3])[0] == 401
    assert [HERE in message for message in caplog.messages] == [True]
    assert not any(word in caplog.messages[0] for word in (":wrong", "she", "root", "nobody"))
    for credentials in ("she:wrong", f"she:{PASSWORD}", f"root:{PASSWORD}", "nobody:x"):
        for path in ("/2/info", "/version", "/2/instances"):
            status, headers = ask(server, credentials, path=path)
            assert (status, headers["Retry-After"]) == (429, str(int(INTERVAL)))
    assert ask(server, f"she:{PASSWORD}", address=THERE)[0] == 200
    clock.now += INTERVAL - 0.5
    status, headers = ask(server, f"she:{PASSWORD}")
    assert (status, headers["Retry-After"]) == (429, "1")
    clock.now += 0.5
    assert ask(server, f"she:{PASSWORD}")[0] == 200
    assert ask(server, "she:wrong")[0] == 401
    assert ask(server, f"she:{PASSWORD}")[0] == 429


def test_no_password_is_looked_at_while_an_address_waits(
    server: Server, costs: list[tuple[int, int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.users["root"].password = STRONG
    server.access.resolve_users(server.users)
    for _ in range(ALLOWANCE):
        ask(server, "nobody:x")
    assert len(costs) == ALLOWANCE
    looked_at: list[str] = []
    monkeypatch.setattr(server.handler, "VerifyBasicAuthPassword", lambda *args: looked_at.append(args[1]))
    assert {ask(server, credentials)[0] for credentials in (f"root:{PASSWORD}", "root:x", "nobody:x")} == {429}
    assert looked_at == []
    assert len(costs) == ALLOWANCE


@pytest.mark.parametrize(
    "header", [None, "", " ", "Digest x", "Basic", "Basic x", "Basic eA==", "Basic \u00fc", "Bearer y"]
)
def test_a_request_without_a_password_is_no_guess_and_never_waits(server: Server, header: str | None) -> None:
    for _ in range(3 * ALLOWANCE):
        assert ask(server, header)[0] in (400, 401)
    assert server.handler.throttle.wait(HERE) == 0
    for _ in range(ALLOWANCE):
        ask(server, "she:wrong")
    assert ask(server, header)[0] in (400, 401)
    assert ask(server, None, path="/version")[0] == 200


def test_right_passwords_are_no_guesses_and_make_up_for_none(server: Server) -> None:
    for _ in range(3 * ALLOWANCE):
        assert ask(server, f"she:{PASSWORD}")[0] == 200
        assert ask(server, f"noc:{PASSWORD}", path="/2/nodes/x/storage")[0] in (403, 400)
        assert ask(server, f"she:{PASSWORD}", path="/3")[0] == 404
    for _ in range(ALLOWANCE):
        assert ask(server, f"she:{PASSWORD}")[0] == 200
        assert ask(server, "root:wrong")[0] == 401
    assert ask(server, f"she:{PASSWORD}")[0] == 429


def test_an_address_that_is_gone_is_one_of_its_own(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(self: Any) -> Any:
        raise OSError("not connected")

    with monkeypatch.context() as patch:
        patch.setattr(fake.Socket, "getpeername", gone)
        statuses = [ask(server, "she:wrong")[0] for _ in range(ALLOWANCE + 1)]
    assert statuses == [401] * ALLOWANCE + [429]
    assert ask(server, f"she:{PASSWORD}")[0] == 200


def test_while_nothing_is_configured_nobody_waits(clock: Clock) -> None:
    server = Server("root write\nnoc read")
    server.handler.throttle = Throttle(_clock=clock)
    assert not server.access.active
    for _ in range(5 * ALLOWANCE):
        assert ask(server, "root:wrong")[0] == 401
    assert ask(server, f"root:{PASSWORD}")[0] == 200
    assert server.handler.throttle.wait(HERE) == 0
    server.handler.throttle.close()


def test_without_memory_for_it_signing_in_works_all_the_same() -> None:
    server = Server("she @readonly")
    assert server.handler.throttle is None
    for _ in range(3 * ALLOWANCE):
        assert ask(server, "she:wrong")[0] == 401
    assert ask(server, f"she:{PASSWORD}")[0] == 200
