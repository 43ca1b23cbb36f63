# SPDX-License-Identifier: BSD-2-Clause
"""The filter sent to luxid and the predicate in Python agree on every instance of a generated cluster."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ganeti import objects
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ganeti_ext.policy.accounts import Account, Grants
from ganeti_ext.policy.model import Deny, Policy, Role, Scope, Selector, Target
from ganeti_ext.policy.pattern import Pattern, Patterns
from ganeti_ext.rapi import filters
from ganeti_ext.rapi.lookup import FIELDS, Lookup, NotThere, plain_rows, target_of
from ganeti_ext.rapi.reads import Hidden, Reader
from tests.cluster.conftest import INSTANCES
from tests.cluster.vcluster import DAEMON_UTIL, Cluster, ClusterError

GROUP = "g2.example"  # the dot is one to an expression, too
LABELS = ["web", "web1", "web10", "db", "a-b", "a_b", "x--y", "0", "ann", "bob", "web-", "-web", "weba"]
DOMAINS = ["test.example.com", "prod.example.com", "test-example.com", "testxexample.com", "ann.test.example.com", "a"]
TAGS = ["keep", "tenant:ann", "tenant:bob", "a.b", "axb", "a+b", "a*", "/x/y", "KEEP"]
#: Names that Ganeti expands others to, and such as a scope can not hold.
ODD = [
    "web2.test.example.com.victim.org",
    "x." + "b" * 63 + ".com",
    "y." + "b" * 64 + ".com",
    ".".join(["c" * 60] * 4) + ".test.example.com",
    "Web.test.example.com",
    "a..b",
]
USER = "ann"


class Luxi:
    """Ganeti's client, as far as lists and names need it."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def Query(self, what: str, fields: list[str], qfilter: Any) -> Any:
        return objects.QueryResponse.FromDict(self._cluster.luxi("Query", what, fields, qfilter))


def generated(config: dict[str, Any]) -> dict[str, Any]:
    """The cluster's configuration with another group and some sixty more instances, the same at each run."""
    chance = random.Random(1)
    found: dict[str, Any] = copy.deepcopy(config)
    nodes = {node["name"]: uuid for uuid, node in found["nodes"].items()}
    (group,) = found["nodegroups"].values()
    found["nodegroups"]["group"] = {**group, "name": GROUP, "uuid": "group", "tags": ["keep"]}
    found["nodes"][nodes["node3"]]["group"] = "group"
    template = next(iter(found["instances"].values()))
    names = sorted({f"{label}.{domain}" for label in LABELS for domain in DOMAINS}.difference(INSTANCES))
    for number, name in enumerate([*chance.sample(names, 56), *ODD]):
        places = chance.sample(sorted(nodes.values()), 2)
        uuid, disks = f"instance-{number}", [f"disk-{number}"] if number % 3 == 0 else []
        found["instances"][uuid] = {
            **template,
            "name": name,
            "uuid": uuid,
            "primary_node": places[0],
            "tags": chance.sample(TAGS, chance.randrange(3)),
            "admin_state": "down",
            "disks": disks,
        }
        for disk in disks:  # which is on two nodes, and so is the instance
            found["disks"][disk] = {
                "uuid": disk,
                "dev_type": "drbd",
                "logical_id": [*places, 11000 + number, number, number, "secret"],
                "nodes": places,
                "children": [],
                "size": 128,
                "iv_name": "disk/0",
                "mode": "rw",
                "params": {},
                "serial_no": 1,
                "ctime": 1.0,
                "mtime": 1.0,
            }
    return found


@pytest.fixture(scope="module", name="luxi")
def _luxi(cluster: Cluster) -> Iterator[Luxi]:
    """A cluster of which luxid tells that it has many instances: they are in its configuration alone."""
    path = Path(cluster.node_path(cluster.master, "var/lib/ganeti/config.data"))
    before = path.read_bytes()
    try:
        configure(cluster, path, json.dumps(generated(json.loads(before))).encode())
        yield Luxi(cluster)
    finally:
        configure(cluster, path, before)


def configure(cluster: Cluster, path: Path, config: bytes) -> None:
    """Gives a configuration to the daemons that hold it; no job may run meanwhile."""
    for daemon in ("ganeti-luxid", "ganeti-wconfd"):
        cluster.gnt(DAEMON_UTIL, "stop", daemon)
    path.write_bytes(config)
    for daemon in ("ganeti-wconfd", "ganeti-luxid"):
        cluster.gnt(DAEMON_UTIL, "start", daemon)


def rows(luxi: Luxi, kind: str, qfilter: Any = None) -> dict[str, Target]:
    found = plain_rows(luxi.Query(kind, list(FIELDS[kind]), qfilter))
    return {row[0]: target_of(kind, row) for row in found}


def test_the_cluster_is_one_to_try_it_on(luxi: Luxi) -> None:
    instances = rows(luxi, "instance")
    assert len(instances) >= 60
    assert {target.groups for target in instances.values()} == {
        frozenset({"default"}),
        frozenset({GROUP}),
        frozenset({"default", GROUP}),
    }
    assert len({target.tags for target in instances.values()}) > 10


# Selectors of which most pick something, and some what a regular expression would pick.

PIECES = st.sampled_from(
    [
        *LABELS,
        *DOMAINS,
        "web?",
        "*",
        "**",
        "?",
        ".",
        "*.",
        ".*",
        "*.test.example.com",
        "*.{user}.*",
        "{user}",
        "*example*",
        "-",
        "[a-z]",
    ]
)
NAME = st.lists(PIECES, min_size=1, max_size=3).map("".join).filter(lambda text: text.count("*") <= 4)
TAG = st.sampled_from([*TAGS, "tenant:*", "tenant:{user}", "a?b", "*", "keep*", ".*", "a+b", "?EEP", "no-such"])
GROUPS = st.sampled_from(["default", GROUP, "g2?example", "*", "d*", "no-such"])


