# SPDX-License-Identifier: BSD-2-Clause
"""What stands in the password column of the users file: making it, and checking against it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Callable, Iterable

from ganeti_ext.errors import ExtError

#: What `hash_password` uses: 16 MiB and some 60 ms at each request. Modest, because there is
#: no session: every request shows the password anew.
SCRYPT_N, SCRYPT_R, SCRYPT_P = 2**14, 8, 1

#: What is checked at most, whatever the file says: 128 * n * r bytes are 64 MiB, and
#: n * r * p is eight times the work of our own parameters.
_MAX_N_R = 2**19
_MAX_N_R_P = 2**20

_HASH_LENGTH = 32
_SCRYPT = re.compile(r"([0-9]{1,7})\$([0-9]{1,4})\$([0-9]{1,4})\$([A-Za-z0-9+/=]{12,88})\$([A-Za-z0-9+/]{43}=)")
_SHA256 = re.compile("[0-9a-fA-F]{64}")

#: A token of fewer characters could be a word that somebody made up.
MIN_TOKEN_LENGTH = 32


class PasswordError(ExtError):
    """A password that cannot be used, or an entry of the users file that cannot be checked."""


def verify_password(username: str, password: str, expected: str, realm: str) -> bool:
    """Whether `password` is the one that `expected`, the second column of the users file, asks for.

    The schemes are Ganeti's (`http/auth.py`: a plain text, {CLEARTEXT}, {HA1}), and {SHA256}
    and {SCRYPT} as they are made below; their names are read in any case. `username` and
    `realm` go into {HA1}.

    Never raises: what cannot be checked is logged, without the value, and not right.
    """
    try:
        check, value = _split(expected)
        return check(username, password, value, realm)
    except (PasswordError, ValueError, OverflowError, MemoryError) as err:
        reason = err if isinstance(err, PasswordError) else type(err).__name__
        logging.warning("The password of user %r cannot be checked: %s", username, reason)
        return False


def hash_password(password: str) -> str:
    """The {SCRYPT} form of a person's password: n, r, p, salt and hash, with `$` between.

    Raises PasswordError for a password that Ganeti would not take from a client.
    """
    _check_usable(password)
    salt = secrets.token_bytes(16)
    return _scrypt_text(SCRYPT_N, SCRYPT_R, SCRYPT_P, salt, _scrypt(password, SCRYPT_N, SCRYPT_R, SCRYPT_P, salt))


def new_token() -> str:
    """A password for a program: 256 random bits, 43 characters."""
    return secrets.token_urlsafe(32)


def hash_token(token: str) -> str:
    """The {SHA256} form of a generated token.

    Raises PasswordError for one that is short: whoever gets hold of the file tries thousands
    of millions of passwords a second against this hash, which only a random one withstands.
    """
    _check_usable(token)
    if len(token) < MIN_TOKEN_LENGTH:
        raise PasswordError(f"a token has at least {MIN_TOKEN_LENGTH} random characters; for a password use {{SCRYPT}}")
    return "{SHA256}" + hashlib.sha256(token.encode("ascii")).hexdigest()


def costliest(entries: Iterable[str]) -> str:
    """What to check a password against that cannot be right, with the costliest scheme of `entries`.

    So that the time of a refusal does not tell who exists. (Between two {SCRYPT} entries with
    different parameters it can: ours are all the same.)
    """
    most, parameters = 0, None
    for entry in entries:
        if entry[:8].upper() != "{SCRYPT}":
            continue
        try:
            n, r, p, _, _ = _scrypt_parameters(entry[8:])
        except PasswordError:
            continue  # told when somebody tries to use it
        if n * r * p > most:
            most, parameters = n * r * p, (n, r, p)
    if parameters is None:
        return "{HA1}" + "0" * 32
    return _scrypt_text(*parameters, bytes(16), bytes(_HASH_LENGTH))


_Check = Callable[[str, str, str, str], bool]


def _split(expected: str) -> tuple[_Check, str]:
    """The check of the scheme of an entry, and what is behind the scheme's name."""
    if not expected.startswith("{"):
        return _check_cleartext, expected
    name, brace, value = expected[1:].partition("}")
    check = _SCHEMES.get(name.upper()) if brace else None
    if check is None:
        # Not by its name: it could be a plain password that starts with a brace.
        raise PasswordError("its scheme is not known")
    return check, value


def _check_cleartext(username: str, password: str, value: str, realm: str) -> bool:
    # By hashes, since compare_digest alone tells the length.
    return hmac.compare_digest(hashlib.sha256(_bytes(password)).digest(), hashlib.sha256(_bytes(value)).digest())


def _check_ha1(username: str, password: str, value: str, realm: str) -> bool:
    """H(A1) of RFC 2617, section 3.2.2.2."""
    digest = hashlib.md5(_bytes(f"{username}:{realm}:{password}"), usedforsecurity=False).hexdigest()
    return hmac.compare_digest(_bytes(digest), _bytes(value.lower()))


def _check_sha256(username: str, password: str, value: str, realm: str) -> bool:
    if _SHA256.fullmatch(value) is None:
        raise PasswordError("{SHA256} must be followed by 64 hexadecimal digits")
    return hmac.compare_digest(hashlib.sha256(_bytes(password)).hexdigest(), value.lower())


def _check_scrypt(username: str, password: str, value: str, realm: str) -> bool:
    n, r, p, salt, wanted = _scrypt_parameters(value)
    return hmac.compare_digest(_scrypt(password, n, r, p, salt), wanted)


_SCHEMES: dict[str, _Check] = {
    "CLEARTEXT": _check_cleartext,
    "HA1": _check_ha1,
    "SHA256": _check_sha256,
    "SCRYPT": _check_scrypt,
}


def _scrypt_parameters(value: str) -> tuple[int, int, int, bytes, bytes]:
    """n, r, p, salt and hash. Raises PasswordError for a form that is not ours or costs too much."""
    found = _SCRYPT.fullmatch(value)
    if found is None:
        raise PasswordError("{SCRYPT} must be followed by n$r$p$salt$hash")
    n, r, p = (int(number) for number in found.groups()[:3])
    if n < 2 or n & (n - 1) or r < 1 or p < 1:
        raise PasswordError("the n of its {SCRYPT} must be a power of two, r and p at least 1")
    if n * r > _MAX_N_R or n * r * p > _MAX_N_R_P:
        raise PasswordError("its {SCRYPT} costs too much")
    try:
        return n, r, p, base64.b64decode(found[4], validate=True), base64.b64decode(found[5], validate=True)
    except ValueError as err:
        raise PasswordError("the salt of its {SCRYPT} is no base64") from err


def _scrypt(password: str, n: int, r: int, p: int, salt: bytes) -> bytes:
    # OpenSSL counts a little more than RFC 7914 needs.
    memory = 128 * r * (n + p + 2) + 4096
    return hashlib.scrypt(_bytes(password), salt=salt, n=n, r=r, p=p, maxmem=memory, dklen=_HASH_LENGTH)


def _scrypt_text(n: int, r: int, p: int, salt: bytes, digest: bytes) -> str:
    return f"{{SCRYPT}}{n}${r}${p}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def _check_usable(password: str) -> None:
    if not password:
        raise PasswordError("the password is empty")
    if not password.isascii():
        raise PasswordError("Ganeti takes passwords of ASCII characters only")


def _bytes(text: str) -> bytes:
    # Whatever a file holds: two texts that differ must give bytes that differ.
    return text.encode("utf-8", "surrogatepass")
