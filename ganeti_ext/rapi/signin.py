# SPDX-License-Identifier: BSD-2-Clause
"""Signing in: whose request it is, how often one may guess, and when the body is read."""

from __future__ import annotations

import contextlib
import logging
import math
from typing import Any

from ganeti import http
from ganeti.server import rapi

from ganeti_ext.rapi.access import AccessControl
from ganeti_ext.rapi.body import MAX_ANONYMOUS, MAX_SIGNED_IN, read_body
from ganeti_ext.rapi.httperrors import HttpTooManyRequests
from ganeti_ext.rapi.passwords import costliest, verify_password
from ganeti_ext.rapi.resources import R_2_nodes_name_restricted_command
from ganeti_ext.rapi.restricted import REALM, RestrictedUsers
from ganeti_ext.rapi.throttle import Throttle


class SignIn(rapi.RemoteApiHandler):  # type: ignore[misc]
    """Ganeti's handler, whose check of a password tells nothing and cannot be tried for ever."""

    #: Set by the entry point: the first two before the daemon makes its handler, the third once
    #: it is a daemon.
    access = AccessControl()
    restricted = RestrictedUsers()
    throttle: Throttle | None = None

    def PreHandleRequest(self, req: Any) -> None:
        """Ganeti's, after which the body is there, of whoever the request is."""
        super().PreHandleRequest(req)
        read_body(req, MAX_ANONYMOUS)

    def Authenticate(self, req: Any, username: str, password: str) -> bool:
        """Whether the password is right: then the body is there.

        Raises HttpTooManyRequests, without a look at the password, and what Ganeti's and
        `read_body` raise.
        """
        throttle = self.throttle if self.access.active else None
        if throttle is not None:
            _check_wait(throttle, _address(req))
        if self._user_fn(username) is None:
            self._take_the_time(req, username, password)
            right = False
        else:
            right = super().Authenticate(req, username, password)
        if right:
            read_body(req, MAX_SIGNED_IN)
        elif throttle is not None and throttle.failed(_address(req)) > 0:
            logging.warning("Too many wrong passwords from %s: it is made to wait", _address(req))
        return right

    def GetAuthRealm(self, req: Any) -> str:
        """Ganeti's realm, but for restricted commands, which have passwords of their own."""
        # Ganeti asks for a password before it says that there is no such path.
        with contextlib.suppress(http.HttpNotFound, http.HttpNotImplemented):
            if type(self._GetRequestContext(req).handler) is R_2_nodes_name_restricted_command:
                return REALM
        return str(self.AUTH_REALM)

    def VerifyBasicAuthPassword(self, req: Any, username: str, password: str, expected: str) -> bool:
        """Whether the password is the one that is asked for, in constant time.

        `expected` is the entry of Ganeti's users file.
        """
        realm = self.GetAuthRealm(req)
        entry = expected if realm != REALM else self.restricted.password_of(username)
        if entry is not None and verify_password(username, password, entry, realm):
            if realm != REALM or not verify_password(username, password, expected, self.AUTH_REALM):
                return True
            logging.error("User %r has the same password for restricted commands: refused", username)
            return False
        if entry is None or costliest([entry]) != self._costliest_password(req):
            self._take_the_time(req, username, password)
        return False

    def _costliest_password(self, req: Any) -> str:
        users = self.restricted if self.GetAuthRealm(req) == REALM else self.access
        return users.costliest_password

    def _take_the_time(self, req: Any, username: str, password: str) -> None:
        """Takes as long as a wrong password of an existing user would."""
        verify_password(username, password, self._costliest_password(req), self.GetAuthRealm(req))


def _check_wait(throttle: Throttle, address: str) -> None:
    seconds = math.ceil(throttle.wait(address))
    if seconds > 0:
        raise HttpTooManyRequests(f"Too many wrong passwords from your address: wait {seconds} s", seconds)


def _address(req: Any) -> str:
    """The client's IP address; "" if it has gone."""
    try:
        return str(req.request_sock.getpeername()[0])
    except OSError:
        return ""
