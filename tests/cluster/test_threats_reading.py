# SPDX-License-Identifier: BSD-2-Clause
"""What attackers do (threats.md), by its rows: reading, jobs, and what refusals tell."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cluster.test_unconfigured import endpoints
from tests.cluster.world import CREATE, EVES, EVES_INNER, INNER, MALLORYS, OTHERS, SOURCE, VAULT, World

OWN = EVES[0]
NEW = "new.test.example.com"
#: What must not be in any answer to Eve, unless she has said it.
FOREIGN = [
    *MALLORYS, *OTHERS, "vault-group", "vault-net", "node3", "vault-tag", "victim-tag", "tenant:", "vault-disk",
    "vault-nic", "vault-os", "aa:00:00:be:ef:01", "198.51.100.77",
]  # fmt: skip


@pytest.fixture(name="foreign", scope="module")
def _foreign(world: World) -> list[str]:
    """The same, with all UUIDs of what is not hers."""
    uuids = [
        str(row[1])
        for kind, names in {"instance": [*MALLORYS, *OTHERS], "node": ["node3"], "group": ["vault-group"],
                            "network": ["vault-net"]}.items()
        for row in world.query(kind, "name uuid")
        if row[0] in names
    ]  # fmt: skip
    return FOREIGN + uuids


def test_every_get(world: World, foreign: list[str]) -> None:
    """Every GET but a few was open to any valid user, and some submit jobs.

    Here each, with each query argument that changes what is shown, for names on both sides: nothing of others in it.
    """
    admin = world.cluster.luxi("SubmitJob", [{"OP_ID": "OP_TEST_DELAY", "duration": 0, "reason": [], "on_master": True,
                                              "on_nodes": [], "comment": "vault-tag"}])  # fmt: skip
    sides = [
        {"node": "node2", "instance": OWN, "group": "default", "network": "eve-net", "job": "1", "query": "node"},
        {"node": "node3", "instance": VAULT, "group": "vault-group", "network": "vault-net", "job": str(admin),
         "query": "export"},
    ]  # fmt: skip
    seen = 0
    for method, path in endpoints():
        if method != "GET" or path == "/2/os" or path.endswith("/wait"):
            continue
        for side in sides:
            for arguments in ("", "?bulk=1&lock=1", "?fields=name&static=1&storage_type=file&output_fields=name"):
                where = path.format(disk=0, filter="x", **side) + arguments
                status, answer = world.ask("eve", "GET", where)
                assert status in (200, 400, 403, 404, 503), (where, status, answer)
                text = json.dumps(answer)
                assert [word for word in foreign if word in text and word not in where] == [], (where, answer)
                seen += status == 200
    assert seen > 40
    for job_id in world.unfinished():
        world.cluster.job(job_id)


def test_names_inside_of_other_objects(world: World) -> None:
    """Nodes, groups and networks list instances of all. Here the counts fit what is shown, by each way to read."""
    (node,) = world.ask("eve", "PUT", "/2/query/node", {"fields": ["name", "pinst_list", "pinst_cnt"],
                                                        "qfilter": ["=", "name", "node1"]})[1]["data"]  # fmt: skip
    assert [value for _, value in node] == ["node1", [], 0]
    assert world.query("node", "pinst_cnt", "node1") != [[0]]
    whole = world.ask("eve", "GET", "/2/nodes/node1")[1]
    assert (whole["pinst_list"], whole["pinst_cnt"]) == ([], 0)
    group = world.ask("eve", "GET", "/2/groups/default")[1]
    assert (sorted(group["node_list"]), group["node_cnt"]) == (["node1", "node2"], 2)
    network = world.ask("eve", "GET", "/2/networks/eve-net")[1]
    assert [row[0] for row in network["group_list"]] == ["default"] and network["map"] is None
    info = world.ask("eve", "GET", "/2/info")[1]
    assert not {"tags", "master", "osparams", "hvparams", "ipolicy_secret"} & set(info)
    for path in ("/2/instances", "/2/nodes", "/2/groups", "/2/networks"):
        named = {row.get("id", row.get("name")) for row in world.ask("mallory", "GET", path)[1]}
        assert named == (set(MALLORYS) if path == "/2/instances" else set())


@pytest.mark.parametrize("field", ["name", "uuid", "tags", "pnode", "nic.macs", "nic.ips", "disk.names", "os"])
def test_filters_are_no_oracle(world: World, field: str) -> None:
    """A filter's type error told of the other row's data, and a comparison with nothing is true.

    Here pairs of filters that are true, false or an error on rows of others alone: both answers are the same.
    """
    rows = dict(world.query("instance", f"name {field}"))
    value = rows[VAULT]
    for right in value if isinstance(value, list) else [value]:
        wrong = "no-such" if isinstance(right, str) else 1
        operator = "=[]" if isinstance(value, list) else "="
        for form in (
            lambda what, operator=operator: [operator, field, what],
            lambda what, operator=operator: ["|", ["=", "name", "no"], [operator, field, what]],
            lambda what, operator=operator: ["!", ["!", [operator, field, what]]],
            lambda what, operator=operator: ["|", [operator, field, what], ["=", "os", 5]],
        ):
            answers = [
                world.ask("eve", "PUT", "/2/query/instance", {"fields": ["name"], "qfilter": form(what)})
                for what in (right, wrong)
            ]
            assert answers[0] == answers[1]
            assert VAULT not in str(answers)


def test_filters_on_what_is_cut(world: World) -> None:
    """What is cut in an answer may not be asked for in a filter either, nor may jobs' contents."""
    for kind, field in [("node", "pinst_list"), ("node", "pinst_cnt"), ("node", "sinst_list"), ("group", "pinst_list"),
                        ("group", "node_list"), ("group", "node_cnt"), ("network", "inst_list"),
                        ("network", "inst_cnt"), ("network", "map"), ("network", "free_count"),
                        ("network", "external_reservations"),
                        ("job", "ops"), ("job", "summary"), ("job", "opresult"), ("job", "oplog")]:  # fmt: skip
        for qfilter in (
            ["=", field, 1],
            ["=[]", field, VAULT],
            ["?", field],
            ["!", ["=", field, "x"]],
            ["=~", field, "v"],
        ):
            status, answer = world.ask("eve", "PUT", f"/2/query/{kind}", {"fields": ["name"], "qfilter": qfilter})
            assert status == 400 and "may not be used" in answer["message"], (kind, qfilter, answer)


