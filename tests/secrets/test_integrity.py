"""The MAC over an endpoint's pointer, the versions of its key, and rows that are stale."""

import asyncio
import hmac
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookseal.errors import Defect, IntegrityKeyUnknown, RecordTampered, SecretNotFound, SecretTampered, StaleRow
from hookseal.ground.ids import SYSTEM_TENANT, EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.secrets.core import trust
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Purpose, SecretRef
from hookseal.secrets.core.trust import APART, GenerationsSeen, IntegrityKey, require_fresh_record
from hookseal.secrets.integrity_versions import INTEGRITY_NAME, IntegrityVersions, integrity_key
from hookseal.secrets.store.dev import DevStore
from tests.doubles.clock import FakeClock
from tests.doubles.replaced import replace
from tests.secrets.samples import BARE, INTEGRITY, OTHER_ENDPOINT, OTHER_TENANT, signed
from tests.vectors.reading import vectors

KNOWN = vectors("pointer_mac.json")
MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
OVERLAP = replace(
    BARE,
    previous_secret_ref="dev:acme:x:1",
    previous_secret_expires_at=MOMENT,
    previous_scheme="x-webhook",
    previous_algorithm="hmac",
    previous_due=True,
)
HEADERS = replace(OVERLAP, headers_ref="dev:acme:h:1")
TLS = replace(BARE, tls_ref="dev:acme:t:1")
BOTH = replace(HEADERS, tls_ref="dev:acme:t:1")
CHANGES: list[dict[str, Any]] = [
    {"tenant_id": OTHER_TENANT},
    {"endpoint_id": OTHER_ENDPOINT},
    {"url": "https://example.com/hook"},
    {"url": ""},
    {"scheme": "x-webhook"},
    {"algorithm": "ed25519"},
    {"secret_ref": "dev:acme:x:2"},
    {"secret_ref": None},
    {"secret_ref": ""},
    {"previous_secret_ref": None},
    {"previous_secret_ref": ""},
    {"previous_secret_expires_at": None},
    {"previous_secret_expires_at": MOMENT + timedelta(microseconds=1)},
    {"previous_secret_expires_at": datetime.max},  # noqa: DTZ901 -- asyncpg's value for infinity
    {"previous_secret_expires_at": datetime.min},  # noqa: DTZ901 -- and for minus infinity
    {"lead": "current"},
    {"headers_ref": "dev:acme:h:1"},
    {"headers_ref": ""},
    {"tls_ref": "dev:acme:t:1"},
    {"tls_ref": ""},
    {"headers_ref": "dev:acme:t:1", "tls_ref": None},
    {"headers_ref": None, "tls_ref": "dev:acme:h:1"},
    {"generation": 2},
    {"generation": 0},
    {"generation": -1},
    {"previous_scheme": "standard"},
    {"previous_scheme": None},
    {"previous_scheme": ""},
    {"previous_algorithm": "ed25519"},
    {"previous_algorithm": None},
    {"previous_scheme": "hmac", "previous_algorithm": "x-webhook"},
]


def second_opinion(key: bytes, pointer: dict[str, Any]) -> str:
    """Compute the MAC of a pointer as docs/CANONICAL/SECRETS.md describes it, without code of hookseal."""
    names = ["tenant_id", "endpoint_id", "url", "scheme", "algorithm", "secret_ref", "previous_secret_ref"]
    names += ["expires_us", "lead", "generation", "previous_scheme", "previous_algorithm", "headers_ref", "tls_ref"]
    parts = ["hookseal.endpoint.pointer.v1", *(pointer.get(name) for name in names)]
    framed = len(parts).to_bytes(2, "big")
    for part in parts:
        encoded = str(part).encode()
        framed += b"\xff" * 4 if part is None else len(encoded).to_bytes(4, "big") + encoded
    return hmac.new(key, framed, "sha256").hexdigest()


