# SPDX-License-Identifier: BSD-2-Clause
"""A policy is exactly right or it is refused, with the line, the column and the mend."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ganeti_ext.errors import ExtError
from ganeti_ext.policy import loader
from ganeti_ext.policy.loader import PolicyError, load_policy
from ganeti_ext.policy.model import Policy
from ganeti_ext.policy.vocabulary import BUILTIN_ROLES, NEVER_SCOPED, PERMISSIONS, SCOPED_SO_FAR

GOOD = """\
# who may do what
version: 1
roles:
  test-operator:
    description: Runs the instances below test.example.com
    permissions: ["@operator", instances.create, tags.set]
    scope:
      instances: {name: "*.test.example.com"}
  noc:
    permissions:
      - "@readonly"
      - jobs.cancel
"""


def load(text: str) -> Policy:
    return load_policy(text.encode(), "policy.yaml")


def complaints(text: str | bytes) -> list[tuple[int, int, str]]:
    data = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(PolicyError) as caught:
        load_policy(data, "policy.yaml")
    return [(problem.line, problem.column, problem.message) for problem in caught.value.problems]


def role_with(line: str) -> str:
    """A policy of which the fourth line is one of a role."""
    return f"version: 1\nroles:\n  r:\n{line}\n    permissions: [tags.set]\n"


def test_a_good_one() -> None:
    policy = load(GOOD)
    assert list(policy.roles) == ["test-operator", "noc"]
    test, noc = policy.roles.values()
    assert test.description == "Runs the instances below test.example.com"
    assert test.permissions == (BUILTIN_ROLES["operator"] | {"instances.create", "tags.set"}) & SCOPED_SO_FAR
    assert test.scope is not None
    assert test.covers("instance", "web1.test.example.com")
    assert not test.covers("instance", "web1.example.com")
    assert noc.scope is None
    assert noc.permissions == BUILTIN_ROLES["readonly"] | {"jobs.cancel"}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("version: 1\n", []),
        ("version: 1\nroles: {}\n", []),
        ("---\nversion: 1\n...\n", []),
        ("{version: 1, roles: {r: {permissions: [tags.set]}}}", ["r"]),
        ("\ufeffversion: 1\n", []),
        ("version: 1\r\nroles:\r\n  r:\r\n    permissions: [tags.set]\r\n", ["r"]),
        ("version: 1\nroles: {'on': {permissions: [tags.set]}}\n", ["on"]),
        ("version: 1\nroles: {'5': {permissions: [tags.set]}}\n", ["5"]),
        ("version: 1\nroles: {Größe: {permissions: [tags.set]}}\n", ["Größe"]),
    ],
)
def test_also_good(text: str, names: list[str]) -> None:
    assert list(load(text).roles) == names


@pytest.mark.parametrize(
    "scope", ["{}", "{instances: {name: a}}", "{instances: {name: [a, b]}}", "{instances: [{name: a}]}"]
)
def test_forms_of_a_scope(scope: str) -> None:
    role = load(role_with(f"    scope: {scope}")).roles["r"]
    assert role.scope is not None
    assert role.covers("instance", "a") == ("name" in scope)
    assert not role.covers("instance", "c")
    assert not role.covers("node", "a")


def test_selectors_of_a_list_are_alternatives() -> None:
    role = load(role_with("    scope: {instances: [{name: a}, {name: b*}]}")).roles["r"]
    assert role.covers("instance", "a")
    assert role.covers("instance", "b2")
    assert not role.covers("instance", "a2")


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        # keys
        ("version: 1\nrols: {}\n", 2, 1, "unknown key 'rols' in the policy; did you mean 'roles'?"),
        ("version: 1\nRoles: {}\n", 2, 1, "unknown key 'Roles' in the policy; did you mean 'roles'?"),
        ("version: 1\nxyz: 1\n", 2, 1, "unknown key 'xyz' in the policy; the policy may have roles, version"),
        ("version: 1\ndeny: []\n", 2, 1, "unknown key 'deny' in the policy; the policy may have roles, version"),
        (role_with("    permision: []"), 4, 5, "unknown key 'permision' in role 'r'; did you mean 'permissions'?"),
        (role_with("    scope: {instance: {}}"), 4, 13, "unknown key 'instance' in a scope; did you mean 'instances'?"),
        (role_with("    scope: {nodes: {}}"), 4, 13, "unknown key 'nodes' in a scope; a scope may have instances"),
        (
            role_with("    scope: {instances: {nam: a}}"),
            4,
            25,
            "unknown key 'nam' in a selector; did you mean 'name'?",
        ),
        (
            role_with("    scope: {instances: {tag: a}}"),
            4,
            25,
            "unknown key 'tag' in a selector; a selector may have name",
        ),
        ("version: 1\nversion: 1\n", 2, 1, "key 'version' stands twice in the policy"),
        (
            "version: 1\nroles:\n  r: {permissions: [tags.set]}\n  r: {permissions: [tags.get]}\n",
            4,
            3,
            "key 'r' stands twice",
        ),
        (role_with("    description: x\n    description: y"), 5, 5, "key 'description' stands twice in role 'r'"),
        (role_with("    scope: {instances: {name: a}, instances: {name: '*'}}"), 4, 35, "key 'instances' stands twice"),
        ("version: 1\n5: x\n", 2, 1, "a key of the policy must be a text: put it into quotes, '5'"),
        ("version: 1\n? [a]\n: x\n", 2, 3, "a key of the policy must be a text"),
        ("version: 1\n'': x\n", 2, 1, "a key of the policy must be a text"),
        # version
        ("roles: {}\n", 1, 1, "the policy lacks `version: 1`"),
        ("version: 2\n", 1, 10, "write `version: 1`"),
        ("version: '1'\n", 1, 10, "write `version: 1`"),
        ("version: 1.0\n", 1, 10, "write `version: 1`"),
        ("version: 01\n", 1, 10, "write `version: 1`"),
        ("version:\n", 1, 9, "write `version: 1`"),
        ("version: [1]\n", 1, 10, "write `version: 1`"),
        ("version: true\n", 1, 10, "write `version: 1`"),
        # types
        ("- version: 1\n", 1, 1, "the policy must be a mapping"),
        ("version 1\n", 1, 1, "the policy must be a mapping"),
        ("null\n", 1, 1, "the policy must be a mapping"),
        ("version: 1\nroles:\n", 2, 7, "roles must be a mapping"),
        ("version: 1\nroles: []\n", 2, 8, "roles must be a mapping"),
        ("version: 1\nroles: r\n", 2, 8, "roles must be a mapping"),
        ("version: 1\nroles:\n  r:\n", 3, 5, "role 'r' must be a mapping"),
        ("version: 1\nroles:\n  r: [tags.set]\n", 3, 6, "role 'r' must be a mapping"),
        ("version: 1\nroles:\n  r: {}\n", 3, 6, "role 'r' lacks `permissions`"),
        ("version: 1\nroles:\n  r: {permissions: tags.set}\n", 3, 20, "must be a list that is not empty"),
        ("version: 1\nroles:\n  r: {permissions: []}\n", 3, 20, "must be a list that is not empty"),
        ("version: 1\nroles:\n  r: {permissions: {tags.set: x}}\n", 3, 20, "must be a list that is not empty"),
        ("version: 1\nroles:\n  r: {permissions: }\n", 3, 19, "must be a list that is not empty"),
        ("version: 1\nroles:\n  r: {permissions: [5]}\n", 3, 21, "a permission of role 'r' must be a text"),
        ("version: 1\nroles:\n  r: {permissions: [[tags.set]]}\n", 3, 21, "a permission of role 'r' must be a text"),
        ("version: 1\nroles:\n  r: {permissions: ['']}\n", 3, 21, "a permission of role 'r' must be a text"),
        ("version: 1\nroles:\n  r: {permissions: [null]}\n", 3, 21, "a permission of role 'r' must be a text"),
        (role_with("    description: 5"), 4, 18, "the description of role 'r' must be a text: put it into quotes, '5'"),
        (role_with("    description: [x]"), 4, 18, "the description of role 'r' must be a text"),
        (role_with("    scope:"), 4, 11, "a scope must be a mapping"),
        (role_with("    scope: all"), 4, 12, "a scope must be a mapping"),
        (role_with("    scope: []"), 4, 12, "a scope must be a mapping"),
        (role_with("    scope: {instances: }"), 4, 23, "a selector must be a mapping"),
        (role_with("    scope: {instances: '*'}"), 4, 24, "a selector must be a mapping"),
        (role_with("    scope: {instances: []}"), 4, 24, "must be a list that is not empty"),
        (role_with("    scope: {instances: {}}"), 4, 24, "a selector needs a `name`"),
        (role_with("    scope: {instances: {name: }}"), 4, 30, "a name pattern must be a text"),
        (role_with("    scope: {instances: {name: []}}"), 4, 31, "must be a list that is not empty"),
        (
            role_with("    scope: {instances: {name: 5}}"),
            4,
            31,
            "a name pattern must be a text: put it into quotes, '5'",
        ),
        (role_with("    scope: {instances: {name: {a: b}}}"), 4, 31, "a name pattern must be a text"),
        (role_with("    scope: {instances: {name: [[a]]}}"), 4, 32, "a name pattern must be a text"),
        # role names
        ("version: 1\nroles:\n  on: {permissions: [tags.set]}\n", 3, 3, "must be a text: put it into quotes, 'on'"),
        ("version: 1\nroles:\n  yes: {permissions: [tags.set]}\n", 3, 3, "must be a text: put it into quotes, 'yes'"),
        ("version: 1\nroles:\n  5: {permissions: [tags.set]}\n", 3, 3, "must be a text: put it into quotes, '5'"),
        ("version: 1\nroles:\n  null: {permissions: [tags.set]}\n", 3, 3, "must be a text: put it into quotes, 'null'"),
        ("version: 1\nroles:\n  2026-11-22: {permissions: [tags.set]}\n", 3, 3, "put it into quotes, '2026-11-22'"),
        ("version: 1\nroles:\n  admin: {permissions: [tags.set]}\n", 3, 3, "'admin' is a built-in role"),
        ("version: 1\nroles:\n  node_write: {permissions: [tags.set]}\n", 3, 3, "'node_write' is a built-in role"),
        ("version: 1\nroles:\n  a b: {permissions: [tags.set]}\n", 3, 3, "'a b' cannot be written in the users file"),
        ("version: 1\nroles:\n  '@a': {permissions: [tags.set]}\n", 3, 3, "'@a' cannot be written in the users file"),
        ("version: 1\nroles:\n  'a,b': {permissions: [tags.set]}\n", 3, 3, "'a,b' cannot be written in the users file"),
        # permissions
        (
            "version: 1\nroles:\n  r:\n    permissions:\n      - tags.set\n      - instances.rebot\n",
            6,
            9,
            "unknown permission 'instances.rebot'; did you mean 'instances.reboot'?",
        ),
        (
            "version: 1\nroles: {r: {permissions: [Tags.set]}}",
            2,
            27,
            "unknown permission 'Tags.set'; did you mean 'tags.set'?",
        ),
        (
            "version: 1\nroles: {r: {permissions: [+tags.set]}}",
            2,
            27,
            "unknown permission '+tags.set'; did you mean 'tags.set'?",
        ),
        ("version: 1\nroles: {r: {permissions: ['*']}}", 2, 27, "unknown permission '*'"),
        ("version: 1\nroles: {r: {permissions: [operator]}}", 2, 27, "unknown permission 'operator'"),
        (
            "version: 1\nroles: {r: {permissions: ['@oparator']}}",
            2,
            27,
            "unknown built-in role '@oparator'; did you mean '@operator'?",
        ),
        (
            "version: 1\nroles: {a: {permissions: [tags.set]}, r: {permissions: ['@a']}}",
            2,
            57,
            "unknown built-in role '@a'",
        ),
        ("version: 1\nroles: {r: {permissions: ['@']}}", 2, 27, "unknown built-in role '@'"),
        ("version: 1\nroles: {r: {permissions: ['@node_write']}}", 2, 27, "name it in the users file instead"),
        ("version: 1\nroles: {r: {permissions: ['@instance_write']}}", 2, 27, "name it in the users file instead"),
        # names of a scope
        (role_with("    scope: {instances: {name: '*.Test'}}"), 4, 31, "the name pattern '*.Test' can match nothing"),
        (role_with("    scope: {instances: {name: [a, 'b c']}}"), 4, 35, "the name pattern 'b c' can match nothing"),
        (role_with("    scope: {instances: {name: '[ab]'}}"), 4, 31, "the name pattern '[ab]' can match nothing"),
        (role_with("    scope: {instances: {name: ^.*$}}"), 4, 31, "the name pattern '^.*$' can match nothing"),
        (role_with('    scope: {instances: {name: "a\\n"}}'), 4, 31, "can match nothing"),
        (role_with("    scope: {instances: {name: 'ſ*'}}"), 4, 31, "can match nothing"),
        # YAML
        ("version: 1\nroles:\n\tr: {}\n", 3, 1, "use spaces, not tabs"),
        ("version: 1\nroles:\n  r:\n\t  permissions: [tags.set]\n", 4, 1, "use spaces, not tabs"),
        ("version: &v 1\n", 1, 10, "anchors and aliases are not allowed (v)"),
        ("version: 1\nroles: &all {}\n", 2, 8, "anchors and aliases are not allowed (all)"),
        ("version: 1\nroles: {? &k r : {permissions: [tags.set]}}\n", 2, 11, "anchors and aliases are not allowed (k)"),
        ("version: 1\nroles: *all\n", 2, 8, "anchors and aliases are not allowed (all)"),
        ("version: 1\nroles:\n  <<: {permissions: [tags.set]}\n", 3, 3, "a key of roles must be a text"),
        ("version: 1\nroles: !!python/object/apply:os.system [id]\n", 2, 8, "roles must be a mapping"),
        ("version: 1\nroles: !mine {}\n", 2, 8, "roles must be a mapping"),
        ("version: 1\nroles: {r: {permissions: !mine [tags.set]}}\n", 2, 26, "must be a list that is not empty"),
        ("version: 1\nroles: {r: {permissions: [!mine tags.set]}}\n", 2, 27, "must be a text"),
        ("version: !!int '1'\nroles: !!omap []\n", 2, 8, "roles must be a mapping"),
        ("version: 1\n---\nversion: 1\n", 2, 1, "but found another document"),
        ("version: 1\nroles: {\n", 3, 1, "expected"),
        ("version: 1\n  roles: {}\n", 2, 8, "mapping values are not allowed here"),
        ("version: 1\nroles: [}\n", 2, 9, "expected"),
        ("version: 1\nroles: 'x\n", 3, 1, "unexpected end of stream"),
        ("version: 1\nroles: %x\n", 2, 8, "cannot start any token"),
        ("%YAML 9.0\n---\nversion: 1\n", 1, 1, "incompatible YAML document"),
        ("version: 1\nroles: !x!y {}\n", 2, 8, "undefined tag handle"),
        ("", 1, 1, "the file is empty"),
        ("\n\n", 1, 1, "the file is empty"),
        ("# nothing yet\n", 1, 1, "the file is empty"),
        ("---\n", 2, 1, "the policy must be a mapping"),
    ],
)
def test_a_bad_one_is_told_with_its_place(text: str, line: int, column: int, message: str) -> None:
    found = complaints(text)
    assert [(at, where) for at, where, what in found if message in what] == [(line, column)], found


@pytest.mark.parametrize(
    ("data", "line", "column", "message"),
    [
        (b"version: 1\nroles: {\xff}\n", 2, 9, "not UTF-8"),
        (b"\xff", 1, 1, "not UTF-8"),
        ("version: 1\n# ü".encode("latin-1"), 2, 3, "not UTF-8"),
        ("version: 1\n".encode("utf-16"), 1, 1, "not UTF-8"),
        (b"version: 1\n# \xed\xa0\x80\n", 2, 3, "not UTF-8"),
        (b"version: 1\nroles: {\x00}\n", 2, 9, "is not allowed"),
        (b"\x00", 1, 1, "is not allowed"),
        (b"version: 1\n\x07\n", 2, 1, "is not allowed"),
        (b"version: 1\x1b[0m\n", 1, 11, "is not allowed"),
    ],
)
def test_bytes_that_are_no_text(data: bytes, line: int, column: int, message: str) -> None:
    ((at, where, what),) = complaints(data)
    assert (at, where) == (line, column)
    assert message in what


def test_a_character_that_is_not_allowed_is_shown() -> None:
    ((_, _, what),) = complaints(b"version: 1\n\x07\n")
    assert "\\x07" in what


@pytest.mark.parametrize(
    "text",
    ["[" * 500, "[" * 500 + "]" * 500, "{a: " * 500 + "1" + "}" * 500, "- " * 500, "version: " + "[" * 500 + "]" * 500],
    ids=["open lists", "lists", "mappings", "block lists", "a value"],
)
def test_deep_nesting(text: str) -> None:
    assert complaints(text)


def test_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "MAX_SIZE", len(GOOD))
    assert load(GOOD).roles
    assert complaints(GOOD + "\n") == [(1, 1, f"the file is larger than {len(GOOD)} bytes")]


@pytest.mark.parametrize(
    "text",
    [
        'version: 1\nroles: {"\\UFFFFFFFF": {permissions: [tags.set]}}\n',
        "%YAML 1." + "1" * 5000 + "\n---\nversion: 1\n",
    ],
    ids=["a character beyond Unicode", "a number too long"],
)
def test_what_yaml_itself_stumbles_over(text: str) -> None:
    assert complaints(text)


@pytest.mark.parametrize("name", sorted(NEVER_SCOPED))
def test_what_cannot_be_scoped(name: str) -> None:
    text = f"version: 1\nroles:\n  r:\n    permissions: [{name}]\n"
    assert load(text).roles["r"].permissions == {name}
    ((line, column, message),) = complaints(text + "    scope: {instances: {name: a}}\n")
    assert (line, column) == (4, 19)
    assert f"{name} cannot be limited to some objects" in message
    assert complaints(text + "    scope: {}\n")


@pytest.mark.parametrize("name", ["admin", "readonly", "operator", "instance_write"])
def test_a_builtin_role_within_a_scope_loses_what_cannot_be_limited(name: str) -> None:
    role = load(f"version: 1\nroles: {{r: {{permissions: ['@{name}'], scope: {{instances: {{name: a}}}}}}}}").roles["r"]
    assert role.permissions == BUILTIN_ROLES[name] & SCOPED_SO_FAR
    assert role.permissions.isdisjoint(NEVER_SCOPED)


@pytest.mark.parametrize("name", ["node_write", "group_write", "network_write"])
def test_another_kinds_role_within_a_scope(name: str) -> None:
    ((_, _, message),) = complaints(f"version: 1\nroles: {{r: {{permissions: ['@{name}'], scope: {{}}}}}}")
    assert "name it in the users file instead" in message


def test_all_problems_are_told_in_the_files_order() -> None:
    found = complaints("version: 2\nrols: {}\nroles:\n  r: {permissions: [x], scope: {instances: {name: A}}}\n")
    assert [line for line, _, _ in found] == [1, 2, 4, 4]
    assert found == sorted(found)


def test_the_error_is_one_line_that_names_the_file_and_the_first_problem() -> None:
    with pytest.raises(PolicyError) as caught:
        load("version: 2\nrols: {}\n")
    assert isinstance(caught.value, ExtError)
    assert str(caught.value) == (
        "policy.yaml: line 1, column 10: this ganeti-ext reads policies of version 1: write `version: 1` (and 1 more)"
    )


#: Texts that are nearly policies.
WORDS = st.sampled_from(
    [
        "version",
        "roles",
        "r",
        "permissions",
        "scope",
        "instances",
        "name",
        "description",
        "1",
        "2",
        "on",
        "null",
        "tags.set",
        "tags.sot",
        "@admin",
        "@x",
        "*.test",
        "A",
        "''",
        '"\\n"',
        "&",
        "*",
        "!",
        "|",
        ">",
        "-",
        "?",
        ":",
        "{",
        "}",
        "[",
        "]",
        ",",
        "#",
        "%",
        "@",
        "`",
        "\t",
        "\n",
        "",
        "\x00",
        "\ufeff",
        "~",
        "<<",
        "=",
        "0x1",
        "1e3",
        "2026-01-01",
        "&a",
        "*a",
        "!!str",
        "!!set",
    ]
)


@given(st.lists(st.one_of(WORDS, st.just(": "), st.just("\n  "), st.just("\n")), max_size=25).map("".join))
def test_a_policy_that_is_returned_is_right_and_all_else_is_a_policy_error(text: str) -> None:
    try:
        policy = load(text)
    except PolicyError as err:
        assert err.problems
        assert "\n" not in str(err)
    else:
        plain = yaml.safe_load(text)
        assert plain["version"] == 1
        assert list(policy.roles) == list(plain.get("roles") or {})


@given(st.binary(max_size=60))
def test_any_bytes_are_a_policy_or_a_policy_error(data: bytes) -> None:
    try:
        load_policy(data, "policy.yaml")
    except PolicyError as err:
        assert err.problems


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.sampled_from([*PERMISSIONS][:5]), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["version", "roles", "r", "permissions", "scope", "instances", "name", "x"]),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=8,
)


@given(VALUES)
def test_any_value_is_a_policy_or_a_policy_error(value: object) -> None:
    for text in (yaml.safe_dump(value), yaml.safe_dump({"version": 1, "roles": {"r": value}})):
        try:
            policy = load(text)
        except PolicyError as err:
            assert err.problems
        else:
            for role in policy.roles.values():
                assert role.permissions <= PERMISSIONS.keys()
                assert role.scope is None or role.permissions <= SCOPED_SO_FAR
