"""An event with channels goes to the endpoints that share one or have none, however it is published."""

import hashlib
from collections.abc import Awaitable, Callable, Sequence

import asyncpg
import pytest

from hookseal.dispatcher.store.publish import NewEvent, PublishResult, batch, publish_json, publish_many, publish_raw
from hookseal.errors import Conflict
from hookseal.ground.ids import EventId, TenantId
from hookseal.postgres.pool import Pool
from tests import rows
from tests.doubles.logins import login

pytestmark = pytest.mark.req("DEL-01")

ACME = TenantId("acme")
Publish = Callable[[Pool, NewEvent], Awaitable[PublishResult]]


async def one_of_json(pool: Pool, event: NewEvent) -> PublishResult:
    return await publish_json(pool, event, '{"n": 1}')


async def one_of_bytes(pool: Pool, event: NewEvent) -> PublishResult:
    return await publish_raw(pool, event, b"{}")


async def among_many(pool: Pool, event: NewEvent) -> PublishResult:
    """Publish it in a batch, between events of the same type in other channels and in none."""
    beside = [NewEvent(tenant_id=ACME, event_type="a.b", channels=channels) for channels in (("a", "b", "c"), ())]
    events: list[tuple[NewEvent, str | bytes]] = [(beside[0], "1"), (event, '{"n": 1}'), (beside[1], b"2")]
    return (await publish_many(pool, ACME, batch(events)))[1]


def event(*channels: str, event_id: str | None = None) -> NewEvent:
    given = None if event_id is None else EventId(event_id)
    return NewEvent(tenant_id=ACME, event_type="a.b", event_id=given, channels=channels)


@pytest.mark.parametrize("publish", [one_of_json, one_of_bytes, among_many])
async def test_an_event_goes_to_those_who_share_a_channel(pool: Pool, publish: Publish) -> None:
    """And to those that have none. An endpoint with channels gets no event without."""
    endpoints = {
        await rows.endpoint(pool, channels=list(channels)): channels
        for channels in ((), ("a",), ("b",), ("a", "b"), ("A",), ("a.b",))
    }
    for channels, expected in (
        ((), [()]),
        (("a",), [(), ("a",), ("a", "b")]),
        (("b",), [(), ("a", "b"), ("b",)]),
        (("c", "a", "b"), [(), ("a",), ("a", "b"), ("b",)]),
        (("c",), [()]),
        (("A",), [(), ("A",)]),
    ):
        published = await publish(pool, event(*channels))
        assert expected == sorted(endpoints[ring.endpoint_id] for ring in published.deliveries), channels
        stored = await pool.fetchval("SELECT channels FROM hookseal.events WHERE id = $1", published.event_id)
        assert (sorted(channels) or None) == stored


async def test_other_event_types_stay_out(pool: Pool) -> None:
    """A channel selects among the subscribers: it subscribes nobody."""
    await rows.endpoint(pool, channels=["a"], event_types=["other"])
    assert () == (await one_of_json(pool, event("a"))).deliveries


@pytest.mark.parametrize("publish", [one_of_json, one_of_bytes, among_many])
async def test_a_repeat_has_the_same_channels(pool: Pool, publish: Publish) -> None:
    """In any order: then it returns the first result, although the endpoint has another channel by now."""
    await rows.endpoint(pool, channels=["a"])
    first = await publish(pool, event("a", "b", event_id="e1"))
    await rows.change(pool, "endpoints", channels=["z"])
    again = await publish(pool, event("b", "a", "b", event_id="e1"))
    assert (True, first.deliveries) == (again.duplicate, again.deliveries)
    for other in (("a",), (), ("a", "b", "c")):
        with pytest.raises(Conflict, match="other channels") as caught:
            await publish(pool, event(*other, event_id="e1"))
        assert "event_id" == caught.value.field


async def test_an_event_without_channels_is_a_repeat_of_one_of_before(pool: Pool) -> None:
    """Its fingerprint is that of revision 0001: an event that was published before the upgrade may be repeated."""
    published = await one_of_json(pool, event())
    found = await pool.fetchval("SELECT fingerprint FROM hookseal.events WHERE id = $1", published.event_id)
    assert hashlib.sha256(b'data:a.b:{"n": 1}').digest() == found


MALFORMED: list[Sequence[object]] = [
    [""],
    ["a b"],
    ["a,b"],
    ["a\n"],
    ["x" * 129],
    [None],
    [str(n) for n in range(11)],
]


