# SPDX-License-Identifier: BSD-2-Clause
"""Filters of luxid: a scope in its language, and what a user's own filter may hold.

Ganeti 3.0 has the regular expressions of PCRE, 3.1 those of POSIX: ours are of what both read alike. In
3.1 `^` and `$` are the ends of a line and not of the text, and in neither does `.` stand for a newline.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from ganeti_ext.errors import ExtError
from ganeti_ext.policy.model import Selector
from ganeti_ext.policy.pattern import Pattern, escaped, is_exact_name
from ganeti_ext.rapi.opcodes import is_plain

#: What a filter of a user may be at most: deep, and long.
_MAX_DEPTH = 20
_MAX_PARTS = 1000

#: Regular expressions of a filter: how many, and of each its length, repetitions and groups. PCRE tries
#: each way to match: a repetition more is as many times the work as the text has characters.
_MAX_EXPRESSIONS, _MAX_EXPRESSION, _MAX_REPETITIONS, _MAX_GROUPS = 5, 200, 2, 2
_REPETITION = re.compile(r"[*+{?]")
#: A group that is repeated, and what only PCRE has: references, conditions, recursion.
_COSTLY = re.compile(r"\)[*+?{]|\(\?|\\[1-9gk]|\(\*")

_OPERATORS_LOGIC = ("&", "|")
_OPERATORS_BINARY = ("=", "==", "!=", "<", ">", "<=", ">=", "=~", "=[]")


#: Lets nothing through: every name has a beginning. (An empty expression is none in 3.1.)
NOTHING: list[Any] = ["!", ["=~", "name", "^"]]

_ONE_LINE: list[Any] = ["!", ["=~", "name", "\n"]]

#: `pattern.is_exact_name` as conditions.
_EXACT_NAME: list[list[Any]] = [
    _ONE_LINE,
    ["=~", "name", r"^[a-z0-9]+(([_-]+|\.)[a-z0-9]+)*$"],
    ["!", ["=~", "name", ".{254}|[^.]{64}"]],
]


class BadFilter(ExtError):
    """A filter that luxid could not read, or that names what its user may not see."""


class Filter(NamedTuple):
    """A filter for luxid (None lets all through), and whether it lets through just what it should.

    One that does not lets through more, never less: what comes back is looked at again.
    """

    filter: list[Any] | None
    exact: bool


def of_selectors(kind: str, selectors: Sequence[Selector], any_name: bool = False) -> Filter:
    """The filter for objects of a kind that one of some selectors picks.

    A scope holds objects with an exact name alone, a deny those of `any_name`; where it need not be told
    exactly, a scope can be, too.
    """
    parts = [_of_selector(kind, selector, any_name) for selector in selectors]
    if any(part.filter is None for part in parts):
        return Filter(None, any(part.exact for part in parts if part.filter is None))
    if not parts:
        return Filter(NOTHING, True)
    exact = all(part.exact for part in parts)
    return Filter(parts[0].filter if len(parts) == 1 else ["|", *(part.filter for part in parts)], exact)


def _of_selector(kind: str, selector: Selector, any_name: bool) -> Filter:
    parts: list[list[Any]] = []
    exact = selector.inside is None
    if selector.tag:
        if all(pattern.literal for pattern in selector.tag):
            parts.append(_either([["=[]", "tags", pattern.text] for pattern in selector.tag]))
        else:
            exact = False  # luxid knows no patterns for what is in a list
    if selector.group and kind in ("instance", "node"):
        parts.append(_matches("pnode.group" if kind == "instance" else "group", selector.group))
        exact = exact and kind == "node"  # an instance's other nodes must be inside, too
    elif selector.group and kind == "group":
        parts.append(_matches("name", selector.group))
    elif selector.group:
        exact = False  # luxid cannot look into the connections of a network
    if selector.name:
        parts.insert(0, _matches("name", selector.name))
    if not any_name:
        literal = selector.name and all(pattern.literal and is_exact_name(pattern.text) for pattern in selector.name)
        parts += [_ONE_LINE] if literal else _EXACT_NAME
    if not parts:
        return Filter(None, exact)
    return Filter(parts[0] if len(parts) == 1 else ["&", *parts], exact)


def _either(parts: list[list[Any]]) -> list[Any]:
    return parts[0] if len(parts) == 1 else ["|", *parts]


def _matches(name: str, patterns: Sequence[Pattern]) -> list[Any]:
    """A field matches one of some patterns: one expression, anchored (`facts.md`)."""
    return ["=~", name, f"^({'|'.join(pattern.regex for pattern in patterns)})$"]


def of_names(names: Iterable[str]) -> list[Any]:
    """A filter for exactly these names: one expression, since a long OR costs luxid more. None of several lines."""
    return ["&", ["=~", "name", f"^({'|'.join(map(escaped, names))})$"], _ONE_LINE]


def check(qfilter: Any, allowed: Callable[[str], bool]) -> None:
    """Checks a user's own filter: its form, and that each field in it is one of the `allowed`.

    Luxid would say of a wrong one what it found in somebody's row (`threats.md`). While it matches a
    regular expression it does nothing else, and one that goes too far leaves the request without an answer.

    Raises BadFilter.
    """
    count = 0
    expressions = 0

    def walk(part: Any, depth: int) -> None:
        nonlocal count, expressions
        count += 1
        if depth > _MAX_DEPTH or count > _MAX_PARTS:
            raise BadFilter("the filter is too large")
        if not isinstance(part, list) or not part or not isinstance(part[0], str):
            raise BadFilter("a filter is a list whose first entry is an operator")
        operator, operands = part[0], part[1:]
        if operator in _OPERATORS_LOGIC:
            for one in operands:
                walk(one, depth + 1)
            return
        if operator == "!" and len(operands) == 1:
            walk(operands[0], depth + 1)
            return
        if operator == "?" and len(operands) == 1:
            field = operands[0]
        elif operator in _OPERATORS_BINARY and len(operands) == 2:
            field, value = operands
            if not isinstance(value, (str, int, bool)) or not is_plain(value):
                raise BadFilter("a value of a filter is a text or a number")
            if operator == "=~":
                expressions += 1
                if expressions > _MAX_EXPRESSIONS or _is_costly(str(value)):
                    raise BadFilter("the filter's regular expressions cost too much")
        else:
            raise BadFilter(f"a filter has no operator {operator[:10]!r} with {len(operands)} operands")
        if not isinstance(field, str) or not is_plain(field):
            raise BadFilter("a field of a filter is a name")
        if not allowed(field):
            raise BadFilter(f"field {field[:60]} may not be used in a filter")

    walk(qfilter, 0)


def _is_costly(expression: str) -> bool:
    """Whether a regular expression could take long on some text."""
    return (
        len(expression) > _MAX_EXPRESSION
        or bool(_COSTLY.findall(expression))
        or len(_REPETITION.findall(expression)) > _MAX_REPETITIONS
        or expression.count("(") > _MAX_GROUPS
    )


def texts(value: Any) -> Iterator[str]:
    """All texts in a filter, whatever its form: every field that it names is one of them."""
    todo = [value]
    while todo:
        part = todo.pop()
        if isinstance(part, str):
            yield part
        elif isinstance(part, list):
            todo += part
