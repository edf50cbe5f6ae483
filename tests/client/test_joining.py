"""Publishing inside a transaction of the caller: all or nothing, and no ring before the commit."""

import asyncio
from contextlib import nullcontext
from typing import Any

import asyncpg
import pytest

from hookseal import Event, Publisher
from hookseal.errors import Conflict, Malformed, Unavailable
from hookseal.postgres.pool import Connection
from tests.client.stored import Stored, ids
from tests.worker.waiting import eventually

pytestmark = pytest.mark.req("DEL-01")

EVENT: dict[str, Any] = {"tenant_id": "acme", "event_type": "invoice.paid", "data": {"id": 1}}


@pytest.fixture(autouse=True)
async def _orders(stored: Stored) -> None:
    await stored.pool.execute("CREATE TABLE orders (id integer)")


async def order(connection: Connection) -> None:
    """Do the caller's own work."""
    await connection.execute("INSERT INTO orders VALUES (1)")


async def orders(stored: Stored) -> int:
    """Return the number of committed orders."""
    count: int = await stored.pool.fetchval("SELECT count(*) FROM orders")
    return count


async def test_event_and_order_exist_after_the_commit(publisher: Publisher, stored: Stored) -> None:
    """Event and order exist after the caller's commit, not before; nothing is rung before the caller asks for it."""
    async with stored.pool.acquire() as connection:
        async with connection.transaction():
            await order(connection)
            published = await publisher.publish(**EVENT, connection=connection)
            assert (False, 0, 0) == (published.is_committed, await orders(stored), await stored.count())
        assert (1, 1, set()) == (await orders(stored), await stored.count(), await stored.rung())
    await published.ring()

    assert ids(published.deliveries) == await stored.delivery_ids() == await stored.rung()


async def test_a_connection_of_another_library_is_refused(publisher: Publisher, stored: Stored) -> None:
    """A connection that is not of asyncpg is refused by the argument's name, before anything is stored."""
    another: Any = object()
    with pytest.raises(Malformed, match="asyncpg") as caught:
        await publisher.publish(**EVENT, connection=another)

    assert ("connection", 0) == (caught.value.field, await stored.count())


async def test_a_rollback_publishes_nothing(publisher: Publisher, stored: Stored) -> None:
    async with stored.pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        published = await publisher.publish(**EVENT, event_id="evt-1", connection=connection)
        await transaction.rollback()
    assert (0, 0) == (await stored.count(), await stored.count("deliveries"))
    await published.ring()

    assert not (await publisher.publish(**EVENT, event_id="evt-1")).duplicate


@pytest.mark.parametrize("begun_by", ["asyncpg", "statement"])
async def test_a_conflict_leaves_the_transaction_usable(publisher: Publisher, stored: Stored, begun_by: str) -> None:
    """After a conflict the caller's transaction continues, and its own work is kept."""
    await publisher.publish(**EVENT, event_id="evt-1")
    async with stored.pool.acquire() as connection:
        transaction = connection.transaction()
        await (transaction.start() if begun_by == "asyncpg" else connection.execute("BEGIN"))
        await order(connection)
        with pytest.raises(Conflict):
            await publisher.publish(**(EVENT | {"data": 2}), event_id="evt-1", connection=connection)
        with pytest.raises(Malformed):
            await publisher.publish(**EVENT, traceparent="nonsense", connection=connection)
        await publisher.publish(**EVENT, event_id="evt-2", connection=connection)
        await (transaction.commit() if begun_by == "asyncpg" else connection.execute("COMMIT"))

    assert (1, 2) == (await orders(stored), await stored.count())


async def test_a_cancelled_publish_leaves_the_transaction_usable(publisher: Publisher, stored: Stored) -> None:
    async with stored.pool.acquire() as other, stored.pool.acquire() as connection:
        holding = other.transaction()
        await holding.start()
        await publisher.publish(**EVENT, event_id="evt-1", connection=other)
        async with connection.transaction():
            await order(connection)
            waiting = asyncio.ensure_future(publisher.publish(**EVENT, event_id="evt-1", connection=connection))
            await eventually(lambda: _is_blocked(stored))
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await publisher.publish(**EVENT, event_id="evt-2", connection=connection)
        await holding.rollback()

    assert (1, 1) == (await orders(stored), await stored.count())


