# SPDX-License-Identifier: BSD-2-Clause
"""The policies that the guide and the example show are taken, and their own tests hold."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest
import yaml

from ganeti_ext.policy.accounts import resolve
from ganeti_ext.policy.loader import load_policy
from ganeti_ext.policy.selftest import failures
from tests.unit.policy.test_reference import VALIDATOR, values_of

ROOT = Path(__file__).parents[3]


def shown(path: str) -> str:
    """The one policy of a page, or a file that is one."""
    text = (ROOT / path).read_text(encoding="utf-8")
    if path.endswith(".yaml"):
        return text
    found = re.search(r"^( +)version: 1\n(?:\1.*\n|\n(?=\1))*", text, re.MULTILINE)
    assert found is not None
    return textwrap.dedent(found[0])


@pytest.mark.parametrize("path", ["docs/policy.md", "examples/test-domain/rapi-access.yaml"])
def test_a_policy_that_is_shown_holds(path: str) -> None:
    policy = load_policy(shown(path).encode(), path)
    assert policy.tests
    assert failures(policy, lambda user: resolve(["@test-operator"], policy) if user == "test1" else None) == []
    assert list(VALIDATOR.iter_errors(values_of(shown(path)))) == []


def test_who_creates_may_take_an_os() -> None:
    parameters = (
        load_policy(shown("examples/test-domain/rapi-access.yaml").encode(), "x").roles["test-operator"].parameters
    )
    assert parameters is not None
    assert parameters.refusal([("os_type", "debootstrap+default"), ("disks.size", 1024)]) == ""
    assert parameters.refusal([("os_type", "windows")])


def test_the_names_of_the_reference_are_links_that_lead_somewhere() -> None:
    for page in ("policy.md", "policy-reference.md", "troubleshooting.md", "ganeti-rbac.md"):
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)#]+)\)", text):
            assert (ROOT / "docs" / link).exists(), link
    assert yaml.safe_load((ROOT / "docs" / "rapi-access.schema.json").read_text(encoding="utf-8"))["title"]
