# SPDX-License-Identifier: BSD-2-Clause
"""Reading a policy: what is not exactly right is told with line, column and mend."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import yaml

from ganeti_ext.policy import schema
from ganeti_ext.policy.accounts import nearest
from ganeti_ext.policy.model import BUILTIN, KINDS, MAX_SIZE, Deny, Policy, Quota, Role, Scope, Selector, Target, Test
from ganeti_ext.policy.parameters import (
    ANY,
    COMMAND_NAME,
    OPEN_ENDED,
    PARAMETERS,
    PRESETS,
    Limit,
    Parameters,
    parameter_named,
)
from ganeti_ext.policy.pattern import (
    MAX_NAME,
    MAX_STARS,
    MAX_TAG,
    NAME_PATTERN,
    TAG_PATTERN,
    USER,
    Pattern,
    Patterns,
)
from ganeti_ext.policy.strict_yaml import PolicyError, Problem, Reader, compose, shown
from ganeti_ext.policy.vocabulary import NEVER_SCOPED, PERMISSIONS, RESTRICTED_COMMAND

__all__ = ["PolicyError", "Problem", "load_policy"]

_MAX_VALUE = 1024

_IN_A_NAME = "names are written in lower-case letters, digits, `.`, `-` and `_`; `*` and `?` are wild"
_IN_A_TAG = "tags are written in letters, digits and `_.+/:@-`; `*` and `?` are wild"


def load_policy(data: bytes, source: str) -> Policy:
    """Reads a policy from the bytes of a file; `source` names it in errors.

    Raises PolicyError with the problems found; a policy that is returned has none.
    """
    return _Loader(source).load(data)


class _Loader(Reader):
    """Walks the nodes of a policy by the table of its keys."""

    def __init__(self, source: str) -> None:
        super().__init__(source)
        #: All patterns of tags that a scope, a deny or a stamp has: those tags are protected.
        self.tags: list[Pattern] = []
        #: form of a key -> what reads it; a form that is not here is that of a mapping.
        self.forms: Mapping[str, Callable[[yaml.Node, str], Any]] = {
            "version": self._version,
            "text": self.text,
            "flag": self.flag,
            "count": self.count,
            "size": self.size,
            "roles": self._roles,
            "permissions": self.items,
            "denied permissions": self._denied_permissions,
            "scope": self._scope,
            "selectors": self._selectors,
            "names": self._names,
            "tag patterns": self._tag_patterns,
            "users": self._users,
            "parameters": self._parameters,
            "stamps": self._stamps,
            "quota": self._quota,
            "denies": self._denies,
            "tests": self._tests,
            "permission": self._permission,
            "name or object": self._object,
            "group names": self._group_names,
            "tags": self._tags_of_an_object,
            "values": self._test_values,
            "audit": self._audit,
        }

    def load(self, data: bytes) -> Policy:
        """Raises PolicyError."""
        values = self._mapped(compose(data, self.source, MAX_SIZE), "policy")
        if self.problems:
            raise PolicyError(self.source, self.problems)
        protected = Patterns(tag.anyone() for tag in self.tags)
        restricted = Parameters(PRESETS["restricted"], protected)

        def protecting(role: Role) -> Role:
            """The role, if limited with the protection of all tags that the policy goes by."""
            if role.scope is None:
                return role
            known = role.parameters
            limits = restricted if known is None else dataclasses.replace(known, protected=protected)
            return dataclasses.replace(role, parameters=limits)

        return Policy(
            {name: protecting(role) for name, role in values.get("roles", {}).items()},
            tuple(values.get("deny", ())),
            tuple(values.get("tests", ())),
            values.get("audit", False),
        )

    # Mappings.

    def _read(self, node: yaml.Node, what: str, keys: Mapping[str, schema.Key]) -> dict[str, Any]:
        """The values of a mapping that may have `keys`; what could not be read is None."""
        values: dict[str, Any] = {}
        for word, (key_node, value_node) in self.mapping(node, what, keys).items():
            key = keys.get(word)
            if key is None:
                known = nearest(word, keys) or f"; {what} may have {', '.join(sorted(keys))}"
                self.problem(key_node, f"unknown key {shown(word)} in {what}{known}")
                values[word] = None
            elif key.form == "choice":
                values[word] = self.choice(value_node, f"`{word}`", key.choices)
            else:
                values[word] = self.forms[key.form](value_node, f"`{word}`")
        if isinstance(node, yaml.MappingNode):
            for word, key in keys.items():
                if key.required and word not in values:
                    self.problem(node, f"{what} lacks `{word}: {key.example}`")
        return values

    def _mapped(self, node: yaml.Node, name: str, what: str = "") -> dict[str, Any]:
        """The values of one of the mappings of the table."""
        default, keys = schema.MAPPINGS[name]
        return self._read(node, what or default, keys)

    def _some(self, node: yaml.Node, name: str) -> dict[str, Any]:
        """The same, for a mapping that has to hold something."""
        values = self._mapped(node, name)
        if isinstance(node, yaml.MappingNode) and not node.value:
            what, keys = schema.MAPPINGS[name]
            self.problem(node, f"{what} is empty: it may have {', '.join(sorted(keys))}")
        return values

    def _version(self, node: yaml.Node, what: str) -> None:
        if not (isinstance(node, yaml.ScalarNode) and node.value == "1" and node.tag.endswith(":int")):
            self.problem(node, "this ganeti-ext reads policies of version 1: write `version: 1`")

    # Roles.

    def _roles(self, node: yaml.Node, what: str) -> dict[str, Role]:
        roles = {}
        for name, (key_node, value_node) in self.mapping(node, "roles").items():
            if name in BUILTIN:
                self.problem(key_node, f"{name!r} is a built-in role: choose another name")
            elif any(char in ",@" or char.isspace() or not char.isprintable() for char in name):
                self.problem(key_node, f"the role name {shown(name)} cannot be written in the users file")
            roles[name] = self._role(name, value_node, key_node.start_mark.line + 1)
        return roles

    def _role(self, name: str, node: yaml.Node, line: int) -> Role:
        what = f"role {shown(name)}"
        values = self._mapped(node, "role", what)
        scoped = "scope" in values
        permissions: set[str] = set()
        for entry in values.get("permissions") or ():
            permissions |= self._granted(entry, what, scoped)
        limits: tuple[str | None, dict[str, Limit]] | None = values.get("parameters")
        parameters = None
        if limits is not None:
            preset = limits[0] or ("restricted" if scoped else "none")
            parameters = Parameters({**PRESETS[preset], **limits[1]})
        return Role(
            name,
            frozenset(permissions - NEVER_SCOPED if scoped else permissions),
            values.get("description") or "",
            values.get("scope"),
            parameters=parameters,
            tags=tuple(values.get("tags") or ()),
            own_jobs=values["jobs"] == "own" if "jobs" in values else scoped,
            quota=values.get("quota"),
            warn=values.get("mode") == "warn",
            line=line,
        )

    def _granted(self, node: yaml.Node, what: str, scoped: bool) -> frozenset[str]:
        """What one entry of a role's `permissions` gives: a permission, or all of a built-in role."""
        found = self._permissions(node, f"a permission of {what}")
        if isinstance(node, yaml.ScalarNode) and found:
            role = BUILTIN.get(node.value[1:])
            if role is not None and role.kind is not None and not scoped:
                self.problem(node, f"{node.value} is about {role.kind}s alone: name it in the users file instead")
            elif scoped and node.value in NEVER_SCOPED:
                self.problem(
                    node, f"{node.value} cannot be limited to some objects: take it out of {what}, or its scope"
                )
        return found

    def _permissions(self, node: yaml.Node, what: str) -> frozenset[str]:
        """A permission, or those of a built-in role with `@`; nothing after a problem."""
        name = self.text(node, what)
        if name is None:
            return frozenset()
        if name.startswith("@"):
            if name[1:] in BUILTIN:
                return BUILTIN[name[1:]].permissions
            self.problem(
                node, f"unknown built-in role {shown(name)}" + nearest(name[1:], BUILTIN, "; did you mean '@{}'?")
            )
        elif name in PERMISSIONS:
            return frozenset({name})
        else:
            self.problem(node, f"unknown permission {shown(name)}" + nearest(name, PERMISSIONS))
        return frozenset()

    def _scope(self, node: yaml.Node, what: str) -> Scope:
        values = self._mapped(node, "scope")
        return Scope(**{kind: tuple(selectors or ()) for kind, selectors in values.items() if kind[:-1] in KINDS})

    def _selectors(self, node: yaml.Node, what: str) -> list[Selector]:
        selectors = []
        for entry in self.one_or_list(node, what):
            values = self._some(entry, "selector")
            name, tag, group = (Patterns(values.get(key) or ()) for key in ("name", "tag", "group"))
            selectors.append(Selector(name, tag, group))
        return selectors

    def _quota(self, node: yaml.Node, what: str) -> Quota:
        values = self._some(node, "quota")
        return Quota(**{key: values.get(key) for key in schema.MAPPINGS["quota"][1]})

    def _audit(self, node: yaml.Node, what: str) -> bool:
        return self._some(node, "audit").get("reads") is True

    # Patterns and tags.

    def _pattern(self, node: yaml.Node, what: str, may_hold: Callable[[str], bool], hint: str) -> Pattern | None:
        text = self.text(node, what)
        if text is None:
            return None
        if not may_hold(text):
            self.problem(node, f"{what} cannot be {shown(text)}: {hint}")
        elif text.count("*") > MAX_STARS:
            self.problem(node, f"{what} may hold at most {MAX_STARS} `*`: {shown(text)}")
        else:
            return Pattern(text)
        return None

    def _patterns(self, node: yaml.Node, what: str, may_hold: Callable[[str], bool], hint: str) -> list[Pattern]:
        found = [self._pattern(entry, what, may_hold, hint) for entry in self.one_or_list(node, what)]
        return [pattern for pattern in found if pattern is not None]

    def _names(self, node: yaml.Node, what: str) -> list[Pattern]:
        return self._patterns(node, what, _may_be_name, _IN_A_NAME)

    def _tag_patterns(self, node: yaml.Node, what: str) -> list[Pattern]:
        found = self._patterns(node, what, _may_be_tag, _IN_A_TAG)
        self.tags += found
        return found

    def _stamps(self, node: yaml.Node, what: str) -> list[Pattern]:
        found = self._patterns(
            node,
            what,
            lambda text: _may_be_tag(text) and not {"*", "?"} & set(text),
            f"a tag to be set is at most {MAX_TAG} letters, digits and `_.+/:@-` long, without wildcards",
        )
        self.tags += found
        return found

    def _users(self, node: yaml.Node, what: str) -> list[Pattern]:
        return self._patterns(
            node,
            what,
            lambda text: USER not in text and text.isprintable() and not any(char.isspace() for char in text),
            f"write names of users, with `*` and `?` as wildcards; {USER} stands for a user elsewhere",
        )

    # Parameters.

    def _parameters(self, node: yaml.Node, what: str) -> tuple[str | None, dict[str, Limit]]:
        """The preset, if one is named, and the limits."""
        preset = None
        limits = {}
        for name, (key_node, value_node) in self.mapping(node, what).items():
            if name == "preset":
                preset = self.choice(value_node, "`preset`", schema.PRESET.choices)
                continue
            form = self._form_of(name, key_node)
            limit = None if form is None else self._limit(name, form, value_node)
            if limit is not None:
                limits[name] = limit
        return preset, limits

    def _form_of(self, name: str, node: yaml.Node) -> str | None:
        known = parameter_named(name)
        if known is None:
            hint = nearest(name, PARAMETERS)
            if name in OPEN_ENDED:
                hint = f": name one that lies inside of it, `{name}.NAME`"
            elif any(parameter.startswith(name + ".") for parameter in PARAMETERS):
                inside = sorted(parameter for parameter in PARAMETERS if parameter.startswith(name + "."))
                hint = f": name what lies inside of it, such as `{inside[0]}`"
            self.problem(node, f"unknown parameter {shown(name)}{hint}")
            return None
        return known.form

    def _limit(self, name: str, form: str, node: yaml.Node) -> Limit | None:
        if isinstance(node, yaml.MappingNode):
            return self._range(name, form, node)
        if isinstance(node, yaml.ScalarNode) and node.value == "*" and name != "command":
            return ANY
        if form == "other":
            self.problem(node, f"{name} can only be allowed as a whole: write '*'")
            return None
        values = [self._value(name, form, entry) for entry in self.one_or_list(node, name)]
        return Limit(tuple(value for value in values if value is not None))

    def _range(self, name: str, form: str, node: yaml.Node) -> Limit | None:
        if form not in ("number", "size", "any"):
            self.problem(node, f"{name} is no number: it cannot have a range")
            return None
        ends = {}
        for key, (key_node, value_node) in self.mapping(node, name).items():
            if key in schema.RANGE:
                read = self.size if form == "size" else self.number
                ends[key] = read(value_node, f"`{key}` of {name}")
            else:
                known = nearest(key, schema.RANGE) or f"; a range has {' and '.join(schema.RANGE)}"
                self.problem(key_node, f"unknown key {shown(key)} in the range of {name}{known}")
        low, high = ends.get("min"), ends.get("max")
        if not node.value:
            self.problem(node, f"the range of {name} is empty: it has `min`, `max` or both")
        elif low is not None and high is not None and low > high:
            self.problem(node, f"no value of {name} is at least {low} and at most {high}")
        return Limit(low=low, high=high)

    def _value(self, name: str, form: str, node: yaml.Node) -> Pattern | bool | int | None:
        """One of the values that a parameter may have."""
        if form == "number":
            return self.number(node, name)
        if form == "size":
            return self.size(node, name)
        if form == "flag":
            return self.flag(node, name)
        if form == "any" and isinstance(node, yaml.ScalarNode) and node.tag.endswith((":int", ":bool")):
            return self.number(node, name) if node.tag.endswith(":int") else self.flag(node, name)
        if name == "command":
            return self._pattern(
                node,
                name,
                lambda text: COMMAND_NAME.fullmatch(text) is not None,
                "commands are allowed by their exact names, of up to 64 letters, digits and `_.-`, neither `.` nor `-`"
                " first, without wildcards",
            )
        return self._pattern(
            node,
            name,
            lambda text: USER not in text and text.isprintable() and len(text) <= _MAX_VALUE,
            f"at most {_MAX_VALUE} characters that can be printed; {USER} has no meaning here",
        )

    # Denies.

    def _denies(self, node: yaml.Node, what: str) -> list[Deny]:
        return [self._deny(entry) for entry in self.items(node, what)]

    def _deny(self, node: yaml.Node) -> Deny:
        values = self._mapped(node, "deny")
        return Deny(
            tuple(values.get("users") or ()),
            values.get("permissions") or frozenset(),
            tuple(values.get("except") or ()),
            {kind: tuple(values[kind + "s"] or ()) for kind in KINDS if kind + "s" in values},
            node.start_mark.line + 1,
        )

    def _denied_permissions(self, node: yaml.Node, what: str) -> frozenset[str]:
        if isinstance(node, yaml.ScalarNode) and node.value == "*":
            return frozenset(PERMISSIONS)
        found: frozenset[str] = frozenset()
        for entry in self.items(node, what):
            if isinstance(entry, yaml.ScalarNode) and entry.value == "*":
                found |= frozenset(PERMISSIONS)
            else:
                found |= self._permissions(entry, "a permission of a deny")
        return found

    # Tests.

    def _tests(self, node: yaml.Node, what: str) -> list[Test]:
        return [self._test(entry) for entry in self.items(node, what)]

    def _test(self, node: yaml.Node) -> Test:
        values = self._mapped(node, "test")
        permission = values.get("do") or ""
        if permission == RESTRICTED_COMMAND and "command" not in dict(values.get("parameters") or ()):
            self.problem(node, f"a test of {RESTRICTED_COMMAND} lacks `parameters: {{command: restart-sshd}}`")
        target = None
        if values.get("on") is not None:
            kind, name, tags, groups = values["on"]
            new = permission.endswith((".create", ".multi_alloc")) and not permission.startswith("instances.export")
            target = Target(kind or _kind_of(permission), name, tags, groups, new)
        return Test(
            values.get("user") or "",
            permission,
            values.get("expect") == "allow",
            target,
            tuple(values.get("parameters") or ()),
            values.get("tokens"),
            node.start_mark.line + 1,
            node.start_mark.column + 1,
        )

    def _permission(self, node: yaml.Node, what: str) -> str | None:
        name = self.text(node, what)
        if name is not None and name not in PERMISSIONS:
            self.problem(node, f"unknown permission {shown(name)}" + nearest(name, PERMISSIONS))
            return None
        return name

    def _object(self, node: yaml.Node, what: str) -> tuple[str, str, frozenset[str], frozenset[str]]:
        """Kind (empty if it is not said), name, tags and groups of a test's object."""
        unspecified = frozenset([""])
        if isinstance(node, yaml.ScalarNode):
            return "", self.text(node, what) or "", frozenset(), unspecified
        values = self._mapped(node, "object")
        kind = values.get("kind") or ""
        if isinstance(node, yaml.MappingNode) and ("name" in values) == (kind == "cluster"):
            self.problem(node, "a cluster has no name here" if kind == "cluster" else "the object lacks a `name`")
        tags, groups = values.get("tags") or (), values.get("group") or unspecified
        return kind, values.get("name") or "", frozenset(tags), frozenset(groups)

    def _group_names(self, node: yaml.Node, what: str) -> list[str]:
        return [self.text(entry, what) or "" for entry in self.one_or_list(node, what)]

    def _tags_of_an_object(self, node: yaml.Node, what: str) -> list[str]:
        return [self.text(entry, what) or "" for entry in self.one_or_list(node, what)]

    def _test_values(self, node: yaml.Node, what: str) -> list[tuple[str, Any]]:
        values = []
        for name, (key_node, value_node) in self.mapping(node, what).items():
            form = self._form_of(name, key_node)
            for entry in self.one_or_list(value_node, name) if form is not None else ():
                read = {"number": self.number, "size": self.size, "flag": self.flag, "text": self.text}
                values.append((name, read.get(form or "", self.scalar)(entry, name)))
        return values


def _may_be_name(text: str) -> bool:
    """Whether a pattern could match a name."""
    return len(text) <= MAX_NAME and NAME_PATTERN.fullmatch(text.replace(USER, "a")) is not None


def _may_be_tag(text: str) -> bool:
    """Whether a pattern could match a tag."""
    return len(text) <= MAX_TAG and TAG_PATTERN.fullmatch(text.replace(USER, "a")) is not None


def _kind_of(permission: str) -> str:
    """The kind of object that a permission is about; an instance, where it can be about any."""
    kind = permission.partition(".")[0][:-1]
    return kind if kind in KINDS else "instance"
