# SPDX-License-Identifier: BSD-2-Clause
"""What a limited role may put into an opcode; all else leaves the instance, or may.

An allow-list (design, 3.5): an opcode that is not here, and a field that is not listed with
it, is refused. The policy language will open more of it, by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ganeti_ext.errors import ExtError

Check = Callable[[Any], bool]


class ParameterRefused(ExtError):
    """A parameter that a limited role may not set; its text names it."""


class UnusableParameter(ExtError):
    """A parameter that luxid could not make sense of; its text names it."""


def _anything(_: Any) -> bool:
    return True


def _is_nothing(value: Any) -> bool:
    """Whether a value is none; "no" and 0 are values."""
    return value is None or (isinstance(value, (str, list, dict)) and not value)


def _only(*keys: str) -> Check:
    """A dictionary with no other keys."""
    return lambda value: isinstance(value, dict) and set(value) <= set(keys)


def _each(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(check(entry) for entry in value)


_BEPARAMS = _only("memory", "minmem", "maxmem", "vcpus", "auto_balance", "always_failover")
_DISK_NUMBERS = _each(lambda disk: isinstance(disk, int))


@dataclass(frozen=True)
class Rule:
    """What is known of one opcode."""

    #: Fields that name an instance which must exist.
    names: tuple[str, ...] = ()
    #: Fields that name an instance which is to be.
    new_names: tuple[str, ...] = ()
    #: Fields that may be set, each with what it may hold.
    settable: Mapping[str, Check] = field(default_factory=dict)
    #: Fields that are written: the name that was decided on is not to be looked up in the
    #: DNS, where it may become another (`threats.md`).
    written: Mapping[str, Any] = field(default_factory=dict)


_NO_DNS = {"name_check": False, "ip_check": False}
_TAGS = Rule(names=("name",), settable={"kind": lambda value: value == "instance", "tags": _anything})


def _instance(**settable: Check) -> Rule:
    """The rule of an opcode about one instance."""
    return Rule(names=("instance_name",), settable=settable)


RULES = {
    "OpInstanceCreate": Rule(
        new_names=("instance_name",),
        settable={
            "mode": lambda value: value == "create",
            "os_type": _anything,
            "no_install": _anything,
            "disk_template": _anything,
            "disks": _each(_only("size", "mode")),
            "nics": _each(_only()),
            "beparams": _BEPARAMS,
            "start": _anything,
            "wait_for_sync": _anything,
        },
        written=_NO_DNS,
    ),
    "OpInstanceMultiAlloc": Rule(settable={"instances": _anything}),
    "OpInstanceRemove": _instance(),
    "OpInstanceStartup": _instance(no_remember=_anything),
    "OpInstanceShutdown": _instance(no_remember=_anything),
    "OpInstanceReboot": _instance(reboot_type=_anything),
    "OpInstanceReinstall": _instance(os_type=_anything),
    "OpInstanceRename": Rule(names=("instance_name",), new_names=("new_name",), written=_NO_DNS),
    "OpInstanceMigrate": _instance(mode=_anything, live=_anything),
    "OpInstanceFailover": _instance(),
    "OpInstanceReplaceDisks": _instance(mode=_anything, disks=_DISK_NUMBERS),
    "OpInstanceActivateDisks": _instance(wait_for_sync=_anything),
    "OpInstanceDeactivateDisks": _instance(),
    "OpInstanceRecreateDisks": _instance(disks=_DISK_NUMBERS),
    "OpInstanceSetParams": _instance(beparams=_BEPARAMS),
    "OpInstanceGrowDisk": _instance(disk=_anything, amount=_anything, absolute=_anything, wait_for_sync=_anything),
    "OpTagsSet": _TAGS,
    "OpTagsDel": _TAGS,
}

#: Fields of every opcode that change nothing outside it; the trail is the client's to write.
_COMMON = ("dry_run", "comment", "reason")


def flatten(ops: list[Any]) -> Iterator[tuple[Any, bool]]:
    """All opcodes of a submission, each with whether it is nested in another."""
    for op in ops:
        yield op, False
        for nested in getattr(op, "instances", None) or () if type(op).__name__ == "OpInstanceMultiAlloc" else ():
            yield nested, True


def objects_of(op: Any) -> list[tuple[str, str]]:
    """The (kind, name) of the objects that an opcode names, as far as it is known here."""
    rule = RULES.get(type(op).__name__, Rule())
    kind = getattr(op, "kind", "instance")
    kind = "group" if kind == "nodegroup" else kind
    return [(kind, getattr(op, name) or "") for name in (*rule.names, *rule.new_names)]


def permissions_of(op: Any, nested: bool) -> set[str]:
    """The permissions that an opcode needs beside that of its endpoint (design, 3.3)."""
    if nested:
        return {"instances.create"}
    if getattr(op, "remove_instance", False):
        return {"instances.remove"}
    return set()


def check_values(op: Any) -> None:
    """Refuses values over which luxid stumbles, with an error that shows its inside.

    It knows no text but ASCII (it runs in the C locale), and JSON has no endless numbers.

    Raises UnusableParameter.
    """
    for name in op.GetAllSlots():
        if not _is_plain(getattr(op, name, None)):
            raise UnusableParameter(f"Parameter '{name}' holds a text that is not ASCII, or a number without end")


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return value.isascii()
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(_is_plain, value)) and all(map(_is_plain, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return True


def check_parameters(op: Any) -> None:
    """Refuses what a limited role may not set.

    Handlers fill each field with its default, so what equals its default is not set.

    Raises ParameterRefused.
    """
    name = type(op).__name__
    rule = RULES.get(name)
    if rule is None:
        raise ParameterRefused(f"a limited role may not submit {name}")
    written = {"instance_uuid", *rule.names, *rule.new_names, *rule.written, *_COMMON}
    for parameter, default, _, _ in type(op).GetAllParams():
        value = getattr(op, parameter, default)
        if parameter in written or value == default or (not default and _is_nothing(value)):
            continue
        check = rule.settable.get(parameter)
        if check is None or not check(value):
            raise ParameterRefused(f"parameter {parameter} of {name} may not be set to this by a limited role")
