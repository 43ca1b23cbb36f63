# SPDX-License-Identifier: BSD-2-Clause
"""YAML to plain values, strictly: each thing that is not right is noted with its place."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Any

import yaml

from ganeti_ext.errors import ExtError
from ganeti_ext.policy.accounts import nearest

#: Debian's python3-yaml brings libyaml's parser, ten times as fast. One parser reads a file,
#: never two: they could take it for two different things.
_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_STR = "tag:yaml.org,2002:str"
_INT = "tag:yaml.org,2002:int"
_BOOL = "tag:yaml.org,2002:bool"
_SEQ = "tag:yaml.org,2002:seq"
_MAP = "tag:yaml.org,2002:map"

#: A policy has eight levels.
_MAX_DEPTH = 20

#: Who has so many is told the first of them: looking for the nearest word takes time.
_MAX_PROBLEMS = 100

_NUMBER = re.compile("-?(?:0|[1-9][0-9]{0,14})")
_SIZE = re.compile("(0|[1-9][0-9]{0,8})([MGT])")
_MIB = {"M": 1, "G": 1024, "T": 1024 * 1024}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a policy; `line` and `column` count from 1."""

    line: int
    column: int
    message: str


class PolicyError(ExtError):
    """A policy that is not taken; `problems` holds what is wrong, in the file's order."""

    def __init__(self, source: str, problems: list[Problem]) -> None:
        self.source = source
        self.problems = sorted(problems, key=lambda problem: (problem.line, problem.column))
        first = self.problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(f"{source}: line {first.line}, column {first.column}: {first.message}{more}")


def shown(text: str) -> str:
    """A word of the file as a message quotes it: never long, never over two lines."""
    return repr(text if len(text) <= 80 else text[:80] + "…")


def compose(data: bytes, source: str, max_size: int) -> yaml.Node:
    """The root node of the one document in `data`, of at most `max_size` bytes.

    Raises PolicyError for what is no YAML, holds anchors, or is nested too deeply.
    """

    def error(line: int, column: int, message: str) -> PolicyError:
        return PolicyError(source, [Problem(line, column, message)])

    def error_at(mark: Any, message: str) -> PolicyError:
        return error(mark.line + 1, mark.column + 1, message) if mark else error(1, 1, message)

    if len(data) > max_size:
        raise error(1, 1, f"the file is larger than {max_size} bytes")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as err:
        line = data.count(b"\n", 0, err.start) + 1
        column = len(data[data.rfind(b"\n", 0, err.start) + 1 : err.start].decode("utf-8")) + 1
        raise error(line, column, "not UTF-8: save the file as UTF-8") from None
    try:
        depth = 0
        anchors: list[Problem] = []
        for event in yaml.parse(text, Loader=_PARSER):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:  # what follows would take ever longer the deeper it goes
                raise error_at(event.start_mark, "nested too deeply")
            anchor = getattr(event, "anchor", None)
            if anchor is not None and len(anchors) < _MAX_PROBLEMS:
                message = f"anchors and aliases are not allowed ({shown(anchor)}): write it out, or put it into quotes"
                anchors += error_at(event.start_mark, message).problems
        if anchors:
            raise PolicyError(source, anchors)
        root = yaml.compose(text, Loader=_PARSER)
    except yaml.MarkedYAMLError as err:
        hint = ""
        if "alias" in str(err.context):
            hint = "; a pattern that starts with `*` is put into quotes"
        elif "cannot start any token" in str(err.problem):
            hint = "; use spaces, not tabs, and put what starts with `@` or `%` into quotes"
        context = f"{err.context}: " if err.context else ""
        raise error_at(err.problem_mark or err.context_mark, f"{context}{err.problem}{hint}") from None
    except yaml.reader.ReaderError as err:
        before = text[: err.position] if _PARSER is yaml.SafeLoader else data[: err.position].decode("utf-8", "ignore")
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        character = chr(err.character) if isinstance(err.character, int) and err.character >= 0 else err.character
        raise error(line, column, f"the character {character!r} is not allowed") from None
    except (ArithmeticError, ValueError) as err:
        # What YAML's own library stumbles over, such as a number without end.
        raise error(1, 1, f"this is no YAML: {err}") from None
    if root is None:
        raise error(1, 1, "the file is empty: a policy starts with `version: 1`")
    return root


