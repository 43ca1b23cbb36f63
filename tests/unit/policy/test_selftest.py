# SPDX-License-Identifier: BSD-2-Clause
"""A policy's own tests: one that does not hold is told, with what is decided instead."""

from __future__ import annotations

import pytest

from ganeti_ext.policy.accounts import Grants, plain, resolve
from ganeti_ext.policy.loader import Problem, load_policy
from ganeti_ext.policy.selftest import failures

POLICY = """\
version: 1
roles:
  op:
    permissions: ["@operator", instances.create, instances.remove, tags.set]
    scope: {instances: [{name: "*.test"}, {tag: mine}, {group: [g1, g2]}], nodes: {group: g1}}
    parameters: {beparams.maxmem: {max: 8G}}
  own: {permissions: [instances.reboot], scope: {instances: {name: "{user}-*"}}}
  stamps: {permissions: [instances.create], scope: {instances: {tag: mine}}, tags: mine}
  watch: {permissions: [instances.reboot], scope: {instances: {name: "*.test"}}, mode: warn}
deny: [{users: "*", except: root, permissions: [instances.remove], instances: {tag: keep}}]
tests:
"""
LINE = {"joe": "@op", "jim": "@own", "ann": "write", "bob": "read", "root": "write", "odd": "@oper"}


def run(test: str) -> list[Problem]:
    policy = load_policy(f"{POLICY}  - {{{test}}}\n".encode(), "policy.yaml")

    def grants_of(user: str) -> Grants | None:
        if user not in LINE:
            return None
        tokens = LINE[user].split(",")
        return resolve(tokens, policy) or plain(tokens)

    return failures(policy, grants_of)


ALLOWED = [
    "user: joe, do: instances.list",
    "user: joe, do: instances.reboot, on: a.test",
    "user: joe, do: instances.reboot, on: {name: x, tags: mine}",
    "user: joe, do: instances.reboot, on: {name: x, tags: [other, mine]}",
    "user: joe, do: instances.reboot, on: {name: x, group: g1}",
    "user: joe, do: instances.reboot, on: {name: x, group: [g1, g2]}",
    "user: joe, do: nodes.query, on: {name: n1, group: g1}",
    "user: joe, do: tags.set, on: a.test, parameters: {tags: web}",
    "user: joe, do: instances.create, on: a.test, parameters: {beparams.maxmem: 8G, start: true}",
    "user: joe, do: instances.remove, on: a.test",
    "user: jim, do: instances.reboot, on: jim-1",
    "user: new, do: instances.reboot, on: new-1, tokens: '@own'",
    "user: new, do: instances.reboot, on: a.test, tokens: 'tags.get, @op'",
    "user: new, do: instances.create, on: a, tokens: '@stamps'",
    "user: new, do: instances.reboot, on: a.prod, tokens: '@watch'",
    "user: ann, do: instances.remove, on: a",
    "user: ann, do: cluster.modify",
    "user: ann, do: tags.set, on: {kind: cluster}",
    "user: root, do: instances.remove, on: {name: a, tags: keep}",
    "user: bob, do: query.all",
    "user: new, do: instances.list, tokens: nothing",
]
REFUSED = [
    ("user: joe, do: instances.modify, on: a.test", "permission instances.modify is not granted"),
    ("user: joe, do: instances.reboot, on: a.prod", "instance 'a.prod': outside of role op"),
    ("user: joe, do: instances.reboot, on: A.test", "outside of role op"),
    ("user: joe, do: instances.reboot, on: {name: x, group: [g1, g3]}", "outside of role op"),
    ("user: joe, do: instances.create, on: {name: x, tags: mine}", "outside of role op"),
    ("user: joe, do: nodes.query, on: n1", "node 'n1': outside of role op"),
    ("user: joe, do: tags.set, on: {kind: cluster}", "the cluster: outside of role op"),
    ("user: joe, do: tags.set, on: a.test, parameters: {tags: [web, keep]}", "a tag that the policy goes by"),
    ("user: joe, do: instances.create, on: a.test, parameters: {beparams.maxmem: 16G}", "at most 8192"),
    ("user: joe, do: instances.create, on: a.test, parameters: {os_type: noop}", "parameter os_type may not be set"),
    ("user: joe, do: instances.remove, on: {name: a.test, tags: keep}", "deny (line 10) forbids it"),
    ("user: ann, do: instances.remove, on: {name: a, tags: keep}", "deny (line 10) forbids it"),
    ("user: new, do: instances.remove, on: {name: a, tags: keep}, tokens: write", "deny (line 10) forbids it"),
    ("user: jim, do: instances.reboot, on: joe-1", "outside of role own"),
    ("user: Jim, do: instances.reboot, on: jim-1, tokens: '@own'", "permission instances.reboot is not granted"),
    ("user: bob, do: instances.reboot, on: a", "permission instances.reboot is not granted"),
    ("user: bob, do: jobs.wait", "permission jobs.wait is not granted"),
    ("user: odd, do: instances.reboot, on: a", "unknown role '@oper'; did you mean '@operator'?"),
    ("user: nobody, do: instances.list", "the users file has no such user: add the line there"),
]


