# SPDX-License-Identifier: BSD-2-Clause
"""Names and the patterns that match them: `*`, `?` and `{user}`, anchored, nothing else."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

#: The name of an object as a limited role may write it: Ganeti expands short names,
#: ignores case and folds Unicode, each call in its own way (`threats.md`), so only the full
#: name in lower-case ASCII means an object, and a name that cannot be one means none.
_EXACT_NAME = re.compile(r"[a-z0-9]+(?:(?:[_-]+|\.)[a-z0-9]+)*")
MAX_NAME = 253
_MAX_LABEL = 63

USER = "{user}"

#: More would make it hard to say what a pattern means.
MAX_STARS = 4

#: The longest tag that Ganeti takes.
MAX_TAG = 128

#: What a pattern of the policy may hold, `{user}` aside: in a name, and in a tag (Ganeti's
#: own letters of a tag).
NAME_PATTERN = re.compile(r"[a-z0-9*?._-]+")
TAG_PATTERN = re.compile(r"[A-Za-z0-9_.+*?/:@-]+")

#: A user whose name `{user}` may stand for: one label in a name (design, 3.2); in a tag
#: nothing that is wild there, or that a policy would put between the parts of a tag.
USER_IN_NAME = re.compile("[a-z0-9-]+")
USER_IN_TAG = re.compile("[A-Za-z0-9_.@-]+")


def is_exact_name(name: object) -> bool:
    """Whether `name` is a full name in the one spelling that is decided on."""
    return isinstance(name, str) and len(name) <= MAX_NAME and _is_exact(name)


@functools.lru_cache(maxsize=4096)  # a cluster's names come again and again
def _is_exact(name: str) -> bool:
    if _EXACT_NAME.fullmatch(name) is None:
        return False
    return max(map(len, name.split("."))) <= _MAX_LABEL


def escaped(text: str) -> str:
    """A text as a regular expression, of PCRE and of POSIX: `re.escape` also escapes what POSIX knows not escaped."""
    return re.sub(r"[][(){}.*+?^$|\\]", r"\\\g<0>", text)


class Pattern:
    """A pattern: `*` stands for any characters, dots too, and `?` for one.

    Nearly all patterns are a text, a prefix or a suffix, which are compared as they are.
    """

    __slots__ = ("text", "per_user", "literal", "suffix", "_simple", "_head", "_tail", "_shortest")

    def __init__(self, text: str) -> None:
        self.text = text
        #: Whether it has to be bound to a user first: unbound, it matches nothing that is a name.
        self.per_user = USER in text
        self._head, star, self._tail = text.partition("*")
        self._shortest = len(text) - len(star)
        self._simple = "?" not in text and "*" not in self._tail
        #: Whether it means one text only.
        self.literal = self._simple and not star
        #: How a name has to end, if that is all: most patterns are such.
        self.suffix = self._tail if self._simple and star and not self._head else None

    def matches(self, name: str) -> bool:
        """Whether `name` is one of those that the pattern means."""
        if self.suffix is not None:
            return name.endswith(self.suffix)
        if self.literal:
            return name == self.text
        if self._simple:
            return name.endswith(self._tail) and name.startswith(self._head) and len(name) >= self._shortest
        return self._fits(name)

    def _fits(self, name: str) -> bool:
        """Takes each part between two stars where it first fits: no name takes long, as it could
        with a regular expression, which tries all places."""
        first, *middle = self.text.split("*")
        if not middle:
            return len(first) == len(name) and _is_at(first, name, 0)
        last = middle.pop()
        end = len(name) - len(last)
        if end < len(first) or not (_is_at(first, name, 0) and _is_at(last, name, end)):
            return False
        place = len(first)
        for part in middle:
            place = _find(part, name, place, end)
            if place < 0:
                return False
            place += len(part)
        return True

    @property
    def ending(self) -> str:
        """How each name ends that it means: the text after all that is wild."""
        return re.split(r"[*?]", self.text)[-1]

    @property
    def regex(self) -> str:
        """The pattern as a regular expression, of PCRE and of POSIX, to be anchored by whoever uses it."""
        wild = {"*": ".*", "?": "."}
        return "".join(wild.get(char) or escaped(char) for char in self.text)

    def bound(self, user: str) -> Pattern:
        """The pattern with the user's name in place of `{user}`."""
        return Pattern(self.text.replace(USER, user)) if self.per_user else self

    def anyone(self) -> Pattern:
        """The pattern for whatever user."""
        return Pattern(self.text.replace(USER, "*")) if self.per_user else self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pattern) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"Pattern({self.text!r})"


class Patterns(tuple[Pattern, ...]):
    """Many patterns as one: texts are looked up and suffixes compared at once, one by one only the others."""

    _texts: frozenset[str] = frozenset()
    _suffixes: tuple[str, ...] = ()
    _others: tuple[Pattern, ...] = ()

    def __new__(cls, patterns: Iterable[Pattern] = ()) -> Patterns:
        self = super().__new__(cls, dict.fromkeys(patterns))  # type: ignore[arg-type]  # each one once
        if not self:
            return self
        self._texts = frozenset(one.text for one in self if one.literal)
        self._suffixes = tuple(one.suffix for one in self if one.suffix is not None)
        self._others = tuple(one for one in self if not one.literal and one.suffix is None)
        return self

    def matches(self, name: str) -> bool:
        """Whether one of them matches."""
        if name.endswith(self._suffixes) or name in self._texts:
            return True
        for pattern in self._others:  # noqa: SIM110  any() takes longer, also where there are none
            if pattern.matches(name):
                return True
        return False


#: None at all.
NO_PATTERNS = Patterns()


def _is_at(part: str, name: str, place: int) -> bool:
    """Whether `name` goes on with `part` at a place, `?` being any one character."""
    if "?" not in part:
        return name.startswith(part, place)
    there = name[place : place + len(part)]
    return len(there) == len(part) and all(wanted in ("?", char) for wanted, char in zip(part, there))


def _find(part: str, name: str, place: int, end: int) -> int:
    """The first place from `place` on where `part` is in `name` before `end`; -1 if there is none."""
    if "?" not in part:
        return name.find(part, place, end)
    places = range(place, end - len(part) + 1)
    return next((start for start in places if _is_at(part, name, start)), -1)
