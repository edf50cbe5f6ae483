"""The service: it checks before it asks the store, and hands out all signers or none, in a block (laws 2, 3, 11)."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from hookseal.errors import (
    CannotSign,
    Defect,
    IntegrityKeyUnknown,
    KeyRetired,
    RecordTampered,
    SecretDenied,
    SecretDestroyed,
    SecretError,
    SecretNotFound,
    SecretTampered,
    SecretUnavailable,
    SecretUnusable,
    StaleRow,
)
from hookseal.ground.clock import SystemClock
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.ground.tls import verifying_context
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.postgres.pool import Pool
from hookseal.secrets.boot import Unlocked, unlock
from hookseal.secrets.core import header_values
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import (
    Provider,
    Purpose,
    SecretRef,
    endpoint_headers_name,
    endpoint_secret_name,
    endpoint_tls_name,
)
from hookseal.secrets.core.signing import Signer
from hookseal.secrets.core.trust import APART, IntegrityKey
from hookseal.secrets.extras import tls_identity
from hookseal.secrets.extras.tls_context import TlsContexts
from hookseal.secrets.resolve.epoch import move_cache
from hookseal.secrets.resolve.service import SecretService
from tests import rows
from tests.doubles.client_certificates import Authority, identity
from tests.doubles.clock import FakeClock
from tests.doubles.replaced import replace
from tests.doubles.stored import Installation, begin, keyring
from tests.secrets.doubles import ScriptedStore, reader_on
from tests.secrets.samples import (
    BARE,
    ENDPOINT,
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
    """Return a store with the endpoint's signing secrets and headers, and a secret of another endpoint and tenant."""
    store = ScriptedStore()
    await store.put(TENANT, NAME, SECRET, purpose=Purpose.WEBHOOK_SIGNING)
    await store.rotate(TENANT, NAME, OTHER_SECRET, purpose=Purpose.WEBHOOK_SIGNING)
    await store.put(TENANT, FOREIGN_NAME, SECRET, purpose=Purpose.WEBHOOK_SIGNING)
    await store.put(OTHER_TENANT, NAME, SECRET, purpose=Purpose.WEBHOOK_SIGNING)
    await store.put(TENANT, HEADERS.name, header_values.to_material(VALUES), purpose=Purpose.ENDPOINT_HEADERS)
    return store


@pytest.fixture
def service(store: ScriptedStore) -> SecretService:
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
    async with service.signers(signed(BARE)) as signers:
        assert [str(ref(1))] == [signer.ref for signer in signers]
        assert [Signer("", SECRET, Scheme.STANDARD, Algorithm.HMAC).sign(CONTENT)] == [
            signer.sign(CONTENT) for signer in signers
        ]


async def test_an_expired_previous_secret_is_not_fetched(service: SecretService, store: ScriptedStore) -> None:
    async with service.signers(replace(OVERLAP, previous_due=False)) as signers:
        assert 1 == len(signers)
    assert [ref(2)] == store.fetched


async def test_signers_sign_inside_the_block_only(service: SecretService) -> None:
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
    assert refusal is type(await _refused(service, signed(replace(OVERLAP, **change))))
    assert [] == store.fetched
    assert (1, 0) == _failures(service)


async def test_the_advice_for_an_unknown_scheme_ends_it_at_once(service: SecretService) -> None:
    """During an overlap the previous secret, with its own scheme, would hold the endpoint as before."""
    refused = await _refused(service, signed(replace(OVERLAP, scheme="later")))
    assert isinstance(refused, SecretUnusable)
    assert "`--overlap 0`" in (refused.advice or "")


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
    assert isinstance(await _refused(service, replace(OVERLAP, **change)), SecretTampered)
    assert [] == store.fetched
    assert (1, 0) == _failures(service)


async def test_a_missing_secret_is_not_reported_as_tampering(service: SecretService, store: ScriptedStore) -> None:
    assert SecretNotFound is type(await _refused(service, replace(BARE, secret_ref=None, generation=0)))
    assert [] == store.fetched


@pytest.mark.req("SEC-07")
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("error", [SecretNotFound(), SecretDestroyed(), SecretTampered()], ids=repr)
async def test_if_one_secret_is_missing_none_signs(
    service: SecretService, store: ScriptedStore, version: int, error: Exception
) -> None:
    store.errors[ref(version)] = error

    assert error is await _refused(service, OVERLAP)
    assert (1, 0) == _failures(service)


