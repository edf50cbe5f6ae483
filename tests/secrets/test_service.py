"""The service: checked before anything is asked, whole or not at all, gone after the block (laws 2, 3, 11)."""

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from hookseal.ground.errors import CannotSign, Defect
from hookseal.ground.pointer import Pointer
from hookseal.secrets.context import Purpose
from hookseal.secrets.errors import (
    SecretDenied,
    SecretDestroyed,
    SecretError,
    SecretNotFound,
    SecretTampered,
    SecretUnavailable,
    SecretUnusable,
)
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.ref import Provider, endpoint_secret_name
from hookseal.secrets.service import SecretService
from hookseal.secrets.signer import Signer
from tests.secrets.doubles import ScriptedStore
from tests.secrets.samples import (
    BARE,
    INTEGRITY,
    NAME,
    OTHER_ENDPOINT,
    OTHER_SECRET,
    OTHER_TENANT,
    SECRET,
    TENANT,
    ref,
    signed,
)

CONTENT = b"id.1.body"
OVERLAP = signed(
    replace(
        BARE,
        secret_ref=str(ref(2)),
        previous_secret_ref=str(ref(1)),
        previous_secret_expires_at=datetime(2026, 1, 2, tzinfo=UTC),
        previous_due=True,
        generation=2,
    )
)
FOREIGN_NAME = endpoint_secret_name(OTHER_ENDPOINT)


@pytest.fixture
async def store() -> ScriptedStore:
    """A store in which the endpoint has two versions, and another endpoint and tenant have a secret each."""
    store = ScriptedStore()
    await store.put(TENANT, NAME, SECRET, purpose=Purpose.WEBHOOK_SIGNING)
    await store.rotate(TENANT, NAME, OTHER_SECRET, purpose=Purpose.WEBHOOK_SIGNING)
    await store.put(TENANT, FOREIGN_NAME, SECRET, purpose=Purpose.WEBHOOK_SIGNING)
    await store.put(OTHER_TENANT, NAME, SECRET, purpose=Purpose.WEBHOOK_SIGNING)
    return store


@pytest.fixture
def service(store: ScriptedStore) -> SecretService:
    """The service on that store."""
    return SecretService(store, INTEGRITY)


async def _refused(service: SecretService, pointer: Pointer) -> SecretError | SecretUnavailable:
    with pytest.raises(CannotSign) as caught:
        async with service.signers(pointer):
            pytest.fail("signers were given")
    assert isinstance(caught.value, SecretError | SecretUnavailable)
    return caught.value


async def test_one_signer_when_one_is_due(service: SecretService) -> None:
    """Outside an overlap the current secret signs, and its reference is told."""
    async with service.signers(signed(BARE)) as signers:
        assert [str(ref(1))] == [signer.ref for signer in signers]
        assert [Signer("", SECRET).sign(CONTENT)] == [signer.sign(CONTENT) for signer in signers]


async def test_two_signers_current_first_while_the_previous_is_due(service: SecretService) -> None:
    """In an overlap both secrets sign, the current one first."""
    async with service.signers(OVERLAP) as signers:
        assert [str(ref(2)), str(ref(1))] == [signer.ref for signer in signers]
        assert [Signer("", secret).sign(CONTENT) for secret in (OTHER_SECRET, SECRET)] == [
            signer.sign(CONTENT) for signer in signers
        ]


async def test_the_previous_is_not_even_fetched_once_it_is_not_due(
    service: SecretService, store: ScriptedStore
) -> None:
    """When the database says that the overlap is over, only the current secret is asked for."""
    async with service.signers(replace(OVERLAP, previous_due=False)) as signers:
        assert 1 == len(signers)
    assert [ref(2)] == store.fetched


async def test_signers_sign_inside_the_block_only(service: SecretService) -> None:
    """After the block, however it ended, its signers have no key any more."""
    async with service.signers(OVERLAP) as signers:
        pass
    kept = list(signers)
    with suppress(ZeroDivisionError):
        async with service.signers(OVERLAP) as signers:
            kept += signers
            raise ZeroDivisionError

    assert 4 == len(kept)
    for signer in kept:
        with pytest.raises(Defect):
            signer.sign(CONTENT)


