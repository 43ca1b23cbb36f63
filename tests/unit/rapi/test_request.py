# SPDX-License-Identifier: BSD-2-Clause
"""What a request asks for is read as Ganeti will read it, and what is no request is 400."""

from __future__ import annotations

from typing import Any

import pytest
from ganeti import http

from ganeti_ext.rapi.handler import RemoteApiHandler
from ganeti_ext.rapi.request import Request
from tests.unit.rapi import fake
from tests.unit.rapi.fake import INSTANCE, PAIRS, Server

pytestmark = pytest.mark.usefixtures("registered")

Pair = tuple[type, str]
WITH_PERMISSION = [pair for pair in PAIRS if pair[0].__name__ not in ("R_root", "R_2", "R_version", "R_2_features")]
IDS = [f"{resource.__name__}-{method}" for resource, method in WITH_PERMISSION]


class Seen(RemoteApiHandler):
    """A middleware that keeps its requests."""

    requests: list[Request] = []

    def authorize(self, request: Request) -> None:
        self.requests.append(request)


def see(method: str, path: str, body: Any = None, **options: Any) -> Request:
    Seen.requests.clear()
    server = Server("root write", cls=Seen)
    server.ask(method, path, "root", body, **options)
    (request,) = Seen.requests
    return request


@pytest.mark.parametrize("raw", ["{", "nonsense", "[1", '{"a": NaN', "[" * 3000, "\0", '"', "{'a': 1}"], ids=range(8))
def test_a_body_that_is_no_json_is_400(raw: str) -> None:
    server = Server("boss @admin")
    for pair in WITH_PERMISSION:
        answer = server.ask_pair(pair, "boss", body=None, raw=raw)
        assert (answer.status, answer.calls) == (400, []), pair


@pytest.mark.parametrize("raw", ["5", "true", "[]", "[1]", '[["name", "x"]]', "[{}]", "1.5", '"x"'])
def test_a_body_that_is_no_object_is_400(raw: str) -> None:
    server = Server("boss @admin")
    for pair in WITH_PERMISSION:
        if (pair[0].__name__, pair[1]) == ("R_2_nodes_name_role", "GET"):
            continue  # whose other method takes a text, and which reads none
        if pair[0].__name__.endswith("tags"):
            continue  # see below
        answer = server.ask_pair(pair, "boss", body=None, raw=raw)
        assert (answer.status, answer.calls) == (400, []), (pair, answer)


@pytest.mark.parametrize("raw", ["5", "true", "[]", '["x"]', "[{}]", "1.5", '"x"'])
def test_the_body_of_a_request_for_tags_is_not_looked_at(raw: str) -> None:
    """Ganeti's client library sends the tags in it, as a list, which stand in the query, too."""
    ours, stock = Server("boss @admin"), Server("boss write", cls=fake.STOCK)
    for pair in [pair for pair in WITH_PERMISSION if pair[0].__name__.endswith("tags")]:
        answer = ours.ask_pair(pair, "boss", body=None, raw=raw)
        expected = stock.ask_pair(pair, "boss", body=None, raw=raw)
        assert answer.status == (400 if expected.status == 500 else expected.status), pair


@pytest.mark.parametrize("pair", WITH_PERMISSION, ids=IDS)
def test_a_body_that_is_missing_is_400_or_not_needed(pair: Pair) -> None:
    server = Server("boss @admin")
    for raw in ("", "null", None):
        answer = server.ask_pair(pair, "boss", body=None, raw=raw)
        assert answer.status in (200, 400), answer


