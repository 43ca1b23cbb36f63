# SPDX-License-Identifier: BSD-2-Clause
"""Names have one spelling, and patterns are anchored, bound to a user, and never slow."""

from __future__ import annotations

import fnmatch
import re
import string
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganeti_ext.policy.pattern import Pattern, Patterns, is_exact_name

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


@given(PATTERNS, st.text(alphabet="ab1.-_", max_size=12))
def test_a_pattern_matches_as_the_shells(pattern: str, name: str) -> None:
    expected = fnmatch.fnmatchcase(name, pattern)
    assert Pattern(pattern).matches(name) == expected
    assert (re.fullmatch(Pattern(pattern).regex, name) is not None) == expected
    assert Patterns([Pattern(pattern)]).matches(name) == expected


@given(st.lists(PATTERNS, max_size=5), NAMES)
def test_many_patterns_are_each_of_them(texts: list[str], name: str) -> None:
    patterns = [Pattern(text) for text in texts]
    assert Patterns(patterns).matches(name) == any(pattern.matches(name) for pattern in patterns)
    assert list(Patterns(patterns)) == list(dict.fromkeys(patterns))


def test_no_patterns_match_nothing() -> None:
    assert not Patterns()
    assert not Patterns().matches("")
    assert Patterns([Pattern("*")]).matches("")


@given(NAMES)
def test_a_name_as_a_pattern_matches_itself_alone(name: str) -> None:
    assert Pattern(name).literal
    assert Pattern(name).matches(name)
    assert not Pattern(name).matches(name + "x")
    assert not Pattern(name).matches("x" + name)
    assert not Pattern(name).matches(name.replace(".", "x")) or "." not in name


@pytest.mark.parametrize("name", ["web1.test.example.com", "a.b.test.example.com", ".test.example.com"])
def test_a_star_crosses_dots(name: str) -> None:
    assert Pattern("*.test.example.com").matches(name)


@pytest.mark.parametrize(
    "name",
    [
        "test.example.com",
        "web1.test.example.com.victim.org",
        "web1.test.example.comx",
        "web1.test.example.com\n",
        "web1xtest.example.com",
        "web1.test.example.co",
        "eviltest.example.com",
    ],
)
def test_a_pattern_is_anchored_and_its_dots_are_dots(name: str) -> None:
    assert not Pattern("*.test.example.com").matches(name)


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("a*b", "ab", True),
        ("ab*b", "ab", False),
        ("a*ba*", "aba", True),
        ("aba*aba", "aba", False),
        ("*a*", "bab", True),
        ("**", "", True),
        ("?", "a", True),
        ("?", "", False),
        ("?*", "a", True),
        ("*?b?*", "xaby", True),
        ("*?b?*", "b", False),
        ("a?c*e?g", "abcdefg", True),
        ("a?c*e?g", "abcefg", True),
        ("a?c*c?g", "abcg", False),
    ],
)
def test_parts_do_not_overlap(pattern: str, name: str, matches: bool) -> None:
    assert Pattern(pattern).matches(name) is matches


@pytest.mark.parametrize("pattern", ["*a*a*a*b", "*a?*a?*a?*b", "a*a*a*a*c"])
def test_no_name_is_slow_to_compare(pattern: str) -> None:
    start = time.process_time()
    assert not Pattern(pattern).matches("a" * 20000)
    assert time.process_time() - start < 2


def test_a_users_name_is_taken_literally() -> None:
    pattern = Pattern("*.{user}.example.com")
    assert pattern.per_user
    assert not pattern.matches("a.joe.example.com")
    assert pattern.bound("joe") == Pattern("*.joe.example.com")
    assert pattern.anyone() == Pattern("*.*.example.com")
    assert Pattern("a").bound("joe") == Pattern("a").anyone() == Pattern("a")


@given(st.text(alphabet="a1*?.{}", max_size=6), st.from_regex("[a-z0-9-]{1,4}", fullmatch=True), NAMES)
def test_a_bound_pattern_matches_nothing_that_it_does_not_for_anyone(text: str, user: str, name: str) -> None:
    pattern = Pattern(text + "{user}" + text[::-1])
    if pattern.bound(user).matches(name):
        assert pattern.anyone().matches(name)
    assert not pattern.matches(name)


def test_patterns_are_told_apart_by_their_text() -> None:
    assert Pattern("a") == Pattern("a") != Pattern("b")
    assert hash(Pattern("a")) == hash(Pattern("a"))
    assert Patterns([Pattern("a"), Pattern("a")]) == Patterns([Pattern("a")])
    assert repr(Pattern("a")) == "Pattern('a')"
