# SPDX-License-Identifier: BSD-2-Clause
"""The handler narrows what Ganeti's lets through, and tells no more than it must."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from ganeti import http
from ganeti.rapi import connector

from ganeti_ext.policy.loader import load_policy
from ganeti_ext.rapi.handler import RemoteApiHandler
from ganeti_ext.rapi.permissions import own_access_lists
from ganeti_ext.rapi.request import Request
from tests.unit.rapi import fake
from tests.unit.rapi.fake import INSTANCE, PAIRS, Cluster, Server

pytestmark = pytest.mark.usefixtures("registered")

EXAMPLE = Path(__file__).parents[3] / "examples" / "test-domain"
TENANT = (
    "version: 1\nroles:\n  tenant:\n    permissions: ['@admin']\n    scope: {instances: {name: '*.test.example.com'}}\n"
)


@pytest.mark.parametrize("user", ["she", "root", "nobody"])
def test_a_wrong_password_is_401_whatever_the_account(user: str) -> None:
    server = Server("she @admin\nroot write")
    for path in ("/2/instances", "/2/info", "/version", "/2/redistribute-config"):
        answer = server.ask("GET" if "redis" not in path else "PUT", path, user, password="wrong")
        assert (answer.status, answer.calls) == (401, [])


def test_a_refusal_names_the_permission() -> None:
    answer = Server("she @readonly").ask("PUT", f"/2/instances/{INSTANCE}/startup", "she")
    assert answer.status == 403
    assert "instances.startup" in answer.message


def test_a_refusal_of_a_plain_account_is_ganetis_own() -> None:
    ours, stock = Server("noc read\nshe @admin"), Server("noc read", cls=fake.STOCK)
    asked = ("PUT", "/2/redistribute-config", "noc")
    assert ours.ask(*asked)[:2] == stock.ask(*asked)[:2]
    assert ours.ask(*asked).status == 403


def test_a_limited_role_reads_its_own() -> None:
    cluster = Cluster({INSTANCE: "u1", "db1.prod.example.com": "u2"})
    answer = Server("she @tenant", TENANT, cluster).ask("GET", "/2/instances", "she")
    assert (answer.status, [row["id"] for row in answer.body]) == (200, [INSTANCE])


@pytest.mark.parametrize(
    ("options", "path", "status", "reason"),
    [
        ("@tenant", "/2/instances/db1.prod.example.com", 404, ""),
        ("@tenant", "/2/nodes/node1.example.com/powercycle", 404, ""),
        ("@tenant,instance_write", "/2/nodes/node1.example.com/powercycle", 404, ""),
        ("instance_write,node_write", "/2/groups/group1/modify", 403, "groups.modify is not granted"),
        ("instance_write", "/2/nodes/node1.example.com/tags?tag=x", 403, "outside of role instance_write"),
        ("@tenant,instance_write", "/2/tags?tag=x", 403, "the cluster: outside of role"),
        ("@tenant", "/2/tags?tag=x", 404, ""),
        ("@kept", "/2/redistribute-config", 403, "deny (line 8) forbids cluster.redistribute_config"),
    ],
)
def test_who_is_told_what(options: str, path: str, status: int, reason: str) -> None:
    """For a limited user what is outside does not exist; a role of one kind hides nothing."""
    policy = TENANT + (
        "  kept: {permissions: ['@admin']}\n"
        "deny:\n  - {users: '*', permissions: [cluster.redistribute_config], except: root}\n"
    )
    method = "DELETE" if path.count("/") == 3 else "POST" if "powercycle" in path else "PUT"
    server = Server(f"she {options}", policy)
    answer = server.ask(method if "redis" not in path else "PUT", path, "she")
    assert (answer.status, answer.calls) == (status, [])
    assert reason in answer.message
    (record,) = server.trail.records
    assert record["decision"] == "deny"


def test_a_deny_without_objects_refuses_before_anything_is_asked() -> None:
    policy = "version: 1\ndeny:\n  - {users: noc, permissions: [instances.reboot]}\n"
    server = Server("noc write\nroot write", policy)
    answer = server.ask("POST", f"/2/instances/{INSTANCE}/reboot", "noc")
    assert (answer.status, answer.calls) == (403, [])
    assert "deny (line 3)" in answer.message
    assert server.ask("POST", f"/2/instances/{INSTANCE}/reboot", "root").status == 200
    assert server.ask("PUT", f"/2/instances/{INSTANCE}/startup", "noc").status == 200


def test_a_deny_about_objects_keeps_no_administrator_from_the_cluster() -> None:
    policy = "version: 1\ndeny:\n  - {users: noc, permissions: '*', instances: {tag: keep}}\n"
    cluster = Cluster({INSTANCE: "u1"})
    cluster.add("instance", "kept.example.com", tags=("keep",))
    server = Server("noc write", policy, cluster)
    for pair in (("R_2_cluster_modify", "PUT"), ("R_2_redist_config", "PUT"), ("R_2_instances_name", "DELETE")):
        assert server.ask_pair(fake.pair_named(*pair), "noc").status == 200, pair
    answer = server.ask("DELETE", "/2/instances/kept.example.com", "noc")
    assert answer.status == 403
    assert "deny (line 3) forbids it" in answer.message
    assert server.ask("POST", f"/2/nodes/{fake.NODE}/evacuate", "noc", {"mode": "all"}).status == 403  # it is there
    assert server.ask("DELETE", "/2/instances/kept", "noc").status == 403  # it could be it


@pytest.mark.parametrize(
    "path", ["/nothing", "/2/instances/", "/2/instances//", "/2/instances/a/b", "/2/jobs/x", "/3", "//2"]
)
def test_a_path_that_is_none(path: str) -> None:
    ours, stock = Server("she @admin"), Server("she write", cls=fake.STOCK)
    assert ours.ask("GET", path, "she")[:2] == stock.ask("GET", path, "she")[:2]


@pytest.mark.parametrize("method", ["HEAD", "PATCH", "OPTIONS", "GET_OPCODE", "__INIT__", "SUBMITJOB", "get", "Put"])
@pytest.mark.parametrize("path", ["/2/info", "/2/instances/a/startup", "/version"])
@pytest.mark.parametrize("options", ["write", "read", ""])
def test_methods_are_what_they_are_in_stock(method: str, path: str, options: str) -> None:
    ours, stock = Server(f"she {options}\nb @admin", TENANT), Server(f"she {options}", cls=fake.STOCK)
    answer, expected = ours.ask(method, path, "she"), stock.ask(method, path, "she")
    if expected.status == 500:  # it takes any attribute of its handler for a method
        assert (answer.status, answer.calls) == (501, [])
        return
    assert fake.without_times(answer) == fake.without_times(expected)


@pytest.mark.parametrize("method", ["startup", "PUT ", "put"])
def test_a_methods_spelling_opens_nothing(method: str) -> None:
    answer = Server("she @readonly").ask(method, f"/2/instances/{INSTANCE}/startup", "she")
    assert answer.status in (403, 501)
    assert answer.calls == []


@pytest.mark.parametrize("header", ["Basic", "Basic ", "Basic x", "Basic eA==", "Digest x", "", " ", "Basic \u00fc"])
@pytest.mark.parametrize("path", ["/2/info", "/version"])
def test_credentials_of_another_form_are_what_they_are_in_stock(header: str, path: str) -> None:
    ours, stock = Server("root write", reqauth=True), Server("root write", cls=fake.STOCK, reqauth=True)
    headers = {http.HTTP_AUTHORIZATION: header}
    assert ours.ask("GET", path, headers=headers)[:2] == stock.ask("GET", path, headers=headers)[:2]


BODIES: list[Any] = [
    {},
    {"a": 1},
    {"name": 5},
    {"fields": []},
    {"instances": [5]},
    {"os": "x"},
    {"reason": [5]},
    "x",
    [5],
]


@pytest.mark.parametrize("options", ["write", "read", ""])
def test_plain_accounts_get_stocks_answer_to_any_body(options: str) -> None:
    ours, stock = Server(f"she {options}\nb @admin", TENANT), Server(f"she {options}", cls=fake.STOCK)
    for pair in PAIRS:
        for body in BODIES:
            answer, expected = ours.ask_pair(pair, "she", body=body), stock.ask_pair(pair, "she", body=body)
            assert fake.without_times(answer) == fake.without_times(expected), (pair, body)


def test_an_account_may_use_the_open_resources() -> None:
    server = Server("she @tenant,-typo", TENANT)
    for path in ("/", "/2", "/version", "/2/features"):
        assert server.ask("GET", path, "she").status == 200
        assert server.ask("GET", path).status == 200


def test_a_decision_is_made_on_the_policy_as_it_is_now() -> None:
    server = Server("she @tenant")
    asked = ("PUT", f"/2/instances/{INSTANCE}/startup", "she")
    assert server.ask(*asked).status == 403
    server.access._take(load_policy(TENANT.encode(), "policy"))
    assert server.ask(*asked).status == 200
    server.access._take(load_policy(TENANT.replace("*.test", "*.prod").encode(), "policy"))
    assert server.ask(*asked).status == 404


# Middleware.


class Refusing(RemoteApiHandler):
    def authorize(self, request: Request) -> None:
        if request.method != "GET":
            raise http.HttpForbidden(message="only reads")


def test_a_middleware_refuses_whom_it_likes() -> None:
    server = Server("root write\nshe @admin", cls=Refusing)
    for user in ("root", "she"):
        assert server.ask("GET", "/2/info", user).status == 200
        answer = server.ask("PUT", "/2/redistribute-config", user)
        assert (answer.status, answer.message, answer.calls) == (403, "only reads", [])


def test_a_middleware_is_asked_after_the_password_and_our_own_checks() -> None:
    asked: list[str] = []

    class Asked(RemoteApiHandler):
        def authorize(self, request: Request) -> None:
            asked.append(request.user.name)

    server = Server("root write\nshe @readonly", cls=Asked)
    server.ask("PUT", "/2/redistribute-config", "root", password="wrong")
    server.ask("PUT", "/2/redistribute-config", "she")
    server.ask("PUT", "/2/redistribute-config", "stranger")
    assert asked == []
    server.ask("PUT", "/2/redistribute-config", "root")
    assert asked == ["root"]


def load_example() -> type:
    spec = importlib.util.spec_from_file_location("test_domain_example", EXAMPLE / "middleware.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    handler: type = module.RemoteApiHandler
    return handler


def example(kind: str) -> Server:
    cluster = Cluster({INSTANCE: "uuid-of-web1", "db1.example.com": "uuid-of-db1"})
    if kind == "policy":
        return Server("she @test-operator\nroot write", (EXAMPLE / "rapi-access.yaml").read_text(), cluster)
    cls = load_example()
    own_access_lists(connector.CONNECTOR)
    return Server("she test\nroot write", None, cluster, cls=cls)


ALLOWED = [
    ("POST", "/2/instances", {**fake.CREATION, "name": "new.test.example.com"}),
    ("DELETE", f"/2/instances/{INSTANCE}", None),
    ("PUT", f"/2/instances/{INSTANCE}/tags?tag=x", None),
    ("DELETE", f"/2/instances/{INSTANCE}/tags?tag=x", None),
    ("POST", f"/2/instances/{INSTANCE}/reboot", None),
    ("PUT", f"/2/instances/{INSTANCE}/startup", None),
    ("PUT", f"/2/instances/{INSTANCE}/shutdown", None),
]


@pytest.mark.parametrize("kind", ["policy", "middleware"])
@pytest.mark.parametrize(("method", "path", "body"), ALLOWED)
def test_the_mails_case(kind: str, method: str, path: str, body: Any) -> None:
    server = example(kind)
    inside = server.ask(method, path, "she", body)
    assert inside.status == 200
    assert server.ask("GET", f"/2/jobs/{inside.body}/wait", "she", {"fields": ["status"]}).status == 200
    outside = path.replace(INSTANCE, "db1.example.com")
    answer = server.ask(method, outside, "she", body and {**body, "name": "db1.example.com"})
    assert (answer.status, answer.calls) == (404, [])
    (op,) = server.cluster.submitted[0]
    assert op.get("instance_uuid", "uuid-of-web1") == "uuid-of-web1"
    assert op["reason"][0][:2] == ("gnt:ext:rapi-user", "she")


@pytest.mark.parametrize("kind", ["policy", "middleware"])
def test_the_mails_case_reaches_nothing_else(kind: str) -> None:
    server = example(kind)
    names = {"R_2_instances": "POST", "R_2_instances_name": "DELETE", "R_2_instances_name_tags": "PUT DELETE"}
    for action in ("reboot", "startup", "shutdown"):
        names[f"R_2_instances_name_{action}"] = "POST" if action == "reboot" else "PUT"
    for resource, method in PAIRS:
        name = resource.__name__
        if method in names.get(name, "").split() or name in ("R_root", "R_2", "R_version", "R_2_features"):
            continue
        answer = server.ask_pair((resource, method), "she")
        if answer.status == 200:  # with the middleware, reads are Ganeti's: open to anybody, cut to his instances
            assert (kind, method) == ("middleware", "GET"), (resource, method)
            assert "db1.example.com" not in str(answer.body), (resource, method)
            assert name in ("R_2_os", "R_2_instances_name_info") or "SubmitJob" not in [c.name for c in answer.calls]
        else:
            assert answer.status in (403, 404), (resource, method, answer)
            assert [call for call in answer.calls if call.name not in ("QueryJobs", "Query")] == [], (resource, method)


@pytest.mark.parametrize("kind", ["policy", "middleware"])
@pytest.mark.parametrize("path", ["/version", "/2/features", "/2", "/"])
def test_the_mails_case_with_ganetis_own_client(kind: str, path: str) -> None:
    """It asks for the features before it creates anything, with the password."""
    assert example(kind).ask("GET", path, "she").status == 200


def test_the_mails_middleware_leaves_others_alone() -> None:
    server = example("middleware")
    for pair in PAIRS:
        assert server.ask_pair(pair, "root").status == 200


def test_a_middlewares_limit_comes_on_top_of_a_scope() -> None:
    class Both(RemoteApiHandler):
        def authorize(self, request: Request) -> None:
            self.limit_instances(request, lambda name: name.startswith("web"))

    cluster = Cluster({INSTANCE: "uuid-of-web1", "db1.test.example.com": "u2", "web1.example.com": "u3"})
    server = Server("she @tenant", TENANT, cluster, cls=Both)
    assert server.ask("PUT", f"/2/instances/{INSTANCE}/startup", "she").status == 200
    for name in ("db1.test.example.com", "web1.example.com"):
        assert server.ask("PUT", f"/2/instances/{name}/startup", "she").status == 404
    (op,) = server.cluster.submitted[0]
    assert [entry[0] for entry in op["reason"]].count("gnt:ext:rapi-user") == 1
