# SPDX-License-Identifier: BSD-2-Clause
"""Fixtures for tests on a real cluster: one for all of them, as good as new for each."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.cluster import vcluster
from tests.cluster import world as shared_world

INSTANCES = ["web1.test.example.com", "web2.test.example.com", "db1.prod.example.com"]


@pytest.fixture(scope="session", name="cluster")
def _cluster() -> Iterator[vcluster.Cluster]:
    """Three nodes and INSTANCES, one on each; the RAPI's user is `admin`."""
    if os.geteuid() != 0 or not os.path.exists(vcluster.DAEMON_UTIL):
        pytest.skip("needs root and an installed Ganeti")
    with vcluster.Cluster(instances=INSTANCES) as running:
        yield running


@pytest.fixture(name="fresh")
def _fresh(cluster: vcluster.Cluster) -> Iterator[vcluster.Cluster]:
    """The cluster, for a test that sets users or a policy: undone after it."""
    yield cluster
    cluster.remove_policy()
    cluster.set_rapi_users(vcluster.DEFAULT_USERS)


@pytest.fixture(scope="session", name="world")
def _world() -> Iterator[shared_world.World]:
    """Two tenants and what is nobody's, on a cluster of its own: tests leave what is of others as it was."""
    if os.geteuid() != 0 or not os.path.exists(vcluster.DAEMON_UTIL):
        pytest.skip("needs root and an installed Ganeti")
    with shared_world.shared() as world:
        yield world
