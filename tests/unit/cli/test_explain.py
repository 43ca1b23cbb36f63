# SPDX-License-Identifier: BSD-2-Clause
"""What `gnt-ext explain` says is what the daemon does, and nothing comes of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import pytest
from ganeti import errors

from ganeti_ext.cli import explain, state, trail
from ganeti_ext.cli.explain import Explainer
from ganeti_ext.cli.state import Line, State
from ganeti_ext.policy.loader import load_policy
from ganeti_ext.rapi.audit import Record
from tests.unit.rapi import fake
from tests.unit.rapi.fake import BODY_OF, INSTANCE, PAIRS, PATH_OF, QUERY_OF, Server

POLICY = """\
version: 1
roles:
  suffix:
    permissions: ["@operator", instances.create, instances.modify, tags.set, jobs.cancel]
    scope:
      instances: {name: "*.test.example.com"}
    parameters: {os_type: [noop]}
  trial:
    permissions: ["@operator"]
    scope: {instances: {name: "db1.*"}}
    mode: warn
deny:
  - {users: [watch, careful], permissions: [instances.reboot]}
"""
USERS = {
    "admin": "write",
    "watch": "read",
    "none": "",
    "joe": "@suffix",
    "two": "@suffix,@trial,-instances.startup",
    "noc": "@operator",
    "careful": "write,-cluster.info",
    "typo": "@sufix",
}


def known(users: Mapping[str, str] = USERS) -> State:
    lines = {
        name: Line(number, "", name, "x", tuple(tokens.split(",")) if tokens else ())
        for number, (name, tokens) in enumerate(users.items(), 1)
    }
    return State(load_policy(POLICY.encode(), "policy"), lines)


@pytest.fixture(name="cluster")
def _cluster(monkeypatch: pytest.MonkeyPatch) -> fake.Cluster:
    """What the explainer's own client asks."""
    cluster = fake.Cluster()
    cluster.jobs.setdefault(int(fake.JOB), [{"OP_ID": "OP_TEST_DUMMY", "reason": []}])
    monkeypatch.setattr(explain, "luxi", SimpleNamespace(Client=lambda address: cluster.client()))
    return cluster


def without_reason(ops: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in op.items() if key not in ("reason", "instances")} for op in ops]


@pytest.mark.parametrize("user", USERS)
def test_every_endpoint_as_the_daemon_answers(user: str, cluster: fake.Cluster) -> None:
    lines = "".join(f"{name} {tokens}\n" for name, tokens in USERS.items())
    explainer = Explainer(known(), user)
    for resource, method in PAIRS:
        key = (resource.__name__, method)
        path = PATH_OF[resource] + ("?" + urlencode(QUERY_OF[key]) if key in QUERY_OF else "")
        body = BODY_OF.get(key)
        server = Server(lines, POLICY, reqauth=True)
        answer = server.ask(method, path, user, body)
        outcome = explainer.ask(method, path, None if body is None else json.dumps(body))
        assert outcome.allowed == (answer.status < 400), (key, answer, outcome)
        if answer.status >= 400:
            assert (outcome.status, outcome.message) == (answer.status, answer.message), key
        submitted = [without_reason(what) for kind, what in outcome.effects if kind == "job"]
        assert submitted == [without_reason(json.loads(json.dumps(ops))) for ops in server.cluster.submitted], key
    changing = {name for name in cluster.names_of_calls() if not name.startswith("Query")}
    assert changing == set()


def run(user: str, method: str, path: str, body: Any = None) -> dict[str, list[str]]:
    """What is told, by label."""
    state_ = known()
    explainer = Explainer(state_, user)
    request = (method, path, None if body is None else json.dumps(body))
    found: dict[str, list[str]] = {}
    for label, said in explain._told(state_, user, explainer, explainer.ask(*request), request):
        found.setdefault(label, []).append(said)
    return found


def test_rule_by_rule(cluster: fake.Cluster) -> None:
    cluster.add("instance", "other.example.com")
    told = run("two", "POST", "/2/instances/other.example.com/reboot?type=soft")
    assert told["user"] == ["two (@suffix,@trial,-instances.startup)"]
    assert told["permission"] == ["instances.reboot (reboot an instance)"]
    assert told["object"] == ["instance other.example.com"] and told["parameter"] == ['type = "soft"']
    assert "would refuse it: instance 'other.example.com'" in told["role suffix"][0]
    assert told["role trial"] == ["(instances: name db1.* (mode: warn)) would allow it"]
    assert told["decision"][0].startswith("allowed, by role trial; mode: warn lets through: ")
    assert told["job"][0].startswith('OP_INSTANCE_REBOOT {"instance_name": "other.example.com"')
    told = run("joe", "POST", "/2/instances/other.example.com/reboot")
    assert told["decision"] == ["refused: instance 'other.example.com': outside of role suffix"]
    assert told["answer"] == ["404 Not Found"] and "job" not in told
    told = run("careful", "POST", f"/2/instances/{INSTANCE}/reboot")
    assert told["deny (line 13)"] == ["is about this permission"]
    assert told["decision"] == ["refused: deny (line 13) forbids instances.reboot"]
    assert run("admin", "GET", "/2/nodes")["decision"] == ["allowed, by Ganeti's own options"]
    assert run("typo", "GET", "/2/nodes")["problem"] == ["unknown role '@sufix'; did you mean '@suffix'?"]


def test_no_secret_is_told(cluster: fake.Cluster) -> None:
    body = {**fake.CREATION, "osparams": {"root_pw": "geheim"}, "osparams_secret": {"x": "geheim"}}
    told = run("admin", "POST", "/2/instances", body)
    assert told["decision"] == ["allowed, by write"] and told["job"]
    assert "geheim" not in str(told)


def test_a_record_and_what_would_be_decided_today(
    cluster: fake.Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def record(**settings: Any) -> dict[str, Any]:
        one = Record("POST", f"/2/instances/{INSTANCE}/reboot")
        for key, value in settings.items():
            setattr(one, key, value)
        found: dict[str, Any] = json.loads(one.line())
        return found

    found = [
        record(id="0" * 16, user="joe", permission="instances.reboot", objects=[("instance", INSTANCE)]),
        record(id="1" * 16, user="joe", permission="instances.reboot", objects=[("instance", "db1.example.com")]),
        record(id="2" * 16, user="gone", permission="instances.reboot"),
        record(id="3" * 16, user="joe"),
    ]
    monkeypatch.setattr(trail, "records", lambda: iter(found))
    monkeypatch.setattr(state, "load", lambda *_: known())
    opts = SimpleNamespace(offline=True, policy_file=None, users_file=None)
    expected = {
        "0": (0, "yes: role suffix"),
        "1": (1, "no: instance 'db1"),
        "2": (1, "no such user"),
        "3": (1, "no perm"),
    }
    for number, (code, said) in expected.items():
        assert explain.explain(opts, [number * 16]) == code
        assert said in capsys.readouterr().out.splitlines()[-1]
    with pytest.raises(state.StateError, match="no record"):
        explain.explain(opts, ["4" * 16])
    for args in (["xyz"], ["joe", "GET"]):
        with pytest.raises(errors.OpPrereqError):
            explain.explain(opts, args)


def test_a_body(tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes('{"a": "ü"}'.encode())
    assert explain._body(f"@{tmp_path}/body") == explain._body('{"a": "ü"}') == '{"a": "ü"}'
    (tmp_path / "body").write_bytes(b"\xff")
    with pytest.raises(errors.OpPrereqError):
        explain._body(f"@{tmp_path}/body")
