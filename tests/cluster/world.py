# SPDX-License-Identifier: BSD-2-Clause
"""A cluster that several tenants share, with something of each in every place, and what is watched there."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

from tests.cluster.vcluster import Cluster

SOURCE = "gnt:ext:rapi-user"

PERMISSIONS = """\
    permissions:
      - "@operator"
      - instances.activate_disks
      - instances.create
      - instances.deactivate_disks
      - instances.grow_disk
      - instances.modify
      - instances.multi_alloc
      - instances.recreate_disks
      - instances.reinstall
      - instances.remove
      - instances.rename
      - jobs.cancel
      - tags.delete
      - tags.set
"""
#: Eve has all whose name ends in hers, and nodes, a group and networks; Mallory all that has his tag.
POLICY = f"""\
version: 1
roles:
  suffix:
{PERMISSIONS}\
      - nodes.evacuate
      - nodes.migrate
      - nodes.storage.query
      - groups.modify
      - networks.connect
      - networks.disconnect
      - networks.modify
    scope:
      instances: {{name: "*.test.example.com"}}
      nodes: {{group: default}}
      groups: {{name: default}}
      networks: {{name: "eve-*"}}
    parameters: {{os_type: [noop], beparams.maxmem: {{max: 1G}}, disks.size: {{max: 200}}}}
    quota: {{instances: 8, vcpus: 16, memory: 4G, disk: 1000}}
  tagged:
{PERMISSIONS}
    scope:
      instances: {{tag: "tenant:{{user}}"}}
    parameters: {{os_type: [noop]}}
    tags: ["tenant:{{user}}"]
    quota: {{instances: 8, vcpus: 16, memory: 4G, disk: 1000}}
deny:
  - {{users: "*", except: [admin], permissions: [instances.remove], instances: {{tag: keep}}}}
