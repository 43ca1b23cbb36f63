# SPDX-License-Identifier: BSD-2-Clause
"""What may be put into a request: every parameter by name, the presets, and a role's limits.

A parameter has the name of its field in Ganeti's opcode; what lies inside of a field is named
with a dot (`beparams.maxmem`, `disks.size`). A field that names an object (an instance, a node, a
group, a network) is no parameter: the scope of the role decides on it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Union

from ganeti_ext.policy.pattern import Pattern, Patterns

Scalar = Union[bool, int, str]

#: The name of a restricted command, as the node daemon takes it.
COMMAND_NAME = re.compile("[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,63}")

#: What a role allows only by listing it, whatever its mode: the node runs it as root.
LISTED = frozenset({"command"})


@dataclass(frozen=True)
class Limit:
    """The values that a parameter may have: some texts, numbers or flags, or a range."""

    values: tuple[Pattern | bool | int, ...] = ()
    #: Smallest and largest number, both allowed; of a size in MiB.
    low: int | None = None
    high: int | None = None
    anything: bool = False

    texts: Patterns = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Takes the patterns out of the values, to be compared at once."""
        object.__setattr__(self, "texts", Patterns(one for one in self.values if isinstance(one, Pattern)))

    def allows(self, value: Any) -> bool:
        """Whether the parameter may be set to `value`."""
        if self.anything:
            return True
        if isinstance(value, str):
            return self.texts.matches(value)
        if not isinstance(value, int):
            return False
        if isinstance(value, bool) or (self.low is None and self.high is None):
            return any(type(one) is type(value) and one == value for one in self.values)
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)

    def __str__(self) -> str:
        """What is allowed, for whoever is refused."""
        if self.anything:
            return "anything"
        bounds = [f"at least {self.low}"] * (self.low is not None) + [f"at most {self.high}"] * (self.high is not None)
        words = [one.text if isinstance(one, Pattern) else str(one).lower() for one in self.values]
        return " and ".join(bounds) or ", ".join(words) or "nothing"


ANY = Limit(anything=True)

#: The forms of a parameter -> the limits that a role may set to it.
FORMS = {
    "text": "patterns",
    "number": "whole numbers, or a range",
    "size": "sizes, or a range of them",
    "flag": "`true`, `false`",
    "any": "patterns, whole numbers, `true`, `false`, or a range of numbers",
    "other": '`"*"` alone',
}


def _texts(*words: str) -> Limit:
    return Limit(tuple(Pattern(word) for word in words))


@dataclass(frozen=True)
class Parameter:
    """One parameter: `form` is one of FORMS.

    `restricted` is what the preset of that name allows, None for nothing.
    """

    form: str
    about: str
    restricted: Limit | None = None


#: Parameters of OS and hypervisor have names that depend on either; the pattern of a name ->
#: what is said of it.
OPEN_ENDED = {
    "osparams": Parameter("any", "a parameter of the OS"),
    "osparams_private": Parameter("any", "a parameter of the OS that is kept out of Ganeti's logs"),
    "osparams_secret": Parameter("any", "a parameter of the OS that is kept nowhere"),
    "hvparams": Parameter("any", "a parameter of the hypervisor: many are as good as root on the node"),
    "ndparams": Parameter("any", "a parameter of the node or group"),
    "ext_params": Parameter("any", "a parameter of an external storage"),
}
_INNER = re.compile("[A-Za-z0-9_-]+")

