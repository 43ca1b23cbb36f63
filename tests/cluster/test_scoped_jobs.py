# SPDX-License-Identifier: BSD-2-Clause
"""The tenant's jobs: hers alone, whatever is in their trails, and pinned to what was decided on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.tenancy import (
    CREATE,
    FOREIGN,
    INNER,
    ON_INSTANCE,
    OWN,
    SOURCE,
    VICTIM,
    Tenancy,
    tenants,
)
from tests.cluster.vcluster import Cluster


@pytest.fixture(scope="module", name="tenancy")
def _tenancy(cluster: Cluster) -> Iterator[Tenancy]:
    with tenants(cluster) as tenancy:
        cluster.add_instances([OWN, VICTIM], node="node1")
        yield tenancy


# --- jobs --------------------------------------------------------------------------------


def test_jobs_of_others(tenancy: Tenancy) -> None:
    """Reading, waiting and cancelling: another's job is the same bytes as none."""
    with tenancy.paused():
        own = tenancy.submit("PUT", f"/2/instances/{OWN}/tags?tag=mine")
        forged = tenancy.submit("PUT", f"/2/instances/{FOREIGN}/tags?tag=a&reason={SOURCE}", user="prod")
        colleague = tenancy.submit("PUT", f"/2/instances/{OWN}/tags?tag=b&reason=eve", user="colleague")
        operator = tenancy.submit("POST", f"/2/instances/{OWN}/reboot?reason=eve", user="ops")
        admin = tenancy.submit("PUT", f"/2/instances/{OWN}/tags?tag=c&reason={SOURCE}", user="admin")
        wait = {"fields": ["status"]}
        none = 999999

        def requests(job: int) -> list[tuple[str, str, Any]]:
            path = f"/2/jobs/{job}"
            return [("GET", path, None), ("GET", path + "/wait", wait), ("DELETE", path, None)]

        missing = tenancy.ask_all(requests(none))
        assert {answer[0] for answer in missing} == {404} and len({repr(answer) for answer in missing}) == 1
        for job in (forged, colleague, operator, admin):
            assert tenancy.ask_all(requests(job)) == missing
        for spelling in (f"{own}x", f"+{own}", f" {own}", f"{own}.0", f"{own}/", "-1", "0", "all"):
            path = spelling.replace(" ", "%20")
            assert tenancy.ask("DELETE", f"/2/jobs/{path}")[0] in (404, 501), spelling
        status, _, answer = tenancy.ask("GET", f"/2/jobs/{own}")
        assert status == 200 and json.loads(answer)["id"] == own
        assert tenancy.ask("GET", f"/2/jobs/{own}/wait", wait)[0] == 200
        for job, user in ((colleague, "colleague"), (forged, "prod"), (operator, "ops")):
            owner = tenancy.stored(job)[0]["reason"][0]
            assert owner[:2] == [SOURCE, user]
        assert tenancy.ask("GET", f"/2/jobs/{own}", user="ops")[0] == 200
        assert tenancy.ask("GET", f"/2/jobs/{own}", user="admin")[0] == 200
        status, _, answer = tenancy.ask("DELETE", f"/2/jobs/{own}")
        assert status == 200 and json.loads(answer)[0] is True
        assert tenancy.cluster.job(own)[0] == "canceled"
        for job in (forged, colleague, operator):
            assert tenancy.cluster.luxi("QueryJobs", [job], ["status"]) == [["queued"]]
    assert tenancy.cluster.job(admin)[0] == "success"


