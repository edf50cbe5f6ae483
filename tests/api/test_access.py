"""What a token allows."""

from typing import Any

import pytest

from hookseal.admin import Scope
from hookseal.api.access import (
    Access,
    actor_of_token,
    bearer,
    require_every_tenant,
    require_scopes,
    require_tenant,
)
from hookseal.api.problems import Problem

ACME = Access(tenant_id="acme", scopes=frozenset({Scope.READ, Scope.MANAGE}), actor="token:a")
EVERY = Access(tenant_id=None, scopes=frozenset({Scope.READ}), actor="token:e")


def status(call: Any, *arguments: Any) -> int | None:
    """Return the status with which the call is refused; None if it is not."""
    try:
        call(*arguments)
    except Problem as problem:
        return problem.status
    return None


@pytest.mark.parametrize(
    ("access", "needed", "expected"),
    [
        (ACME, {Scope.READ}, None),
        (ACME, {Scope.READ, Scope.MANAGE}, None),
        (ACME, {Scope.REVEAL}, 403),
        (ACME, {Scope.MANAGE, Scope.REVEAL}, 403),
        (EVERY, {Scope.MANAGE}, 403),
        (EVERY, set(), None),
    ],
)
def test_a_call_needs_each_of_its_scopes(access: Access, needed: set[Scope], expected: int | None) -> None:
    assert expected == status(require_scopes, access, frozenset(needed))


def test_another_tenant_is_absent() -> None:
    assert [None, 404, None] == [
        status(require_tenant, *each) for each in ((ACME, "acme"), (ACME, "globex"), (EVERY, "globex"))
    ]


@pytest.mark.parametrize("tenant", ["", "*", "_operator", "a b"])
def test_what_is_no_tenant_is_not_every_tenant(tenant: str) -> None:
    """A product may have a user without a customer: then its access is none, and never one for all."""
    with pytest.raises(ValueError, match="tenant_id must be"):
        Access(tenant_id=tenant, scopes=frozenset({Scope.READ}), actor="jane")


def test_what_concerns_every_tenant_is_refused_to_one() -> None:
    assert [403, None] == [status(require_every_tenant, each) for each in (ACME, EVERY)]


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer abc", "abc"),
        ("bearer  abc ", "abc"),
        ("Basic abc", None),
        ("Bearer", None),
        ("Bearer a b", None),
        ("Bearer \xff", None),
        ("Bearer " + "a" * 513, None),
        (None, None),
    ],
)
def test_a_bearer_token_is_read(header: str | None, token: str | None) -> None:
    assert token == bearer(header)


def test_the_actor_names_token_and_user() -> None:
    assert "token:ci" == actor_of_token("ci", None)
    assert "token:ci/jane doe" == actor_of_token("ci", "jane doe")


@pytest.mark.parametrize("user", ["", " ", "a\nb", "é", "a" * 65])
def test_a_user_that_a_log_cannot_show_is_refused(user: str) -> None:
    assert 422 == status(actor_of_token, "ci", user)
    assert 422 == status(actor_of_token, "n" * 63, "u" * 64)
