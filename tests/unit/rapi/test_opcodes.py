# SPDX-License-Identifier: BSD-2-Clause
"""The table of opcodes is Ganeti's: each entry exists, and what is not in it is refused."""

from __future__ import annotations

from typing import Any

import pytest
from ganeti import opcodes as ganeti_opcodes

from ganeti_ext.rapi import opcodes
from ganeti_ext.rapi.opcodes import RULES, ParameterRefused, Rule, check_parameters, flatten, objects_of, permissions_of

#: Fields that every opcode has.
COMMON = {"dry_run", "comment", "reason"}


def parameters(name: str) -> dict[str, Any]:
    return {name: default for name, default, _, _ in getattr(ganeti_opcodes, name).GetAllParams()}


@pytest.mark.parametrize("name", RULES)
def test_an_entry_names_an_opcode_and_its_fields(name: str) -> None:
    rule = RULES[name]
    assert {*rule.names, *rule.new_names, *rule.settable, *rule.written} <= parameters(name).keys()


@pytest.mark.parametrize("name", RULES)
def test_unset_fields_pass(name: str) -> None:
    check_parameters(
        getattr(ganeti_opcodes, name)(kind="instance") if "OpTags" in name else getattr(ganeti_opcodes, name)()
    )


@pytest.mark.parametrize(
    ("name", "parameter"),
    [
        (name, parameter)
        for name, rule in RULES.items()
        for parameter in parameters(name)
        if parameter
        not in {*rule.names, *rule.new_names, *rule.settable, *rule.written, *COMMON, "instance_uuid", "kind"}
    ],
)
def test_a_field_that_is_not_listed_is_refused(name: str, parameter: str) -> None:
    op = getattr(ganeti_opcodes, name)(**{parameter: "something"})
    with pytest.raises(ParameterRefused, match=f"parameter {parameter} of {name}" if "OpTags" not in name else name):
        check_parameters(op)


@pytest.mark.parametrize("name", [op.__name__ for op in ganeti_opcodes.OP_MAPPING.values() if op.__name__ not in RULES])
def test_an_opcode_that_is_not_listed_is_refused(name: str) -> None:
    with pytest.raises(ParameterRefused, match=name):
        check_parameters(getattr(ganeti_opcodes, name)())


@pytest.mark.parametrize("kind", ["cluster", "node", "nodegroup", "network", None, "", "Instance"])
@pytest.mark.parametrize("name", ["OpTagsSet", "OpTagsDel"])
def test_tags_are_an_instances(name: str, kind: Any) -> None:
    op = getattr(ganeti_opcodes, name)(kind=kind, name="a", tags=["x"])
    assert objects_of(op)[0][0] != "instance"
    if kind:
        with pytest.raises(ParameterRefused):
            check_parameters(op)


def test_the_kind_of_a_group_is_the_word_of_the_roles() -> None:
    assert objects_of(ganeti_opcodes.OpTagsSet(kind="nodegroup", name="g", tags=["x"])) == [("group", "g")]


@pytest.mark.parametrize("value", [[5], ["x"], [None], [["size"]], {"size": 1}, "x", 5, [{"size": 1, "vg": "x"}, {}]])
def test_disks_of_another_form(value: Any) -> None:
    with pytest.raises(ParameterRefused):
        check_parameters(ganeti_opcodes.OpInstanceCreate(disks=value))


def test_nested_opcodes_are_seen() -> None:
    inner = ganeti_opcodes.OpInstanceCreate(instance_name="a")
    outer = ganeti_opcodes.OpInstanceMultiAlloc(instances=[inner])
    assert list(flatten([outer, inner])) == [(outer, False), (inner, True), (inner, False)]
    assert permissions_of(inner, True) == {"instances.create"}
    assert permissions_of(inner, False) == set()


def test_names_of_an_opcode() -> None:
    rename = ganeti_opcodes.OpInstanceRename(instance_name="a", new_name="b")
    assert objects_of(rename) == [("instance", "a"), ("instance", "b")]
    assert objects_of(ganeti_opcodes.OpTagsSet(kind="cluster")) == [("cluster", "")]
    assert objects_of(ganeti_opcodes.OpClusterRedistConf()) == []


def test_a_rule_alone_allows_nothing() -> None:
    assert Rule().settable == {}
    assert opcodes.RULES["OpInstanceFailover"].settable == {}
