# SPDX-License-Identifier: BSD-2-Clause
"""Every key of the policy language, once: the loader, the reference page and the editors' schema go by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ganeti_ext.policy.parameters import PRESETS


@dataclass(frozen=True)
class Key:
    """One key of a mapping.

    `form` is one of FORMS, or the name of a mapping of MAPPINGS. `default` says what holds without
    the key; a key that has none is required.
    """

    form: str
    about: str
    example: str
    default: str = ""
    #: The words that a key of form `choice` takes.
    choices: tuple[str, ...] = ()

    @property
    def required(self) -> bool:
        """Whether it may not be left out."""
        return not self.default


#: form -> what is written there, for people.
FORMS: Mapping[str, str] = {
    "version": "the number 1",
    "text": "a text",
    "flag": "`true` or `false`",
    "choice": "one of some words",
    "count": "a whole number, 0 or more",
    "number": "a whole number; of a parameter that is a size, a size",
    "size": "a size: `512M`, `8G`, `1T`, or a whole number of MiB",
    "roles": "a mapping: the name of a role, and the role",
    "permissions": "a list of permissions, and of built-in roles with `@`",
    "denied permissions": 'a list of permissions and built-in roles, or `"*"` for all',
    "selectors": "a selector or a list of them: what one of them picks is picked",
    "names": "a pattern or a list of them, in lower case; `*` is any characters, `?` one, `{user}` the user's name",
    "tag patterns": "a pattern or a list of them",
    "users": "a pattern or a list of them",
    "parameters": "a mapping: parameters by their names, and the values that each may have",
    "stamps": "a tag or a list of them, without wildcards; may hold `{user}`",
    "denies": "a list of denies",
    "tests": "a list of tests",
    "permission": "a permission",
    "name or object": "the name of an object, or a mapping",
    "group names": "a name or a list of them",
    "tags": "a tag or a list of them",
    "values": "a mapping: parameters by their names, and a value or a list of values",
}

_SELECTORS = "the objects of this kind: `name`, `tag`, `group`"

_POLICY = {
    "version": Key("version", "The version of this language.", "1"),
    "roles": Key(
        "roles",
        "The roles that the users file may give, with `@` before the name.",
        '{watcher: {permissions: ["@readonly"]}}',
        "there are the built-in roles only",
    ),
    "deny": Key(
        "denies",
        "What is refused, whatever grants it.",
        '[{users: "*", except: [root], permissions: [instances.remove], instances: {tag: keep}}]',
        "nothing is",
    ),
    "tests": Key(
        "tests",
        "What has to hold, or the policy is not taken.",
        "[{user: test1, do: instances.reboot, on: web1.example.com, expect: deny}]",
        "nothing is asked",
    ),
    "audit": Key("audit", "What is recorded beside denials and changes.", "{reads: true}", "nothing else is"),
}

_ROLE = {
    "description": Key("text", "What the role is for, in a line.", "Runs the test instances", "nothing is said"),
    "permissions": Key("permissions", "What the role may do.", '["@operator", instances.create]'),
    "scope": Key(
        "scope",
        "The objects that the role is limited to; a kind that is not named is none of them.",
        '{instances: {name: "*.test.example.com"}}',
        "the whole cluster",
    ),
    "parameters": Key(
        "parameters",
        "What a request may set. A closed list: what is neither here nor in the preset is refused.",
        "{os_type: [noop], beparams.maxmem: {max: 8G}}",
        "`{preset: restricted}` for a role with a scope, anything for one without",
    ),
    "tags": Key("stamps", "Tags that are put on whatever the role creates.", '"tenant:{user}"', "none"),
    "jobs": Key(
        "choice",
        "Whose jobs the role reads, waits for, cancels and depends on: the user's `own`, or `all`.",
        "own",
        "`own` for a role with a scope, `all` for one without",
        ("own", "all"),
    ),
    "quota": Key("quota", "How much each user may have by this role.", "{instances: 10, memory: 64G}", "no limit"),
    "mode": Key(
        "choice",
        "With `warn`, what only the role's scope or parameters forbid is logged and let through.",
        "enforce",
        "`enforce`",
        ("enforce", "warn"),
    ),
}

_OBJECTS = {
    "instances": Key("selectors", "Instances.", '{name: "*.test.example.com"}', "none"),
    "nodes": Key("selectors", "Nodes.", "{group: default}", "none"),
    "groups": Key("selectors", "Node groups.", "{name: default}", "none"),
    "networks": Key("selectors", "Networks.", "{name: [test-net, dev-net]}", "none"),
}

_SELECTOR = {
    "name": Key("names", "The name of the object.", '"*.test.example.com"', "any name"),
    "tag": Key("tag patterns", "One of the object's tags.", '"tenant:{user}"', "any tags, or none"),
    "group": Key(
        "names",
        "The node group: of an instance those of all its nodes, of a node its own, of a group itself, of a network"
        " all that it is connected to.",
        "default",
        "any group",
    ),
}

_DENY = {
    "users": Key("users", "The users that it is about, with or without a role.", '"*"'),
    "except": Key("users", "The users that it is not about.", "[root]", "nobody"),
    "permissions": Key("denied permissions", "What they may not do.", "[instances.remove]"),
    **{
        kind: Key(
            key.form,
            f"{key.about} A request that touches one of them is refused.",
            key.example,
            "none; where no kind of object is named, any request is refused",
        )
        for kind, key in _OBJECTS.items()
    },
}

_TEST = {
    "user": Key("text", "The user who asks.", "test1"),
    "do": Key("permission", "What is asked for.", "instances.reboot"),
    "on": Key("name or object", "The object that it is asked for.", "web1.test.example.com", "no object is looked at"),
    "expect": Key("choice", "The right answer.", "allow", choices=("allow", "deny")),
    "parameters": Key("values", "What the request sets.", "{beparams.maxmem: 16G}", "nothing"),
    "tokens": Key(
        "text",
        "The third column of a line of the users file, to go by in place of the user's own.",
        '"@test-operator,-instances.remove"',
        "the user's own line",
    ),
}

#: The kinds of objects that a test may be about.
TEST_KINDS = ("instance", "node", "group", "network", "cluster")

_OBJECT = {
    "kind": Key("choice", "Its kind.", "node", "what the permission is about, else an instance", TEST_KINDS),
    "name": Key("text", "Its name.", "node1.example.com", "none, of a cluster"),
    "tags": Key("tags", "Its tags.", "[keep]", "none"),
    "group": Key("group names", "The groups of its nodes.", "default", "one group that no policy names"),
}

#: mapping -> (how messages call it, its keys).
MAPPINGS: Mapping[str, tuple[str, Mapping[str, Key]]] = {
    "policy": ("the policy", _POLICY),
    "role": ("a role", _ROLE),
    "scope": ("a scope", _OBJECTS),
    "selector": ("a selector", _SELECTOR),
    "quota": (
        "a quota",
        {
            "instances": Key("count", "Instances.", "10", "no limit"),
            "vcpus": Key("count", "Processors of all of them.", "32", "no limit"),
            "memory": Key("size", "Memory of all of them.", "64G", "no limit"),
            "disk": Key("size", "Disks of all of them.", "1T", "no limit"),
        },
    ),
    "deny": ("a deny", _DENY),
    "test": ("a test", _TEST),
    "object": ("the object of a test", _OBJECT),
    "audit": ("audit", {"reads": Key("flag", "Reads that are allowed, too.", "true", "`false`")}),
}

#: The key of `parameters` that is no parameter.
PRESET = Key(
    "choice",
    "The limits to start from.",
    "none",
    "`restricted` for a role with a scope, `none` for one without",
    tuple(PRESETS),
)

#: A limit that is a range: both ends are allowed.
RANGE = {
    "min": Key("number", "The smallest value.", "1", "no bound"),
    "max": Key("number", "The largest value.", "8G", "no bound"),
}
