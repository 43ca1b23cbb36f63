# SPDX-License-Identifier: BSD-2-Clause
"""The policy and the accounts that a running daemon goes by, and how they change."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ganeti import pathutils, utils

from ganeti_ext import rootfile
from ganeti_ext.errors import ExtError
from ganeti_ext.policy.accounts import Account, Grants, account_of, plain, plain_permissions, resolve
from ganeti_ext.policy.model import MAX_SIZE, Policy
from ganeti_ext.policy.vocabulary import RESTRICTED_COMMAND
from ganeti_ext.rapi.passwords import costliest

POLICY_FILE = pathutils.CONF_DIR + "/rapi-access.yaml"

#: The policy that was taken last, for a daemon that starts with a bad one. It lies where
#: the daemon, which is not root, may write.
LAST_GOOD_FILE = pathutils.RAPI_DATA_DIR + "/access.last-good.yaml"


def read_policy_file(path: str, owners: tuple[int, ...] = (0,), private: bool = False) -> bytes:
    """Reads a policy whose owner is one of `owners` (user ids) and alone may write it.

    A `private` file is not for everybody to read, either. A byte more than a policy may have is read.

    Raises FileNotFoundError, another OSError, or UnsafeFile.
    """
    return rootfile.read_bytes(path, MAX_SIZE + 1, owners=owners, private=private)


def _parse(data: bytes, source: str) -> Policy:
    """The policy that `data` is. Raises PolicyError."""
    # Imported here: a daemon without a policy starts without the time YAML takes.
    from ganeti_ext.policy.loader import load_policy

    return load_policy(data, source)


class _State(NamedTuple):
    """What is gone by. It is replaced as a whole: a request in another thread never sees half of a change."""

    users: Mapping[str, Any] = {}
    policy: Policy | None = None
    policy_exists: bool = False
    has_our_tokens: bool = False
    #: What takes as long to check as the slowest password of all users.
    costliest_password: str = costliest(())


class AccessControl:
    """What the daemon holds, and its requests decide by.

    A request in a process of its own has what there was as it began; one in a thread takes a copy (`copy.copy`).
    """

    def __init__(
        self,
        policy_file: str = POLICY_FILE,
        last_good_file: str = LAST_GOOD_FILE,
        owner: int = 0,
        policy: Policy | None = None,
    ) -> None:
        """`policy` is one that is in force already; `owner` is a user id."""
        self._policy_file = policy_file
        self._last_good_file = last_good_file
        self._owner = owner
        self._state = _State(policy=policy)
        self._last_complaint = ""
        self._started = False
        #: Set by the entry point.
        self.has_middleware = False
        #: Set as the file comes and goes.
        self.has_restricted_users = False

    @property
    def active(self) -> bool:
        """Whether there is anything to enforce: a policy, a token of ours, a middleware, restricted commands."""
        state = self._state
        return state.policy_exists or state.has_our_tokens or self.has_middleware or self.has_restricted_users

    @property
    def costliest_password(self) -> str:
        """What takes as long to check as the slowest password of all users."""
        return self._state.costliest_password

    def user(self, name: str) -> Any:
        """A user of Ganeti's file, as `resolve_users` left him; None if there is no such user."""
        return self._state.users.get(name)

    def start(self) -> None:
        """Takes the policy for the first time, once Ganeti has loaded the users.

        Its tests are about them, and what is wrong with their tokens shows only now.
        """
        self._started = True
        self.load_policy()
        if self._state.policy is None:
            self.resolve_users(self._state.users)

    def load_policy(self) -> None:
        """Takes the policy file as it is now, if it is right.

        A bad file never replaces a good one: the running policy stays, and a daemon that
        has none yet takes the last good copy (design, 3.2). Never raises: it is called from
        the main loop.
        """
        try:
            data = read_policy_file(self._policy_file, (self._owner,))
            policy = _parse(data, self._policy_file)
            self._run_tests(policy)
            self._take(policy)
        except FileNotFoundError:
            if self._state.policy is None and not os.path.lexists(self._last_good_file):
                return  # nothing was ever configured
            self._keep(f"{self._policy_file} has vanished; to go without a policy, remove {self._last_good_file}, too")
        except OSError as err:
            self._keep(f"{self._policy_file}: cannot be read by this daemon: {err.strerror}")
        except ExtError as err:
            self._keep(str(err))
        except Exception as err:
            logging.exception("Reading the access policy")
            self._keep(f"{self._policy_file}: unexpected {type(err).__name__}")
        else:
            self._last_complaint = ""
            logging.info("Access policy %s loaded", self._policy_file)
            self._save_copy(data)

    def _run_tests(self, policy: Policy) -> None:
        """Raises PolicyError if the policy does not do what its own tests say of today's users."""
        from ganeti_ext.policy.selftest import failures
        from ganeti_ext.policy.strict_yaml import PolicyError

        problems = failures(policy, lambda name: self._grants_of(name, policy))
        if problems:
            raise PolicyError(self._policy_file, problems)

    def _take(self, policy: Policy) -> None:
        # Other objects: a request under way goes by those that it has.
        users = {name: copy.copy(user) for name, user in self._state.users.items()}
        self._state = self._resolved(users, policy)._replace(policy_exists=True)

    def _keep(self, complaint: str) -> None:
        """Says why the file is not taken, and falls back on the copy if nothing runs yet."""
        self._state = self._state._replace(policy_exists=True)
        if self._state.policy is not None:
            outcome = "the policy before it stays in force"
        elif self._take_copy():
            outcome = f"the last good one is in force, from {self._last_good_file}"
        else:
            outcome = "its roles grant nothing"
        # A file that is saved raises several events; one line is enough.
        if complaint != self._last_complaint:
            logging.error("Access policy not taken: %s; %s", complaint, outcome)
        self._last_complaint = complaint

    def _take_copy(self) -> bool:
        try:
            data = read_policy_file(self._last_good_file, (self._owner, os.geteuid()))
            self._take(_parse(data, self._last_good_file))
        except FileNotFoundError:
            return False
        except (OSError, ExtError) as err:
            logging.error("The last good access policy is of no use: %s", err)
            return False
        except Exception:
            logging.exception("Reading the last good access policy")
            return False
        return True

    def _save_copy(self, data: bytes) -> None:
        try:
            utils.WriteFile(self._last_good_file, data=data, mode=0o600)
        except (OSError, ExtError) as err:
            logging.error("The access policy is in force, but no copy could be kept: %s", err)

    def resolve_users(self, users: Mapping[str, Any] | None) -> None:
        """Works out what the users of Ganeti's file are granted, and takes them over.

        None stands for a file that cannot be read: nobody gets in, and what was closed to
        the anonymous because of its accounts stays closed.

        Each user gets `tokens`, his third column as it was read, `grants`, and for an
        account of ours as `options` the names of its permissions, which is what Ganeti's own
        check looks for on the access lists; where Ganeti has permissions itself, those are his `permissions`.
        """
        if users is None:
            self.forget_users()
        else:
            self._state = self._resolved(users, self._state.policy)

    def forget_users(self) -> None:
        """Lets nobody in until the users are worked out anew."""
        self._state = self._state._replace(users={})

    def _resolved(self, users: Mapping[str, Any], policy: Policy | None) -> _State:
        known: dict[tuple[str, ...], tuple[Grants | None, list[str]]] = {}
        for user in users.values():
            tokens = user.__dict__.setdefault("tokens", tuple(user.options))
            if tokens not in known:
                grants = resolve(tokens, policy or _NO_POLICY)
                known[tokens] = grants, sorted(grants.roles) if grants is not None else []
            user.grants, options = known[tokens]
            if user.grants is not None:
                user.options = options
            if hasattr(user, "permissions"):
                user.permissions = _permissions(user)
            if user.grants is not None and self._started:
                _log_problems(user.name, user.grants.problems)
        return self._state._replace(
            users=users,
            policy=policy,
            has_our_tokens=any(grants is not None for grants, _ in known.values()),
            costliest_password=costliest(user.password for user in users.values()),
        )

    def _grants_of(self, name: str, policy: Policy) -> Grants | None:
        """What a policy would grant to a user; None if there is no such user."""
        user = self.user(name)
        return None if user is None else resolve(user.tokens, policy) or _plain(user)

    @property
    def audit_reads(self) -> bool:
        """Whether allowed reads are recorded, too."""
        policy = self._state.policy
        return policy is not None and policy.audit_reads

    def account_of(self, user: Any, always: bool = False) -> Account | None:
        """What is granted to a user of Ganeti's file; None if nothing of ours is about him, unless it is `always`."""
        policy = self._state.policy or _NO_POLICY
        account = account_of(user.name, getattr(user, "grants", None), policy)
        return Account(user.name, _plain(user), policy) if account is None and always else account

    def whole_account_of(self, user: Any) -> Account:
        """All that a user of Ganeti's file has, by Ganeti's own options too."""
        grants = user.grants if user.grants is not None else _plain(user)
        return Account(user.name, grants, self._state.policy or _NO_POLICY)


_NO_POLICY = Policy()


#: Options of which Ganeti's next release makes the role of an administrator, who has what is ours, too.
_ALL = frozenset({"all", "write"})


def _permissions(user: Any) -> frozenset[str]:
    """The permissions of a user for Ganeti's own check, where it has one."""
    if user.grants is not None:
        return frozenset(user.grants.roles)
    known: frozenset[str] = user.permissions
    return known if _ALL.isdisjoint(user.tokens) else known | {RESTRICTED_COMMAND}


def _plain(user: Any) -> Grants:
    """What Ganeti itself gives to a user without a token of ours."""
    permissions = getattr(user, "permissions", None)
    return plain(user.tokens) if permissions is None else plain_permissions(permissions)


def _log_problems(name: str, problems: Iterable[str]) -> None:
    for problem in problems:
        logging.error("%s: user %r: %s", pathutils.RAPI_USERS_FILE, name, problem)
