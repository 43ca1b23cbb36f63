# SPDX-License-Identifier: BSD-2-Clause
"""Lists and queries as a limited user may see them: his rows, and nothing of others in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ganeti import constants, errors, objects

from ganeti_ext.policy.accounts import Account
from ganeti_ext.policy.model import Role, Selector
from ganeti_ext.policy.visibility import Visibility, visibility
from ganeti_ext.rapi import filters
from ganeti_ext.rapi.lookup import FIELDS, RESOURCE, target_of

CONSOLE = "instances.query.console"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Kind -> field that lists names of other objects -> the kind of those. They are cut to what the
#: user may see.
_LISTS: Mapping[str, Mapping[str, str]] = {
    "instance": {},
    "node": {"pinst_list": "instance", "sinst_list": "instance"},
    "group": {"pinst_list": "instance", "node_list": "node"},
    "network": {"inst_list": "instance", "group_list": "group"},
}
#: Kind -> field that counts what a list holds -> the list.
_COUNTS: Mapping[str, Mapping[str, str]] = {
    "instance": {},
    "node": {"pinst_cnt": "pinst_list", "sinst_cnt": "sinst_list"},
    "group": {"pinst_cnt": "pinst_list", "node_cnt": "node_list"},
    "network": {"inst_cnt": "inst_list", "group_cnt": "group_list"},
}
#: Kind -> fields that tell of others and cannot be cut: who uses which address.
_BLANK: Mapping[str, frozenset[str]] = {
    "instance": frozenset(),
    "node": frozenset(),
    "group": frozenset(),
    "network": frozenset({"map", "external_reservations", "free_count", "reserved_count"}),
}
#: Kind -> further fields that are about the object itself. An instance's are all its own. What a
#: later Ganeti brings is closed until somebody has looked at it.
_OWN: Mapping[str, frozenset[str] | None] = {
    "instance": None,
    "node": _words(
        "bootid cnodes cnos csockets ctime ctotal dfree disk_state drained dtotal group group.uuid hv_state"
        " master_candidate master_capable mfree mnode mtime mtotal name ndparams offline pip powered role"
        " serial_no sip spfree sptotal tags uuid vm_capable"
    ),
    "group": _words(
        "alloc_policy ctime custom_diskparams custom_ipolicy custom_ndparams diskparams disk_state hv_state"
        " ipolicy mtime name ndparams serial_no tags uuid"
    ),
    "network": _words("ctime gateway gateway6 mac_prefix mtime name network network6 serial_no tags uuid"),
}
#: Kind -> its name and UUID, and fields that name other objects; and the kinds of those.
_REFERENCES = {
    "instance": ("name", "uuid", "pnode", "snodes", "pnode.group", "snodes.group", "nic.networks.names"),
    "node": ("name", "uuid", "group"),
    "group": ("name", "uuid"),
    "network": ("name", "uuid"),
}
_REFERRED = {"instance": ("node", "node", "group", "group", "network"), "node": ("group",), "group": (), "network": ()}
#: Fields of /2/info that tell nothing of anybody.
_INFO = _words(
    "name uuid software_version protocol_version config_version os_api_version export_version vcs_version"
    " architecture default_hypervisor enabled_hypervisors enabled_disk_templates default_iallocator beparams"
    " nicparams maintain_node_health ipolicy"
)


class Hidden(Exception):
    """A row that the user may not see, or that is not there."""


class FieldRefused(Exception):
    """A field that the user may not see; its text names it."""


class Reader:
    """Asks luxid for one user: `luxi` is Ganeti's client, `permission` that of the request."""

    def __init__(self, luxi: Any, account: Account, permission: str) -> None:
        self._luxi = luxi
        self._account = account
        self._permission = permission
        self._names: dict[str, frozenset[str] | None] = {}
        self._foreign: frozenset[str] | None = None

    def sees_all(self, kind: str, fields: Sequence[str] = ()) -> bool:
        """Whether nothing of a kind is hidden from the user, nor of what some of its fields list."""
        lists = _LISTS[kind]
        listed = {
            lists[name] for name in lists if name in fields or any(_COUNTS[kind].get(one) == name for one in fields)
        }
        views = [*self._views(kind, fields), *(view for one in listed for view in self._views(one, ()))]
        return all(view.everything for view in views)

    def query(self, kind: str, fields: Sequence[str], qfilter: Any) -> Any:
        """Answers a query of a kind as `ganeti.luxi.Client.Query`, cut to what the user may see.

        Raises FieldRefused, or filters.BadFilter for a filter of his own that is none.
        """
        self._check_fields(kind, fields)
        if qfilter is not None:
            filters.check(qfilter, lambda field: self._own(kind, field) and (field != "console" or self._console()))
        views = self._views(kind, [*fields, *filters.texts(qfilter)])
        scope = _combined(kind, views, exact=qfilter is not None)
        needed = FIELDS[kind]
        wanted = [*needed, *(_COUNTS[kind].get(field, field) for field in fields)]
        answers = []
        if qfilter is None or scope.exact:
            parts = [part for part in (scope.filter, qfilter) if part is not None]
            answers.append(self._ask(kind, wanted, ["&", *parts] if len(parts) > 1 else parts[0] if parts else None))
        else:
            # His filter must not be tried on a row that is not his: not even whether it fails.
            names = sorted(self._visible_names(kind, views, scope))
            for start in range(0, len(names), 200):
                part = names[start : start + 200]
                answers.append(self._ask(kind, wanted, ["&", filters.of_names(part), qfilter]))
            if not answers:
                answers.append(self._ask(kind, wanted, filters.NOTHING))
        rows = []
        for answer in answers:
            for row in answer.data:
                key = [value for _, value in row[: len(needed)]]
                if all(view.sees(target_of(kind, key)) for view in views):
                    rows.append([self._cut(kind, field, cell) for field, cell in zip(fields, row[len(needed) :])])
        definitions = answers[0].fields[len(needed) :]
        for field, definition in zip(fields, definitions):
            if field in _COUNTS[kind]:
                definition.name, definition.kind = field, constants.QFT_NUMBER
        return objects.QueryResponse(fields=definitions, data=rows)

    def classic(self, kind: str, names: Sequence[str], fields: Sequence[str]) -> list[list[Any]]:
        """Answers `QueryInstances` and its like: all rows that the user may see, or that of one name.

        Raises Hidden for a name that is not there for him.
        """
        if not names:
            return _plain(self.query(kind, fields, None))
        if len(names) != 1:
            raise Hidden(f"more than one {kind} at once")
        (name,) = names
        views = self._views(kind, fields)
        if not all(view.may_see(name) for view in views):
            raise Hidden(f"{kind} {name!r} is outside")
        self._check_fields(kind, fields)
        wanted = [_COUNTS[kind].get(field, field) for field in fields]
        if not set(wanted) <= set(FIELDS[kind]):
            # Live fields make luxid ask the nodes, which takes so long that it would tell whether there
            # is an object of that name: first what is decided on, from the configuration alone.
            self._row(kind, name, (), views)
        cells = self._row(kind, name, wanted, views)
        row = [self._cut(kind, field, cell) for field, cell in zip(fields, cells)]
        return [[value if status == constants.RS_NORMAL else None for status, value in row]]

    def _row(self, kind: str, name: str, fields: Sequence[str], views: Sequence[Visibility]) -> list[Any]:
        """Some fields of the object of that name. Raises Hidden if it is not there for the user."""
        needed = FIELDS[kind]
        try:
            data = self._ask(kind, [*needed, *fields], ["=", "name", name]).data
        except errors.OpPrereqError as err:
            raise Hidden(f"luxid does not know {kind} {name!r}") from err
        if len(data) != 1:
            raise Hidden(f"no {kind} is called {name!r}")
        key = [value for _, value in data[0][: len(needed)]]
        if key[0] != name or not all(view.sees(target_of(kind, key)) for view in views):
            raise Hidden(f"{kind} {name!r} is outside, or none")
        return list(data[0][len(needed) :])

    def info(self) -> dict[str, Any]:
        """What a limited user may know of the cluster."""
        return {key: value for key, value in self._luxi.QueryClusterInfo().items() if key in _INFO}

    def foreign(self) -> frozenset[str]:
        """The names and UUIDs of all objects that the user may not know of."""
        if self._foreign is None:
            every = {kind: _plain(self._ask(kind, _REFERENCES[kind], None)) for kind in _REFERENCES}
            known: dict[str, set[str]] = {kind: set() for kind in every}
            for kind, rows in every.items():
                seen = self._seen(kind)
                for name, _, *references in rows:
                    if seen is not None and name not in seen:
                        continue
                    known[kind].add(name)
                    for other, value in zip(_REFERRED[kind], references):  # what stands in an object of his
                        known[other].update([value] if isinstance(value, str) else value or ())
            self._foreign = frozenset(
                word for kind, rows in every.items() for row in rows if row[0] not in known[kind] for word in row[:2]
            )
        return self._foreign

    def _views(self, kind: str, fields: Sequence[str]) -> list[Visibility]:
        views = [visibility(self._account, self._permission, kind)]
        if kind == "instance" and "console" in fields and self._permission != CONSOLE:
            views.append(visibility(self._account, CONSOLE, kind))
        return views

    def _console(self) -> bool:
        return self._permission == CONSOLE or bool(self._account.roles(CONSOLE))

    def _own(self, kind: str, field: str) -> bool:
        own = _OWN[kind]
        return own is None or field in own or field.startswith("ndp/")

    def _check_fields(self, kind: str, fields: Sequence[str]) -> None:
        for field in fields:
            if not isinstance(field, str) or not field.isascii():
                raise FieldRefused("a field is a name")
            if field == "console" and not self._console():
                raise FieldRefused(f"field console needs the permission {CONSOLE}")
            known = _LISTS[kind].keys() | _COUNTS[kind].keys() | _BLANK[kind]
            if field not in known and not self._own(kind, field):
                raise FieldRefused(f"field {field[:60]} is not for a limited role")

    def _ask(self, kind: str, fields: Sequence[str], qfilter: Any) -> Any:
        return self._luxi.Query(RESOURCE[kind], list(fields), qfilter)

    def _seen(self, kind: str) -> frozenset[str] | None:
        """The names of what the user may see; None is all."""
        if kind not in self._names:
            views = self._views(kind, ())
            if all(view.everything for view in views):
                self._names[kind] = None
            else:
                self._names[kind] = self._visible_names(kind, views, _combined(kind, views, exact=False))
        return self._names[kind]

    def _visible_names(self, kind: str, views: Sequence[Visibility], scope: filters.Filter) -> frozenset[str]:
        rows = _plain(self._ask(kind, FIELDS[kind], scope.filter))
        targets = [target_of(kind, row) for row in rows]
        return frozenset(target.name for target in targets if all(view.sees(target) for view in views))

    def _cut(self, kind: str, field: str, cell: Sequence[Any]) -> list[Any]:
        status, value = cell
        listed = _COUNTS[kind].get(field, field)
        if field in _BLANK[kind]:
            return [constants.RS_UNAVAIL, None]
        if listed in _LISTS[kind] and status == constants.RS_NORMAL:
            seen = self._seen(_LISTS[kind][listed])
            if seen is not None:
                # A network's groups come with their settings: [name, mode, link, …].
                value = [one for one in value if (one if isinstance(one, str) else one[0]) in seen]
            if field != listed:
                value = len(value)
        return [status, value]