#: name -> what it is. What the preset `restricted` allows stands beside it: what a tenant may set on
#: what is his. All that reads a host's file, runs code on a node, takes disks, picks nodes
#: or spoofs a network is outside of it (design, 3.5).
PARAMETERS: Mapping[str, Parameter] = {
    # a new instance, and what it is made of
    "mode": Parameter(
        "text",
        "way of a creation, migration, export, evacuation or replacement of disks",
        _texts(
            "create",
            "live",
            "non-live",
            "local",
            "replace_on_primary",
            "replace_on_secondary",
            "replace_new_secondary",
            "replace_auto",
            "primary-only",
            "secondary-only",
            "all",
        ),
    ),
    "os_type": Parameter("text", "OS, with its variant: its scripts run as root on the node"),
    "os_name": Parameter("text", "OS to be noted for an instance that is there"),
    "force_variant": Parameter("flag", "take a variant that the OS does not know"),
    "no_install": Parameter("flag", "do not run the OS's creation scripts", ANY),
    "hypervisor": Parameter("text", "hypervisor"),
    "disk_template": Parameter(
        "text",
        "kind of disks",
        _texts("diskless", "plain", "drbd", "file", "sharedfile", "gluster", "rbd"),
    ),
    "disks.action": Parameter(
        "text", "what is done with disks: add, remove, modify, attach, detach", _texts("add", "remove", "modify")
    ),
    "disks.index": Parameter("number", "number of a disk that is there", ANY),
    "disks.size": Parameter("size", "size of a disk", ANY),
    "disks.mode": Parameter("text", "ro or rw", ANY),
    "disks.name": Parameter("text", "name of a disk"),
    "disks.uuid": Parameter("text", "UUID of a disk that is to be attached"),
    "disks.access": Parameter("text", "how the hypervisor reaches the disk"),
    "disks.adopt": Parameter("text", "volume that is taken over"),
    "disks.dev_type": Parameter("text", "kind of one disk"),
    "disks.vg": Parameter("text", "volume group"),
    "disks.metavg": Parameter("text", "volume group of DRBD's own data"),
    "disks.provider": Parameter("text", "external storage: its scripts run as root on the node"),
    "disks.spindles": Parameter("number", "spindles"),
    "disks.other": Parameter("other", "any other parameter of a disk, as an external storage has them"),
    "disk": Parameter("number", "number of the disk that grows", ANY),
    "amount": Parameter("size", "by how much a disk grows", ANY),
    "absolute": Parameter("flag", "the amount is the new size", ANY),
    "nics.action": Parameter(
        "text", "what is done with network cards: add, remove, modify", _texts("add", "remove", "modify")
    ),
    "nics.index": Parameter("number", "number of a card that is there", ANY),
    "nics.bridge": Parameter("text", "bridge, the old name of link"),
    "nics.ip": Parameter("text", "address; pool takes one of the network's", _texts("pool")),
    "nics.link": Parameter("text", "bridge or interface of the node"),
    "nics.mac": Parameter("text", "MAC address", _texts("auto", "generate")),
    "nics.mode": Parameter("text", "bridged, routed, openvswitch, pool"),
    "nics.name": Parameter("text", "name of a card"),
    "nics.uuid": Parameter("text", "UUID or name of a card that is there"),
    "nics.vlan": Parameter("text", "VLAN"),
    "beparams.maxmem": Parameter("size", "most memory; `beparams.memory` counts as this and minmem", ANY),
    "beparams.minmem": Parameter("size", "least memory", ANY),
    "beparams.vcpus": Parameter("number", "processors", ANY),
    "beparams.auto_balance": Parameter("flag", "counts for the balance of the cluster", ANY),
    "beparams.always_failover": Parameter("flag", "is failed over where others migrate", ANY),
    "beparams.spindle_use": Parameter("number", "spindles that are counted"),
    "file_driver": Parameter("text", "driver of file-based disks"),
    "file_storage_dir": Parameter("text", "directory of file-based disks"),
    "tags": Parameter("text", "tags at a creation; also needs the permission tags.set", ANY),
    "start": Parameter("flag", "start the instance", ANY),
    "wait_for_sync": Parameter("flag", "wait until the disks are in step", ANY),
    "identify_defaults": Parameter("flag", "take what equals the cluster's default as the default"),
    "ignore_ipolicy": Parameter("flag", "break the cluster's policy of sizes"),
    "conflicts_check": Parameter("flag", "look for addresses that belong to a network"),
    "instance_communication": Parameter("flag", "a card for talk between instance and node"),
    "opportunistic_locking": Parameter("flag", "take what nodes are free"),
    "forthcoming": Parameter("flag", "reserve only"),
    "commit": Parameter("flag", "make what was reserved"),
    "iallocator": Parameter("text", "script that chooses the nodes"),
    "compress": Parameter("text", "compression of a copy between nodes"),
    "source_handshake": Parameter("other", "import from another cluster"),
    "source_instance_name": Parameter("text", "import from another cluster"),
    "source_shutdown_timeout": Parameter("number", "import from another cluster"),
    "source_x509_ca": Parameter("text", "import from another cluster"),
    "src_path": Parameter("text", "import of an export"),
    "helper_startup_timeout": Parameter("number", "seconds that a helper for disk images gets"),
    "helper_shutdown_timeout": Parameter("number", "seconds that a helper for disk images gets"),
    # an instance that is there
    "static": Parameter("flag", "do not ask the nodes", ANY),
    "use_locking": Parameter("flag", "lock what is read"),
    "reboot_type": Parameter("text", "soft, hard or full", ANY),
    "no_remember": Parameter("flag", "do not note the new state", ANY),
    "live": Parameter("flag", "migrate while it runs", ANY),
    "startup_paused": Parameter("flag", "start it paused"),
    "allow_failover": Parameter("flag", "fail over where it cannot migrate", ANY),
    "allow_runtime_changes": Parameter("flag", "shrink the memory for a migration", ANY),
    "offline": Parameter("flag", "mark the instance or the node offline, or undo that"),
    "runtime_mem": Parameter("size", "memory that a running instance has now"),
    "hotplug": Parameter("flag", "change devices while it runs"),
    "hotplug_if_possible": Parameter("flag", "the same, if it can be"),
    "admin_state_source": Parameter("text", "who is said to have stopped it"),
    "ignore_secondaries": Parameter("flag", "do not mind errors of secondary nodes"),
    "ignore_consistency": Parameter("flag", "do not mind disks out of step"),
    "ignore_failures": Parameter("flag", "do not mind errors"),
    "ignore_offline_nodes": Parameter("flag", "do not mind nodes that are offline"),
    "ignore_remove_failures": Parameter("flag", "do not mind errors when it is removed"),
    "ignore_size": Parameter("flag", "do not mind the size of disks"),
    "ignore_hvversions": Parameter("flag", "do not mind other versions of the hypervisor"),
    "early_release": Parameter("flag", "release the old disks before the new ones are in step"),
    "cleanup": Parameter("flag", "clear up after a migration that failed"),
    "force": Parameter("flag", "do it although something speaks against it"),
    "timeout": Parameter("number", "seconds for a shutdown"),
    "shutdown_timeout": Parameter("number", "seconds for a shutdown"),
    "priority": Parameter("number", "priority of the job, -20 to 19, small first"),
    "debug_level": Parameter("number", "how much is logged"),
    # exports
    "shutdown": Parameter("flag", "stop the instance for the export", ANY),
    "remove_instance": Parameter("flag", "remove it after the export; also needs instances.remove", ANY),
    "x509_key_name": Parameter("other", "export to another cluster"),
    "destination_x509_ca": Parameter("text", "export to another cluster"),
    "export_target": Parameter("other", "export to another cluster: its disks"),
    "zero_free_space": Parameter("flag", "write zeros into free space first"),
    "zeroing_timeout_fixed": Parameter("number", "seconds for that"),
    "zeroing_timeout_per_mib": Parameter("other", "seconds for that, for each MiB"),
    "long_sleep": Parameter("flag", "keep the lock for longer"),
    # nodes
    "output_fields": Parameter("text", "fields of a query of storage or OS", ANY),
    "storage_type": Parameter("text", "kind of storage", ANY),
    "name": Parameter("text", "storage volume of a node"),
    "names": Parameter("text", "OS names of a query", ANY),
    "changes": Parameter("other", "change of a storage volume"),
    "drained": Parameter("flag", "mark the node drained", ANY),
    "master_candidate": Parameter("flag", "mark the node a master candidate", ANY),
    "master_capable": Parameter("flag", "the node may become the master"),
    "vm_capable": Parameter("flag", "the node may have instances"),
    "auto_promote": Parameter("flag", "make other nodes candidates, if needed"),
    "secondary_ip": Parameter("text", "the node's second address"),
    "powered": Parameter("flag", "note whether the node has power"),
    "ignore_soft_errors": Parameter("flag", "evacuate what can be"),
    "command": Parameter("text", "restricted command, by its exact name"),
    # groups, networks
    "alloc_policy": Parameter("text", "preferred, last_resort or unallocable", ANY),
    "ipolicy": Parameter("other", "policy of sizes"),
    "diskparams": Parameter("other", "parameters of kinds of disks"),
    "hv_state": Parameter("other", "state of hypervisors"),
    "disk_state": Parameter("other", "state of disks"),
    "network": Parameter("text", "addresses of a network"),
    "network6": Parameter("text", "IPv6 addresses of a network"),
    "gateway": Parameter("text", "gateway of a network"),
    "gateway6": Parameter("text", "IPv6 gateway of a network"),
    "mac_prefix": Parameter("text", "first half of MAC addresses"),
    "add_reserved_ips": Parameter("text", "addresses that a pool does not give away"),
    "remove_reserved_ips": Parameter("text", "addresses that a pool may give away"),
    "network_mode": Parameter("text", "mode of cards in a network"),
    "network_link": Parameter("text", "link of cards in a network"),
    "network_vlan": Parameter("text", "VLAN of cards in a network"),
}

