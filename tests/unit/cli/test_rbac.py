# SPDX-License-Identifier: BSD-2-Clause
"""What `gnt-ext check --for-ganeti-rbac` knows of Ganeti's own access control, and what it makes of it.

GANETI_EXT_NEXT_LIB names the `lib/` of Ganeti's sources that have it: then it is compared with them.
"""

from __future__ import annotations

import ast
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import ganeti
import pytest
from ganeti.rapi import connector
from hypothesis import given, settings
from hypothesis import strategies as st

from ganeti_ext.cli import check, rbac, state
from ganeti_ext.policy.accounts import Account, plain, resolve
from ganeti_ext.policy.loader import load_policy
from ganeti_ext.policy.model import Policy
from ganeti_ext.policy.vocabulary import BUILTIN_ROLES, PERMISSIONS, PLAIN_ROLES, RESTRICTED_COMMAND
from ganeti_ext.rapi import opcodes
from ganeti_ext.rapi.permissions import OPEN_RESOURCES, PERMISSION_OF, permission_of, walk

NEXT_LIB = os.environ.get("GANETI_EXT_NEXT_LIB", "")
needs_next = pytest.mark.skipif(
    not NEXT_LIB, reason="GANETI_EXT_NEXT_LIB does not name the lib/ of a Ganeti with access control of its own"
)

POLICY = """\
version: 1
roles:
  test-operator:
    permissions: ["@operator", instances.create]
    scope: {instances: {name: "*.test"}}
  starter:
    permissions: ["@readonly", instances.startup]
  small:
    permissions: [instances.create]
    quota: {instances: 3}
deny:
  - {users: kept, permissions: [instances.remove], instances: {tag: keep}}
  - {users: "less*", permissions: [instances.remove]}
  - {users: nostop, permissions: [instances.shutdown]}
tests:
  - {user: joe, tokens: "@starter", do: instances.startup, expect: allow}
"""

words = st.sampled_from(
    [*PERMISSIONS, *BUILTIN_ROLES, *PLAIN_ROLES, *rbac.ALIASES, "starter", "not_defined", "", "x", "@admin", " a"]
)
tokens = st.builds(lambda sign, word: sign + word, st.sampled_from(["", "", "@", "@", "+", "-"]), words)
columns = st.lists(tokens | st.text(max_size=6).filter(lambda text: "," not in text), max_size=6)


# --- the model ---------------------------------------------------------------------------


@pytest.fixture(scope="module", name="theirs")
def _theirs() -> Iterator[ModuleType]:
    """Its `http/auth.py` with its `rapi/__init__.py`, beside the rest of the Ganeti that is installed."""
    rapi = _module("ganeti.rapi", "rapi/__init__.py")
    before = ganeti.rapi
    ganeti.rapi = rapi
    try:
        yield _module("ganeti.http.auth", "http/auth.py")
    finally:
        ganeti.rapi = before