@pytest.mark.req("SEC-07")
@pytest.mark.parametrize("version", [1, 2])
async def test_during_an_outage_no_secret_signs_alone(
    service: SecretService, store: ScriptedStore, version: int
) -> None:
    store.errors[ref(version)] = SecretUnavailable()

    assert SecretUnavailable is type(await _refused(service, OVERLAP))
    assert (0, 1) == _failures(service)


@pytest.mark.req("SEC-07")
async def test_a_cached_secret_does_not_sign_alone(service: SecretService, store: ScriptedStore) -> None:
    async with service.signers(signed(replace(BARE, secret_ref=str(ref(2))))):
        pass
    store.errors[ref(1)] = SecretDestroyed()

    assert SecretDestroyed is type(await _refused(service, OVERLAP))
    assert [ref(2), ref(1)] == store.fetched


async def test_an_invalid_stored_secret_gives_no_signer(service: SecretService, store: ScriptedStore) -> None:
    invalid = await store.rotate(TENANT, NAME, SecretMaterial(b"\xff" * 32), purpose=Purpose.WEBHOOK_SIGNING)

    for failures, scheme in enumerate(Scheme, 1):
        pointer = signed(replace(BARE, secret_ref=str(invalid), scheme=scheme.value))
        assert SecretUnusable is type(await _refused(service, pointer))
        assert (failures, 0) == _failures(service)


async def test_an_error_inside_the_block_is_not_counted(service: SecretService) -> None:
    with pytest.raises(SecretUnusable):
        async with service.signers(OVERLAP):
            raise SecretUnusable

    assert (0, 0) == _failures(service)


@pytest.mark.req("DEL-04", part="x-webhook")
@pytest.mark.parametrize(("current", "previous"), [(one, other) for one in Scheme for other in Scheme])
async def test_each_secret_signs_in_its_own_scheme(service: SecretService, current: Scheme, previous: Scheme) -> None:
    pointer = signed(replace(OVERLAP, scheme=current.value, previous_scheme=previous.value))
    async with service.signers(pointer) as signers:
        assert [(str(ref(2)), current), (str(ref(1)), previous)] == [(s.ref, s.scheme) for s in signers]
        assert [
            Signer("", OTHER_SECRET, current, Algorithm.HMAC).sign(CONTENT),
            Signer("", SECRET, previous, Algorithm.HMAC).sign(CONTENT),
        ] == [signer.sign(CONTENT) for signer in signers]


@pytest.mark.parametrize("change", [{"previous_scheme": None}, {"previous_algorithm": "rsa"}], ids=str)
async def test_an_expired_previous_schemes_is_ignored(service: SecretService, change: dict[str, Any]) -> None:
    async with service.signers(signed(replace(OVERLAP, previous_due=False, **change))) as signers:
        assert [str(ref(2))] == [signer.ref for signer in signers]


@pytest.mark.req("SEC-06", part="cache")
async def test_cached_secrets_make_the_same_signatures(service: SecretService, store: ScriptedStore) -> None:
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
    for epoch, asked in [(3, 1), (3, 1), (4, 2), (3, 2), (4, 2)]:
        async with service.signers(signed(replace(BARE, cache_epoch=epoch))):
            assert asked == len(store.fetched)


@pytest.mark.req("SEC-06", part="cache-epoch")
@pytest.mark.req("DEL-13", part="client-keys")
@pytest.mark.parametrize("moved", [{"cache_epoch": 1}, {"restore_epoch": 1}, {"database": 9}])
async def test_a_higher_epoch_drops_tls_contexts(moved: dict[str, Any], store: ScriptedStore) -> None:
    authority = Authority()
    name = endpoint_tls_name(BARE.endpoint_id)
    sealed = tls_identity.to_material(identity(authority.client(), authority))
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
    async with service.tls(signed(BARE)) as found:
        assert found is None
    assert [] == store.fetched


@pytest.mark.req("SEC-06", part="cache-epoch")
async def test_a_refused_row_still_clears_the_cache(service: SecretService) -> None:
    async with service.signers(signed(BARE)):
        pass
    await _refused(service, replace(BARE, cache_epoch=1))

    assert (1, 0) == (service.statistics().clears, service.statistics().entries)


async def test_a_secret_of_another_purpose_gives_no_signer() -> None:
    store = ScriptedStore()
    await store.put(TENANT, NAME, SECRET, purpose=Purpose.SENTINEL)

    assert SecretDenied is type(await _refused(SecretService(reader_on(store), INTEGRITY), signed(BARE)))


# The service and rows that changed meanwhile: versions of the integrity key, stale rows, header values.

