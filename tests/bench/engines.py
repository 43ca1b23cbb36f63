# SPDX-License-Identifier: BSD-2-Clause
"""One policy in the language of each engine: N roles and N users, each with a role of his own.

Role 7 lets its user list, read, start, stop and reboot the instances `*.t7.example.com`. Run in a process for each
engine and size, since what an engine takes of memory is what the process has more afterwards:

    python3 -m tests.bench.engines ours 1000
"""

from __future__ import annotations

import functools
import gc
import importlib
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from ganeti_ext.policy.accounts import Account, account_of, resolve
from ganeti_ext.policy.decision import decide
from ganeti_ext.policy.loader import load_policy
from ganeti_ext.policy.model import Target
from tests.bench.timing import Timing, timed

PERMISSIONS = ("instances.list", "instances.query", "instances.startup", "instances.shutdown", "instances.reboot")
ASKED = "instances.reboot"

#: (user's number, name of an instance) -> whether he may reboot it.
Ask = Callable[[int, str], bool]


def floor(count: int) -> Ask:
    """What nothing can be faster than: a look-up and a comparison. Tells how fast the machine is."""
    suffixes = {f"user{number}": dict.fromkeys(PERMISSIONS, f".t{number}.example.com") for number in range(count)}

    def ask(number: int, name: str) -> bool:
        suffix = suffixes[f"user{number}"].get(ASKED)
        return suffix is not None and name.endswith(suffix)

    return ask


def _accounts(count: int) -> Callable[[int], Account]:
    listed = ", ".join(PERMISSIONS)
    text = "version: 1\nroles:\n" + "".join(
        f'  r{number}:\n    permissions: [{listed}]\n    scope: {{instances: {{name: "*.t{number}.example.com"}}}}\n'
        for number in range(count)
    )
    policy = load_policy(text.encode(), "policy")
    grants = {f"user{number}": resolve([f"@r{number}"], policy) for number in range(count)}

    def account(number: int) -> Account:
        found = account_of(f"user{number}", grants[f"user{number}"], policy)
        assert found is not None
        return found

    return account


def ours(count: int) -> Ask:
    """The decision, asked as the other engines are: what it is about is there."""
    account_of_number = _accounts(count)
    accounts = [account_of_number(number) for number in range(count)]
    needed, targets = (ASKED,), functools.lru_cache(maxsize=None)(lambda name: (Target("instance", name),))
    return lambda number, name: decide(accounts[number], needed, targets(name)).allowed


def ours_request(count: int) -> Ask:
    """The same as a request does it: user and object are made for it, since its process is new."""
    account_of_number = _accounts(count)
    needed = (ASKED,)
    return lambda number, name: decide(account_of_number(number), needed, (Target("instance", name),)).allowed


def pycasbin(count: int) -> Ask:
    """RBAC with a pattern for the object, as its manual has it."""
    casbin = importlib.import_module("casbin")
    # Its own functions know `*` at the end of a pattern alone: `suffix` is one for what is in front.
    model = casbin.Enforcer.new_model(
        text="""
[request_definition]
r = sub, obj, act
[policy_definition]
p = sub, obj, act
[role_definition]
g = _, _
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = r.act == p.act && g(r.sub, p.sub) && suffix(r.obj, p.obj)
"""
    )
    enforcer = casbin.Enforcer(model)
    enforcer.add_function("suffix", lambda name, pattern: name.endswith(pattern[1:]))
    enforcer.add_policies(
        [(f"r{number}", f"*.t{number}.example.com", name) for number in range(count) for name in PERMISSIONS]
    )
    enforcer.add_grouping_policies([(f"user{number}", f"r{number}") for number in range(count)])
    return lambda number, name: bool(enforcer.enforce(f"user{number}", name, ASKED))