def _module(name: str, path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location("next." + name, Path(NEXT_LIB, path))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@needs_next
def test_the_roles_and_permissions_are_ganetis(theirs: Any) -> None:
    assert dict(theirs.rapi.RAPI_ROLES) == rbac.ROLES
    assert theirs._DEPRECATED_PERM_MAPPING == rbac.ALIASES


@needs_next
@settings(max_examples=2000, deadline=None)
@given(columns)
def test_a_third_column_grants_what_ganeti_grants(theirs: Any, column: list[str]) -> None:
    assert theirs._resolve_permissions(column, theirs.rapi.RAPI_ROLES) == rbac.granted_there(column)


@needs_next
@settings(max_examples=500, deadline=None)
@given(columns)
def test_a_line_of_the_users_file_is_read_as_by_ganeti(theirs: Any, column: list[str]) -> None:
    """Both parsers and both rules: as the daemon of each would load the file."""
    line = f"joe {{HA1}}x {','.join(column)}"
    users = theirs.ParsePasswordFile(line)
    (here,) = state.parsed([line]) if users else [None]
    if here is not None and here.tokens is not None:
        assert users[here.name].password == here.password
        assert users[here.name].permissions == rbac.granted_there(here.tokens)


@needs_next
def test_each_resource_needs_the_permission_that_it_needs_here() -> None:
    """Or the same words would not mean the same."""
    there: dict[str, dict[str, str]] = {}
    for node in ast.parse(Path(NEXT_LIB, "rapi/rlib2.py").read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for one in node.body:
            if isinstance(one, ast.Assign) and isinstance(one.value, ast.Attribute):
                target, name = ast.unparse(one.targets[0]), one.value.attr
                if target.endswith("_ACCESS"):
                    value = name[len("RAPI_ACCESS_") :].lower()
                    there.setdefault(node.name, {})[target[: -len("_ACCESS")]] = value
    here = {
        name: {method: permission.replace(".", "_") for method, permission in methods.items()}
        for name, methods in PERMISSION_OF.items()
        if RESTRICTED_COMMAND not in methods.values()
    }
    tags = there.pop("_R_Tags")
    there.update({name: tags for name in here if name.endswith("tags")})
    assert here.pop("R_2_query") == {"GET": "query_all", "PUT": "query_all"} and there.pop("R_2_query") == {
        "GET": "query_all"
    }
    assert there == here


def test_what_needs_a_second_permission_here() -> None:
    """Each field that asks for one is in the table, for the endpoints whose opcodes have it."""
    found = set()
    for resource, method in walk(connector.CONNECTOR):
        op = getattr(resource, f"{method}_OPCODE", None)
        permission = permission_of(resource, method)
        if op is None or resource.__name__ in OPEN_RESOURCES or permission is None:
            continue
        fields: dict[str, Any] = {
            field: True for field in ("remove_instance", "allow_failover") if field in op.GetAllSlots()
        }
        if "tags" in op.GetAllSlots():
            fields["tags"] = ["x"]
        found |= {(permission, other) for other in opcodes.permissions_of(op(**fields), nested=False)}
    nested = opcodes.permissions_of(connector.rlib2.opcodes.OpInstanceCreate(), True)
    found |= {("instances.multi_alloc", other) for other in nested}
    assert {(permission, other) for permission, other, _ in rbac.PARTS} == found


# --- what is made of it ------------------------------------------------------------------


def account(column: str, user: str = "joe", policy: Policy | None = None) -> Account:
    split = column.split(",")
    known = policy or load_policy(POLICY.encode(), "policy")
    return Account(user, resolve(split, known) or plain(split), known)


def verdict(column: str, user: str = "joe") -> rbac.Verdict:
    return rbac.verdict(column.split(","), account(column, user))


@settings(max_examples=500, deadline=None)
@given(st.sets(st.sampled_from(sorted(PERMISSIONS))))
def test_the_line_to_write_grants_the_same_on_both_sides(wanted: set[str]) -> None:
    line = rbac.line_for(wanted).split(",")
    assert rbac.granted_there(line) & rbac.ALL == wanted - {RESTRICTED_COMMAND}
    here = set((resolve(line, Policy()) or plain(line)).roles) if line != [""] else set()
    assert here - {RESTRICTED_COMMAND} == wanted - {RESTRICTED_COMMAND}


@settings(max_examples=500, deadline=None)
@given(columns)
def test_an_account_that_is_moved_by_its_line_has_what_it_had(column: list[str]) -> None:
    before = Account("joe", resolve(column, Policy()) or plain(column), Policy())
    one = rbac.verdict(column, before)
    after = one.line.split(",") if one.line else column
    if one.line == "" and (one.gains or one.wider or one.loses):
        assert not before.grants.roles  # to be removed
    elif one.line is not None:
        again = rbac.verdict(after, Account("joe", resolve(after, Policy()) or plain(after), Policy()))
        assert not (again.gains or again.wider or again.loses or again.line), (after, again)


@pytest.mark.parametrize("column", ["write", "@admin", "@admin,@test-operator", "jobs.list,+jobs.query", "@nix"])
def test_what_means_the_same(column: str) -> None:
    assert not any(verdict(column)), verdict(column)


@pytest.mark.parametrize(
    ("column", "gains", "loses"),
    [
        ("", set(), BUILTIN_ROLES["readonly"] - {"jobs.wait", "query.all"}),
        ("read", set(), {"instances.query.console", "nodes.storage.query"}),
        ("all", rbac.ALL - BUILTIN_ROLES["readonly"] | {"jobs.wait", "query.all"}, set()),
        ("@readonly", set(), {"jobs.wait", "nodes.storage.query"}),
        ("@starter", set(), BUILTIN_ROLES["readonly"] | {"instances.startup"}),
        ("@readonly,-instances.lst", rbac.ROLES["readonly"], set()),
        ("group_write", set(), set(BUILTIN_ROLES["group_write"])),
        ("@test-operator,jobs.cancel", {"jobs.cancel"}, None),
    ],
)
def test_what_means_something_else(column: str, gains: set[str], loses: set[str] | None) -> None:
    one = verdict(column)
    assert set(one.gains) == gains
    assert loses is None or set(one.loses) == loses


def test_what_cannot_be_moved() -> None:
    assert verdict("@test-operator").line is None
    assert verdict("@test-operator").stays == ["role test-operator has a scope, limits on parameters, own jobs alone"]
    assert verdict("@small").stays == ["role small has a quota"]
    assert verdict("instance_write").stays == ["tags.set of instances alone"]
    assert verdict("instance_write,-tags.set,-tags.delete").stays == []
    assert verdict("write", "kept")[:4] == ([], ["instances.remove"], [], ["deny (line 12) is about some objects"])
    assert verdict("write", "less").line == "@admin,-instances.remove"
    assert verdict("write", "nostop").stays == ["deny (line 14) forbids what does the same on the way, too"]
    # What a deny cannot forbid him anyway does not keep him.
    assert verdict("@readonly", "kept").stays == verdict("@operator", "kept").stays == []
    assert verdict("instances.list,instances.startup", "nostop").stays == []
    for column in ("nodes.powercycle", "instances.export.create"):
        assert verdict(column, "nostop").stays == ["deny (line 14) forbids what does the same on the way, too"]
    assert verdict("instances.rename", "kept").stays == ["deny (line 12) is about some objects"]
    (more,) = verdict("@operator").more
    assert more.startswith("with instances.export.create he could remove the instance")
    assert verdict("@admin,-instances.remove").more == [more]
    policy = load_policy(b"version: 1\nroles: {r: {permissions: [nodes.restricted_command], "
                         b"parameters: {command: [hello]}}}\n", "x")  # fmt: skip
    assert rbac.verdict(["@r"], account("@r", policy=policy)).stays[-1] == rbac._COMMANDS


def test_it_is_told_with_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    users, policy = tmp_path / "users", tmp_path / "policy.yaml"
    policy.write_text(POLICY, encoding="utf-8")
    policy.chmod(0o644)
    users.write_text("# us\nadmin secret write\nnoc secret @readonly,jobs.cancel\nt secret @test-operator,jobs.cancel\n"
                     "joe {SCRYPT}secret jobs.list\n", encoding="utf-8")  # fmt: skip
    assert rbac.tell(str(policy), str(users)) == 1
    told, counted = capsys.readouterr()
    assert "secret" not in told and counted.startswith("1 of 4 accounts mean the same")
    lines = told.splitlines()
    assert f"{users}:2: note: user 'admin': means the same there" in lines
    (noc,) = [number for number, line in enumerate(lines) if line.startswith(f"{users}:3:7: warning: ")]
    assert lines[noc].endswith(
        "user 'noc': would lose jobs.wait, nodes.storage.query;"
        " write @readonly,+jobs.cancel,+jobs.wait,+nodes.storage.query"
    )
    assert lines[noc + 1 : noc + 3] == ["    noc … @readonly,jobs.cancel", "          ^"]
    (limited,) = [line for line in lines if line.startswith(f"{users}:4:20: error: user 't': would gain jobs.cancel; ")]
    assert "cannot be moved: role test-operator has a scope" in limited and "write" not in limited
    assert f"{users}:5: warning: user 'joe': his password is not known there: give him one as {{HA1}}" in lines
    assert f"{policy}:3:3: error: role test-operator: cannot be moved: it has a scope, limits" in told
    assert f"{policy}:6:3: warning: role starter is not known there" in told
    assert f"{policy}:12:3: error: cannot be moved: there are no denies there" in told
    assert f"{policy}:16:3: warning: nothing runs this test there" in told

    policy.write_text("version: 1\n", encoding="utf-8")
    users.write_text("admin secret write\n", encoding="utf-8")
    assert rbac.tell(str(policy), str(users)) == 0
    assert capsys.readouterr().out.count("\n") == 2


def test_check_has_it_as_an_option() -> None:
    from ganeti_ext.cli.main import COMMANDS

    assert "--for-ganeti-rbac" in {word for option in COMMANDS["check"][2] for word in option._long_opts}
    assert (check.ERROR, check.NOTE) == ("error", "note")
