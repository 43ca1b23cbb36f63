# SPDX-License-Identifier: BSD-2-Clause
"""Reading a policy strictly: what is not exactly right is told with line, column and mend."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from ganeti_ext.errors import ExtError
from ganeti_ext.policy.accounts import nearest
from ganeti_ext.policy.model import BUILTIN, MAX_SIZE, PATTERN, Glob, NameSelector, Policy, Role, Scope
from ganeti_ext.policy.vocabulary import NEVER_SCOPED, PERMISSIONS, SCOPED_SO_FAR

_STR = "tag:yaml.org,2002:str"
_INT = "tag:yaml.org,2002:int"
_SEQ = "tag:yaml.org,2002:seq"
_MAP = "tag:yaml.org,2002:map"

#: A policy has six levels.
_MAX_DEPTH = 20


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a policy; `line` and `column` count from 1."""

    line: int
    column: int
    message: str


class PolicyError(ExtError):
    """A policy that is not taken; `problems` holds all of them, in the file's order."""

    def __init__(self, source: str, problems: list[Problem]) -> None:
        self.source = source
        self.problems = sorted(problems, key=lambda problem: (problem.line, problem.column))
        first = self.problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(f"{source}: line {first.line}, column {first.column}: {first.message}{more}")


def load_policy(data: bytes, source: str) -> Policy:
    """Reads a policy from the bytes of a file; `source` names it in errors.

    Raises PolicyError with every problem found; a policy that is returned has none.
    """
    return _Loader(source).load(data)


