# SPDX-License-Identifier: BSD-2-Clause
"""The tests that a policy brings along: run before it is taken."""

from __future__ import annotations

from collections.abc import Callable

from ganeti_ext.policy.accounts import Account, Grants, plain, resolve
from ganeti_ext.policy.decision import decide
from ganeti_ext.policy.model import Policy, Test
from ganeti_ext.policy.strict_yaml import Problem


def failures(policy: Policy, grants_of: Callable[[str], Grants | None]) -> list[Problem]:
    """The tests that do not hold, with what is decided instead.

    `grants_of` says what a user's line of the users file grants by this policy (`resolve`, or
    `plain` where that is None); None if he has no line, and so no rights.
    """
    problems = []
    for test in policy.tests:
        message = _failure(test, policy, grants_of)
        if message:
            problems.append(Problem(test.line, test.column, message))
    return problems


def _failure(test: Test, policy: Policy, grants_of: Callable[[str], Grants | None]) -> str:
    """Why a test does not hold; empty if it does."""
    if test.tokens is None:
        grants = grants_of(test.user)
    else:
        tokens = [token.strip() for token in test.tokens.split(",")]  # as Ganeti reads them
        grants = resolve(tokens, policy) or plain(tokens)
    asked = f"test of user {test.user!r}, {test.permission}"
    if test.target is not None:
        asked += f" on {test.target.kind} {test.target.name}".rstrip()
    if grants is None:
        if not test.expect:
            return ""
        return (
            f"{asked}: should be allowed, but the users file has no such user: add the line there,"
            ' or give the test `tokens: "@ROLE"` to go by'
        )
    decision = decide(
        Account(test.user, grants, policy),
        (test.permission,),
        () if test.target is None else (test.target,),
        test.parameters,
    )
    if decision.allowed == test.expect:
        return ""
    mistakes = "".join(f"; {problem}" for problem in grants.problems)
    if decision.allowed:
        warning = f" ({decision.warning}, but for mode: warn)" if decision.warning else ""
        return f"{asked}: should be refused, but {decision.rule} allows it{warning}{mistakes}"
    return f"{asked}: should be allowed, but is refused: {decision.reason}{mistakes}"
