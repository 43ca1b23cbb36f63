# SPDX-License-Identifier: BSD-2-Clause
"""Writes what the tables say, for people and for editors: the reference page and a JSON Schema.

python3 -m ganeti_ext.policy.reference page > docs/policy-reference.md
python3 -m ganeti_ext.policy.reference schema > docs/rapi-access.schema.json
python3 -m ganeti_ext.policy.reference man > docs/rapi-access.yaml.5.rst
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ganeti_ext.policy import parameters, schema
from ganeti_ext.policy.parameters import COMMAND_NAME, OPEN_ENDED, PARAMETERS, PRESETS
from ganeti_ext.policy.pattern import MAX_NAME, MAX_TAG
from ganeti_ext.policy.vocabulary import BUILTIN_ROLES, NEVER_SCOPED, PERMISSIONS, PLAIN_ROLES

#: What the man page says beside the keys.
_MAN = """\
.. SPDX-License-Identifier: BSD-2-Clause
.. Made by python3 -m ganeti_ext.policy.reference man

================
rapi-access.yaml
================

-------------------------------------------
who may do what through Ganeti's remote API
-------------------------------------------

:Manual section: 5
:Manual group: Ganeti

DESCRIPTION
===========

``/etc/ganeti/rapi-access.yaml`` is the policy of **ganeti-ext**\\(7): the roles that Ganeti's users file
(``/var/lib/ganeti/rapi/users``) may give to a user of the remote API, with ``@`` before their names in its
third column, and what is denied whatever grants it. Without the file there are the built-in roles alone.

It belongs to root, is not writable by others and readable for the user ``gnt-rapi``. The daemon takes a new
one at once. One with a mistake, or with a test that does not hold, is never taken: the one before stays in
force, and ``rapi-daemon.log`` has the line and the mend. ``gnt-ext edit`` changes it safely, ``gnt-ext
check`` tells all that is wrong with it, and ``gnt-ext sync`` carries it to the other master candidates.

The file is strict YAML: no keys twice, none that is unknown, no anchors; what YAML takes for something else
than a text (``on``, ``5``) stands in quotes where a text is meant.

EXAMPLE
=======

::

    version: 1
    roles:
      test-operator:
        description: Runs the instances below test.example.com
        permissions: ["@operator", instances.create, instances.remove]
        scope:
          instances: {name: "*.test.example.com"}
          nodes: {group: default}
        parameters: {os_type: [noop], beparams.maxmem: {max: 8G}}
        quota: {instances: 10, memory: 64G}
    deny:
      - {users: "*", except: [root], permissions: [instances.remove], instances: {tag: keep}}
    tests:
      - {user: test1, do: instances.reboot, on: db1.example.com, expect: deny}
"""

_MAN_END = """\
PERMISSIONS AND PARAMETERS
==========================

``gnt-ext permissions`` lists the permissions. They and the parameters are told one by one in
``/usr/share/doc/ganeti-ext/policy-reference.md``, for editors in ``rapi-access.schema.json`` beside it, and
what all of it means together in ``policy.md`` and ``cookbook.md``.

FILES
=====

``/etc/ganeti/rapi-access.yaml``
    The policy.

``/var/lib/ganeti/rapi/access.last-good.yaml``
    The last one that was taken. To go without a policy, remove both and restart **ganeti-rapi**.

SEE ALSO
========

**gnt-ext**\\(8), **ganeti-ext**\\(7), **ganeti-rapi**\\(8)
"""

_HEAD = """\
# The policy, word by word

