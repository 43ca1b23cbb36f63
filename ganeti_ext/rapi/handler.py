# SPDX-License-Identifier: BSD-2-Clause
"""Ganeti's request handler, narrowed: who may reach which endpoint with which names."""

from __future__ import annotations

import functools
import logging
from typing import Any

from ganeti import http
from ganeti.server import rapi

from ganeti_ext.policy.decision import Refusal, decide
from ganeti_ext.rapi.access import AccessControl
from ganeti_ext.rapi.client import AccessClient
from ganeti_ext.rapi.permissions import OPEN_RESOURCES
from ganeti_ext.rapi.request import Request


class RemoteApiHandler(rapi.RemoteApiHandler):  # type: ignore[misc]
    """Checks the password and Ganeti's own access lists first, then only ever narrows.

    The base class of middleware, which overrides `authorize`.
    """

    #: Set by the entry point, before the daemon makes its handler.
    access = AccessControl()

    def authorize(self, request: Request) -> None:
        """For middleware: refuses by raising `http.HttpForbidden` or `http.HttpNotFound`.

        Called for every request that has shown a right password and that ganeti-ext itself
        would let through, of whatever account.
        """

    def AuthenticationRequired(self, req: Any) -> bool:
        """Nothing is anonymous once there is something to protect (design, 3.1)."""
        if super().AuthenticationRequired(req):
            return True
        resource = type(self._GetRequestContext(req).handler).__name__
        return self.access.active and resource not in OPEN_RESOURCES

    def Authenticate(self, req: Any, username: str, password: str) -> bool:
        """Whether the password is right; raises an HTTP error for what is refused."""
        context = self._GetRequestContext(req)
        request = Request(req, context, self._user_fn(username))
        try:
            if not super().Authenticate(req, username, password):
                return False
        except http.HttpForbidden as err:
            if request.account is None:
                raise
            raise self._forbidden(request, f"permission {request.permission or 'write'} is not granted") from err
        if request.account is not None and request.resource.__name__ not in OPEN_RESOURCES:
            self._enforce(request, context)
        self.authorize(request)
        return True

    def _enforce(self, request: Request, context: Any) -> None:
        """Decides by the names in the request, and puts our client in Ganeti's place."""
        account = request.account
        assert account is not None
        if request.permission is None:
            raise self._forbidden(request, "this endpoint needs the option write")
        if request.permission not in account.grants:
            raise self._forbidden(request, f"permission {request.permission} is not granted")
        request.check_body()
        decision = decide(account, [request.permission], request.objects)
        if decision.refusal is Refusal.OUTSIDE:
            logging.warning(
                "Refused %s %s of user %r as not found: %s",
                request.method,
                request.path,
                request.user.name,
                decision.reason,
            )
            raise http.HttpNotFound()
        if not decision.allowed:
            raise self._forbidden(request, decision.reason)
        context.handler._client_cls = functools.partial(
            AccessClient, context.handler._client_cls, request.user.name, account, request.permission
        )

    @staticmethod
    def _forbidden(request: Request, reason: str) -> http.HttpForbidden:
        logging.warning("Refused %s %s of user %r: %s", request.method, request.path, request.user.name, reason)
        return http.HttpForbidden(message=reason)
