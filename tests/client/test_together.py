"""Calls of a Publisher that wait at the same time: they share statements, and each has its own result or error."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from hookseal import Published, Publisher
from hookseal.client import together
from hookseal.errors import Conflict, Refused, Unavailable
from tests import rows
from tests.client.stored import Stored, ids
from tests.worker.waiting import eventually

EVENT: dict[str, Any] = {"tenant_id": "acme", "event_type": "invoice.paid", "data": {"id": 1}}
_SENT = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'hookseal-publisher' AND wait_event_type = 'Lock'
"""
_STATEMENTS = "SELECT count(DISTINCT xmin::text) FROM hookseal.events WHERE id LIKE $1"


async def publish(publisher: Publisher, *names: str, **changes: Any) -> list[Published | BaseException]:
    """Publish events with these ids at the same time."""
    calls = (publisher.publish(**(EVENT | changes), event_id=name) for name in names)
    return await asyncio.gather(*calls, return_exceptions=True)


def numbered(letter: str, number: int) -> list[str]:
    return [f"{letter}{each}" for each in range(number)]


async def sent(stored: Stored, number: int) -> None:
    """Wait until so many statements of the Publisher wait for a lock."""

    async def are_sent() -> bool:
        return bool(number == await stored.pool.fetchval(_SENT))

    await eventually(are_sent)


@asynccontextmanager
async def locked(stored: Stored) -> AsyncIterator[None]:
    """Let no event be stored within the block."""
    async with stored.pool.acquire() as connection, connection.transaction():
        await connection.execute("LOCK TABLE hookseal.events IN SHARE MODE")
        yield


@pytest.mark.req("DEL-01")
async def test_calls_that_wait_share_a_statement(publisher: Publisher, stored: Stored) -> None:
    """As long as it is not known how many deliveries a type makes, ten share one; then up to a hundred.

    Each has its own event and deliveries, all of which are rung.
    """
    first = await publish(publisher, *numbered("a", 50))
    then = await publish(publisher, *numbered("b", 150))
    alone = await publish(publisher, "c")

    published = [each for each in (*first, *then, *alone) if isinstance(each, Published)]
    assert [*numbered("a", 50), *numbered("b", 150), "c"] == [each.event_id for each in published]
    assert {(False, True, 1)} == {(each.duplicate, each.is_committed, len(each.deliveries)) for each in published}
    rung = {each for one in published for each in ids(one.deliveries)}
    assert (201, rung) == (len(rung), await stored.rung())
    assert [5, 2, 1] == [await stored.pool.fetchval(_STATEMENTS, name) for name in ("a%", "b%", "c%")]


