# SPDX-License-Identifier: BSD-2-Clause
"""Names have one spelling, patterns are anchored, and a scope holds what it lists."""

from __future__ import annotations

import fnmatch
import string
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganeti_ext.policy.model import BUILTIN, Glob, NameSelector, PredicateSelector, Role, Scope, is_exact_name

LABELS = st.from_regex(r"[a-z0-9]([a-z0-9_-]{0,5}[a-z0-9])?", fullmatch=True)
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
PATTERNS = st.text(alphabet="ab1*?.-_", min_size=1, max_size=10)


@pytest.mark.parametrize("name", ["a", "web1", "web1.test.example.com", "a_b", "1", "a-b.c", "a" * 63, "a.b" * 60])
def test_exact(name: str) -> None:
    assert is_exact_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "A",
        "Web1.test.example.com",
        "-a",
        "a-",
        "_a",
        "a.-b",
        "a b",
        " a",
        "a\n",
        "a\n.b",
        "a\0",
        "a/b",
        "../a",
        "..",
        "*",
        "a*",
        "a?",
        "a;b",
        "a%2eb",
        "ﬁ",
        "ſ",
        "K",
        "ı",
        "é",
        "a\u200b",
        "a。b",
        "１",
        "٣",
        "a" * 64,
        "a." * 127 + "a",
        None,
        5,
        b"a",
        ["a"],
        True,
    ],
)
def test_not_exact(name: object) -> None:
    assert not is_exact_name(name)


@given(st.text())
def test_an_exact_name_is_what_every_expansion_leaves_alone(text: str) -> None:
    if is_exact_name(text):
        assert text == text.lower() == text.casefold() == text.strip() == unicodedata.normalize("NFKC", text)
        assert text.isascii()


@given(NAMES, st.sampled_from(string.ascii_uppercase + "ſKıİéß。．/ \n\0*?"), st.integers(0, 30))
def test_one_other_character_makes_a_name_inexact(name: str, other: str, place: int) -> None:
    assert is_exact_name(name)
    place %= len(name) + 1
    assert not is_exact_name(name[:place] + other + name[place:])


@given(PATTERNS, NAMES)
def test_a_glob_matches_as_the_shells(pattern: str, name: str) -> None:
    assert Glob(pattern).matches(name) == fnmatch.fnmatchcase(name, pattern)


@given(NAMES)
def test_a_name_as_a_glob_matches_itself_alone(name: str) -> None:
    assert Glob(name).matches(name)
    assert not Glob(name).matches(name + "x")
    assert not Glob(name).matches("x" + name)
    assert not Glob(name).matches(name.replace(".", "x")) or "." not in name


@pytest.mark.parametrize("name", ["web1.test.example.com", "a.b.test.example.com"])
def test_a_star_crosses_dots(name: str) -> None:
    assert Glob("*.test.example.com").matches(name)


@pytest.mark.parametrize(
    "name",
    [
        "test.example.com",
        "web1.test.example.com.victim.org",
        "web1.test.example.comx",
        "web1xtest.example.com",
        "web1.test.example.co",
        "eviltest.example.com",
    ],
)
def test_a_glob_is_anchored_and_its_dots_are_dots(name: str) -> None:
    assert not Glob("*.test.example.com").matches(name)


SCOPE = Scope((NameSelector((Glob("*.test.example.com"), Glob("db1.example.com"))),))


@pytest.mark.parametrize("name", ["web1.test.example.com", "db1.example.com"])
def test_inside(name: str) -> None:
    assert SCOPE.holds("instance", name)


@pytest.mark.parametrize("name", ["", "db1", "db1.example.com.", "WEB1.test.example.com", "-.test.example.com"])
def test_outside(name: str) -> None:
    assert not SCOPE.holds("instance", name)


@pytest.mark.parametrize("kind", ["node", "group", "network", "cluster", "filter", "query", "", "instances"])
def test_a_kind_that_a_scope_leaves_out_is_an_empty_set(kind: str) -> None:
    assert not SCOPE.holds(kind, "web1.test.example.com")
    assert not SCOPE.holds(kind, "")


def test_an_empty_scope_holds_no_object_but_jobs() -> None:
    assert not Scope().holds("instance", "web1.test.example.com")
    assert not Scope((NameSelector(()),)).holds("instance", "web1.test.example.com")
    assert Scope().holds("job", "7")


def test_a_predicate_must_say_true_itself() -> None:
    assert Scope((PredicateSelector(lambda name: True),)).holds("instance", "a")
    assert not Scope((PredicateSelector(lambda name: False),)).holds("instance", "a")
    truthy: object = "yes"
    assert not Scope((PredicateSelector(lambda name: truthy),)).holds("instance", "a")  # type: ignore[arg-type,return-value]


def test_a_predicate_is_asked_for_exact_names_only() -> None:
    def fail(name: str) -> bool:
        raise AssertionError(name)

    assert not Scope((PredicateSelector(fail),)).holds("instance", "Web1")


def test_an_unscoped_role_covers_everything_or_its_kind() -> None:
    assert Role("r", frozenset()).covers("node", "x")
    assert BUILTIN["node_write"].covers("node", "x")
    assert not BUILTIN["node_write"].covers("instance", "x")
    assert not BUILTIN["instance_write"].covers("cluster", "")


def test_roles_are_the_same_only_as_one_object() -> None:
    assert Role("r", frozenset({"tags.set"})) != Role("r", frozenset({"tags.set"}))