"""
USERS = """\
admin secret write
eve x @suffix
mallory x @tagged
trudy x @tagged,-instances.failover,-instances.remove
"""

EVES = ["eve1.test.example.com", "eve2.test.example.com", "kept.test.example.com"]
MALLORYS = ["mal1.corp.example.org", "mal2.corp.example.org"]
#: Of nobody; the last one is what Ganeti takes `evil.test.example.com` for.
OTHERS = ["vault.prod.example.net", "evil.test.example.com.victim.example.net"]
VAULT = OTHERS[0]

CREATE: dict[str, Any] = {
    "__version__": 1, "mode": "create", "disk_template": "diskless", "disks": [], "nics": [], "os_type": "noop",
    "beparams": {"memory": 64},
}  # fmt: skip
#: The same, inside a multi-alloc.
INNER = {key: value for key, value in CREATE.items() if key != "__version__"}
#: The same of Eve: her scope is about places, and a multi-alloc puts what names no node into any group.
EVES_INNER = {**INNER, "pnode": "node1"}

#: Kind -> what is compared: its number of changes, and all that a request could change.
WATCHED = {
    "instance": "name uuid serial_no tags pnode snodes admin_state disk_template disk.sizes disk.uuids nic.macs nic.ips"
    " nic.networks os hypervisor custom_beparams custom_hvparams",
    "node": "name uuid serial_no tags offline drained master_candidate group.uuid",
    "group": "name uuid serial_no tags alloc_policy",
    "network": "name uuid serial_no tags external_reservations",
}


class World:
    """The cluster, what is in it, and what it says."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.seen_job = 0
        self._coming: list[int] = []

    def ask(self, user: str, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, Any]:
        """One request: its status, and its body as it was meant; never an error of the server."""
        status, _, answer = self.cluster.rapi(method, path, user=user, body=body, **options)
        assert status not in (500, 502, 504), (user, method, path, body, answer)
        try:
            return status, json.loads(answer)
        except ValueError:
            return status, answer

    def submit(self, user: str, method: str, path: str, body: Any = None) -> int:
        """A request that must be taken: its job."""
        status, answer = self.ask(user, method, path, body)
        assert status == 200, (method, path, body, answer)
        return int(answer)

    def done(self, user: str, method: str, path: str, body: Any = None) -> Any:
        """A request whose job must succeed: its result."""
        status, result = self.cluster.job(self.submit(user, method, path, body))
        assert status == "success", (method, path, body, result)
        return result

    def query(self, kind: str, fields: str, name: str = "") -> list[list[Any]]:
        """Some fields of all objects of a kind, or of that of a name."""
        qfilter = ["=", "name", name] if name else None
        data = self.cluster.luxi("Query", kind, fields.split(), qfilter)["data"]
        return [[value for _, value in row] for row in data]

    def names(self) -> set[str]:
        """The names of all instances."""
        return {str(row[0]) for row in self.query("instance", "name")}

    def stored(self, job_id: int) -> list[dict[str, Any]]:
        """The opcodes of a job as Ganeti keeps them."""
        opcodes: list[dict[str, Any]] = self.cluster.luxi("QueryJobs", [job_id], ["ops"])[0][0]
        return opcodes

    def last_job(self) -> int:
        """The id that was last given to a job."""
        with open(self.cluster.node_path("node1", "var/lib/ganeti/queue/serial"), encoding="ascii") as stream:
            return int(stream.read())

    def new_jobs(self) -> list[tuple[int, list[dict[str, Any]]]]:
        """The jobs that were submitted since it was asked last: their ids and opcodes."""
        first, self.seen_job = self.seen_job + 1, self.last_job()
        ids = [*self._coming, *range(first, self.seen_job + 1)]
        rows = [row and row[0] for row in self.cluster.luxi("QueryJobs", ids, ["ops"])] if ids else []
        # An id is given before there is a job.
        self._coming = [job_id for job_id, opcodes in zip(ids, rows) if not opcodes]
        return [(job_id, opcodes) for job_id, opcodes in zip(ids, rows) if opcodes]

    @contextlib.contextmanager
    def no_job(self) -> Iterator[None]:
        """Fails if a job is submitted meanwhile."""
        before = self.last_job()
        yield
        assert self.last_job() == before, self.stored(self.last_job())

    def unfinished(self) -> list[int]:
        """The jobs that have not ended."""
        rows = self.cluster.luxi("QueryJobs", None, ["id", "status"])
        return [job_id for job_id, status in rows if status in ("queued", "waiting", "running", "canceling")]

    def cancel(self) -> None:
        """Cancels what has not started, and waits for the rest."""
        for job_id in self.unfinished():
            self.cluster.luxi("CancelJob", job_id, False)
        for job_id in self.unfinished():
            self.cluster.job(job_id)

    @contextlib.contextmanager
    def paused(self, then_run: bool = False) -> Iterator[None]:
        """Jobs of our accounts are taken and wait; at the end they are cancelled, or run."""
        predicates = [["reason", ["=", "source", SOURCE]]]
        uuid = self.cluster.luxi("ReplaceFilter", None, 0, predicates, "PAUSE", [])
        try:
            yield
        finally:
            if not then_run:
                for job_id in self.unfinished():
                    self.cluster.luxi("CancelJob", job_id, False)
            self.cluster.luxi("DeleteFilter", uuid)

    def run(self, *opcodes: dict[str, Any]) -> Any:
        """A job of the administrator's, done: its results."""
        return self.run_all([opcodes])[0]

    def run_all(self, jobs: Sequence[Any]) -> list[Any]:
        """Some jobs at once, each of an opcode or some."""
        lists = [[job] if isinstance(job, dict) else job for job in jobs]
        submitted = [[{"reason": [], **opcode} for opcode in opcodes] for opcodes in lists]
        results = []
        for success, job_id in self.cluster.luxi("SubmitManyJobs", submitted):
            assert success, job_id
            status, result = self.cluster.job(job_id)
            assert status == "success", (lists, result)
            results.append(result)
        return results

    def remove(self, *names: str) -> None:
        """Removes instances, as the administrator."""
        self.run_all(
            [{"OP_ID": "OP_INSTANCE_REMOVE", "instance_name": name, "ignore_failures": True} for name in names]
        )

    def config(self) -> dict[tuple[str, str], list[Any]]:
        """(kind, name) -> what the configuration has of it; with the cluster's own tags and filters."""
        found = {(kind, row[0]): row for kind, fields in WATCHED.items() for row in self.query(kind, fields)}
        found["cluster", "tags"] = sorted(self.cluster.luxi("QueryTags", "cluster", ""))
        info = self.cluster.luxi("QueryClusterInfo")
        found["cluster", "info"] = [info[key] for key in ("name", "master", "beparams", "hvparams", "nicparams")]
        return found


