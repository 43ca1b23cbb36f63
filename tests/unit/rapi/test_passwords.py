# SPDX-License-Identifier: BSD-2-Clause
"""Each scheme takes the right password and nothing else, whatever stands in the file."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
from typing import Any

import pytest
from ganeti.http.auth import HttpServerRequestAuthentication
from hypothesis import example, given
from hypothesis import strategies as st

from ganeti_ext.rapi import passwords
from ganeti_ext.rapi.passwords import PasswordError, costliest, hash_password, hash_token, new_token, verify_password

REALM = "Ganeti Remote API"
TOKEN = "Zq3v1yUu0cXk9aPzJw5sT7bQm2eRh8LdNf4gVo6iKxA"
HA1 = hashlib.md5(f"joe:{REALM}:secret".encode()).hexdigest()


def scrypt(password: str, n: int = 16, r: int = 1, p: int = 1, salt: bytes = b"0123456789abcdef") -> str:
    """An entry made by the standard's own words, not by our code."""
    digest = hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, dklen=32)
    return f"{{SCRYPT}}{n}${r}${p}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


#: scheme -> (the entry, its password)
ENTRIES = {
    "plain": ("secret", "secret"),
    "cleartext": ("{CLEARTEXT}secret", "secret"),
    "cleartext-brace": ("{ClearText}{secret}", "{secret}"),
    "ha1": ("{HA1}" + HA1, "secret"),
    "ha1-cases": ("{ha1}" + HA1.upper(), "secret"),
    "sha256": ("{SHA256}" + hashlib.sha256(TOKEN.encode()).hexdigest(), TOKEN),
    "sha256-cases": ("{Sha256}" + hashlib.sha256(TOKEN.encode()).hexdigest().upper(), TOKEN),
    "scrypt": (scrypt("secret"), "secret"),
    "scrypt-cases": (scrypt("secret").replace("SCRYPT", "sCrypt"), "secret"),
    "scrypt-others-parameters": (scrypt("secret", 1024, 4, 2, b"12345678"), "secret"),
}


@pytest.mark.parametrize("kind", ENTRIES)
def test_the_right_password_and_no_other(kind: str) -> None:
    expected, password = ENTRIES[kind]
    assert verify_password("joe", password, expected, REALM)
    for wrong in (
        "",
        "Secret",
        "secret ",
        password + "x",
        password[:-1],
        password.upper() + "1",
        "s\u00e4cret",
        expected,
    ):
        if wrong != password:
            assert not verify_password("joe", wrong, expected, REALM), wrong
    if "ha1" in kind:
        assert not verify_password("jim", password, expected, REALM)
        assert not verify_password("joe", password, expected, "another realm")
    else:
        assert verify_password("jim", password, expected, REALM)


@pytest.mark.parametrize("kind", ENTRIES)
@pytest.mark.parametrize("password", ["right", "wrong"])
def test_every_scheme_compares_in_constant_time(kind: str, password: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[Any, Any]] = []
    compare_digest = hmac.compare_digest

    def counted(one: Any, other: Any) -> bool:
        compared.append((one, other))
        return compare_digest(one, other)

    monkeypatch.setattr(hmac, "compare_digest", counted)
    expected, right = ENTRIES[kind]
    assert verify_password("joe", right if password == "right" else "wrong", expected, REALM) == (password == "right")
    ((one, other),) = compared
    assert len(one) == len(other)


# Ganeti's own schemes mean what they mean to Ganeti.


class Stock(HttpServerRequestAuthentication):  # type: ignore[misc]
    AUTH_REALM = REALM


ASCII = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=12)
NAMES = st.sampled_from(["", "{CLEARTEXT}", "{cleartext}", "{HA1}", "{ha1}", "{", "{}", "}", "{HA1", "{X}"])


@given(ASCII, ASCII, NAMES, st.one_of(ASCII, st.just(HA1)), st.booleans())
@example("joe", "secret", "{HA1}", HA1, False)
@example("joe", "", "{CLEARTEXT}", "", False)
@example("joe", "", "", "", False)
def test_ganetis_schemes_mean_what_they_mean_to_ganeti(
    username: str, password: str, scheme: str, value: str, same: bool
) -> None:
    expected = scheme + (password if same else value)
    stock = Stock().VerifyBasicAuthPassword(None, username, password, expected)
    assert verify_password(username, password, expected, REALM) == stock


@given(
    st.text(max_size=40), st.sampled_from(["", "{SHA256}", "{SCRYPT}", "{HA1}", "{CLEARTEXT}"]), st.text(max_size=99)
)
@example("\udcff", "{CLEARTEXT}", "?")
@example("?", "", "\udcff")
@example("\u00e4", "{HA1}", "\ud800")
@example("", "{SHA256}", "")
@example("", "{SCRYPT}", "")
def test_whatever_the_file_holds_nothing_is_raised(password: str, scheme: str, value: str) -> None:
    right = verify_password("joe", password, scheme + value, REALM)
    plain = not scheme and not value.startswith("{")
    assert right == ((plain or scheme == "{CLEARTEXT}") and password == value) or value.upper().startswith(
        "{CLEARTEXT}"
    )


# Entries that cannot be checked.

HASH = base64.b64encode(bytes(32)).decode()
SALT = base64.b64encode(bytes(16)).decode()

