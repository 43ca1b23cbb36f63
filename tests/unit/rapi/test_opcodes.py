# SPDX-License-Identifier: BSD-2-Clause
"""The table of opcodes is Ganeti's, whole: no opcode and no field of a later release slips past."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
from ganeti import constants, errors
from ganeti import opcodes as ganeti_opcodes
from ganeti.rapi import baserlib, connector
from hypothesis import assume, given
from hypothesis import strategies as st

from ganeti_ext.policy.parameters import OPEN_ENDED, PARAMETERS, PRESETS, parameter_named
from ganeti_ext.rapi.opcodes import (
    NOT_SUBMITTED,
    RULES,
    Naming,
    UnknownOpcode,
    UnusableParameter,
    check_values,
    flatten,
    namings,
    normalise,
    permissions_of,
    put_uuids,
    rule_of,
    values,
)
from ganeti_ext.rapi.resources import R_2_nodes_name_restricted_command

CLASSES: dict[str, Any] = {cls.__name__: cls for cls in ganeti_opcodes.OP_MAPPING.values()}

#: What later releases than 3.0 brought.
LATER = {"OpNetworkRename"}

#: Parameters that releases after 3.0 have no more.
EARLIER = {"hotplug_if_possible"}
KNOWN = [name for name in RULES if name in CLASSES]

#: What handlers submit without naming it in a `*_OPCODE`.
UNNAMED = {"OpInstanceShutdown", "OpInstanceStartup", "OpInstanceCreate"}

#: Parameters that are no field of an opcode: what lies inside of one, or what Ganeti knows by two names.
DERIVED = {
    "export_target",  # an export's target_node that is none
}


def submitted() -> set[str]:
    """The names of all opcodes that a handler of rlib2 can submit."""
    named = {
        opcode.__name__ for resource in connector.CONNECTOR.values() for opcode in baserlib.GetResourceOpcodes(resource)
    }
    named |= {opcode.__name__ for opcode in baserlib.GetResourceOpcodes(R_2_nodes_name_restricted_command)}
    return (named | UNNAMED) - NOT_SUBMITTED


def fields(name: str) -> dict[str, Any]:
    """Field -> default."""
    return {field: default for field, default, _, _ in CLASSES[name].GetAllParams()}


def made(name: str, /, **settings: Any) -> Any:
    if name.startswith("OpTags"):
        settings.setdefault("kind", "instance")
    return CLASSES[name](**settings)


# The table is whole.


def test_every_opcode_that_a_handler_submits_is_known() -> None:
    assert submitted() - set(RULES) == set()


def test_every_opcode_that_is_known_is_one_that_a_handler_submits() -> None:
    assert set(RULES) - submitted() <= LATER | {"OpBackupRemove"}
    assert set(RULES) - set(CLASSES) <= LATER


def test_what_no_handler_submits_is_named_by_one() -> None:
    """A new release that submits it, or forgets it, is seen."""
    named = {op.__name__ for cls in connector.CONNECTOR.values() for op in baserlib.GetResourceOpcodes(cls)}
    assert named >= NOT_SUBMITTED


@pytest.mark.parametrize("name", KNOWN)
def test_a_rule_names_fields_of_its_opcode(name: str) -> None:
    rule = RULES[name]
    assert {*rule.objects, *rule.new, *rule.uuids, *rule.written} <= fields(name).keys()
    assert set(rule.uuids.values()) <= rule.objects.keys()
    assert {*rule.objects.values(), *rule.new.values()} <= {"instance", "node", "group", "network"}


@pytest.mark.parametrize("name", KNOWN)
def test_an_opcode_that_names_an_object_and_can_be_pinned_is(name: str) -> None:
    """A field `X_uuid` beside a field `X` that names an object is written by us, or nobody could tell."""
    rule = RULES[name]
    for field in fields(name):
        if field.endswith(("_uuid", "_uuids")):
            assert field in rule.uuids, field
    named = [field for field in rule.objects if field not in rule.uuids.values()]
    assert named == [] or not rule.pinned or (name, named) == ("OpInstanceCreate", ["group_name"])


@pytest.mark.parametrize("name", [name for name in KNOWN if RULES[name].for_limited])
def test_every_field_is_an_object_or_a_parameter_of_the_policy(name: str) -> None:
    rule = RULES[name]
    decided = {*rule.objects, *rule.new, *rule.uuids, *rule.written, "dry_run", "comment", "reason", "depends"}
    if name.startswith("OpTags"):
        decided |= {"kind", "name"}
    if name == "OpInstanceMultiAlloc":
        decided |= {"instances"}  # each is an opcode by itself
    for field in fields(name):
        if field in decided or field in OPEN_ENDED:
            continue
        inside = [parameter for parameter in PARAMETERS if parameter.startswith(field + ".")]
        assert field in PARAMETERS or inside, f"{field} of {name}"


def test_every_parameter_of_the_policy_is_in_an_opcode() -> None:
    known = {field for name in {*KNOWN} for field in fields(name)}
    for parameter in {*PARAMETERS, *OPEN_ENDED} - DERIVED - EARLIER:
        assert parameter.partition(".")[0] in known, parameter


def test_what_lies_inside_of_a_field_is_ganetis() -> None:
    """Each entry of a disk, a card or `beparams` has its own parameter; a disk may have any other."""
    inside = {
        "disks": (constants.IDISK_PARAMS, {"action", "index", "uuid", "other"}),
        "nics": (constants.INIC_PARAMS, {"action", "index", "uuid"}),
        "beparams": (constants.BES_PARAMETERS, set()),
    }
    for field, (ganetis, ours) in inside.items():
        named = {name.partition(".")[2] for name in PARAMETERS if name.startswith(field + ".")}
        assert named - ours <= set(ganetis) | {"dev_type"}, field
        missing = set(ganetis) - named - {"memory"}
        assert missing <= ({"network"} if field == "nics" else set()), field  # a network is an object


@pytest.mark.parametrize("name", [name for name in CLASSES if name not in RULES])
def test_an_opcode_that_is_not_known_is_refused(name: str) -> None:
    for limited in (True, False):
        with pytest.raises(UnknownOpcode, match=name):
            rule_of(CLASSES[name](), limited)


@pytest.mark.parametrize("name", ["OpClusterSetParams", "OpClusterRedistConf"])
def test_what_belongs_to_everybody_is_for_no_limited_role(name: str) -> None:
    assert rule_of(CLASSES[name](), limited=False) is RULES[name]
    with pytest.raises(UnknownOpcode, match=name):
        rule_of(CLASSES[name]())


@pytest.mark.parametrize("name", [name for name in KNOWN if "Cluster" not in name])
def test_every_other_opcode_is_for_a_limited_role(name: str) -> None:
    assert rule_of(made(name)) is RULES[name]


# What is set.


@pytest.mark.parametrize("name", KNOWN)
def test_a_default_is_not_set(name: str) -> None:
    assert values(made(name)) == []
    assert values(made(name, **fields(name))) == []


@pytest.mark.parametrize(
    ("name", "field"),
    [
        (name, field)
        for name in KNOWN
        for field in fields(name)
        if field not in {*RULES[name].objects, *RULES[name].new, *RULES[name].written}
        and field not in {"dry_run", "comment", "reason", "depends", "instance_uuid", "node_uuid", "kind", "instances"}
        and not (name.startswith("OpTags") and field == "name")
    ],
)
def test_any_other_field_is_seen(name: str, field: str) -> None:
    """With a value that is no default it is among the values, under its name or one that starts with it."""
    for value in ("something", ["something"], {"something": 1}, [{"something": 1}], 7, True, False, 0, 1.5):
        if value == fields(name)[field]:
            continue
        try:
            found = values(made(name, **{field: value}))
        except UnusableParameter:
            continue
        assert found, value
        for parameter, _ in found:
            assert parameter.partition(".")[0] == field, value


@pytest.mark.parametrize(
    ("op", "found"),
    [
        (made("OpInstanceSetParams", offline=False), [("offline", False)]),
        (made("OpInstanceSetParams", offline=None), []),
        (made("OpInstanceSetParams", iallocator=""), []),
        (made("OpInstanceMigrate", allow_runtime_changes=False), [("allow_runtime_changes", False)]),
        (made("OpInstanceCreate", helper_shutdown_timeout=0), [("helper_shutdown_timeout", 0)]),
        (made("OpInstanceCreate", no_install=True), [("no_install", True)]),
        (made("OpInstanceCreate", tags=["a", "b"]), [("tags", "a"), ("tags", "b")]),
        (made("OpInstanceCreate", hvparams={"kvm_path": "/x"}), [("hvparams.kvm_path", "/x")]),
        (made("OpInstanceCreate", osparams={"a": 1, "b": None}), [("osparams.a", 1), ("osparams.b", None)]),
        (made("OpInstanceCreate", beparams={"memory": 5}), [("beparams.minmem", 5), ("beparams.maxmem", 5)]),
        (
            made("OpInstanceCreate", beparams={"maxmem": 1, "memory": 5}),
            [("beparams.maxmem", 1), ("beparams.minmem", 5), ("beparams.maxmem", 5)],
        ),
        (made("OpInstanceCreate", disks=[{"size": 5, "mode": "ro"}]), [("disks.size", 5), ("disks.mode", "ro")]),
        (made("OpInstanceCreate", disks=[{}, {"x": 1}]), [("disks.other", 1)]),
        (made("OpInstanceCreate", nics=[{}, {"mac": "auto"}]), [("nics.mac", "auto")]),
        (made("OpInstanceCreate", nics=[{"network": "net1"}]), []),
        (made("OpInstanceCreate", pnode="node1", pnode_uuid="u"), [("pnode_uuid", "u")]),
        (made("OpInstanceReplaceDisks", disks=[0, 2]), [("disks.index", 0), ("disks.index", 2)]),
        (made("OpInstanceRecreateDisks", disks=[[1, {"size": 5}]]), [("disks.index", 1), ("disks.size", 5)]),
        (made("OpInstanceSetParams", disks=[["add", {"size": 5}]]), [("disks.action", "add"), ("disks.size", 5)]),
        (made("OpInstanceSetParams", disks=[["remove", {}]]), [("disks.action", "remove")]),
        (made("OpInstanceSetParams", disks=[[0, {"mode": "ro"}]]), [("disks.index", 0), ("disks.mode", "ro")]),
        (
            made("OpInstanceSetParams", disks=[["add", -1, {"size": 5}]]),
            [("disks.action", "add"), ("disks.index", -1), ("disks.size", 5)],
        ),
        (
            made("OpInstanceSetParams", disks=[["modify", "-1", {"name": "x"}]]),
            [("disks.action", "modify"), ("disks.index", -1), ("disks.name", "x")],
        ),
        (
            made("OpInstanceSetParams", disks=[["attach", "0", {"uuid": "u"}]]),
            [("disks.action", "attach"), ("disks.index", 0), ("disks.other", "u")],
        ),
        (
            made("OpInstanceSetParams", nics=[["modify", "a-uuid", {"ip": "192.0.2.1"}]]),
            [("nics.action", "modify"), ("nics.uuid", "a-uuid"), ("nics.ip", "192.0.2.1")],
        ),
        (
            made("OpInstanceSetParams", nics=[["add", -1, {"network": "net1"}]]),
            [("nics.action", "add"), ("nics.index", -1)],
        ),
        (
            made("OpInstanceSetParams", nics=[["modify", 0, {"network": "none"}]]),
            [("nics.action", "modify"), ("nics.index", 0), ("nics.network", "none")],
        ),
        (made("OpBackupExport", target_node="node1"), []),
        (made("OpBackupExport", target_node=[["h", 1]]), [("export_target", [["h", 1]])]),
        (made("OpBackupExport", x509_key_name=["a", 5]), [("x509_key_name", ["a", 5])]),
        (made("OpNodeSetParams", ndparams={"oob_program": "/x"}), [("ndparams.oob_program", "/x")]),
        (made("OpNodeModifyStorage", name="sda", changes={"a": True}), [("name", "sda"), ("changes", {"a": True})]),
        (made("OpTagsSet", name="web1", tags=["a"]), [("tags", "a")]),
        (made("OpGroupSetParams", ipolicy={"std": {}}), [("ipolicy", {"std": {}})]),
    ],
    ids=str,
)
def test_values(op: Any, found: list[tuple[str, Any]]) -> None:
    assert sorted(values(op), key=str) == sorted(found, key=str)


@pytest.mark.parametrize(
    "disks",
    [
        5,
        "x",
        {"size": 1},
        ["x"],
        [None],
        [True],
        [1.5],
        [[]],
        [[0]],
        [["add"]],
        [["add", 0]],
        [["add", 0, 1, {}]],
        [["add", []]],
        [["sub", 0, {}]],
        [[0, 0, {}]],
        [[[], 0, {}]],
        [[[], {}]],
        [[{}, {}]],
        [[True, {}]],
        [["add", True, {}]],
        [["add", None, {}]],
        [["add", [], {}]],
        [{5: 1}],
        [["add", {5: 1}]],
    ],
    ids=str,
)
@pytest.mark.parametrize("field", ["disks", "nics"])
def test_what_is_no_disk_and_no_card(field: str, disks: Any) -> None:
    for name in ("OpInstanceCreate", "OpInstanceSetParams"):
        with pytest.raises(UnusableParameter, match=field):
            values(made(name, **{field: disks}))


@pytest.mark.parametrize("field", ["beparams", "hvparams", "osparams", "osparams_private", "osparams_secret"])
@pytest.mark.parametrize("value", [5, "x", [1], {1: 2}, [["a", 1]]], ids=str)
def test_what_is_no_dictionary(field: str, value: Any) -> None:
    with pytest.raises(UnusableParameter, match=field):
        values(made("OpInstanceCreate", **{field: value}))


@pytest.mark.parametrize("which", ["--5", "5-", "\u00b2", "\u0665", "+5", " 5", "1_0", "5.0", "", "-", "0x5"])
def test_only_a_number_is_a_disks_number(which: str) -> None:
    """What could be read as a number by Ganeti, and as a name here, counts as the name, which is more."""
    assert ("disks.uuid", which) in values(made("OpInstanceSetParams", disks=[["modify", which, {}]]))


def test_the_restricted_preset_allows_only_known_parameters() -> None:
    assert all(parameter_named(name) is not None for name in PRESETS["restricted"])


# Whatever Ganeti accepts.

WORDS = st.text(alphabet="ab0-1_. +\u00b2", max_size=4)
SCALARS = st.one_of(WORDS, st.integers(-3, 20), st.booleans(), st.none(), st.floats(allow_nan=True))
ACTION = st.sampled_from(["add", "remove", "modify", "attach", "detach"])
DISK = st.dictionaries(
    st.sampled_from(["size", "mode", "vg", "adopt", "x", "spindles"]),
    st.one_of(WORDS.filter(bool), st.integers(-3, 5000), st.sampled_from(["8G", "1.5t", "1 X"])),
    max_size=3,
)
CARD = st.dictionaries(
    st.sampled_from(["mac", "ip", "network", "link", "vlan"]),
    st.one_of(WORDS, st.none(), st.sampled_from(["none", "pool", "net1"])),
    max_size=3,
)


def devices(settings: Any) -> Any:
    """Lists of disks or cards in all the forms that Ganeti takes."""
    return st.one_of(
        st.lists(settings, max_size=3),
        st.lists(st.integers(0, 20), max_size=3),
        st.lists(st.tuples(st.integers(0, 20), settings).map(list), max_size=3),
        st.lists(st.tuples(ACTION, settings).map(list), max_size=3),
        st.lists(st.tuples(ACTION, st.one_of(st.integers(-2, 3), WORDS), settings).map(list), max_size=3),
    )


DEVICES = {"disks": devices(DISK), "nics": devices(CARD)}
DICTIONARY = st.dictionaries(
    st.one_of(st.sampled_from(["memory", "maxmem", "minmem", "vcpus", "spindle_use", "kvm_path"]), SCALARS),
    st.one_of(SCALARS, st.sampled_from(["8G", "default", "4 X", "1e3"]), st.lists(SCALARS, max_size=2)),
    max_size=4,
)
ANYTHING = st.one_of(SCALARS, DICTIONARY, st.lists(SCALARS, max_size=3), st.lists(WORDS, max_size=3))


#: For the fields that must be given, one of these is right.
REQUIRED: list[Any] = [
    "x",
    "create",
    "hard",
    "local",
    "replace_auto",
    "all",
    "primary-only",
    "192.0.2.0/24",
    "bridged",
    "lvm-pv",
    0,
    1.5,
    True,
    [],
    {},
]


def passes(test: Any, value: Any) -> bool:
    """Whether a value passes one of Ganeti's checks, of which some stumble over a list."""
    try:
        return bool(test(value))
    except TypeError:
        return False