class Reader:
    """Turns nodes into values; each method returns None, or nothing, after it noted a problem."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.problems: list[Problem] = []

    def problem(self, node: yaml.Node, message: str) -> None:
        """Notes what is wrong with a node. Raises PolicyError when too much is."""
        mark = node.start_mark
        self.problems.append(Problem(mark.line + 1, mark.column + 1, message))
        if len(self.problems) >= _MAX_PROBLEMS:
            raise PolicyError(self.source, self.problems)

    def text(self, node: yaml.Node, what: str) -> str | None:
        """A text that is not empty."""
        if isinstance(node, yaml.ScalarNode):
            if node.tag == _STR and node.value:
                return str(node.value)
            if node.value:
                self.problem(node, f"{what} must be a text: put it into quotes, {shown(node.value)}")
                return None
        self.problem(node, f"{what} must be a text")
        return None

    def flag(self, node: yaml.Node, what: str) -> bool | None:
        """One of the two words `true` and `false`."""
        if isinstance(node, yaml.ScalarNode) and node.tag == _BOOL and node.value in ("true", "false"):
            return bool(node.value == "true")
        self.problem(node, f"{what} must be `true` or `false`")
        return None

    def number(self, node: yaml.Node, what: str) -> int | None:
        """A whole number, in decimal."""
        if isinstance(node, yaml.ScalarNode) and node.tag == _INT and _NUMBER.fullmatch(node.value):
            return int(node.value)
        self.problem(node, f"{what} must be a whole number")
        return None

    def count(self, node: yaml.Node, what: str) -> int | None:
        """A whole number that is not below 0."""
        number = self.number(node, what)
        if number is not None and number < 0:
            self.problem(node, f"{what} must not be below 0")
            return None
        return number

    def size(self, node: yaml.Node, what: str) -> int | None:
        """A size, in MiB: a number, or one with M, G or T behind it."""
        if isinstance(node, yaml.ScalarNode):
            if node.tag == _INT and _NUMBER.fullmatch(node.value) and int(node.value) >= 0:
                return int(node.value)
            found = _SIZE.fullmatch(node.value) if node.tag == _STR else None
            if found is not None:
                return int(found[1]) * _MIB[found[2]]
        self.problem(node, f"{what} must be a size: `512M`, `8G`, `1T`, or a whole number of MiB")
        return None

    def scalar(self, node: yaml.Node, what: str) -> bool | int | str | None:
        """A text, a number or a flag, as it is written."""
        if isinstance(node, yaml.ScalarNode) and node.tag == _INT:
            return self.number(node, what)
        if isinstance(node, yaml.ScalarNode) and node.tag == _BOOL:
            return self.flag(node, what)
        return self.text(node, what)

    def choice(self, node: yaml.Node, what: str, words: Iterable[str]) -> str | None:
        """One of some words."""
        words = tuple(words)
        if isinstance(node, yaml.ScalarNode) and node.value in words:
            return str(node.value)
        known = f"{what} must be {', '.join(words[:-1])} or {words[-1]}"
        hint = nearest(node.value, words) if isinstance(node, yaml.ScalarNode) else ""
        self.problem(node, known + hint)
        return None

    def items(self, node: yaml.Node, what: str) -> list[yaml.Node]:
        """The nodes of a list that is not empty."""
        if isinstance(node, yaml.SequenceNode) and node.tag == _SEQ and node.value:
            return list(node.value)
        self.problem(node, f"{what} must be a list that is not empty")
        return []

    def one_or_list(self, node: yaml.Node, what: str) -> list[yaml.Node]:
        """The node itself, or the nodes of a list."""
        return self.items(node, what) if isinstance(node, yaml.SequenceNode) else [node]

    def mapping(self, node: yaml.Node, what: str, words: Container[str] = ()) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """The (key, value) nodes of a mapping, by key; `words` are keys that are no text for YAML, as `on`."""
        found: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        if not (isinstance(node, yaml.MappingNode) and node.tag == _MAP):
            self.problem(node, f"{what} must be a mapping, `key: value`")
            return found
        for key_node, value_node in node.value:
            is_word = isinstance(key_node, yaml.ScalarNode) and key_node.value in words
            key = key_node.value if is_word else self.text(key_node, f"a key of {what}")
            if key is not None and key in found:
                self.problem(key_node, f"key {shown(key)} stands twice in {what}")
            elif key is not None:
                found[key] = (key_node, value_node)
        return found
