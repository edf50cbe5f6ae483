"""The service: it checks before it asks the store, and hands out all signers or none, in a block (laws 2, 3, 11)."""

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest

from hookseal.errors import (
    CannotSign,
    Defect,
    SecretDenied,
    SecretDestroyed,
    SecretError,
    SecretNotFound,
    SecretTampered,
    SecretUnavailable,
    SecretUnusable,
)
from hookseal.ground.clock import SystemClock
from hookseal.ground.pointer import Pointer
from hookseal.ground.tls import verifying_context
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Provider, Purpose, endpoint_secret_name, endpoint_tls_name
from hookseal.secrets.core.signing import Signer
from hookseal.secrets.extras import tls_identity
from hookseal.secrets.extras.tls_context import TlsContexts
from hookseal.secrets.resolve.service import SecretService
from tests.doubles.client_certificates import Authority, identity
from tests.doubles.replaced import replace
from tests.secrets.doubles import ScriptedStore, reader_on
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
        previous_scheme="standard",
        previous_algorithm="hmac",
        previous_due=True,
        generation=2,
    )
)
FOREIGN_NAME = endpoint_secret_name(OTHER_ENDPOINT)


@pytest.fixture
async def store() -> ScriptedStore:
    """Return a store with two versions of the endpoint's secret, and one secret of another endpoint and tenant each."""
    store = ScriptedStore()
    await store.put(TENANT, NAME, SECRET, purpose=Purpose.WEBHOOK_SIGNING)
    await store.rotate(TENANT, NAME, OTHER_SECRET, purpose=Purpose.WEBHOOK_SIGNING)
    await store.put(TENANT, FOREIGN_NAME, SECRET, purpose=Purpose.WEBHOOK_SIGNING)
    await store.put(OTHER_TENANT, NAME, SECRET, purpose=Purpose.WEBHOOK_SIGNING)
    return store


@pytest.fixture
def service(store: ScriptedStore) -> SecretService:
    """Return the service on this store."""
    return SecretService(reader_on(store), INTEGRITY)


async def _refused(service: SecretService, pointer: Pointer) -> SecretError | SecretUnavailable:
    with pytest.raises(CannotSign) as caught:
        async with service.signers(pointer):
            pytest.fail("signers were handed out")
    assert isinstance(caught.value, SecretError | SecretUnavailable)
    return caught.value


def _failures(service: SecretService) -> tuple[int, int]:
    """Return the counts of definitive and transient failures."""
    figures = service.statistics()
    return figures.definitive_failures, figures.transient_failures


async def test_outside_an_overlap_the_current_secret_signs(service: SecretService) -> None:
    """Outside an overlap the current secret signs, and its signer has its ref."""
    async with service.signers(signed(BARE)) as signers:
        assert [str(ref(1))] == [signer.ref for signer in signers]
        assert [Signer("", SECRET, Scheme.STANDARD, Algorithm.HMAC).sign(CONTENT)] == [
            signer.sign(CONTENT) for signer in signers
        ]


async def test_in_an_overlap_both_secrets_sign(service: SecretService) -> None:
    """In an overlap both secrets sign, the current one first."""
    async with service.signers(OVERLAP) as signers:
        assert [str(ref(2)), str(ref(1))] == [signer.ref for signer in signers]
        assert [
            Signer("", secret, Scheme.STANDARD, Algorithm.HMAC).sign(CONTENT) for secret in (OTHER_SECRET, SECRET)
        ] == [signer.sign(CONTENT) for signer in signers]


async def test_an_expired_previous_secret_is_not_fetched(service: SecretService, store: ScriptedStore) -> None:
    """If the database reports the overlap as over, only the current secret is fetched."""
    async with service.signers(replace(OVERLAP, previous_due=False)) as signers:
        assert 1 == len(signers)
    assert [ref(2)] == store.fetched


