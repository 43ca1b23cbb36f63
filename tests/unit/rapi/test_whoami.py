# SPDX-License-Identifier: BSD-2-Clause
"""A user's own view: what he has, and nothing of others."""

from __future__ import annotations

import json

import pytest

from ganeti_ext.policy.vocabulary import BUILTIN_ROLES, PERMISSIONS
from tests.unit.rapi.fake import Server

PATH = "/2/ext/whoami"
USERS = """\
root write
watch read
none
joe @tester,@other,-tags.set
ann @admin,@no-such-role
typo @testr
"""
POLICY = """\
version: 1
roles:
  tester:
    description: Runs the tests
    permissions: [instances.reboot, instances.remove, tags.set]
    scope:
      instances: [{name: "{user}-*.test", tag: [a, b]}, {name: x.test}]
      nodes: {group: default}
    parameters: {os_type: [noop, "debian+*"], beparams.maxmem: {max: 8G}}
    tags: ["tenant:{user}"]
    quota: {instances: 3}
  other: {permissions: [jobs.list], jobs: all}
  secret: {permissions: [jobs.cancel], scope: {instances: {name: hidden.test}}}
deny:
  - {users: "*", except: [boss], permissions: [instances.remove]}
  - {users: "*", permissions: [instances.reboot], instances: {name: hidden.test}}
"""


def test_his_own_and_nothing_of_others() -> None:
    server = Server(USERS, POLICY)
    answer = server.ask("GET", PATH, "joe")
    assert answer.status == 200 and answer.calls == []
    body = answer.body
    assert {key: value for key, value in body.items() if key != "roles"} == {
        "user": "joe",
        "options": ["@tester", "@other", "-tags.set"],
        "permissions": ["instances.reboot", "jobs.list"],
    }
    tester, other = sorted(body["roles"], key=lambda role: str(role["name"]), reverse=True)
    parameters = tester.pop("parameters")
    assert parameters["os_type"] == "noop, debian+*" and parameters["beparams.maxmem"] == "at most 8192"
    assert tester == {
        "name": "tester",
        "description": "Runs the tests",
        "permissions": ["instances.reboot"],
        "scope": {
            "instances": [{"name": ["joe-*.test"], "tag": ["a", "b"]}, {"name": ["x.test"]}],
            "nodes": [{"group": ["default"]}],
            "groups": [],
            "networks": [],
        },
        "tags": ["tenant:joe"],
        "jobs": "own",
        "quota": {"instances": 3, "vcpus": None, "memory": None, "disk": None},
        "mode": "enforce",
    }
    assert (other["scope"], other["parameters"], other["jobs"], other["quota"]) == (None, None, "all", None)
    for user in ("joe", "ann", "typo", "none", "watch"):
        said = json.dumps(server.ask("GET", PATH, user).body)
        words = {"hidden", "secret", "boss", "root"} | ({"tester"} if user != "joe" else set())
        assert not [word for word in words if word in said], (user, said)


def test_ganetis_own_options() -> None:
    server = Server(USERS, POLICY)
    held = {
        user: server.ask("GET", PATH, user).body["permissions"] for user in ("root", "watch", "none", "ann", "typo")
    }
    assert set(held["root"]) == set(held["ann"]) == set(PERMISSIONS) - {"instances.remove"}
    assert "query.all" in held["watch"] and "query.all" not in held["none"]
    assert set(held["none"]) < set(BUILTIN_ROLES["readonly"]) and held["typo"] == []


@pytest.mark.parametrize(("user", "password"), [(None, "x"), ("joe", "wrong"), ("nobody", "x")])
def test_nobody_else_is_told(user: str | None, password: str) -> None:
    answer = Server(USERS, POLICY).ask("GET", PATH, user, password=password)
    assert answer.status == 401


def test_while_nothing_is_configured_there_is_no_such_thing() -> None:
    server = Server("root write\nnone\n")
    for user in ("root", "none", None):
        for method in ("GET", "POST", "PUT_ACCESS"):
            assert server.ask(method, PATH, user) == server.ask(method, "/2/ext/no-such-thing", user)
    assert server.ask("GET", PATH, "root").status == 404
    # It comes with the first token of ours, and goes with the last one.
    assert Server("root write\njoe @readonly\n").ask("GET", PATH, "root").status == 200
    assert server.ask("GET", PATH, "root").status == 404


def test_it_is_only_read(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(USERS, POLICY)
    for method in ("PUT", "POST", "DELETE"):
        assert server.ask(method, PATH, "root", body={}).status == 501
    assert server.ask("GET", PATH + "/", "root").status == 404
    assert server.ask("GET", PATH + "?user=joe", "root").body["user"] == "root"
