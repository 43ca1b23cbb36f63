# SPDX-License-Identifier: BSD-2-Clause
"""What tokens grant (design, 3.1): the known ones, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganeti_ext.policy.accounts import Account, account_of, is_ours, nearest, plain, plain_permissions, resolve
from ganeti_ext.policy.model import BUILTIN, Deny, Policy, Role, Scope, Selector, Target
from ganeti_ext.policy.pattern import Pattern, Patterns
from ganeti_ext.policy.vocabulary import BUILTIN_ROLES, PERMISSIONS, PLAIN_ROLES

SCOPED = Role(
    "test-operator",
    frozenset({"instances.reboot", "tags.set"}),
    scope=Scope((Selector(Patterns([Pattern("*.test")])),)),
)
WIDE = Role("rebooter", frozenset({"instances.reboot"}))
POLICY = Policy({"test-operator": SCOPED, "rebooter": WIDE})

UNKNOWN = st.one_of(
    st.text(max_size=12),
    st.text(alphabet="abc.@+-_ #", max_size=12),
    st.sampled_from([f"{sign}{name}" for sign in ("", "+", "@") for name in ("instances.rebot", "Write", "admin ")]),
).filter(
    lambda token: (
        token.lstrip("+") not in PERMISSIONS
        and token[1:] not in (*BUILTIN, *POLICY.roles)
        and token not in ("write", "read", *PLAIN_ROLES)
        and not (token.startswith("-") and token[1:] in PERMISSIONS)
    )
)


def grants(*tokens: str) -> dict[str, list[str]]:
    account = resolve(tokens, POLICY)
    assert account is not None
    return {name: [role.name for role in roles] for name, roles in account.roles.items()}


def problems(*tokens: str) -> tuple[str, ...]:
    account = resolve(tokens, POLICY)
    assert account is not None
    return account.problems


@pytest.mark.parametrize(
    "tokens",
    [(), ("",), ("write",), ("read",), ("write", "read"), ("anything",), ("test",), ("Write",), ("write # x",)],
)
def test_ganetis_own_accounts_are_left_alone(tokens: tuple[str, ...]) -> None:
    assert resolve(tokens, POLICY) is None


@pytest.mark.parametrize(
    "token",
    [
        "@",
        "@admin",
        "@no-such-role",
        "@readonly # noc",
        "+",
        "+jobs.cancel",
        "+nothing",
        "-",
        "-jobs.cancel",
        "-nothing",
        "jobs.cancel",
        "no.such",
        ".",
        *PLAIN_ROLES,
    ],
)
def test_ours_known_or_not(token: str) -> None:
    assert is_ours(token)
    assert resolve((token,), POLICY) is not None
    assert resolve(("write", token), POLICY) is not None
    assert resolve((token, "write"), POLICY) is not None


@pytest.mark.parametrize(
    "token", ["write", "read", "", "admin", "readonly", "operator", "instance_writ", "test-operator"]
)
def test_not_ours(token: str) -> None:
    assert not is_ours(token)


@pytest.mark.parametrize("name", BUILTIN_ROLES)
def test_a_builtin_role_grants_its_permissions(name: str) -> None:
    assert grants("@" + name).keys() == BUILTIN_ROLES[name]
    assert problems("@" + name) == ()


@pytest.mark.parametrize("name", PLAIN_ROLES)
def test_the_mails_names_are_roles_without_their_at(name: str) -> None:
    assert grants(name) == grants("@" + name)


@pytest.mark.parametrize("name", PERMISSIONS)
def test_a_permission_grants_itself_alone(name: str) -> None:
    assert grants(name) == grants("+" + name) == {name: ["(users file)"]}


@pytest.mark.parametrize("name", PERMISSIONS)
@pytest.mark.parametrize("first", [True, False])
def test_a_minus_wins_whatever_the_order(name: str, first: bool) -> None:
    tokens = ["@admin", name, "+" + name, "@rebooter", "@test-operator"]
    tokens.insert(0 if first else 5, "-" + name)
    assert name not in grants(*tokens)
    assert grants("@admin", "-" + name).keys() == PERMISSIONS.keys() - {name}


def test_write_less_something_is_admin_less_it() -> None:
    assert grants("write", "-instances.remove") == grants("@admin", "-instances.remove")
    assert "instances.remove" not in grants("write", "-instances.remove")


def test_read_beside_a_token_of_ours_is_readonly() -> None:
    assert grants("read", "+jobs.cancel").keys() == BUILTIN_ROLES["readonly"] | {"jobs.cancel"}


def test_the_designs_own_lines() -> None:
    noc = grants("@readonly", "+jobs.cancel", "-cluster.info")
    assert noc.keys() == (BUILTIN_ROLES["readonly"] | {"jobs.cancel"}) - {"cluster.info"}
    assert grants("@test-operator") == {"instances.reboot": ["test-operator"], "tags.set": ["test-operator"]}


@pytest.mark.parametrize(
    ("token", "hint"),
    [
        ("@test-operater", "did you mean '@test-operator'?"),
        ("@oparator", "did you mean '@operator'?"),
        ("@Admin", "did you mean '@admin'?"),
        ("+instances.rebot", "did you mean 'instances.reboot'?"),
        ("instances.rebot", "did you mean 'instances.reboot'?"),
        ("-instances.rebot", "did you mean '-instances.reboot'?"),
        ("@", ""),
        ("+", ""),
        ("-", ""),
        (".", ""),
        ("+@operator", ""),
        ("-@operator", ""),
        ("+write", ""),
        ("++tags.set", ""),
        (" tags.set", ""),
        ("Tags.set", ""),
        ("@readonly # the NOC", ""),
        ("tags.set # too", ""),
    ],
)
def test_a_typo_grants_nothing_and_is_told_once(token: str, hint: str) -> None:
    assert grants(token) == {}
    (problem,) = problems(token)
    assert repr(token) in problem
    assert hint in problem


@pytest.mark.parametrize("token", ["@no-such-role", "+no.such", "no.such", "+", "typo"])
def test_an_unknown_token_leaves_the_known_ones(token: str) -> None:
    assert grants("+jobs.cancel", token).keys() == {"jobs.cancel"}


@pytest.mark.parametrize("token", ["-", "-no.such", "-instances.rebot", "-@operator", "-write", "--tags.set"])
@pytest.mark.parametrize("other", ["write", "@admin", "+tags.set", "@test-operator", "instance_write"])
def test_a_typo_in_a_minus_could_mean_anything_so_all_is_gone(token: str, other: str) -> None:
    assert grants(other, token) == grants(token, other) == {}
    assert any(repr(token) in problem for problem in problems(other, token))


def test_a_comment_at_the_end_of_a_line_is_part_of_its_token() -> None:
    assert grants("@readonly", "+jobs.cancel # until May").keys() == BUILTIN_ROLES["readonly"]
    assert grants("write", "-instances.remove # for now") == {}
    assert grants("@admin # root") == {}


@pytest.mark.parametrize("bare", ["tags.set", "+tags.set", "instances.create"])
def test_a_bare_permission_beside_a_limited_role_is_refused_and_told(bare: str) -> None:
    assert grants("@test-operator", bare) == grants(bare, "@test-operator") == grants("@test-operator")
    (problem,) = problems("@test-operator", bare)
    assert "@test-operator" in problem and "put it into the role" in problem


def test_a_bare_permission_beside_an_unlimited_role_is_granted() -> None:
    assert grants("@rebooter", "tags.set").keys() == {"instances.reboot", "tags.set"}
    assert problems("@rebooter", "tags.set") == ()


def test_bare_permissions_are_one_role() -> None:
    account = resolve(("tags.set", "+tags.get"), POLICY)
    assert account is not None
    assert account.roles["tags.set"] == account.roles["tags.get"]


def test_unlimited_roles_come_first() -> None:
    assert grants("@test-operator", "@rebooter", "@admin")["instances.reboot"] == ["rebooter", "admin", "test-operator"]


def test_a_role_named_twice_grants_once() -> None:
    assert grants("@rebooter", "@rebooter") == grants("@rebooter")


def test_a_role_of_the_file_cannot_take_a_builtin_ones_place() -> None:
    policy = Policy({"readonly": Role("readonly", frozenset(PERMISSIONS))})
    account = resolve(("@readonly",), policy)
    assert account is not None
    assert account.roles.keys() == BUILTIN_ROLES["readonly"]


def test_without_a_policy_the_roles_of_the_file_grant_nothing() -> None:
    account = resolve(("@test-operator",), Policy())
    assert account is not None
    assert account.roles == {}


@given(st.lists(UNKNOWN, max_size=5))
def test_unknown_tokens_grant_nothing_whatever_their_company(tokens: list[str]) -> None:
    account = resolve(tokens, POLICY)
    assert account is None or account.roles == {}


@given(
    st.lists(
        st.sampled_from(["@readonly", "+jobs.cancel", "@test-operator", "tags.set", "read", "-tags.set"]), max_size=4
    ),
    st.lists(UNKNOWN, max_size=3),
    st.randoms(use_true_random=False),
)
def test_unknown_tokens_open_nothing_more(known: list[str], unknown: list[str], random: object) -> None:
    alone = resolve(known, POLICY)
    mixed = [*known, *unknown]
    random.shuffle(mixed)  # type: ignore[attr-defined]
    together = resolve(mixed, POLICY)
    if together is None:
        assert alone is None
    elif alone is not None:
        assert together.roles.keys() <= alone.roles.keys()
        for name, roles in together.roles.items():
            assert {role.name for role in roles} <= {role.name for role in alone.roles[name]}
    else:
        # A plain account that is ours now: what `read` gives, and no more.
        assert together.roles.keys() <= BUILTIN_ROLES["readonly"]


def test_the_nearest_word_is_near() -> None:
    assert nearest("rebot", ["reboot", "remove"]) == "; did you mean 'reboot'?"
    assert nearest("xyz", ["reboot", "remove"]) == ""
    assert nearest("", []) == ""


def test_hints_cost_little() -> None:
    assert nearest("reboot" * 100, ["reboot" * 100 + "x"]) == ""
    assert nearest("r1", [f"r{number}" for number in range(2000)]) == ""


def test_what_ganeti_itself_grants() -> None:
    assert plain(["write"]).roles.keys() == set(PERMISSIONS)
    reads = BUILTIN_ROLES["readonly"] - {"jobs.wait"}
    assert plain(["read"]).roles.keys() == reads | {"instances.query.console"}
    for tokens in ([], [""], ["Write"], ["test"]):
        assert plain(tokens).roles.keys() == reads - {"query.all"}


KEEP = Deny(
    (Pattern("*"),),
    frozenset(["instances.remove", "instances.list"]),
    (Pattern("root"),),
    {"instance": (Selector(tag=Patterns([Pattern("keep")])),)},
)
NOT_JOE = Deny((Pattern("joe"),), frozenset(["jobs.list"]))


def test_denies_reach_accounts_that_are_ganetis() -> None:
    policy = Policy(denies=(KEEP,))
    assert account_of("root", None, policy) is None
    assert account_of("joe", None, Policy()) is None
    joe = account_of("joe", None, policy)
    assert joe is not None
    assert joe.roles("instances.remove") == (BUILTIN["admin"],)
    assert joe.denied(["instances.remove"], [Target("instance", "a", frozenset(["keep"]))]) is KEEP
    assert joe.denied(["instances.remove"], [Target("instance", "a")]) is None


def test_which_denies_hide_something() -> None:
    joe, root = (Account(user, plain(["write"]), Policy(denies=(KEEP, NOT_JOE))) for user in ("joe", "root"))
    assert joe.hides("instances.list", "instance") == (KEEP,)
    assert joe.hides("instances.list", "node") == ()
    assert joe.hides("jobs.list", "job") == (NOT_JOE,)
    assert root.denies == ()


def test_roles_are_bound_to_their_user_once() -> None:
    own = Role(
        "own",
        frozenset(["tags.set", "instances.reboot"]),
        scope=Scope((Selector(Patterns([Pattern("{user}-*")])),)),
    )
    policy = Policy({"own": own})
    grants = resolve(["@own", "@test-operator"], Policy({"own": own, "test-operator": SCOPED}))
    assert grants is not None
    joe, jim, odd = (Account(user, grants, policy) for user in ("joe", "jim", "O.d"))
    assert joe.roles("tags.set")[0] is joe.roles("instances.reboot")[0] is joe.roles("tags.set")[0]
    assert joe.roles("tags.set")[0].covers(Target("instance", "joe-1"))
    assert not jim.roles("tags.set")[0].covers(Target("instance", "joe-1"))
    assert odd.roles("tags.set") == (SCOPED,)
    assert odd.roles("no.such") == ()


def test_what_ganeti_gives_by_permissions_of_its_own() -> None:
    """Those that we know; whoever has them all is an administrator."""
    some = plain_permissions({"tags.get", "instances.list", "a.later.one"})
    assert set(some.roles) == {"tags.get", "instances.list"}
    assert plain_permissions(()).roles == {}
    assert plain_permissions(PERMISSIONS).roles == dict.fromkeys(PERMISSIONS, (BUILTIN["admin"],))