@contextlib.contextmanager
def shared() -> Iterator[World]:
    """A cluster of its own with the world in it: to furnish it and clear it away takes longer than to make it."""
    with Cluster(disk_templates=["diskless", "file"], rapi_users=USERS) as cluster:
        world = World(cluster)
        _furnish(world)
        with cluster.rapi_logs("rapi-access.yaml loaded"):
            cluster.set_policy(POLICY)
        world.seen_job = world.last_job()
        yield world


def _furnish(world: World) -> None:
    cluster = world.cluster
    # Each candidate gets a copy of each job; and hail does not believe the fake hypervisor's memory.
    world.run(
        {"OP_ID": "OP_CLUSTER_SET_PARAMS", "candidate_pool_size": 1},
        {"OP_ID": "OP_CLUSTER_SET_PARAMS", "default_iallocator_params": {"no-capacity-checks": None}},
        {"OP_ID": "OP_NODE_SET_PARAMS", "node_name": "node2", "master_candidate": False, "force": True},
        {"OP_ID": "OP_NODE_SET_PARAMS", "node_name": "node3", "master_candidate": False, "force": True},
    )
    add: dict[str, Any] = {"OP_ID": "OP_GROUP_ADD", "group_name": "vault-group", "alloc_policy": "unallocable"}
    move = {"OP_ID": "OP_GROUP_ASSIGN_NODES", "group_name": "vault-group", "nodes": ["node3"], "force": True}
    world.run(add, move)
    for number, network in enumerate(("eve-net", "vault-net")):
        net = {"OP_ID": "OP_NETWORK_ADD", "network_name": network, "network": f"198.51.100.{number * 64}/26"}
        connect = {"network_mode": "bridged", "network_link": "br0", "network_vlan": "", "network_name": network}
        world.run(
            {**net, "conflicts_check": False},
            *({"OP_ID": "OP_NETWORK_CONNECT", "group_name": group, **connect} for group in ("default", "vault-group")),
        )
    rows: list[tuple[str, str, dict[str, Any]]] = [(name, "node2", {}) for name in EVES]
    rows[0][2].update({"disk_template": "file", "disks": [{"size": 8}]})
    rows[2][2]["tags"] = ["keep"]
    rows += [(name, "node1", {"tags": ["tenant:mallory"]}) for name in MALLORYS]
    card = {"network": "vault-net", "ip": "198.51.100.77", "mac": "aa:00:00:be:ef:01", "name": "vault-nic"}
    vault = {"nics": [card], "tags": ["vault-tag", "tenant:trudy"], "disk_template": "file"}
    rows.append((VAULT, "node3", {**vault, "disks": [{"size": 8, "name": "vault-disk"}]}))
    rows.append((OTHERS[1], "node3", {"tags": ["victim-tag"]}))
    world.run_all(
        [
            {"OP_ID": "OP_INSTANCE_CREATE", "mode": "create", "instance_name": name, "pnode": node, "nics": [],
             "disk_template": "diskless", "disks": [], "os_type": "noop", "hypervisor": "fake", "start": False,
             "beparams": {"memory": 64, "vcpus": 1}, "name_check": False, "ip_check": False, **more}
            for name, node, more in rows
        ]
    )  # fmt: skip
    world.run({"OP_ID": "OP_INSTANCE_SET_PARAMS", "instance_name": VAULT, "os_name": "vault-os", "force": True})
    export = cluster.node_path("node3", f"srv/ganeti/export/{VAULT}")
    os.makedirs(export)
    with open(os.path.join(export, "config.ini"), "w", encoding="ascii") as stream:
        stream.write("[export]\nversion = 0\n")
