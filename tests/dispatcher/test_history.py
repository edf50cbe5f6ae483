"""What leaves after the retention, and what is replayed."""

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Protocol

import asyncpg
import pytest

from hookseal.dispatcher.core import replay_job
from hookseal.dispatcher.core.model import State
from hookseal.dispatcher.core.replay_job import NOT_DELIVERED, JobState, ReplayJob, Selection, Tally
from hookseal.dispatcher.store.history import BATCH, OLDEST, Place, PostgresHistory, Removed
from hookseal.errors import Malformed, NotFound
from hookseal.ground.ids import DeliveryId, ReplayId, TenantId
from hookseal.operations.replay import replay_delivery
from hookseal.postgres.pool import Pool
from tests import rows
from tests.doubles.replaced import replace
from tests.doubles.stored import AGE, begin

DAYS = 30
EARLIER = datetime(2026, 1, 1, tzinfo=UTC)
ENDPOINT = "0197c1f0-5e6a-7c3b-9d2e-4f5061728394"
# One event, published 40 days ago, with a delivery of each kind; its name says what must happen to it.
_EVENT = """
INSERT INTO hookseal.events (tenant_id, id, event_type, occurred_at, body, fingerprint)
VALUES ('acme', $1, 'invoice.paid', now() - make_interval(days => $2), '', '')
"""
_DELIVERY = """
INSERT INTO hookseal.deliveries (tenant_id, id, endpoint_id, event_id, state, next_attempt_at, waiting_for, replay_of,
    lease_owner, lease_token, lease_expires_at, claimed_number, claimed_at, claimed_refs, finished_at, created_at)
SELECT 'acme', hookseal.uuid7(), $1::uuid, $2, $3, CASE WHEN $3 = 'pending' THEN now() - interval '40 days' END, $5,
       CASE WHEN $6 THEN hookseal.uuid7() END, s.owner, s.token, s.until, s.number, s.at, s.refs,
       now() - $4::text::interval, now() - interval '40 days'
FROM (SELECT 'w', gen_random_uuid(), now(), 1, now(), '{}'::text[] WHERE $3 = 'sending') AS s
     (owner, token, until, number, at, refs)
RIGHT JOIN (VALUES (1)) AS one (row) ON true
RETURNING id::text
"""
_ATTEMPTS = """
INSERT INTO hookseal.attempts (tenant_id, delivery_id, number, started_at, outcome, signed_by, worker)
SELECT 'acme', $1::text::uuid, n, now(), 'delivered', '{}', 'w' FROM generate_series(1, $2) AS n
"""
MANY = """
WITH e AS (
    INSERT INTO hookseal.events (tenant_id, id, event_type, occurred_at, body, fingerprint)
    SELECT 'acme', 'many' || n, 'invoice.paid', now() - interval '40 days' + make_interval(secs => n), '', ''
    FROM generate_series(1, $1) AS n RETURNING id)
INSERT INTO hookseal.deliveries (tenant_id, id, endpoint_id, event_id, state, next_attempt_at, finished_at)
SELECT 'acme', hookseal.uuid7(), gen_random_uuid(), id, 'delivered', NULL, now() - interval '31 days' FROM e
"""
_FORBIDDEN = ("DELETE FROM hookseal.deliveries", "DELETE FROM hookseal.attempts", "DELETE FROM hookseal.events")
_LEFT = """
SELECT (SELECT count(*) FROM hookseal.deliveries), (SELECT count(*) FROM hookseal.attempts),
       (SELECT count(*) FROM hookseal.events)
"""
NOW = datetime(2026, 3, 1, tzinfo=UTC)
EAST, WEST = timezone(timedelta(hours=14)), timezone(timedelta(hours=-12))
ACME = TenantId("acme")
JOB = ReplayJob(
    replay_id=ReplayId("0197c1f0-5e6a-7c3b-9d2e-4f5061728394"),
    selection=Selection(tenant_id=ACME),
    state=JobState.RUNNING,
    rate=100,
    matched=10,
    started_at=NOW,
    moved_at=NOW,
    ended_at=None,
    tally=Tally(replayed=4, disabled=2, deleted=1),
)


class Remove(Protocol):
    """How a batch is removed."""

    async def __call__(self, place: Place, *, days: int) -> tuple[Removed, Place | None]:
        """Remove a batch from there on."""