def _combined(kind: str, views: Sequence[Visibility], exact: bool) -> filters.Filter:
    """A filter that lets through at least what all of some views show; `exact` if it should be no more than that."""
    parts: list[list[Any]] = []
    any_name = not exact
    exact = True
    for view in views:
        if not view.unlimited:
            scope = filters.of_selectors(kind, [one for role in view.roles for one in _selectors(role, kind)], any_name)
            exact = exact and scope.exact
            if scope.filter is not None:
                parts.append(scope.filter)
        for deny in view.denies:
            selectors = deny.objects.get(kind, ()) if deny.objects else (Selector(),)
            hidden = filters.of_selectors(kind, selectors, any_name=True)
            if hidden.filter is None and hidden.exact:
                parts.append(filters.NOTHING)
            elif hidden.exact and hidden.filter is not None and not any(one.group for one in selectors):
                parts.append(["!", hidden.filter])
            else:
                exact = False  # what is denied in doubt cannot be said in luxid's language
    if not parts:
        return filters.Filter(None, exact)
    return filters.Filter(["&", *parts] if len(parts) > 1 else parts[0], exact)


def _selectors(role: Role, kind: str) -> tuple[Selector, ...]:
    return () if role.scope is None else role.scope.of(kind)


def _plain(response: Any) -> list[list[Any]]:
    return [[value if status == constants.RS_NORMAL else None for status, value in row] for row in response.data]
