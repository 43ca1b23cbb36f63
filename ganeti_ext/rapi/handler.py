# SPDX-License-Identifier: BSD-2-Clause
"""Ganeti's request handler, narrowed: who may reach which endpoint with which names."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Collection
from typing import Any

from ganeti import errors, http
from ganeti.rapi import connector

from ganeti_ext.policy.accounts import Account, Grants
from ganeti_ext.policy.model import Policy, Role, Scope, Selector
from ganeti_ext.policy.parameters import ANY, PRESETS, Parameters
from ganeti_ext.policy.vocabulary import NEVER_SCOPED, RESTRICTED_COMMAND
from ganeti_ext.rapi import resources, whoami
from ganeti_ext.rapi.access import AccessControl
from ganeti_ext.rapi.audit import AuditLog, Record, denied, parameters_of, record_of
from ganeti_ext.rapi.client import AccessClient
from ganeti_ext.rapi.permissions import METHODS, OPEN_RESOURCES, SIGNED_IN_RESOURCES, permission_of, registered_role
from ganeti_ext.rapi.request import Request
from ganeti_ext.rapi.signin import SignIn


class RemoteApiHandler(SignIn):
    """Checks the password and Ganeti's own access lists first, then only ever narrows.

    The base class of middleware, which overrides `authorize`.
    """

    #: Set by the entry point, before the daemon makes its handler.
    access = AccessControl()
    audit = AuditLog()

    #: Set anew by the entry point, when a middleware has been loaded, which may have resources of its own.
    mappers = resources.mappers(connector.CONNECTOR)

    def authorize(self, request: Request) -> None:
        """For middleware: refuses by raising `http.HttpForbidden` or `http.HttpNotFound`.

        Called for every request that has shown a right password and that ganeti-ext itself
        would let through, of whatever account.
        """

    def PreHandleRequest(self, req: Any) -> None:
        """Ganeti's check of user and password, which calls what is below."""
        self.audit.reads = self.access.audit_reads
        with self.audit.follow(req, self.access.active):
            super().PreHandleRequest(req)

    def AuthenticationRequired(self, req: Any) -> bool:
        """Nothing is anonymous once there is something to protect (design, 3.1)."""
        if self.access.active and self._reqauth:
            return True  # before it is told whether there is such a path, as Ganeti's next release does
        if super().AuthenticationRequired(req):
            return True
        resource = type(self._GetRequestContext(req).handler).__name__
        return self.access.active and resource not in OPEN_RESOURCES

    def _GetRequestContext(self, req: Any) -> Any:
        """Ganeti's context, whose access list (if it is one) has the endpoint's permission, too.

        The users of ours have permissions as options. The permission is not on the rlib2
        classes' own lists, of which Ganeti's tests say what they hold; and an empty list,
        which means "anybody", stays empty.
        """
        if req.private is not None:
            return super()._GetRequestContext(req)
        if self.access.active and req.request_method.upper() not in METHODS:
            # Ganeti takes any attribute of its handler for a method, such as PUT_ACCESS: 500.
            raise http.HttpNotImplemented(
                message=f"Method {req.request_method.upper()} is unsupported for path {req.request_path}"
            )
        self._resmap = self.mappers[self.access.active, self.access.has_restricted_users]
        context = super()._GetRequestContext(req)
        context.began = time.monotonic()
        context.narrowed = False  # by us or a middleware; Request.use_client says when
        permission = permission_of(type(context.handler), req.request_method.upper())
        if isinstance(context.handler_access, list) and context.handler_access and permission is not None:
            context.handler_access = [*context.handler_access, permission]
        return context

    def Authenticate(self, req: Any, username: str, password: str) -> bool:
        """Whether the password is right; raises an HTTP error for what is refused."""
        context = self._GetRequestContext(req)
        record = record_of(req)
        record.user = username
        user = self._user_fn(username)
        # None of Ganeti's options opens what is not Ganeti's.
        always = permission_of(type(context.handler), req.request_method.upper()) == RESTRICTED_COMMAND
        account = None if user is None else self.access.account_of(user, always)
        request = Request(req, context, user, account)
        record.permission = request.permission or ""
        record.describe = functools.partial(_describe, record, request)
        registered = registered_role(request.resource, request.method, getattr(user, "options", ()))
        if registered is not None and context.handler_access is not None:
            context.handler_access = registered
        try:
            if not super().Authenticate(req, username, password):
                record.describe = None  # the body of somebody unknown is not even parsed
                return False
        except http.HttpForbidden as err:
            if account is None:
                raise
            missing = request.permission or "write"
            raise self._forbidden(request, f"permission {missing} is not granted") from err
        record.rule = ", ".join(sorted(set(user.options).intersection(_granting(context))))
        if request.resource.__name__ in SIGNED_IN_RESOURCES:
            context.handler.view = whoami.view(self.access.whole_account_of(user), user.tokens)
        elif account is not None and request.resource.__name__ not in OPEN_RESOURCES:
            self._enforce(request, account)
        self.authorize(request)
        return True

    def HandleRequest(self, req: Any) -> Any:
        """Ganeti's handling; what a parameter of a wrong type breaks there is a 400."""
        with self.audit.follow(req, self.access.active, last=True):
            try:
                return super().HandleRequest(req)
            except http.HttpNotFound:
                context = self._GetRequestContext(req)
                if context.narrowed:
                    time.sleep(_until_even(time.monotonic() - context.began))
                raise
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as err:
                if not self._GetRequestContext(req).narrowed:
                    raise
                logging.exception("Handling a request")
                raise http.HttpBadRequest(message="A parameter is missing or has a wrong type") from err
            except (errors.JobCanceled, errors.JobLost, errors.OpExecError, errors.OpPrereqError) as err:
                # Of a request that waits for its job, such as `/2/os`.
                if not self._GetRequestContext(req).narrowed:
                    raise
                logging.warning("The job of a request: %s", err)
                raise http.HttpServiceUnavailable(message="The job of the request came to nothing") from err

    def limit_instances(self, request: Request, inside: Callable[[str], bool]) -> None:
        """For middleware: limits a request to the instances whose exact name is `inside`.

        As a scope of the policy would: for the user nothing else exists, of jobs only his
        own do, and the opcodes that come of the request are checked and pinned.
        """
        if request.resource.__name__ in OPEN_RESOURCES | SIGNED_IN_RESOURCES:
            return
        if request.permission is None:
            raise self._forbidden(request, "this endpoint cannot be limited")
        # A multi-alloc is made of creations, which choose an OS; consoles are in queries, too.
        permissions = {request.permission, "instances.create", "tags.set", "instances.query.console"}
        role = Role(
            "of the middleware",
            frozenset(permissions) - NEVER_SCOPED,
            scope=Scope(instances=(Selector(inside=inside),)),
            parameters=Parameters({**PRESETS["restricted"], "os_type": ANY}),
            own_jobs=True,
        )
        grants = Grants(dict.fromkeys(role.permissions, (role,)))
        self._enforce(request, Account(request.user.name, grants, Policy()))

    def _enforce(self, request: Request, account: Account) -> None:
        """Decides by the names in the request, and puts our client in Ganeti's place."""
        permission = request.permission
        if permission is None:
            raise self._forbidden(request, "this endpoint needs the option write")
        roles = account.roles(permission)
        if not roles:
            raise self._forbidden(request, f"permission {permission} is not granted")
        request.check_body()
        deny = account.denied([permission], ())
        if deny is not None:
            raise self._forbidden(request, f"{deny.name} forbids {permission}", deny.name)
        named = request.objects
        if not any(all(role.may_touch(kind, name) for kind, name in named) for role in roles):
            names = ", ".join(f"{kind} {name!r}" if name else f"the {kind}" for kind, name in named)
            reason = f"{names}: outside of role {', '.join(role.name for role in roles)}"
            if all(role.limited for role in roles):
                _log_refusal(request, reason)
                raise denied(http.HttpNotFound(), reason, f"role {roles[0].name}")
            raise self._forbidden(request, reason, f"role {roles[0].name}")
        record = record_of(request.req)
        record.rule = f"role {roles[0].name}"
        request.use_client(lambda client: functools.partial(AccessClient, client, account, permission, record))

    @staticmethod
    def _forbidden(request: Request, reason: str, rule: str = "") -> http.HttpForbidden:
        _log_refusal(request, reason)
        return denied(http.HttpForbidden(message=reason), reason, rule)


#: What is hidden and what is not there are answered after a multiple of so many seconds: what is there takes some
#: tenths of a millisecond longer to decide on, which could be measured. Most are decided in half of this.
_EVEN = 0.005


def _until_even(seconds: float) -> float:
    """For how long to wait so that what took some seconds takes a multiple of `_EVEN`."""
    return _EVEN - seconds % _EVEN


def _granting(context: Any) -> Collection[str]:
    """The options of which a user has one if Ganeti's own check lets him pass."""
    if isinstance(context.handler_access, list):
        return context.handler_access
    return {"all", "read", "write", context.handler_access}  # those that Ganeti makes roles of


def _describe(record: Record, request: Request) -> None:
    # Parsed already, unless it was refused before Ganeti came to it.
    body = request.req.private.body_data or request.body
    record.parameters = parameters_of(request.query, body)
    record.objects = list(request.objects)


def _log_refusal(request: Request, reason: str) -> None:
    logging.warning(
        "Refused %s %s of user %r: %s (audit record %s)",
        request.method,
        request.path,
        request.user.name,
        reason,
        record_of(request.req).id,
    )
