# SPDX-License-Identifier: BSD-2-Clause
"""What `gnt-ext can` and `who-can` say, beside what the daemon does."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ganeti import errors

from ganeti_ext.cli import ask, state, tables
from ganeti_ext.cli.state import StateError
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
