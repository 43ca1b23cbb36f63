# SPDX-License-Identifier: BSD-2-Clause
"""A user's own view through the remote API: it agrees with what he is let do, and comes and goes."""

from __future__ import annotations

import json
from typing import Any

from tests.cluster import gnt_ext
from tests.cluster.vcluster import Cluster

PATH = "/2/ext/whoami"
POLICY = """\
version: 1
roles:
  tester:
    permissions: ["@operator", instances.remove]
    scope: {instances: {name: "*.test.example.com"}}
deny:
  - {users: [joe, bob], permissions: [instances.remove]}
"""
USERS = "admin secret write\njoe x @tester\nann x @readonly\nbob x read\n"


def view(cluster: Cluster, user: str) -> dict[str, Any]:
    status, _, body = cluster.rapi("GET", PATH, user=user)
    assert status == 200
    found: dict[str, Any] = json.loads(body)
    return found


def test_whoami(fresh: Cluster) -> None:
    fresh.set_rapi_users(USERS)
    with fresh.rapi_logs("rapi-access.yaml loaded"):
        fresh.set_policy(POLICY)
    for user in ("joe", "ann", "bob", "admin"):
        # What the administrator is told about him.
        said = gnt_ext.run(fresh, "matrix", "--no-headers", "--separator=|").stdout
        column = {"admin": 1, "ann": 2, "bob": 3, "joe": 4}[user]
        held = {row.split("|")[0] for row in said.splitlines() if row.split("|")[column] != "-"}
        assert set(view(fresh, user)["permissions"]) == held, user
    (role,) = view(fresh, "joe")["roles"]
    assert role["name"] == "tester" and role["scope"]["instances"] == [{"name": ["*.test.example.com"]}]
    assert fresh.rapi("GET", PATH)[0] == 401
    assert fresh.rapi("GET", PATH, user="joe", password="wrong")[0] == 401
    told = gnt_ext.run(fresh, "explain", "joe", "GET", PATH)
    assert told.returncode == 0 and "decision     allowed" in told.stdout, told

    # A new policy is in the next answer.
    with fresh.rapi_logs("rapi-access.yaml loaded"):
        fresh.set_policy(POLICY.replace("*.test", "web1.test"))
    assert view(fresh, "joe")["roles"][0]["scope"]["instances"] == [{"name": ["web1.test.example.com"]}]
