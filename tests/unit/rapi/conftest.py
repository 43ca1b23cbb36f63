# SPDX-License-Identifier: BSD-2-Clause
"""Access lists as they are in the running daemon, and as they were afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ganeti.rapi import connector

from ganeti_ext.rapi.permissions import own_access_lists
from tests.unit.rapi import fake


@pytest.fixture
def registered() -> Iterator[None]:
    """The permissions stand on the access lists."""
    with fake.unchanged_access_lists():
        own_access_lists(connector.CONNECTOR)
        yield
