# SPDX-License-Identifier: BSD-2-Clause
"""The choke point: the luxi client of one request, which sees what will really run."""

from __future__ import annotations

import contextlib
import functools
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ganeti import constants, errors, http
from ganeti.rpc import errors as rpcerr

from ganeti_ext.policy.accounts import Account
from ganeti_ext.policy.decision import Decision, Refusal, decide_among, granting_roles
from ganeti_ext.policy.model import KINDS, Role, Target
from ganeti_ext.policy.parameters import ANY
from ganeti_ext.policy.vocabulary import RESTRICTED_COMMAND
from ganeti_ext.rapi import filters, jobs, opcodes, quota, restricted
from ganeti_ext.rapi.audit import Record, denied, masked
from ganeti_ext.rapi.httperrors import HttpTooManyRequests
from ganeti_ext.rapi.lookup import INSTANCES_ON, Lookup, NotThere, plain_rows
from ganeti_ext.rapi.reads import FieldRefused, Hidden, Reader

#: Calls that an account without limits passes on as they are (`facts.md`, "RAPI").
_PASSED_ON = frozenset({"DeleteFilter", "QueryFilters", "ReplaceFilter"})

#: A parameter's name, where a reason tells it.
_PARAMETER = re.compile(r"(?<=parameter )[^ ]+")

#: What luxid says of a job queue that takes no jobs, in an error without a class of its own.
_DRAINED = "Queue drained"

#: Fields of an opcode that let it choose where it runs, if a role names nodes or groups at all.
_ANY_PLACES = frozenset({"pnode", "snode", "src_node", "target_node", "remote_node", "nics.network"})
#: The same where an opcode has further ones.
_PLACES = {
    "OpInstanceCreate": _ANY_PLACES | {"group_name"},
    "OpInstanceRecreateDisks": _ANY_PLACES | {"nodes"},
}


