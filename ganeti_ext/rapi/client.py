# SPDX-License-Identifier: BSD-2-Clause
"""The choke point: the luxi client of one request, which sees what will really run."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

from ganeti import constants, errors, http, utils

from ganeti_ext.policy.accounts import Account
from ganeti_ext.policy.decision import Refusal, decide
from ganeti_ext.rapi import opcodes
from ganeti_ext.rapi.audit import denied

#: The source of the reason-trail entry that says whose job it is.
REASON_SOURCE = "gnt:ext:rapi-user"

#: Calls that an account without limits passes on as they are (`facts.md`, "RAPI").
_PASSED_ON = frozenset(
    {
        "DeleteFilter",
        "Query",
        "QueryClusterInfo",
        "QueryFields",
        "QueryFilters",
        "QueryGroups",
        "QueryInstances",
        "QueryNetworks",
        "QueryNodes",
        "QueryTags",
        "ReplaceFilter",
    }
)

#: What a handler may have put into a trail itself; nothing else gets through.
_KEPT_SOURCES = (constants.OPCODE_REASON_SRC_USER, constants.OPCODE_REASON_SRC_RLIB2 + ":")

_JOB_ID = re.compile("[0-9]{1,18}")


class AccessClient:
    """Stands between a handler and luxid for one request of one user.

    `new_client` makes Ganeti's client, `permission` is that of the endpoint.
    """

    def __init__(self, new_client: Callable[[], Any], user: str, account: Account, permission: str) -> None:
        self._client = new_client()
        # For our own questions, which are nobody's request; a middleware may put one of us
        # before another.
        self._luxi = getattr(self._client, "_luxi", self._client)
        self._user = user
        self._account = account
        self._permission = permission
        self._limited = all(role.scope is not None for role in account.grants[permission])

    def __getattr__(self, call: str) -> Any:
        """Any call that has no method of its own below."""
        if call not in _PASSED_ON or self._limited:
            raise self._refused(f"{call} is not for a limited role")
        return getattr(self._client, call)

    # The names and parameters below are those of ganeti.luxi.Client.

    def SubmitJob(self, ops: list[Any]) -> Any:
        """Submits a job after the decision on each opcode in it."""
        flat = list(opcodes.flatten(ops))
        permissions = {self._permission}
        objects = []
        for op, nested in flat:
            permissions |= opcodes.permissions_of(op, nested)
            objects += opcodes.objects_of(op)
        decision = decide(self._account, sorted(permissions), objects)
        if decision.refusal is Refusal.OUTSIDE:
            raise self._not_found(decision.reason)
        if decision.role is None:
            raise self._refused(decision.reason)
        for op, nested in flat:
            if decision.role.scope is not None:
                self._check_and_pin(op)
                if nested and op.hypervisor is None:
                    # A multi-alloc has no default for it, and the role may not choose.
                    op.hypervisor = self._luxi.QueryClusterInfo()["default_hypervisor"]
            _check_usable(op)
            self._stamp(op, nested)
        return self._client.SubmitJob(ops)

    def QueryJobs(self, job_ids: Any, fields: list[str]) -> Any:
        """Reads jobs; another's job is None, as one that does not exist."""
        if self._limited:
            if job_ids is None:
                raise self._refused("lists of jobs are not for a limited role")
            job_ids = [self._own_job(job_id) for job_id in job_ids]
            if None in job_ids:
                return [None]
        return self._client.QueryJobs(job_ids, fields)

    def WaitForJobChangeOnce(self, job_id: Any, *args: Any, **kwargs: Any) -> Any:
        """Waits for a job; another's job is None, as one that does not exist."""
        if self._limited:
            job_id = self._own_job(job_id)
            if job_id is None:
                return None
        return self._client.WaitForJobChangeOnce(job_id, *args, **kwargs)

    def CancelJob(self, job_id: Any, *args: Any, **kwargs: Any) -> Any:
        """Cancels a job, if it is the user's own."""
        if self._limited:
            job_id = self._own_job(job_id)
            if job_id is None:
                raise self._not_found("not his own job")
        return self._client.CancelJob(job_id, *args, **kwargs)

    def _check_and_pin(self, op: Any) -> None:
        """Makes sure that the opcode means what was decided on, and will when it runs.

        Ganeti expands a name that is not a whole one (`threats.md`): so luxid is asked
        whether exactly that instance is there, and its UUID goes into the opcode, with
        which Ganeti refuses the job should the name come to mean another.
        """
        try:
            opcodes.check_parameters(op)
        except opcodes.ParameterRefused as err:
            raise self._refused(str(err)) from err
        rule = opcodes.RULES[type(op).__name__]
        for name in rule.names:
            uuid = self._instance_uuid(getattr(op, name))
            if hasattr(op, "instance_uuid"):
                op.instance_uuid = uuid
        for parameter, value in rule.written.items():
            setattr(op, parameter, value)

    def _instance_uuid(self, name: str) -> str:
        try:
            rows = self._luxi.Query(constants.QR_INSTANCE, ["name", "uuid"], ["=", "name", name]).data
        except errors.OpPrereqError as err:
            raise self._not_found(f"luxid does not know instance {name!r}") from err
        found = [[value for _, value in row] for row in rows]
        if len(found) != 1 or found[0][0] != name:
            raise self._not_found(f"no instance is called exactly {name!r}")
        return str(found[0][1])

    def _stamp(self, op: Any, nested: bool) -> None:
        """Writes whose job it is; a nested opcode's own job inherits the outer trail."""
        if nested:
            op.reason = []
            return
        kept = [entry for entry in op.reason or () if str(entry[0]).startswith(_KEPT_SOURCES)]
        op.reason = [(REASON_SOURCE, self._user, utils.EpochNano()), *kept]

    def _own_job(self, job_id: Any) -> int | None:
        """The id as a number if the job is the user's own, else None.

        It is if each of its opcodes has exactly one entry of our source, and that is his.
        """
        if _JOB_ID.fullmatch(str(job_id)) is None:
            return None
        (row,) = self._luxi.QueryJobs([int(job_id)], ["ops"])
        if not row or not row[0]:
            return None
        for op in row[0]:
            trail = [entry for entry in op.get("reason") or () if isinstance(entry, list)]
            ours = [entry for entry in trail if entry[:1] == [REASON_SOURCE]]
            if len(ours) != 1 or ours[0][1:2] != [self._user]:
                return None
        return int(job_id)

    def _refused(self, reason: str) -> http.HttpForbidden:
        logging.warning("Refused %s of user %r: %s", self._permission, self._user, reason)
        return denied(http.HttpForbidden(message=f"{self._permission}: {reason}"), reason)

    def _not_found(self, reason: str) -> http.HttpNotFound:
        logging.warning("Refused %s of user %r as not found: %s", self._permission, self._user, reason)
        return denied(http.HttpNotFound(), reason)


def _check_usable(op: Any) -> None:
    """Refuses an opcode that Ganeti or luxid would stumble over; not all handlers look.

    Raises HttpBadRequest.
    """
    try:
        op.Validate(False)
        opcodes.check_values(op)
    except errors.OpPrereqError as err:
        raise http.HttpBadRequest(message=f"Invalid parameters: {err}") from err
    except opcodes.UnusableParameter as err:
        raise http.HttpBadRequest(message=str(err)) from err
