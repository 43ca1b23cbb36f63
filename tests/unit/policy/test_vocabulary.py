# SPDX-License-Identifier: BSD-2-Clause
"""The words are complete, and each built-in role holds what the design says."""

from __future__ import annotations

import re

import pytest

from ganeti_ext.policy import vocabulary
from ganeti_ext.policy.vocabulary import BUILTIN_ROLES, NEVER_SCOPED, PERMISSIONS, PLAIN_ROLES


@pytest.mark.parametrize("name", PERMISSIONS)
def test_a_permission_is_dotted_lower_case_and_described(name: str) -> None:
    assert re.fullmatch(r"[a-z]+(\.[a-z_]+){1,2}", name)
    assert PERMISSIONS[name]


def test_there_are_the_66_of_ganetis_next_release_and_ours() -> None:
    assert len(PERMISSIONS) == 66 + 1
    assert "nodes.restricted_command" in PERMISSIONS


@pytest.mark.parametrize("role", BUILTIN_ROLES)
def test_a_builtin_role_holds_known_permissions_only(role: str) -> None:
    assert BUILTIN_ROLES[role]
    assert BUILTIN_ROLES[role] <= set(PERMISSIONS)


def test_admin_is_everything() -> None:
    assert BUILTIN_ROLES["admin"] == set(PERMISSIONS)


@pytest.mark.parametrize(
    "name",
    [
        "cluster.info",
        "filter.list",
        "instances.info",
        "instances.list",
        "instances.query",
        "jobs.query",
        "jobs.wait",
        "nodes.role.query",
        "nodes.storage.query",
        "os.list",
        "query.all",
        "tags.get",
    ],
)
def test_readonly_reads(name: str) -> None:
    assert name in BUILTIN_ROLES["readonly"]


CHANGING = [
    "create",
    "modify",
    "remove",
    "delete",
    "rename",
    "set",
    "connect",
    "disconnect",
    "cancel",
    "reboot",
    "startup",
    "shutdown",
    "migrate",
    "failover",
    "grow_disk",
    "multi_alloc",
    "reinstall",
    "recreate_disks",
    "replace_disks",
    "activate_disks",
    "deactivate_disks",
    "assign_nodes",
    "evacuate",
    "repair",
    "powercycle",
    "restricted_command",
    "redistribute_config",
    "console",
    "prepare",
]


@pytest.mark.parametrize("name", [name for name in PERMISSIONS if name.rpartition(".")[2] in CHANGING])
def test_readonly_changes_nothing(name: str) -> None:
    assert name not in BUILTIN_ROLES["readonly"]


def test_operator_is_readonly_and_the_ten_of_the_design() -> None:
    assert BUILTIN_ROLES["operator"] - BUILTIN_ROLES["readonly"] == {
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
    }
    assert BUILTIN_ROLES["readonly"] <= BUILTIN_ROLES["operator"]


@pytest.mark.parametrize(("role", "kind"), PLAIN_ROLES.items())
def test_the_mails_roles_change_one_kind_and_read_nothing(role: str, kind: str) -> None:
    permissions = BUILTIN_ROLES[role]
    assert permissions.isdisjoint(BUILTIN_ROLES["readonly"])
    assert permissions - {"tags.set", "tags.delete"} == {
        name
        for name in PERMISSIONS
        if name.startswith(f"{kind}s.")
        and name not in BUILTIN_ROLES["readonly"]
        and name not in ("instances.query.console", "nodes.restricted_command")
    }
    assert {"tags.set", "tags.delete"} <= permissions


@pytest.mark.parametrize(
    "name", ["filter.create", "filter.list", "filter.remove", "cluster.modify", "cluster.redistribute_config"]
)
def test_what_belongs_to_everybody_is_never_scoped(name: str) -> None:
    assert name in NEVER_SCOPED


def test_the_module_knows_no_permission_twice() -> None:
    with open(vocabulary.__file__, encoding="utf-8") as file:
        keys = re.findall(r'^    "([a-z._]+)": "', file.read(), re.MULTILINE)
    assert sorted(set(keys)) == sorted(keys)