BAD = {
    "memory": f"{{SCRYPT}}1048576$8$1${SALT}${HASH}",
    "memory-by-r": f"{{SCRYPT}}16384$64$1${SALT}${HASH}",
    "time": f"{{SCRYPT}}16384$8$16${SALT}${HASH}",
    "many-digits": f"{{SCRYPT}}{'9' * 400}$8$1${SALT}${HASH}",
    "n-no-power": f"{{SCRYPT}}1000$8$1${SALT}${HASH}",
    "n-zero": f"{{SCRYPT}}0$8$1${SALT}${HASH}",
    "n-one": f"{{SCRYPT}}1$8$1${SALT}${HASH}",
    "r-zero": f"{{SCRYPT}}16$0$1${SALT}${HASH}",
    "p-zero": f"{{SCRYPT}}16$1$0${SALT}${HASH}",
    "negative": f"{{SCRYPT}}-16$1$1${SALT}${HASH}",
    "not-ascii-digits": f"{{SCRYPT}}\u0661\u0666$1$1${SALT}${HASH}",
    "no-salt": f"{{SCRYPT}}16$1$1$${HASH}",
    "short-salt": f"{{SCRYPT}}16$1$1$AAAA${HASH}",
    "odd-salt": f"{{SCRYPT}}16$1$1$AAAAAAAAAAAAA${HASH}",
    "short-hash": f"{{SCRYPT}}16$1$1${SALT}$AA==",
    "no-hash": f"{{SCRYPT}}16$1$1${SALT}$",
    "fewer-parts": f"{{SCRYPT}}16$1${SALT}${HASH}",
    "more-parts": f"{{SCRYPT}}16$1$1${SALT}${HASH}$",
    "nothing": "{SCRYPT}",
    "sha-short": "{SHA256}abcdef",
    "sha-not-hex": "{SHA256}" + "g" * 64,
    "sha-not-ascii": "{SHA256}" + "\u0661" * 64,
    "unknown": "{BCRYPT}hunter2",
    "no-brace": "{hunter2",
    "no-name": "{}hunter2",
}


@pytest.mark.parametrize("kind", BAD)
def test_an_entry_that_cannot_be_checked_lets_nobody_in_and_is_logged(
    kind: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(hashlib, "scrypt", lambda *args, **kwargs: calls.append(kwargs))
    expected = BAD[kind]
    with caplog.at_level(logging.DEBUG):
        for password in ("secret", "", "hunter2", expected):
            assert not verify_password("joe", password, expected, REALM)
    assert calls == []
    assert len(caplog.messages) == 4
    for message in caplog.messages:
        assert "'joe'" in message
        for secret in (SALT, HASH, "hunter2", "BCRYPT"):
            assert secret not in message


@pytest.mark.parametrize(("n", "r", "p"), [(2**16, 8, 1), (2**14, 8, 8), (2, 1, 9999)])
def test_the_bounds_leave_room_above_our_own_parameters(n: int, r: int, p: int) -> None:
    entry = scrypt("secret").replace("16$1$1", f"{n}${r}${p}")
    assert passwords._scrypt_parameters(entry[8:])[:3] == (n, r, p)


@pytest.mark.parametrize("error", [ValueError("memory limit exceeded"), MemoryError(), OverflowError()])
def test_a_scrypt_that_fails_refuses(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> bytes:
        raise error

    assert verify_password("joe", "secret", ENTRIES["scrypt"][0], REALM)
    monkeypatch.setattr(hashlib, "scrypt", fail)
    assert not verify_password("joe", "secret", ENTRIES["scrypt"][0], REALM)


# Making entries.


def test_a_password_that_is_hashed_is_right_and_its_entry_fits_into_the_file() -> None:
    first, second = hash_password("pass word:,#"), hash_password("pass word:,#")
    assert first != second
    for entry in (first, second):
        assert verify_password("joe", "pass word:,#", entry, REALM)
        assert not verify_password("joe", "pass word", entry, REALM)
        assert entry.startswith("{SCRYPT}")
        assert not set(entry) & set(" \t,#:\n")
        assert entry.isascii()


def test_a_token_that_is_hashed_is_right() -> None:
    tokens = {new_token() for _ in range(20)}
    assert len(tokens) == 20
    for token in tokens:
        assert verify_password("joe", token, hash_token(token), REALM)
        assert not verify_password("joe", token[1:], hash_token(token), REALM)
    assert hash_token(TOKEN) == ENTRIES["sha256"][0]


@pytest.mark.parametrize("make", [hash_password, hash_token])
@pytest.mark.parametrize("password", ["", "\u00e4" * 40, "\udcff" * 40])
def test_what_no_client_could_send_is_not_hashed(make: Any, password: str) -> None:
    with pytest.raises(PasswordError):
        make(password)


@pytest.mark.parametrize("token", ["secret", "x" * 31])
def test_what_could_be_a_word_is_not_hashed_as_a_token(token: str) -> None:
    with pytest.raises(PasswordError, match="SCRYPT"):
        hash_token(token)
    assert hash_token(token + "x" * 32)


# What takes as long as the slowest.


def test_the_costliest_is_that_of_the_slowest_entry_and_never_right() -> None:
    cheap = costliest(["secret", "{HA1}" + HA1, "{SHA256}x", *BAD.values()])
    assert cheap == costliest([]) == "{HA1}" + "0" * 32
    dummy = costliest(["secret", scrypt("a", 16), scrypt("b", 64, 2), scrypt("c", 32), *BAD.values()])
    assert dummy.startswith("{SCRYPT}64$2$1$")
    assert dummy == costliest([dummy]) == costliest([scrypt("x", 64, 2)])
    for entry in (cheap, dummy):
        assert not verify_password("joe", "secret", entry, REALM)
    assert costliest([hash_password("x")]).startswith("{SCRYPT}16384$8$1$")
