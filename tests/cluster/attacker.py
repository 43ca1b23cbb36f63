# SPDX-License-Identifier: BSD-2-Clause
"""A random attacker: requests of every kind, and after each a look at what came of it.

`make test` runs a fixed number of them from a fixed seed (test_attacker.py). For more, as root:

    python3 -m tests.cluster.attacker --seed 7 --minutes 30

which ends with the first finding: the request, and what it did. The same seed gives the same requests.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from typing import Any

from ganeti_ext import compat

compat.put_ganeti_first()

from tests.cluster.world import CREATE, EVES, INNER, MALLORYS, OTHERS, SOURCE, World, shared  # noqa: E402

#: What the other side's and nobody's objects are called: an attacker knows it, and says it.
PLACES = ["vault-group", "vault-net", "node3"]
#: What she does not say, and must never read.
SECRETS = ["vault-tag", "victim-tag", "vault-disk", "vault-nic", "vault-os", "aa:00:00:be:ef:01", "198.51.100.77"]
TENANTS = {"eve": EVES, "mallory": MALLORYS}

#: Endpoint -> bodies with which it does something.
BODIES: dict[tuple[str, str], list[Any]] = {
    ("POST", "/2/instances"): [CREATE, {**CREATE, "disk_template": "file", "disks": [{"size": 16}]}],
    ("POST", "/2/instances-multi-alloc"): [{"instances": [INNER]}, {"instances": [INNER, INNER]}],
    ("PUT", "/2/instances/{instance}/rename"): [{"new_name": "new"}],
    ("PUT", "/2/instances/{instance}/modify"): [{"beparams": {"memory": 96}}, {"disks": [["add", {"size": 8}]]}],
    ("PUT", "/2/instances/{instance}/migrate"): [{"mode": "live"}, {"allow_failover": True}],
    ("PUT", "/2/instances/{instance}/export"): [{"destination": "node1", "shutdown": True}, {"target_node": "node2"}],
    ("POST", "/2/instances/{instance}/disk/{disk}/grow"): [{"amount": 8}, {"amount": 64, "absolute": True}],
    ("POST", "/2/instances/{instance}/recreate-disks"): [{"disks": [0]}, {"disks": [[0, {"size": 24}]]}],
    ("POST", "/2/instances/{instance}/replace-disks"): [{"mode": "replace_on_primary", "disks": [0]}],
    ("PUT", "/2/groups/{group}/modify"): [{"alloc_policy": "preferred"}],
    ("PUT", "/2/groups/{group}/rename"): [{"new_name": "new"}],
    ("PUT", "/2/groups/{group}/assign-nodes"): [{"nodes": ["node2"]}],
    ("PUT", "/2/networks/{network}/connect"): [{"group_name": "default", "network_mode": "bridged"}],
    ("PUT", "/2/networks/{network}/disconnect"): [{"group_name": "default"}],
    ("POST", "/2/nodes/{node}/evacuate"): [{"mode": "primary-only"}],
    ("PUT", "/2/nodes/{node}/role"): ["offline", "regular", "master-candidate"],
    ("PUT", "/2/query/{query}"): [{"fields": ["name"]}],
    ("GET", "/2/jobs/{job}/wait"): [{"fields": ["status", "ops", "opresult", "oplog"]}],
}
#: Query arguments, legacy ones too; `tag` and `fields` get values of their own.
ARGUMENTS = {
    "bulk": "1", "lock": "1", "force": "1", "dry-run": "1", "reason": SOURCE, "type": "soft", "mode": "local",
    "static": "1", "os": "noop", "nostartup": "1", "ignore_size": "1", "no_remember": "1", "ignore_secondaries": "1",
    "storage_type": "file", "output_fields": "name,size", "name": "/srv", "allocatable": "1", "live": "1",
    "remote_node": "node3", "iallocator": "hail", "disks": "0", "auto-promote": "1", "user": "admin",
}  # fmt: skip
#: Values that are nothing, or too much.
ODD: list[Any] = [
    None, True, False, 0, 1, -1, 2**31, 2**63, -(2**64) + 10**6, 10**30, 1.5, float("nan"), "", "default", "none",
    "\ud800", "\u212aelvin", "x" * 3000, "../../etc/passwd", "a\nb", [], [None], [[]], ["a"], {}, {"a": 1}, {"": None},
    [[[[[]]]]],
]  # fmt: skip
RAW = [b"", b"{", b"[]", b"null", b'"x"', b'{"a":1,"a":2}', b"[" * 3000, b'{"\\ud800":1}', b'{"a":1e999}', b"\0"]


class Attacker:
    """One tenant's requests, drawn from one seed."""

    def __init__(self, world: World, user: str, seed: int, fields: dict[str, list[str]]) -> None:
        from tests.cluster.test_unconfigured import endpoints

        self.user = user
        self._world = world
        self._draw = random.Random(f"{seed} {user}")
        self._fields = fields
        self._endpoints = sorted((method, path, resource) for (method, path), resource in endpoints().items())
        self._number = 0
        self._uuids = [str(row[1]) for kind in fields for row in world.query(kind, "name uuid") if kind != "job"]
        self._own = TENANTS[user]
        others = [name for tenant, names in TENANTS.items() if tenant != user for name in names]
        self.foreign = [*others, *OTHERS]

    def request(self) -> tuple[str, str, Any, dict[str, str]]:
        """Method, path, body and headers of the next one."""
        draw = self._draw
        method, path, resource = draw.choice(self._endpoints)
        body = self._body(method, path, resource)
        path = re.sub(r"\{(\w+)\}", lambda kind: self._in_path(kind[1]), path)
        some = draw.sample(sorted(ARGUMENTS), draw.choice([0, 0, 0, 1, 2, 3]))
        arguments = [(name, ARGUMENTS[name]) for name in some]
        if "/tags" in path:
            tags = ["mine", "tenant:mallory", "tenant:eve", "keep", "a b", ""]
            arguments += [("tag", tag) for tag in draw.choices(tags, k=2)]
        if "/query/" in path and draw.random() < 0.7:
            kind = draw.choice(sorted(self._fields))
            arguments.append(("fields", ",".join(draw.sample(self._fields[kind], 3))))
        arguments += draw.choices(arguments, k=1) if arguments and draw.random() < 0.1 else []
        if arguments:
            path += "?" + urllib.parse.urlencode(arguments)
        headers = {}
        if draw.random() < 0.03:
            headers["Content-Type"] = draw.choice(["text/plain", "application/json; charset=utf-8", "APPLICATION/JSON"])
        if draw.random() < 0.03:
            odd = [method.lower(), method.title(), "HEAD", "OPTIONS", "PATCH", f"{method}_OPCODE", "PUT_ACCESS"]
            method = draw.choice(odd)
        return method, path, body, headers

    def _in_path(self, kind: str) -> str:
        draw = self._draw
        if kind == "disk":
            return draw.choice(["0", "0", "1", "99", "007"])
        if kind == "job":
            return str(max(1, self._world.seen_job - draw.choice([*range(12), -5, -(10**17)])))
        if kind == "query":
            return draw.choice([*self._fields, "lock", "export", "filter", "os", "Instance"])
        if draw.random() < 0.6 and kind == "instance":
            return draw.choice(self._own + self._mine())
        name = self._name({"filter": "instance"}.get(kind, kind))
        return urllib.parse.quote(name, safe=draw.choice(["", "/", "/%"]), errors="replace") or "%20"

    def _mine(self) -> list[str]:
        """What she has made, or may have."""
        return [self._new(number) for number in range(max(0, self._number - 5), self._number)]

    def _new(self, number: int) -> str:
        return f"n{number % 40}.test.example.com" if self.user == "eve" else f"n{number % 40}.corp.example.org"

    def _name(self, kind: str) -> str:
        """The name of something in some spelling."""
        draw = self._draw
        names = {
            "node": ["node1", "node2", "node3"],
            "group": ["default", "vault-group"],
            "network": ["eve-net", "vault-net"],
        }.get(kind, [*self._own, *self.foreign, "evil.test.example.com"])
        name = draw.choice(names)
        return draw.choice(
            [name] * 6
            + [
                name.upper(), name.title(), name.partition(".")[0], name.rpartition(".")[0] or name[:-1], name + ".",
                "." + name, name.replace(".", "%2e"), name.replace("e", "\u0435"), name.replace("k", "\u212a"),
                name + "\n", name + "\0", "./" + name, "../instances/" + name, "*", "?", "", " ", name * 12,
                draw.choice(self._uuids),
            ]
        )  # fmt: skip

    def _body(self, method: str, path: str, resource: Any) -> Any:
        draw = self._draw
        choice = draw.random()
        if choice < 0.05:
            return draw.choice(RAW)
        if choice < 0.1:
            return draw.choice(ODD)
        prepared = BODIES.get((method, path))
        body: Any = json.loads(json.dumps(draw.choice(prepared))) if prepared else None
        if path.startswith("/2/instances") and method == "POST" and "{" not in path:
            for entry in body.get("instances", [body]):
                self._number += 1
                name = self._new(self._number) if draw.random() < 0.8 else self._name("instance")
                entry[draw.choice(["name", "name", "instance_name"])] = name
        elif isinstance(body, dict) and "new_name" in body:
            self._number += 1
            body["new_name"] = self._new(self._number) if draw.random() < 0.6 else self._name("instance")
        elif "query" in path and isinstance(body, dict):
            kind = draw.choice(sorted(self._fields))
            body["fields"] = draw.sample(self._fields[kind], 4)
            if draw.random() < 0.7:
                body[draw.choice(["qfilter", "filter"])] = self._filter(kind, 0)
        opcode = getattr(resource, f"{method}_OPCODE", None)
        if opcode is not None and (body is None or isinstance(body, dict)) and draw.random() < 0.4:
            body = body or {}
            target = body
            if "instances" in body and draw.random() < 0.7:
                from ganeti import opcodes

                target, opcode = draw.choice(body["instances"]), opcodes.OpInstanceCreate
            parameters = [row[0] for row in opcode.GetAllParams()]
            renamed = sorted(getattr(resource, f"{method}_RENAME", {}))
            for name in draw.choices([*parameters, *renamed], k=draw.choice([1, 1, 2])):
                target[name] = self._value(name)
        return body

    def _value(self, name: str) -> Any:
        """Something for a parameter: often of the right type."""
        draw = self._draw
        if draw.random() < 0.25:
            return draw.choice(ODD)
        if name == "depends":
            job = self._world.seen_job - draw.randrange(6)
            return draw.choice([[[job, ["success"]]], [[job, []], [-1, []]], [[-1, ["success"]]], [[str(job), []]]])
        if name == "reason":
            return [[SOURCE, draw.choice(["admin", "eve", "mallory"]), 1]]
        if name == "comment":
            return "x"  # which her jobs repeat
        if "node" in name:
            node = self._name("node")
            return [node] if name.endswith("s") else node
        if name == "group_name":
            return self._name("group")
        if name in ("disks", "nics"):
            return [self._device(name) for _ in range(draw.choice([0, 1, 1, 2]))]
        if name == "tags":
            return draw.sample(["mine", "tenant:eve", "tenant:mallory", "tenant:trudy", "keep"], 2)
        if name in ("hvparams", "osparams", "osparams_private", "osparams_secret", "custom_hvparams"):
            return draw.choice([{"kvm_path": "/bin/sh"}, {"x": 1}, {"kernel_path": "/etc/shadow"}, {}])
        if "beparams" in name:
            keys = draw.sample(["memory", "maxmem", "minmem", "vcpus", "spindle_use", "auto_balance", "x"], 2)
            return {key: draw.choice([64, 96, 1, "1G", "64", "default", *ODD]) for key in keys}
        if name in ("iallocator", "mode", "hypervisor", "disk_template", "os_type", "os", "os_name", "file_driver"):
            words = ["hail", "create", "import", "file", "plain", "fake", "kvm", "noop", "vault", "live", "all"]
            return draw.choice(words)
        return draw.choice([True, False, 1, 5, -10, "x", ["x"], *self.foreign])

    def _device(self, name: str) -> Any:
        draw = self._draw
        pool = {
            "disks": [("size", 8), ("size", "8"), ("adopt", "x"), ("vg", "x"), ("name", "mine"), ("mode", "ro"),
                      ("x", 1)],
            "nics": [("network", "eve-net"), ("network", "vault-net"), ("ip", "pool"), ("mac", "generate"),
                     ("link", "br0"), ("ip", "198.51.100.80"), ("mode", "routed"), ("x", 1)],
        }[name]  # fmt: skip
        settings = dict(draw.sample(pool, 2))
        if name == "disks":
            settings["size"] = draw.choice([8, 16, 64, *ODD])
        form = draw.random()
        if form < 0.5:
            return settings
        action = draw.choice(["add", "remove", "modify", "attach", "detach", 0, -1, "x"])
        return [action, settings] if form < 0.8 else [action, draw.choice([0, -1, "x", *self._uuids[:3]]), settings]

    def _filter(self, kind: str, depth: int) -> Any:
        draw = self._draw
        if depth < 3 and draw.random() < 0.4:
            return [draw.choice("&|!"), *(self._filter(kind, depth + 1) for _ in range(draw.choice([1, 2, 3])))]
        operator = draw.choice(["=", "==", "!=", "<", ">", "<=", ">=", "=~", "=[]", "?", "x"])
        value = draw.choice([self._name("instance"), self._name("node"), ".*", "^n.*$", "(", 1, True, None, *ODD])
        return [operator, draw.choice(self._fields[kind])] + ([] if operator == "?" else [value])


