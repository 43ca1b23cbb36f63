# SPDX-License-Identifier: BSD-2-Clause
"""Which permission each resource and method of the remote API needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ganeti_ext.policy.vocabulary import RESTRICTED_COMMAND

#: The resources that tell nothing about the cluster: open to everybody, as in Ganeti.
OPEN_RESOURCES = frozenset({"R_root", "R_2", "R_version", "R_2_features"})

#: The resources that need a right password, and no permission.
SIGNED_IN_RESOURCES = frozenset({"R_2_ext_whoami"})

#: resource class -> method -> permission (`permissions.tsv` of the design). What is not
#: here, such as a resource of a later Ganeti, needs `write`.
PERMISSION_OF = {
    "R_2_cluster_modify": {"PUT": "cluster.modify"},
    "R_2_filters": {"GET": "filter.list", "POST": "filter.create"},
    "R_2_filters_uuid": {"DELETE": "filter.remove", "GET": "filter.query", "PUT": "filter.modify"},
    "R_2_groups": {"GET": "groups.list", "POST": "groups.create"},
    "R_2_groups_name": {"DELETE": "groups.delete", "GET": "groups.query"},
    "R_2_groups_name_assign_nodes": {"PUT": "groups.assign_nodes"},
    "R_2_groups_name_modify": {"PUT": "groups.modify"},
    "R_2_groups_name_rename": {"PUT": "groups.rename"},
    "R_2_groups_name_tags": {"DELETE": "tags.delete", "GET": "tags.get", "PUT": "tags.set"},
    "R_2_info": {"GET": "cluster.info"},
    "R_2_instances": {"GET": "instances.list", "POST": "instances.create"},
    "R_2_instances_multi_alloc": {"POST": "instances.multi_alloc"},
    "R_2_instances_name": {"DELETE": "instances.remove", "GET": "instances.query"},
    "R_2_instances_name_activate_disks": {"PUT": "instances.activate_disks"},
    "R_2_instances_name_console": {"GET": "instances.query.console"},
    "R_2_instances_name_deactivate_disks": {"PUT": "instances.deactivate_disks"},
    "R_2_instances_name_disk_grow": {"POST": "instances.grow_disk"},
    "R_2_instances_name_export": {"DELETE": "instances.export.remove", "PUT": "instances.export.create"},
    "R_2_instances_name_failover": {"PUT": "instances.failover"},
    "R_2_instances_name_info": {"GET": "instances.info"},
    "R_2_instances_name_migrate": {"PUT": "instances.migrate"},
    "R_2_instances_name_modify": {"PUT": "instances.modify"},
    "R_2_instances_name_prepare_export": {"PUT": "instances.export.prepare"},
    "R_2_instances_name_reboot": {"POST": "instances.reboot"},
    "R_2_instances_name_recreate_disks": {"POST": "instances.recreate_disks"},
    "R_2_instances_name_reinstall": {"POST": "instances.reinstall"},
    "R_2_instances_name_rename": {"PUT": "instances.rename"},
    "R_2_instances_name_replace_disks": {"POST": "instances.replace_disks"},
    "R_2_instances_name_shutdown": {"PUT": "instances.shutdown"},
    "R_2_instances_name_startup": {"PUT": "instances.startup"},
    "R_2_instances_name_tags": {"DELETE": "tags.delete", "GET": "tags.get", "PUT": "tags.set"},
    "R_2_jobs": {"GET": "jobs.list"},
    "R_2_jobs_id": {"DELETE": "jobs.cancel", "GET": "jobs.query"},
    "R_2_jobs_id_wait": {"GET": "jobs.wait"},
    "R_2_networks": {"GET": "networks.list", "POST": "networks.create"},
    "R_2_networks_name": {"DELETE": "networks.remove", "GET": "networks.query"},
    "R_2_networks_name_connect": {"PUT": "networks.connect"},
    "R_2_networks_name_disconnect": {"PUT": "networks.disconnect"},
    "R_2_networks_name_modify": {"PUT": "networks.modify"},
    "R_2_networks_name_rename": {"PUT": "networks.rename"},
    "R_2_networks_name_tags": {"DELETE": "tags.delete", "GET": "tags.get", "PUT": "tags.set"},
    "R_2_nodes": {"GET": "nodes.list"},
    "R_2_nodes_name": {"GET": "nodes.query"},
    "R_2_nodes_name_evacuate": {"POST": "nodes.evacuate"},
    "R_2_nodes_name_migrate": {"POST": "nodes.migrate"},
    "R_2_nodes_name_modify": {"POST": "nodes.modify"},
    "R_2_nodes_name_powercycle": {"POST": "nodes.powercycle"},
    "R_2_nodes_name_restricted_command": {"POST": RESTRICTED_COMMAND},  # ours, see `resources`
    "R_2_nodes_name_role": {"GET": "nodes.role.query", "PUT": "nodes.role.modify"},
    "R_2_nodes_name_storage": {"GET": "nodes.storage.query"},
    "R_2_nodes_name_storage_modify": {"PUT": "nodes.storage.modify"},
    "R_2_nodes_name_storage_repair": {"PUT": "nodes.storage.repair"},
    "R_2_nodes_name_tags": {"DELETE": "tags.delete", "GET": "tags.get", "PUT": "tags.set"},
    "R_2_os": {"GET": "os.list"},
    "R_2_query": {"GET": "query.all", "PUT": "query.all"},
    "R_2_query_fields": {"GET": "query.all"},
    "R_2_redist_config": {"PUT": "cluster.redistribute_config"},
    "R_2_tags": {"DELETE": "tags.delete", "GET": "tags.get", "PUT": "tags.set"},
}

METHODS = ("GET", "PUT", "POST", "DELETE")


def permission_of(resource: type, method: str) -> str | None:
    """The permission that `method` (upper case) of an rlib2 class needs; None if unknown."""
    return PERMISSION_OF.get(resource.__name__, {}).get(method)


def walk(connector: Mapping[Any, type]) -> list[tuple[type, str]]:
    """All (class, method) pairs that the daemon serves, from Ganeti's connection map."""
    return [
        (resource, method)
        for resource in dict.fromkeys(connector.values())
        for method in METHODS
        if hasattr(resource, method) or hasattr(resource, f"{method}_OPCODE")
    ]


