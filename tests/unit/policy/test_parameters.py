# SPDX-License-Identifier: BSD-2-Clause
"""A closed list: what is not on it is refused, and a limit takes what it says and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganeti_ext.policy.parameters import (
    ANY,
    FORMS,
    OPEN_ENDED,
    PARAMETERS,
    PRESETS,
    RESTRICTED,
    Limit,
    Parameters,
    parameter_named,
)
from ganeti_ext.policy.pattern import Pattern, Patterns

OS = Limit((Pattern("noop"), Pattern("debootstrap+*")))


@pytest.mark.parametrize(
    ("limit", "value"),
    [
        (ANY, "x"),
        (ANY, ["x"]),
        (ANY, None),
        (OS, "noop"),
        (OS, "debootstrap+default"),
        (Limit((1, 2)), 2),
        (Limit((True,)), True),
        (Limit(low=1), 1),
        (Limit(high=8), 8),
        (Limit(low=1, high=1), 1),
    ],
)
def test_allowed(limit: Limit, value: Any) -> None:
    assert limit.allows(value)


@pytest.mark.parametrize(
    ("limit", "value"),
    [
        (Limit(), ""),
        (Limit(), 0),
        (OS, "Noop"),
        (OS, "noop\n"),
        (OS, 5),
        (OS, True),
        (OS, None),
        (OS, ["noop"]),
        (OS, {"noop": 1}),
        (Limit((1,)), True),
        (Limit((1,)), "1"),
        (Limit((1,)), 1.0),
        (Limit((0,)), False),
        (Limit((True,)), 1),
        (Limit((True,)), False),
        (Limit((False,)), 0),
        (Limit(low=1), 0),
        (Limit(high=8), 9),
        (Limit(high=8), "8"),
        (Limit(high=8), True),
        (Limit(low=0), False),
        (Limit(high=8), 7.5),
        (Limit(high=8), float("nan")),
        (Limit(high=8), None),
    ],
)
def test_not_allowed(limit: Limit, value: Any) -> None:
    assert not limit.allows(value)


@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.text())))
def test_any_value_is_decided_on(value: Any) -> None:
    for limit in (Limit(), OS, Limit((1,)), Limit(low=1), Limit((True,))):
        assert limit.allows(value) in (True, False)
        assert Parameters({"tags": limit}).refusal([("tags", value)]) is not None


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        (ANY, "anything"),
        (OS, "noop, debootstrap+*"),
        (Limit((1, True)), "1, true"),
        (Limit(low=1, high=8), "at least 1 and at most 8"),
        (Limit(), "nothing"),
    ],
)
def test_a_limit_in_words(limit: Limit, text: str) -> None:
    assert str(limit) == text


def test_a_closed_list() -> None:
    limits = Parameters({"os_type": OS})
    assert limits.refusal([]) == ""
    assert limits.refusal([("os_type", "noop")]) == ""
    assert "os_type may not be set to this: allowed is noop" in limits.refusal([("os_type", "windows")])
    assert limits.refusal([("os_type", "noop"), ("start", True)]) == "parameter start may not be set"
    assert limits.refusal([("hvparams.kvm_path", "/bin/sh")]) == "parameter hvparams.kvm_path may not be set"


def test_protected_tags() -> None:
    limits = Parameters({"tags": ANY}, Patterns([Pattern("keep"), Pattern("tenant:*")]))
    assert limits.refusal([("tags", "web")]) == limits.protection([("tags", "web")]) == ""
    for tag in ("keep", "tenant:joe", ["web"], None):
        assert "that the policy goes by" in limits.refusal([("tags", tag)])
        assert "that the policy goes by" in limits.protection([("tags", "web"), ("tags", tag)])
    assert limits.protection([("os_type", "keep")]) == ""


@pytest.mark.parametrize(
    "name",
    [
        "os_type",
        "hypervisor",
        "hvparams.kvm_path",
        "osparams.x",
        "disks.adopt",
        "disks.vg",
        "disks.provider",
        "disks.access",
        "disks.other",
        "nics.link",
        "nics.mode",
        "nics.vlan",
        "file_storage_dir",
        "iallocator",
        "src_path",
        "ignore_ipolicy",
        "priority",
        "debug_level",
        "force",
        "command",
        "commit",
        "forthcoming",
        "no_such_parameter",
    ],
)
def test_restricted_leaves_out_what_leaves_the_instance(name: str) -> None:
    assert RESTRICTED.refusal([(name, "x")]) == f"parameter {name} may not be set"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mode", "import"),
        ("mode", "remote"),
        ("disk_template", "ext"),
        ("disk_template", "blockdev"),
        ("disks.action", "attach"),
        ("disks.action", "detach"),
        ("nics.mac", "aa:00:00:00:00:01"),
        ("nics.ip", "192.0.2.1"),
    ],
)
def test_restricted_allows_some_values_only(name: str, value: str) -> None:
    assert "allowed is" in RESTRICTED.refusal([(name, value)])


def test_restricted_allows_a_plain_instance() -> None:
    plain = [("mode", "create"), ("disk_template", "plain"), ("disks.size", 1024), ("beparams.maxmem", 512)]
    assert RESTRICTED.refusal([*plain, ("nics.mac", "auto"), ("start", False), ("tags", "web")]) == ""


@pytest.mark.parametrize("name", [*PARAMETERS, *(f"{name}.x" for name in OPEN_ENDED)])
def test_a_parameter_has_a_known_form_and_a_text(name: str) -> None:
    known = parameter_named(name)
    assert known is not None
    assert known.form in FORMS
    assert known.about


@pytest.mark.parametrize("name", ["", "x", "osparams", "osparams.", "osparams.a.b", "hvparams.*", "disks", "os_type.x"])
def test_what_is_no_parameter(name: str) -> None:
    assert parameter_named(name) is None


def test_the_presets() -> None:
    assert PRESETS["none"] == {}
    assert PRESETS["restricted"].keys() < PARAMETERS.keys()
