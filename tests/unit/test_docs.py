# SPDX-License-Identifier: BSD-2-Clause
"""What the pages show is what the code takes."""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ganeti_ext.cli import check, rbac
from ganeti_ext.cli.main import COMMANDS
from ganeti_ext.policy.accounts import Account, plain, resolve
from ganeti_ext.policy.loader import load_policy
from ganeti_ext.policy.model import Policy
from ganeti_ext.policy.selftest import failures
from ganeti_ext.rapi import quota
from ganeti_ext.rapi.audit import Record
from ganeti_ext.rapi.handler import RemoteApiHandler
from ganeti_ext.rapi.passwords import verify_password
from tests.unit.rapi import fake
from tests.unit.rapi.fake import Cluster, Server

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "docs/policy.md", "docs/ganeti-ext.7.rst"]


def blocks(page: str) -> list[str]:
    """The indented blocks of a page, without their indentation."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(r"(?:^[ ]{4,}.*\n|^\n(?=[ ]{4}))+", text, re.MULTILINE)
    return [textwrap.dedent(block).strip("\n") + "\n" for block in found]


def policies(page: str) -> list[str]:
    """The policies that a page shows: each from `version: 1` on, as far as it is indented."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.finditer(r"^( +)version: 1\n(?:\1.*\n|\n(?=\1))*", text, re.MULTILINE)
    return [textwrap.dedent(match[0]).split("\n\n")[0] + "\n" for match in found]


@pytest.mark.parametrize("page", PAGES)
def test_a_policy_that_is_shown_is_taken(page: str) -> None:
    shown = policies(page)
    assert shown
    for policy in shown:
        assert load_policy(policy.encode(), page).roles["test-operator"].permissions


def test_the_policy_of_the_man_page_is_taken() -> None:
    (text,) = policies("docs/rapi-access.yaml.5.rst")
    policy = load_policy(text.encode(), "rapi-access.yaml(5)")
    assert list(policy.roles) == ["test-operator"] and policy.denies and policy.tests
    assert failures(policy, lambda name: resolve(["@test-operator"], policy)) == []


def test_the_role_for_restricted_commands_that_is_shown_does_what_it_says() -> None:
    (text,) = policies("docs/restricted-commands.md")
    policy = load_policy(text.encode(), "restricted-commands.md")
    assert failures(policy, lambda name: None) == []
    assert len(policy.tests) == 1