async def test_signers_sign_inside_the_block_only(service: SecretService) -> None:
    """After the block, however it ended, its signers cannot sign."""
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
        ({"scheme": "x_webhook"}, SecretUnusable),
        ({"algorithm": "rsa"}, SecretUnusable),
        ({"previous_scheme": "nonsense"}, SecretUnusable),
        ({"previous_algorithm": "rsa"}, SecretUnusable),
        ({"previous_scheme": None}, SecretTampered),
        ({"previous_algorithm": None}, SecretTampered),
    ],
    ids=str,
)
async def test_a_foreign_or_malformed_ref_is_refused_without_a_read(
    service: SecretService, store: ScriptedStore, change: dict[str, Any], refusal: type[SecretError]
) -> None:
    """A ref that is foreign or malformed is refused even under a valid MAC, before the store is asked."""
    assert refusal is type(await _refused(service, signed(replace(OVERLAP, **change))))
    assert [] == store.fetched
    assert (1, 0) == _failures(service)


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
        {"mac_key_id": None},
        {"audited_generation": 3},
    ],
    ids=str,
)
async def test_an_altered_row_is_refused_without_a_read(
    service: SecretService, store: ScriptedStore, change: dict[str, Any]
) -> None:
    """A pointer with an invalid MAC is tampered with, and the store is not asked."""
    assert isinstance(await _refused(service, replace(OVERLAP, **change)), SecretTampered)
    assert [] == store.fetched
    assert (1, 0) == _failures(service)


async def test_a_missing_secret_is_not_reported_as_tampering(service: SecretService, store: ScriptedStore) -> None:
    """A row that never had a secret is reported as lacking one, not as tampered with."""
    assert SecretNotFound is type(await _refused(service, replace(BARE, secret_ref=None, generation=0)))
    assert [] == store.fetched


@pytest.mark.req("SEC-07")
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("error", [SecretNotFound(), SecretDestroyed(), SecretTampered()], ids=repr)
async def test_if_one_secret_is_missing_none_signs(
    service: SecretService, store: ScriptedStore, version: int, error: Exception
) -> None:
    """If either of the two secrets is not available, no signer is handed out, and its error is raised."""
    store.errors[ref(version)] = error

    assert error is await _refused(service, OVERLAP)
    assert (1, 0) == _failures(service)


@pytest.mark.req("SEC-07")
@pytest.mark.parametrize("version", [1, 2])
async def test_during_an_outage_no_secret_signs_alone(
    service: SecretService, store: ScriptedStore, version: int
) -> None:
    """If the store does not answer for either of the two secrets, no signer is handed out."""
    store.errors[ref(version)] = SecretUnavailable()

    assert SecretUnavailable is type(await _refused(service, OVERLAP))
    assert (0, 1) == _failures(service)


@pytest.mark.req("SEC-07")
async def test_a_cached_secret_does_not_sign_alone(service: SecretService, store: ScriptedStore) -> None:
    """A cached current secret does not sign alone if the previous one is not available."""
    async with service.signers(signed(replace(BARE, secret_ref=str(ref(2))))):
        pass
    store.errors[ref(1)] = SecretDestroyed()

    assert SecretDestroyed is type(await _refused(service, OVERLAP))
    assert [ref(2), ref(1)] == store.fetched


async def test_an_invalid_stored_secret_gives_no_signer(service: SecretService, store: ScriptedStore) -> None:
    """A stored secret that is invalid for its scheme is a definitive error."""
    invalid = await store.rotate(TENANT, NAME, SecretMaterial(b"\xff" * 32), purpose=Purpose.WEBHOOK_SIGNING)

    for failures, scheme in enumerate(Scheme, 1):
        pointer = signed(replace(BARE, secret_ref=str(invalid), scheme=scheme.value))
        assert SecretUnusable is type(await _refused(service, pointer))
        assert (failures, 0) == _failures(service)


async def test_an_error_inside_the_block_is_not_counted(service: SecretService) -> None:
    """An error that is raised inside the block, of any class, is not counted as a failure of the secret."""
    with pytest.raises(SecretUnusable):
        async with service.signers(OVERLAP):
            raise SecretUnusable

    assert (0, 0) == _failures(service)


@pytest.mark.req("DEL-04", part="x-webhook")
@pytest.mark.parametrize(("current", "previous"), [(one, other) for one in Scheme for other in Scheme])
async def test_each_secret_signs_in_its_own_scheme(service: SecretService, current: Scheme, previous: Scheme) -> None:
    """In an overlap of two schemes, each secret signs in its own scheme."""
    pointer = signed(replace(OVERLAP, scheme=current.value, previous_scheme=previous.value))
    async with service.signers(pointer) as signers:
        assert [(str(ref(2)), current), (str(ref(1)), previous)] == [(s.ref, s.scheme) for s in signers]
        assert [
            Signer("", OTHER_SECRET, current, Algorithm.HMAC).sign(CONTENT),
            Signer("", SECRET, previous, Algorithm.HMAC).sign(CONTENT),
        ] == [signer.sign(CONTENT) for signer in signers]


