# SPDX-License-Identifier: BSD-2-Clause
"""The choke point: the luxi client of one request, which sees what will really run."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ganeti import constants, errors, http

from ganeti_ext.policy.accounts import Account
from ganeti_ext.policy.decision import Decision, Refusal, decide, granting_roles
from ganeti_ext.policy.model import KINDS, Role, Target
from ganeti_ext.rapi import filters, jobs, opcodes, quota
from ganeti_ext.rapi.audit import Record
from ganeti_ext.rapi.lookup import INSTANCES_ON, Lookup, NotThere
from ganeti_ext.rapi.reads import FieldRefused, Hidden, Reader

#: Calls that an account without limits passes on as they are (`facts.md`, "RAPI").
_PASSED_ON = frozenset({"DeleteFilter", "QueryFilters", "ReplaceFilter"})

#: Fields of an opcode that let it choose where it runs, if a role names nodes or groups at all.
_PLACES = frozenset({"pnode", "snode", "src_node", "target_node", "remote_node", "nodes", "group_name", "nics.network"})


class AccessClient:
    """Stands between a handler and luxid for one request of one user.

    `new_client` makes Ganeti's client; `record` is the request's in the audit trail, which knows the
    user's name and the endpoint's permission.
    """

    def __init__(self, new_client: Callable[[], Any], account: Account, record: Record) -> None:
        self._client = new_client()
        # For our own questions, which are nobody's request; a middleware may put one of us
        # before another.
        self._luxi = getattr(self._client, "_luxi", self._client)
        self._account = account
        self._record = record
        self._permission = record.permission
        self._roles = account.roles(record.permission)
        self._limited = all(role.limited for role in self._roles)
        self._own_jobs = all(role.own_jobs for role in self._roles)
        self._reader = Reader(self._luxi, account, record.permission)
        self._jobs = jobs.OwnJobs(self._luxi, account.user)

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
        except (errors.JobQueueFull, errors.JobQueueDrainError):
            raise  # the handler knows what to say
        except errors.OpPrereqError as err:
            if len(err.args) == 2 and err.args[1] == errors.ECODE_NOENT:
                raise self._not_found(str(err)) from err
            raise self._unusable(err) from err
        except errors.GenericError as err:
            raise self._unusable(err) from err

    def _unusable(self, err: Exception) -> http.HttpBadRequest:
        logging.warning("Luxid refused %s of user %r: %s", self._permission, self._account.user, err)
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
            for op, _ in flat:
                _check_usable(op)  # as it is now
            if role is None or not quota.has_limits(role.quota):
                return self._submitted(self._client.SubmitJob(ops))
            return self._within_quota(role, ops)

    def _submitted(self, job_id: Any) -> Any:
        self._record.jobs.append(job_id)
        return job_id

    def _within_quota(self, role: Role, ops: list[Any]) -> Any:
        stored = [op.__getstate__() for op in ops]
        if not any(quota.changes_size(op) for op in stored):
            return self._submitted(self._client.SubmitJob(ops))
        try:
            with quota.locked():
                quota.Counter(self._luxi, role).check(stored)
                return self._submitted(self._client.SubmitJob(ops))
        except quota.QuotaExceeded as err:
            raise self._refused(f"{err}, by role {role.name}", f"role {role.name}") from err
        except quota.QuotaBusy as err:
            raise http.HttpServiceUnavailable(message=str(err)) from err

    def _decide(self, flat: Sequence[tuple[Any, bool]]) -> Role | None:
        """Decides on a job, and pins its opcodes to what was decided on; the role that grants it.

        Raises an HTTP error.
        """
        permissions = {self._permission}
        for op, nested in flat:
            permissions |= opcodes.permissions_of(op, nested)
        needed = sorted(permissions)
        namings = [naming for op, _ in flat for naming in opcodes.namings(op)]
        self._record.objects = [(naming.kind, naming.name) for naming in namings]
        roles = granting_roles(self._account, needed)
        if isinstance(roles, Decision):
            raise self._refusal(roles)
        denies = [deny for deny in self._account.denies if not needed_by(deny, needed)]
        careful = bool(denies) or not any(_is_free(role, namings) for role in roles)
        for op, _ in flat:
            self._record.parameters.update(opcodes.values(op))
        if not careful:
            decision = decide(self._account, needed, [Target(naming.kind, naming.name) for naming in namings])
            if not decision.allowed:
                raise self._refusal(decision)
            self._record.rule = decision.rule
            return decision.role
        return self._decide_carefully(flat, needed, roles)

    def _decide_carefully(
        self, flat: Sequence[tuple[Any, bool]], permissions: Sequence[str], roles: Sequence[Role]
    ) -> Role | None:
        """The same for whoever is limited, or somebody whom a deny is about."""
        lookup = Lookup(self._luxi)
        lenient = any(not role.limited for role in roles)
        targets: list[Target] = []
        values: list[tuple[str, Any]] = []
        try:
            for op, nested in flat:
                opcodes.normalise(op)
                rule = opcodes.rule_of(op)
                if nested or type(op).__name__ == "OpInstanceCreate":
                    self._fill(op)
                self._check_names(op, roles)
                targets += self._targets(op, rule, lookup, roles)
                values += opcodes.values(op)
                values += self._resulting(op, lookup)
        except opcodes.UnknownOpcode as err:
            raise self._refused(str(err)) from err
        except NotThere as err:
            if any(role.warn for role in roles) and not self._account.denies:
                self._warn(f"{err} (mode: warn)")
                return next(role for role in roles if role.warn)
            if lenient:
                raise self._refused(f"{err}: a deny rule is about this, so it must be named in full") from err
            raise
        decision = decide(self._account, permissions, targets, values)
        if decision.role is None:
            raise self._refusal(decision)
        self._record.rule = decision.rule
        if decision.warning:
            self._warn(decision.warning)
            return decision.role
        role = decision.role
        for op, _ in flat:
            if role.limited or self._account.denies:
                opcodes.put_uuids(op, lookup.uuids())
                self._check_schedule(op)
            name = getattr(op, "instance_name", None)
            if name in decision.places and getattr(op, "group_name", None) is None:
                op.group_name = decision.places[name]
            if role.stamps and type(op).__name__ in ("OpInstanceCreate", "OpNetworkAdd"):
                op.tags = sorted({*(op.tags or ()), *role.stamps})
        return role

    def _check_names(self, op: Any, roles: Sequence[Role]) -> None:
        """Refuses a field that chooses a place, before anything tells whether the place is there."""
        if any(role.scope is None or role.warn for role in roles):
            return
        for naming in opcodes.namings(op):
            if naming.field in _PLACES and type(op).__name__ not in ("OpNodeQueryStorage", "OpGroupAssignNodes"):
                if naming.kind == "group" and type(op).__name__ != "OpInstanceCreate":
                    continue  # a network's or a group's own: the object itself
                if not any(role.may_place(naming.kind) for role in roles):
                    raise self._refused(f"parameter {naming.field} may not be set, by role {roles[0].name}")

    def _targets(self, op: Any, rule: opcodes.Rule, lookup: Lookup, roles: Sequence[Role]) -> list[Target]:
        """All objects that an opcode touches, as luxid has them.

        Raises NotThere.
        """
        namings = opcodes.namings(op)
        found: list[Target] = []
        nodes: list[Target] = []
        groups: list[str] = []
        creation = type(op).__name__ == "OpInstanceCreate"
        for naming in namings:
            if naming.new:
                continue
            if naming.kind not in KINDS:
                found.append(Target(naming.kind, naming.name))
                continue
            if not any(role.may_touch(naming.kind, naming.name) for role in roles):
                raise NotThere(f"{naming.kind} {naming.name!r} is outside")
            more = INSTANCES_ON.get(naming.kind, ()) if rule.brings else ()
            target = lookup.one(naming.kind, naming.name, more).target
            if creation and naming.field == "group_name":
                groups.append(naming.name)
            elif creation and naming.kind == "node":
                nodes.append(target)
                found.append(target)
            else:
                found.append(target)
            if more:
                found += [one.target for one in lookup.on(naming.kind, naming.name)]
        for naming in namings:
            if naming.new:
                found.append(self._new(op, naming, nodes, groups, lookup, roles))
        return found

    def _new(
        self,
        op: Any,
        naming: opcodes.Naming,
        nodes: Sequence[Target],
        groups: Sequence[str],
        lookup: Lookup,
        roles: Sequence[Role],
    ) -> Target:
        """An object that an opcode makes: with its tags and, as far as it is known, its place."""
        tags = frozenset(tag for tag in getattr(op, "tags", None) or () if isinstance(tag, str))
        if type(op).__name__ != "OpInstanceCreate":
            if naming.kind == "group":
                return Target("group", naming.name, tags, frozenset([naming.name]), new=True)
            if type(op).__name__ in ("OpInstanceRename", "OpNetworkRename"):
                # It stays what it is, under another name.
                old = opcodes.namings(op)[0]
                return lookup.one(old.kind, old.name).target._replace(name=naming.name)
            return Target(naming.kind, naming.name, tags, new=True)
        if nodes:
            placed = frozenset(group for node in nodes for group in node.groups or ())
            return Target("instance", naming.name, tags, placed, new=True)
        choices = tuple(groups)
        if not choices and any(role.places for role in roles):
            choices = lookup.groups()
        return Target("instance", naming.name, tags, None, new=True, choices=choices)

    def _fill(self, op: Any) -> None:
        """Writes what the cluster would take for what a creation leaves out: it is decided on, too."""
        info = self._info()
        if op.hypervisor is None:
            op.hypervisor = info["default_hypervisor"]
        if op.disk_template is None and info["enabled_disk_templates"]:
            op.disk_template = info["enabled_disk_templates"][0]

    def _info(self) -> dict[str, Any]:
        info: dict[str, Any] = self._luxi.QueryClusterInfo()
        return info

    def _resulting(self, op: Any, lookup: Lookup) -> list[tuple[str, Any]]:
        """The values that an opcode leads to without saying them (design, 3.2)."""
        name = type(op).__name__
        found: list[tuple[str, Any]] = []
        if name == "OpInstanceGrowDisk":
            sizes = lookup.one("instance", op.instance_name, ["disk.sizes"]).more[0] or []
            before = sizes[op.disk] if isinstance(op.disk, int) and op.disk < len(sizes) else 0
            found.append(("disks.size", op.amount if op.absolute else before + op.amount))
        elif name == "OpInstanceCreate" or constants.VALUE_DEFAULT in (getattr(op, "beparams", None) or {}).values():
            defaults = self._info()["beparams"]["default"]
            given = {key.partition(".")[2]: value for key, value in opcodes.values(op) if key.startswith("beparams.")}
            for key, default in defaults.items():
                if given.get(key) == constants.VALUE_DEFAULT or (name == "OpInstanceCreate" and key not in given):
                    found.append((f"beparams.{key}", default))
        return found

    def _check_schedule(self, op: Any) -> None:
        """Waits only for jobs of his own; and what cannot be pinned is not put off."""
        depends = op.depends or ()
        rule = opcodes.rule_of(op)
        if not rule.pinned and (depends or op.priority not in (None, constants.OP_PRIO_DEFAULT)):
            raise self._refused(f"parameters depends and priority may not be set for {type(op).__name__}")
        for dependency in depends:
            if not self._own_jobs:
                break
            if self._jobs.own(dependency[0]) is None:
                raise self._not_found(f"depends: {dependency[0]!r} is not his own job")

    def Query(self, what: str, fields: list[str], qfilter: Any) -> Any:
        """Answers a query, cut to what the user may see."""
        with self._silent():
            if what == constants.QR_JOB:
                return self._query_jobs(fields, qfilter)
            kind = _KIND.get(what)
            if kind is None:
                if self._limited or self._account.hides(self._permission, ""):
                    raise self._refused(f"resource {what} is not for a limited role")
            elif not self._reader.sees_all(kind, fields):
                return self._reader.query(kind, fields, qfilter)
            elif "console" in fields:
                self._reader.check_console(kind)
            return self._client.Query(what, fields, qfilter)

    def _query_jobs(self, fields: list[str], qfilter: Any) -> Any:
        if not self._own_jobs:
            return self._client.Query(constants.QR_JOB, fields, qfilter)
        if qfilter is not None:
            filters.check(qfilter, lambda field: field in _JOB_FILTER_FIELDS)
        own = [["=", "id", job_id] for job_id in self._jobs.ids()]
        ours = ["|", *own] if own else ["=", "id", 0]
        answer = self._client.Query(constants.QR_JOB, fields, ours if qfilter is None else ["&", ours, qfilter])
        for row in answer.data:
            texts = jobs.cut(fields, [value for _, value in row], self._reader.foreign_instances)
            row[:] = [[status, value] for (status, _), value in zip(row, texts)]
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
                return getattr(self._client, call)(names, fields, use_locking)
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

    def QueryJobs(self, job_ids: Any, fields: list[str]) -> Any:
        """Reads jobs; another's job is None, as one that does not exist."""
        with self._silent():
            if not self._own_jobs:
                return self._client.QueryJobs(job_ids, fields)
            if job_ids is None:
                rows = self._jobs.rows(fields)
            else:
                own = [self._jobs.own(job_id) for job_id in job_ids]
                if None in own:
                    return [None]
                rows = self._client.QueryJobs(own, fields)
            return [jobs.cut(fields, row, self._reader.foreign_instances) for row in rows]

    def WaitForJobChangeOnce(self, job_id: Any, fields: list[str], *args: Any, **kwargs: Any) -> Any:
        """Waits for a job; another's job is None, as one that does not exist."""
        with self._silent():
            if not self._own_jobs:
                return self._client.WaitForJobChangeOnce(job_id, fields, *args, **kwargs)
            own = self._jobs.own(job_id)
            if own is None:
                return None
            answer = self._client.WaitForJobChangeOnce(own, fields, *args, **kwargs)
            if isinstance(answer, (list, tuple)) and len(answer) == 2:
                info = jobs.cut(fields, answer[0], self._reader.foreign_instances)
                return [info, *jobs.cut(["oplog"], [answer[1]], self._reader.foreign_instances)]
            return answer

    def CancelJob(self, job_id: Any, *args: Any, **kwargs: Any) -> Any:
        """Cancels a job, if it is the user's own."""
        with self._silent():
            if self._own_jobs:
                own = self._jobs.own(job_id)
                if own is None:
                    raise Hidden("not his own job")
                job_id = own
            self._record.objects = [("job", str(job_id))]
            return self._client.CancelJob(job_id, *args, **kwargs)

    def _warn(self, reason: str) -> None:
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
        self._note(reason, rule)
        return http.HttpForbidden(message=f"{self._permission}: {reason} [{self._record.id}]")

    def _not_found(self, reason: str, rule: str = "") -> http.HttpNotFound:
        self._note(reason, rule)
        return http.HttpNotFound()

    def _note(self, reason: str, rule: str) -> None:
        record = self._record
        record.decision, record.reason, record.rule = "deny", reason, rule or record.rule
        logging.warning("Refused %s of user %r [%s]: %s", self._permission, self._account.user, record.id, reason)


#: Ganeti's name of a resource -> the kind of its objects.
_KIND = {
    constants.QR_INSTANCE: "instance",
    constants.QR_NODE: "node",
    constants.QR_GROUP: "group",
    constants.QR_NETWORK: "network",
}

#: What a filter of jobs may name; luxid stumbles over the others.
_JOB_FILTER_FIELDS = frozenset({"id", "status", "priority", "archived"})


def needed_by(deny: Any, permissions: Sequence[str]) -> bool:
    """Whether a deny leaves a request alone, whatever it is about."""
    return deny.permissions.isdisjoint(permissions)


def _is_free(role: Role, namings: Sequence[opcodes.Naming]) -> bool:
    """Whether a role grants whatever is asked, without a look at it."""
    return (
        role.scope is None
        and role.parameters is None
        and not role.tags
        and not quota.has_limits(role.quota)
        and all(role.kind in (None, naming.kind) for naming in namings)
    )


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