COSTLY = ["^(.*)*x$", "(a+)+$", "((a|b)*)*", "(a|aa)(a|aa)(a|aa)", ".*.*.*x", "a?a?a?a", r"(.)\1", "(?R)", "x" * 300]


def test_expressions_that_cost_too_much(world: World) -> None:
    """While luxid matches an expression it answers nobody: what could take long is refused, in part or in number."""
    for expression in COSTLY:
        for qfilter in (["=~", "name", expression], ["|", ["=", "name", "x"], ["!", ["=~", "name", expression]]]):
            body = {"fields": ["name"], "qfilter": qfilter}
            assert world.ask("eve", "PUT", "/2/query/instance", body)[0] == 400, qfilter
    many = ["|", *(["=~", "name", f"^eve{number}"] for number in range(50))]
    assert world.ask("eve", "PUT", "/2/query/instance", {"fields": ["name"], "qfilter": many})[0] == 400
    fine = {"fields": ["name"], "qfilter": ["=~", "name", r"^eve[0-9]+\.test\..*$"]}
    assert [row[0][1] for row in world.ask("eve", "PUT", "/2/query/instance", fine)[1]["data"]] == EVES[:2]


def test_what_failures_tell(world: World, foreign: list[str]) -> None:
    """An existing name, an address, an allocator's findings: jobs say what they came across.

    Here for the one who may choose any name, and for names, groups, nodes and UUIDs in all parts of a job.
    """
    jobs = [
        world.submit("mallory", "POST", "/2/instances", {**CREATE, "name": VAULT, "start": False}),
        world.submit("mallory", "POST", "/2/instances", {**CREATE, "name": "huge.x", "beparams": {"vcpus": 9}}),
        world.submit("mallory", "PUT", f"/2/instances/{MALLORYS[0]}/rename", {"new_name": VAULT}),
    ]
    for job_id in jobs:
        status, result = world.cluster.job(job_id)
        assert status == "error", result
        _, job = world.ask("mallory", "GET", f"/2/jobs/{job_id}")
        said = json.dumps([job["opresult"], job["oplog"]])
        others = [word for word in foreign if word not in MALLORYS] + EVES + ["vault-group"]
        assert [word for word in others if word in said] == []
        for fields in (["opresult", "oplog"], ["oplog", "opresult", "status"]):
            rows = world.ask("mallory", "PUT", "/2/query/job", {"fields": fields, "qfilter": ["=", "id", job_id]})[1][
                "data"
            ]
            waited = world.ask("mallory", "GET", f"/2/jobs/{job_id}/wait", {"fields": fields})[1]
            said = json.dumps([rows, waited])
            assert [word for word in others if word in said] == []