@pytest.mark.parametrize("test", ALLOWED)
def test_allowed(test: str) -> None:
    assert run(f"{test}, expect: allow") == []
    (problem,) = run(f"{test}, expect: deny")
    assert (problem.line, problem.column) == (12, 5)
    assert "should be refused, but role " in problem.message


@pytest.mark.parametrize(("test", "message"), REFUSED)
def test_refused(test: str, message: str) -> None:
    assert run(f"{test}, expect: deny") == []
    (problem,) = run(f"{test}, expect: allow")
    assert (problem.line, problem.column) == (12, 5)
    assert "should be allowed, but " in problem.message
    assert message in problem.message


def test_a_failure_in_words() -> None:
    (problem,) = run("user: joe, do: instances.reboot, on: a.prod, expect: allow")
    assert problem.message == (
        "test of user 'joe', instances.reboot on instance a.prod: should be allowed, but is refused:"
        " instance 'a.prod': outside of role op"
    )
    (problem,) = run("user: new, do: instances.reboot, on: a.prod, tokens: '@watch', expect: deny")
    assert problem.message.endswith(
        "should be refused, but role watch allows it (instance 'a.prod': outside of role watch, but for mode: warn)"
    )


def test_all_failures_are_told() -> None:
    policy = load_policy(
        b"version: 1\ntests:\n- {user: a, do: tags.set, expect: allow}\n- {user: a, do: tags.set, expect: deny}\n"
        b"- {user: a, do: tags.get, tokens: '@admin', expect: deny}\n",
        "policy.yaml",
    )
    assert [problem.line for problem in failures(policy, lambda user: None)] == [3, 5]


@pytest.mark.parametrize(
    ("test", "expect"),
    [
        ("user: run, parameters: {command: ls}", "allow"),
        ("user: run, parameters: {command: [ls, w]}", "allow"),
        ("user: run, parameters: {command: [ls, reboot]}", "deny"),
        ("user: ann, parameters: {command: ls}", "deny"),
        ("user: new, tokens: '@admin', parameters: {command: ls}", "deny"),
    ],
)
def test_commands_are_listed_or_refused(test: str, expect: str) -> None:
    """Whatever the mode, and whatever else is granted."""
    text = (
        "version: 1\nroles:\n  run: {permissions: [nodes.restricted_command], scope: {nodes: {name: n1}},"
        f" parameters: {{command: [ls, w]}}, mode: warn}}\ntests:\n"
        f"  - {{{test}, do: nodes.restricted_command, on: n1, expect: {expect}}}\n"
    )
    policy = load_policy(text.encode(), "policy.yaml")
    line = {"run": resolve(["@run"], policy), "ann": plain(["write"])}
    assert failures(policy, line.get) == []