async def test_the_database_refuses_other_channels(pool: Pool) -> None:
    """An event, one of a batch, and an endpoint; each has at most ten names of the grammar."""
    one = "SELECT FROM hookseal.publish_event('acme', 'a.b', '1'::json, channels => $1::text[])"
    many = (
        "SELECT FROM hookseal.publish_many('acme', ARRAY["
        '\'{"event_type": "a.b", "data": 1}\'::json,'
        " json_build_object('event_type', 'a.b', 'data', 1, 'channels', $1::text[])])"
    )
    endpoint = await rows.endpoint(pool)
    for names in MALFORMED:
        for statement, index in ((one, ""), (many, "events[2]: ")):
            with pytest.raises(asyncpg.PostgresError) as caught:
                await pool.execute(statement, names)
            assert ("HS422", "channels") == (caught.value.sqlstate, caught.value.column_name), names
            assert str(caught.value).startswith(f"{index}channels must be ")
        with pytest.raises(asyncpg.CheckViolationError):
            await rows.change(pool, "endpoints", endpoint, channels=names)
    for text in ("5", '"a"', "{}", "[1]", '[["a"]]', "[null]", "[{}]"):
        given = f'{{"event_type": "a.b", "data": 1, "channels": {text}}}'
        with pytest.raises(asyncpg.PostgresError) as caught:
            await pool.execute("SELECT FROM hookseal.publish_many('acme', ARRAY[$1::text::json])", given)
        assert "HS422" == caught.value.sqlstate, text

    await rows.change(pool, "endpoints", endpoint, channels=[str(n) * 128 for n in range(10)])
    for text in ("null", "[]"):
        given = f'{{"event_type": "a.b", "data": 1, "channels": {text}}}'
        await pool.execute("SELECT FROM hookseal.publish_many('acme', ARRAY[$1::text::json])", given)
    assert 2 == await pool.fetchval("SELECT count(*) FROM hookseal.events WHERE channels IS NULL")


async def test_older_producers_call_the_same_functions(pool: Pool) -> None:
    """Every way in which revision 0001 could be called still finds the function, also with null and unknown types."""
    await rows.endpoint(pool, channels=["a"])
    open_to_all = await rows.endpoint(pool)
    for call in (
        "publish('acme', 'a.b', '1')",
        "publish('acme', 'a.b', '1', 'e1')",
        "publish('acme', 'a.b', '1', NULL, 'c', NULL)",
        "publish('acme', 'a.b', '1', 'e2', 'c', NULL, true)",
        "publish('acme', 'a.b', '1'::json, rings => true)",
        "publish(tenant => 'acme', event_type => 'a.b', data => '1', correlation_id => 'c')",
        "publish_raw('acme', 'a.b', '\\x31')",
        "publish_raw('acme', 'a.b', '\\x31', 'e3', NULL, NULL, false)",
        'publish_many(\'acme\', ARRAY[\'{"event_type": "a.b", "data": 1}\']::json[])',
    ):
        [found] = await pool.fetch(f"SELECT endpoint_id::text FROM hookseal.{call}")  # noqa: S608 -- ours
        assert open_to_all == found["endpoint_id"], call
    for arguments in ((None, None, None), ("e4", "c", None)):
        statement = "SELECT endpoint_id::text FROM hookseal.publish('acme', 'a.b', '1'::json, $1, $2, $3, false)"
        assert [open_to_all] == [row["endpoint_id"] for row in await pool.fetch(statement, *arguments)]


async def test_a_producer_publishes_in_channels_for_its_tenant_only(pool: Pool, database_url: str) -> None:
    async with login(pool, database_url, "hookseal_producer") as (role, url):
        connection = await asyncpg.connect(url)
        calls = [
            f"SELECT * FROM hookseal.{call}"  # noqa: S608 -- ours
            for call in (
                "publish_event('acme', 'a.b', '1', NULL, ARRAY['a'])",
                "publish_event('acme', 'a.b', NULL, '1', ARRAY['a'])",
            )
        ]
        try:
            for call in calls:
                with pytest.raises(asyncpg.InsufficientPrivilegeError, match="may not publish"):
                    await connection.fetch(call)
            await rows.grant(pool, role)
            assert [False] * 2 == [(await connection.fetchrow(call))["duplicate"] for call in calls]  # type: ignore[index]
        finally:
            await connection.close()
