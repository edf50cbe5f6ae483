"""What the pointer of an endpoint may become, when its secret is rotated, and its first secret."""

from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookseal.errors import Conflict, Malformed, NotFound, SecretDenied, SecretTampered, Unavailable
from hookseal.ground.ids import TenantId
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.postgres.pool import Pool
from hookseal.secrets.core import overlap
from hookseal.secrets.core.ref import Provider, SecretRef, endpoint_headers_name
from hookseal.secrets.endpoint import pointer, schedule
from hookseal.secrets.endpoint.pointer import HIGHEST_GENERATION, generation_after
from hookseal.secrets.endpoint.schedule import Scheduled, Turn
from hookseal.secrets.resolve.service import SecretService
from tests import rows
from tests.doubles.replaced import replace
from tests.doubles.stored import begin
from tests.secrets.doubles import ScriptedStore, reader_on
from tests.secrets.samples import BARE, ENDPOINT, INTEGRITY, NAME, OTHER_ENDPOINT, OTHER_TENANT, TENANT, ref, signed
from tests.secrets.samples import NAME as SIGNING

UNTIL = datetime(2026, 1, 3, tzinfo=UTC)
OVERLAPPING = replace(
    BARE,
    secret_ref=str(ref(2)),
    scheme="standard",
    previous_secret_ref=str(ref(1)),
    previous_secret_expires_at=UNTIL,
    previous_scheme="x-webhook",
    previous_algorithm="hmac",
    previous_due=True,
    generation=2,
)
EXPIRED = replace(OVERLAPPING, previous_due=False)
NO_PREVIOUS = {
    "previous_secret_ref": None,
    "previous_secret_expires_at": None,
    "previous_scheme": None,
    "previous_algorithm": None,
}


@pytest.mark.req("SEC-10")
@pytest.mark.parametrize("seconds", [0, 1, 86_400, 604_800])
def test_an_overlap_lasts_up_to_seven_days(seconds: int) -> None:
    assert seconds == overlap.require_overlap(seconds)


@pytest.mark.req("SEC-10")
@pytest.mark.parametrize("seconds", [-1, 604_801])
def test_an_overlap_out_of_range_is_refused(seconds: int) -> None:
    with pytest.raises(Malformed) as caught:
        overlap.require_overlap(seconds)
    assert "overlap_seconds" == caught.value.field


@pytest.mark.req("SEC-09")
def test_another_generation_than_expected_is_refused() -> None:
    overlap.require_generation(BARE, None)
    overlap.require_generation(BARE, 1)
    for expected in (0, 2):
        with pytest.raises(Conflict, match=f"at generation 1, not {expected}"):
            overlap.require_generation(BARE, expected)


def test_a_revocation_counts_once_its_generation_is_reached() -> None:
    for revoked in (1, 2):
        overlap.require_reached(2, revoked)
    with pytest.raises(Conflict, match="at generation 2, not yet at 3") as caught:
        overlap.require_reached(2, 3)
    assert "generation" == caught.value.field


@pytest.mark.req("DEL-04", part="standard-ed25519")
def test_x_webhook_signs_with_hmac_only() -> None:
    for scheme, algorithm in (
        (Scheme.STANDARD, Algorithm.HMAC),
        (Scheme.STANDARD, Algorithm.ED25519),
        (Scheme.X_WEBHOOK, Algorithm.HMAC),
    ):
        overlap.require_signable(scheme, algorithm)
    with pytest.raises(Malformed) as caught:
        overlap.require_signable(Scheme.X_WEBHOOK, Algorithm.ED25519)
    assert ("algorithm", "give --algorithm hmac, or --scheme standard") == (caught.value.field, caught.value.advice)


@pytest.mark.req("SEC-10")
def test_a_rotation_keeps_the_old_secret_as_previous() -> None:
    how = (Scheme.STANDARD, Algorithm.ED25519)
    changes = overlap.changes_of_rotation(
        replace(BARE, scheme="x-webhook"), ref(2), how=how, lead=None, expires_at=UNTIL
    )

    assert {
        "secret_ref": str(ref(2)),
        "scheme": "standard",
        "algorithm": "ed25519",
        "lead": "previous",
        "previous_secret_ref": str(ref(1)),
        "previous_secret_expires_at": UNTIL,
        "previous_scheme": "x-webhook",
        "previous_algorithm": "hmac",
    } == changes