@pytest.mark.parametrize("page", [*PAGES, "examples/test-domain/rapi-access.yaml"])
def test_whoever_has_the_role_that_is_shown_can_do_what_it_is_for(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A role that may create has to name an OS, or it may not."""
    text = (ROOT / page).read_text(encoding="utf-8")
    lock = functools.partial(quota.locked, str(tmp_path / "lock"))
    monkeypatch.setattr("ganeti_ext.rapi.client.quota.locked", lock)
    for policy in policies(page) if page in PAGES else [text]:
        cluster = Cluster({fake.INSTANCE: "u1", "db1.prod.example.com": "u2"})
        cluster.add("group", "default")
        for node in cluster.things["node"].values():
            node.group = "default"
        server = Server("test1 @test-operator", policy, cluster)
        new = {**fake.CREATION, "name": "new.test.example.com"}
        assert server.ask("POST", "/2/instances", "test1", new).status == 200
        assert server.ask("POST", f"/2/instances/{fake.INSTANCE}/reboot", "test1").status == 200
        answer = server.ask("GET", "/2/instances", "test1")
        if "@" in policy.partition("permissions:")[2].partition("scope:")[0]:
            assert [row["id"] for row in answer.body] == [fake.INSTANCE]
        assert server.ask("DELETE", "/2/instances/db1.prod.example.com", "test1").status == 404
        assert (
            "nodes.evacuate is not granted"
            in server.ask("POST", f"/2/nodes/{fake.NODE}/evacuate", "test1", {"mode": "all"}).message
        )


def test_the_policy_of_the_example_is_taken() -> None:
    path = ROOT / "examples" / "test-domain" / "rapi-access.yaml"
    assert "test-operator" in load_policy(path.read_bytes(), str(path)).roles


@pytest.mark.parametrize("page", PAGES)
def test_the_users_that_are_shown_have_no_unknown_token(page: str) -> None:
    roles = load_policy(policies(page)[0].encode(), page).roles
    lines = re.findall(r"^ +(\w+) +\{HA1\}\S* +(\S+)", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert lines
    for name, options in lines:
        account = resolve(options.split(","), Policy(roles))
        assert account is None or account.problems == (), name


@pytest.mark.parametrize(("maker", "scheme"), [("hash_password", "{SCRYPT}"), ("hash_token", "{SHA256}")])
def test_the_command_that_makes_a_password_makes_one(maker: str, scheme: str) -> None:
    (command,) = [line for block in blocks("docs/policy.md") for line in block.splitlines() if f"{maker}(" in line]
    program, *arguments = shlex.split(command)
    assert program == "python3"
    done = subprocess.run(
        [sys.executable, *arguments],
        input="a password\n",
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
        env={"PYTHONPATH": str(ROOT)},
        start_new_session=True,  # without a terminal, the password is read from the input
    )
    *token, entry = done.stdout.split()
    assert entry.startswith(scheme)
    assert verify_password("joe", token[0] if token else "a password", entry, "realm")


def test_the_middleware_that_is_shown_does_what_it_says() -> None:
    (source,) = [block for block in blocks("docs/middleware.md") if "class RemoteApiHandler" in block]
    space: dict[str, type] = {}
    with fake.unchanged_access_lists():
        exec(source, space)
        assert issubclass(space["RemoteApiHandler"], RemoteApiHandler)
        cluster = Cluster({"web1.example.com": "u1", "db1.example.com": "u2"})
        server = Server("joe tagger", cluster=cluster, cls=space["RemoteApiHandler"])
        for name, tag, status in (("web1", "new", 200), ("web1", "owner:me", 403), ("db1", "new", 404)):
            answer = server.ask("PUT", f"/2/instances/{name}.example.com/tags?tag={tag}", "joe")
            assert answer.status == status, (name, tag)
        assert server.ask("POST", "/2/instances/web1.example.com/reboot", "joe").status == 403


def test_the_audit_records_that_are_shown_are_written() -> None:
    """All but the ids, which are anybody's guess; and the recipes find them."""
    shown = [
        json.loads(record)
        for block in blocks("docs/audit.md")
        for record in re.findall(r"^\{.*?\}$", block, re.MULTILINE | re.DOTALL)
    ]
    policy = policies("docs/policy.md")[0]
    server = Server("admin write\ntest1 @test-operator", policy)
    server.ask("POST", "/2/instances/web1.test.example.com/reboot?type=soft", "test1")
    server.ask("DELETE", "/2/instances/db1.prod.example.com", "test1")
    server = Server("admin write\ntest1 @test-operator", policy, trail=server.trail)
    body = {"beparams": {"maxmem": 1024}, "osparams": {"root_pw": "x"}}
    server.ask("PUT", "/2/instances/web1.test.example.com/modify", "admin", body=body)
    written = server.trail.records
    assert len(shown) == len(written) == 3
    for one, other in zip(shown, written):
        assert re.fullmatch("[0-9a-f]{16}", one["id"])
        assert {**one, "id": other["id"]} == other
        assert list(one) == list(other)

    lines = "".join(json.dumps(record) + "\n" for record in shown)
    text = (ROOT / "docs/audit.md").read_text(encoding="utf-8")
    filters = re.findall(r"jq (?:-\w+ )*'([^']*)'", text)
    found = [
        subprocess.run(["jq", "-cr", recipe], input=lines, check=True, capture_output=True, text=True).stdout
        for recipe in filters
        if "fromjson" not in recipe
    ]
    assert [output.count("\n") for output in found] == [1, 2, 0, 1]
    assert found[0].endswith("outside of role test-operator\n") and "c41e07b2d85f936a" in found[3]


def test_the_fields_of_the_audit_trail_are_told() -> None:
    text = (ROOT / "docs/audit.md").read_text(encoding="utf-8")
    cells = [cell for row in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE) for cell in re.findall("`(.*?)`", row)]
    assert cells == list(Record("GET", "/").as_dict())


