# SPDX-License-Identifier: BSD-2-Clause
"""Names and the patterns that match them: `*`, `?` and `{user}`, anchored, nothing else."""

from __future__ import annotations

import functools
import re

#: The name of an object as a limited role may write it: Ganeti expands short names,
#: ignores case and folds Unicode, each call in its own way (`threats.md`), so only the full
#: name in lower-case ASCII means an object, and a name that cannot be one means none.
_LABEL = "[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?"
_EXACT_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_MAX_NAME = 253

USER = "{user}"

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
    return isinstance(name, str) and len(name) <= _MAX_NAME and _EXACT_NAME.fullmatch(name) is not None


class Pattern:
    """A pattern: `*` stands for any characters, dots too, and `?` for one.

    Nearly all patterns are a text, a prefix or a suffix, which are compared as they are; an
    expression is compiled for the others alone, when they are first asked.
    """

    __slots__ = ("text", "per_user", "_head", "_tail", "_simple", "__dict__")

    def __init__(self, text: str) -> None:
        self.text = text
        self.per_user = USER in text
        head, star, tail = text.partition("*")
        self._simple = "?" not in text and "*" not in tail
        self._head, self._tail = (head, tail) if star else (text, None)

    def matches(self, name: str) -> bool:
        """Whether `name` is one of those that the pattern means.

        A pattern that holds `{user}` has to be bound first: unbound, it matches nothing that is
        a name.
        """
        if not self._simple:
            return self.regex.fullmatch(name) is not None
        if self._tail is None:
            return name == self._head
        return (
            name.endswith(self._tail) and name.startswith(self._head) and len(name) >= len(self._head) + len(self._tail)
        )

    @property
    def literal(self) -> bool:
        """Whether the pattern means one text only."""
        return self._simple and self._tail is None

    @functools.cached_property
    def regex(self) -> re.Pattern[str]:
        """The pattern as a regular expression, to be anchored by whoever uses it."""
        wild = {"*": ".*", "?": "."}
        return re.compile("".join(wild.get(char) or re.escape(char) for char in self.text), re.DOTALL)

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
