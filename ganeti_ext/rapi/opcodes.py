# SPDX-License-Identifier: BSD-2-Clause
"""What each opcode names and sets: the one table by which a job is decided on (design, 3.5).

An opcode that is not here, and a field that is neither an object nor a parameter of the policy, is
refused to whoever is limited.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ganeti import constants, errors, serializer, utils

from ganeti_ext.errors import ExtError

#: Fields of every opcode that change nothing outside of it; the trail is the client's to write.
_COMMON = frozenset({"dry_run", "comment", "reason", "depends"})

#: Fields whose entries are parameters of their own: `beparams` holds `beparams.maxmem`.
_DICTIONARIES = frozenset(
    {"beparams", "hvparams", "osparams", "osparams_private", "osparams_secret", "ndparams", "ext_params"}
)

_DISK_KEYS = frozenset({"access", "adopt", "dev_type", "metavg", "mode", "name", "provider", "size", "spindles", "vg"})
_NIC_KEYS = frozenset({"bridge", "ip", "link", "mac", "mode", "name", "network", "vlan"})
_ACTIONS = frozenset(
    {
        constants.DDM_ADD,
        constants.DDM_ATTACH,
        constants.DDM_DETACH,
        constants.DDM_MODIFY,
        constants.DDM_REMOVE,
    }
)


#: A disk or card by its number; -1 is the last one.
_INDEX = re.compile("-?[0-9]{1,9}")


class UnusableParameter(ExtError):
    """A parameter that Ganeti or luxid could not make sense of; its text names it."""


class UnknownOpcode(ExtError):
    """An opcode that nothing is known of here."""


class Naming(NamedTuple):
    """One object that an opcode names: in which field, of which kind, by which name.

    `new` is one that the opcode makes.
    """

    field: str
    kind: str
    name: str
    new: bool = False


@dataclass(frozen=True)
class Rule:
    """What is known of one opcode."""

    #: Field that names an object, or a list of them -> its kind.
    objects: Mapping[str, str] = field(default_factory=dict)
    #: Field that names an object which is to be -> its kind.
    new: Mapping[str, str] = field(default_factory=dict)
    #: Field for the UUID of an object -> the field that names it. It is written by us: two keys for
    #: one thing would be two ways to say it.
    uuids: Mapping[str, str] = field(default_factory=dict)
    #: Fields that are written: the name that was decided on is not to be looked up in the
    #: DNS, where it may become another (`threats.md`).
    written: Mapping[str, Any] = field(default_factory=dict)
    #: Whether what is done to the object is done to the instances on it, too.
    brings: bool = False
    #: The permissions for what it does to the instances on the way: a grant of its own permission includes
    #: them, a deny of one of them forbids it.
    does: frozenset[str] = frozenset()
    #: The field with the node to which something goes; the allocator chooses it where it is not said.
    goes_to: str = ""
    #: Whether an object has another name afterwards, or is in another group.
    moves: bool = False
    #: Whether a limited role may submit it at all: it may not change what belongs to everybody.
    for_limited: bool = True
    #: Whether a job of it can be bound to the objects that were decided on, by their UUIDs. What
    #: cannot runs on what the name means then: it may not be put off.
    pinned: bool = True


_NO_DNS = {"name_check": False, "ip_check": False}


def _on_instance(*does: str, goes_to: str = "", **nodes: str) -> Rule:
    """The rule of an opcode about one instance; `nodes` are its fields that name a node, and their kind."""
    objects = {"instance_name": "instance", **nodes}
    uuids = {"instance_uuid": "instance_name", **{f"{name}_uuid": name for name in nodes}}
    return Rule(objects, uuids=uuids, does=frozenset(does), goes_to=goes_to)


def _on_node(*does: str, goes_to: str = "", **nodes: str) -> Rule:
    objects = {"node_name": "node", **nodes}
    uuids = {"node_uuid": "node_name", **{f"{name}_uuid": name for name in nodes}}
    return Rule(objects, uuids=uuids, brings=True, does=frozenset(does), goes_to=goes_to)


def _unpinned(objects: Mapping[str, str], brings: bool = False, moves: bool = False, **new: str) -> Rule:
    return Rule(objects, new=new, brings=brings, moves=moves, pinned=False)


_GROUP = {"group_name": "group"}
_NETWORK = {"network_name": "network"}

RULES = {
    "OpInstanceCreate": Rule(
        objects={"pnode": "node", "snode": "node", "src_node": "node", "group_name": "group"},
        new={"instance_name": "instance"},
        uuids={"pnode_uuid": "pnode", "snode_uuid": "snode", "src_node_uuid": "src_node"},
        written=_NO_DNS,
    ),
    "OpInstanceMultiAlloc": Rule(),
    "OpInstanceRemove": _on_instance(),
    "OpInstanceStartup": _on_instance("instances.startup"),
    "OpInstanceShutdown": _on_instance("instances.shutdown"),  # a reinstallation begins with one
    "OpInstanceReboot": _on_instance(),
    "OpInstanceReinstall": _on_instance(),
    "OpInstanceRename": Rule(
        {"instance_name": "instance"},
        new={"new_name": "instance"},
        uuids={"instance_uuid": "instance_name"},
        written=_NO_DNS,
        moves=True,
    ),
    "OpInstanceMigrate": _on_instance(target_node="node", goes_to="target_node"),
    "OpInstanceFailover": _on_instance(target_node="node", goes_to="target_node"),
    "OpInstanceReplaceDisks": _on_instance(remote_node="node", goes_to="remote_node"),
    "OpInstanceActivateDisks": _on_instance(),
    "OpInstanceDeactivateDisks": _on_instance(),
    "OpInstanceRecreateDisks": Rule(
        {"instance_name": "instance", "nodes": "node"},
        uuids={"instance_uuid": "instance_name", "node_uuids": "nodes"},
    ),
    "OpInstanceSetParams": _on_instance(pnode="node", remote_node="node"),
    "OpInstanceGrowDisk": _on_instance(),
    "OpInstanceQueryData": _unpinned({"instances": "instance"}),
    "OpBackupPrepare": _on_instance(),
    "OpBackupExport": _on_instance(target_node="node"),
    "OpBackupRemove": _on_instance(),
    "OpNodePowercycle": _on_node("instances.shutdown"),
    "OpNodeSetParams": _on_node(),
    "OpNodeEvacuate": _on_node(
        "instances.migrate", "instances.failover", "instances.replace_disks", remote_node="node", goes_to="remote_node"
    ),
    "OpNodeMigrate": _on_node("instances.migrate", target_node="node", goes_to="target_node"),
    "OpNodeModifyStorage": _on_node(),
    "OpRepairNodeStorage": _on_node(),
    "OpNodeQueryStorage": _unpinned({"nodes": "node"}),
    # Where nodes are named, Ganeti looks them up again and forgets the UUIDs.
    "OpRestrictedCommand": Rule({"nodes": "node"}, uuids={"node_uuids": "nodes"}, written={"nodes": []}),
    "OpGroupAdd": Rule(new=_GROUP),
    "OpGroupRemove": _unpinned(_GROUP),
    # A scope may hold instances by their group's name: nobody gets others' by renaming it.
    "OpGroupRename": _unpinned(_GROUP, brings=True, moves=True, new_name="group"),
    "OpGroupSetParams": _unpinned(_GROUP, brings=True),
    "OpGroupAssignNodes": Rule(
        {**_GROUP, "nodes": "node"}, uuids={"node_uuids": "nodes"}, brings=True, moves=True, pinned=False
    ),
    "OpNetworkAdd": Rule(new=_NETWORK),
    "OpNetworkRemove": _unpinned(_NETWORK, brings=True),
    "OpNetworkRename": _unpinned(_NETWORK, moves=True, new_name="network"),
    "OpNetworkSetParams": _unpinned(_NETWORK, brings=True),
    "OpNetworkConnect": _unpinned({**_NETWORK, **_GROUP}),
    "OpNetworkDisconnect": _unpinned({**_NETWORK, **_GROUP}, brings=True),
    "OpTagsSet": _unpinned({}),  # its kind of object is in a field, see `namings`
    "OpTagsDel": _unpinned({}),
    "OpOsDiagnose": Rule(),
    "OpClusterSetParams": Rule(for_limited=False),
    "OpClusterRedistConf": Rule(for_limited=False),
}

#: Opcodes that a resource names, but whose handler asks luxid itself.
NOT_SUBMITTED = frozenset({"OpClusterQuery", "OpInstanceConsole", "OpQuery", "OpQueryFields", "OpTagsGet"})


def rule_of(op: Any, limited: bool = True) -> Rule:
    """What is known of an opcode, for a `limited` role or for another. Raises UnknownOpcode."""
    name = type(op).__name__
    rule = RULES.get(name)
    if rule is None or (limited and not rule.for_limited):
        raise UnknownOpcode(f"a limited role may not submit {name}")
    return rule


def flatten(ops: Sequence[Any]) -> Iterator[tuple[Any, bool]]:
    """All opcodes of a submission, each with whether it is nested in another."""
    for op in ops:
        yield op, False
        for nested in getattr(op, "instances", None) or () if type(op).__name__ == "OpInstanceMultiAlloc" else ():
            yield nested, True


def namings(op: Any) -> list[Naming]:
    """The objects that an opcode names, as far as it is known here; a field that is empty names none."""
    if type(op).__name__ in ("OpTagsSet", "OpTagsDel"):
        kind = "group" if op.kind == constants.TAG_NODEGROUP else op.kind
        return [Naming("name", kind, op.name or "")]
    rule = known_of(op)
    found = []
    for new, fields in ((False, rule.objects), (True, rule.new)):
        for name, kind in fields.items():
            value = getattr(op, name, None)
            if _is_export_target(name, value):
                continue
            for one in value if isinstance(value, list) else [value] if value is not None else []:
                found.append(Naming(name, kind, one if isinstance(one, str) else "", new))
    for nic in _network_cards(op):
        network = nic.get("network")
        if network is not None and network != constants.VALUE_NONE:
            found.append(Naming("nics.network", "network", network if isinstance(network, str) else ""))
    return found


def _is_export_target(name: str, value: Any) -> bool:
    """Whether a field says where in another cluster an export goes: a parameter, not a node."""
    return name == "target_node" and isinstance(value, list)


def permissions_of(op: Any, nested: bool) -> set[str]:
    """The permissions that an opcode needs beside that of its endpoint (design, 3.3)."""
    needed = {"instances.create"} if nested else set()
    if getattr(op, "remove_instance", False):
        needed.add("instances.remove")
    if getattr(op, "allow_failover", False):
        needed.add("instances.failover")
    if type(op).__name__ in ("OpInstanceCreate", "OpNetworkAdd") and getattr(op, "tags", None):
        needed.add("tags.set")
    return needed


def known_of(op: Any) -> Rule:
    """What is known of an opcode, which for an unlimited role may be nothing."""
    return RULES.get(type(op).__name__, Rule())


def done_by(op: Any) -> frozenset[str]:
    """The permissions that a deny of which forbids an opcode, whatever its endpoint needs."""
    does = known_of(op).does
    return does | {"instances.shutdown"} if getattr(op, "shutdown", False) is True else does


def values(op: Any) -> list[tuple[str, Any]]:
    """The (parameter, value) pairs that an opcode sets, by their names in a policy.

    Handlers fill each field with its default, so what equals its default is not set.

    Raises UnusableParameter.
    """
    rule = known_of(op)
    known = {"name", "kind"} if type(op).__name__.startswith("OpTags") else set()
    known |= {"instance_uuid", "node_uuid", *rule.new, *rule.objects, *rule.written, *_COMMON}
    found: list[tuple[str, Any]] = []
    for parameter, default, _, _ in type(op).GetAllParams():
        value = getattr(op, parameter, default)
        if _is_export_target(parameter, value):
            found.append(("export_target", value))
        elif parameter in known or value == default or (not default and _is_nothing(value)):
            continue
        elif parameter in _DICTIONARIES:
            found += _entries(parameter, value)
        elif parameter == "disks":
            found += _devices("disks", value, _DISK_KEYS)
        elif parameter == "nics":
            found += _devices("nics", value, _NIC_KEYS)
        elif parameter == "tags":
            found += [("tags", tag) for tag in _list_of("tags", value)]
        elif type(op).__name__ == "OpInstanceMultiAlloc" and parameter == "instances":
            continue  # each of them is looked at by itself
        elif isinstance(value, list) and all(isinstance(one, str) for one in value):
            found += [(parameter, one) for one in value]
        else:
            found.append((parameter, value))
    return found


def _is_nothing(value: Any) -> bool:
    """Whether a value is none; "no" and 0 are values."""
    return value is None or (isinstance(value, (str, list, dict)) and not value)


def _dict(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise UnusableParameter(f"Parameter '{name}' must be a JSON object")
    return value


def _list_of(name: str, value: Any) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise UnusableParameter(f"Parameter '{name}' must be a list")
    return list(value)


def _entries(name: str, value: Any) -> list[tuple[str, Any]]:
    """The entries of a dictionary; `memory` is the old name of two of `beparams`."""
    found = []
    for key, one in _dict(name, value).items():
        one = one.Get() if isinstance(one, serializer.Private) else one
        both = ("minmem", "maxmem") if (name, key) == ("beparams", "memory") else (key,)
        found += [(f"{name}.{part}", one) for part in both]
    return found


def _devices(name: str, value: Any, keys: frozenset[str]) -> list[tuple[str, Any]]:
    """What a list of disks or network cards sets, in each of the forms that Ganeti has for it."""
    found: list[tuple[str, Any]] = []
    for entry in _list_of(name, value):
        settings, about = _device(name, entry)
        found += about
        for key, one in settings.items():
            if (name, key) == ("nics", "network") and one != constants.VALUE_NONE:
                continue  # names an object
            found.append((f"{name}.{key}" if key in keys else f"{name}.other", one))
    return found


def _device(name: str, entry: Any) -> tuple[dict[str, Any], list[tuple[str, Any]]]:
    """The settings of one disk or card, and what else its entry says.

    Forms: `{…}`; a number; `[number, {…}]`; `[action, {…}]`; `[action, which, {…}]`.

    Raises UnusableParameter.
    """
    if isinstance(entry, dict):
        return _dict(name, entry), []
    if isinstance(entry, int) and not isinstance(entry, bool):
        return {}, [(f"{name}.index", entry)]
    parts = _list_of(name, entry)
    if len(parts) not in (2, 3) or not isinstance(parts[-1], dict):
        raise UnusableParameter(f"Parameter '{name}' has an entry that is none")
    which = list(parts[:-1])
    about: list[tuple[str, Any]] = []
    if isinstance(which[0], str) and which[0] in _ACTIONS:
        about.append((f"{name}.action", which.pop(0)))
    elif len(which) == 2:
        raise UnusableParameter(f"Parameter '{name}' has an entry whose action is not known")
    for one in which:
        if isinstance(one, bool) or not isinstance(one, (int, str)):
            raise UnusableParameter(f"Parameter '{name}' has an entry that is none")
        number = isinstance(one, int) or _INDEX.fullmatch(one) is not None
        about.append((f"{name}.index", int(one)) if number else (f"{name}.uuid", one))
    return _dict(name, parts[-1]), about


def _network_cards(op: Any) -> Iterator[dict[str, Any]]:
    """The settings of each network card that an opcode has."""
    cards = getattr(op, "nics", None)
    for entry in cards if isinstance(cards, (list, tuple)) else ():
        yield _device("nics", entry)[0]


def put_network(op: Any, name: str, uuid: str) -> None:
    """Writes the UUID of a network in place of its name, which may come to mean another."""
    for settings in _network_cards(op):
        if settings.get("network") == name:
            settings["network"] = uuid


def put_uuids(op: Any, uuid_of: Mapping[tuple[str, str], str]) -> None:
    """Writes the UUID of each object that an opcode names, where it has a field for it.

    `uuid_of` maps (kind, name). A job whose name has come to mean another object is then refused by
    Ganeti itself.
    """
    rule = rule_of(op, limited=False)
    for uuid_field, name_field in rule.uuids.items():
        kind, value = rule.objects[name_field], getattr(op, name_field, None)
        if isinstance(value, list) and not _is_export_target(name_field, value):
            setattr(op, uuid_field, [uuid_of[kind, one] for one in value] or None)
        else:
            setattr(op, uuid_field, uuid_of[kind, value] if isinstance(value, str) else None)
    for naming in namings(op):
        if naming.field == "nics.network":
            put_network(op, naming.name, uuid_of["network", naming.name])
    for parameter, written in rule.written.items():
        setattr(op, parameter, written)


_SIZES = ("memory", "minmem", "maxmem")
_NUMBERS = ("vcpus", "spindle_use")


def normalise(op: Any) -> None:
    """Turns sizes and numbers into the whole numbers that Ganeti will make of them, so that they are read once.

    A limit compares numbers, a quota adds them up, and Ganeti reads `8G` in its own way, later. One below
    zero would make room in a quota.

    Raises UnusableParameter.
    """
    beparams = getattr(op, "beparams", None)
    if beparams:
        for key, value in _dict("beparams", beparams).items():
            if value is not None and value != constants.VALUE_DEFAULT and key in _SIZES + _NUMBERS:
                beparams[key] = _number(f"beparams.{key}", value, key in _SIZES)
    disks = getattr(op, "disks", None)
    for entry in disks if isinstance(disks, (list, tuple)) else ():
        settings = _device("disks", entry)[0]
        for key in ("size", "spindles"):
            if settings.get(key) is not None:
                settings[key] = _number(f"disks.{key}", settings[key], key == "size")


def _number(name: str, value: Any, unit: bool) -> int:
    try:
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            raise ValueError
        number = int(utils.ParseUnit(value)) if unit else int(value)
        if number < 0:
            raise ValueError
    except (ArithmeticError, ValueError, errors.GenericError) as err:
        raise UnusableParameter(f"Parameter '{name}' must be a number, and none below zero") from err
    return number


def check_values(op: Any) -> None:
    """Refuses values over which luxid stumbles, with an error that shows its inside.

    It knows no text but ASCII (it runs in the C locale), and JSON has no endless numbers. Of a number
    that takes more than 64 bits it keeps the last ones: -2**64 + 10**6 would run as 10**6.

    Raises UnusableParameter.
    """
    for name in op.GetAllSlots():
        if not is_plain(getattr(op, name, None)):
            raise UnusableParameter(f"Parameter '{name}' holds a text that is not ASCII, or a number too large")


def is_plain(value: Any) -> bool:
    """Whether a value is one that luxid reads as it is: ASCII, and of 64 bits."""
    if isinstance(value, serializer.Private):
        return is_plain(value.Get())
    if isinstance(value, str):
        return value.isascii()
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(is_plain, value)) and all(map(is_plain, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(is_plain, value))
    return True
