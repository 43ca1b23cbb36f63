# SPDX-License-Identifier: BSD-2-Clause
"""The words of the access control: every permission and every built-in role.

The permissions are those of Ganeti's own next release (`permissions.tsv` of the design),
so that a users file written for us still works after that upgrade, plus
`nodes.restricted_command`.
"""

from __future__ import annotations

#: The permission that is not Ganeti's own.
RESTRICTED_COMMAND = "nodes.restricted_command"

#: permission -> what it allows, for people.
PERMISSIONS = {
    "cluster.info": "read the cluster's settings",
    "cluster.modify": "change the cluster's settings",
    "cluster.redistribute_config": "copy the configuration to all nodes again",
    "filter.create": "add a job filter",
    "filter.list": "list the job filters",
    "filter.modify": "replace a job filter",
    "filter.query": "read a job filter",
    "filter.remove": "remove a job filter",
    "groups.assign_nodes": "move nodes into a group",
    "groups.create": "add a node group",
    "groups.delete": "remove a node group",
    "groups.list": "list the node groups",
    "groups.modify": "change a node group",
    "groups.query": "read a node group",
    "groups.rename": "rename a node group",
    "instances.activate_disks": "activate an instance's disks",
    "instances.create": "create an instance",
    "instances.deactivate_disks": "deactivate an instance's disks",
    "instances.export.create": "export an instance",
    "instances.export.prepare": "prepare the export of an instance",
    "instances.export.remove": "remove an instance's exports",
    "instances.failover": "fail an instance over",
    "instances.grow_disk": "enlarge an instance's disk",
    "instances.info": "ask the nodes for an instance's details",
    "instances.list": "list the instances",
    "instances.migrate": "migrate an instance",
    "instances.modify": "change an instance's parameters",
    "instances.multi_alloc": "create several instances at once",
    "instances.query": "read an instance",
    "instances.query.console": "learn how to reach an instance's console",
    "instances.reboot": "reboot an instance",
    "instances.recreate_disks": "make an instance's disks anew",
    "instances.reinstall": "reinstall an instance",
    "instances.remove": "remove an instance",
    "instances.rename": "rename an instance",
    "instances.replace_disks": "replace an instance's disks",
    "instances.shutdown": "stop an instance",
    "instances.startup": "start an instance",
    "jobs.cancel": "cancel a job",
    "jobs.list": "list the jobs",
    "jobs.query": "read a job",
    "jobs.wait": "wait for a job",
    "networks.connect": "connect a network to a node group",
    "networks.create": "add a network",
    "networks.disconnect": "disconnect a network from a node group",
    "networks.list": "list the networks",
    "networks.modify": "change a network",
    "networks.query": "read a network",
    "networks.remove": "remove a network",
    "networks.rename": "rename a network",
    "nodes.evacuate": "move the instances off a node",
    "nodes.list": "list the nodes",
    "nodes.migrate": "migrate the primary instances of a node",
    "nodes.modify": "change a node's parameters",
    "nodes.powercycle": "power-cycle a node",
    "nodes.query": "read a node",
    RESTRICTED_COMMAND: "run a restricted command on a node",
    "nodes.role.modify": "change a node's role",
    "nodes.role.query": "read a node's role",
    "nodes.storage.modify": "change a node's storage",
    "nodes.storage.query": "read a node's storage",
    "nodes.storage.repair": "repair a node's storage",
    "os.list": "list the operating systems",
    "query.all": "query any kind of resource",
    "tags.delete": "remove tags",
    "tags.get": "read tags",
    "tags.set": "add tags",
}

_READS = frozenset(
    name
    for name in PERMISSIONS
    if name.endswith((".list", ".query", ".info")) or name in ("jobs.wait", "nodes.role.query", "query.all", "tags.get")
)


def _changes(kind: str) -> frozenset[str]:
    """All that changes `kind` of resource: what is no read of it, and its tags."""
    of_kind = {name for name in PERMISSIONS if name.startswith(kind + "s.")}
    of_kind -= _READS | {"instances.query.console", RESTRICTED_COMMAND}
    return frozenset(of_kind) | {"tags.set", "tags.delete"}


#: Built-in role -> its permissions (design, 3.1). The last four are the mail's names, which
#: are written without `@`.
BUILTIN_ROLES = {
    "admin": frozenset(PERMISSIONS),
    "readonly": _READS,
    "operator": _READS
    | {
        "instances.startup",
        "instances.shutdown",
        "instances.reboot",
        "instances.migrate",
        "instances.failover",
        "instances.replace_disks",
        "instances.export.prepare",
        "instances.export.create",
        "instances.export.remove",
        "instances.query.console",
    },
    "instance_write": _changes("instance"),
    "node_write": _changes("node"),
    "group_write": _changes("group"),
    "network_write": _changes("network"),
}

#: The mail's four role names, which the users file may hold without `@`, and the one kind
#: of object that each may change: its `tags.set` is not the cluster's.
PLAIN_ROLES = {
    "instance_write": "instance",
    "node_write": "node",
    "group_write": "group",
    "network_write": "network",
}

#: What a role that is limited to some objects may never hold: it changes what belongs to
#: everybody (design, 3.2).
NEVER_SCOPED = frozenset(name for name in PERMISSIONS if name.startswith("filter.")) | {
    "cluster.modify",
    "cluster.redistribute_config",
}
