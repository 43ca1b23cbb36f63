# SPDX-License-Identifier: BSD-2-Clause
"""Two tenants send anything at all: nothing of others changes or shows, and the server has no error."""

from __future__ import annotations

from tests.cluster.attacker import TENANTS, attack
from tests.cluster.world import shared

#: The same seed gives the same requests. For others, and more: `python3 -m tests.cluster.attacker`.
SEED = 20
REQUESTS = 800


def test_attacker() -> None:
    with shared() as world:  # tenants may remove what is theirs
        count = attack(world, SEED, REQUESTS)
    # It must have got somewhere: requests that are all refused would find nothing.
    assert count["jobs", 0] > REQUESTS / 50
    for user in TENANTS:
        assert all(count[user, status] > REQUESTS / 100 for status in (200, 400, 403, 404)), count