@pytest.mark.parametrize("change", [{"previous_scheme": None}, {"previous_algorithm": "rsa"}], ids=str)
async def test_an_expired_previous_schemes_is_ignored(service: SecretService, change: dict[str, Any]) -> None:
    """After the overlap, scheme and algorithm of the previous secret are ignored."""
    async with service.signers(signed(replace(OVERLAP, previous_due=False, **change))) as signers:
        assert [str(ref(2))] == [signer.ref for signer in signers]


@pytest.mark.req("SEC-06", part="cache")
async def test_cached_secrets_make_the_same_signatures(service: SecretService, store: ScriptedStore) -> None:
    """Cached secrets sign the same as fetched ones, and the store is asked once for each."""
    signatures = []
    for _ in range(3):
        async with service.signers(OVERLAP) as signers:
            signatures.append([signer.sign(CONTENT) for signer in signers])

    assert [signatures[0]] * 3 == signatures
    assert [ref(2), ref(1)] == store.fetched
    figures = service.statistics()
    assert (4, 2, 2) == (figures.hits, figures.misses, figures.entries)


@pytest.mark.req("SEC-06", part="cache-epoch")
async def test_a_claim_under_a_higher_epoch_asks_the_store(service: SecretService, store: ScriptedStore) -> None:
    """A claim with a higher epoch discards the cache; one with a lower epoch does not."""
    for epoch, asked in [(3, 1), (3, 1), (4, 2), (3, 2), (4, 2)]:
        async with service.signers(signed(replace(BARE, cache_epoch=epoch))):
            assert asked == len(store.fetched)


@pytest.mark.req("SEC-06", part="cache-epoch")
@pytest.mark.req("DEL-13", part="client-keys")
@pytest.mark.parametrize("moved", [{"cache_epoch": 1}, {"restore_epoch": 1}, {"database": 9}])
async def test_a_higher_epoch_drops_tls_contexts(moved: dict[str, Any], store: ScriptedStore) -> None:
    """After a higher epoch, or in another database, no earlier TLS context is used."""
    authority = Authority()
    name = endpoint_tls_name(BARE.endpoint_id)
    sealed = tls_identity.written(identity(authority.client(), authority))
    own = await store.put(TENANT, name, sealed, purpose=Purpose.ENDPOINT_TLS)
    contexts = TlsContexts(clock=SystemClock(), ttl_seconds=300, trust=verifying_context)
    service = SecretService(reader_on(store), INTEGRITY, contexts=contexts)
    pointer = replace(BARE, tls_ref=str(own))

    async def used(of: Pointer) -> Any:
        async with service.tls(signed(of)) as found:
            assert found is not None
            return found.context

    before = await used(pointer)
    assert before is await used(pointer)
    assert before is not await used(replace(pointer, **moved))
    assert 1 == len(contexts)


async def test_an_endpoint_without_a_tls_identity_has_no_context(service: SecretService, store: ScriptedStore) -> None:
    """An endpoint without a TLS identity has no context of its own, and the store is not asked."""
    async with service.tls(signed(BARE)) as found:
        assert found is None
    assert [] == store.fetched


@pytest.mark.req("SEC-06", part="cache-epoch")
async def test_a_refused_row_still_clears_the_cache(service: SecretService) -> None:
    """A refused row still clears the cache: the epoch belongs to the installation and is applied first."""
    async with service.signers(signed(BARE)):
        pass
    await _refused(service, replace(BARE, cache_epoch=1))

    assert (1, 0) == (service.statistics().clears, service.statistics().entries)


async def test_a_secret_of_another_purpose_gives_no_signer() -> None:
    """A secret with the right name but another purpose does not sign."""
    store = ScriptedStore()
    await store.put(TENANT, NAME, SECRET, purpose=Purpose.SENTINEL)

    assert SecretDenied is type(await _refused(SecretService(reader_on(store), INTEGRITY), signed(BARE)))