class History:
    """The history of one database."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.history = PostgresHistory(pool)

    async def event(self, name: str, *, days: int = 40) -> None:
        """Insert an event that was published that many days ago."""
        await self.pool.execute(_EVENT, name, days)

    async def delivery(
        self,
        event: str,
        state: str = "delivered",
        *,
        ended: str | None = "31 days",
        waiting_for: str | None = None,
        replay: bool = False,
        endpoint: str = ENDPOINT,
    ) -> str:
        """Insert a delivery of the event that ended that long ago, and return its id."""
        found: str = await self.pool.fetchval(_DELIVERY, endpoint, event, state, ended, waiting_for, replay)
        return found

    async def pass_(self, *, days: int = DAYS) -> Removed:
        """Remove everything that may leave now."""
        deliveries = await self.batches(self.history.remove_deliveries, days=days)
        return sum([*deliveries, *await self.batches(self.history.remove_events, days=days)], Removed())

    async def batches(self, remove: Remove, *, days: int = DAYS) -> list[Removed]:
        """Remove batch after batch to the end of the walk, and return what each removed."""
        found, place = list[Removed](), OLDEST
        while True:
            batch, following = await remove(place, days=days)
            found.append(batch)
            if following is None:
                return found
            place = following

    async def left(self) -> tuple[int, ...]:
        """Return how many deliveries, attempts and events there are."""
        return tuple(await self.pool.fetchrow(_LEFT) or ())

    async def delivered_events(self) -> list[str]:
        """Return the ids of the events that have a delivery, in order."""
        kept = await self.pool.fetch("SELECT DISTINCT event_id FROM hookseal.deliveries ORDER BY 1")
        return [row["event_id"] for row in kept]

    async def events(self) -> list[str]:
        """Return the ids of all events, in order."""
        return [row["id"] for row in await self.pool.fetch("SELECT id FROM hookseal.events ORDER BY id")]


@pytest.fixture
def stored(pool: Pool) -> History:
    """Return the history of an empty database."""
    return History(pool)


@pytest.mark.req("DEL-16")
async def test_finished_deliveries_leave_after_the_retention(stored: History) -> None:
    """A delivery leaves with its attempts when it ended 30 days ago, however it ended; no other one ever leaves."""
    for state in ("delivered", "dead_letter", "failed", "cancelled"):
        await stored.event(state)
        await stored.pool.execute(_ATTEMPTS, await stored.delivery(state, state), 3)
    stays = {"pending": None, "sending": None, "secret": "secret", "endpoint_disabled": "endpoint_disabled"}
    for name, waiting_for in stays.items():
        await stored.event(name)
        await stored.delivery(name, "sending" if name == "sending" else "pending", ended=None, waiting_for=waiting_for)
    await stored.event("young")
    await stored.pool.execute(_ATTEMPTS, await stored.delivery("young", ended="29 days 23 hours"), 1)

    assert Removed(deliveries=4, attempts=12, events=4) == await stored.pass_()
    assert sorted([*stays, "young"]) == await stored.delivered_events() == await stored.events()
    assert (5, 1, 5) == await stored.left()
    assert not await stored.pass_()


@pytest.mark.req("DEL-16")
async def test_the_retention_counts_from_the_end(stored: History) -> None:
    """The retention begins at the end of a delivery, not at its publish; a replay cancels it."""
    await stored.event("e")
    ring = await stored.delivery("e", "pending", ended=None)
    finished = "SELECT finished_at FROM hookseal.deliveries WHERE id = $1::text::uuid"
    now = await stored.pool.fetchval("SELECT now()")

    await rows.set_state(stored.pool, "dead_letter", ring)
    assert now <= await stored.pool.fetchval(finished, ring)
    assert not await stored.pass_()
    await rows.set_state(stored.pool, "pending", ring)
    assert await stored.pool.fetchval(finished, ring) is None


@pytest.mark.req("DEL-16")
async def test_an_event_leaves_with_its_last_delivery(stored: History) -> None:
    """An event leaves with the last of its deliveries, replays included; one without any, 30 days after its publish."""
    await stored.event("shared")
    await stored.delivery("shared")
    again = await stored.delivery("shared", replay=True, ended="1 day")
    await stored.event("without")
    await stored.event("without-young", days=29)

    assert Removed(deliveries=1, events=1) == await stored.pass_()
    assert ["shared", "without-young"] == await stored.events()
    await stored.pool.execute(f"{AGE} AND id = '{again}'")
    assert Removed(deliveries=1, events=1) == await stored.pass_()


@pytest.mark.req("DEL-16")
async def test_an_event_id_is_idempotent_for_the_retention(stored: History) -> None:
    """The same id is answered as a repeat as long as the event is stored, and publishes a new event after that."""
    publish = "SELECT duplicate FROM hookseal.publish('acme', 'invoice.paid', '{}', 'order-1')"
    assert not await stored.pool.fetchval(publish)

    await rows.change(stored.pool, "events", occurred_at=rows.ago(days=29, hours=23))
    assert not await stored.pass_()
    assert await stored.pool.fetchval(publish)
    await rows.change(stored.pool, "events", occurred_at=rows.ago(days=30, minutes=2))
    assert Removed(events=1) == await stored.pass_()
    assert not await stored.pool.fetchval(publish)


@pytest.mark.req("DEL-16")
async def test_a_statement_removes_one_batch(stored: History) -> None:
    """One statement removes at most a batch, the oldest first, and a walk through the events passes those in use."""
    await stored.pool.execute(MANY, 2 * BATCH + 1)
    await stored.event("older")
    oldest = await stored.delivery("older", ended="39 days")
    await rows.change(stored.pool, "deliveries", where="event_id IN ('many1', 'many700')", finished_at=rows.NOW)

    first, place = await stored.history.remove_deliveries(OLDEST, days=DAYS)
    assert (BATCH, True) == (first.deliveries, place is not None)
    assert not await stored.pool.fetchval("SELECT EXISTS (SELECT FROM hookseal.deliveries WHERE id = $1)", oldest)
    assert [BATCH, 0] == [batch.deliveries for batch in await stored.batches(stored.history.remove_deliveries)]
    assert [BATCH - 1, BATCH - 1, 2] == [batch.events for batch in await stored.batches(stored.history.remove_events)]
    assert ["many1", "many700"] == await stored.events()


@pytest.mark.req("DEL-16")
async def test_events_of_one_time_are_in_one_batch(stored: History) -> None:
    """Events of one time are examined in one batch, however many, so that the search continues after them."""
    await stored.pool.execute(
        "INSERT INTO hookseal.events (tenant_id, id, event_type, occurred_at, body, fingerprint)"
        " SELECT 'acme', 'e' || n, 'x', '2020-01-01Z', '', '' FROM generate_series(1, $1) AS n",
        BATCH + 10,
    )
    assert BATCH + 10 == (await stored.history.remove_events(OLDEST, days=DAYS))[0].events


@pytest.mark.req("DEL-16")
async def test_two_leaders_remove_each_row_once(stored: History) -> None:
    await stored.pool.execute(MANY, 2 * BATCH)
    await stored.event("locked")
    locked = await stored.delivery("locked", "dead_letter", ended="39 days")
    async with stored.pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM hookseal.deliveries WHERE id = $1::text::uuid FOR UPDATE", locked)
        async with asyncio.timeout(30):
            done = await asyncio.gather(*(stored.pass_() for _ in range(2)))

        assert 2 * BATCH == sum(removed.deliveries for removed in done)
        assert not await stored.pass_(), "an event is left over"
        assert (1, 0, 1) == await stored.left()
    assert Removed(deliveries=1, events=1) == await stored.pass_()


@pytest.mark.req("DEL-16")
async def test_a_locked_event_is_left_for_the_next_walk(stored: History) -> None:
    await stored.event("locked")
    await stored.event("free")
    async with stored.pool.acquire() as other, other.transaction():
        await other.execute("SELECT FROM hookseal.events WHERE id = 'locked' FOR KEY SHARE")
        async with stored.pool.acquire() as removing:
            await removing.execute("SET lock_timeout = '1s'")
            removed, _ = await PostgresHistory(removing).remove_events(OLDEST, days=DAYS)
        assert Removed(events=1) == removed
    assert ["locked"] == await stored.events()
    assert Removed(events=1) == await stored.pass_()


@pytest.mark.req("DEL-16")
async def test_an_uncommitted_batch_removes_nothing(stored: History) -> None:
    await stored.event("e")
    await stored.pool.execute(_ATTEMPTS, await stored.delivery("e"), 2)
    async with stored.pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        removed, _ = await PostgresHistory(connection).remove_deliveries(OLDEST, days=DAYS)
        assert Removed(deliveries=1, attempts=2) == removed
        await transaction.rollback()

    assert (1, 2, 1) == await stored.left()
    assert Removed(deliveries=1, attempts=2, events=1) == await stored.pass_()


@pytest.mark.req("DEL-16")
async def test_a_removed_delivery_is_not_replayed(begun_pool: Pool) -> None:
    """A replay that begins before the removal wins; one after it finds nothing."""
    stored, installation = History(begun_pool), await begin(begun_pool)
    added = await installation.endpoint()
    await stored.event("e")
    delivery = DeliveryId(await stored.delivery("e", "dead_letter", endpoint=added.pointer.endpoint_id))
    async with begun_pool.acquire() as connection:
        async with connection.transaction():
            await replay_delivery(installation.operator(connection), delivery, new_id=False)
            assert not await stored.pass_()
        assert not await stored.pass_(), "it is pending"

        await rows.set_state(begun_pool, "delivered")
        await begun_pool.execute(AGE)
        assert Removed(deliveries=1, events=1) == await stored.pass_()
        with pytest.raises(NotFound, match="no delivery with this id"):
            await replay_delivery(installation.operator(connection), delivery, new_id=False)


def _without_yesterday() -> str:
    """Return a time zone whose clocks were put forward by a day in this hour: there, one day ago is now."""
    now = datetime.now(UTC)
    today = now.timetuple().tm_yday - 1
    return f"AAA0BBB-24,{today}/{now.hour},{(today + 20) % 365}"


@pytest.mark.req("DEL-16", "OPS-10")
async def test_a_worker_deletes_rows_only_through_the_functions(stored: History) -> None:
    """A worker deletes no row itself, and through the functions nothing younger than a day, whatever it passes."""
    for name, age in (("old", "1 day 2 minutes"), ("young", "1 day"), ("dated", "1 hour")):
        await stored.event(name, days=40)
        await stored.delivery(name, ended=age)
    await stored.event("published-now", days=0)
    async with stored.pool.acquire() as connection:
        await connection.execute("SET ROLE hookseal_worker")
        for forbidden in _FORBIDDEN:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(forbidden)
        await rows.change(connection, "deliveries", where="event_id = 'dated'", finished_at=rows.Sql("'2020-01-01Z'"))
        await connection.execute(f"SET TimeZone = '{_without_yesterday()}'")
        for days in (None, -1_000, 0):
            await connection.fetch("SELECT * FROM hookseal.remove_deliveries($1, '-infinity')", days)
            await connection.fetch("SELECT * FROM hookseal.remove_events($1, '-infinity')", days)
        await connection.execute("RESET ROLE")
        assert ["dated", "young"] == await stored.delivered_events()
        assert ["dated", "published-now", "young"] == await stored.events()
        for role in ("hookseal_producer", "hookseal_publisher", "hookseal_operator", "hookseal_readonly"):
            await connection.execute(f"SET ROLE {role}")
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.fetch("SELECT * FROM hookseal.remove_deliveries(30, '-infinity')")
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.fetch("SELECT * FROM hookseal.remove_events(30, '-infinity')")
        await connection.execute("RESET ROLE")


_TOKENS = """
INSERT INTO hookseal.api_tokens (tenant_id, id, name, digest, scopes, created_at, expires_at, revoked_at, portal,
                                 generation, signature, signature_key_id)
