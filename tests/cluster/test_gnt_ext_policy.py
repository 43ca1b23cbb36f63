# SPDX-License-Identifier: BSD-2-Clause
"""gnt-ext about the policy, on a real cluster: what it says is what the daemon does."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

from tests.cluster import gnt_ext, nodes
from tests.cluster.vcluster import POLICY_FILE, Cluster

POLICY = """\
version: 1
roles:
  tester:
    permissions: ["@operator", instances.create, instances.modify, instances.remove, tags.set]
    scope:
      instances: {name: "*.test.example.com"}
      nodes: {group: nowhere}
    parameters: {os_type: [noop], beparams.maxmem: {max: 1G}}
"""
USERS = "admin secret write\njoe x @tester\nann x @readonly\nbob x read\n"


def run(cluster: Cluster, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    done = gnt_ext.run(cluster, *arguments, **options)
    assert "Traceback" not in done.stderr, done
    return done


def test_check(fresh: Cluster) -> None:
    with contextlib.suppress(FileNotFoundError):  # of tests before
        os.unlink(fresh.node_path("node1", "var/lib/ganeti/rapi/access.last-good.yaml"))
    done = run(fresh, "check")
    assert (done.returncode, done.stdout) == (0, "")  # nothing is configured
    fresh.set_rapi_users(USERS)
    fresh.set_policy(POLICY)
    done = run(fresh, "check")
    assert done.returncode == 0
    assert "6:3: " not in done.stdout
    assert done.stdout == (
        f"{fresh.node_path('node1', POLICY_FILE)}:3:3: warning: role tester: the scope's nodes (group nowhere) match"
        " none of the 3 on this cluster\n      tester:\n      ^\n"
    )
    assert done.stderr == "0 errors, 1 warning\n"
    away = run(fresh, "check", node="node2")
    assert (away.returncode, away.stdout) == (0, "") and "only the master" in away.stderr
    os.chmod(fresh.node_path("node1", POLICY_FILE), 0o600)
    done = run(fresh, "check", "--offline")
    assert done.returncode == 1 and "chmod a+r" in done.stdout
    os.chmod(fresh.node_path("node1", POLICY_FILE), 0o666)
    assert "chmod go-w" in run(fresh, "check", "--offline").stdout
    fresh.set_policy(POLICY.replace("nodes:", "node:"))
    for options in ({}, {"env": {"LC_ALL": "C"}}):
        done = run(fresh, "check", **options)
        assert done.returncode == 1 and "did you mean 'nodes'?" in done.stdout
    fresh.remove_policy()


def test_can_and_the_tables(fresh: Cluster) -> None:
    with fresh.rapi_logs("rapi-access.yaml loaded"):
        fresh.set_policy(POLICY.replace("nowhere", "default"))
    fresh.set_rapi_users(USERS)
    for user in ("joe", "ann", "bob"):
        for name in ("web1.test.example.com", "db1.prod.example.com"):
            said = run(fresh, "can", user, "instances.query", name)
            status, _, _ = fresh.rapi("GET", f"/2/instances/{name}", user=user)
            assert (said.returncode == 0) == (status == 200), (user, name, said)
    new = run(fresh, "can", "joe", "instances.create", "new.test.example.com")
    assert new.stdout == "yes: role tester, in group default\n"
    assert run(fresh, "can", "joe", "instances.rebot").returncode == 1
    for memory, allowed in ((512, True), (2048, False)):
        body = json.dumps({"beparams": {"maxmem": memory, "minmem": 64}})
        done = run(fresh, "can", "--body=-", "joe", "instances.modify", "web1.test.example.com", input=body)
        assert (done.returncode == 0) == allowed == done.stdout.startswith("yes: role tester"), done
        assert allowed or "beparams.maxmem may not be set to this" in done.stdout
    away = run(fresh, "can", "--body=-", "joe", "instances.modify", "web1", node="node2", input="{}")
    assert away.returncode == 1 and "only the master" in away.stderr
    who = run(fresh, "who-can", "--no-headers", "--separator=:", "instances.remove", "web1.test.example.com")
    assert [line.split(":")[0] for line in who.stdout.splitlines()] == ["admin", "joe"]
    assert "@tester" in run(fresh, "roles").stdout
    assert len(run(fresh, "permissions", "--no-headers").stdout.splitlines()) == 67
    assert "secret" not in run(fresh, "users", env={"LC_ALL": "C"}).stdout


def test_audit(fresh: Cluster) -> None:
    with fresh.rapi_logs("rapi-access.yaml loaded"):
        fresh.set_policy(POLICY.replace("nowhere", "default"))
    fresh.set_rapi_users(USERS)
    fresh.rapi("POST", "/2/instances/db1.prod.example.com/reboot", user="joe")
    fresh.rapi("PUT", "/2/instances/web1.test.example.com/tags?tag=a&dry-run=1", user="joe")
    lines = run(fresh, "audit", "--since", "1h", "--user", "joe").stdout.splitlines()
    assert " deny 404 joe@" in lines[-2] and " allow 200 joe@" in lines[-1] and " job " in lines[-1]
    denied = run(fresh, "audit", "--denied", "--user", "joe", "--output", "json").stdout.splitlines()
    assert json.loads(denied[-1])["objects"] == {"instance": ["db1.prod.example.com"]}
    assert run(fresh, "audit", "--since", "2099-01-01").stdout == ""
    assert run(fresh, "audit", "--since", "tomorrow").returncode == 1


def test_explain(fresh: Cluster) -> None:
    with fresh.rapi_logs("rapi-access.yaml loaded"):
        fresh.set_policy(POLICY.replace("nowhere", "default"))
    fresh.set_rapi_users(USERS)
    serial = Path(fresh.node_path("node1", "var/lib/ganeti/queue/serial"))
    before = serial.read_text(encoding="ascii")
    creation = {
        "__version__": 1, "mode": "create", "name": "new.test.example.com", "disk_template": "diskless", "disks": [],
        "nics": [], "os_type": "noop", "beparams": {"memory": 64}, "name_check": False, "ip_check": False,
    }  # fmt: skip
    done = run(fresh, "explain", "joe", "POST", "/2/instances", "-", input=json.dumps(creation))
    assert done.returncode == 0, done
    # As it would have been submitted: put into the role's group.
    assert '"group_name": "default"' in done.stdout and "decision     allowed, by role tester" in done.stdout
    creation["beparams"] = {"memory": 4096}
    done = run(fresh, "explain", "joe", "POST", "/2/instances", json.dumps(creation))
    assert done.returncode == 1 and "beparams.maxmem may not be set to this" in done.stdout
    assert run(fresh, "explain", "joe", "DELETE", "/2/instances/web1.test.example.com").returncode == 0
    assert serial.read_text(encoding="ascii") == before
    assert fresh.rapi("GET", "/2/instances/web1.test.example.com", user="joe")[0] == 200

    fresh.rapi("POST", "/2/instances/db1.prod.example.com/reboot", user="joe")
    record = json.loads(run(fresh, "audit", "--user", "joe", "--output", "json").stdout.splitlines()[-1])
    done = run(fresh, "explain", record["id"])
    assert done.returncode == 1 and "today        no: instance 'db1.prod.example.com': outside" in done.stdout
    assert run(fresh, "explain", "0" * 16).returncode == 1
    away = run(fresh, "explain", "joe", "GET", "/2/nodes", node="node2")
    assert away.returncode == 1 and "only the master can be asked" in away.stderr


def test_user(fresh: Cluster) -> None:
    with fresh.rapi_logs("rapi-access.yaml loaded"):
        fresh.set_policy(POLICY.replace("nowhere", "default"))
    path = fresh.node_path("node1", "var/lib/ganeti/rapi/users")
    before = os.stat(path)

    def change(*arguments: str, **options: Any) -> str:
        with fresh.rapi_logs("Reading users file"):
            done = run(fresh, "user", *arguments, **options)
        assert done.returncode == 0, done
        return done.stdout.strip()

    def status(password: str, name: str) -> int:
        return fresh.rapi("GET", f"/2/instances/{name}", user="zoe", password=password)[0]

    change("add", "zoe", "@tester", input="correct horse\n")
    assert status("correct horse", "web1.test.example.com") == 200
    assert status("correct horse", "db1.prod.example.com") == 404
    token = change("token", "zoe")
    assert status("correct horse", "web1.test.example.com") == 401
    assert status(token, "web1.test.example.com") == 200
    change("grant", "zoe", "@readonly")
    assert status(token, "db1.prod.example.com") == 200
    change("remove", "zoe")
    assert status(token, "web1.test.example.com") == 401
    after = os.stat(path)
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)
    refused = run(fresh, "user", "grant", "admin", "@testr")
    assert refused.returncode == 1 and "did you mean '@tester'?" in refused.stderr
    log = Path(fresh.node_path("node1", "var/log/ganeti/commands.log")).read_text(encoding="utf-8")
    assert token not in log and "correct horse" not in log


def test_matrix_and_replay(fresh: Cluster, tmp_path: Path) -> None:
    with fresh.rapi_logs("rapi-access.yaml loaded"):
        fresh.set_policy(POLICY.replace("nowhere", "default"))
    fresh.set_rapi_users(USERS)
    for options in ({}, {"env": {"LC_ALL": "C"}}):
        lines = run(fresh, "matrix", **options).stdout.splitlines()
        assert lines[0].split() == ["Permission", "admin", "ann", "bob", "joe"]
        (row,) = [line.split() for line in lines if line.startswith("instances.reboot ")]
        assert row[1:] == ["all", "-", "-", "some"]
    # Each cell is what can says.
    said = run(fresh, "can", "--list", "--no-headers", "--separator=|", "joe").stdout
    held = {line.split("|")[0] for line in said.splitlines()}
    rows = [line.split("|") for line in run(fresh, "matrix", "--no-headers", "--separator=|").stdout.splitlines()]
    assert {row[0] for row in rows if row[4] != "-"} == held
    page = tmp_path / "page.html"
    assert run(fresh, "matrix", "--roles", "--html", str(page)).returncode == 0
    assert "@tester" in page.read_text(encoding="utf-8")
    assert run(fresh, "matrix", "--html", str(tmp_path / "no" / "page.html")).returncode == 1

    for name in ("web1.test.example.com", "db1.prod.example.com"):
        fresh.rapi("PUT", f"/2/instances/{name}/tags?tag=a&dry-run=1", user="joe")
    fresh.rapi("POST", "/2/instances/web2.test.example.com/reboot?dry-run=1", user="joe")
    since = ["--since", "60s", "--user", "joe", "--output", "json"]
    draft = tmp_path / "draft.yaml"
    draft.write_text(POLICY.replace(", tags.set", "").replace("nowhere", "default"), encoding="ascii")
    done = run(fresh, "replay", *since, str(draft))
    changed = {(one["permission"], one["objects"]): one for one in json.loads(done.stdout)}
    assert done.returncode == 1 and "The trail keeps no bodies" in done.stderr
    lost = changed.pop(("tags.set", "instance web1.test.example.com"))
    assert lost["before"] == "yes: role tester" and lost["after"].startswith("no: permission tags.set")
    assert not changed
    draft.write_text(POLICY.replace("*.test.", "*.").replace("nowhere", "default"), encoding="ascii")
    done = run(fresh, "replay", "--since", "60s", "--user", "joe", str(draft))
    assert "joe: tags.set instance db1.prod.example.com" in done.stdout
    draft.write_text("version: 2\n", encoding="ascii")
    assert run(fresh, "replay", str(draft)).returncode == 1


def test_every_command_of_the_troubleshooting_page(fresh: Cluster, tmp_path: Path) -> None:
    """Each is run as it is shown, on a cluster where something is wrong."""
    page = (Path(__file__).parents[2] / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    calls = [shlex.split(line) for line in re.findall(r"^    # gnt-ext (.*)$", page, re.MULTILINE)]
    with fresh.rapi_logs("rapi-access.yaml loaded"):
        fresh.set_policy(POLICY.replace("nowhere", "default"))
    fresh.set_rapi_users(USERS.replace("joe", "test1"))
    fresh.rapi("DELETE", "/2/instances/db1.prod.example.com", user="test1")
    record = json.loads(run(fresh, "audit", "--denied", "--output=json").stdout.splitlines()[-1])
    body = tmp_path / "creation.json"
    creation = {"__version__": 1, "mode": "create", "name": "new.test.example.com", "os_type": "other"}
    body.write_text(json.dumps({**creation, "disk_template": "diskless", "disks": [], "nics": []}), encoding="utf-8")
    tmp_path.chmod(0o755)
    nodes.add_command(fresh, "node2", "last-kernel-messages", "echo a message")
    stand_ins = {
        "5f0c1d6a9b3e4872": record["id"],
        "--body=creation.json": f"--body={body}",
        "@creation.json": f"@{body}",
        "/etc/ganeti/rapi-access.yaml": fresh.node_path("node1", POLICY_FILE),
    }
    said = {}
    for call in calls:
        done = run(fresh, *(stand_ins.get(word, word) for word in call), input="a new password\n")
        assert "Usage:" not in done.stderr and done.returncode in (0, 1), (call, done)
        said[" ".join(call)] = done.stdout + done.stderr
    assert "permission" in said["explain 5f0c1d6a9b3e4872"] and "today" in said["explain 5f0c1d6a9b3e4872"]
    for words in ("can --body=creation.json test1 instances.create", "explain test1 POST /2/instances @creation.json"):
        assert "os_type may not be set to this" in said[words], said[words]
    assert "yes: role tester" in said["can test1 instances.reboot web1.test.example.com"]
    assert "yes: role tester" in said["can --offline test1 instances.reboot web1.test.example.com"]
    assert "allowed, by role tester" in said["explain test1 POST /2/instances/web1.test.example.com/reboot"]
    assert "a message" in said["restricted-command --direct node2 last-kernel-messages"]
    assert "db1.prod" in said["audit --denied --since=1h"]
    assert len(said) == len({" ".join(call) for call in calls}) > 15
    nodes.remove_commands(fresh, "node2")