@pytest.mark.req("SEC-24", part="pointer-mac")
@pytest.mark.parametrize("case", KNOWN["macs"], ids=lambda case: case["comment"])
def test_macs_equal_a_second_implementation(case: dict[str, Any]) -> None:
    assert case["mac"] == second_opinion(bytes.fromhex(KNOWN["key"]), case["pointer"])
    fields = dict(case["pointer"])
    expires = fields.pop("expires_us")
    headers, tls = fields.pop("headers_ref", None), fields.pop("tls_ref", None)
    pointer = Pointer(
        **fields,
        previous_secret_expires_at=None
        if expires is None
        else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=expires),
        previous_due=False,
        mac=None,
        mac_key_id=None,
        headers_ref=headers,
        tls_ref=tls,
        cache_epoch=0,
        restore_epoch=0,
        read_at=MOMENT,
        audited_generation=None,
    )
    key = IntegrityKey(key_id="1", material=SecretMaterial(bytes.fromhex(KNOWN["key"])))

    assert case["mac"] == key.mac(pointer).hex()


def is_genuine(pointer: Pointer) -> bool:
    """Return whether the MAC is that of the row; any other refusal than of an altered row is raised."""
    try:
        INTEGRITY.verify(pointer)
    except SecretTampered as error:
        if "altered" not in str(error):
            raise
        return False
    return True


@pytest.mark.req("SEC-24", part="pointer-mac")
@pytest.mark.parametrize(
    "pointer", [BARE, OVERLAP, HEADERS, TLS, BOTH], ids=["one", "overlap", "headers", "tls", "both"]
)
def test_every_field_is_covered_by_the_mac(pointer: Pointer) -> None:
    for change in CHANGES:
        changed = replace(signed(pointer), **change)
        assert (changed == signed(pointer)) is is_genuine(changed), change


@pytest.mark.req("SEC-24", part="pointer-mac")
@pytest.mark.parametrize("change", [*CHANGES, {"mac": bytes(32)}, {"mac_key_id": "0"}], ids=str)
def test_a_row_that_was_verified_is_refused_once_altered(change: dict[str, Any]) -> None:
    """Whatever is altered, and whether the rows of the endpoint are genuine before and after."""
    material = SecretMaterial(bytes(32))
    key = IntegrityKey(key_id="1", material=material, older={"0": SecretMaterial(bytes([1]) * 32)})
    pointer = replace(BOTH, mac=key.mac(BOTH), mac_key_id="1")
    altered = replace(pointer, **change)

    for _ in range(2):
        key.verify(pointer)
        if altered == pointer:
            key.verify(altered)
            continue
        with pytest.raises(SecretTampered, match="altered"):
            key.verify(altered)


@pytest.mark.req("SEC-24", part="pointer-mac")
def test_a_verified_row_is_refused_once_its_version_has_another_value() -> None:
    key = IntegrityKey(key_id="1", material=SecretMaterial(bytes(32)))
    pointer = replace(BARE, mac=key.mac(BARE), mac_key_id="1")
    key.verify(pointer)
    key.adopt("1", SecretMaterial(bytes([1]) * 32))

    with pytest.raises(SecretTampered, match="altered"):
        key.verify(pointer)


class CountingKey(IntegrityKey):
    """Counts the MACs that it makes and verifies."""

    made = 0

    def _digest(self, key_id: str, message: bytes) -> bytes:
        self.made += 1
        return super()._digest(key_id, message)


