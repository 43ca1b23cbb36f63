# SPDX-License-Identifier: BSD-2-Clause
"""What luxid knows of the objects that a request names: asked for by the exact name alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ganeti import constants, errors

from ganeti_ext.errors import ExtError
from ganeti_ext.policy.model import Target
from ganeti_ext.policy.pattern import is_exact_name
from ganeti_ext.rapi.filters import of_names

#: Kind -> Ganeti's name of the resource.
RESOURCE = {
    "instance": constants.QR_INSTANCE,
    "node": constants.QR_NODE,
    "group": constants.QR_GROUP,
    "network": constants.QR_NETWORK,
}

#: Kind -> what a policy goes by. Fields of the configuration only: for live ones luxid would ask
#: the nodes (`facts.md`).
FIELDS = {
    "instance": ("name", "uuid", "tags", "pnode.group", "snodes.group"),
    "node": ("name", "uuid", "tags", "group"),
    "group": ("name", "uuid", "tags"),
    "network": ("name", "uuid", "tags", "group_list"),
}

#: Kind -> the fields that list the instances on an object.
INSTANCES_ON = {"node": ("pinst_list", "sinst_list"), "group": ("pinst_list",), "network": ("inst_list",)}

#: So many names go into one question: luxid compiles an expression of them.
_AT_ONCE = 200


class NotThere(ExtError):
    """No object has exactly that name; for a log, never for the user."""


class Found(NamedTuple):
    """An object that is there, and the values of further fields that were asked for."""

    target: Target
    uuid: str
    more: tuple[Any, ...] = ()


def target_of(kind: str, values: Sequence[Any]) -> Target:
    """The object that a row of FIELDS is about."""
    groups: Iterable[str] = ()
    if kind == "instance":
        groups = [values[3], *(values[4] or ())]
    elif kind == "node":
        groups = [values[3]]
    elif kind == "group":
        groups = [values[0]]
    elif kind == "network":
        groups = [connection[0] for connection in values[3] or ()]
    return Target(kind, values[0], frozenset(values[2] or ()), frozenset(group for group in groups if group))


def plain_rows(response: Any) -> list[list[Any]]:
    """The rows of a query's answer, a value that is not there as None."""
    return [[value if status == constants.RS_NORMAL else None for status, value in row] for row in response.data]


class Lookup:
    """Asks luxid about objects, each once for a request; `luxi` is Ganeti's client."""

    def __init__(self, luxi: Any) -> None:
        self._luxi = luxi
        self._found: dict[tuple[str, str], Found] = {}

    def one(self, kind: str, name: str, more: Sequence[str] = ()) -> Found:
        """The object of exactly that name. Raises NotThere.

        Ganeti expands a name that is not a whole one, each call in its own way (`threats.md`): so
        a name in any other spelling is nothing, and the answer is compared.
        """
        if not more and (kind, name) in self._found:
            return self._found[kind, name]
        if kind not in FIELDS or not is_exact_name(name):
            raise NotThere(f"{name!r} is not the full name of a {kind}")
        fields = FIELDS[kind]
        try:
            rows = plain_rows(self._luxi.Query(RESOURCE[kind], [*fields, *more], ["=", "name", name]))
        except errors.OpPrereqError as err:
            raise NotThere(f"luxid does not know {kind} {name!r}") from err
        if len(rows) != 1 or rows[0][0] != name:
            raise NotThere(f"no {kind} is called exactly {name!r}")
        return self._note(kind, rows[0])

    def many(self, kind: str, names: Sequence[str]) -> list[Found]:
        """The objects of some names that luxid itself gave; one that has gone since is left out.

        They need not be exact names: an administrator's instance may be called as he likes.
        """
        wanted = [name for name in dict.fromkeys(names) if (kind, name) not in self._found]
        for start in range(0, len(wanted), _AT_ONCE):
            part = wanted[start : start + _AT_ONCE]
            response = self._luxi.Query(RESOURCE[kind], list(FIELDS[kind]), of_names(part))
            for row in plain_rows(response):
                self._note(kind, row)
        return [self._found[kind, name] for name in names if (kind, name) in self._found]

    def on(self, found: Found) -> list[Found]:
        """The instances on a node, in a group or in a network that was asked for with INSTANCES_ON.

        One whose name no user could say is there all the same, and nobody's.
        """
        names = [instance for names in found.more for instance in names or ()]
        strangers = [name for name in dict.fromkeys(names) if not is_exact_name(name)]
        return self.many("instance", names) + [Found(Target("instance", name, groups=None), "") for name in strangers]

    def groups(self) -> tuple[Target, ...]:
        """All groups."""
        rows = plain_rows(self._luxi.Query(constants.QR_GROUP, list(FIELDS["group"]), None))
        return tuple(target_of("group", row) for row in rows)

    def _note(self, kind: str, row: Sequence[Any]) -> Found:
        count = len(FIELDS[kind])
        found = Found(target_of(kind, row), str(row[1]), tuple(row[count:]))
        self._found[kind, row[0]] = found
        return found

    def uuids(self) -> Mapping[tuple[str, str], str]:
        """(kind, name) -> UUID of all that was found."""
        return {key: found.uuid for key, found in self._found.items()}