def some(words: Any, most: int) -> Any:
    return st.lists(words.map(Pattern), max_size=most).map(Patterns)


SELECTOR = st.builds(Selector, some(NAME, 3), some(TAG, 2), some(GROUPS, 1)).map(lambda one: one.bound(USER))
SELECTORS = st.lists(SELECTOR, max_size=3).map(tuple)
KIND = st.sampled_from(["instance", "instance", "instance", "node", "group", "network"])

thorough = settings(
    max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@thorough
@given(kind=KIND, selectors=SELECTORS)
def test_a_scope(luxi: Luxi, kind: str, selectors: tuple[Selector, ...]) -> None:
    scope = Scope(**{f"{kind}s": selectors})
    found = filters.of_selectors(kind, selectors)
    seen = {name for name, target in rows(luxi, kind).items() if scope.holds(target)}
    passed = set(rows(luxi, kind, found.filter))
    assert passed >= seen
    assert passed == seen or not found.exact


@thorough
@given(
    selectors=st.lists(st.builds(Selector, some(NAME, 2), some(TAG, 2)).map(lambda one: one.bound(USER)), max_size=2)
)
def test_a_deny(luxi: Luxi, selectors: list[Selector]) -> None:
    found = filters.of_selectors("instance", selectors, any_name=True)
    hidden = {
        name for name, target in rows(luxi, "instance").items() if any(one.may_match(target) for one in selectors)
    }
    passed = set(rows(luxi, "instance", found.filter))
    assert passed >= hidden
    assert passed == hidden or not found.exact


DENIES = st.lists(
    st.builds(lambda selectors: {"instance": selectors}, st.lists(SELECTOR, max_size=2).map(tuple)), max_size=2
)
OWN_FILTER = st.sampled_from(
    [
        None,
        ["=~", "name", "web"],
        ["!", ["=[]", "tags", "keep"]],
        ["|", ["=", "pnode", "node1"], ["=", "admin_state", "up"]],
    ]
)


@thorough
@given(scopes=st.lists(SELECTORS, min_size=1, max_size=2), denied=DENIES, qfilter=OWN_FILTER)
def test_what_a_user_is_shown(luxi: Luxi, scopes: Any, denied: Any, qfilter: Any) -> None:
    roles = tuple(
        Role(f"r{number}", frozenset({"instances.list"}), scope=Scope(instances=one))
        for number, one in enumerate(scopes)
    )
    denies = tuple(Deny((Pattern("*"),), frozenset({"instances.list"}), objects=one) for one in denied)
    account = Account(USER, Grants({"instances.list": roles}), Policy(denies=denies))
    reader = Reader(luxi, account, "instances.list")
    visible = {
        name
        for name, target in rows(luxi, "instance", qfilter).items()
        if any(role.covers(target) for role in roles) and not any(deny.matches(target) for deny in denies)
    }
    shown = plain_rows(reader.query("instance", ["name", "pnode", "tags"], qfilter))
    assert sorted(row[0] for row in shown) == sorted(visible)
    if qfilter is None:
        assert {row[0] for row in reader.classic("instance", [], ["name"])} == visible
        for name in rows(luxi, "instance"):
            if name in visible:
                assert reader.classic("instance", [name], ["name"]) == [[name]]
    hidden = sorted(rows(luxi, "instance").keys() - visible)[:3] if qfilter is None else []
    for name in hidden:
        with pytest.raises(Hidden):
            reader.classic("instance", [name], ["name"])


@pytest.mark.parametrize("kind", ["instance", "node", "group", "network"])
def test_the_filter_for_nothing_lets_nothing_through(luxi: Luxi, kind: str) -> None:
    assert rows(luxi, kind, filters.NOTHING) == {}
    assert filters.of_selectors(kind, ()).filter == filters.NOTHING


# What the unit tests' luxid is told to be like.


@pytest.mark.parametrize("name", ["web2.test.example.com", "web1.test", "db1", "DB1.PROD.EXAMPLE.COM"])
def test_a_name_that_luxid_expands_is_nothing(luxi: Luxi, name: str) -> None:
    here = set(rows(luxi, "instance"))
    if name in here:
        assert Lookup(luxi).one("instance", name).target.name == name
    else:
        with pytest.raises(NotThere):
            Lookup(luxi).one("instance", name)


def test_the_names_of_all(luxi: Luxi) -> None:
    names = list(rows(luxi, "instance"))
    assert {found.target.name for found in Lookup(luxi).many("instance", [*names, "gone.example.com"])} == set(names)
    assert set(rows(luxi, "instance", filters.of_names(names[:7]))) == set(names[:7])


def test_luxids_errors_quote_the_rows(luxi: Luxi) -> None:
    """Which is why a user's filter is tried on no other, and errors are not passed on."""
    with pytest.raises(ClusterError):
        rows(luxi, "instance", ["<", "name", 5])
    with pytest.raises(ClusterError):
        rows(luxi, "instance", ["=~", "tags", "a"])
    with pytest.raises(ClusterError, match="boolean context"):
        rows(luxi, "instance", ["?", "tags"])


def test_an_and_ends_at_the_first_that_is_false(luxi: Luxi) -> None:
    assert rows(luxi, "instance", ["&", filters.NOTHING, ["<", "name", 5]]) == {}
