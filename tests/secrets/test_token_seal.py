"""A token is honoured only as it was signed: no other process makes one, and no column of it can be changed."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from hookseal.secrets.core import token_seal
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.token_seal import TokenSeal, public_key
from hookseal.secrets.core.trust import IntegrityKey

pytestmark = pytest.mark.req("API-13")

NOW: Final = datetime(2026, 3, 1, tzinfo=UTC)
TOKEN: Final[dict[str, Any]] = {
    "tenant_id": "acme",
    "token_id": "0197c1f0-5e6a-7c3b-9d2e-4f5061728394",
    "name": "t",
    "digest": b"d" * 32,
    "scopes": ["read"],
    "created_at": NOW,
    "expires_at": NOW + timedelta(days=1),
    "portal": False,
    "user": None,
    "session_id": None,
    "refresh_url": None,
    "code_digest": None,
    "code_spent_at": None,
    "made_of": None,
    "generation": 1,
}
OTHERS: Final[dict[str, Any]] = {
    "tenant_id": "rival",
    "token_id": "0197c1f0-5e6a-7c3b-9d2e-4f5061728395",
    "name": "u",
    "digest": b"e" * 32,
    "scopes": ["read", "reveal"],
    "created_at": NOW + timedelta(seconds=1),
    "expires_at": None,
    "portal": True,
    "user": "jane",
    "session_id": "s",
    "refresh_url": "https://product.example/",
    "code_digest": b"c" * 32,
    "code_spent_at": NOW,
    "made_of": "0197c1f0-5e6a-7c3b-9d2e-4f5061728396",
    "generation": 2,
}


def key(name: str, key_id: str = "1", **older: SecretMaterial) -> IntegrityKey:
    return IntegrityKey(key_id=key_id, material=material(name), older=older)


def material(name: str) -> SecretMaterial:
    return SecretMaterial(hashlib.sha256(name.encode()).digest())


def test_each_column_that_decides_something_is_signed() -> None:
    """A signature is of one token. With another value of any column it is none, also right after it was verified."""
    seal = TokenSeal(key("ours"))
    signed = seal.signed(TOKEN)
    assert OTHERS.keys() == TOKEN.keys()
    for name, other in OTHERS.items():
        assert seal.is_authentic(signed)
        assert not seal.is_authentic(signed | {name: other}), name
    assert not seal.is_authentic(signed | {"signature": bytes(64)})
    assert not seal.is_authentic(signed | {"signature": b"short"})
    assert not seal.is_authentic(TokenSeal(key("theirs")).signed(TOKEN))


def test_a_process_without_the_key_verifies_only() -> None:
    """It takes the public key that comes with the row; without one, nothing is authentic, and it signs nothing."""
    ours, without = key("ours"), TokenSeal()
    signed = TokenSeal(ours).signed(TOKEN)

    assert without.is_authentic(signed | {"public_key": public_key(ours, "1")})
    assert not without.is_authentic(signed | {"public_key": public_key(key("theirs"), "1")})
    assert not without.is_authentic(signed | {"public_key": None})
    with pytest.raises(LookupError):
        without.signed(TOKEN)


def test_an_older_version_of_the_key_verifies() -> None:
    """A token outlives the version that signed it, until that version is forgotten."""
    signed = TokenSeal(key("first")).signed(TOKEN)

    assert TokenSeal(key("second", "2", **{"1": material("first")})).is_authentic(signed)
    assert not TokenSeal(key("second", "2")).is_authentic(signed)


def test_few_tokens_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit the one that was verified longest ago is verified again."""
    monkeypatch.setattr(token_seal, "MOST_VERIFIED", 1)
    seal = TokenSeal(key("ours"))
    both = [seal.signed(TOKEN), seal.signed(TOKEN | {"token_id": OTHERS["token_id"]})]

    assert [True] * 4 == [seal.is_authentic(each) for each in (*both, *both)]