@pytest.mark.parametrize("kind", ["text/plain", "application/octet-stream", "application/json; charset=utf-8", ""])
def test_another_type_of_body_is_415(kind: str) -> None:
    server = Server("boss @admin")
    answer = server.ask_pair(fake.pair_named("R_2_instances", "POST"), "boss", headers={http.HTTP_CONTENT_TYPE: kind})
    assert (answer.status, answer.calls) == (415, [])


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/2/instances", {"__version__": 1, "mode": "create"}),
        ("POST", "/2/instances", {**fake.CREATION, "name": None}),
        ("POST", "/2/instances", {**fake.CREATION, "name": 5}),
        ("POST", "/2/instances", {**fake.CREATION, "name": [INSTANCE]}),
        ("POST", "/2/instances", {**fake.CREATION, "instance_name": {}}),
        ("POST", "/2/instances-multi-alloc", {}),
        ("POST", "/2/instances-multi-alloc", {"instances": None}),
        ("POST", "/2/instances-multi-alloc", {"instances": {}}),
        ("POST", "/2/instances-multi-alloc", {"instances": "x"}),
        ("POST", "/2/instances-multi-alloc", {"instances": [5]}),
        ("POST", "/2/instances-multi-alloc", {"instances": [None]}),
        ("POST", "/2/instances-multi-alloc", {"instances": [[]]}),
        ("POST", "/2/instances-multi-alloc", {"instances": [{}]}),
        ("POST", "/2/instances-multi-alloc", {"instances": [{"name": 5}]}),
        ("PUT", f"/2/instances/{INSTANCE}/rename", {}),
        ("PUT", f"/2/instances/{INSTANCE}/rename", {"new_name": None}),
        ("PUT", f"/2/instances/{INSTANCE}/rename", {"new_name": ["x"]}),
    ],
)
def test_a_name_that_is_missing_or_no_text_is_400(method: str, path: str, body: Any) -> None:
    answer = Server("boss @admin").ask(method, path, "boss", body)
    assert (answer.status, answer.calls) == (400, []), answer


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", f"/2/instances/{INSTANCE}/modify", {"hvparams": None}),
        ("PUT", f"/2/instances/{INSTANCE}/modify", {"hvparams": []}),
        ("PUT", f"/2/instances/{INSTANCE}/modify", {"hvparams": {"usb_devices": 5}}),
        ("POST", "/2/instances", {**fake.CREATION, "hvparams": 5}),
        ("POST", f"/2/instances/{INSTANCE}/replace-disks", {"mode": "replace_auto", "disks": 5}),
        ("POST", f"/2/instances/{INSTANCE}/replace-disks", {"mode": "replace_auto", "disks": ["a"]}),
    ],
)
def test_a_value_of_another_type_is_not_500(method: str, path: str, body: Any) -> None:
    """Ganeti's handlers stumble over these, which gives its plain accounts a 500."""
    answer = Server("boss @admin").ask(method, path, "boss", body)
    assert (answer.status, answer.calls) == (400, []), answer


@pytest.mark.parametrize(
    ("method", "path", "body", "objects"),
    [
        ("GET", "/2/instances", None, ()),
        ("POST", "/2/instances", {"name": "a"}, (("instance", "a"),)),
        ("POST", "/2/instances", {"instance_name": "a"}, (("instance", "a"),)),
        ("POST", "/2/instances", {"name": "a", "instance_name": "b"}, (("instance", "a"), ("instance", "b"))),
        (
            "POST",
            "/2/instances-multi-alloc",
            {"instances": [{"name": "a"}, {"instance_name": "b"}]},
            (("instance", "a"), ("instance", "b")),
        ),
        ("GET", "/2/instances/a/info", None, (("instance", "a"),)),
        ("PUT", "/2/instances/a/rename", {"new_name": "b"}, (("instance", "a"), ("instance", "b"))),
        ("POST", "/2/instances/a/disk/0/grow", {}, (("instance", "a"),)),
        ("GET", "/2/nodes/a/storage", None, (("node", "a"),)),
        ("PUT", "/2/groups/a/tags", None, (("group", "a"),)),
        ("DELETE", "/2/networks/a", None, (("network", "a"),)),
        ("PUT", "/2/tags", None, (("cluster", ""),)),
        ("GET", "/2/jobs/5/wait", {}, (("job", "5"),)),
        ("GET", "/2/filters/a", None, (("filter", "a"),)),
        ("PUT", "/2/query/node", {}, ()),
        ("GET", "/2/query/node/fields", None, ()),
        ("GET", "/2/info", None, ()),
    ],
)
def test_objects(method: str, path: str, body: Any, objects: tuple[tuple[str, str], ...]) -> None:
    request = see(method, path, body)
    assert request.objects == objects
    assert request.instance_names == tuple(name for kind, name in objects if kind == "instance")


def test_what_a_middleware_sees() -> None:
    request = see("put", "/2/instances/a/startup?force=1&force=2", {"x": 1})
    assert (request.method, request.path) == ("PUT", "/2/instances/a/startup")
    assert request.query == {"force": ["1", "2"]}
    assert request.items == ("a",)
    assert request.body == {"x": 1}
    assert request.permission == "instances.startup"
    assert request.resource.__name__ == "R_2_instances_name_startup"
    assert request.user.name == "root"
    assert request.user.options == ["write"]
    assert request.account is None


def test_a_request_without_a_body() -> None:
    assert see("GET", "/2/info").body is None
    assert see("GET", "/version").permission is None


def test_the_body_is_read_as_ganeti_reads_it_with_a_key_that_stands_twice() -> None:
    raw = '{"name": "a", "name": "b"}'
    assert see("POST", "/2/instances", raw=raw).objects == (("instance", "b"),)