SELECT 'acme', hookseal.uuid7(), t.name || n, sha256((t.name || n)::bytea), '{read}', now() - interval '99 days',
       CASE WHEN t.portal THEN now() - interval '92 days' ELSE t.expires_at END,
       t.revoked_at, t.portal, 1, decode(repeat('00', 64), 'hex'), '1'
FROM (VALUES ($1::text, $2::timestamptz, $3::timestamptz, $4::boolean)) AS t (name, expires_at, revoked_at, portal),
     generate_series(1, $5) AS n
"""


@pytest.mark.req("API-03")
async def test_tokens_leave_some_time_after_their_end(stored: History) -> None:
    """After 30 days, those of portals after 7; what ended first counts, and one that has no end stays."""
    now = await stored.pool.fetchval("SELECT now()")

    def ago(days: float) -> datetime:
        return now - timedelta(days=days)  # type: ignore[no-any-return]

    for name, expires_at, revoked_at, portal in (
        ("lasting", None, None, False),
        ("active", ago(-1), None, False),
        ("expired", ago(29.9), None, False),
        ("revoked", None, ago(29.9), False),
        ("old-expired", ago(30.1), None, False),
        ("old-revoked", None, ago(30.1), False),
        ("revoked-before-its-end", ago(-1), ago(30.1), False),
        ("portal", None, None, True),
        ("old-portal", None, None, True),
    ):
        await stored.pool.execute(_TOKENS, name, expires_at, revoked_at, portal, 1)
    for name, end in (("portal1", ago(6.9)), ("old-portal1", ago(7.1))):
        await rows.change(
            stored.pool, "api_tokens", where=f"name = '{name}'", created_at=end - timedelta(hours=1), expires_at=end
        )
    assert not await stored.history.remove_tokens()

    left = await stored.pool.fetch("SELECT name FROM hookseal.api_tokens ORDER BY name")
    assert ["active1", "expired1", "lasting1", "portal1", "revoked1"] == [row["name"] for row in left]


@pytest.mark.req("API-03")
async def test_tokens_leave_in_batches_by_the_function(stored: History) -> None:
    """Each statement removes one batch, and passes what is locked; a worker removes no token itself."""
    await stored.pool.execute(_TOKENS, "old", None, None, True, BATCH + 2)
    async with stored.pool.acquire() as other, other.transaction():
        await other.execute("SELECT FROM hookseal.api_tokens WHERE name = 'old1' FOR UPDATE")
        assert [True, False] == [await stored.history.remove_tokens() for _ in range(2)]
    left = "SELECT count(*) FROM hookseal.api_tokens"
    assert 1 == await stored.pool.fetchval(left)
    async with stored.pool.acquire() as connection:
        await connection.execute("SET ROLE hookseal_worker")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("DELETE FROM hookseal.api_tokens")
        assert not await PostgresHistory(connection).remove_tokens()
        for role in ("hookseal_api", "hookseal_operator", "hookseal_readonly"):
            await connection.execute(f"RESET ROLE; SET ROLE {role}")
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await PostgresHistory(connection).remove_tokens()
        await connection.execute("RESET ROLE")
    assert 0 == await stored.pool.fetchval(left)


@pytest.mark.req("DEL-16")
async def test_an_update_dates_an_end_with_the_present_only(stored: History) -> None:
    await stored.event("ended")
    await stored.event("waiting")
    await stored.delivery("ended", ended="2 days")
    await stored.delivery("waiting", "pending")
    ages = """
    SELECT extract(epoch FROM clock_timestamp() - finished_at)::float8 FROM hookseal.deliveries WHERE event_id = $1
    """
    date = "UPDATE hookseal.deliveries SET finished_at = now() + $1::text::interval"
    move = f"{date}, state = $2, next_attempt_at = $3 WHERE event_id = 'waiting'"
    for away in ("-5 years", "-62 seconds", "1 day", "1 minute", "0", "-infinity", "infinity", None):
        async with stored.pool.acquire() as connection, connection.transaction():
            await connection.execute(date, away)
            assert 0 <= await connection.fetchval(ages, "ended") < 60
            assert await connection.fetchval(ages, "waiting") is None
            await connection.execute(move, away, "failed", None)
            assert 0 <= await connection.fetchval(ages, "waiting") < 60
            await connection.execute(move, away, "pending", EARLIER)
            assert await connection.fetchval(ages, "waiting") is None


@pytest.mark.req("DEL-16")
async def test_a_long_transaction_dates_an_end_with_the_present(stored: History) -> None:
    await stored.event("waiting")
    await stored.delivery("waiting", "pending")
    async with stored.pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT pg_sleep(0.01)")
        await rows.set_state(connection, "failed")
        assert await connection.fetchval("SELECT finished_at >= now() + interval '0.01 s' FROM hookseal.deliveries")


@pytest.mark.req("DEL-16")
async def test_attempts_are_found_by_their_index(pool: Pool) -> None:
    """A session that has deleted from small tables reads no more than it must when these have grown."""
    grow = """
    WITH made AS (
        INSERT INTO hookseal.deliveries (tenant_id, id, endpoint_id, event_id, state, next_attempt_at, replay_of)
        SELECT 'acme', hookseal.uuid7(), gen_random_uuid(), 'e', 'delivered', NULL, hookseal.uuid7()
        FROM generate_series(1, $1) AS n RETURNING id)
    INSERT INTO hookseal.attempts (tenant_id, delivery_id, number, started_at, outcome, signed_by, worker)
    SELECT 'acme', id, 1, now(), 'delivered', '{}', 'w' FROM made
    """
    read = "SELECT seq_tup_read FROM pg_stat_xact_all_tables WHERE relid = 'hookseal.attempts'::regclass"
    await History(pool).event("e")
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(grow, 30)
        await rows.remove(connection, "deliveries", where="id = (SELECT min(id::text)::uuid FROM hookseal.deliveries)")
        await connection.execute(grow, 1_000)
        before = await connection.fetchval(read)
        await rows.remove(connection, "deliveries")
        assert await connection.fetchval(read) - before <= 10_000
        assert 0 == await connection.fetchval("SELECT count(*) FROM hookseal.attempts")


@pytest.mark.req("DEL-16")
async def test_attempts_leave_with_their_deliveries(stored: History) -> None:
    await stored.event("e", days=1)
    for attempts in (2, 3):
        await stored.pool.execute(_ATTEMPTS, await stored.delivery("e", replay=True), attempts)
    await rows.remove(
        stored.pool, "deliveries", where="id = (SELECT delivery_id FROM hookseal.attempts WHERE number = 3)"
    )

    assert [1, 2] == [row[0] for row in await stored.pool.fetch("SELECT number FROM hookseal.attempts ORDER BY number")]


async def test_counts_of_removed_rows_are_added_up() -> None:
    assert not Removed()
    assert Removed(events=1)
    assert Removed(deliveries=1, attempts=5, events=1) == Removed(deliveries=1, attempts=5) + Removed(events=1)


@pytest.mark.req("DEL-07", part="jobs")
@pytest.mark.parametrize(("text", "number"), [("1/s", 1), ("100", 100), ("1000/s", 1_000)])
def test_a_rate_is_1_to_1000(text: str, number: int) -> None:
    assert number == replay_job.rate(text)


@pytest.mark.req("DEL-07", part="jobs")
@pytest.mark.parametrize("text", ["", "0/s", "1001/s", "5/m", "-1/s", "1.5/s", "1/s ", "٣/s", "9999999/s"])
def test_an_invalid_rate_names_the_limits(text: str) -> None:
    with pytest.raises(Malformed, match="1/s to 1000/s") as caught:
        replay_job.rate(text)
    assert "rate" == caught.value.field


@pytest.mark.req("DEL-07", part="jobs")
@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"states": ()}, "states"),
        ({"states": (State.PENDING,)}, "states"),
        ({"states": (State.FAILED, State.SENDING)}, "states"),
        ({"since": datetime(1999, 12, 31, tzinfo=UTC)}, "since"),
        ({"until": datetime(9000, 1, 1, tzinfo=UTC)}, "until"),
        ({"since": datetime(2000, 1, 1, tzinfo=EAST)}, "since"),
        ({"until": datetime(8999, 12, 31, 23, tzinfo=WEST)}, "until"),
        ({"since": datetime(1, 1, 1, tzinfo=EAST)}, "since"),
        ({"until": datetime(9999, 12, 31, 23, tzinfo=WEST)}, "until"),
        ({"since": NOW, "until": NOW}, "since"),
    ],
)
def test_an_impossible_condition_is_refused(given: dict[str, Any], field: str) -> None:
    """Unfinished states, and times that PostgreSQL or Python cannot use, are refused."""
    with pytest.raises(Malformed) as caught:
        Selection(tenant_id=ACME, **given)
    assert field == caught.value.field


@pytest.mark.req("DEL-07", part="jobs")
def test_the_default_selects_undelivered_deliveries() -> None:
    """Without conditions a selection is everything of the tenant that is finished and was not delivered."""
    assert set(State) - {State.PENDING, State.SENDING, State.DELIVERED} == set(NOT_DELIVERED)
    assert {
        "endpoint_id": None, "event_type": None, "event_id": None, "since": None, "until": None,
        "states": ["dead_letter", "failed", "cancelled"],
    } == Selection(tenant_id=ACME).shown()  # fmt: skip


@pytest.mark.req("DEL-07", part="jobs")
@pytest.mark.parametrize(
    ("state", "matched", "remaining", "changed"),
    [
        (JobState.RUNNING, 10, 3, 0),
        (JobState.DONE, 10, 0, 3),
        (JobState.CANCELLED, 10, 3, 0),
        (JobState.RUNNING, 5, 0, 0),
        (JobState.DONE, 5, 0, 0),
    ],
)
def test_remaining_deliveries_are_known_until_the_end(
    state: JobState, matched: int, remaining: int, changed: int
) -> None:
    """Deliveries that the job has not reached count as remaining, and as changed once it is done."""
    shown = replace(JOB, state=state, matched=matched).shown()

    assert (4, {"endpoint_disabled": 2, "endpoint_deleted": 1, "changed": changed}, remaining) == (
        shown["replayed"], shown["skipped"], shown["remaining"],
    )  # fmt: skip
    assert Tally(replayed=8, disabled=4, deleted=2) == JOB.tally + JOB.tally