VALUES = {"authorization": SecretMaterial(b"Bearer canary")}
NEXT = SecretMaterial(b"n" * 32)
HEADERS = SecretRef(provider=ref(1).provider, tenant=TENANT, name=endpoint_headers_name(ENDPOINT), version=1)
WITH_HEADERS = signed(replace(BARE, headers_ref=str(HEADERS)))


async def no_headers(service: SecretService, pointer: Pointer, expected: type[Exception]) -> str:
    """Return the error with which header values are refused."""
    with pytest.raises(expected) as refused:
        async with service.headers(pointer):
            raise AssertionError
    return str(refused.value)


@pytest.mark.req("DEL-13", part="sealed-values")
async def test_header_values_exist_inside_the_block_only(service: SecretService, store: ScriptedStore) -> None:
    async with service.headers(BARE) as none:
        assert {} == none
    assert [] == store.fetched
    async with service.headers(WITH_HEADERS) as values:
        assert VALUES == values
    assert {} == values
    assert [HEADERS] == store.fetched


@pytest.mark.req("DEL-13", part="sealed-values")
@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        (str(replace(HEADERS, tenant=OTHER_TENANT)), SecretDenied),
        (str(replace(HEADERS, name=endpoint_headers_name(OTHER_ENDPOINT))), SecretDenied),
        (str(ref(1)), SecretDenied),
        (str(HEADERS).replace("dev:", "db:"), SecretDenied),
        ("nonsense", SecretTampered),
    ],
)
async def test_anothers_header_values_are_refused(
    text: str, refusal: type[SecretError], service: SecretService, store: ScriptedStore
) -> None:
    await no_headers(service, signed(replace(BARE, headers_ref=text)), refusal)
    assert [] == store.fetched
    assert 1 == service.statistics().definitive_failures


@pytest.mark.req("DEL-13", part="sealed-values")
async def test_unavailable_header_values_are_an_error(service: SecretService, store: ScriptedStore) -> None:
    await no_headers(service, replace(WITH_HEADERS, url="https://evil.example/"), SecretTampered)
    store.errors[HEADERS] = SecretUnavailable()
    await no_headers(service, WITH_HEADERS, SecretUnavailable)
    store.errors.clear()
    invalid = await store.rotate(
        TENANT, HEADERS.name, SecretMaterial(b'{"host":"x"}'), purpose=Purpose.ENDPOINT_HEADERS
    )
    await no_headers(service, signed(replace(BARE, headers_ref=str(invalid))), SecretUnusable)


@pytest.mark.req("SEC-24", part="integrity-key")
async def test_an_unknown_version_is_learned_once(store: ScriptedStore) -> None:
    key, theirs = (IntegrityKey(key_id="1", material=SecretMaterial(b"o" * 32)) for _ in range(2))
    theirs.adopt("2", NEXT)
    learned: list[str] = []

    async def learn(key_id: str) -> None:
        learned.append(key_id)
        if key_id == "2":
            key.adopt("2", NEXT)

    service = SecretService(reader_on(store), key, learn=learn)
    pointer = replace(BARE, mac=theirs.mac(BARE), mac_key_id="2")
    for _ in range(2):
        async with service.signers(pointer) as signers:
            assert [pointer.secret_ref] == [signer.ref for signer in signers]
    assert ["2"] == learned
    for unknown in ("3", None):
        assert isinstance(await _refused(service, replace(pointer, mac_key_id=unknown)), IntegrityKeyUnknown)
    assert ["2", "3"] == learned


@pytest.mark.req("SEC-24", part="integrity-key")
async def test_the_integrity_key_is_read_again(store: ScriptedStore) -> None:
    key, theirs = (IntegrityKey(key_id="1", material=SecretMaterial(text * 32)) for text in (b"o", b"t"))
    read: list[int] = []

    async def read_again() -> None:
        read.append(len(read))
        if len(read) == 1:
            raise SecretUnavailable
        if len(read) == 3:
            key.adopt("1", SecretMaterial(b"t" * 32))

    service = SecretService(reader_on(store), key, read_again=read_again)
    before, after = (
        replace(BARE, mac=key.mac(BARE), mac_key_id="1"),
        replace(BARE, mac=theirs.mac(BARE), mac_key_id="1"),
    )
    # The key is not read yet, so no row is verified.
    assert isinstance(await _refused(service, before), SecretUnavailable)
    for pointer in (before, before, replace(after, database=7), replace(after, database=7)):
        async with service.signers(pointer) as signers:
            assert 1 == len(signers)
    assert 3 == len(read)
    async with service.signers(replace(after, database=7, restore_epoch=1)):
        assert 4 == len(read)


