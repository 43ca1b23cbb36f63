# SPDX-License-Identifier: BSD-2-Clause
"""Luxid's language for a scope, and what a user may say in it.

That a filter and its selectors agree on a real luxid is told in `tests/cluster/test_filters.py`.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from ganeti import constants
from hypothesis import given
from hypothesis import strategies as st

from ganeti_ext.policy.model import Scope, Selector, Target
from ganeti_ext.policy.pattern import Pattern, Patterns, escaped, is_exact_name
from ganeti_ext.rapi.filters import NOTHING, BadFilter, Filter, check, of_names, of_selectors, texts
from ganeti_ext.rapi.lookup import RESOURCE, target_of
from tests.unit.rapi.fake import Cluster

ONE_LINE: list[Any] = ["!", ["=~", "name", "\n"]]
EXACT: list[Any] = [
    ONE_LINE,
    ["=~", "name", r"^[a-z0-9]+(([_-]+|\.)[a-z0-9]+)*$"],
    ["!", ["=~", "name", ".{254}|[^.]{64}"]],
]


def named(expression: str, name: str = "name") -> list[Any]:
    return ["=~", name, expression]


def some(*words: str) -> Patterns:
    return Patterns(map(Pattern, words))


@pytest.mark.parametrize(
    ("kind", "selectors", "found"),
    [
        ("instance", (), Filter(["!", ["=~", "name", "^"]], True)),
        ("instance", (Selector(),), Filter(["&", *EXACT], True)),
        ("instance", (Selector(some("a.b", "c")),), Filter(["&", named(r"^(a\.b|c)$"), ONE_LINE], True)),
        ("instance", (Selector(some("*.b?")),), Filter(["&", named(r"^(.*\.b.)$"), *EXACT], True)),
        ("instance", (Selector(some("web-")),), Filter(["&", named("^(web-)$"), *EXACT], True)),
        ("instance", (Selector(tag=some("a*")),), Filter(["&", *EXACT], False)),
        (
            "instance",
            (Selector(some("a"), some("x", "y")),),
            Filter(["&", named("^(a)$"), ["|", ["=[]", "tags", "x"], ["=[]", "tags", "y"]], ONE_LINE], True),
        ),
        (
            "instance",
            (Selector(some("a"), group=some("g")),),
            Filter(["&", named("^(a)$"), named("^(g)$", "pnode.group"), ONE_LINE], False),
        ),
        (
            "node",
            (Selector(some("a"), group=some("g")),),
            Filter(["&", named("^(a)$"), named("^(g)$", "group"), ONE_LINE], True),
        ),
        (
            "group",
            (Selector(some("a"), group=some("g")),),
            Filter(["&", named("^(a)$"), named("^(g)$"), ONE_LINE], True),
        ),
        ("network", (Selector(some("a"), group=some("g")),), Filter(["&", named("^(a)$"), ONE_LINE], False)),
        (
            "instance",
            (Selector(some("a")), Selector(some("b"))),
            Filter(["|", ["&", named("^(a)$"), ONE_LINE], ["&", named("^(b)$"), ONE_LINE]], True),
        ),
        ("instance", (Selector(some("a"), inside=bool),), Filter(["&", named("^(a)$"), ONE_LINE], False)),
    ],
    ids=str,
)
def test_selectors_of_a_scope(kind: str, selectors: tuple[Selector, ...], found: Filter) -> None:
    assert of_selectors(kind, selectors) == found


@pytest.mark.parametrize(
    ("selectors", "found"),
    [
        ((), Filter(NOTHING, True)),
        ((Selector(),), Filter(None, True)),
        ((Selector(tag=some("a*")),), Filter(None, False)),
        ((Selector(tag=some("a*")), Selector()), Filter(None, True)),
        ((Selector(some("*.b")),), Filter(named(r"^(.*\.b)$"), True)),
        ((Selector(tag=some("x")), Selector()), Filter(None, True)),
        ((Selector(tag=some("x")), Selector(tag=some("a*"))), Filter(None, False)),
    ],
    ids=str,
)
def test_selectors_of_a_deny_are_about_any_name(selectors: tuple[Selector, ...], found: Filter) -> None:
    assert of_selectors("instance", selectors, any_name=True) == found


NAMES = st.one_of(
    st.text(alphabet="ab0.-_A", max_size=9),
    st.sampled_from(
        [
            "a" * 63,
            "a" * 64,
            "a." + "b" * 63,
            "b" * 64 + ".a",
            ".".join(["a" * 63] * 4),
            "ab." * 84 + "a",
            "ab." * 84 + "ab",
            "a\n",
            "a\nb",
            "\na",
        ]
    ),
)


def passes(condition: list[Any], name: str) -> bool:
    """What luxid makes of a condition; of Ganeti 3.1 `multiline` is so."""
    if condition[0] == "!":
        return not passes(condition[1], name)
    return re.search(condition[2], name, re.MULTILINE) is not None


@given(NAMES)
def test_the_conditions_are_an_exact_name(name: str) -> None:
    assert all(passes(one, name) for one in EXACT) == is_exact_name(name)


@given(st.text(max_size=9))
def test_an_escaped_text_matches_itself_alone(text: str) -> None:
    assert re.fullmatch(escaped(text), text)
    assert not re.fullmatch(escaped(text), text + "x")
    for part in ("a.b", "a-b", "a+b", "(a)", "a|b", "[a]", "a{2}", "^a$", "\\a"):
        assert re.fullmatch(escaped(part), part) and not re.fullmatch(escaped(part), part.replace("a", "c"))


# The filter and the selector agree; here with a luxid of our own.

WORD = st.text(alphabet="ab.*?-", min_size=1, max_size=5).filter(lambda text: text.count("*") <= 4)
PATTERNS = st.lists(WORD.map(Pattern), max_size=2).map(Patterns)
SELECTORS = st.lists(
    st.builds(
        Selector,
        PATTERNS,
        st.lists(st.sampled_from(["x", "y", "x*", "?"]).map(Pattern), max_size=2).map(Patterns),
        st.lists(st.sampled_from(["group1", "group2", "group*"]).map(Pattern), max_size=1).map(Patterns),
    ),
    max_size=3,
)


def populated() -> Cluster:
    cluster = Cluster({})
    cluster.add("group", "group2", tags=("x",))
    cluster.add("group", "A")
    cluster.add("node", "node2.example.com", group="group2", tags=("x", "y"))
    cluster.add("node", "a.b", group="group2")
    for name in ("a", "b", "ab", "a.b", "b.a.b", "a-b", "-a", "a-", "a.b-", "aa.bb"):
        cluster.add("network", name, tags=("y",) if "." in name else (), groups=("group1", "group2")[: len(name) % 3])
        for place, nodes in enumerate((("node1.example.com",), ("a.b",), ("node1.example.com", "a.b"), ())):
            tags = [("x",), ("x", "y"), (), ("xy",)][place]
            cluster.add(
                "instance", f"{name}{place}" if name != "a-" else f"{name}" * (place + 1), nodes=nodes, tags=tags
            )
    return cluster


CLUSTER = populated()


@pytest.mark.parametrize("kind", ["instance", "node", "group", "network"])
@given(selectors=SELECTORS)
def test_a_filter_lets_through_what_the_scope_holds(kind: str, selectors: list[Selector]) -> None:
    scope = Scope(**{f"{kind}s": tuple(selectors)})
    found = of_selectors(kind, selectors)
    rows = CLUSTER.client()._rows(kind)
    values = {thing.name: CLUSTER.values(kind, thing) for thing in CLUSTER.things[kind].values()}
    seen = {name for name, row in values.items() if scope.holds(as_target(kind, row))}
    passed = {thing.name for thing in rows.matching(found.filter)}
    assert passed >= seen
    assert passed == seen or not found.exact


@pytest.mark.parametrize("kind", ["instance", "node", "group", "network"])
@given(selectors=SELECTORS)
def test_a_filter_lets_through_what_a_deny_matches(kind: str, selectors: list[Selector]) -> None:
    found = of_selectors(kind, selectors, any_name=True)
    if any(selector.group for selector in selectors):
        return  # what could be in a group is asked in Python
    rows = CLUSTER.client()._rows(kind)
    values = {thing.name: CLUSTER.values(kind, thing) for thing in CLUSTER.things[kind].values()}
    hidden = {name for name, row in values.items() if any(one.may_match(as_target(kind, row)) for one in selectors)}
    passed = {thing.name for thing in rows.matching(found.filter)}
    assert passed >= hidden
    assert passed == hidden or not found.exact


def as_target(kind: str, row: dict[str, Any]) -> Target:
    plain = {name: None if isinstance(value, tuple) else value for name, value in row.items()}
    fields = {"instance": ["pnode.group", "snodes.group"], "node": ["group"], "network": ["group_list"]}.get(kind, [])
    return target_of(kind, [plain.get(name) for name in ("name", "uuid", "tags", *fields)])


def test_a_filter_of_names_is_one_expression() -> None:
    assert of_names(["a.b", "c"]) == ["&", named(r"^(a\.b|c)$"), ONE_LINE]
    assert set(RESOURCE.values()) <= constants.QR_VIA_LUXI


# A user's own.


@pytest.mark.parametrize(
    "qfilter",
    [
        ["=", "name", "a"],
        ["==", "name", "a"],
        ["!=", "name", 5],
        ["<", "name", 5],
        [">=", "name", True],
        ["=~", "name", "a.*"],
        ["=[]", "name", ""],
        ["?", "name"],
        ["!", ["?", "name"]],
        ["&"],
        ["|", ["?", "name"], ["&", ["?", "name"]]],
        ["|", *[["?", "name"]] * 998],
    ],
    ids=lambda one: str(one)[:40],
)
def test_a_filter(qfilter: Any) -> None:
    check(qfilter, lambda field: field == "name")


def deep(count: int) -> Any:
    found: Any = ["?", "name"]
    for _ in range(count):
        found = ["!", found]
    return found


@pytest.mark.parametrize(
    "qfilter",
    [
        [],
        {},
        5,
        "name",
        [[]],
        [5, "name"],
        [None],
        ["?"],
        ["?", "name", 1],
        ["!"],
        ["!", ["?", "name"], ["?", "name"]],
        ["!", "name"],
        ["&", "name"],
        ["|", None],
        ["=", "name"],
        ["=", "name", "a", "b"],
        ["=", "name", None],
        ["=", "name", 1.5],
        ["=", "name", ["a"]],
        ["=", "name", {}],
        ["=", "name", "\u00e4"],
        ["=", ["name"], "a"],
        ["=", 5, "a"],
        ["=", "n\u00e4me", "a"],
        ["~", "name", "a"],
        ["=*", "name", "a"],
        ["x" * 1000, "name", "a"],
        deep(21),
        ["|", *[["?", "name"]] * 1000],
        ["&", ["|"], ["|"], ["=", "name", "a"], ["?", "other"]],
    ],
    ids=lambda one: str(one)[:40],
)
def test_what_is_no_filter(qfilter: Any) -> None:
    with pytest.raises(BadFilter) as caught:
        check(qfilter, lambda field: field in ("name", "n\u00e4me"))
    assert len(str(caught.value)) < 120


def test_how_deep_a_filter_may_be() -> None:
    check(deep(20), lambda field: True)


@pytest.mark.parametrize("place", range(3))
def test_each_field_is_asked_for(place: int) -> None:
    fields = ["a", "b", "c"]
    qfilter = ["&", ["=", "a", 1], ["!", ["?", "b"]], ["|", ["=[]", "c", "d"]]]
    allowed = [field for number, field in enumerate(fields) if number != place]
    check(qfilter, lambda field: field in fields)
    with pytest.raises(BadFilter, match=f"field {fields[place]} "):
        check(qfilter, lambda field: field in allowed)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=3), st.sampled_from(["&", "|", "!", "?", "="])),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=2), inner, max_size=2)),
    max_leaves=12,
)


@given(JSON)
def test_whatever_a_user_sends(qfilter: Any) -> None:
    fields: list[str] = []

    def allowed(field: str) -> bool:
        fields.append(field)
        return True

    try:
        check(qfilter, allowed)
    except BadFilter:
        return
    assert set(fields) <= set(texts(qfilter))


def test_all_texts_of_a_filter() -> None:
    assert sorted(texts(["&", ["=", "a", "b"], ["!", ["?", "c"]], 5, None])) == ["!", "&", "=", "?", "a", "b", "c"]
    assert list(texts(None)) == []
    assert list(texts({"a": 1})) == []