Made from the tables of the code: `python3 -m ganeti_ext.policy.reference page`. How the
words work together is in [policy.md](policy.md). Editors that know JSON Schema check a policy
as it is written with [rapi-access.schema.json](rapi-access.schema.json): put
`# yaml-language-server: $schema=rapi-access.schema.json` into its first line.
"""

#: mapping -> (heading, what it is).
_PARTS = {
    "policy": ("The file", "The keys at the top."),
    "role": ("A role", "What stands behind a name under `roles`."),
    "scope": ("A scope", "The keys of `scope`; a kind that is left out is none of its objects."),
    "selector": (
        "A selector",
        "What stands behind `instances`, `nodes`, `groups` and `networks`, in a scope and in a deny. All of its"
        " keys have to match, one value of each.",
    ),
    "quota": ("A quota", "What the role's objects may be, all together."),
    "deny": ("A deny", "One entry of `deny`."),
    "test": ("A test", "One entry of `tests`."),
    "object": ("The object of a test", "What stands behind `on`, if the name is not enough."),
    "audit": ("The audit", "The keys of `audit`."),
}


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    head = list(head)
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
    yield ""


def _keys(keys: Mapping[str, schema.Key]) -> Iterator[str]:
    rows = (
        (f"`{word}`", key.about, _form(key), key.default or "**required**", f"`{key.example}`")
        for word, key in keys.items()
    )
    return _table(["key", "what it is", "what is written", "left out", "for example"], rows)


def _form(key: schema.Key) -> str:
    """What is written behind a key, for people."""
    if key.choices:
        return ", ".join(f"`{word}`" for word in key.choices)
    return schema.FORMS.get(key.form) or f"a mapping: see {_PARTS[key.form][0].lower()}"


def page() -> str:
    """The reference page, in Markdown."""
    lines = [_HEAD]
    for name, (heading, about) in _PARTS.items():
        lines += [f"## {heading}", "", about, "", *_keys(schema.MAPPINGS[name][1])]
    lines += [
        "## Permissions",
        "",
        "Those marked with * cannot be limited to some objects: in a role with a scope they are an error, and left"
        " out of what a built-in role gives it.",
        "",
        *_table(
            ["permission", "allows to", *(f"`@{role}`" for role in BUILTIN_ROLES if role not in PLAIN_ROLES)],
            (
                (
                    f"`{name}`" + " *" * (name in NEVER_SCOPED),
                    about,
                    *("yes" * (name in held) for role, held in BUILTIN_ROLES.items() if role not in PLAIN_ROLES),
                )
                for name, about in PERMISSIONS.items()
            ),
        ),
        "## The roles of one kind",
        "",
        "Written without `@` in the users file. Each is about one kind of object, and nothing else has its tags.",
        "",
        *_table(
            ["role", "kind", "permissions"],
            (
                (f"`{role}`", kind, ", ".join(f"`{name}`" for name in sorted(BUILTIN_ROLES[role])))
                for role, kind in PLAIN_ROLES.items()
            ),
        ),
        "## Parameters",
        "",
        "A parameter is limited to a value, a list of values, or a range `{min: …, max: …}` of which both ends are"
        ' allowed; `"*"` alone is any value. What a role lists replaces what its preset allows; what is neither'
        " listed nor allowed by the preset is refused. A field that names an instance, a node, a group or a network"
        " is no parameter: the scope decides on it.",
        "",
        *_table(["form", "limits"], ((form, about) for form, about in parameters.FORMS.items())),
        *_keys({"preset": schema.PRESET, **schema.RANGE}),
        *_table(
            ["parameter", "what it is", "form", "`restricted` allows"],
            (
                (
                    f"`{name}`",
                    known.about,
                    "exact names" if name == "command" else known.form,
                    str(known.restricted or "nothing"),
                )
                for name, known in [*PARAMETERS.items(), *((f"{name}.NAME", one) for name, one in OPEN_ENDED.items())]
            ),
        ),
    ]
    return "\n".join(lines).rstrip() + "\n"


def man() -> str:
    """The source of rapi-access.yaml(5), in reST."""
    lines = [_MAN]
    for name, (heading, about) in _PARTS.items():
        lines += [heading.upper(), "=" * len(heading), "", _literal(about), ""]
        for word, key in schema.MAPPINGS[name][1].items():
            left_out = f"Left out: {key.default}." if key.default else "**It has to be there.**"
            lines += [f"``{word}``", _literal(f"    {key.about} Written: {_form(key)}. {left_out}"), ""]
    return "\n".join([*lines, _MAN_END])


def _literal(text: str) -> str:
    """Markdown's way of writing what stands for itself, in reST's."""
    return text.replace("`", "``")


# The JSON Schema. What it cannot say (a range that is empty, a key that stands twice) the
# loader alone finds; whatever it refuses, the loader refuses, too.


def _one_or_list(items: Mapping[str, Any]) -> dict[str, Any]:
    return {"anyOf": [items, {"type": "array", "items": items, "minItems": 1}]}


def _text(pattern: str, longest: int) -> dict[str, Any]:
    return {"type": "string", "pattern": pattern, "minLength": 1, "maxLength": longest}


_STARS = r"^(?:[^*\x00-\x1f]*\*){0,4}[^*\x00-\x1f]*$"
_COUNT = {"type": "integer", "minimum": 0}
_SIZE = {"anyOf": [_COUNT, {"type": "string", "pattern": "^(?:0|[1-9][0-9]{0,8})[MGT]$"}]}
_NUMBER = {"type": "integer"}
_FLAG = {"type": "boolean"}
_VALUE = {"type": ["string", "integer", "boolean"], "minLength": 1}
_TEXT = {"type": "string", "minLength": 1}
_ROLE_NAME = r"^[^\s,@]+$"


def _ref(name: str, about: str = "") -> dict[str, Any]:
    """What a definition says; in draft 7 nothing may stand beside a `$ref`."""
    ref = {"$ref": "#/definitions/" + name.replace(" ", "-")}
    return {"description": about, "allOf": [ref]} if about else ref


def _patterns(letters: str, longest: int) -> dict[str, Any]:
    return _one_or_list({"allOf": [_text(rf"^(?:[{letters}]|\{{user\}})+$", longest), {"pattern": _STARS}]})


def _permissions(*more: str) -> dict[str, Any]:
    words = [*PERMISSIONS, *(f"@{role}" for role in BUILTIN_ROLES), *more]
    return {"type": "array", "minItems": 1, "items": {"enum": words}}


def _limit(form: str) -> dict[str, Any]:
    """The limits of a parameter of a form."""
    anything = {"const": "*"}
    text = {"type": "string", "minLength": 1, "not": {"pattern": r"\{user\}"}, "pattern": _STARS, "maxLength": 1024}
    value: Any = {
        "text": text,
        "number": _NUMBER,
        "size": _SIZE,
        "flag": _FLAG,
        "any": {"anyOf": [text, {"type": ["integer", "boolean"]}]},
    }.get(form)
    if value is None:
        return anything
    if form in ("text", "flag"):
        return {"anyOf": [anything, _one_or_list(value)]}
    end = _SIZE if form == "size" else _NUMBER
    ends = {"type": "object", "properties": dict.fromkeys(schema.RANGE, end), "additionalProperties": False}
    return {"anyOf": [anything, _one_or_list(value), {**ends, "minProperties": 1}]}


def _parameters() -> dict[str, Any]:
    """The mapping of parameters and their limits."""
    known: dict[str, Any] = {"preset": {"enum": list(PRESETS), "description": schema.PRESET.about}}
    for name, one in PARAMETERS.items():
        known[name] = _ref(f"limit of {one.form}", one.about)
    known["command"] = {
        **_one_or_list(_text(f"^{COMMAND_NAME.pattern}$", 64)),
        "description": PARAMETERS["command"].about,
    }
    return {
        "type": "object",
        "properties": known,
        "patternProperties": {
            rf"^{name}\.[A-Za-z0-9_-]+$": _ref(f"limit of {one.form}", one.about) for name, one in OPEN_ENDED.items()
        },
        "additionalProperties": False,
    }


def _values() -> dict[str, Any]:
    """The mapping of parameters and their values in a test."""
    return {
        "type": "object",
        "properties": {name: _ref(f"value of {one.form}") for name, one in PARAMETERS.items()},
        "patternProperties": {rf"^{name}\.[A-Za-z0-9_-]+$": _ref("value of any") for name in OPEN_ENDED},
        "additionalProperties": False,
    }


def _forms() -> dict[str, Any]:
    """form -> its schema."""
    tags = r"A-Za-z0-9_.+*?/:@\-"
    values: dict[str, Any] = {"number": _NUMBER, "size": _SIZE, "flag": _FLAG, "text": _TEXT}
    return {
        "version": {"const": 1},
        "text": _TEXT,
        "flag": _FLAG,
        "count": _COUNT,
        "size": _SIZE,
        "roles": {
            "type": "object",
            "propertyNames": {"pattern": _ROLE_NAME, "not": {"enum": list(BUILTIN_ROLES)}},
            "additionalProperties": _ref("role"),
        },
        "permissions": _permissions(),
        "denied permissions": {"anyOf": [{"const": "*"}, _permissions("*")]},
        "selectors": _one_or_list(_ref("selector")),
        "names": _patterns(r"a-z0-9*?._\-", MAX_NAME),
        "tag patterns": _patterns(tags, MAX_TAG),
        "users": _one_or_list(
            {**_text(r"^\S+$", 1024), "not": {"pattern": r"\{user\}"}, "allOf": [{"pattern": _STARS}]}
        ),
        "parameters": _parameters(),
        "stamps": _patterns(tags.replace("*?", ""), MAX_TAG),
        "denies": {"type": "array", "minItems": 1, "items": _ref("deny")},
        "tests": {"type": "array", "minItems": 1, "items": _ref("test")},
        "permission": {"enum": list(PERMISSIONS)},
        "name or object": {"anyOf": [_TEXT, _ref("object")]},
        "group names": _one_or_list(_TEXT),
        "tags": _one_or_list(_TEXT),
        "values": _values(),
        **{f"limit of {form}": _limit(form) for form in parameters.FORMS},
        **{f"value of {form}": _one_or_list(values.get(form, _VALUE)) for form in parameters.FORMS},
    }


def _mapping(name: str) -> dict[str, Any]:
    keys = schema.MAPPINGS[name][1]

    def value(key: schema.Key) -> dict[str, Any]:
        return {"enum": list(key.choices), "description": key.about} if key.choices else _ref(key.form, key.about)

    found: dict[str, Any] = {
        "type": "object",
        "properties": {word: value(key) for word, key in keys.items()},
        "required": [word for word, key in keys.items() if key.required],
        "additionalProperties": False,
    }
    if name in ("selector", "quota", "audit"):
        found["minProperties"] = 1
    return found


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 7) of a policy."""
    definitions = {name.replace(" ", "-"): form for name, form in _forms().items()}
    definitions.update({name: _mapping(name) for name in schema.MAPPINGS})
    one_kind = [f"@{role}" for role in PLAIN_ROLES]
    definitions["role"].update(
        {
            "if": {"required": ["scope"]},
            "then": {"properties": {"permissions": {"items": {"not": {"enum": sorted(NEVER_SCOPED)}}}}},
            "else": {"properties": {"permissions": {"items": {"not": {"enum": one_kind}}}}},
        }
    )
    cluster = {"required": ["kind"], "properties": {"kind": {"const": "cluster"}}}
    definitions["object"].update(
        {"if": cluster, "then": {"not": {"required": ["name"]}}, "else": {"required": ["name"]}}
    )
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Access policy of ganeti-ext (rapi-access.yaml)",
        **definitions.pop("policy"),
        "definitions": definitions,
    }


def _json() -> str:
    return json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Prints one of them."""
    parser = argparse.ArgumentParser(prog="python3 -m ganeti_ext.policy.reference")
    parser.add_argument("what", choices=["page", "schema", "man"])
    what = parser.parse_args().what
    print({"page": page, "schema": _json, "man": man}[what](), end="")


if __name__ == "__main__":
    main()