async def test_a_statement_makes_a_bounded_number_of_deliveries(
    publisher: Publisher, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(4):
        await stored.endpoint()
    await publish(publisher, "first")
    monkeypatch.setattr(together, "MOST_DELIVERIES", 10)
    await publish(publisher, *numbered("a", 8))

    assert 4 == await stored.pool.fetchval(_STATEMENTS, "a%")


async def test_a_statement_has_a_bounded_number_of_bytes(publisher: Publisher, stored: Stored) -> None:
    await publish(publisher, "first")
    await publish(publisher, *numbered("a", 9), data="x" * 250_000)

    assert (3, 9) == (await stored.pool.fetchval(_STATEMENTS, "a%"), await stored.count() - 1)


@pytest.mark.req("DEL-01")
async def test_a_call_that_is_refused_fails_alone(publisher: Publisher, stored: Stored) -> None:
    await publisher.publish(**EVENT, event_id="used")
    given = [EVENT | {"event_id": name} for name in (*numbered("a", 4), "used", *numbered("b", 4))]
    given[4] |= {"data": {"id": 2}}
    *published, error = await asyncio.gather(
        *(publisher.publish(**each) for each in (*given[:4], *given[5:], given[4])), return_exceptions=True
    )

    assert [*numbered("a", 4), *numbered("b", 4)] == [
        each.event_id for each in published if isinstance(each, Published)
    ]
    assert isinstance(error, Conflict)
    assert ("event id is already used with another type, other channels or other data", None) == (
        str(error),
        error.index,
    )
    assert [4, 4] == [await stored.pool.fetchval(_STATEMENTS, name) for name in ("a%", "b%")]


@pytest.mark.req("DEL-01")
async def test_a_repeat_is_one_whether_alone_or_with_others(publisher: Publisher, stored: Stored) -> None:
    """What is stored of an event does not depend on the calls beside it."""
    contents: list[dict[str, Any]] = [{"data": {"a": '\\ "\x00" \u00eb', "b": [1.10, None]}}, {"body": b"\xff\x00"}]
    for number, given in enumerate(contents):
        first: dict[str, Any] = {"tenant_id": "acme", "event_type": "a.b", "event_id": f"e{number}", **given}
        other = first | {"event_id": f"f{number}"}
        alone = await publisher.publish(**first)
        repeat, beside = await asyncio.gather(publisher.publish(**first), publisher.publish(**other))
        assert (True, alone.deliveries) == (repeat.duplicate, repeat.deliveries)
        assert (False, True) == (beside.duplicate, (await publisher.publish(**other)).duplicate)


@pytest.mark.req("DEL-01")
async def test_each_call_is_for_its_own_tenant(database_url: str, stored: Stored) -> None:
    """Calls for a tenant of which the role has no right are refused; those beside them are not."""
    await stored.endpoint("globex")
    role = "hookseal_test_" + (await stored.pool.fetchval("SELECT current_database()"))[-24:]
    await stored.pool.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'p'; GRANT hookseal_producer TO {role}")
    try:
        await rows.grant(stored.pool, role)
        async with Publisher.connect(f"postgresql://{role}:p@{database_url.partition('@')[2]}", "") as publisher:
            ours, others = await asyncio.gather(
                publish(publisher, *numbered("a", 5)), publish(publisher, *numbered("a", 5), tenant_id="globex")
            )
    finally:
        await stored.pool.execute(f"REVOKE hookseal_producer FROM {role}; DROP ROLE {role}")

    assert [True] * 5 == [isinstance(each, Published) for each in ours]
    assert [True] * 5 == [isinstance(each, Refused) and "--tenant globex" in str(each) for each in others]
    assert ["acme"] == [row[0] for row in await stored.pool.fetch("SELECT DISTINCT tenant_id FROM hookseal.deliveries")]


@pytest.mark.req("DEL-01")
async def test_a_call_that_waits_for_a_lock_delays_no_other(publisher: Publisher, stored: Stored) -> None:
    """Those that share its statement are published within a moment, and the transaction that has the lock goes on."""
    async with stored.pool.acquire() as connection:
        async with connection.transaction():
            await publisher.publish(**EVENT, event_id="a9", connection=connection)
            calls = [asyncio.create_task(publisher.publish(**EVENT, event_id=name)) for name in numbered("a", 10)]
            others = await asyncio.gather(*calls[:9])
            assert not calls[9].done()
            repeat = await publisher.publish(**EVENT, event_id="a0", connection=connection)
        waited = await calls[9]

    assert {False} == {each.duplicate for each in others}
    assert (True, True) == (repeat.duplicate, waited.duplicate)


@pytest.mark.req("DEL-01")
async def test_a_cancelled_call_cancels_no_other(publisher: Publisher, stored: Stored) -> None:
    async with locked(stored):
        calls = [asyncio.create_task(publisher.publish(**EVENT, event_id=name)) for name in numbered("a", 10)]
        await sent(stored, 1)
        calls[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await calls[0]
    published = await asyncio.gather(*calls[1:])

    assert numbered("a", 10)[1:] == [each.event_id for each in published]


async def test_a_statement_ends_with_its_last_call(publisher: Publisher, stored: Stored) -> None:
    """If all its callers are cancelled, PostgreSQL stops, and the connection is free for others."""
    async with locked(stored):
        call = asyncio.create_task(publisher.publish(**EVENT, event_id="a0"))
        await sent(stored, 1)
        call.cancel()
        await sent(stored, 0)
    await publisher.publish(**EVENT, event_id="a1")

    assert 1 == await stored.count()


async def test_a_call_that_is_cancelled_while_it_waits_is_not_sent(publisher: Publisher, stored: Stored) -> None:
    async with locked(stored):
        under_way = []
        for number in range(5):
            under_way.append(asyncio.create_task(publisher.publish(**EVENT, event_id=f"a{number}")))
            await sent(stored, number + 1)
        late = asyncio.create_task(publisher.publish(**EVENT, event_id="late"))
        await asyncio.sleep(0)  # it begins to wait
        late.cancel()
    await asyncio.gather(*under_way)
    await publisher.publish(**EVENT, event_id="after")

    assert 0 == await stored.pool.fetchval(_STATEMENTS, "late")


async def test_an_error_of_what_measures_leaves_the_connections_free(publisher: Publisher, stored: Stored) -> None:
    """A Publisher has five, and each statement is published."""

    def fails(_seconds: float, _events: int) -> None:
        raise ArithmeticError

    publisher.measure(fails)
    for name in numbered("a", 6):
        with pytest.raises(ArithmeticError):
            await publisher.publish(**EVENT, event_id=name)

    assert 6 == await stored.count()


async def test_a_call_does_not_wait_for_its_turn_for_ever(
    publisher: Publisher, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "ANSWER_SECONDS", -1.0)
    with pytest.raises(Unavailable, match=r"PostgreSQL does not answer \(TimeoutError\)"):
        await publisher.publish(**EVENT)

    assert 0 == await stored.count()