@pytest.mark.req("SEC-08")
@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"secret_ref": f"dev:{OTHER_TENANT}:{NAME}:1"}, SecretDenied),
        ({"secret_ref": f"dev:{TENANT}:{FOREIGN_NAME}:1"}, SecretDenied),
        ({"secret_ref": str(ref(1, Provider.DB))}, SecretDenied),
        ({"secret_ref": "dev:_system:integrity:1"}, SecretTampered),
        ({"secret_ref": "nonsense"}, SecretTampered),
        ({"secret_ref": ""}, SecretTampered),
        ({"secret_ref": None}, SecretNotFound),
        ({"previous_secret_ref": f"dev:{OTHER_TENANT}:{NAME}:1"}, SecretDenied),
        ({"previous_secret_ref": f"dev:{TENANT}:{FOREIGN_NAME}:1"}, SecretDenied),
        ({"previous_secret_ref": str(ref(1, Provider.AWS))}, SecretDenied),
        ({"previous_secret_ref": "nonsense"}, SecretTampered),
        ({"previous_secret_ref": None}, SecretNotFound),
        ({"scheme": "x-webhook"}, SecretUnusable),
        ({"algorithm": "ed25519"}, SecretUnusable),
    ],
    ids=str,
)
async def test_a_pointer_that_may_not_sign_is_refused_before_the_store_is_asked(
    service: SecretService, store: ScriptedStore, change: dict[str, Any], refusal: type[SecretError]
) -> None:
    """A ref of another tenant, endpoint or provider, or of no form, is refused even under a good MAC."""
    assert refusal is type(await _refused(service, signed(replace(OVERLAP, **change))))
    assert [] == store.fetched


@pytest.mark.req("SEC-24", part="pointer-mac")
@pytest.mark.parametrize(
    "change",
    [
        {"url": "https://attacker.example/"},
        {"generation": 1},
        {"secret_ref": str(ref(1))},
        {"secret_ref": None},
        {"mac": None},
        {"mac_key_id": "2"},
    ],
    ids=str,
)
async def test_a_row_that_was_altered_by_hand_is_refused_before_the_store_is_asked(
    service: SecretService, store: ScriptedStore, change: dict[str, Any]
) -> None:
    """A pointer whose MAC does not fit is tampered with, whatever else is right about it."""
    assert SecretTampered is type(await _refused(service, replace(OVERLAP, **change)))
    assert [] == store.fetched


async def test_an_endpoint_without_a_secret_is_told_apart_from_one_that_was_altered(
    service: SecretService, store: ScriptedStore
) -> None:
    """A row that never had a secret, and so no MAC, lacks a secret; that is no tampering."""
    assert SecretNotFound is type(await _refused(service, replace(BARE, secret_ref=None, generation=0)))
    assert [] == store.fetched


@pytest.mark.req("SEC-07", part="fail-closed")
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    "error", [SecretNotFound(), SecretDestroyed(), SecretTampered(), SecretUnavailable()], ids=repr
)
async def test_never_only_one_of_the_two_that_are_due(
    service: SecretService, store: ScriptedStore, version: int, error: Exception
) -> None:
    """Whichever of the two cannot be had, and for whatever reason, nothing is given and the reason is raised."""
    store.errors[ref(version)] = error

    assert error is await _refused(service, OVERLAP)


async def test_a_stored_secret_that_is_no_signing_secret_gives_no_signer(
    service: SecretService, store: ScriptedStore
) -> None:
    """A secret that opens but is not of the scheme's form is a definitive error."""
    legacy = await store.rotate(TENANT, NAME, SecretMaterial(b"legacy"), purpose=Purpose.WEBHOOK_SIGNING)

    assert SecretUnusable is type(await _refused(service, signed(replace(BARE, secret_ref=str(legacy)))))


async def test_a_secret_of_another_purpose_gives_no_signer() -> None:
    """A secret under the right name that was put for something else does not sign."""
    store = ScriptedStore()
    await store.put(TENANT, NAME, SECRET, purpose=Purpose.SENTINEL)

    assert SecretDenied is type(await _refused(SecretService(store, INTEGRITY), signed(BARE)))