async def test_a_lost_connection_is_an_outage(publisher: Publisher, stored: Stored) -> None:
    """If the caller's connection is lost during a publish, the error says that PostgreSQL does not answer."""
    async with stored.pool.acquire() as other, stored.pool.acquire() as connection:
        holding = other.transaction()
        await holding.start()
        await publisher.publish(**EVENT, event_id="evt-1", connection=other)
        transaction = connection.transaction()
        await transaction.start()
        waiting = asyncio.ensure_future(publisher.publish(**EVENT, event_id="evt-1", connection=connection))
        await eventually(lambda: _is_blocked(stored))
        await stored.pool.execute("SELECT pg_terminate_backend($1)", connection.get_server_pid())
        with pytest.raises(Unavailable):
            await waiting
        await holding.rollback()

    assert 0 == await stored.count()


async def test_a_closed_connection_is_an_outage(publisher: Publisher, stored: Stored, database_url: str) -> None:
    """A closed connection is reported as PostgreSQL that does not answer, and nothing is stored."""
    connection = await asyncpg.connect(database_url)
    connection.terminate()
    with pytest.raises(Unavailable):
        await publisher.publish(**EVENT, connection=connection)

    assert 0 == await stored.count()


async def test_without_a_transaction_the_event_is_stored_at_once(publisher: Publisher, stored: Stored) -> None:
    async with stored.pool.acquire() as connection:
        published = await publisher.publish(**EVENT, connection=connection)
    assert (True, 1, set()) == (published.is_committed, await stored.count(), await stored.rung())
    await published.ring()

    assert ids(published.deliveries) == await stored.rung()


async def _is_blocked(stored: Stored) -> bool:
    found: bool = await stored.pool.fetchval(
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')"
    )
    return found


async def test_a_failed_transaction_is_a_conflict(publisher: Publisher, stored: Stored) -> None:
    """Publishing in a transaction that has already failed is a conflict that says so, and stores nothing."""
    async with stored.pool.acquire() as connection:
        await connection.execute("BEGIN")
        with pytest.raises(asyncpg.UndefinedTableError):
            await connection.execute("SELECT FROM nowhere")
        with pytest.raises(Conflict, match="roll it back first") as caught:
            await publisher.publish(**EVENT, connection=connection)
        await connection.execute("ROLLBACK")

    assert "connection" == caught.value.field
    assert 0 == await stored.pool.fetchval("SELECT count(*) FROM hookseal.events")


def _never(value: object) -> Any:
    raise ValueError(f"this codec is for another use: {value!r}")


@pytest.mark.parametrize("in_transaction", [True, False])
async def test_a_connection_in_use_is_named(publisher: Publisher, stored: Stored, *, in_transaction: bool) -> None:
    """A publish beside a statement on the same connection is no outage, and stores nothing; after it, it is made."""
    async with stored.pool.acquire() as connection, connection.transaction() if in_transaction else nullcontext():
        async with stored.pool.acquire() as other, other.transaction():
            await other.execute("SELECT pg_advisory_xact_lock(1)")
            running = asyncio.create_task(connection.execute("SELECT pg_advisory_xact_lock(1)"))

            async def waits() -> bool:
                return bool(await stored.pool.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))

            await eventually(waits)
            with pytest.raises(Conflict, match="one call at a time") as caught:
                await publisher.publish(**EVENT, connection=connection)
        await running
        await publisher.publish(**EVENT, connection=connection)

    assert ("connection", 1) == (caught.value.field, await stored.count())


@pytest.mark.parametrize("kind", ["timestamptz", "uuid", "bytea", "bool", "int4", "int8", "json", "numeric"])
async def test_codecs_of_the_caller_change_nothing(publisher: Publisher, stored: Stored, kind: str) -> None:
    """A connection with a codec of its own publishes what it is given, byte for byte, and its results are the same."""
    async with stored.pool.acquire() as connection:
        await connection.set_type_codec(kind, encoder=_never, decoder=_never, schema="pg_catalog")
        async with connection.transaction():
            one = await publisher.publish(**EVENT, event_id="evt-1", connection=connection)
            raw = await publisher.publish(
                tenant_id="acme", event_type="a.raw", body=b"\x00\xff", event_id="evt-2", connection=connection
            )
            many = await publisher.publish_many(
                tenant_id="acme", events=[Event(event_type="a.b", event_id="evt-3", data=1)], connection=connection
            )
        await connection.reset_type_codec(kind, schema="pg_catalog")
    assert [False, False, False] == [one.duplicate, raw.duplicate, many.events[0].duplicate]
    assert [1, 1, 1] == [len(each.deliveries) for each in (one, raw, many.events[0])]
    assert b"\x00\xff" == await stored.pool.fetchval("SELECT body FROM hookseal.events WHERE id = 'evt-2'")
