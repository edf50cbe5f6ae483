"""The laws of publishing through each library, with the real library on a real PostgreSQL."""

from collections.abc import Callable
from typing import Any, TypeAlias
from uuid import UUID

import pytest

from hookseal.errors import Conflict, Malformed, Refused
from hookseal.postgres.pool import Pool
from tests import rows
from tests.doubles.logins import login
from tests.producers.callers import CALLERS

pytestmark = [pytest.mark.req("DEL-19"), pytest.mark.parametrize("opened", CALLERS.values(), ids=CALLERS)]

Opened: TypeAlias = Callable[[str, bool], Any]
EVENT: dict[str, Any] = {
    "tenant_id": "acme",
    "event_type": "invoice.paid",
    "event_id": "e1",
    "data": {"é": [1.5, None]},
}


async def stored(pool: Pool) -> tuple[int, int]:
    """Return how many events are stored, and how many rows of the application."""
    found = await pool.fetchrow("SELECT (SELECT count(*) FROM hookseal.events), (SELECT count(*) FROM public.own)")
    assert found is not None
    return found[0], found[1]


@pytest.fixture
async def url(database_url: str, pool: Pool) -> str:
    """Return the url of a database with an endpoint of acme, and a table of the application."""
    await pool.execute("CREATE TABLE public.own (id integer GENERATED ALWAYS AS IDENTITY)")
    await rows.endpoint(pool)
    return database_url


async def test_an_event_joins_the_callers_transaction(opened: Opened, url: str, pool: Pool) -> None:
    """A rollback publishes nothing, a commit publishes once, and a repeat of the event id returns the first answer."""
    async with opened(url, False) as caller:
        await caller.publish(**EVENT)
        await caller.write()
        await caller.rollback()
        assert (0, 0) == await stored(pool)

        first = await caller.publish(**EVENT)
        await caller.write()
        assert (0, 0) == await stored(pool), "it was committed before the caller's commit"
        await caller.commit()
        assert (1, 1) == await stored(pool)

        again = await caller.publish(**EVENT)
        raw = await caller.publish(tenant_id="acme", event_type="file.made", body=b"\x00\xff", correlation_id="c")
        await caller.commit()

    assert ("e1", False, True) == (first.event_id, first.duplicate, again.duplicate)
    assert (True, True) == (first.matched, again.matched)
    assert ({False}, again.deliveries) == ({first.is_committed, again.is_committed, raw.is_committed}, first.deliveries)
    rows = await pool.fetch("SELECT id::text, endpoint_id::text FROM hookseal.deliveries ORDER BY id")
    made = [(each.delivery_id, each.endpoint_id) for published in (first, raw) for each in published.deliveries]
    assert [tuple(row) for row in rows] == made
    bodies = {row[0]: row[1] for row in await pool.fetch("SELECT id, body FROM hookseal.events")}
    assert bodies["e1"].endswith('"data":{"é":[1.5,null]}}'.encode())
    assert b"\x00\xff" == bodies[raw.event_id]


async def test_an_event_in_channels_goes_to_those_who_share_one(opened: Opened, url: str, pool: Pool) -> None:
    of_a = await rows.endpoint(pool, channels=["a"])
    async with opened(url, False) as caller:
        found = [
            await caller.publish(**event, tenant_id="acme", event_type="a.b", channels=channels)
            for event in ({"data": 1, "correlation_id": "c"}, {"body": b"1"})
            for channels in (["a", "b"], ("b",), [])
        ]
        with pytest.raises(Malformed) as caught:
            await caller.publish(tenant_id="acme", event_type="a.b", data=1, channels=["a,b"])
        await caller.commit()

    assert "channels" == caught.value.field
    assert [2, 1, 1] * 2 == [len(published.deliveries) for published in found]
    assert [True, False, False] * 2 == [
        of_a in {each.endpoint_id for each in published.deliveries} for published in found
    ]
    assert {"c", None} == {row[0] for row in await pool.fetch("SELECT correlation_id FROM hookseal.events")}


