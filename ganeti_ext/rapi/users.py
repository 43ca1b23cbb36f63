# SPDX-License-Identifier: BSD-2-Clause
"""Ganeti's users file, read by Ganeti, with what each user's tokens grant beside it."""

from __future__ import annotations

import logging
from typing import Any

from ganeti.server import rapi

from ganeti_ext.rapi.access import AccessControl

#: Ganeti's own class: its name is ours once the patches are applied.
_GanetiUsers = rapi.RapiUsers


class Roles(dict[str, frozenset[str]]):
    """Ganeti's roles, where it has some. Any other is a role of nothing: what it grants is worked out by us.

    So that Ganeti does not log a role of the policy as unknown; what is unknown to us, too, we log ourselves.
    """

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> frozenset[str]:
        return frozenset()


class RapiUsers(_GanetiUsers):  # type: ignore[misc, valid-type]
    """Ganeti's users, each with what his tokens grant: `AccessControl.resolve_users`."""

    #: Set by the entry point, before the daemon makes its users.
    access = AccessControl()
    _users: Any

    def Get(self, username: str) -> Any:
        """The user of that name, with what his tokens grant; None if there is none."""
        return self.access.user(username)

    def Load(self, filename: str) -> bool:
        """Loads the file as Ganeti does; users are seen only once they are worked out.

        A user whose tokens were not worked out would have them as plain options, and `write`
        among them would open everything: on an error nobody gets in.
        """
        try:
            fresh = _GanetiUsers()
            fresh._users = self._users  # which a file that cannot be parsed leaves
            loaded: bool = fresh.Load(filename)
            self.access.resolve_users(fresh._users)
        except Exception:
            logging.exception("Working out the accounts of %s: nobody is let in", filename)
            self._users = None
            self.access.forget_users()
            return False
        self._users = fresh._users
        return loaded