class Finding(AssertionError):
    """Something that should not have been."""


class Watch:
    """What must hold after each request, and after a number of them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._before = world.config()
        #: User -> what he may have made a name of something of his own.
        self._taken: dict[str, set[str]] = {user: set() for user in TENANTS}
        self._objects = {
            kind: {row[0]: str(row[1]) for row in world.query(kind, "name uuid")}
            for kind in ("instance", "node", "group", "network")
        }

    def _is_foreign(self, user: str, kind: str, name: str) -> bool:
        if kind == "instance":
            others = {other for tenant, names in TENANTS.items() if tenant != user for other in names}
            return name in (*OTHERS, *others)
        return name in PLACES or user != "eve"

    def markers(self, user: str) -> list[str]:
        """What a tenant must not read."""
        found = list(SECRETS)
        for kind, names in self._objects.items():
            for name, uuid in names.items():
                # His instances say where they are: in a group of nodes that have names.
                shown = user == "mallory" and (name.startswith("node") or name == "default")
                if self._is_foreign(user, kind, name) and not shown:
                    found += [name, uuid]
        return found

    def check_answer(self, user: str, request: tuple[str, str, Any, Any], status: int, answer: bytes) -> None:
        """Nothing of others in it, unless she said it herself, and no error of the server."""
        if status in (500, 502, 504):
            raise Finding(f"{user}: {request}: {status} {answer!r}")
        said = urllib.parse.unquote(request[1]) + json.dumps(request[2], default=repr)
        # Comments and, where the scope goes by tags, names are free: one's own jobs repeat what one asked for.
        taken = self._taken[user] if "/job" in request[1] else set()
        for marker in self.markers(user):
            if marker in said:
                if status == 200:
                    self._taken[user].add(marker)
            elif marker.encode() in answer and marker not in taken:
                raise Finding(f"{user}: {request}: {marker!r} in the answer {answer!r}")

    def check_jobs(self) -> int:
        """All new jobs are of the tenant that asked for them, and about what is his; their number."""
        jobs = self._world.new_jobs()
        for job_id, opcodes in jobs:
            for opcode in opcodes:
                owners = [entry[1] for entry in opcode.get("reason") or () if entry[0] == SOURCE]
                if len(owners) != 1 or owners[0] not in TENANTS:
                    raise Finding(f"job {job_id} is of {owners}: {opcode}")
                for one in [opcode, *(opcode.get("instances") or ())]:
                    if isinstance(one, dict):
                        self._check_opcode(owners[0], job_id, one)
        return len(jobs)

    def _check_opcode(self, user: str, job_id: int, opcode: dict[str, Any]) -> None:
        # What the allocator chose is written into the opcode, or is in that of a job that a job made.
        chosen = opcode.get("iallocator") == "hail" or str(opcode.get("comment")).startswith("Submitted by OP_")
        for kind, name in _named(opcode):
            inside = {
                "instance": name.endswith(".test.example.com") or user == "mallory",
                "node": name in ("node1", "node2") and (user == "eve" or chosen),
                "group": user == "eve" and name == "default",
                "network": user == "eve" and name in ("eve-net", self._objects["network"]["eve-net"]),
            }[kind]
            created = opcode.get("OP_ID") in ("OP_INSTANCE_CREATE", "OP_INSTANCE_RENAME")
            if not inside or (self._is_foreign(user, kind, name) and kind == "instance" and not created):
                raise Finding(f"job {job_id} of {user} names {kind} {name!r}: {opcode}")
        foreign = {uuid for kind in self._objects for name, uuid in self._objects[kind].items()
                   if self._is_foreign(user, kind, name)}  # fmt: skip
        found = [value for key, value in opcode.items() if key.endswith("_uuid") and value in foreign]
        if found and not (user == "mallory" and opcode.get("OP_ID") == "OP_INSTANCE_CREATE"):
            raise Finding(f"job {job_id} of {user} is about {found}: {opcode}")
        tags = set(opcode.get("tags") or ())
        stamps = {"tenant:mallory"} if user == "mallory" and opcode.get("OP_ID") == "OP_INSTANCE_CREATE" else set()
        if any(tag.startswith("tenant:") or tag == "keep" for tag in tags - stamps) or not stamps <= tags:
            raise Finding(f"job {job_id} of {user} has the tags {tags}: {opcode}")

    def check_config(self) -> None:
        """What is of others is as it was, and nothing is there that is nobody's."""
        now = self._world.config()
        eves = {key for key in now if key[0] == "instance" and str(key[1]).endswith(".test.example.com")}
        mallorys = {key for key, row in now.items() if key[0] == "instance" and "tenant:mallory" in row[3]}
        hers = {("network", "eve-net"), ("group", "default")}
        for key in (("node", "node1"), ("node", "node2")):  # Eve may tag them, and no more
            hers.add(key)
            if now[key][4:] != self._before[key][4:]:
                raise Finding(f"{key} was {self._before[key]} and is {now[key]}")
        for key in {*now, *self._before} - hers:
            own = key[0] == "instance" and (key in eves or key in mallorys)
            before = self._before.get(key)
            gone = key[0] == "instance" and before is not None and "tenant:mallory" in before[3]
            gone = gone or (key[0] == "instance" and str(key[1]).endswith(".test.example.com"))
            if not own and now.get(key) != before and not (gone and key not in now):
                raise Finding(f"{key} was {before} and is {now.get(key)}")
        for key in mallorys:
            if now[key][3].count("tenant:mallory") != 1 or "tenant:trudy" in now[key][3]:
                raise Finding(f"tags of {key}: {now[key]}")
        if ("instance", "kept.test.example.com") in self._before and not any(
            "keep" in row[3] for key, row in now.items() if key[0] == "instance"
        ):
            raise Finding("what a deny protects has gone")


