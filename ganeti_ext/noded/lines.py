# SPDX-License-Identifier: BSD-2-Clause
"""Who waits for the node daemon, in a line for each address, and whose turn it is.

The address with the fewest that are served is next. The last few places are for addresses that have none.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator
from typing import Any

#: Children or threads beyond Ganeti's number of them, for addresses that have none.
RESERVED = 4

#: Connections that wait. With one more the newest of the longest line is closed: it is no use to anybody to leave it in
#: the kernel's line, where others would stand behind it.
MOST_WAITING = 400

#: A connection, and the address and port of its client.
Waiting = tuple[Any, Any]


class Lines:
    """The connections that wait. `places` is how many are served at once, but for the reserved ones."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._lines: dict[str, collections.deque[Waiting]] = {}

    def __iter__(self) -> Iterator[Any]:
        """The connections."""
        return (connection for line in self._lines.values() for connection, _ in line)

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def arrive(self, connection: Any, client: Any) -> Any:
        """Put a connection at the end of its line. Return the one that is to be closed for it, or None."""
        self._lines.setdefault(client[0], collections.deque()).append((connection, client))
        if len(self) <= MOST_WAITING:
            return None
        longest = max(self._lines, key=lambda address: len(self._lines[address]))
        dropped, _ = self._lines[longest].pop()
        if not self._lines[longest]:
            del self._lines[longest]
        return dropped

    def take(self, served: collections.Counter[str]) -> Waiting | None:
        """Take who is next, if there is one and a place for it. `served` is how many are, by address."""
        address = min(self._lines, key=lambda one: served[one], default=None)
        if address is None:
            return None
        places = self._places + (0 if served[address] else RESERVED)
        if sum(served.values()) >= places:
            return None
        line = self._lines.pop(address)
        turn = line.popleft()
        if line:
            self._lines[address] = line  # last among its equals
        return turn
