# SPDX-License-Identifier: BSD-2-Clause
"""Which recorded requests a new policy would decide otherwise."""

from __future__ import annotations

from typing import Any

from ganeti_ext.cli import replay
from ganeti_ext.cli.state import State, by_name, parsed
from ganeti_ext.policy.loader import load_policy
from ganeti_ext.policy.model import Target

USERS = ["root x write", "joe x @tester"]
POLICY = """\
version: 1
roles:
  tester: {permissions: [instances.reboot, instances.create], scope: {instances: {tag: mine, group: default}}}
"""
MINE = Target("instance", "a.test", frozenset(["mine"]), frozenset(["default"]))
GROUP = Target("group", "default", frozenset(), frozenset(["default"]))
OBJECTS = {(one.kind, one.name): one for one in (MINE, GROUP, Target("instance", "b.test"))}


def state(text: str = POLICY) -> State:
    return State(load_policy(text.encode(), "x"), by_name(parsed(USERS)))


def record(number: int = 1, **settings: Any) -> dict[str, Any]:
    return {
        "id": f"{number:016x}", "user": "joe", "permission": "instances.reboot", "objects": {"instance": ["a.test"]},
        "decision": "allow", "rule": "role tester", "reason": "", "status": 200, **settings,
    }  # fmt: skip


def test_the_same_policy_changes_nothing() -> None:
    records = [record(), record(objects={"instance": ["b.test"]}, decision="deny", status=404), record(user="root")]
    assert replay.compare(records, state(), state(), OBJECTS) == ([], 3, 0)
    assert replay.compare(records, None, state(), OBJECTS)[0] == []


def test_what_changes() -> None:
    after = state(POLICY.replace("instances.reboot, ", "").replace("mine", "other"))
    records = [record(1), record(2), record(3, user="root"), record(4, permission="instances.create")]
    found, looked, passed = replay.compare(records, state(), after, OBJECTS)
    assert (looked, passed) == (4, 0)
    assert [(one.user, one.permission, one.times, one.record[-1]) for one in found] == [
        ("joe", "instances.reboot", 2, "2"), ("joe", "instances.create", 1, "4"),
    ]  # fmt: skip
    assert found[0].before == "yes: role tester" and found[0].after == "no: permission instances.reboot is not granted"
    assert found[0].objects == "instance a.test"
    # Somebody who has gone.
    gone = State(after.policy, {"root": after.users["root"]})
    assert "no such user" in replay.compare([record()], state(), gone, OBJECTS)[0][0].after


def test_what_is_made_by_the_request_and_what_has_gone() -> None:
    policy = state(POLICY.replace("tag: mine", "name: '*.test'"))
    new = record(permission="instances.create", objects={"instance": ["new.test"]})
    gone = record(objects={"instance": ["gone.test"]})
    assert replay.compare([new], None, policy, OBJECTS)[0] == []
    # Without luxid nothing is known of its group.
    assert [one.after[:3] for one in replay.compare([new, gone], None, policy, {})[0]] == ["no:", "no:"]
    assert len(replay.compare([gone], None, policy, OBJECTS)[0]) == 1


def test_what_cannot_be_decided_is_counted() -> None:
    records = [
        record(status=401, user="typed"), record(status=429), record(permission=""), record(permission="x.y"),
        record(decision="error"), record(cut=True), {"user": ["x"], "permission": "jobs.list"}, {},
        record(objects=["x"]), record(user="root", permission="cluster.modify", objects={"cluster": [""]}),
        record(user="root", permission="jobs.cancel", objects={"job": ["7"]}, decision="warn"),
    ]  # fmt: skip
    assert replay.compare(records, None, state(), {}) == ([], 2, 9)
