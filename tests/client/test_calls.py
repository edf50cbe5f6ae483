"""Closing a Publisher while it publishes."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from hookseal import Event, Publisher
from hookseal.client.publisher import Calls
from hookseal.errors import Refused
from tests.client.stored import Stored, ids
from tests.worker.waiting import eventually

EVENT: dict[str, Any] = {"tenant_id": "acme", "event_type": "invoice.paid", "data": {"id": 1}}
_BLOCKED = """
SELECT count(*) = 5 FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'hookseal-publisher' AND wait_event_type = 'Lock'
"""


async def test_closing_waits_for_what_is_under_way(database_url: str, redis_url: str, stored: Stored) -> None:
    """What is under way when the block is left is stored and rung, with a connection or not yet; more is refused."""
    stack = AsyncExitStack()
    publisher = await stack.enter_async_context(Publisher.connect(database_url, redis_url))
    async with stored.pool.acquire() as connection, connection.transaction():
        await connection.execute("LOCK TABLE hookseal.events IN SHARE MODE")
        ones = [asyncio.create_task(publisher.publish(**EVENT)) for _ in range(20)]
        events = [Event(event_type="a.b", data=1)]
        many = asyncio.create_task(publisher.publish_many(tenant_id="acme", events=events))
        await eventually(lambda: stored.pool.fetchval(_BLOCKED))
        closing = asyncio.create_task(stack.aclose())
        late = asyncio.create_task(publisher.publish(**EVENT))  # it begins after the close, as tasks begin in order
        with pytest.raises(Refused, match="closed"):
            await late
    published = [*await asyncio.gather(*ones), *(await many).events]
    await closing

    assert 21 == await stored.count()
    assert {each for one in published for each in ids(one.deliveries)} == await stored.rung()


async def test_closing_waits_only_for_a_while() -> None:
    """A call that does not end does not prevent the end of the block."""
    calls = Calls()
    with calls.counted():
        await asyncio.wait_for(calls.close(seconds=0.01), 60)
    with pytest.raises(Refused), calls.counted():
        pass
