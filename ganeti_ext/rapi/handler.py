# SPDX-License-Identifier: BSD-2-Clause
"""Ganeti's request handler, narrowed: who may reach which endpoint with which names."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

from ganeti import http
from ganeti.server import rapi

from ganeti_ext.policy.accounts import Account
from ganeti_ext.policy.decision import Refusal, decide
from ganeti_ext.policy.model import PredicateSelector, Role, Scope
from ganeti_ext.policy.vocabulary import SCOPED_SO_FAR
from ganeti_ext.rapi.access import AccessControl
from ganeti_ext.rapi.audit import AuditLog, Record, denied, parameters_of, record_of
from ganeti_ext.rapi.client import AccessClient
from ganeti_ext.rapi.permissions import OPEN_RESOURCES, permission_of
from ganeti_ext.rapi.request import Request


class RemoteApiHandler(rapi.RemoteApiHandler):  # type: ignore[misc]
    """Checks the password and Ganeti's own access lists first, then only ever narrows.

    The base class of middleware, which overrides `authorize`.
    """

    #: Set by the entry point, before the daemon makes its handler.
    access = AccessControl()
    audit = AuditLog()

    def authorize(self, request: Request) -> None:
        """For middleware: refuses by raising `http.HttpForbidden` or `http.HttpNotFound`.

        Called for every request that has shown a right password and that ganeti-ext itself
        would let through, of whatever account.
        """

    def PreHandleRequest(self, req: Any) -> None:
        """Ganeti's check of user and password, which calls what is below."""
        with self.audit.follow(req, self.access.active):
            super().PreHandleRequest(req)

    def AuthenticationRequired(self, req: Any) -> bool:
        """Nothing is anonymous once there is something to protect (design, 3.1)."""
        if super().AuthenticationRequired(req):
            return True
        resource = type(self._GetRequestContext(req).handler).__name__
        return self.access.active and resource not in OPEN_RESOURCES

    def _GetRequestContext(self, req: Any) -> Any:
        """Ganeti's context, whose access list has the endpoint's permission, too.

        The users of ours have permissions as options. The permission is not on the rlib2
        classes' own lists, of which Ganeti's tests say what they hold; and an empty list,
        which means "anybody", stays empty.
        """
        if req.private is not None:
            return super()._GetRequestContext(req)
        context = super()._GetRequestContext(req)
        context.narrowed = False  # by us or a middleware; Request.use_client says when
        permission = permission_of(type(context.handler), req.request_method.upper())
        if context.handler_access and permission is not None:
            context.handler_access = [*context.handler_access, permission]
        return context

    def Authenticate(self, req: Any, username: str, password: str) -> bool:
        """Whether the password is right; raises an HTTP error for what is refused."""
        context = self._GetRequestContext(req)
        record = record_of(req)
        record.user = username
        request = Request(req, context, self._user_fn(username))
        record.permission = request.permission or ""
        record.describe = functools.partial(_describe, record, request)
        try:
            if not super().Authenticate(req, username, password):
                record.describe = None  # the body of somebody unknown is not even parsed
                return False
        except http.HttpForbidden as err:
            if request.account is None:
                raise
            raise self._forbidden(request, _not_granted(request.account, request.permission or "write")) from err
        record.rule = ", ".join(sorted(set(request.user.options).intersection(context.handler_access)))
        if request.account is not None and request.resource.__name__ not in OPEN_RESOURCES:
            self._enforce(request, request.account)
        self.authorize(request)
        return True

    def HandleRequest(self, req: Any) -> Any:
        """Ganeti's handling; what a parameter of a wrong type breaks there is a 400."""
        with self.audit.follow(req, self.access.active, last=True):
            try:
                return super().HandleRequest(req)
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as err:
                if not self._GetRequestContext(req).narrowed:
                    raise
                logging.exception("Handling a request")
                raise http.HttpBadRequest(message="A parameter is missing or has a wrong type") from err

    def limit_instances(self, request: Request, inside: Callable[[str], bool]) -> None:
        """For middleware: limits a request to the instances whose exact name is `inside`.

        As a scope of the policy would: for the user nothing else exists, of jobs only his
        own do, and the opcodes that come of the request are checked and pinned.
        """
        if request.resource.__name__ in OPEN_RESOURCES:
            return
        if request.permission is None:
            raise self._forbidden(request, "this endpoint cannot be limited")
        scope = Scope(instances=(PredicateSelector(inside),))
        # A multi-alloc is made of creations.
        role = Role("of the middleware", frozenset({request.permission, "instances.create"}), scope=scope)
        self._enforce(request, Account(dict.fromkeys(role.permissions & SCOPED_SO_FAR, (role,))))

    def _enforce(self, request: Request, account: Account) -> None:
        """Decides by the names in the request, and puts our client in Ganeti's place."""
        permission = request.permission
        if permission is None:
            raise self._forbidden(request, "this endpoint needs the option write")
        if permission not in account.grants:
            raise self._forbidden(request, _not_granted(account, permission))
        request.check_body()
        decision = decide(account, [permission], request.objects)
        if decision.refusal is Refusal.OUTSIDE:
            _log_refusal(request, decision.reason)
            raise denied(http.HttpNotFound(), decision.reason)
        if not decision.allowed:
            raise self._forbidden(request, decision.reason)
        if decision.role is not None:
            record_of(request.req).rule = decision.role.name
        request.use_client(
            lambda client: functools.partial(AccessClient, client, request.user.name, account, permission)
        )

    @staticmethod
    def _forbidden(request: Request, reason: str) -> http.HttpForbidden:
        _log_refusal(request, reason)
        return denied(http.HttpForbidden(message=reason), reason)


def _describe(record: Record, request: Request) -> None:
    # Parsed already, unless it was refused before Ganeti came to it.
    body = request.req.private.body_data or request.body
    record.parameters = parameters_of(request.query, body)
    record.objects = list(request.objects)


def _log_refusal(request: Request, reason: str) -> None:
    logging.warning("Refused %s %s of user %r: %s", request.method, request.path, request.user.name, reason)


def _not_granted(account: Account, permission: str) -> str:
    limited = any(role.scope is not None for roles in account.grants.values() for role in roles)
    hint = ", and cannot be granted within a scope yet" if limited and permission not in SCOPED_SO_FAR else ""
    return f"permission {permission} is not granted{hint}"