@pytest.mark.req("SEC-21", part="lived-through")
async def test_nothing_that_is_cached_outlives_its_database(service: SecretService, store: ScriptedStore) -> None:
    for database, fetched in ((1, 1), (1, 1), (2, 2), (2, 2), (1, 3)):
        async with service.signers(signed(replace(BARE, database=database))):
            assert fetched == len(store.fetched)


@pytest.mark.req("SEC-24", part="stale")
async def test_a_stale_row_is_reported_once(service: SecretService, store: ScriptedStore) -> None:
    async with service.signers(signed(replace(BARE, generation=5))):
        pass
    by_log = replace(signed(replace(BARE, generation=6)), audited_generation=7)
    by_us = replace(signed(BARE), read_at=BARE.read_at + timedelta(seconds=9) + APART)
    by_record = signed(replace(BARE, generation=8))
    reports: list[tuple[Pointer, SecretError]] = []
    for report in (None, lambda pointer, error: reports.append((pointer, error))):
        if report is not None:
            service.report_to(report)
        for pointer in (by_log, by_us):
            assert isinstance(await _refused(service, pointer), StaleRow)
    by_headers = replace(WITH_HEADERS, audited_generation=9)
    await no_headers(service, by_headers, StaleRow)
    store.errors[ref(1)] = StaleRow("the record")
    fresh = SecretService(reader_on(store), INTEGRITY)
    fresh.report_to(lambda pointer, error: reports.append((pointer, error)))
    assert isinstance(await _refused(fresh, by_record), StaleRow)

    assert [by_log, by_us, by_headers, by_record] == [pointer for pointer, _ in reports]
    assert ["the audit log knows 7", "this process knows 5", "the record"] == [
        part for part in ("the audit log knows 7", "this process knows 5", "the record") if part in str(reports)
    ]


@pytest.mark.req("SEC-14", part="counted")
async def test_every_refusal_is_reported(service: SecretService, store: ScriptedStore) -> None:
    reports: list[tuple[Pointer, str]] = []
    service.report_to(lambda pointer, error: reports.append((pointer, error.code)))
    altered = replace(WITH_HEADERS, url="https://evil.example/")
    theirs = signed(replace(BARE, secret_ref=str(replace(ref(1), tenant=OTHER_TENANT))))
    for pointer in (altered, theirs):
        assert isinstance(await _refused(service, pointer), SecretError)
    await no_headers(service, altered, SecretTampered)
    invalid = await store.rotate(
        TENANT, HEADERS.name, SecretMaterial(b'{"host":"x"}'), purpose=Purpose.ENDPOINT_HEADERS
    )
    unsendable = signed(replace(BARE, headers_ref=str(invalid)))
    await no_headers(service, unsendable, SecretUnusable)
    expected = [
        (altered, "secret_tampered"),
        (theirs, "secret_denied"),
        (altered, "secret_tampered"),
        (unsendable, "secret_unusable"),
    ]
    assert expected == reports

    with pytest.raises(SecretDenied):
        async with service.headers(WITH_HEADERS):
            raise SecretDenied
    store.errors[ref(1)] = SecretUnavailable()
    assert isinstance(await _refused(service, signed(BARE)), SecretUnavailable)
    assert expected == reports


# The service on a real PostgreSQL: which changes a cached version hides, and which act at the next claim.

FLIPPED = (
    "UPDATE hookseal.secret_records SET sealed = set_byte(sealed, $1, get_byte(sealed, $1) # 1) WHERE name ~ 'endpoint'"
)
LAST_OF_THE_TAG = 226 + 50 - 1  # for a secret of 50 bytes: whsec_ and the base64 of 32 bytes


@dataclass(frozen=True, kw_only=True)
class Case:
    """An endpoint, and the secrets of a worker whose clock the test moves."""

    pool: Pool
    installation: Installation
    unlocked: Unlocked
    clock: FakeClock
    tenant: TenantId
    endpoint_id: EndpointId

    async def claimed(self) -> Pointer:
        """Return the row as the next claim reads it, with the cache epoch."""
        return await self.installation.pointer(self.endpoint_id, self.tenant)

    async def signs(self) -> bool:
        """Return whether the next claim can sign; raise the error if its secret is not available."""
        async with self.unlocked.service.signers(await self.claimed()) as signers:
            return [bool(signer.sign(b"content")) for signer in signers] == [True]

    async def refusal(self) -> type[BaseException]:
        """Return the class of the error that prevents the next claim from signing."""
        with pytest.raises((SecretError, SecretUnavailable)) as caught:
            await self.signs()
        return type(caught.value)