@st.composite
def accepted(draw: Any) -> Any:
    """An opcode that passes Ganeti's own check, with some fields set to what may pass it."""
    name = draw(st.one_of(st.sampled_from(KNOWN), st.sampled_from(["OpInstanceCreate", "OpInstanceSetParams"])))
    op = made(name)
    for field, default, test, _ in CLASSES[name].GetAllParams():
        if field in ("reason", "instances", "kind"):
            continue
        if not passes(test, default):
            setattr(op, field, next(value for value in REQUIRED if passes(test, value)))
        if field in DEVICES or draw(st.booleans()):
            nested = isinstance(default, dict) or "params" in field
            value = draw(DEVICES.get(field, DICTIONARY if nested else ANYTHING))
            if passes(test, value):
                setattr(op, field, value)
    op.Validate(False)
    return op


def leaves(value: Any) -> Iterator[Any]:
    """All texts, numbers and flags in a value, keys too."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield key
            yield from leaves(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from leaves(one)
    elif value is not None:
        yield value


@given(accepted())
def test_nothing_that_ganeti_accepts_raises_anything_else(op: Any) -> None:
    for step in (check_values, normalise, values, lambda op: list(namings(op))):
        try:
            step(op)
        except UnusableParameter as err:
            assert "Parameter '" in str(err)


@given(accepted())
def test_nothing_escapes(op: Any) -> None:
    """Each text, number and flag in a field that is no object's is in a value, or in a value's name."""
    try:
        found = values(op)
    except UnusableParameter:
        assume(False)
    shown = [str(one) for name, value in found for one in [name.partition(".")[2], *leaves(value)]]
    rule = RULES[type(op).__name__]
    networks = {naming.name for naming in namings(op) if naming.kind == "network"}
    for field, default, _, _ in type(op).GetAllParams():
        value = getattr(op, field)
        decided = {*rule.objects, *rule.new, *rule.written, "instance_uuid", "node_uuid", "kind"}
        decided |= {"dry_run", "comment", "reason", "depends"}
        if value == default or (field in decided and not isinstance(value, list)) or field in rule.objects:
            continue
        if type(op).__name__.startswith("OpTags") and field == "name":
            continue
        for leaf in leaves(value):
            if leaf == "" and value == "":
                continue  # an empty text is none
            ours = field in ("disks", "nics", "beparams")
            # A key that is not known is shown as "other", "memory" as its two parts, a network is an object.
            if ours and (leaf in ("memory", "network") or leaf in networks or _is_key(op, field, leaf)):
                continue
            assert str(leaf) in shown or _is_number_in(leaf, shown), (field, leaf)


def _is_key(op: Any, field: str, leaf: Any) -> bool:
    entries = getattr(op, field)
    last = [entry if isinstance(entry, dict) else entry[-1] for entry in entries if isinstance(entry, (dict, list))]
    return any(isinstance(one, dict) and leaf in one for one in last)


def _is_number_in(leaf: Any, shown: list[str]) -> bool:
    return isinstance(leaf, str) and leaf.lstrip("-").isdigit() and leaf.isascii() and str(int(leaf)) in shown


# Sizes that came as text.


@pytest.mark.parametrize(
    ("text", "number"),
    [("8G", 8192), ("8g", 8192), ("1.5G", 1536), ("512", 512), ("512 MiB", 512), ("1T", 1048576), ("5", 8)],
)
def test_sizes_are_read_as_ganeti_reads_them(text: str, number: int) -> None:
    op = made("OpInstanceCreate", beparams={"maxmem": text, "minmem": text, "memory": text}, disks=[{"size": text}])
    normalise(op)
    assert op.beparams == {"maxmem": number, "minmem": number, "memory": number}
    assert op.disks == [{"size": number}]


def test_sizes_inside_of_a_change_are_read_too() -> None:
    op = made("OpInstanceSetParams", disks=[["add", {"size": "1G"}], ["add", -1, {"size": "2G", "spindles": "3"}]])
    normalise(op)
    assert op.disks == [["add", {"size": 1024}], ["add", -1, {"size": 2048, "spindles": 3}]]


def test_numbers_and_the_word_default() -> None:
    op = made("OpInstanceSetParams", beparams={"vcpus": "4", "spindle_use": "2", "maxmem": "default", "x": "4"})
    normalise(op)
    assert op.beparams == {"vcpus": 4, "spindle_use": 2, "maxmem": "default", "x": "4"}


@pytest.mark.parametrize(
    "settings",
    [
        {"beparams": {"maxmem": "8X"}},
        {"beparams": {"maxmem": "-8"}},
        {"beparams": {"memory": ""}},
        {"beparams": {"vcpus": "4G"}},
        {"beparams": {"vcpus": "four"}},
        {"beparams": [1]},
        {"disks": [{"size": "much"}]},
        {"disks": [{"size": "1e3"}]},
        {"disks": [{"spindles": "1G"}]},
        {"disks": ["x"]},
    ],
    ids=str,
)
def test_what_is_no_number(settings: dict[str, Any]) -> None:
    with pytest.raises(UnusableParameter, match=next(iter(settings))):
        normalise(made("OpInstanceCreate", **settings))


@given(st.one_of(st.text(max_size=6), st.from_regex(r"\A ?[0-9]{1,5}(\.[0-9])? ?[mMgGtT]?(i?[bB])?\Z")))
def test_every_size_that_ganeti_reads_is_read_the_same(text: str) -> None:
    from ganeti import utils

    op = made("OpInstanceCreate", beparams={"maxmem": text})
    try:
        expected = utils.ParseUnit(text)
    except (errors.UnitParseError, ValueError):
        with pytest.raises(UnusableParameter):
            normalise(op)
    else:
        normalise(op)
        assert op.beparams == {"maxmem": expected}


# What luxid cannot read.


@pytest.mark.parametrize(
    "value",
    ["\u00e4", "\ud800", {"\u00e4": 1}, {"a": "\u00e4"}, [1, ["\u00e4"]], 2**63, math.inf, math.nan, [-math.inf]],
    ids=ascii,
)
def test_what_luxid_stumbles_over(value: Any) -> None:
    with pytest.raises(UnusableParameter, match="'hvparams'"):
        check_values(made("OpInstanceCreate", hvparams={"x": value}))


@pytest.mark.parametrize(
    "value", ["a", "\0\n", "", {}, {"a": [1, 2.5, None, True]}, (1, 2), 2**63 - 1, -(2**63)], ids=ascii
)
def test_what_luxid_can_read(value: Any) -> None:
    check_values(made("OpInstanceCreate", hvparams={"x": value}))


# Objects, and their UUIDs.


@pytest.mark.parametrize(
    ("op", "found"),
    [
        (made("OpInstanceReboot", instance_name="a"), [Naming("instance_name", "instance", "a")]),
        (
            made("OpInstanceRename", instance_name="a", new_name="b"),
            [Naming("instance_name", "instance", "a"), Naming("new_name", "instance", "b", True)],
        ),
        (
            made("OpInstanceCreate", instance_name="a", pnode="n", group_name="g", nics=[{"network": "w"}]),
            [
                Naming("pnode", "node", "n"),
                Naming("group_name", "group", "g"),
                Naming("instance_name", "instance", "a", True),
                Naming("nics.network", "network", "w"),
            ],
        ),
        (
            made("OpInstanceSetParams", instance_name="a", nics=[["modify", 0, {"network": "w"}], ["remove", 1, {}]]),
            [Naming("instance_name", "instance", "a"), Naming("nics.network", "network", "w")],
        ),
        (
            made("OpInstanceSetParams", instance_name="a", nics=[["modify", 0, {"network": "none"}]]),
            [Naming("instance_name", "instance", "a")],
        ),
        (
            made("OpInstanceSetParams", instance_name="a", nics=[["modify", 0, {"network": ["w"]}]]),
            [Naming("instance_name", "instance", "a"), Naming("nics.network", "network", "")],
        ),
        (
            made("OpInstanceRecreateDisks", instance_name="a", nodes=["n", "m"]),
            [Naming("instance_name", "instance", "a"), Naming("nodes", "node", "n"), Naming("nodes", "node", "m")],
        ),
        (made("OpInstanceQueryData", instances=["a"]), [Naming("instances", "instance", "a")]),
        (
            made("OpBackupExport", instance_name="a", target_node="n"),
            [Naming("instance_name", "instance", "a"), Naming("target_node", "node", "n")],
        ),
        (made("OpBackupExport", instance_name="a", target_node=[["h", 1]]), [Naming("instance_name", "instance", "a")]),
        (made("OpInstanceReboot", instance_name=5), [Naming("instance_name", "instance", "")]),
        (
            made("OpInstanceMigrate", instance_name="a", target_node=""),
            [Naming("instance_name", "instance", "a"), Naming("target_node", "node", "")],
        ),
        (
            made("OpNetworkConnect", network_name="w", group_name="g"),
            [Naming("network_name", "network", "w"), Naming("group_name", "group", "g")],
        ),
        (made("OpTagsSet", kind="nodegroup", name="g"), [Naming("name", "group", "g")]),
        (made("OpTagsDel", kind="cluster"), [Naming("name", "cluster", "")]),
        (made("OpTagsDel", kind="node", name="n"), [Naming("name", "node", "n")]),
        (made("OpOsDiagnose"), []),
        (CLASSES["OpClusterRedistConf"](), []),
    ],
    ids=str,
)
def test_namings(op: Any, found: list[Naming]) -> None:
    assert namings(op) == found


def test_uuids_are_written_for_what_was_decided_on() -> None:
    uuids = {("instance", "a"): "ua", ("node", "n"): "un", ("node", "m"): "um", ("network", "w"): "uw"}
    op = made("OpInstanceMigrate", instance_name="a", target_node="n", instance_uuid="x", target_node_uuid="y")
    put_uuids(op, uuids)
    assert (op.instance_uuid, op.target_node_uuid) == ("ua", "un")
    op = made("OpInstanceMigrate", instance_name="a", target_node_uuid="y")
    put_uuids(op, uuids)
    assert (op.instance_uuid, op.target_node_uuid) == ("ua", None)
    op = made("OpInstanceRecreateDisks", instance_name="a", nodes=["n", "m"])
    put_uuids(op, uuids)
    assert op.node_uuids == ["un", "um"]
    op = made("OpInstanceRecreateDisks", instance_name="a", node_uuids=["x"])
    put_uuids(op, uuids)
    assert op.node_uuids is None
    op = made("OpInstanceCreate", instance_name="b", pnode="n", nics=[{"network": "w"}, {}], name_check=True)
    put_uuids(op, uuids)
    assert (op.pnode_uuid, op.snode_uuid, op.src_node_uuid) == ("un", None, None)
    assert op.nics == [{"network": "uw"}, {}]
    assert (op.name_check, op.ip_check) == (False, False)


def test_an_export_to_another_cluster_has_no_node_to_be_pinned_to() -> None:
    op = made("OpBackupExport", instance_name="a", target_node=[["host", 1, "magic"]])
    put_uuids(op, {("instance", "a"): "ua"})
    assert (op.instance_uuid, op.target_node_uuid, op.target_node) == ("ua", None, [["host", 1, "magic"]])


# Nested opcodes, and what needs more than its endpoint's permission.


def test_nested_opcodes_are_seen() -> None:
    inner = made("OpInstanceCreate", instance_name="a")
    outer = made("OpInstanceMultiAlloc", instances=[inner])
    assert list(flatten([outer, inner])) == [(outer, False), (inner, True), (inner, False)]
    assert values(outer) == []
    assert list(flatten([made("OpInstanceMultiAlloc", instances=None)]))[1:] == []


def test_a_field_called_instances_nests_nothing_elsewhere() -> None:
    op = made("OpInstanceQueryData", instances=["a"])
    assert list(flatten([op])) == [(op, False)]


@pytest.mark.parametrize(
    ("op", "nested", "needed"),
    [
        (made("OpInstanceCreate"), False, set()),
        (made("OpInstanceCreate"), True, {"instances.create"}),
        (made("OpInstanceCreate", tags=["a"]), False, {"tags.set"}),
        (made("OpInstanceCreate", tags=["a"]), True, {"tags.set", "instances.create"}),
        (made("OpNetworkAdd", tags=["a"]), False, {"tags.set"}),
        (made("OpNetworkAdd"), False, set()),
        (made("OpTagsSet", tags=["a"]), False, set()),
        (made("OpBackupExport", remove_instance=True), False, {"instances.remove"}),
        (made("OpBackupExport", remove_instance=False), False, set()),
    ],
    ids=str,
)
def test_permissions(op: Any, nested: bool, needed: set[str]) -> None:
    assert permissions_of(op, nested) == needed