@pytest.mark.req("SEC-10")
def test_after_a_revocation_only_the_new_secret_signs() -> None:
    how = (Scheme.STANDARD, Algorithm.HMAC)
    changes = overlap.changes_of_rotation(OVERLAPPING, ref(3), how=how, lead="current", expires_at=None)

    assert {
        "secret_ref": str(ref(3)),
        "scheme": "standard",
        "algorithm": "hmac",
        "lead": "current",
        **NO_PREVIOUS,
    } == changes


@pytest.mark.req("SEC-10")
@pytest.mark.parametrize(
    ("found", "seconds", "force"),
    [(BARE, 60, False), (BARE, 0, False), (EXPIRED, 60, False), (OVERLAPPING, 0, False), (OVERLAPPING, 60, True)],
)
def test_in_an_overlap_a_rotation_needs_force_or_revokes(found: object, seconds: int, force: bool) -> None:
    overlap.require_rotatable(found, overlap_seconds=seconds, force=force)  # type: ignore[arg-type]


@pytest.mark.req("SEC-10")
def test_a_running_overlap_is_not_cut_short() -> None:
    for seconds in (1, 60):
        with pytest.raises(Conflict, match=r"would retire at once$") as caught:
            overlap.require_rotatable(OVERLAPPING, overlap_seconds=seconds, force=False)
        assert "--force" in (caught.value.advice or "")


def test_an_endpoint_without_a_secret_is_not_rotated() -> None:
    with pytest.raises(Conflict, match="no secret"):
        overlap.require_rotatable(replace(BARE, secret_ref=None), overlap_seconds=0, force=True)


@pytest.mark.req("SEC-10")
def test_a_rollback_exchanges_the_secrets() -> None:
    later = datetime(2026, 1, 4, tzinfo=UTC)

    assert {
        "secret_ref": str(ref(1)),
        "scheme": "x-webhook",
        "algorithm": "hmac",
        "previous_secret_ref": str(ref(2)),
        "previous_secret_expires_at": later,
        "previous_scheme": "standard",
        "previous_algorithm": "hmac",
    } == overlap.changes_of_rollback(OVERLAPPING, expires_at=later)
    assert {
        "secret_ref": str(ref(1)),
        "scheme": "x-webhook",
        "algorithm": "hmac",
        **NO_PREVIOUS,
    } == overlap.changes_of_rollback(OVERLAPPING, expires_at=None)


@pytest.mark.req("SEC-10")
@pytest.mark.parametrize("found", [BARE, EXPIRED])
def test_a_rollback_outside_an_overlap_is_refused(found: object) -> None:
    with pytest.raises(Conflict, match="no overlap"):
        overlap.changes_of_rollback(found, expires_at=UNTIL)  # type: ignore[arg-type]


@pytest.mark.req("SEC-10")
def test_the_end_of_an_overlap_retires_the_previous_secret() -> None:
    assert NO_PREVIOUS == overlap.changes_of_end(OVERLAPPING) == overlap.changes_of_end(EXPIRED)
    with pytest.raises(Conflict, match="no previous"):
        overlap.changes_of_end(BARE)


# When a scheduled rotation is announced and made, and which endpoints are examined.

BORN = datetime(2026, 1, 1, tzinfo=UTC)


def after(**passed: float) -> datetime:
    """Return the time so long after the secret became current."""
    return BORN + timedelta(**passed)


def scheduled(days: int, at: datetime, **changes: Any) -> Scheduled:
    """Return an endpoint with a rotation every that many days, as read at that time."""
    asked: dict[str, Any] = {
        "tenant_id": TenantId("acme"),
        "endpoint_id": ENDPOINT,
        "rotate_every_days": days,
        "updated_at": BORN,
        "overlap_ends_at": None,
        "announced_at": None,
        "read_at": at,
    }
    return Scheduled(**asked | changes)