async def test_a_refusal_leaves_the_transaction_usable(opened: Opened, url: str, pool: Pool) -> None:
    """An error is one of our classes with its field, and undoes nothing but the publish."""
    async with opened(url, False) as caller:
        await caller.publish(**EVENT)
        await caller.write()
        with pytest.raises(Conflict) as other_data:
            await caller.publish(**EVENT | {"data": 2})
        with pytest.raises(Malformed) as other_type:
            await caller.publish(**EVENT | {"event_type": "no type"})
        with pytest.raises(Malformed) as no_tenant:
            await caller.publish(**EVENT | {"tenant_id": "_system"})
        await caller.write()
        await caller.commit()

    fields = [caught.value.field for caught in (other_data, other_type, no_tenant)]
    assert ["event_id", "event_type", "tenant_id"] == fields
    assert (1, 2) == await stored(pool)


@pytest.mark.req("OPS-03", part="trace-context")
async def test_an_event_has_the_trace_of_its_producer(opened: Opened, url: str, pool: Pool) -> None:
    """With channels and without; a tracestate that is none is left out."""
    traceparent = f"00-{'a' * 32}-{'b' * 16}-01"
    async with opened(url, False) as caller:
        for number, (state, channels) in enumerate((("a=1", []), ("b=2", ["c"]), ("no", []), (None, []))):
            event = EVENT | {"event_id": f"e{number}", "channels": channels}
            await caller.publish(**event, traceparent=traceparent, tracestate=state)
        await caller.commit()

    found = await pool.fetch("SELECT traceparent, tracestate, channels FROM hookseal.events ORDER BY id")
    assert [("a=1", None), ("b=2", ["c"]), (None, None), (None, None)] == [tuple(row)[1:] for row in found]
    assert {traceparent} == {row["traceparent"] for row in found}


async def test_a_wrong_name_is_refused_as_python_does(opened: Opened, url: str, pool: Pool) -> None:
    """A mistyped or missing name is a TypeError that names it: a mistyped event id would be stored without one."""
    mistyped = EVENT | {"event_Id": "e2"}
    unknown = EVENT | {"zone": "eu"}
    async with opened(url, False) as caller:
        with pytest.raises(
            TypeError, match=r"^publish\(\) got an unexpected keyword argument 'event_Id'\. Did you mean 'event_id'\?$"
        ):
            await caller.publish(**mistyped)
        with pytest.raises(TypeError, match=r"^publish\(\) got an unexpected keyword argument 'zone'$"):
            await caller.publish(**unknown)
        with pytest.raises(TypeError, match=r"^publish\(\) missing 1 required keyword-only argument: 'tenant_id'$"):
            await caller.publish(event_type="invoice.paid", data=1)
        with pytest.raises(
            TypeError, match=r"missing 2 required keyword-only arguments: 'tenant_id' and 'event_type'$"
        ):
            await caller.publish(data=1)
        await caller.write()
        await caller.commit()

    assert (0, 1) == await stored(pool)


async def test_a_value_of_another_type_is_named(opened: Opened, url: str, pool: Pool) -> None:
    """A value that is no text is malformed, with the field and its type, and the transaction stays usable."""
    wrong = {"tenant_id": 7, "event_type": None, "event_id": UUID(int=5), "correlation_id": 5, "traceparent": b"00"}
    async with opened(url, False) as caller:
        for field, value in wrong.items():
            with pytest.raises(Malformed, match=f"^{field} must be text, not {type(value).__name__}$") as caught:
                await caller.publish(**EVENT | {field: value})
            assert field == caught.value.field
        await caller.write()
        await caller.commit()

    assert (0, 1) == await stored(pool)


async def test_without_a_transaction_the_event_is_stored_at_once(opened: Opened, url: str, pool: Pool) -> None:
    async with opened(url, True) as caller:
        published = await caller.publish(**EVENT)
        assert (True, 1) == (published.is_committed, (await stored(pool))[0])
        with pytest.raises(Conflict):
            await caller.publish(**EVENT | {"data": 2})
        assert (await caller.publish(**EVENT)).duplicate


async def test_a_role_without_the_right_is_refused(opened: Opened, url: str, pool: Pool) -> None:
    async with login(pool, url) as (_, own_url), opened(own_url, False) as caller:
        with pytest.raises(Refused, match="hookseal producer grant --role"):
            await caller.publish(**EVENT)
        await caller.rollback()