def unknown_endpoints(connector: Mapping[Any, type]) -> list[str]:
    """What the daemon serves without our knowing its permission, as `CLASS METHOD`."""
    return [
        f"{resource.__name__} {method}"
        for resource, method in walk(connector)
        if resource.__name__ not in OPEN_RESOURCES | SIGNED_IN_RESOURCES and permission_of(resource, method) is None
    ]


def own_access_lists(connector: Mapping[Any, type]) -> None:
    """Gives each class of the connection map `*_ACCESS` lists of its own.

    Most inherit one list object from `ResourceBase`, and `R_2_query.PUT_ACCESS` is its
    `GET_ACCESS`: whoever appends a role to a shared one, as the mail's script did, opens
    every other resource.
    """
    for resource in set(connector.values()):
        for method in METHODS:
            access = getattr(resource, f"{method}_ACCESS", None)
            if isinstance(access, list):  # a permission is nobody's to append to
                setattr(resource, f"{method}_ACCESS", list(access))


def register_role(role: str, endpoints: Iterable[tuple[type, str]]) -> None:
    """Lets users whose third column holds `role` reach some (class, method) pairs.

    For middleware (the mail's way): `role` is a word of its own that is not one of ours,
    such as `test`; nothing but the named pairs is opened.
    """
    for resource, method in endpoints:
        access = getattr(resource, f"{method}_ACCESS")
        if isinstance(access, str):
            _REGISTERED.setdefault((resource, method), set()).add(role)
        elif access and role not in access:  # an empty list means "anybody" and stays empty
            setattr(resource, f"{method}_ACCESS", [*access, role])


#: Where a resource has one permission in place of a list: who else may reach it.
_REGISTERED: dict[tuple[type, str], set[str]] = {}


def registered_role(resource: type, method: str, options: Iterable[str]) -> str | None:
    """The one of a user's options by which a middleware lets him reach an endpoint, if there is one."""
    return next(iter(sorted(_REGISTERED.get((resource, method), set()).intersection(options))), None)