@pytest.mark.req("SEC-11")
@pytest.mark.parametrize(
    ("days", "at", "announced_at", "overlap_ends_at", "turn"),
    [
        (30, after(days=28, hours=23), None, None, Turn.WAIT),
        (30, after(days=29), None, None, Turn.ANNOUNCE),
        (30, after(days=29, hours=23), after(days=29), None, Turn.WAIT),
        (30, after(days=30), after(days=29), None, Turn.ROTATE),
        # The warning has its full length, however late it was given.
        (30, after(days=30), after(days=29, hours=12), None, Turn.WAIT),
        (30, after(days=30, hours=12), after(days=29, hours=12), None, Turn.ROTATE),
        (30, after(days=200), None, None, Turn.ANNOUNCE),
        (30, after(days=200, hours=23), after(days=200), None, Turn.WAIT),
        (30, after(days=201), after(days=200), None, Turn.ROTATE),
        # An announcement of an earlier or postponed rotation does not count for this one.
        (30, after(days=29), after(hours=-24), None, Turn.ANNOUNCE),
        (30, after(days=29), after(days=6), None, Turn.ANNOUNCE),
        # A period of one day: the warning is half of it.
        (1, after(hours=11), None, None, Turn.WAIT),
        (1, after(hours=12), None, None, Turn.ANNOUNCE),
        (1, after(hours=24), after(hours=12), None, Turn.ROTATE),
        # During an overlap nothing is rotated; at its end it is, as announced.
        (1, after(days=2), None, after(days=7), Turn.WAIT),
        (1, after(days=6, hours=12), None, after(days=7), Turn.ANNOUNCE),
        (1, after(days=6, hours=23), after(days=6, hours=12), after(days=7), Turn.WAIT),
        (1, after(days=7), after(days=6, hours=12), after(days=7), Turn.ROTATE),
        (30, after(days=30), after(days=29), after(days=1), Turn.ROTATE),
    ],
)
def test_a_rotation_is_announced_and_made_in_time(
    days: int, at: datetime, announced_at: datetime | None, overlap_ends_at: datetime | None, turn: Turn
) -> None:
    found = scheduled(days, at, announced_at=announced_at, overlap_ends_at=overlap_ends_at)
    assert turn is found.turn


@pytest.mark.req("SEC-11")
@given(
    days=st.integers(1, 30),
    age=st.integers(0, 90 * 86_400),
    announced=st.none() | st.integers(0, 90 * 86_400),
    overlap=st.none() | st.integers(0, 7 * 86_400),
)
def test_no_rotation_is_made_without_its_announcement(
    days: int, age: int, announced: int | None, overlap: int | None
) -> None:
    found = scheduled(
        days,
        after(seconds=age),
        announced_at=None if announced is None or announced > age else after(seconds=announced),
        overlap_ends_at=None if overlap is None else after(seconds=overlap),
    )
    assert timedelta(hours=12) <= found.warning <= timedelta(hours=24)
    if found.turn is Turn.ROTATE:
        assert found.announced_at is not None
        assert found.read_at - found.announced_at >= found.warning
        assert found.read_at - found.updated_at >= timedelta(days=days)
        assert found.overlap_ends_at is None or found.overlap_ends_at <= found.read_at
    else:
        assert found.rotates_at > found.read_at or found.turn is Turn.ANNOUNCE
    if found.turn is Turn.ANNOUNCE:
        assert found.rotates_at >= found.read_at + found.warning


@pytest.mark.req("SEC-11")
@pytest.mark.parametrize(("configured", "expected"), [(0, 86_400), (3_600, 86_400), (172_800, 172_800)])
def test_a_scheduled_rotation_has_an_overlap(configured: int, expected: int) -> None:
    assert expected == schedule.overlap_seconds(configured)


@pytest.mark.req("SEC-11")
@pytest.mark.parametrize(
    ("days", "age", "is_near"),
    [
        (30, rows.ago(days=28, hours=23), False),
        (30, rows.ago(days=29, minutes=1), True),
        (1, rows.ago(hours=11), False),
        (1, rows.ago(hours=12, minutes=1), True),
        (None, rows.ago(days=90), False),
        (1, rows.ahead(days=1), False),
        (1, rows.Sql("'-infinity'"), False),  # hookseal never writes this: left out, so that pages can be read
    ],
)
async def test_endpoints_with_a_near_rotation_are_listed(
    pool: Pool, days: int | None, age: rows.Sql, is_near: bool
) -> None:
    installation = await begin(pool)
    endpoint_id = (await installation.endpoint()).pointer.endpoint_id
    await rows.change(pool, "endpoints", rotate_every_days=days, secret_updated_at=age)
    found = await schedule.upcoming(pool, None)
    assert ([endpoint_id] if is_near else []) == [each.endpoint_id for each in found]
    assert [Turn.ANNOUNCE] * len(found) == [each.turn for each in found]


@pytest.mark.req("SEC-11")
async def test_a_long_list_is_read_in_pages(pool: Pool) -> None:
    """The list is read in pages, oldest secrets first, each endpoint once, even among secrets of equal age."""
    await pool.execute(
        "INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types, secret_ref, secret_updated_at,"
        " rotate_every_days)"
        " SELECT 't' || n % 3, hookseal.uuid7(), 'https://x/' || n, '{*}', 'db:x', date_trunc('day', now())"
        " - make_interval(days => 31 + n % 2), 30 FROM generate_series(1, 150) AS n"
    )
    first = await schedule.upcoming(pool, None)
    second = await schedule.upcoming(pool, first[-1])
    assert (schedule.PAGE, 50) == (len(first), len(second))
    both = first + second
    assert 150 == len({each.endpoint_id for each in both})
    assert sorted(each.updated_at for each in both) == [each.updated_at for each in both]


