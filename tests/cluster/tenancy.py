# SPDX-License-Identifier: BSD-2-Clause
"""A cluster with tenants, what is asked of it, and what it must not tell."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ganeti import opcodes

from tests.cluster.test_unconfigured import unconfigure
from tests.cluster.vcluster import Cluster

SOURCE = "gnt:ext:rapi-user"
OWN, FOREIGN = "mine.test.example.com", "db1.prod.example.com"
MISSING, MISSING_INSIDE = "db9.prod.example.com", "web9.test.example.com"
#: Ganeti takes `evil.test.example.com` for this one, where there is none of that name.
VICTIM = "evil.test.example.com.victim.org"

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
POLICY = f"""\
version: 1
roles:
  test:
{PERMISSIONS}
    scope:
      instances: {{name: "*.test.example.com"}}
    parameters: {{os_type: [noop]}}
  prod:
{PERMISSIONS}
    scope:
      instances: {{name: "*.prod.example.com"}}
    parameters: {{os_type: [noop]}}
"""
USERS = """\
admin secret write
eve x @test
colleague x @test
prod x @prod
both x @test,@prod
nobody x @test
ops x @operator,+instances.create,+instances.multi_alloc
"""

CREATE = {
    "__version__": 1, "mode": "create", "disk_template": "diskless", "disks": [], "nics": [], "os": "noop",
    "beparams": {"memory": 128},
}  # fmt: skip
#: The same, inside a multi-alloc.
INNER = {key: value for key, value in CREATE.items() if key != "__version__"}

#: A right request on each endpoint that names an instance and that her role has.
ON_INSTANCE: list[tuple[str, str, Any]] = [
    ("DELETE", "", None),
    ("POST", "/reboot", None),
    ("PUT", "/startup", None),
    ("PUT", "/shutdown?no_remember=1", {}),
    ("PUT", "/tags?tag=x", None),
    ("DELETE", "/tags?tag=x", None),
    ("POST", "/reinstall", None),
    ("POST", "/reinstall?os=noop", None),
    ("POST", "/replace-disks", {"mode": "replace_on_primary", "disks": [0]}),
    ("PUT", "/activate-disks", None),
    ("PUT", "/deactivate-disks", None),
    ("POST", "/recreate-disks", {"disks": [0]}),
    ("PUT", "/migrate", {"mode": "live"}),
    ("PUT", "/failover", {}),
    ("PUT", "/rename", {"new_name": "free.test.example.com"}),
    ("PUT", "/modify", {"beparams": {"vcpus": 2}}),
    ("POST", "/disk/0/grow", {"amount": 1}),
]
#: The same for what reads it; the last two submit a job.
READS: list[tuple[str, str, Any]] = [
    ("GET", "", None),
    ("GET", "/tags", None),
    ("GET", "/console", None),
    ("GET", "/info", None),
    ("PUT", "/prepare-export?mode=local", None),
]

Answer = tuple[int, list[tuple[str, str]], bytes]


def run(cluster: Cluster, *ops: Any) -> None:
    """Runs opcodes of Ganeti's one after the other, in one job."""
    for op in ops:
        op.Validate(True)
    status, result = cluster.job(cluster.luxi("SubmitJob", [op.__getstate__() for op in ops]))
    assert status == "success", result


def last_job(cluster: Cluster) -> int:
    """The id that was last given to a job."""
    with open(cluster.node_path("node1", "var/lib/ganeti/queue/serial"), encoding="ascii") as stream:
        return int(stream.read())