def test_lists_of_jobs(tenancy: Tenancy) -> None:
    """Each list, and each query whatever its filter, has hers and no other; whoever has none gets none."""
    with tenancy.paused():
        own = [tenancy.submit("PUT", f"/2/instances/{OWN}/tags?tag={tag}") for tag in ("a", "b")]
        foreign = tenancy.submit("PUT", f"/2/instances/{FOREIGN}/tags?tag=theirs", user="prod")

        def ids(path: str, key: str = "id") -> set[int]:
            return {int(job[key]) for job in json.loads(tenancy.ask("GET", path)[2])}

        def found(**body: Any) -> set[int]:
            status, _, answer = tenancy.ask("PUT", "/2/query/job", {"fields": ["id", "summary"], **body})
            assert status == 200, answer
            return {row[0][1] for row in json.loads(answer)["data"]}

        hers = ids("/2/jobs")
        assert set(own) <= hers and foreign not in hers and 1 not in hers
        assert ids("/2/jobs?bulk=1") == found() == hers
        assert found(qfilter=["=", "status", "queued"]) == set(own)
        assert found(qfilter=["=", "id", own[0]]) == {own[0]}
        assert found(qfilter=["=", "id", foreign]) == found(qfilter=["=", "id", 999999]) == set()
        assert found(filter=["!", ["=", "id", own[0]]]) == hers - {own[0]}
        assert found(filter=["|", ["=", "id", own[0]], ["=", "id", foreign]]) == {own[0]}
        lists = [tenancy.ask("GET", path, user="nobody")[2] for path in ("/2/jobs", "/2/jobs?bulk=1")]
        assert lists == [b"[]\n", b"[]\n"]
        rows = json.loads(tenancy.ask("GET", "/2/query/job?fields=id,ops,summary", user="nobody")[2])["data"]
        assert rows == []


def test_information_by_a_job(tenancy: Tenancy) -> None:
    """What the nodes tell of her instance comes as the result of a job, which is hers alone."""
    job = tenancy.submit("GET", f"/2/instances/{OWN}/info")
    assert tenancy.cluster.job(job)[0] == "success"
    status, _, answer = tenancy.ask("GET", f"/2/jobs/{job}")
    (result,) = json.loads(answer)["opresult"]
    assert status == 200 and list(result) == [OWN] and result[OWN]["name"] == OWN
    assert tenancy.ask("GET", f"/2/jobs/{job}", user="prod")[0] == 404
    with tenancy.no_job():
        assert tenancy.ask("GET", f"/2/instances/{OWN}/info", user="prod")[0] == 404
        assert tenancy.ask("GET", f"/2/instances/{FOREIGN}/info")[0] == 404


def test_archived_job(tenancy: Tenancy) -> None:
    """Her own job is hers in the archive too, where another's stays hidden."""
    own = tenancy.submit("PUT", f"/2/instances/{OWN}/tags?tag=archived")
    other = tenancy.submit("PUT", f"/2/instances/{FOREIGN}/tags?tag=archived", user="prod")
    for job in (own, other):
        assert tenancy.cluster.job(job)[0] == "success"
        assert tenancy.cluster.luxi("ArchiveJob", job) is True
    missing = tenancy.ask("GET", "/2/jobs/999999")
    status, _, answer = tenancy.ask("GET", f"/2/jobs/{own}")
    assert (status, json.loads(answer)["id"]) == (200, own)
    assert tenancy.ask("GET", f"/2/jobs/{other}") == missing
    assert missing[0] == 404


def test_forged_trails(tenancy: Tenancy) -> None:
    """A trail of the client's own is refused where Ganeti refuses it, and dropped in a multi-alloc."""
    trail = [[SOURCE, "admin", 1]]
    name = "new.test.example.com"
    requests: list[tuple[str, str, Any]] = [("POST", "/2/instances", {**CREATE, "name": name, "reason": trail})]
    requests += [
        (method, f"/2/instances/{OWN}{path}", {**(body or {}), "reason": trail})
        for method, path, body in ON_INSTANCE
        if path in ("", "/reboot", "/shutdown", "/rename", "/modify", "/migrate", "/failover")
    ]
    inner = {"instances": [{**INNER, "name": name}]}
    requests.append(("POST", "/2/instances-multi-alloc", {**inner, "reason": trail}))
    with tenancy.no_job():
        assert {answer[0] for answer in tenancy.ask_all(requests)} == {400}
    with tenancy.paused():
        for user in ("eve", "ops"):
            inner = {"instances": [{**INNER, "name": name, "reason": trail}]}
            job = tenancy.submit("POST", "/2/instances-multi-alloc?reason=why", inner, user)
            (opcode,) = tenancy.stored(job)
            assert [entry[:2] for entry in opcode["reason"][:2]] == [[SOURCE, user], ["gnt:user", "why"]]
            assert opcode["instances"][0]["reason"] == []