#: preset -> its limits (design, 3.2). A scoped role that says nothing has `restricted`.
PRESETS: Mapping[str, Mapping[str, Limit]] = {
    "restricted": {name: known.restricted for name, known in PARAMETERS.items() if known.restricted is not None},
    "none": {},
}


def parameter_named(name: str) -> Parameter | None:
    """What is known of a parameter, by its name in a policy; None if there is none."""
    outer, dot, inner = name.partition(".")
    if dot and outer in OPEN_ENDED and _INNER.fullmatch(inner):
        return OPEN_ENDED[outer]
    return PARAMETERS.get(name)


@dataclass(frozen=True)
class Parameters:
    """What a role may set: a closed list; what is not on it is refused."""

    limits: Mapping[str, Limit] = field(default_factory=dict)
    #: Patterns of tags that no limited role may set or remove (design, 3.2).
    protected: Patterns = field(default_factory=Patterns)

    def refusal(self, values: Iterable[tuple[str, Any]]) -> str:
        """Why one of some (parameter, value) pairs is refused; empty if none is."""
        for name, value in values:
            limit = self.limits.get(name)
            if limit is None:
                return f"parameter {name} may not be set"
            if not limit.anything and not limit.allows(value):
                return f"parameter {name} may not be set to this: allowed is {limit}"
            if name == "tags" and self._protects(value):
                return _PROTECTED
        return ""

    def refusal_of_implied(self, values: Iterable[tuple[str, Any]]) -> str:
        """The same for values that result without being set: only a limit that there is can refuse them."""
        return self.refusal((name, value) for name, value in values if name in self.limits)

    def protection(self, values: Iterable[tuple[str, Any]]) -> str:
        """The same, for what no mode of a role lifts: tags that the policy goes by."""
        return _PROTECTED if any(name == "tags" and self._protects(value) for name, value in values) else ""

    def _protects(self, tag: Any) -> bool:
        return not isinstance(tag, str) or self.protected.matches(tag)


_PROTECTED = "parameter tags may not hold a tag that the policy goes by"

RESTRICTED = Parameters(PRESETS["restricted"])