def oslo_policy(count: int) -> Ask:
    """A rule for each role: the one that may be asked for by its name."""
    policy = importlib.import_module("oslo_policy.policy")
    checks = importlib.import_module("oslo_policy._checks")
    config = importlib.import_module("oslo_config.cfg")

    class Suffix(checks.Check):  # type: ignore[misc, name-defined]
        """`suffix:.t7.example.com` is about the instances of that domain."""

        def __call__(self, target: Any, creds: Any, enforcer: Any, current_rule: Any = None) -> bool:
            return bool(target["name"].endswith(self.match))

    policy.register("suffix", Suffix)
    options = config.ConfigOpts()
    options([])
    enforcer = policy.Enforcer(options, use_conf=False)
    enforcer.set_rules(
        policy.Rules.from_dict(
            {
                f"{name}:r{number}": f"role:r{number} and suffix:.t{number}.example.com"
                for number in range(count)
                for name in PERMISSIONS
            }
        )
    )
    roles = [[f"r{number}"] for number in range(count)]

    def ask(number: int, name: str) -> bool:
        creds = {"user_id": f"user{number}", "roles": roles[number]}
        return bool(enforcer.enforce(f"{ASKED}:r{number}", {"name": name}, creds))

    return ask


def cedarpy(count: int) -> Ask:
    """Policies and entities parsed before; the instance comes with the request."""
    cedar = importlib.import_module("cedarpy")
    actions = ", ".join(f'Action::"{name}"' for name in PERMISSIONS)
    policies = cedar.PolicySet.from_str(
        "".join(
            f'permit(principal in Role::"r{number}", action in [{actions}], resource)'
            f' when {{ context.name like "*.t{number}.example.com" }};\n'
            for number in range(count)
        )
    )
    entities = [
        {
            "uid": {"type": "User", "id": f"user{number}"},
            "attrs": {},
            "parents": [{"type": "Role", "id": f"r{number}"}],
        }
        for number in range(count)
    ]
    known = cedar.Entities.from_json_str(json.dumps(entities))

    def ask(number: int, name: str) -> bool:
        request = {
            "principal": f'User::"user{number}"',
            "action": f'Action::"{ASKED}"',
            "resource": f'Instance::"{name}"',
            "context": {"name": name},
        }
        return bool(cedar.is_authorized(request, policies, known).allowed)

    return ask


def vakt(count: int) -> Ask:
    """A policy object for each role, in its own storage in memory."""
    library = importlib.import_module("vakt")
    rules = importlib.import_module("vakt.rules")
    storage = library.MemoryStorage()
    for number in range(count):
        storage.add(
            library.Policy(
                f"r{number}",
                subjects=[{"role": rules.Eq(f"r{number}")}],
                actions=[rules.In(*PERMISSIONS)],
                resources=[rules.EndsWith(f".t{number}.example.com")],
                effect=library.ALLOW_ACCESS,
            )
        )
    guard = library.Guard(storage, library.RulesChecker())

    def ask(number: int, name: str) -> bool:
        return bool(guard.is_allowed(library.Inquiry(action=ASKED, resource=name, subject={"role": f"r{number}"})))

    return ask


ENGINES: dict[str, Callable[[int], Ask]] = {
    "floor": floor,
    "ours": ours,
    "ours_request": ours_request,
    "pycasbin": pycasbin,
    "oslo.policy": oslo_policy,
    "cedarpy": cedarpy,
    "vakt": vakt,
}


def resident() -> float:
    """MiB of memory that this process has."""
    with open("/proc/self/statm", encoding="ascii") as stream:
        return int(stream.read().split()[1]) * 4096 / 2**20


def measure(engine: str, count: int, seconds: float) -> dict[str, Any]:
    """Loads `count` roles and users, and asks for one in the middle. Raises what the engine raises."""
    ENGINES[engine](1)  # imports
    gc.collect()
    before, began = resident(), time.process_time()
    ask = ENGINES[engine](count)
    load = time.process_time() - began
    gc.collect()
    memory = resident() - before
    number = count // 2
    inside, outside = f"web1.t{number}.example.com", f"web1.t{number + 1}.example.com"
    if ask(number, inside) is not True or ask(number, outside) is not False:
        raise AssertionError(f"{engine} decides otherwise")
    allow: Timing = timed(lambda: ask(number, inside), seconds)
    deny: Timing = timed(lambda: ask(number, outside), seconds)
    return {"load": load, "memory": memory, "allow": allow.median, "deny": deny.median}


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))))