def _named(opcode: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(kind, name) of all that an opcode names."""
    kinds = {"instance_name": "instance", "new_name": "instance", "group_name": "group", "network_name": "network"}
    for field in ("pnode", "snode", "src_node", "target_node", "remote_node", "node_name", "node", "nodes"):
        kinds[field] = "node"
    if "GROUP" in opcode.get("OP_ID", "") or "NETWORK" in opcode.get("OP_ID", ""):
        kinds["new_name"] = "group" if "GROUP" in opcode["OP_ID"] else "network"
    if opcode.get("OP_ID", "").startswith("OP_TAGS"):
        yield {"nodegroup": "group"}.get(opcode["kind"], opcode["kind"]), opcode["name"]
    for field, kind in kinds.items():
        value = opcode.get(field)
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str):
                yield kind, one
    for name in opcode.get("instances") or ():
        if isinstance(name, str):
            yield "instance", name
    for card in opcode.get("nics") or ():
        settings = card if isinstance(card, dict) else card[-1]
        if isinstance(settings, dict) and settings.get("network") not in (None, "none"):
            yield "network", settings["network"]


def attack(world: World, seed: int, requests: int, seconds: float = 0.0) -> Counter[tuple[str, int]]:
    """So many requests of both tenants in turn, or as many as fit; how often each answered what. Raises Finding."""
    fields = {
        kind: [row["name"] for row in world.cluster.luxi("QueryFields", kind, None)["fields"]]
        for kind in ("instance", "node", "group", "network", "job")
    }
    for names in fields.values():
        names.sort()
    attackers = [Attacker(world, user, seed, fields) for user in TENANTS]
    watch = Watch(world)
    count: Counter[tuple[str, int]] = Counter()
    end = time.monotonic() + seconds
    number = 0
    while number < requests or time.monotonic() < end:
        attacker = attackers[number % len(attackers)]
        number += 1
        request = attacker.request()
        method, path, body, headers = request
        status, _, answer = world.cluster.rapi(method, path, user=attacker.user, body=body, headers=headers)
        watch.check_answer(attacker.user, request, status, answer)
        count[attacker.user, status] += 1
        count["jobs", 0] += watch.check_jobs()
        if number % 25 == 0:
            watch.check_config()
        if number % 10 == 0 and len(world.unfinished()) > 6:
            world.cancel()
    world.cancel()
    watch.check_jobs()
    watch.check_config()
    for user in TENANTS:
        for job_id in world.cluster.luxi("QueryJobs", None, ["id"])[-60:]:
            path = f"/2/jobs/{job_id[0]}"
            status, _, answer = world.cluster.rapi("GET", path, user=user)
            watch.check_answer(user, ("GET", path, None, {}), status, answer)
    return count


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6)
    parser.add_argument("--minutes", type=float, default=10.0)
    options = parser.parse_args()
    with shared() as world:
        print(f"seed {options.seed}, {options.minutes} minutes", flush=True)
        for (user, status), number in sorted(attack(world, options.seed, 0, options.minutes * 60).items()):
            print(user, status, number)


if __name__ == "__main__":
    main()
