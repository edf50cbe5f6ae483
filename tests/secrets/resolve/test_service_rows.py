"""The service and rows that changed meanwhile: versions of the integrity key, stale rows, header values."""

from datetime import timedelta

import pytest

from hookseal.errors import (
    IntegrityKeyUnknown,
    SecretDenied,
    SecretError,
    SecretTampered,
    SecretUnavailable,
    SecretUnusable,
    StaleRow,
)
from hookseal.ground.pointer import Pointer
from hookseal.secrets.core import header_values
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Purpose, SecretRef, endpoint_headers_name
from hookseal.secrets.core.trust import APART, IntegrityKey
from hookseal.secrets.resolve.service import SecretService
from tests.doubles.replaced import replace
from tests.secrets.doubles import ScriptedStore, reader_on
from tests.secrets.samples import (
    BARE,
    ENDPOINT,
    INTEGRITY,
    NAME,
    OTHER_ENDPOINT,
    OTHER_TENANT,
    SECRET,
    TENANT,
    ref,
    signed,
)

VALUES = {"authorization": SecretMaterial(b"Bearer canary")}
NEXT = SecretMaterial(b"n" * 32)
HEADERS = SecretRef(provider=ref(1).provider, tenant=TENANT, name=endpoint_headers_name(ENDPOINT), version=1)
WITH_HEADERS = signed(replace(BARE, headers_ref=str(HEADERS)))


@pytest.fixture
async def store() -> ScriptedStore:
    """Return a store in which the endpoint has a signing secret and header values."""
    store = ScriptedStore()
    await store.put(TENANT, NAME, SECRET, purpose=Purpose.WEBHOOK_SIGNING)
    await store.put(TENANT, HEADERS.name, header_values.written(VALUES), purpose=Purpose.ENDPOINT_HEADERS)
    return store


@pytest.fixture
def service(store: ScriptedStore) -> SecretService:
    """Return the service on this store."""
    return SecretService(reader_on(store), INTEGRITY)


async def no_headers(service: SecretService, pointer: Pointer, expected: type[Exception]) -> str:
    """Return the error with which header values are refused."""
    with pytest.raises(expected) as refused:
        async with service.headers(pointer):
            raise AssertionError
    return str(refused.value)


@pytest.mark.req("DEL-13", part="sealed-values")
async def test_header_values_exist_inside_the_block_only(service: SecretService, store: ScriptedStore) -> None:
    """The values are available by name inside the block only; without a ref the store is not asked."""
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
    """A ref of another tenant, endpoint, purpose or provider is refused and counted; the store is not asked."""
    await no_headers(service, signed(replace(BARE, headers_ref=text)), refusal)
    assert [] == store.fetched
    assert 1 == service.statistics().definitive_failures


@pytest.mark.req("DEL-13", part="sealed-values")
async def test_unavailable_header_values_are_an_error(service: SecretService, store: ScriptedStore) -> None:
    """An altered row, an outage of the store and an invalid record each raise an error and yield no values."""
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
    """A row under an unknown version of the integrity key is accepted once the version is learned, and else refused."""
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
        with pytest.raises(IntegrityKeyUnknown):
            async with service.signers(replace(pointer, mac_key_id=unknown)):
                raise AssertionError
    assert ["2", "3"] == learned


@pytest.mark.req("SEC-24", part="integrity-key")
async def test_the_integrity_key_is_read_again(store: ScriptedStore) -> None:
    """For another database or an accepted restore the integrity key is read again: its number may mean another key."""
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
    with pytest.raises(SecretUnavailable):  # the key is not read yet, so no row is verified
        async with service.signers(before):
            raise AssertionError
    for pointer in (before, before, replace(after, database=7), replace(after, database=7)):
        async with service.signers(pointer) as signers:
            assert 1 == len(signers)
    assert 3 == len(read)
    async with service.signers(replace(after, database=7, restore_epoch=1)):
        assert 4 == len(read)


@pytest.mark.req("SEC-21", part="lived-through")
async def test_nothing_that_is_cached_outlives_its_database(service: SecretService, store: ScriptedStore) -> None:
    """Secrets that were read from one database are read again from another one."""
    for database, fetched in ((1, 1), (1, 1), (2, 2), (2, 2), (1, 3)):
        async with service.signers(signed(replace(BARE, database=database))):
            assert fetched == len(store.fetched)


@pytest.mark.req("SEC-24", part="stale")
async def test_a_stale_row_is_reported_once(service: SecretService, store: ScriptedStore) -> None:
    """A row that is stale by the audit log, this process or its record is refused and reported once."""
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
            with pytest.raises(StaleRow):
                async with service.signers(pointer):
                    raise AssertionError
    by_headers = replace(WITH_HEADERS, audited_generation=9)
    with pytest.raises(StaleRow):
        async with service.headers(by_headers):
            raise AssertionError
    store.errors[ref(1)] = StaleRow("the record")
    fresh = SecretService(reader_on(store), INTEGRITY)
    fresh.report_to(lambda pointer, error: reports.append((pointer, error)))
    with pytest.raises(StaleRow):
        async with fresh.signers(by_record):
            raise AssertionError

    assert [by_log, by_us, by_headers, by_record] == [pointer for pointer, _ in reports]
    assert ["the audit log knows 7", "this process knows 5", "the record"] == [
        part for part in ("the audit log knows 7", "this process knows 5", "the record") if part in str(reports)
    ]


@pytest.mark.req("SEC-14", part="counted")
async def test_every_refusal_is_reported(service: SecretService, store: ScriptedStore) -> None:
    """Every definitive refusal is reported with its code; an outage, or an error inside the block, is not."""
    reports: list[tuple[Pointer, str]] = []
    service.report_to(lambda pointer, error: reports.append((pointer, error.code)))
    altered = replace(WITH_HEADERS, url="https://evil.example/")
    theirs = signed(replace(BARE, secret_ref=str(replace(ref(1), tenant=OTHER_TENANT))))
    for pointer in (altered, theirs):
        with pytest.raises(SecretError):
            async with service.signers(pointer):
                raise AssertionError
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
    with pytest.raises(SecretUnavailable):
        async with service.signers(signed(BARE)):
            raise AssertionError
    assert expected == reports