def test_jobs_of_others(world: World) -> None:
    """Anybody with `write` read, waited for and cancelled anybody's job.

    Here in each spelling of its number, and by a dependency: all the same as a job that is not there.
    """
    with world.paused():
        own = world.submit("eve", "PUT", f"/2/instances/{OWN}/tags?tag=x")
        other = world.submit("mallory", "PUT", f"/2/instances/{MALLORYS[0]}/tags?tag=x&reason=eve")
        none = world.last_job() + 1000
        answers = {}
        for job_id in (other, none):
            path = f"/2/jobs/{job_id}"
            wait = {"fields": ["status", "ops"]}
            requests: list[tuple[str, str, Any]] = [
                ("GET", path, None), ("GET", path + "/wait", wait), ("DELETE", path, None),
                ("GET", f"/2/jobs/0{job_id}", None), ("DELETE", f"/2/jobs/000{job_id}", None),
            ]  # fmt: skip
            requests += [
                ("PUT", f"/2/instances/{OWN}/{what}", {"depends": depends})
                for what in ("shutdown", "failover")
                for depends in ([[job_id, ["success"]]], [[own, []], [job_id, []]], [[job_id, []], [own, []]])
            ]
            requests.append(("POST", "/2/instances", {**CREATE, "name": NEW, "depends": [[job_id, []]]}))
            inner = {**EVES_INNER, "name": NEW, "depends": [[job_id, []]]}
            requests.append(("POST", "/2/instances-multi-alloc", {"instances": [inner]}))
            answers[job_id] = [world.ask("eve", *request) for request in requests]
        assert answers[other] == answers[none]
        assert {answer[0] for answer in answers[none]} == {404}
        listed = world.ask("eve", "GET", "/2/jobs")[1]
        assert own in [row["id"] for row in listed] and other not in [row["id"] for row in listed]
        for qfilter in (None, ["!", ["=", "id", own]], ["=", "id", other], ["|", ["<", "id", 10**6]]):
            rows = world.ask("eve", "PUT", "/2/query/job", {"fields": ["id"], "qfilter": qfilter})[1]["data"]
            assert other not in [row[0][1] for row in rows]
        assert world.cluster.luxi("QueryJobs", [other], ["status"]) == [["queued"]]
        stored = world.stored(
            world.submit("eve", "PUT", f"/2/instances/{OWN}/shutdown", {"depends": [[own, ["success"]]]})
        )
        assert stored[0]["depends"] == [[own, ["success"]]]


#: What submits jobs, with a reason in the query that says that it is somebody else's.
SUBMITTING: list[tuple[str, str, Any]] = [
    ("PUT", f"/2/instances/{OWN}/shutdown", {}),
    ("POST", f"/2/instances/{OWN}/reboot", None),
    ("PUT", f"/2/instances/{OWN}/tags?tag=x", None),
    ("POST", f"/2/instances/{OWN}/reinstall", {"os": "noop"}),
    ("POST", "/2/instances", {**CREATE, "name": NEW}),
    ("GET", f"/2/instances/{OWN}/info", None),
    ("GET", "/2/nodes/node2/storage?storage_type=file&output_fields=name", None),
]


def test_reason_trails(world: World) -> None:
    """`?reason=` stands in the trail; reinstall carried no entry at all; a body's `reason` was taken inside of others.

    Here each submitting request with reasons that look like ours, repeated: each opcode has our entry once, first.
    """
    forged = [[SOURCE, "mallory", 1]]
    with world.paused():
        for method, path, body in SUBMITTING:
            for reason in (f"reason={SOURCE}", f"reason=mallory&reason={SOURCE}", "reason="):
                where = path if path.endswith("reinstall") else f"{path}{'&' if '?' in path else '?'}{reason}"
                for opcode in world.stored(world.submit("eve", method, where, body)):
                    assert [entry[1] for entry in opcode["reason"] if entry[0] == SOURCE] == ["eve"]
                    assert opcode["reason"][0][:2] == [SOURCE, "eve"]
            if isinstance(body, dict) and not path.endswith("reinstall"):
                assert world.ask("eve", method, path, {**body, "reason": forged})[0] == 400


def test_jobs_of_jobs(world: World) -> None:
    """Children of a multi-alloc inherit the parent's trail: they are their submitter's alone, archived too."""
    inner = [{**INNER, "name": f"child{number}.x", "reason": [[SOURCE, "eve", 1]]} for number in range(2)]
    job_id = world.submit("mallory", "POST", "/2/instances-multi-alloc", {"instances": inner})
    status, result = world.cluster.job(job_id)
    assert status == "success", result
    children = [int(child) for success, child in result[0]["jobs"] if success]
    assert len(children) == 2
    for child in children:
        assert world.cluster.job(child)[0] == "success"
        assert world.cluster.luxi("ArchiveJob", child) is True
        assert world.ask("mallory", "GET", f"/2/jobs/{child}")[0] == 200
        assert world.ask("eve", "GET", f"/2/jobs/{child}")[0] == world.ask("trudy", "GET", f"/2/jobs/{child}")[0] == 404
    world.remove("child0.x", "child1.x")


def test_waiting_for_odd_things(world: World) -> None:
    """What a waiting client sends goes to luxid: odd fields and states are an error of hers, not of the server."""
    job_id = world.submit("eve", "PUT", f"/2/instances/{OWN}/tags?tag=waited")
    world.cluster.job(job_id)
    odd: list[Any] = [["status"], [], ["nosuch"], [["a"]], [1], [None], ["\ud800"], ["status"] * 500, "x", {}, None]
    states: list[dict[str, Any]] = [
        {},
        {"previous_job_info": [float("nan")]},
        {"previous_job_info": ["\ud800"]},
        {"previous_job_info": {}},
        {"previous_log_serial": 10**30},
        {"previous_log_serial": "1"},
    ]
    bodies: list[dict[str, Any]] = [
        {"fields": fields, **more} for fields in odd for more in states
    ]  # fmt: skip
    for body in bodies:
        assert world.ask("eve", "GET", f"/2/jobs/{job_id}/wait", body)[0] in (200, 400, 404), body
    world.done("eve", "DELETE", f"/2/instances/{OWN}/tags?tag=waited")