@pytest.mark.skipif(not os.path.exists("/usr/share/ganeti/default"), reason="needs an installed Ganeti")
def test_what_gnt_ext_says_is_what_is_shown(tmp_path: Path) -> None:
    """The calls of the README, with its own policy and a mistake in it."""
    policy = policies("README.md")[0]
    (block,) = [block for block in blocks("README.md") if "# gnt-ext can" in block]
    (tmp_path / "policy.yaml").write_text(policy, encoding="utf-8")
    (tmp_path / "draft.yaml").write_text(policy.replace("reboot", "rebot"), encoding="utf-8")
    (tmp_path / "users").write_text("admin x write\ntest1 x @test-operator\n", encoding="utf-8")
    (tmp_path / "node1/var/log/ganeti").mkdir(parents=True)
    environment = {"PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
    environment.update(GANETI_ROOTDIR=str(tmp_path / "node1"), GANETI_HOSTNAME="node1")
    calls = re.findall(r"^# gnt-ext (\S+) (.*)\n((?:(?!#).*\n)+)", block, re.MULTILINE)
    assert len(calls) == 4
    for command, arguments, output in calls:
        options = ["--offline", "--users=users", *(["--policy=policy.yaml"] if command != "check" else [])]
        done = subprocess.run(
            ["/usr/bin/python3", ROOT / "sbin/gnt-ext", command, *options, *arguments.split()],
            cwd=tmp_path, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        # The draft of a test need not be root's.
        said = "".join(line for line in done.stdout.splitlines(keepends=True) if "must belong to root" not in line)
        assert said.replace("1 error, 1 warning\n", "1 error, 0 warnings\n") == output, command


COOKBOOK = "docs/cookbook.md"


def recipes() -> list[tuple[str, str]]:
    """The policies of the cookbook, each with what was told between the one before it and itself."""
    text = (ROOT / COOKBOOK).read_text(encoding="utf-8")
    found = []
    end = 0
    for match in re.finditer(r"^( +)version: 1\n(?:\1.*\n)*", text, re.MULTILINE):
        found.append((text[end : match.start()], textwrap.dedent(match[0])))
        end = match.end()
    return found


def test_every_recipe_has_a_policy() -> None:
    text = (ROOT / COOKBOOK).read_text(encoding="utf-8")
    assert len(recipes()) == len(re.findall("^## ", text, re.MULTILINE)) == text.count("version: 1\n")


@pytest.mark.parametrize(("told", "policy"), recipes(), ids=range(len(recipes())))
def test_a_recipe_does_what_it_says(told: str, policy: str) -> None:
    known = load_policy(policy.encode(), COOKBOOK)
    assert known.tests, "a recipe has tests"
    # Of somebody who is not in the users file: each says whose third column it goes by.
    assert failures(known, lambda name: None) == []
    assert {test.expect for test in known.tests} == {True, False}
    lines = re.findall(r"^ +([\w-]+) +\{(?:SCRYPT|SHA256)\}… +(\S+)$", told, re.MULTILINE)
    assert lines
    for name, options in lines:
        grants = resolve(options.split(","), known)
        assert grants is not None and grants.problems == (), (name, options)
        for role in known.roles.values():
            assert role.bound(name) is not None
    assert set(known.roles) <= {word[1:] for _, options in lines for word in options.split(",")}


@pytest.mark.parametrize(("told", "policy"), recipes(), ids=range(len(recipes())))
def test_a_recipe_is_nothing_that_check_warns_of(told: str, policy: str, tmp_path: Path) -> None:
    lines = re.findall(r"^ +([\w-]+) +(?=\{(?:SCRYPT|SHA256)\}…)(\S+ +\S+)$", told, re.MULTILINE)
    users, draft = tmp_path / "users", tmp_path / "draft.yaml"
    users.write_text("".join(f"{name} {rest}\n" for name, rest in dict(lines).items()), encoding="utf-8")
    draft.write_text(policy, encoding="utf-8")
    draft.chmod(0o644)
    found = [one.message for one in check.examine(str(draft), str(users), None)]
    found = [one for one in found if "must belong to root" not in one]
    if "`gnt-ext check` warns" in told:
        assert found
    else:
        assert found == []


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))])
def test_the_commands_that_are_shown_are_there(page: str) -> None:
    """Each call of gnt-ext in a page, with its options."""
    for line in re.findall(r"^ +[#$] (gnt-ext .*)$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE):
        _, command, *words = shlex.split(line)
        known = {word for option in COMMANDS[command][2] for word in option._long_opts}
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known, line


def test_the_messages_that_troubleshooting_starts_from_are_those_of_the_code() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "ganeti_ext").rglob("*.py"))
    text = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    quoted = re.findall("`(.*?)`", "".join(re.findall("^###.*$", text, re.MULTILINE)))
    quoted += ["the policy before it stays in force", "Runs without ganeti-ext", "cannot be checked", "allowed is"]
    assert len(quoted) == 17 and all(message in text for message in quoted)
    for message in quoted:
        for part in message.split(" … "):
            assert part in code, message


RBAC = (ROOT / "docs/ganeti-rbac.md").read_text(encoding="utf-8")


def verdict_of(options: str) -> rbac.Verdict:
    """What becomes of an account with that third column, by the roles of the other pages and one without limits."""
    text = policies("docs/policy.md")[0].replace("roles:\n", "roles:\n  starter: {permissions: [instances.startup]}\n")
    policy = Policy(load_policy(text.encode(), "x").roles)
    tokens = options.split(",")
    return rbac.verdict(tokens, Account("joe", resolve(tokens, policy) or plain(tokens), policy))


def test_what_is_told_of_ganetis_own_access_control() -> None:
    """The model that is asked is compared with Ganeti's sources in `tests/unit/cli/test_rbac.py`."""
    assert f"has {len(rbac.ALL)} permissions" in RBAC
    same = re.findall(r"^    \w+ +\{HA1\}… +(\S+)$", RBAC, re.MULTILINE)
    other = re.findall(r"^\| (`@.*?`|`read`|nothing at all|`all`|`instance_write`)(?:, .*?)? \| .* \| (.*) \|$",
                       RBAC, re.MULTILINE)  # fmt: skip
    assert (len(same), len(other)) == (5, 9)
    for options in same:
        assert not any(verdict_of(options)), options
    for cell, told in other:
        one = verdict_of(cell.strip("`").replace("nothing at all", ""))
        assert one.loses or one.gains, cell
        assert bool(one.gains) == told.startswith("**"), cell
    parts = re.findall(r"^\| (`\w+\.[^|]*`) \| .* \| `(.*)` \|$", RBAC, re.MULTILINE)
    found = {(name, needed) for names, needed in parts for name in re.findall("`(.*?)`", names)}
    assert found == {(permission, needed) for permission, needed, _ in rbac.PARTS}