def test_the_mac_of_an_equal_row_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of the endpoints that were used last are remembered, whatever else the row says."""
    monkeypatch.setattr(trust, "MOST_VERIFIED", 2)
    key = CountingKey(key_id="1", material=SecretMaterial(bytes(32)))
    first, second, third = (
        replace(each, mac=key.mac(each), mac_key_id="1")
        for each in (BARE, replace(BARE, endpoint_id=OTHER_ENDPOINT), replace(BARE, tenant_id=OTHER_TENANT))
    )

    computed = []
    for pointer in (first, second, replace(first, read_at=MOMENT, cache_epoch=7), third, first, second, third, second):
        key.made = 0
        key.verify(pointer)
        computed.append(key.made)

    assert [1, 1, 0, 1, 0, 1, 1, 0] == computed


@pytest.mark.req("SEC-24", part="pointer-mac")
@given(
    st.lists(
        st.tuples(*[st.text("ab:", max_size=2)] * 5, *[st.none() | st.text("ab", max_size=1)] * 6),
        min_size=2,
        max_size=2,
    )
)
def test_text_cannot_move_between_fields(rows: list[tuple[Any, ...]]) -> None:
    one, other = (
        replace(
            BARE,
            tenant_id=TenantId(row[0]),
            endpoint_id=EndpointId(row[1]),
            url=row[2],
            scheme=row[3],
            algorithm=row[4],
            secret_ref=row[5],
            previous_secret_ref=row[6],
            headers_ref=row[7],
            tls_ref=row[8],
            previous_scheme=row[9],
            previous_algorithm=row[10],
        )
        for row in rows
    )

    assert (one == other) == (INTEGRITY.mac(one) == INTEGRITY.mac(other))


@pytest.mark.req("SEC-24", part="pointer-mac")
def test_previous_due_is_not_covered_by_the_mac() -> None:
    INTEGRITY.verify(replace(signed(OVERLAP), previous_due=False))


@pytest.mark.req("SEC-24", part="pointer-mac")
def test_the_mac_does_not_depend_on_the_time_zone() -> None:
    elsewhere = MOMENT.astimezone(timezone(timedelta(hours=13)))

    assert INTEGRITY.mac(OVERLAP) == INTEGRITY.mac(replace(OVERLAP, previous_secret_expires_at=elsewhere))


@pytest.mark.req("SEC-24", part="pointer-mac")
@pytest.mark.parametrize(
    "change",
    [
        {"mac": None},
        {"mac": b""},
        {"mac": bytes(32)},
        {"mac_key_id": None},
        {"mac_key_id": ""},
        {"mac_key_id": "2"},
        {"mac": INTEGRITY.mac(BARE)[:-1]},
    ],
    ids=str,
)
def test_an_absent_wrong_or_foreign_mac_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(SecretTampered) as refused:
        INTEGRITY.verify(replace(signed(BARE), **change))
    assert "`hookseal" not in str(refused.value), "commands are advice"
    assert "run `hookseal" in (refused.value.advice or "")


@pytest.mark.req("SEC-24", part="pointer-mac")
@pytest.mark.parametrize(
    ("generation", "audited", "problem"),
    [
        (1, 1, None),
        (1, 2, "is stale: it has generation 1, the audit log knows 2"),
        (0, 1, "is stale: it has generation 0, the audit log knows 1"),
        (3, 2, "was changed without an audit row: it has generation 3, the audit log knows 2"),
        (1, None, "was changed without an audit row: it has generation 1, the audit log knows nothing"),
    ],
)
@pytest.mark.req("SEC-24", part="stale")
def test_only_the_audited_generation_is_trusted(generation: int, audited: int | None, problem: str | None) -> None:
    """A row below the newest audited generation is an older copy; one above it, or in no audit row, was not audited."""
    pointer = replace(signed(replace(BARE, generation=generation)), audited_generation=audited)

    with nullcontext() if problem is None else pytest.raises(StaleRow, match=problem):
        INTEGRITY.verify(pointer)


@pytest.mark.req("SEC-24", part="pointer-mac")
@pytest.mark.req("SEC-24", part="integrity-key")
def test_older_key_versions_only_verify() -> None:
    first, second, third = (SecretMaterial(bytes([number]) * 32) for number in (1, 2, 3))
    old, key = IntegrityKey(key_id="9", material=first), IntegrityKey(key_id="9", material=first)
    made_before = replace(BARE, mac=old.mac(BARE), mac_key_id=old.key_id)

    key.adopt("10", second)
    key.adopt("8", third)
    made_now = replace(BARE, mac=key.mac(BARE), mac_key_id=key.key_id)

    key.verify(made_before)
    key.verify(made_now)
    assert "10" == key.key_id
    IntegrityKey(key_id="10", material=second, older={"9": first}).verify(made_before)
    with pytest.raises(IntegrityKeyUnknown):
        old.verify(made_now)
    with pytest.raises(SecretTampered, match="altered"):
        key.verify(replace(made_before, mac_key_id="8"))


@pytest.mark.req("SEC-24", part="pointer-mac")
def test_a_mac_under_another_key_is_refused() -> None:
    other = IntegrityKey(key_id="1", material=SecretMaterial(bytes(32)))

    with pytest.raises(SecretTampered, match="altered"):
        other.verify(signed(BARE))


@pytest.mark.req("SEC-24", part="pointer-mac")
@pytest.mark.req("SEC-14", part="verify")
def test_a_message_is_authentic_only_with_its_own_mac() -> None:
    other = IntegrityKey(key_id="1", material=SecretMaterial(bytes(32)))
    mac = INTEGRITY.authenticate(b"message")

    assert (True, False) == (INTEGRITY.knows("1"), INTEGRITY.knows("2"))
    assert INTEGRITY.is_authentic(b"message", mac, "1")
    assert not INTEGRITY.is_authentic(b"massage", mac, "1")
    assert not INTEGRITY.is_authentic(b"message", mac, "2")
    assert not INTEGRITY.is_authentic(b"message", mac[:-1], "1")
    assert not INTEGRITY.is_authentic(b"message", other.authenticate(b"message"), "1")


@pytest.mark.req("SEC-24", part="pointer-mac")
def test_an_unknown_key_version_cannot_be_selected() -> None:
    key = IntegrityKey(key_id="9", material=SecretMaterial(bytes(32)))

    with pytest.raises(Defect):
        key.make_under("10")
    assert "9" == key.key_id


# The versions of the integrity key in the store.


class CountingStore(DevStore):
    """A store that counts how often its versions were listed."""

    asked = 0

    async def versions(self, tenant, name):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201 -- as the store does
        """Count the call, and return the versions."""
        self.asked += 1
        return await super().versions(tenant, name)


class UnreadableStore(DevStore):
    """A store that lists the versions of another one, and can open none of them."""

    def __init__(self, other: DevStore) -> None:
        super().__init__()
        self._other = other

    async def versions(self, tenant, name):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201 -- as the store does
        return await self._other.versions(tenant, name)

    async def get(self, ref, *, purpose):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201 -- the same
        """Raise `RecordTampered`."""
        raise RecordTampered


async def put(store: DevStore, *, rotated: int = 0) -> SecretRef:
    """Store the integrity key with this many newer versions, and return the last ref."""
    ref = await store.put(SYSTEM_TENANT, INTEGRITY_NAME, SecretMaterial(bytes(32)), purpose=Purpose.INTEGRITY)
    for number in range(1, rotated + 1):
        ref = await rotate(store, number)
    return ref


async def rotate(store: DevStore, number: int) -> SecretRef:
    """Store a newer version."""
    material = SecretMaterial(bytes([number]) * 32)
    return await store.rotate(SYSTEM_TENANT, INTEGRITY_NAME, material, purpose=Purpose.INTEGRITY)


@pytest.mark.req("SEC-24", part="integrity-key")
async def test_every_version_is_known() -> None:
    store = DevStore()
    last = await put(store, rotated=12)
    await store.destroy(SecretRef(provider=last.provider, tenant=SYSTEM_TENANT, name=INTEGRITY_NAME, version=2))

    key = await integrity_key(store)

    assert "13" == key.key_id
    assert [str(number) for number in range(1, 14) if number != 2] == [
        str(number) for number in range(20) if key.knows(str(number))
    ]


@pytest.mark.req("SEC-24", part="integrity-key")
async def test_without_an_integrity_key_nothing_starts() -> None:
    with pytest.raises(SecretNotFound, match="_system/integrity"):
        await integrity_key(DevStore())


@pytest.mark.req("SEC-24", part="integrity-key")
async def test_learning_is_bounded() -> None:
    clock, store = FakeClock(), CountingStore()
    await put(store)
    key = await integrity_key(store)
    versions = IntegrityVersions(store, key, clock=clock)
    await rotate(store, 1)
    store.asked = 0

    await asyncio.gather(*(versions.learn("2") for _ in range(5)))
    assert ("2", 1) == (key.key_id, store.asked)

    began = clock.monotonic()
    await asyncio.gather(*(versions.learn("3") for _ in range(5)))
    assert (3, False) == (store.asked, key.knows("3"))
    assert 2 <= clock.monotonic() - began
    await versions.refresh()
    assert 4 == store.asked


@pytest.mark.req("SEC-24", part="integrity-key")
async def test_a_version_made_within_the_second_is_learned() -> None:
    clock, store = FakeClock(), CountingStore()
    await put(store)
    key = await integrity_key(store)
    versions = IntegrityVersions(store, key, clock=clock)
    await versions.learn("99")
    await rotate(store, 1)

    await versions.learn("2")

    assert "2" == key.key_id


@pytest.mark.req("SEC-24", part="integrity-key")
async def test_a_store_that_lost_versions() -> None:
    """After a restore with fewer versions, the newest stored one makes MACs; lost ones verify until it is accepted."""
    await put(before := DevStore(), rotated=2)
    await put(restored := DevStore())
    key = await integrity_key(before)
    lost = key.authenticate(b"framed")

    await IntegrityVersions(restored, key, clock=FakeClock()).refresh()

    assert "1" == key.key_id
    assert key.is_authentic(b"framed", lost, "3")

    await IntegrityVersions(restored, key, clock=FakeClock()).read_again()
    assert ("1", False) == (key.key_id, key.knows("3"))


@pytest.mark.req("SEC-24", part="integrity-key")
async def test_a_reused_version_number_is_read_again() -> None:
    await put(before := DevStore(), rotated=2)
    await put(restored := DevStore())
    for number in (7, 8):
        await rotate(restored, number)
    key, theirs = await integrity_key(before), await integrity_key(restored)
    versions = IntegrityVersions(restored, key, clock=FakeClock())

    await versions.refresh()
    assert theirs.authenticate(b"framed") == key.authenticate(b"framed")
    assert theirs.authenticate(b"framed", under="2") != key.authenticate(b"framed", under="2")

    await asyncio.gather(*(versions.read_again() for _ in range(3)))
    assert theirs.authenticate(b"framed", under="2") == key.authenticate(b"framed", under="2")


@pytest.mark.req("SEC-24", part="integrity-key")
async def test_missing_or_altered_versions_stop_no_known_key() -> None:
    await put(store := DevStore(), rotated=1)
    key = await integrity_key(store)
    for store_of in (DevStore(), UnreadableStore(store)):
        await IntegrityVersions(store_of, key, clock=FakeClock()).read_again()
        assert ("2", True) == (key.key_id, key.knows("1"))
    await IntegrityVersions(DevStore(), key, clock=FakeClock()).refresh()
    assert "2" == key.key_id
    with pytest.raises(RecordTampered):
        await IntegrityVersions(UnreadableStore(store), key, clock=FakeClock()).refresh()


# Stale rows: those that contradict the audit log, or are older than what this process has seen.


@pytest.mark.req("SEC-24", part="stale")
@pytest.mark.parametrize(
    ("state", "pointed", "key_id", "audited", "drained", "problem"),
    [
        ("active", "active", "a", "a", False, None),
        ("previous", "previous", "a", None, False, None),
        ("retired", None, "a", None, False, None),
        ("active", None, "a", "a", False, None),
        ("retired", "active", "a", "a", False, "is retired and its endpoint has it as active"),
        ("active", "previous", "a", None, False, "is active and its endpoint has it as previous"),
        ("active", "active", "b", "a", False, "under another master key"),
        ("retired", None, "b", "a", False, "under another master key"),
        ("active", "active", "a", "a", True, "that a re-wrap left no record of"),
    ],
)
def test_a_contradicting_record_is_stale(
    *, state: str, pointed: str | None, key_id: str, audited: str | None, drained: bool, problem: str | None
) -> None:
    with nullcontext() if problem is None else pytest.raises(StaleRow, match=problem):
        require_fresh_record(
            state=state, pointed=pointed, key_id=key_id, audited_key_id=audited, key_is_drained=drained
        )


def read(generation: int, *, after: timedelta = timedelta(), **changes: Any) -> Pointer:
    """Return the pointer at this generation, read so long after the first."""
    return replace(BARE, generation=generation, read_at=BARE.read_at + after, **changes)


@pytest.mark.req("SEC-24", part="stale")
def test_a_row_that_falls_behind_is_stale() -> None:
    seen = GenerationsSeen()
    for generation in (3, 3, 5):
        seen.require_newest(read(generation))

    for _ in range(2):
        with pytest.raises(StaleRow, match="generation 4, this process knows 5"):
            seen.require_newest(read(4, after=APART))
    seen.require_newest(read(5, after=APART))
    seen.require_newest(read(6, after=APART))


@pytest.mark.req("SEC-24", part="stale")
def test_claims_at_the_same_time_may_be_served_in_either_order() -> None:
    seen = GenerationsSeen()
    seen.require_newest(read(2, after=timedelta(seconds=60)))

    seen.require_newest(read(1, after=timedelta(seconds=59)))
    seen.require_newest(read(1, after=timedelta(seconds=62) - timedelta(microseconds=1)))
    with pytest.raises(StaleRow):
        seen.require_newest(read(1, after=timedelta(seconds=62)))


@pytest.mark.req("SEC-24", part="stale")
def test_a_move_restarts_the_tolerance() -> None:
    seen = GenerationsSeen()
    for generation, seconds in ((1, 0), (2, 10), (1, 11)):
        seen.require_newest(read(generation, after=timedelta(seconds=seconds)))


@pytest.mark.req("SEC-24", part="stale")
def test_reading_again_does_not_restart_the_tolerance() -> None:
    seen = GenerationsSeen()
    for seconds in (0, 10):
        seen.require_newest(read(2, after=timedelta(seconds=seconds)))

    with pytest.raises(StaleRow):
        seen.require_newest(read(1, after=timedelta(seconds=11)))


@pytest.mark.req("SEC-24", part="stale")
def test_endpoints_do_not_affect_each_other() -> None:
    seen = GenerationsSeen()
    seen.require_newest(read(5))

    seen.require_newest(read(1, after=APART, tenant_id=OTHER_TENANT))
    seen.require_newest(read(1, after=APART, endpoint_id=OTHER_ENDPOINT))


@pytest.mark.req("SEC-24", part="stale")
def test_an_accepted_restore_discards_what_was_seen() -> None:
    seen = GenerationsSeen()
    seen.require_newest(read(5))

    seen.require_newest(read(2, after=APART, restore_epoch=1))
    seen.require_newest(read(1, after=2 * APART - timedelta(microseconds=1), restore_epoch=0))
    with pytest.raises(StaleRow, match="this process knows 2"):
        seen.require_newest(read(1, after=2 * APART, restore_epoch=1))


@pytest.mark.req("SEC-24", part="stale")
def test_a_lower_restore_epoch_is_stale() -> None:
    seen = GenerationsSeen()
    seen.require_newest(read(5, restore_epoch=1))

    with pytest.raises(StaleRow, match="before a restore that this process knows was accepted"):
        seen.require_newest(read(9, after=APART, restore_epoch=0))


@pytest.mark.req("SEC-24", part="stale")
def test_the_least_recently_seen_endpoint_is_forgotten() -> None:
    seen = GenerationsSeen(most=2)
    for endpoint in (BARE.endpoint_id, OTHER_ENDPOINT, BARE.endpoint_id):
        seen.require_newest(read(5, endpoint_id=endpoint))
    seen.require_newest(read(5, tenant_id=OTHER_TENANT))

    seen.require_newest(read(1, after=APART, endpoint_id=OTHER_ENDPOINT))
    with pytest.raises(StaleRow):
        seen.require_newest(read(1, after=APART, tenant_id=OTHER_TENANT))