class _Loader:
    """Walks the YAML nodes, so that each problem knows its place."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.problems: list[Problem] = []

    def load(self, data: bytes) -> Policy:
        """Raises PolicyError."""
        if len(data) > MAX_SIZE:
            raise PolicyError(self.source, [Problem(1, 1, f"the file is larger than {MAX_SIZE} bytes")])
        roles: dict[str, Role] = {}
        root = self._compose(data)
        if root is not None:
            roles = self._policy(root)
        if self.problems:
            raise PolicyError(self.source, self.problems)
        return Policy(roles)

    def _compose(self, data: bytes) -> yaml.Node | None:
        """The document's root node, if there is one and it uses no anchor."""
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as err:
            line = data.count(b"\n", 0, err.start) + 1
            column = err.start - data.rfind(b"\n", 0, err.start)
            self.problems.append(Problem(line, column, "not UTF-8: save the file as UTF-8"))
            return None
        try:
            depth = 0
            for event in yaml.parse(text, Loader=yaml.SafeLoader):
                depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
                if depth > _MAX_DEPTH:  # the parser takes ever longer the deeper it goes
                    self._problem_at(event, "nested too deeply")
                    return None
                anchor = getattr(event, "anchor", None)
                if anchor is not None:
                    self._problem_at(event, f"anchors and aliases are not allowed ({anchor}): write it out")
            root = None if self.problems else yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as err:
            hint = "; use spaces, not tabs" if "'\\t'" in str(err.problem) else ""
            context = f"{err.context}: " if err.context else ""
            where = err.problem_mark or err.context_mark
            self._problem_mark(where, f"{context}{err.problem}{hint}")
            return None
        except yaml.reader.ReaderError as err:
            line = text.count("\n", 0, err.position) + 1
            column = err.position - text.rfind("\n", 0, err.position)
            self.problems.append(Problem(line, column, f"the character {chr(err.character)!r} is not allowed"))
            return None
        except (ArithmeticError, ValueError) as err:
            # What YAML's own library stumbles over, such as a number without end.
            self._problem_at(None, f"this is no YAML: {err}")
            return None
        if root is None and not self.problems:
            self._problem_at(None, "the file is empty: a policy starts with `version: 1`")
        return root

    def _problem_mark(self, mark: Any, message: str) -> None:
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        self.problems.append(Problem(line, column, message))

    def _problem_at(self, node: Any, message: str) -> None:
        self._problem_mark(getattr(node, "start_mark", None), message)

    # Nodes to values. Each returns None after it has noted a problem.

    def _text(self, node: yaml.Node, what: str) -> str | None:
        if isinstance(node, yaml.ScalarNode) and node.tag == _STR and node.value:
            return str(node.value)
        hint = ""
        if isinstance(node, yaml.ScalarNode) and node.value:
            hint = f": put it into quotes, '{node.value}'"
        self._problem_at(node, f"{what} must be a text{hint}")
        return None

    def _list(self, node: yaml.Node, what: str) -> list[yaml.Node]:
        if isinstance(node, yaml.SequenceNode) and node.tag == _SEQ and node.value:
            return list(node.value)
        self._problem_at(node, f"{what} must be a list that is not empty")
        return []

    def _one_or_list(self, node: yaml.Node, what: str) -> list[yaml.Node]:
        return [node] if not isinstance(node, yaml.SequenceNode) else self._list(node, what)

    def _mapping(
        self, node: yaml.Node, what: str, keys: Mapping[str, Callable[[yaml.Node], Any]] | None = None
    ) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """The (key, value) nodes of a mapping by key; `keys` are those that it may have."""
        found: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        if not (isinstance(node, yaml.MappingNode) and node.tag == _MAP):
            self._problem_at(node, f"{what} must be a mapping, `key: value`")
            return found
        for key_node, value_node in node.value:
            key = self._text(key_node, f"a key of {what}")
            if key is None:
                continue
            if key in found:
                self._problem_at(key_node, f"key {key!r} stands twice in {what}")
            elif keys is not None and key not in keys:
                known = nearest(key, keys) or f"; {what} may have {', '.join(sorted(keys))}"
                self._problem_at(key_node, f"unknown key {key!r} in {what}{known}")
            else:
                found[key] = (key_node, value_node)
        return found

    def _read(self, node: yaml.Node, what: str, keys: Mapping[str, Callable[[yaml.Node], Any]]) -> dict[str, Any]:
        """The values of a mapping, each read by the function that `keys` has for it."""
        return {key: keys[key](value) for key, (_, value) in self._mapping(node, what, keys).items()}

    # The rooms of the file, outermost first.

    def _policy(self, root: yaml.Node) -> dict[str, Role]:
        values = self._read(root, "the policy", {"version": self._version, "roles": self._roles})
        if isinstance(root, yaml.MappingNode) and "version" not in values:
            self._problem_at(root, "the policy lacks `version: 1`")
        roles: dict[str, Role] = values.get("roles", {})
        return roles

    def _version(self, node: yaml.Node) -> None:
        if not (isinstance(node, yaml.ScalarNode) and node.tag == _INT and node.value == "1"):
            self._problem_at(node, "this ganeti-ext reads policies of version 1: write `version: 1`")

    def _roles(self, node: yaml.Node) -> dict[str, Role]:
        roles = {}
        for name, (key_node, value_node) in self._mapping(node, "roles").items():
            if name in BUILTIN:
                self._problem_at(key_node, f"{name!r} is a built-in role: choose another name")
            elif not set(name).isdisjoint(" \t\n,@"):
                self._problem_at(key_node, f"the role name {name!r} cannot be written in the users file")
            roles[name] = self._role(name, value_node)
        return roles

    def _role(self, name: str, node: yaml.Node) -> Role:
        what = f"role {name!r}"
        values = self._read(
            node,
            what,
            {
                "description": lambda value: self._text(value, f"the description of {what}"),
                "permissions": lambda value: self._list(value, f"the permissions of {what}"),
                "scope": self._scope,
            },
        )
        if isinstance(node, yaml.MappingNode) and "permissions" not in values:
            self._problem_at(node, f"{what} lacks `permissions`")
        permissions: set[str] = set()
        scope: Scope | None = values.get("scope")
        for entry in values.get("permissions", ()):
            permissions |= self._permission(entry, what, "scope" in values)
        if scope is not None:
            permissions &= SCOPED_SO_FAR
        return Role(name, frozenset(permissions), values.get("description") or "", scope)

    def _permission(self, node: yaml.Node, what: str, scoped: bool) -> frozenset[str]:
        """What one entry of `permissions` gives: a permission, or all of a built-in role."""
        name = self._text(node, f"a permission of {what}")
        if name is None:
            return frozenset()
        if name.startswith("@"):
            if name[1:] in BUILTIN:
                role = BUILTIN[name[1:]]
                if role.kind not in (None, "instance") or (role.kind is not None and not scoped):
                    self._problem_at(node, f"{name} is about {role.kind}s alone: name it in the users file instead")
                return role.permissions
            hint = nearest(name[1:], BUILTIN, "; did you mean '@{}'?")
            self._problem_at(node, f"unknown built-in role {name!r}{hint}")
        elif name not in PERMISSIONS:
            self._problem_at(node, f"unknown permission {name!r}" + nearest(name, PERMISSIONS))
        elif scoped and name in NEVER_SCOPED:
            self._problem_at(node, f"{name} cannot be limited to some objects: take it out of {what}, or its scope")
        return frozenset({name})

    def _scope(self, node: yaml.Node) -> Scope:
        values = self._read(node, "a scope", {"instances": self._selectors})
        return Scope(tuple(values.get("instances", ())))

    def _selectors(self, node: yaml.Node) -> list[NameSelector]:
        return [self._selector(entry) for entry in self._one_or_list(node, "the instances of a scope")]

    def _selector(self, node: yaml.Node) -> NameSelector:
        values = self._read(node, "a selector", {"name": self._globs})
        if isinstance(node, yaml.MappingNode) and not node.value:
            self._problem_at(node, "a selector needs a `name`")
        return NameSelector(tuple(values.get("name", ())))

    def _globs(self, node: yaml.Node) -> list[Glob]:
        globs = []
        for entry in self._one_or_list(node, "`name`"):
            text = self._text(entry, "a name pattern")
            if text is None:
                continue
            if PATTERN.fullmatch(text) is None:
                self._problem_at(
                    entry,
                    f"the name pattern {text!r} can match nothing: names are written in lower-case"
                    " letters, digits, `.`, `-` and `_`; `*` and `?` are wild",
                )
            else:
                globs.append(Glob(text))
        return globs
