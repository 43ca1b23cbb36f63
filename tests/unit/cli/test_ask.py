# SPDX-License-Identifier: BSD-2-Clause
"""What `gnt-ext can` and `who-can` say, beside what the daemon does."""

from __future__ import annotations

import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ganeti import errors

from ganeti_ext.cli import ask, explain, state, tables
from ganeti_ext.cli.state import StateError
from ganeti_ext.policy.loader import load_policy
from ganeti_ext.rapi.permissions import PERMISSION_OF
from tests.unit.rapi import fake
from tests.unit.rapi.fake import Server

POLICY = """\
version: 1
roles:
  suffix:
    description: By name
    permissions: ["@operator", tags.set]
    scope:
      instances: {name: "*.test.example.com"}
      nodes: {group: group1}
  tagged:
    permissions: [instances.reboot, instances.query, groups.query, tags.get]
    scope: {instances: {tag: "of:{user}"}, groups: {name: group2}}
  trial:
    permissions: [instances.query, instances.startup]
    scope: {instances: {name: "db1.*"}}
    mode: warn
deny:
  - {users: "*", except: [admin], permissions: [instances.reboot], instances: {tag: keep}}
  - {users: [noc], permissions: [nodes.query]}
"""
USERS = {
    "admin": "write",
    "watch": "read",
    "joe": "@suffix",
    "ann": "@tagged",
    "noc": "@readonly,instances.reboot",
    "both": "@suffix,@tagged,-instances.startup",
    "trying": "@trial",
    "typo": "@sufix",
    "mail": "instance_write,@readonly",
}
INSTANCES = {
    "web1.test.example.com": (),
    "kept.test.example.com": ("keep",),
    "db1.prod.example.com": ("of:ann",),
    "db2.prod.example.com": ("of:both", "keep"),
}
#: Permission -> kind, and the request that needs it.
REQUESTS = {
    "instances.query": ("instance", "GET", "/2/instances/{}"),
    "instances.reboot": ("instance", "POST", "/2/instances/{}/reboot"),
    "instances.startup": ("instance", "PUT", "/2/instances/{}/startup"),
    "tags.get": ("instance", "GET", "/2/instances/{}/tags"),
    "nodes.query": ("node", "GET", "/2/nodes/{}"),
    "groups.query": ("group", "GET", "/2/groups/{}"),
    "networks.query": ("network", "GET", "/2/networks/{}"),
}


def cluster() -> fake.Cluster:
    found = fake.Cluster({})
    for name, tags in INSTANCES.items():
        found.add("instance", name, tags=tags)
    found.add("group", "group2")
    return found


@pytest.fixture(name="opts")
def _opts(tmp_path: Path) -> SimpleNamespace:
    (tmp_path / "policy").write_text(POLICY, encoding="utf-8")
    users = "".join(f"{name} x {tokens}\n" for name, tokens in USERS.items())
    (tmp_path / "users").write_text(users, encoding="utf-8")
    return SimpleNamespace(
        policy_file=str(tmp_path / "policy"),
        users_file=str(tmp_path / "users"),
        offline=False,
        list=False,
        body=None,
        no_headers=True,
        separator="|",
    )