class AccessClient:
    """Stands between a handler and luxid for one request of one user.

    `new_client` makes Ganeti's client, `permission` is that of the endpoint, `record` the request's in
    the audit trail.
    """

    def __init__(self, new_client: Callable[[], Any], account: Account, permission: str, record: Record) -> None:
        self._client = new_client()
        # For our own questions, which are nobody's request; a middleware may put one of us
        # before another.
        self._luxi = getattr(self._client, "_luxi", self._client)
        self._account = account
        self._record = record
        self._permission = permission
        roles = account.roles(permission)
        self._limited = all(role.limited for role in roles)
        self._own_jobs = all(role.own_jobs for role in roles)
        self._reader = Reader(self._luxi, account, permission)
        self._jobs = jobs.OwnJobs(self._luxi, account.user)
        #: Opcodes that let a disk grow, and to what.
        self._growths: list[tuple[Any, int]] = []

    def __getattr__(self, call: str) -> Any:
        """Any call that has no method of its own below."""
        if call not in _PASSED_ON or self._limited:
            raise self._refused(f"{call} is not for a limited role")
        return self._guarded(getattr(self._client, call))

    def _guarded(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """A call of Ganeti's client whose errors tell nothing: they quote what they came across."""

        def guarded(*args: Any, **kwargs: Any) -> Any:
            with self._silent():
                return call(*args, **kwargs)

        return guarded

    @contextlib.contextmanager
    def _silent(self) -> Iterator[None]:
        """Turns luxid's errors into ours, and what is not to be seen into nothing."""
        try:
            yield
        except (Hidden, NotThere) as err:
            raise self._not_found(str(err)) from err
        except FieldRefused as err:
            raise self._refused(str(err)) from err
        except (filters.BadFilter, opcodes.UnusableParameter) as err:
            raise http.HttpBadRequest(message=str(err)) from err
        except errors.JobQueueError:
            raise  # the handler knows what to say
        except errors.OpPrereqError as err:
            if len(err.args) == 2 and err.args[1] == errors.ECODE_NOENT:
                raise self._not_found(str(err)) from err
            raise self._unusable(err) from err
        except rpcerr.TimeoutError as err:
            raise http.HttpGatewayTimeout(message="luxid did not answer in time") from err
        except (rpcerr.NoMasterError, rpcerr.PermissionError, rpcerr.ConnectionClosedError) as err:
            raise http.HttpBadGateway(message="luxid does not answer") from err
        except errors.GenericError as err:
            if str(err) == _DRAINED:
                # The administrator's doing, not the request's: the handler makes a 503 of it.
                raise errors.JobQueueDrainError from err
            raise self._unusable(err) from err

    def _unusable(self, err: Exception) -> http.HttpBadRequest:
        # Of a job that it cannot read, luxid shows all that is in it, secrets too.
        text = "it cannot read it" if "parse request" in str(err) else str(err)
        logging.warning("Luxid refused %s of user %r: %s", self._permission, self._account.user, text)
        return http.HttpBadRequest(message="luxid refused the request")

    # The names and parameters below are those of ganeti.luxi.Client.

    def SubmitJob(self, ops: list[Any]) -> Any:
        """Submits a job after the decision on each opcode in it."""
        flat = list(opcodes.flatten(ops))
        with self._silent():
            for op, nested in flat:
                _check_usable(op)
                jobs.stamp(op, self._account.user, nested)
            role = self._decide(flat)
            if self._permission == RESTRICTED_COMMAND:
                return self._in_turn(ops)
            stored = [op.__getstate__() for op in ops] if role is not None and quota.has_limits(role.quota) else []
            if role is None or not any(map(quota.changes_size, stored)):
                return self._client.SubmitJob(ops)
            return self._within_quota(role, ops, stored)

    def _within_quota(self, role: Role, ops: list[Any], stored: list[Any]) -> Any:
        try:
            with quota.locked():
                quota.Counter(self._luxi, role).check(stored)
                return self._client.SubmitJob(ops)
        except quota.QuotaExceeded as err:
            raise self._refused(f"{err}, by role {role.name}", f"role {role.name}") from err
        except quota.QuotaBusy as err:
            raise http.HttpServiceUnavailable(message=str(err)) from err

    def _in_turn(self, ops: list[Any]) -> Any:
        try:
            with restricted.turn(self._luxi, self._account.user):
                return self._client.SubmitJob(ops)
        except restricted.NotYet as err:
            self._log(str(err))
            raise denied(HttpTooManyRequests(str(err), err.seconds), str(err), self._record.rule) from err
        except quota.QuotaBusy as err:
            raise http.HttpServiceUnavailable(message=str(err)) from err

    def _decide(self, flat: Sequence[tuple[Any, bool]]) -> Role | None:
        """Decides on a job, and pins its opcodes to what was decided on.

        The role that grants it, or None if that has no say in what the job holds. Raises an HTTP error.
        """
        needed = {self._permission}
        for op, nested in flat:
            needed |= opcodes.permissions_of(op, nested)
        done = needed.union(*(opcodes.done_by(op) for op, _ in flat))
        permissions = sorted(needed)
        namings = [naming for op, _ in flat for naming in opcodes.namings(op)]
        roles = granting_roles(self._account, permissions)
        if isinstance(roles, Decision):
            raise self._refusal(roles)
        moved = any(opcodes.known_of(op).moves for op, _ in flat)
        denied_some = any(moved or not deny.permissions.isdisjoint(done) for deny in self._account.denies)
        free = next((role for role in roles if _is_free(role, namings)), None)
        if self._permission == RESTRICTED_COMMAND:
            free = None
            listed = decide_among(roles, self._account, permissions, (), opcodes.values(flat[0][0]))
            if not listed.allowed:  # before anything is looked up (design, section 4)
                raise self._refusal(listed)
        if free is not None and not denied_some:
            self._record.rule = f"role {free.name}"
            return None
        for op, _ in flat:
            opcodes.normalise(op)
        values = [value for op, _ in flat for value in opcodes.values(op)]
        if denied_some or any(role.scope is not None for role in roles):
            return self._decide_on_objects(flat, sorted(done), roles, values, denied_some)
        targets = [Target(naming.kind, naming.name) for naming in namings]
        implied = self._implied(flat, Lookup(self._luxi))
        return self._granted(decide_among(roles, self._account, permissions, targets, values, implied), flat)

    def _decide_on_objects(
        self,
        flat: Sequence[tuple[Any, bool]],
        permissions: Sequence[str],
        roles: Sequence[Role],
        values: Sequence[tuple[str, Any]],
        denied_some: bool,
    ) -> Role | None:
        """The same for whoever is limited to some objects, or kept from some."""
        lookup = Lookup(self._luxi)
        self._check_places(flat, roles)
        try:
            targets = [
                target._replace(several=nested) for op, nested in flat for target in self._targets(op, lookup, roles)
            ]
            implied = self._implied(flat, lookup)
        except opcodes.UnknownOpcode as err:
            raise self._refused(str(err)) from err
        except NotThere as err:
            lenient = [role for role in roles if not role.limited]
            if not lenient:
                raise
            if denied_some:
                raise self._refused(f"{err}; a deny is about this, so it must be named in full") from err
            targets = [Target(naming.kind, naming.name) for op, _ in flat for naming in opcodes.namings(op)]
            return self._granted(decide_among(lenient, self._account, permissions, targets, values), flat)
        decision = decide_among(roles, self._account, permissions, targets, values, implied)
        role = self._granted(decision, flat)
        deny = self._account.keeps(_moves(flat, targets)) if denied_some else None
        if deny is not None:
            raise self._refused(f"{deny.name} is about an object that would get out of it", deny.name)
        if role.limited or denied_some:
            for op, _ in flat:
                opcodes.put_uuids(op, lookup.uuids())
                self._check_not_put_off(op)
        return role

    def _granted(self, decision: Decision, flat: Sequence[tuple[Any, bool]]) -> Role:
        """The role that grants a job; what it asks for is written into the opcodes. Raises an HTTP error."""
        role = decision.role
        if role is None:
            raise self._refusal(decision)
        self._record.rule = decision.rule
        if decision.warning:
            self._warn(decision.warning)
        for op, nested in flat:
            for dependency in op.depends or () if role.own_jobs else ():
                if self._jobs.own(dependency[0]) is None:
                    raise self._not_found(f"depends: {dependency[0]!r} is not his own job")
            name = type(op).__name__
            if name == "OpInstanceCreate" and op.instance_name in decision.places:
                op.group_name = decision.places[op.instance_name]
            if role.stamps and name in ("OpInstanceCreate", "OpNetworkAdd"):
                op.tags = sorted({*(op.tags or ()), *role.stamps})
            if nested and op.hypervisor is None and role.scope is not None:
                # A multi-alloc has no default for it, and the role may not choose.
                op.hypervisor = self._info["default_hypervisor"]
        if role.parameters is not None and not role.parameters.limits.get("disks.size", ANY).anything:
            for op, size in self._growths:
                # To what was decided on: two that grow it by something would be more than either.
                op.amount, op.absolute = size, True
        return role

    def _check_places(self, flat: Sequence[tuple[Any, bool]], roles: Sequence[Role]) -> None:
        """Refuses a choice of place by a role that is not about places.

        Before anything is looked up: the answer would tell what is there.
        """
        for op, _ in flat:
            places = _PLACES.get(type(op).__name__, _ANY_PLACES)
            for naming in opcodes.namings(op):
                if naming.field in places and not any(role.may_choose(naming.kind) for role in roles):
                    raise self._refused(f"parameter {naming.field} may not be set, by role {roles[0].name}")

    def _targets(self, op: Any, lookup: Lookup, roles: Sequence[Role]) -> list[Target]:
        """All objects that an opcode touches, as luxid has them.

        Raises NotThere, UnknownOpcode, or an HTTP error.
        """
        rule = opcodes.rule_of(op, any(role.scope is not None for role in roles))
        creation = type(op).__name__ == "OpInstanceCreate"
        found: list[Target] = []
        new: list[opcodes.Naming] = []
        group: Target | None = None
        for naming in opcodes.namings(op):
            if naming.new:
                new.append(naming)
                continue
            if naming.kind not in KINDS:
                found.append(Target(naming.kind, naming.name))
                continue
            place = creation and naming.kind == "group"
            if not place and not any(role.scope is None or role.may_touch(naming.kind, naming.name) for role in roles):
                raise NotThere(f"{naming.kind} {naming.name!r} is outside")
            one = lookup.one(naming.kind, naming.name, INSTANCES_ON.get(naming.kind, ()) if rule.brings else ())
            if place:
                group = one.target
                continue
            found.append(one.target)
            if rule.brings:
                found += [other.target for other in lookup.on(one)]
        found += [self._new(op, naming, found, group, lookup, roles) for naming in new]
        about_nodes = any(role.scope is not None and role.scope.nodes for role in roles)
        if about_nodes and self._allocator_chooses(op, lookup):
            # It stays in the group of what is moved.
            choices = tuple(Target("group", name) for name in sorted(found[0].groups or ()))
            found.append(Target("node", "", groups=None, choices=choices))
        return found

    def _allocator_chooses(self, op: Any, lookup: Lookup) -> bool:
        """Whether Ganeti's allocator is to choose a node to which something goes."""
        name = type(op).__name__
        field = opcodes.known_of(op).goes_to
        if not field or getattr(op, field) is not None:
            return False
        if name == "OpInstanceReplaceDisks":
            return bool(op.mode == constants.REPLACE_DISK_CHG)
        # What has a secondary node goes there.
        if name in ("OpInstanceMigrate", "OpInstanceFailover"):
            templates = set(lookup.one("instance", op.instance_name, ["disk_template"]).more)
        elif name == "OpNodeMigrate":
            rows = self._luxi.Query(constants.QR_INSTANCE, ["disk_template"], ["=", "pnode", op.node_name])
            templates = {row[0] for row in plain_rows(rows)}
        else:
            return True
        return not templates.isdisjoint(constants.DTS_EXT_MIRROR)

    @staticmethod
    def _new(
        op: Any,
        naming: opcodes.Naming,
        others: Sequence[Target],
        group: Target | None,
        lookup: Lookup,
        roles: Sequence[Role],
    ) -> Target:
        """An object that an opcode makes, or its new name, with what is known of its tags and place."""
        tags = frozenset(tag for tag in getattr(op, "tags", None) or () if isinstance(tag, str))
        if type(op).__name__ in ("OpInstanceRename", "OpNetworkRename"):
            return others[0]._replace(name=naming.name)  # it stays what it is
        if type(op).__name__ == "OpGroupRename":
            return others[0]._replace(name=naming.name, groups=frozenset([naming.name]))
        if type(op).__name__ != "OpInstanceCreate":
            groups = frozenset([naming.name]) if naming.kind == "group" else frozenset()
            return Target(naming.kind, naming.name, tags, groups, new=True)
        if op.pnode is not None:  # without it the allocator chooses, whatever other nodes are named
            placed = frozenset(name for node in others if node.kind == "node" for name in node.groups or ())
            if group is not None and group.name not in placed:
                raise NotThere(
                    f"group {group.name!r} is not that of the nodes"
                )  # or it could be told whether it is there
            return Target("instance", naming.name, tags, placed, new=True)
        choices: tuple[Target, ...] = ()
        if group is not None:
            choices = (group,)
        elif any(role.scope is not None and role.scope.limits_groups() for role in roles):
            choices = lookup.groups()
        return Target("instance", naming.name, tags, None, True, choices, group is not None)

    @functools.cached_property
    def _info(self) -> dict[str, Any]:
        """The cluster's own settings."""
        info: dict[str, Any] = self._luxi.QueryClusterInfo()
        return info

    def _implied(self, flat: Sequence[tuple[Any, bool]], lookup: Lookup) -> list[tuple[str, Any]]:
        """The values that opcodes lead to without saying them (design, 3.2)."""
        found: list[tuple[str, Any]] = []
        for op, _ in flat:
            creation = type(op).__name__ == "OpInstanceCreate"
            given = {key.partition(".")[2]: value for key, value in opcodes.values(op) if key.startswith("beparams.")}
            if creation or constants.VALUE_DEFAULT in given.values():
                for key, default in self._info["beparams"]["default"].items():
                    if given.get(key) == constants.VALUE_DEFAULT or (creation and key not in given):
                        found.append((f"beparams.{key}", default))
            if creation:
                if op.hypervisor is None:
                    found.append(("hypervisor", self._info["default_hypervisor"]))
                if op.disk_template is None:
                    found += [("disk_template", name) for name in self._info["enabled_disk_templates"][:1]]
            if type(op).__name__ == "OpInstanceGrowDisk":
                sizes = lookup.one("instance", op.instance_name, ["disk.sizes"]).more[0] or []
                before = sizes[op.disk] if op.disk < len(sizes) else 0
                self._growths.append((op, op.amount if op.absolute else before + op.amount))
                found.append(("disks.size", self._growths[-1][1]))
        return found

    def _check_not_put_off(self, op: Any) -> None:
        """What cannot be pinned runs at once; what is on a node may be another's by then. Raises HttpForbidden."""
        rule = opcodes.rule_of(op, limited=False)
        put_off = op.depends or op.priority not in (None, constants.OP_PRIO_DEFAULT)
        if put_off and (rule.brings or not rule.pinned):
            raise self._refused(f"parameters depends and priority may not be set for {type(op).__name__}")

    def Query(self, what: str, fields: list[str], qfilter: Any) -> Any:
        """Answers a query, cut to what the user may see."""
        with self._silent():
            if what == constants.QR_JOB:
                return self._query_jobs(fields, qfilter)
            kind = _KIND.get(what)
            if kind is None:
                if self._limited or self._account.hides(self._permission, ""):
                    raise self._refused(f"resource {what} is not for a limited role")
            elif not self._reader.sees_all(kind, [*fields, *filters.texts(qfilter)]):
                return self._reader.query(kind, fields, qfilter)
            return self._client.Query(what, fields, qfilter)

    def _query_jobs(self, fields: list[str], qfilter: Any) -> Any:
        if not self._own_jobs:
            return self._query_all_jobs(fields, qfilter)
        if qfilter is not None:
            filters.check(qfilter, lambda field: field in _JOB_FILTER_FIELDS)
        own = [["=", "id", job_id] for job_id in self._jobs.ids()]
        ours = ["|", *own] if own else ["=", "id", 0]
        answer = self._client.Query(constants.QR_JOB, fields, ours if qfilter is None else ["&", ours, qfilter])
        if not own:
            answer.data = []  # luxid makes a row of nothing for a job that is not there
        for row in answer.data:
            texts = jobs.cut(fields, [value for _, value in row], self._reader.foreign)
            row[:] = [[status, value] for (status, _), value in zip(row, texts)]
        return answer

    def _query_all_jobs(self, fields: list[str], qfilter: Any) -> Any:
        if self._no_output and jobs.OUTPUT in filters.texts(qfilter):
            raise self._refused(f"field {jobs.OUTPUT} may not be in a filter")
        if not self._no_output or jobs.OUTPUT not in fields:
            return self._client.Query(constants.QR_JOB, fields, qfilter)
        answer = self._client.Query(constants.QR_JOB, [*fields, "ops"], qfilter)
        answer.fields.pop()
        for row in answer.data:
            _, ops = row.pop()
            values = jobs.without_output(fields, [value for _, value in row], ops, self._account.user)
            row[:] = [[status, value] for (status, _), value in zip(row, values)]
        return answer

    def QueryFields(self, what: str, fields: Any) -> Any:
        """Tells which fields a resource has."""
        if self._limited and what not in (*_KIND, constants.QR_JOB):
            raise self._refused(f"resource {what} is not for a limited role")
        return self._guarded(self._client.QueryFields)(what, fields)

    def QueryInstances(self, names: list[str], fields: list[str], use_locking: bool) -> Any:
        """Reads instances."""
        return self._classic("instance", "QueryInstances", names, fields, use_locking)

    def QueryNodes(self, names: list[str], fields: list[str], use_locking: bool) -> Any:
        """Reads nodes."""
        return self._classic("node", "QueryNodes", names, fields, use_locking)

    def QueryGroups(self, names: list[str], fields: list[str], use_locking: bool) -> Any:
        """Reads node groups."""
        return self._classic("group", "QueryGroups", names, fields, use_locking)

    def QueryNetworks(self, names: list[str], fields: list[str], use_locking: bool) -> Any:
        """Reads networks."""
        return self._classic("network", "QueryNetworks", names, fields, use_locking)

    def _classic(self, kind: str, call: str, names: list[str], fields: list[str], use_locking: bool) -> Any:
        with self._silent():
            if self._reader.sees_all(kind, fields):
                rows = getattr(self._client, call)(names, fields, use_locking)
                if names and not rows:
                    raise Hidden(f"no {kind} is called {names!r}")  # which not all handlers expect
                return rows
            return self._reader.classic(kind, names, fields)

    def QueryTags(self, kind: str, name: str) -> Any:
        """Reads the tags of an object."""
        with self._silent():
            ours = "group" if kind == constants.TAG_NODEGROUP else kind
            if ours not in KINDS:
                if self._limited or self._account.hides(self._permission, ""):
                    raise Hidden(f"the tags of the {kind}")
            elif not self._reader.sees_all(ours):
                return self._reader.classic(ours, [name], ["tags"])[0][0]
            return self._client.QueryTags(kind, name)

    def QueryClusterInfo(self) -> Any:
        """Reads the cluster's settings; whoever is limited gets what is of nobody."""
        with self._silent():
            return self._reader.info() if self._limited else self._client.QueryClusterInfo()

    @functools.cached_property
    def _no_output(self) -> bool:
        """Whether what others' restricted commands printed is kept from the user."""
        return all(role.scope is not None for role in self._account.roles(RESTRICTED_COMMAND))

    def QueryJobs(self, job_ids: Any, fields: list[str]) -> Any:
        """Reads jobs; another's job is None, as one that does not exist."""
        with self._silent():
            if not self._own_jobs and (not self._no_output or jobs.OUTPUT not in fields):
                return self._client.QueryJobs(job_ids, fields)
            if not self._own_jobs:
                rows = self._client.QueryJobs(job_ids, ["ops", *fields])
                return [row and jobs.without_output(fields, row[1:], row[0], self._account.user) for row in rows]
            if job_ids is None:
                rows = self._jobs.rows(fields)
            else:
                own = [self._jobs.own(job_id) for job_id in job_ids]
                if None in own:
                    return [None]
                rows = self._client.QueryJobs(own, fields)
            return [jobs.cut(fields, row, self._reader.foreign) for row in rows]

    def WaitForJobChangeOnce(self, job_id: Any, fields: list[str], *args: Any, **kwargs: Any) -> Any:
        """Waits for a job; another's job is None, as one that does not exist."""
        with self._silent():
            if not self._own_jobs:
                if self._no_output and jobs.OUTPUT in fields:
                    self._check_output(job_id)
                return self._client.WaitForJobChangeOnce(job_id, fields, *args, **kwargs)
            own = self._jobs.own(job_id)
            if own is None:
                return None
            answer = self._client.WaitForJobChangeOnce(own, fields, *args, **kwargs)
            if isinstance(answer, (list, tuple)) and len(answer) == 2:
                info = jobs.cut(fields, answer[0], self._reader.foreign)
                return [info, *jobs.cut(["oplog"], [answer[1]], self._reader.foreign)]
            return answer

    def _check_output(self, job_id: Any) -> None:
        """Refuses to wait for what another's restricted command prints: luxid would compare it with a guess."""
        (row,) = self._luxi.QueryJobs([job_id], ["ops"])
        if row and jobs.is_others_command(row[0], self._account.user):
            raise self._refused(f"field {jobs.OUTPUT} of another's restricted command")

    def CancelJob(self, job_id: Any, *args: Any, **kwargs: Any) -> Any:
        """Cancels a job, if it is the user's own."""
        with self._silent():
            if self._own_jobs:
                own = self._jobs.own(job_id)
                if own is None:
                    raise Hidden("not his own job")
                job_id = own
            return self._client.CancelJob(job_id, *args, **kwargs)

    def _warn(self, reason: str) -> None:
        reason = _without_secrets(reason)
        self._record.decision, self._record.reason = "warn", reason
        logging.warning(
            "%s of user %r would be refused, were its role not in mode warn: %s",
            self._permission,
            self._account.user,
            reason,
        )

    def _refusal(self, decision: Decision) -> http.HttpException:
        if decision.refusal is Refusal.OUTSIDE:
            return self._not_found(decision.reason, decision.rule)
        return self._refused(decision.reason, decision.rule)

    def _refused(self, reason: str, rule: str = "") -> http.HttpForbidden:
        logged = _without_secrets(reason)
        self._log(logged)
        return denied(http.HttpForbidden(message=f"{self._permission}: {reason}"), logged, rule)

    def _not_found(self, reason: str, rule: str = "") -> http.HttpNotFound:
        self._log(reason)
        return denied(http.HttpNotFound(), reason, rule)

    def _log(self, reason: str) -> None:
        user, record = self._account.user, self._record.id
        logging.warning("Refused %s of user %r: %s (audit record %s)", self._permission, user, reason, record)


#: Ganeti's name of a resource -> the kind of its objects.
_KIND = {
    constants.QR_INSTANCE: "instance",
    constants.QR_NODE: "node",
    constants.QR_GROUP: "group",
    constants.QR_NETWORK: "network",
}

#: What a filter of jobs may name; luxid stumbles over the others.
_JOB_FILTER_FIELDS = frozenset({"id", "status", "priority", "archived"})


def _moves(flat: Sequence[tuple[Any, bool]], targets: Sequence[Target]) -> Iterator[tuple[Target, Target]]:
    """What each object of a job is, and what it will be, where the job changes its name or group."""
    for op, _ in flat:
        name = type(op).__name__
        if name in ("OpInstanceRename", "OpNetworkRename"):
            yield targets[0], targets[-1]
        elif name == "OpGroupRename":
            for target in targets[:-1]:
                groups = frozenset(op.new_name if one == op.group_name else one for one in target.groups or ())
                renamed = op.new_name if target.kind == "group" else target.name
                yield target, target._replace(name=renamed, groups=groups)
        elif name == "OpGroupAssignNodes":
            for target in targets:
                if target.kind != "group":
                    yield target, target._replace(groups=frozenset([op.group_name]))


def _is_free(role: Role, namings: Sequence[opcodes.Naming]) -> bool:
    """Whether a role grants whatever is asked, without a look at it."""
    return (
        role.scope is None
        and role.parameters is None
        and not role.own_jobs
        and not role.tags
        and not quota.has_limits(role.quota)
        and (role.kind is None or any(role.kind == naming.kind for naming in namings))
    )


def _without_secrets(reason: str) -> str:
    """A reason as it may be logged: a parameter's name is the client's, who may have mixed up name and value."""
    return _PARAMETER.sub(lambda match: next(iter(masked({match[0]: ""}))), reason)


def _check_usable(op: Any) -> None:
    """Refuses an opcode that Ganeti or luxid would stumble over; not all handlers look.

    Raises HttpBadRequest.
    """
    try:
        op.Validate(False)
        opcodes.check_values(op)
    except (errors.OpPrereqError, TypeError) as err:  # as FillOpcode: some checks stumble over a list
        raise http.HttpBadRequest(message=f"Invalid parameters: {err}") from err
    except opcodes.UnusableParameter as err:
        raise http.HttpBadRequest(message=str(err)) from err
