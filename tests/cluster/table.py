# SPDX-License-Identifier: BSD-2-Clause
"""Every endpoint of Ganeti's remote API, with a right request to it that changes nothing."""

from __future__ import annotations

import urllib.parse
from dataclasses import dataclass
from typing import Any

#: Stands for the answer to a right request that comes as far as a job queue that is drained.
DRAINED = 0

#: A parameter that nothing has: past the access control the answer is 400, and nothing is made.
UNKNOWN = {"no_such_parameter": 1}

CREATE = {
    "mode": "create", "disk_template": "diskless", "disks": [], "nics": [], "os_type": "noop",
    "beparams": {"memory": 128}, "instance_name": "{instance}",
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One endpoint: who Ganeti lets in, which permission is needed, and a request.

    `access` is that of Ganeti's own lists. `answer` is the status for whoever is let through, `missing` the
    one for an object that is not there; DRAINED stands for a job that would have been submitted, and `ours` is
    what our client makes of an error of the server. `new` is the
    kind of object that the request would make. `also` is a permission that it needs, too. `brings` names the
    objects of which all instances are touched, too. `place`: the request chooses a node for an instance.
    """

    method: str
    path: str
    access: str  # "any", "read" (and write), "write"
    permission: str
    answer: int = DRAINED
    body: Any = None
    missing: int = DRAINED
    ours: int = 404
    new: str = ""
    also: str = ""
    brings: str = ""
    place: bool = False

    @property
    def endpoint(self) -> tuple[str, str]:
        """Method and path, as the connector has them."""
        return self.method, self.path.split("?")[0]

    @property
    def kind(self) -> str:
        """The kind of object that the path names; "" for none."""
        for kind in ("instance", "node", "group", "network", "job", "filter"):
            if "{" + kind + "}" in self.path:
                return kind
        return "cluster" if self.path.startswith("/2/tags") else ""

    def filled(self, names: dict[str, str]) -> tuple[str, Any]:
        """Path and body with names in them."""
        quoted = {kind: urllib.parse.quote(name) for kind, name in names.items()}
        return self.path.format(**quoted), _filled(self.body, names)


def _filled(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, str) and value.startswith("{"):
        return value.format(**names)
    if isinstance(value, dict):
        return {key: _filled(one, names) for key, one in value.items()}
    if isinstance(value, list):
        return [_filled(one, names) for one in value]
    return value


_NODE_STORAGE = "storage_type=lvm-vg&name=xenvg"

ROWS = [
    Row("GET", "/", "any", "", 200),
    Row("GET", "/2", "any", "", 200),
    Row("GET", "/version", "any", "", 200),
    Row("GET", "/2/features", "any", "", 200),
    Row("GET", "/2/info", "any", "cluster.info", 200),
    Row("GET", "/2/os", "any", "os.list"),
    Row("PUT", "/2/modify", "write", "cluster.modify", body={}),
    Row("PUT", "/2/redistribute-config", "write", "cluster.redistribute_config"),
    Row("GET", "/2/tags", "any", "tags.get", 200),
    Row("PUT", "/2/tags?tag=x", "write", "tags.set"),
    Row("DELETE", "/2/tags?tag=x", "write", "tags.delete"),
    Row("GET", "/2/query/{query}?fields=name", "read", "query.all", 200),
    Row("PUT", "/2/query/{query}", "read", "query.all", 200, {"fields": ["name"], "filter": ["!=", "name", "x"]}),
    Row("GET", "/2/query/{query}/fields", "any", "query.all", 200),
    Row("GET", "/2/filters", "any", "filter.list", 200),
    Row("POST", "/2/filters", "write", "filter.create", 400, UNKNOWN),
    Row("GET", "/2/filters/{filter}", "any", "filter.query", 200, missing=404),
    Row("PUT", "/2/filters/{filter}", "write", "filter.modify", 400, UNKNOWN, 400),
    Row("DELETE", "/2/filters/no-such-filter", "write", "filter.remove", 500, ours=400),
    Row("GET", "/2/jobs", "any", "jobs.list", 200),
    Row("GET", "/2/jobs/{job}", "any", "jobs.query", 200, missing=200),  # with nothing in it
    Row("DELETE", "/2/jobs/{job}", "write", "jobs.cancel", 200, missing=200),  # [false, "Job … not found"]
    Row("GET", "/2/jobs/{job}/wait", "write", "jobs.wait", 200, {"fields": ["status"]}, 500, 400),
    Row("GET", "/2/nodes", "any", "nodes.list", 200),
    Row("GET", "/2/nodes/{node}", "any", "nodes.query", 200, missing=404),
    Row("POST", "/2/nodes/{node}/powercycle", "write", "nodes.powercycle", body={}, brings="{node}"),
    Row("GET", "/2/nodes/{node}/tags", "any", "tags.get", 200, missing=500),
    Row("PUT", "/2/nodes/{node}/tags?tag=x", "write", "tags.set"),
    Row("DELETE", "/2/nodes/{node}/tags?tag=x", "write", "tags.delete"),
    Row("GET", "/2/nodes/{node}/role", "any", "nodes.role.query", 200, missing=500),
    Row("PUT", "/2/nodes/{node}/role", "write", "nodes.role.modify", body="regular", brings="{node}"),
    Row("POST", "/2/nodes/{node}/evacuate", "write", "nodes.evacuate", body={"mode": "all"}, brings="{node}"),
    Row("POST", "/2/nodes/{node}/migrate", "write", "nodes.migrate", body={}, brings="{node}"),
    Row("POST", "/2/nodes/{node}/modify", "write", "nodes.modify", body={"drained": False}, brings="{node}"),
    Row(
        "GET",
        "/2/nodes/{node}/storage?storage_type=lvm-vg&output_fields=name",
        "write",
        "nodes.storage.query",
    ),
    Row("PUT", f"/2/nodes/{{node}}/storage/modify?{_NODE_STORAGE}", "write", "nodes.storage.modify", brings="{node}"),
    Row("PUT", f"/2/nodes/{{node}}/storage/repair?{_NODE_STORAGE}", "write", "nodes.storage.repair", brings="{node}"),
    Row("GET", "/2/groups", "any", "groups.list", 200),
    Row("POST", "/2/groups", "write", "groups.create", body={"name": "{group}"}, new="group"),
    Row("GET", "/2/groups/{group}", "any", "groups.query", 200, missing=404),
    Row("DELETE", "/2/groups/{group}", "write", "groups.delete"),
    Row("PUT", "/2/groups/{group}/modify", "write", "groups.modify", body={}, brings="{group}"),
    Row("PUT", "/2/groups/{group}/rename", "write", "groups.rename", body={"new_name": "{group}"}, brings="{group}"),
    Row(
        "PUT",
        "/2/groups/{group}/assign-nodes",
        "write",
        "groups.assign_nodes",
        body={"nodes": ["node1"]},
        brings="{group} node1",
    ),
    Row("GET", "/2/groups/{group}/tags", "any", "tags.get", 200, missing=500),
    Row("PUT", "/2/groups/{group}/tags?tag=x", "write", "tags.set"),
    Row("DELETE", "/2/groups/{group}/tags?tag=x", "write", "tags.delete"),
    Row("GET", "/2/networks", "any", "networks.list", 200),
    Row(
        "POST",
        "/2/networks",
        "write",
        "networks.create",
        body={"name": "{network}", "network": "203.0.113.0/28"},
        new="network",
    ),
    Row("GET", "/2/networks/{network}", "any", "networks.query", 200, missing=404),
    Row("DELETE", "/2/networks/{network}", "write", "networks.remove", brings="{network}"),
    Row(
        "PUT",
        "/2/networks/{network}/connect",
        "write",
        "networks.connect",
        body={"group_name": "default", "network_mode": "bridged", "network_link": "br0"},
    ),
    Row(
        "PUT",
        "/2/networks/{network}/disconnect",
        "write",
        "networks.disconnect",
        body={"group_name": "default"},
        brings="{network} default",
    ),
    Row("PUT", "/2/networks/{network}/modify", "write", "networks.modify", body={}, brings="{network}"),
    Row("PUT", "/2/networks/{network}/rename", "write", "networks.rename", body={"new_name": "{network}"}),
    Row("GET", "/2/networks/{network}/tags", "any", "tags.get", 200, missing=500),
    Row("PUT", "/2/networks/{network}/tags?tag=x", "write", "tags.set"),
    Row("DELETE", "/2/networks/{network}/tags?tag=x", "write", "tags.delete"),
    Row("GET", "/2/instances", "any", "instances.list", 200),
    Row("POST", "/2/instances", "write", "instances.create", body={**CREATE, "__version__": 1}, new="instance"),
    Row(
        "POST",
        "/2/instances-multi-alloc",
        "write",
        "instances.multi_alloc",
        body={"instances": [CREATE]},
        new="instance",
        also="instances.create",
    ),
    Row("GET", "/2/instances/{instance}", "any", "instances.query", 200, missing=404),
    Row("DELETE", "/2/instances/{instance}", "write", "instances.remove"),
    Row("GET", "/2/instances/{instance}/info", "any", "instances.info"),
    Row("GET", "/2/instances/{instance}/tags", "any", "tags.get", 200, missing=500),
    Row("PUT", "/2/instances/{instance}/tags?tag=x", "write", "tags.set"),
    Row("DELETE", "/2/instances/{instance}/tags?tag=x", "write", "tags.delete"),
    Row("POST", "/2/instances/{instance}/reboot", "write", "instances.reboot"),
    Row("POST", "/2/instances/{instance}/reinstall", "write", "instances.reinstall", body={"start": False}),
    Row(
        "POST",
        "/2/instances/{instance}/replace-disks",
        "write",
        "instances.replace_disks",
        body={"mode": "replace_on_primary"},
    ),
    Row("PUT", "/2/instances/{instance}/shutdown", "write", "instances.shutdown", body={}),
    Row("PUT", "/2/instances/{instance}/startup", "write", "instances.startup"),
    Row("PUT", "/2/instances/{instance}/activate-disks", "write", "instances.activate_disks"),
    Row("PUT", "/2/instances/{instance}/deactivate-disks", "write", "instances.deactivate_disks"),
    Row("POST", "/2/instances/{instance}/recreate-disks", "write", "instances.recreate_disks", body={}),
    Row("PUT", "/2/instances/{instance}/prepare-export?mode=local", "write", "instances.export.prepare"),
    Row(
        "PUT",
        "/2/instances/{instance}/export",
        "write",
        "instances.export.create",
        body={"mode": "local", "destination": "node1"},
        place=True,
    ),
    Row("DELETE", "/2/instances/{instance}/export", "write", "instances.export.remove", body={}),
    Row("PUT", "/2/instances/{instance}/migrate", "write", "instances.migrate", body={}),
    Row("PUT", "/2/instances/{instance}/failover", "write", "instances.failover", body={}),
    Row("PUT", "/2/instances/{instance}/rename", "write", "instances.rename", body={"new_name": "{instance}"}),
    Row("PUT", "/2/instances/{instance}/modify", "write", "instances.modify", body={"beparams": {"vcpus": 2}}),
    Row("POST", "/2/instances/{instance}/disk/{disk}/grow", "write", "instances.grow_disk", body={"amount": 1}),
    Row("GET", "/2/instances/{instance}/console", "read", "instances.query.console", 200, missing=500),
]

#: What Ganeti has not, and we have while there are users of restricted commands; `direct` has some.
OURS = [
    Row("POST", "/2/nodes/{node}/restricted-command", "write", "nodes.restricted_command", body={"command": "hello"}),
]