class Tenancy:
    """The cluster with two tenants, and what is asked of it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def ask(self, method: str, path: str, body: Any = None, user: str = "eve", **options: Any) -> Answer:
        """One request: its status, headers (but the date) and body (but the audit record's id); never a 500."""
        answer = self.try_(method, path, body, user, **options)
        assert answer[0] < 500, (method, path, body, answer)
        return answer

    def try_(self, method: str, path: str, body: Any = None, user: str = "eve", **options: Any) -> Answer:
        """The same, whatever the answer."""
        status, headers, answer = self.cluster.rapi(method, path, user=user, body=body, **options)
        answer = re.sub(rb"audit record [0-9a-f]{16}", b"audit record ID", answer)
        return status, [header for header in headers.items() if header[0] != "Date"], answer

    def ask_all(self, requests: list[tuple[str, str, Any]], user: str = "eve") -> list[Answer]:
        """The same for many."""
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(lambda request: self.ask(request[0], request[1], request[2], user), requests))

    @contextlib.contextmanager
    def no_job(self) -> Iterator[None]:
        """Fails if a job is submitted meanwhile."""
        before = last_job(self.cluster)
        yield
        assert last_job(self.cluster) == before, self.stored(last_job(self.cluster))

    def stored(self, job_id: int) -> list[dict[str, Any]]:
        """The opcodes of a job as Ganeti keeps them."""
        row = self.cluster.luxi("QueryJobs", [job_id], ["ops"])[0]
        stored: list[dict[str, Any]] = row[0]
        return stored

    def submit(self, method: str, path: str, body: Any = None, user: str = "eve") -> int:
        """A request that must be taken: its job."""
        status, _, answer = self.ask(method, path, body, user)
        assert status == 200, answer
        return int(answer)

    def uuid(self, name: str) -> str | None:
        """The UUID of an instance, None if there is none of exactly that name."""
        rows = self.cluster.luxi("QueryInstances", [], ["name", "uuid"], False)
        return next((str(uuid) for found, uuid in rows if found == name), None)

    def names(self) -> set[str]:
        """The names of all instances."""
        return {row[0] for row in self.cluster.luxi("QueryInstances", [], ["name"], False)}

    def run(self, *ops: Any) -> None:
        """Runs opcodes of Ganeti's as the administrator, see `run`."""
        run(self.cluster, *ops)

    def remove(self, *names: str) -> None:
        """Removes instances, as the administrator."""
        if names:
            self.run(*(opcodes.OpInstanceRemove(instance_name=name, ignore_failures=False) for name in names))

    @contextlib.contextmanager
    def paused(self, then_run: bool = False) -> Iterator[None]:
        """Jobs of accounts of ours are accepted and wait; at the end they are cancelled, or run."""
        # By luxid itself, which has the new configuration when it answers; gnt-filter does not say what it made.
        uuid = self.cluster.luxi("ReplaceFilter", None, 0, [["reason", ["=", "source", SOURCE]]], "PAUSE", [])
        try:
            yield
        finally:
            if not then_run:
                states = self.cluster.luxi("QueryJobs", None, ["id", "status"])
                queued = [job_id for job_id, state in states if state == "queued"]
                with ThreadPoolExecutor(4) as pool:
                    list(pool.map(lambda job_id: self.cluster.luxi("CancelJob", job_id, False), queued))
            self.cluster.luxi("DeleteFilter", uuid)


@contextlib.contextmanager
def tenants(cluster: Cluster, policy: str = POLICY, users: str = USERS) -> Iterator[Tenancy]:
    """The cluster with a policy and users; what instances were made is removed at the end."""
    with cluster.rapi_logs("rapi-access.yaml loaded"):
        cluster.set_policy(policy)
    cluster.set_rapi_users(users)
    tenancy = Tenancy(cluster)
    before = tenancy.names()
    try:
        yield tenancy
    finally:
        tenancy.remove(*(tenancy.names() - before))
        unconfigure(cluster)


def message_of(answer: Answer) -> str:
    """The text of a refusal."""
    return str(json.loads(answer[2])["message"])


def on(name: str, requests: list[tuple[str, str, Any]]) -> list[tuple[str, str, Any]]:
    """Requests about an instance."""
    return [(method, f"/2/instances/{name}{path}", body) for method, path, body in requests]