@pytest.mark.req("SEC-11")
async def test_a_silent_database_is_unavailable(pool: Pool) -> None:
    await pool.close()
    with pytest.raises(Unavailable):
        await schedule.upcoming(pool, None)


@pytest.mark.req("SEC-11")
async def test_a_single_endpoint_is_read_as_in_the_list(pool: Pool) -> None:
    installation = await begin(pool)
    endpoint_id = (await installation.endpoint()).pointer.endpoint_id
    async with pool.acquire() as connection:
        assert await schedule.of_endpoint(connection, TenantId("acme"), endpoint_id) is None
        await rows.change(pool, "endpoints", rotate_every_days=30, secret_updated_at=rows.ago(days=31))
        found = await schedule.of_endpoint(connection, TenantId("acme"), endpoint_id)
        assert await schedule.of_endpoint(connection, TenantId("globex"), endpoint_id) is None
    [listed] = await schedule.upcoming(pool, None)
    assert found is not None
    assert (listed.updated_at, listed.due_at, listed.turn) == (found.updated_at, found.due_at, found.turn)


# Setting the first secret of an endpoint.

REF = ref(1, Provider.DB)
HEADERS = replace(REF, name=endpoint_headers_name(ENDPOINT))
FIRST = pointer.InitialSecrets(ref=REF, scheme=Scheme.STANDARD, algorithm=Algorithm.HMAC)
ROW = "SELECT * FROM hookseal.endpoints WHERE id = $1"


@pytest.fixture
async def endpoint(pool: Pool) -> None:
    """Insert an endpoint without a secret."""
    await rows.endpoint(pool, TENANT, id=ENDPOINT, url=BARE.url)


async def _first(pool: Pool, **change: Any) -> Pointer:
    tenant = change.pop("tenant", TENANT)
    async with pool.acquire() as connection, connection.transaction():
        return await pointer.set_initial(
            connection, INTEGRITY, tenant=tenant, endpoint_id=ENDPOINT, to=replace(FIRST, **change)
        )


@pytest.mark.req("SEC-24", part="pointer-mac")
async def test_the_first_secret_sets_ref_generation_and_mac(pool: Pool, endpoint: None) -> None:
    found = await _first(pool)
    row = await pool.fetchrow(ROW, ENDPOINT)

    assert signed(replace(BARE, secret_ref=str(REF), read_at=found.read_at)) == found
    assert row is not None
    assert (str(REF), "db", 1) == (row["secret_ref"], row["secret_provider"], row["generation"])
    assert (found.mac, INTEGRITY.key_id) == (row["mac"], row["mac_key_id"])
    assert row["secret_updated_at"] >= row["created_at"]
    assert (None, None) == (row["previous_secret_ref"], row["previous_secret_expires_at"])
    INTEGRITY.verify(found)


@pytest.mark.req("SEC-24", part="pointer-mac")
@pytest.mark.req("DEL-04", part="standard-ed25519")
@pytest.mark.req("DEL-13", part="sealed-values")
async def test_the_mac_covers_algorithm_and_headers(pool: Pool, endpoint: None) -> None:
    found = await _first(pool, algorithm=Algorithm.ED25519, headers=HEADERS)
    row = await pool.fetchrow(ROW, ENDPOINT)

    assert row is not None
    assert ("ed25519", str(HEADERS)) == (row["algorithm"], row["headers_ref"])
    INTEGRITY.verify(found)
    for altered in (replace(found, algorithm="hmac"), replace(found, headers_ref=None)):
        with pytest.raises(SecretTampered):
            INTEGRITY.verify(altered)


@pytest.mark.req("SEC-08")
@pytest.mark.parametrize(
    "wrong",
    [
        replace(HEADERS, tenant=OTHER_TENANT),
        replace(HEADERS, name=endpoint_headers_name(OTHER_ENDPOINT)),
        replace(HEADERS, name=NAME),
    ],
    ids=str,
)
async def test_headers_of_another_tenant_or_endpoint_are_denied(pool: Pool, endpoint: None, wrong: SecretRef) -> None:
    with pytest.raises(SecretDenied):
        await _first(pool, headers=wrong)

    assert await pool.fetchval("SELECT headers_ref IS NULL AND generation = 0 FROM hookseal.endpoints")