def test_can_and_the_daemon_agree(
    opts: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there = cluster()
    monkeypatch.setattr(state, "luxi_client", there.client)
    loaded = state.load(opts.policy_file, opts.users_file)
    monkeypatch.setattr(state, "load", lambda *_: loaded)
    server = Server("".join(f"{name} {tokens}\n" for name, tokens in USERS.items()), POLICY, there, reqauth=True)
    chance = random.Random(1)
    said = {True: 0, False: 0}
    for _ in range(1000):
        user, permission = chance.choice(list(USERS)), chance.choice(list(REQUESTS))
        kind, method, path = REQUESTS[permission]
        name = chance.choice([*there.things[kind], "nobody.test.example.com", "web1"])
        args = [user, permission, f"{kind}:{name}"]
        allowed = ask.can(opts, args) == 0
        out, err = capsys.readouterr()
        assert out.startswith("yes: " if allowed else "no: ")
        status = server.ask(method, path.format(name), user).status
        if "no " + kind in err:  # where there is nothing, nothing can be done
            assert status in (200, 403, 404), args
            continue
        assert (status == 200) == allowed, (args, out, status)
        said[allowed] += 1
        whole = ask.who_can(opts, args[1:])
        who = [line.partition("|")[0] for line in capsys.readouterr().out.splitlines()]
        assert (user in who) == allowed and whole == (0 if who else 1)
    assert min(said.values()) > 100


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["joe", "instances.reboot", "web9.test.example.com"], "yes: role suffix"),
        (["joe", "instances.reboot", "web1"], "no: instance 'web1': outside of role suffix"),
        (["joe", "instances.reboot"], "yes: role suffix, on instances: name *.test.example.com; nodes: group group1"),
        (["joe", "instances.remove"], "no: permission instances.remove is not granted"),
        (["joe", "tags.set", "cluster:"], "no: the cluster: outside of role suffix"),
        (["noc", "nodes.query", "n"], "no: deny (line 18) forbids it"),
        (["trying", "instances.startup", "x"], "yes: role trial (mode: warn lets through: instance 'x': outside of"),
        (["admin", "cluster.modify"], "yes: role admin, on everything"),
        (["watch", "cluster.modify"], "no: permission cluster.modify is not granted"),
    ],
)
def test_offline(opts: Any, args: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    opts.offline = True
    assert ask.can(opts, args) == (0 if told.startswith("yes") else 1)
    assert capsys.readouterr().out.startswith(told)


def test_list(opts: Any, capsys: pytest.CaptureFixture[str]) -> None:
    opts.list = True
    assert ask.can(opts, ["ann"]) == 0
    where = "instances: tag of:ann; groups: name group2"
    assert capsys.readouterr().out.splitlines() == [
        f"groups.query|tagged|{where}|-",
        f"instances.query|tagged|{where}|-",
        f"instances.reboot|tagged|{where}|deny (line 17)",
        f"tags.get|tagged|{where}|-",
    ]


def test_what_is_not_there(opts: Any) -> None:
    for args in (["joe"], ["joe", "instances.rebot"], ["joe", "instances.reboot", "disk:x"]):
        with pytest.raises(errors.OpPrereqError):
            ask.can(opts, args)
    with pytest.raises(StateError, match="no user 'zoe'"):
        ask.can(opts, ["zoe", "instances.reboot"])


def test_tables(opts: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert tables.roles(opts, []) == tables.permissions(opts, []) == tables.users(opts, []) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "@suffix|29|2|instances: name *.test.example.com; nodes: group group1|By name" in lines
    assert "@trial|2|1|instances: name db1.* (mode: warn)|-" in lines
    assert "instance_write|21|1|all instances|-" in lines
    assert "instances.startup|yes|@suffix,@trial|start an instance" in lines
    assert "typo|plain|@sufix|0|unknown role '@sufix'; did you mean '@suffix'?" in lines
    assert "watch|plain|read|Ganeti's own|-" in lines
    opts.no_headers, opts.separator = False, None
    tables.users(opts, [])
    assert capsys.readouterr().out.splitlines()[0].split() == [
        "User", "Password", "Options", "Permissions", "Problems",
    ]  # fmt: skip


def test_the_last_good_copy_is_what_is_in_force(
    opts: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(state, "POLICY_FILE", str(tmp_path / "live"))
    monkeypatch.setattr(state, "LAST_GOOD_FILE", str(tmp_path / "copy"))
    monkeypatch.setattr(state, "read_policy_file", lambda path, owners=(): Path(path).read_bytes())
    assert state.load(None, opts.users_file).policy.roles == {}
    (tmp_path / "copy").write_text(POLICY, encoding="utf-8")
    opts.policy_file = None
    for bad in (None, "version: 2\n", POLICY + "tests:\n  - {user: joe, do: nodes.modify, expect: allow}\n"):
        if bad is not None:
            (tmp_path / "live").write_text(bad, encoding="utf-8")
        assert ask.can(opts, ["joe", "instances.reboot"]) == 0
        assert "by the last good copy" in capsys.readouterr().err
    (tmp_path / "copy").write_text("version: 2\n", encoding="utf-8")
    with pytest.raises(StateError, match="of no use"):
        state.load(None, opts.users_file)
    (tmp_path / "live").write_text(POLICY.replace("suffix", "other"), encoding="utf-8")
    assert "other" in state.load(None, opts.users_file).policy.roles


LIMITS = """\
version: 1
roles:
  maker:
    permissions: [instances.create, instances.modify, instances.query, nodes.evacuate]
    scope: {instances: {name: "*.test.example.com"}}
    parameters: {os_type: [noop], disk_template: [diskless], beparams.maxmem: {max: 1G}}
  trying:
    permissions: [instances.modify]
    scope: {instances: {name: "db1.*"}}
    parameters: {beparams.vcpus: {max: 2}}
    mode: warn
"""
MAKERS = {"admin": "write", "watch": "read", "joe": "@maker", "ann": "@trying", "noc": "@operator"}


@pytest.fixture(name="asking")
def _asking(opts: Any, monkeypatch: pytest.MonkeyPatch) -> fake.Cluster:
    """A cluster that `can --body` asks; the test stays root, if it is."""
    there = cluster()
    loaded = state.State(
        load_policy(LIMITS.encode(), "x"),
        state.by_name(state.parsed(f"{name} x {tokens}" for name, tokens in MAKERS.items())),
    )
    monkeypatch.setattr(state, "load", lambda *_: loaded)
    monkeypatch.setattr(state, "luxi_client", lambda: SimpleNamespace(Close=lambda: None))
    monkeypatch.setattr(explain, "luxi", SimpleNamespace(Client=lambda address: there.client()))
    monkeypatch.setattr(explain, "_become_the_daemons_user", lambda: None)
    return there


def test_can_with_a_body_and_the_daemon_agree(
    opts: Any, asking: fake.Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Server("".join(f"{name} {tokens}\n" for name, tokens in MAKERS.items()), LIMITS, cluster(), reqauth=True)
    opts.body = str(tmp_path / "body")
    chance = random.Random(2)
    said = {True: 0, False: 0}
    for _ in range(1000):
        user, name = chance.choice(list(MAKERS)), chance.choice([*INSTANCES, "new.test.example.com"])
        beparams = {"maxmem": chance.choice([512, 2048, "1G", "x"]), "vcpus": chance.choice([1, 3])}
        body: dict[str, Any] = {"beparams": {key: beparams[key] for key in chance.sample(list(beparams), 1)}}
        if chance.random() < 0.5:
            args, method, path = [user, "instances.modify", name], "PUT", f"/2/instances/{name}/modify"
            body.update(chance.choice([{}, {"hvparams": {"kernel_path": "/x"}}, {"os_name": "noop"}]))
        else:
            args, method, path = [user, "instances.create"], "POST", "/2/instances"
            body.update({**fake.CREATION, "name": name, "os": chance.choice(["noop", "other"])})
        (tmp_path / "body").write_text(json.dumps(body), encoding="utf-8")
        allowed = ask.can(opts, args) == 0
        out = capsys.readouterr().out
        assert out.startswith("yes: " if allowed else "no: ")
        status = server.ask(method, path, user, body).status
        assert (status < 400) == allowed, (args, body, out, status)
        said[allowed] += 1
    assert min(said.values()) > 100
    assert {name for name in asking.names_of_calls() if not name.startswith("Query")} == set()


@pytest.mark.parametrize(
    ("args", "body", "told"),
    [
        (["joe", "instances.modify", "web1.test.example.com"], {"beparams": {"maxmem": 512}}, "yes: role maker\n"),
        (
            ["joe", "instances.modify", "web1.test.example.com"],
            {"beparams": {"maxmem": 2048}},
            "no: parameter beparams.maxmem may not be set to this: allowed is at most 1024, by role maker\n",
        ),
        (["joe", "instances.modify", "db1.prod.example.com"], {}, "no: instance 'db1.prod.example.com': outside of"),
        (["ann", "instances.modify", "db1.prod.example.com"], {"beparams": {"vcpus": 9}}, "yes: role trying; mode: "),
        (["admin", "instances.modify", "web1.test.example.com"], [], "no: nothing would come of it: "),
        (["noc", "instances.create"], fake.CREATION, "no: permission instances.create is not granted\n"),
    ],
)  # fmt: skip
def test_can_with_a_body(
    opts: Any, asking: fake.Cluster, args: list[str], body: Any, told: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    opts.body = str(tmp_path / "body")
    (tmp_path / "body").write_text(json.dumps(body), encoding="utf-8")
    assert ask.can(opts, args) == (0 if told.startswith("yes") else 1)
    out, err = capsys.readouterr()
    assert out.startswith(told) and out.count("\n") == 1 and err == ""


def test_a_body_that_the_daemon_does_not_look_at_is_told(
    opts: Any, asking: fake.Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opts.body = str(tmp_path / "body")
    (tmp_path / "body").write_text('{"startup_paused": true}', encoding="utf-8")
    assert ask.can(opts, ["noc", "instances.startup", "web1.test.example.com"]) == 0
    assert "does not look at this body" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["joe", "instances.create", "new"], "leave it out"),
        (["joe", "instances.modify"], "name it"),
        (["joe", "instances.modify", "node:x"], "gnt-ext explain"),
        (["joe", "filter.modify", "x"], "gnt-ext explain"),
    ],
)
def test_a_body_of_no_request(opts: Any, asking: fake.Cluster, args: list[str], why: str, tmp_path: Path) -> None:
    opts.body = str(tmp_path / "body")
    (tmp_path / "body").write_text("{}", encoding="utf-8")
    with pytest.raises(errors.OpPrereqError, match=why):
        ask.can(opts, args)
    opts.body = str(tmp_path / "none")
    with pytest.raises(FileNotFoundError):
        ask.can(opts, ["joe", "instances.modify", "x"])
    opts.offline = True
    with pytest.raises(errors.OpPrereqError, match="live cluster"):
        ask.can(opts, ["joe", "instances.modify", "x"])


def test_the_request_of_a_permission_is_the_one_of_its_endpoint() -> None:
    """As Ganeti's own connector leads to it."""
    names = {"instance": fake.INSTANCE, "node": fake.NODE, "group": "group1", "network": "network1"}
    found = 0
    for resource, method in fake.PAIRS:
        permission, path = PERMISSION_OF.get(resource.__name__, {}).get(method), fake.PATH_OF[resource]
        parts = path.split("/")
        kind = parts[2][:-1] if len(parts) > 3 else ""
        if permission is None or (kind and kind not in names):
            continue
        assert explain.request_of(permission, kind, names.get(kind, "")) == (method, path)
        found += 1
    assert found > 50