# --- whole lives -------------------------------------------------------------------------


def test_life_of_an_instance(tenancy: Tenancy) -> None:
    """One is made, renamed and removed, by its tenant alone."""
    one, two = "one.test.example.com", "two.test.example.com"
    assert tenancy.cluster.job(tenancy.submit("POST", "/2/instances", {**CREATE, "name": one}))[0] == "success"
    assert tenancy.uuid(one)
    shutdown = tenancy.submit("PUT", f"/2/instances/{one}/shutdown")
    assert tenancy.cluster.job(shutdown)[0] == "success"
    rename = tenancy.submit("PUT", f"/2/instances/{one}/rename", {"new_name": two})
    status, result = tenancy.cluster.job(rename)
    assert status == "success", result
    assert tenancy.ask("DELETE", f"/2/instances/{one}")[0] == 404
    assert tenancy.cluster.job(tenancy.submit("DELETE", f"/2/instances/{two}"))[0] == "success"
    assert tenancy.uuid(one) is tenancy.uuid(two) is None


@pytest.mark.parametrize(("user", "hypervisor", "seen"), [("ops", "fake", 404), ("eve", None, 200)])
def test_jobs_of_jobs(tenancy: Tenancy, user: str, hypervisor: str | None, seen: int) -> None:
    """A multi-alloc's own jobs belong to its submitter, whatever its inner trails say."""
    inner = {**INNER, "name": f"{user}.test.example.com", "name_check": False, "ip_check": False}
    inner["reason"] = [[SOURCE, "eve" if user == "ops" else "ops", 1]]
    if hypervisor is not None:
        inner["hypervisor"] = hypervisor
    multi = tenancy.submit("POST", "/2/instances-multi-alloc", {"instances": [inner]}, user=user)
    status, result = tenancy.cluster.job(multi)
    assert status == "success", result
    (child,) = (int(job_id) for success, job_id in result[0]["jobs"] if success)
    assert tenancy.cluster.job(child)[0] == "success"
    owners = [entry[1] for entry in tenancy.stored(child)[0]["reason"] if entry[0] == SOURCE]
    assert owners == [user]
    assert tenancy.ask("GET", f"/2/jobs/{child}")[0] == seen


def test_a_name_that_changed_its_meaning(tenancy: Tenancy) -> None:
    """Her jobs wait, the instance is replaced by another of the same name: they must fail."""
    name = "swap.test.example.com"
    tenancy.cluster.add_instance(name, node="node1")
    with tenancy.paused(then_run=True):
        jobs = [tenancy.submit("DELETE", f"/2/instances/{name}"), tenancy.submit("PUT", f"/2/instances/{name}/startup")]
        tenancy.remove(name)
        tenancy.cluster.add_instance(name, node="node2")
        uuid = tenancy.uuid(name)
    for job in jobs:
        status, result = tenancy.cluster.job(job)
        assert status == "error" and "UUID" in str(result)
    assert tenancy.uuid(name) == uuid is not None


def test_the_neighbours_are_as_before(tenancy: Tenancy) -> None:
    """After all of the above."""
    assert tenancy.uuid(FOREIGN) and tenancy.uuid(OWN) and tenancy.uuid(VICTIM)
    rows = tenancy.cluster.luxi("Query", "instance", ["name", "tags"], ["=", "name", VICTIM])["data"]
    assert rows[0][1][1] == []
    assert tenancy.cluster.luxi("QueryTags", "node", "node1") == []