@pytest.fixture
async def case(pool: Pool) -> Case:
    """Return an endpoint whose secret was read once and is cached."""
    installation = await begin(pool)
    stored = (await installation.endpoint()).pointer
    clock = FakeClock()
    case = Case(
        pool=pool,
        installation=installation,
        unlocked=await unlock(pool, Provider.DB, keyring(), clock=clock),
        clock=clock,
        tenant=stored.tenant_id,
        endpoint_id=stored.endpoint_id,
    )
    assert await case.signs()
    assert 1 == case.unlocked.service.statistics().entries
    return case


@pytest.mark.req("SEC-06", part="cache")
async def test_an_altered_record_is_refused_after_the_ttl(case: Case) -> None:
    await case.pool.execute(FLIPPED, LAST_OF_THE_TAG)
    assert await case.signs()

    case.clock.elapsed = 300.0
    assert RecordTampered is await case.refusal()
    assert RecordTampered is await case.refusal()
    figures = case.unlocked.service.statistics()
    assert (1, 3, 2, 0) == (figures.hits, figures.misses, figures.definitive_failures, figures.entries)


@pytest.mark.req("SEC-06", part="cache-epoch")
async def test_an_altered_record_is_refused_after_cache_clear(case: Case) -> None:
    await case.pool.execute(FLIPPED, LAST_OF_THE_TAG)
    async with case.pool.acquire() as connection:
        await move_cache(connection)

    assert RecordTampered is await case.refusal()
    await case.pool.execute(FLIPPED, LAST_OF_THE_TAG)
    assert await case.signs()


@pytest.mark.req("SEC-06", part="cache-epoch")
@pytest.mark.req("SEC-07")
async def test_a_destroyed_version_is_refused_at_the_next_claim(case: Case) -> None:
    ref = SecretRef.parse((await case.claimed()).secret_ref or "")
    await case.installation.unlocked.store.destroy(ref)

    assert SecretDestroyed is await case.refusal()


@pytest.mark.req("SEC-06", part="cache-epoch")
@pytest.mark.parametrize("state", ["retired", "destroyed"])
async def test_records_of_a_retired_key_are_refused_at_the_next_claim(case: Case, state: str) -> None:
    await rows.change(case.pool, "secret_keys", state=state)

    assert KeyRetired is await case.refusal()


@pytest.mark.req("SEC-06", part="fail-closed")
async def test_a_cached_secret_signs_during_an_outage_until_its_ttl(case: Case) -> None:
    found = await case.claimed()
    await case.pool.close()
    async with case.unlocked.service.signers(found) as signers:
        assert 1 == len(signers)

    case.clock.elapsed = 300.0
    with pytest.raises(SecretUnavailable, match="provider db gave no answer within the 2 s"):
        async with case.unlocked.service.signers(found):
            pytest.fail("a secret was handed out after its TTL")


@pytest.mark.req("SEC-13", part="never-from-plaintext")
async def test_an_endpoint_with_only_a_plaintext_secret_signs_nothing(case: Case) -> None:
    before = case.unlocked.service.statistics()
    legacy = await _legacy(case, secret_ref=None)

    assert SecretNotFound is await legacy.refusal()
    assert replace(before, definitive_failures=before.definitive_failures + 1) == case.unlocked.service.statistics()


@pytest.mark.req("SEC-13", part="never-from-plaintext")
async def test_plaintext_never_replaces_an_unavailable_secret(case: Case) -> None:
    """The plaintext is never a fallback: neither if the row has no MAC nor if the version was destroyed."""
    taken = (await case.claimed()).secret_ref
    assert SecretTampered is await (await _legacy(case, secret_ref=taken)).refusal()

    await case.pool.execute("UPDATE hookseal.endpoints SET secret = 'plain-text-of-old' WHERE mac IS NOT NULL")
    assert await case.signs()
    await case.installation.unlocked.store.destroy(SecretRef.parse(taken or ""))
    assert SecretDestroyed is await case.refusal()


async def test_a_store_may_use_its_own_pool(case: Case, database_url: str) -> None:
    async with asyncpg.create_pool(database_url, min_size=1, max_size=1) as own:
        elsewhere = case.unlocked.store_on(own)
        await case.pool.close()

        assert 32 == len(await elsewhere.get(case.unlocked.sentinel, purpose=Purpose.SENTINEL))


async def _legacy(case: Case, *, secret_ref: str | None) -> Case:
    """Insert an endpoint as an older system wrote it, and return the case for it."""
    made = await rows.endpoint(case.pool, case.tenant, secret="plain-text-of-old", secret_ref=secret_ref)
    return replace(case, endpoint_id=EndpointId(made))