@pytest.mark.req("SEC-24", part="pointer-mac")
@pytest.mark.parametrize("expiry", ["2999-01-01Z", "2000-01-01Z"])
async def test_an_expiry_set_by_hand_breaks_the_mac(pool: Pool, endpoint: None, expiry: str) -> None:
    found = await _first(pool)
    await rows.change(pool, "endpoints", previous_secret_expires_at=rows.Sql(f"'{expiry}'"))
    expires = await pool.fetchval("SELECT previous_secret_expires_at FROM hookseal.endpoints")

    with pytest.raises(SecretTampered):
        INTEGRITY.verify(replace(found, previous_secret_expires_at=expires))


@pytest.mark.req("SEC-08")
@pytest.mark.parametrize(
    "wrong",
    [
        SecretRef(provider=Provider.DB, tenant=OTHER_TENANT, name=NAME, version=1),
        SecretRef(provider=Provider.DB, tenant=TENANT, name=f"webhook-endpoint-{OTHER_ENDPOINT}", version=1),
        SecretRef(provider=Provider.DB, tenant=TENANT, name="integrity", version=1),
    ],
    ids=str,
)
async def test_a_secret_of_another_tenant_or_endpoint_is_denied(pool: Pool, endpoint: None, wrong: SecretRef) -> None:
    """Only a secret of the endpoint itself can be set; otherwise the row stays unchanged."""
    with pytest.raises(SecretDenied):
        await _first(pool, ref=wrong)

    assert await pool.fetchval("SELECT secret_ref IS NULL AND generation = 0 FROM hookseal.endpoints")


async def test_an_absent_endpoint_is_not_found(pool: Pool) -> None:
    with pytest.raises(NotFound):
        await _first(pool)


@pytest.mark.req("SEC-08")
async def test_an_endpoint_of_another_tenant_is_not_found(pool: Pool, endpoint: None) -> None:
    with pytest.raises(NotFound):
        await _first(pool, tenant=OTHER_TENANT, ref=replace(REF, tenant=OTHER_TENANT))


@pytest.mark.parametrize("had", ["secret_ref = 'x'", "previous_secret_ref = 'x'", "generation = 3"])
async def test_an_endpoint_with_a_secret_is_a_conflict(pool: Pool, endpoint: None, had: str) -> None:
    await pool.execute(f"UPDATE hookseal.endpoints SET {had}")  # noqa: S608
    before = await pool.fetchrow(ROW, ENDPOINT)
    with pytest.raises(Conflict):
        await _first(pool)

    assert before == await pool.fetchrow(ROW, ENDPOINT)


async def test_the_row_is_locked_until_the_transaction_ends(pool: Pool, endpoint: None) -> None:
    """The row stays locked until the caller's transaction ends, even against a key share lock (law 4)."""
    async with pool.acquire() as mine, pool.acquire() as theirs, mine.transaction():
        await pointer.set_initial(mine, INTEGRITY, tenant=TENANT, endpoint_id=ENDPOINT, to=FIRST)
        with pytest.raises(asyncpg.LockNotAvailableError):
            await theirs.execute("SELECT FROM hookseal.endpoints FOR KEY SHARE NOWAIT")


# Numbers that hookseal never writes, in the rows of a pointer, are refused or ignored.


@pytest.mark.req("SEC-24", part="sql-attacks")
@pytest.mark.parametrize("change", [{"cache_epoch": -1}, {"restore_epoch": -1}, {"cache_epoch": -(2**63)}])
async def test_an_invalid_epoch_gives_no_signers(change: dict[str, Any]) -> None:
    store = ScriptedStore()
    service = SecretService(reader_on(store), INTEGRITY)
    headers_ref = f"dev:{TENANT}:{SIGNING.replace('webhook-endpoint', 'endpoint-headers')}:1"
    pointer = replace(signed(replace(BARE, headers_ref=headers_ref)), **change)
    for given_out in (service.signers(pointer), service.headers(pointer)):
        with pytest.raises(SecretTampered, match="lacks its row `cache` or `restore`"):
            async with given_out:
                raise AssertionError("something was given out")

    assert [] == store.fetched
    assert 2 == service.statistics().definitive_failures


@pytest.mark.req("SEC-24", part="sql-attacks")
@pytest.mark.parametrize(
    ("known", "after"),
    [
        ((1, 1), 2),
        ((0, 5), 6),
        ((7, None), 8),
        ((-(2**63), None), 1),
        ((HIGHEST_GENERATION, 3), HIGHEST_GENERATION),
        ((1, HIGHEST_GENERATION), HIGHEST_GENERATION),
    ],
)
def test_the_next_generation_is_above_every_known_one(known: tuple[int | None, ...], after: int) -> None:
    assert after == generation_after(*known)
