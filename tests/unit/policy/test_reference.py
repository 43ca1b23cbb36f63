# SPDX-License-Identifier: BSD-2-Clause
"""The reference and the editors' schema are those of the code, and the schema refuses what the loader refuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

from ganeti_ext.policy import reference, schema
from ganeti_ext.policy.loader import load_policy
from ganeti_ext.policy.parameters import PARAMETERS
from ganeti_ext.policy.vocabulary import BUILTIN_ROLES, PERMISSIONS
from tests.unit.policy import cases

DOCS = Path(__file__).parents[3] / "docs"
VALIDATOR = jsonschema.Draft7Validator(reference.json_schema())

#: What a schema cannot say.
BEYOND = (
    "stands twice",
    "no value of disks.size is at least",
    "write `version: 1`",
    "must be `true` or `false`",
    "lacks `parameters: {command",
)


#: What is no text, or another number, for YAML, and what Python's `$` matches before.
BEYOND_TEXTS = ("  on:", "  yes:", "  5:", "  null:", "  2026-11-22:", "010", "1:30", '\\n"')


def values_of(text: str) -> Any:
    """What an editor sees: `on` is no flag for it, but a key as it is written."""

    def value(node: yaml.Node | None) -> Any:
        if isinstance(node, yaml.MappingNode):
            return {str(key.value): value(inner) for key, inner in node.value}
        if isinstance(node, yaml.SequenceNode):
            return [value(inner) for inner in node.value]
        return yaml.SafeLoader("").construct_object(node)

    return value(yaml.compose(text))


@pytest.mark.parametrize(
    ("what", "name"),
    [("page", "policy-reference.md"), ("schema", "rapi-access.schema.json"), ("man", "rapi-access.yaml.5.rst")],
)
def test_what_is_committed_is_what_is_made(what: str, name: str) -> None:
    made = subprocess.run(
        [sys.executable, "-m", "ganeti_ext.policy.reference", what],
        stdout=subprocess.PIPE,
        check=True,
        encoding="utf-8",
    )
    assert (DOCS / name).read_text(encoding="utf-8") == made.stdout, f"make docs/{name} anew"


def test_the_page_names_everything() -> None:
    page = reference.page()
    for _, keys in schema.MAPPINGS.values():
        for word, key in keys.items():
            assert f"| `{word}` | {key.about} |" in page
    for name, about in {**PERMISSIONS, **{name: known.about for name, known in PARAMETERS.items()}}.items():
        assert re.search(rf"^\| `{re.escape(name)}`( \*)? \| {re.escape(about)} \|", page, re.MULTILINE)
    for role in BUILTIN_ROLES:
        assert f"`@{role}`" in page or f"| `{role}` |" in page


def test_the_man_page_names_every_key_where_it_belongs() -> None:
    """As a reader of man pages sees it, without a warning of the program that makes it."""
    core = pytest.importorskip("docutils.core")
    told = core.publish_string(
        (DOCS / "rapi-access.yaml.5.rst").read_text(encoding="utf-8"),
        writer_name="manpage",
        settings_overrides={"halt_level": 2, "report_level": 2, "output_encoding": "unicode"},
    )
    assert ".TH " in told and "RAPI-ACCESS.YAML" in told.upper()
    parts = dict(re.findall(r"^\.SH (.*)\n((?:(?!\.SH ).*\n)*)", told, re.MULTILINE))
    for name, (_, keys) in schema.MAPPINGS.items():
        heading = reference._PARTS[name][0].upper()
        found = re.findall(r"^\.TP\n\.B (?:\\f\w)*([\w-]+)", parts[heading].replace("\\fP", ""), re.MULTILINE)
        assert found == list(keys), heading


def test_the_examples_of_the_keys_are_taken() -> None:
    for name, (_, keys) in schema.MAPPINGS.items():
        whole = {word: key.example for word, key in keys.items()}
        texts = [{word: whole[word] for word in keys if keys[word].required or word == one} for one in keys]
        for words in texts:
            inner = "{" + ", ".join(f"{word}: {example}" for word, example in words.items()) + "}"
            around = {
                "policy": "{}",
                "role": "{{version: 1, roles: {{r: {}}}}}",
                "scope": "{{version: 1, roles: {{r: {{permissions: [tags.set], scope: {}}}}}}}",
                "selector": "{{version: 1, roles: {{r: {{permissions: [tags.set], scope: {{nodes: {}}}}}}}}}",
                "quota": "{{version: 1, roles: {{r: {{permissions: [tags.set], quota: {}}}}}}}",
                "deny": "{{version: 1, deny: [{}]}}",
                "test": "{{version: 1, tests: [{}]}}",
                "object": "{{version: 1, tests: [{{user: a, do: tags.set, expect: deny, on: {}}}]}}",
                "audit": "{{version: 1, audit: {}}}",
            }[name]
            if name == "object" and "name" not in words:
                inner = inner[:-1] + ", name: n}"
            text = inner if around == "{}" else around.format(inner)
            load_policy(text.encode(), name)
            assert not list(VALIDATOR.iter_errors(values_of(text))), text


def test_it_is_a_schema() -> None:
    jsonschema.Draft7Validator.check_schema(json.loads((DOCS / "rapi-access.schema.json").read_text(encoding="utf-8")))


@pytest.mark.parametrize("text", cases.GOOD)
def test_what_the_loader_takes_the_schema_takes(text: str) -> None:
    assert [error.message for error in VALIDATOR.iter_errors(values_of(text))] == []


@pytest.mark.parametrize(("text", "message"), [(case[0], case[3]) for case in cases.BAD])
def test_what_the_loader_refuses_the_schema_refuses(text: str, message: str) -> None:
    refused = not VALIDATOR.is_valid(values_of(text))
    assert refused or any(words in message for words in BEYOND) or any(words in text for words in BEYOND_TEXTS)
