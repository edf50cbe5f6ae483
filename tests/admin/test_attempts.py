"""Attempts from Python: of an endpoint or of an event, by every filter, in both orders and directions."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hookseal import Admin
from hookseal.dispatcher.core.model import Ring
from hookseal.dispatcher.store import attempt_queries
from hookseal.dispatcher.store.attempt_queries import AttemptFilter
from hookseal.dispatcher.store.history import PostgresHistory
from hookseal.errors import Malformed, NotFound
from hookseal.ground.ids import DeliveryId, EndpointId, Place, TenantId
from tests import rows
from tests.admin.refusals import refused_field
from tests.doubles.stored import Installation

pytestmark = [pytest.mark.req("DEL-18"), pytest.mark.req("DEL-20")]

ACME = TenantId("acme")
AT = datetime(2026, 3, 1, tzinfo=UTC)
JANE = "jane@product.example"
ENDED = (
    "UPDATE hookseal.deliveries SET state = 'dead_letter', attempts = $2, next_attempt_at = NULL WHERE id = $1::uuid"
)


async def attempted(installation: Installation, ring: Ring, number: int, minute: int, **columns: Any) -> str:
    """Store an attempt that began at this minute; return its id."""
    await rows.attempt(
        installation.pool,
        ring.delivery_id,
        number,
        tenant=ring.tenant_id,
        started_at=AT + timedelta(minutes=minute),
        **columns,
    )
    return f"{ring.delivery_id}.{number}"


async def test_each_filter_selects_attempts(admin: Admin, installation: Installation) -> None:
    """An attempt is found by its endpoint and by its event; an attempt is shown with its delivery and its event."""
    one, other = [
        (await installation.endpoint(url=f"https://{name}.example/")).pointer.endpoint_id for name in ("one", "other")
    ]
    event = await installation.published()
    rings = {ring.endpoint_id: ring for ring in event.deliveries}
    later = {ring.endpoint_id: ring for ring in await installation.deliveries(event_type="user.created")}
    failed = await attempted(installation, rings[one], 1, 0, status=503, outcome="server_error")
    unanswered = await attempted(installation, rings[one], 2, 1, status=None, outcome="timeout")
    elsewhere = await attempted(installation, rings[other], 1, 2)
    delivered = await attempted(installation, rings[one], 3, 3)
    created = await attempted(installation, later[one], 1, 4)
    of_one: dict[str, Any] = {"endpoint_id": one}
    of_event: dict[str, Any] = {"event_id": event.event_id}
    for given, expected in (
        (of_one, [created, delivered, unanswered, failed]),
        (of_event, [delivered, elsewhere, unanswered, failed]),
        (of_event | of_one, [delivered, unanswered, failed]),
        (of_one | {"oldest_first": True}, [failed, unanswered, delivered, created]),
        (of_event | {"oldest_first": True}, [failed, unanswered, elsewhere, delivered]),
        (of_one | {"event_types": ["user.created", "no.such"]}, [created]),
        (of_event | {"event_types": ["user.created"]}, []),
        (of_one | {"outcome": "delivered"}, [created, delivered]),
        (of_one | {"outcome": "failed"}, [unanswered, failed]),
        (of_event | {"outcome": "failed"}, [unanswered, failed]),
        (of_one | {"status_class": 5}, [failed]),
        (of_one | {"status_class": 0}, [unanswered]),
        (of_event | {"status_class": 2}, [delivered, elsewhere]),
        (of_one | {"since": AT + timedelta(minutes=1), "until": AT + timedelta(minutes=3)}, [unanswered]),
        (of_event | {"since": AT + timedelta(minutes=1), "until": AT + timedelta(minutes=3)}, [elsewhere, unanswered]),
    ):
        page = await admin.attempts.list(tenant_id="acme", **given)
        assert expected == [each.attempt_id for each in page.items], given
        assert page.next_cursor is None

    shown = await admin.attempts.get(tenant_id="acme", attempt_id=elsewhere)
    assert shown in (await admin.attempts.list(tenant_id="acme", **of_event)).items
    assert (other, event.event_id, "invoice.paid") == (shown.endpoint_id, shown.event_id, shown.event_type)
    assert (rings[other].delivery_id, 1, 204) == (shown.delivery_id, shown.number, shown.status)


@pytest.mark.parametrize("of", ["endpoint_id", "event_id"])
async def test_every_page_is_reached_in_both_orders_and_directions(
    admin: Admin, installation: Installation, of: str
) -> None:
    """The pages have each attempt once, also those of one moment: by cursor, by the last id and by the first one."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    [ring] = (event := await installation.published()).deliveries
    named = {"tenant_id": "acme", of: endpoint if of == "endpoint_id" else event.event_id}
    oldest = [await attempted(installation, ring, number, number // 4) for number in range(1, 8)]
    for oldest_first in (False, True):
        expected = oldest if oldest_first else oldest[::-1]
        given: dict[str, Any] = named | {"oldest_first": oldest_first, "limit": 3}
        by_cursor, by_id = list[str](), list[str]()
        cursor, page = None, await admin.attempts.list(**given)
        while page.items:
            by_id += [each.attempt_id for each in page.items]
            page = await admin.attempts.list(**given, after=by_id[-1])
        while not by_cursor or cursor is not None:
            page = await admin.attempts.list(**given, cursor=cursor)
            by_cursor += [each.attempt_id for each in page.items]
            cursor = page.next_cursor
        assert (expected, expected) == (by_id, by_cursor)

        backwards = list[str]()
        page = await admin.attempts.list(**given, before=expected[-1])
        while page.items:
            backwards = [each.attempt_id for each in page.items] + backwards
            page = await admin.attempts.list(**given, before=backwards[0])
        assert expected[:-1] == backwards
        page = await admin.attempts.list(**given, before=expected[-1])
        following = await admin.attempts.list(**given, cursor=page.next_cursor)
        assert [expected[-1]] == [each.attempt_id for each in following.items]


async def test_an_attempt_of_another_list_is_no_place(admin: Admin, installation: Installation) -> None:
    """An id, or a cursor, of another endpoint, event or tenant is refused, as is one of a deleted delivery."""
    one, other = [
        (await installation.endpoint(url=f"https://{name}.example/")).pointer.endpoint_id for name in ("one", "other")
    ]
    event = await installation.published()
    rings = {ring.endpoint_id: ring for ring in event.deliveries}
    attempts = [await attempted(installation, rings[one], number, number) for number in (1, 2)]
    theirs = (await installation.endpoint("globex")).pointer.endpoint_id
    cursor = (await admin.attempts.list(tenant_id="acme", endpoint_id=one, limit=1)).next_cursor
    second = await installation.published()
    others: list[dict[str, Any]] = [
        {"tenant_id": "acme", "endpoint_id": other},
        {"tenant_id": "acme", "event_id": second.event_id},
        {"tenant_id": "globex", "endpoint_id": theirs},
    ]
    for given in others:
        assert "after" == await refused_field(admin.attempts.list(**given, after=attempts[0]))
        assert "before" == await refused_field(admin.attempts.list(**given, before=attempts[0]))
        assert "cursor" == await refused_field(admin.attempts.list(**given, cursor=cursor))
    await rows.remove(installation.pool, "deliveries", rings[one].delivery_id)
    assert "after" == await refused_field(admin.attempts.list(tenant_id="acme", endpoint_id=one, after=attempts[0]))


@pytest.mark.req("SEC-08")
async def test_another_tenants_attempts_are_not_found(admin: Admin, installation: Installation) -> None:
    """The error says nothing about them. An endpoint or an event without attempts has an empty list."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    [ring] = (event := await installation.published()).deliveries
    for named in ({"endpoint_id": endpoint}, {"event_id": event.event_id}):
        assert () == (await admin.attempts.list(tenant_id="acme", **named)).items
    attempt = await attempted(installation, ring, 1, 0)
    assert attempt == (await admin.attempts.get(tenant_id="acme", attempt_id=attempt)).attempt_id
    for call in (
        admin.attempts.list(tenant_id="globex", endpoint_id=endpoint),
        admin.attempts.list(tenant_id="globex", event_id=event.event_id),
        admin.attempts.get(tenant_id="globex", attempt_id=attempt),
        admin.attempts.get(tenant_id="acme", attempt_id=f"{ring.delivery_id}.2"),
    ):
        with pytest.raises(NotFound) as caught:
            await call
        assert "acme" not in str(caught.value)


@pytest.mark.parametrize("oldest_first", [False, True])
async def test_a_page_of_an_endpoint_reads_a_limited_number_of_attempts(
    installation: Installation, oldest_first: bool
) -> None:
    """It ends after the number that it may read, and its cursor continues behind them."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    [ring] = await installation.deliveries()
    made = [
        await attempted(installation, ring, number, number, status=200 + 100 * (number == 4)) for number in range(1, 8)
    ]
    wanted = AttemptFilter(tenant_id=ACME, endpoint_id=EndpointId(endpoint), status_class=3)
    found, cursor, pages = list[str](), None, 0
    while pages == 0 or cursor is not None:
        place = Place(cursor=cursor, oldest_first=oldest_first)
        items, cursor = await attempt_queries.page(installation.pool, wanted, place, limit=10, walked=2)
        found += [item["attempt_id"] for item in items]
        pages += 1

    assert ([made[3]], 4) == (found, pages)


async def test_an_event_with_too_many_attempts_needs_an_endpoint(installation: Installation) -> None:
    """It is refused before they are sorted; those to one endpoint are listed."""
    one, _ = [
        (await installation.endpoint(url=f"https://{name}.example/")).pointer.endpoint_id for name in ("one", "other")
    ]
    event = await installation.published()
    for ring in event.deliveries:
        await attempted(installation, ring, 1, 0)
    wanted: dict[str, Any] = {"tenant_id": ACME, "event_id": event.event_id}
    with pytest.raises(Malformed, match="2 attempts or more") as caught:
        await attempt_queries.page(installation.pool, AttemptFilter(**wanted), Place(), limit=10, walked=2)
    assert "endpoint_id" == caught.value.field
    items, cursor = await attempt_queries.page(
        installation.pool, AttemptFilter(**wanted, endpoint_id=one), Place(), limit=10, walked=2
    )
    assert ([one], None) == ([item["endpoint_id"] for item in items], cursor)


async def test_what_an_operator_caused_is_manual(admin: Admin, installation: Installation) -> None:
    """A replay causes the next attempt, also under a new id; what the schedule repeats after it is not manual.

    The last hundred of a delivery are known.
    """
    await installation.endpoint()
    [ring] = await installation.deliveries()
    named: dict[str, Any] = {"tenant_id": "acme", "delivery_id": ring.delivery_id, "actor": JANE}
    await installation.pool.execute(ENDED, ring.delivery_id, 1)
    await admin.deliveries.replay(**named)
    await installation.pool.execute(ENDED, ring.delivery_id, 3)
    copy = (await admin.deliveries.replay(**named, new_id=True)).delivery_id
    await admin.deliveries.replay(**named)
    await rows.change(
        installation.pool, "deliveries", ring.delivery_id, next_attempt_at=rows.ahead(hours=1), attempts=5
    )
    await admin.deliveries.replay(**named)
    for number in range(1, 7):
        await attempted(installation, ring, number, number)
    of_copy = Ring(tenant_id=ACME, endpoint_id=ring.endpoint_id, delivery_id=DeliveryId(copy))
    await attempted(installation, of_copy, 1, 9)

    listed = (await admin.attempts.list(tenant_id="acme", endpoint_id=ring.endpoint_id, oldest_first=True)).items
    assert [False, True, False, True, False, True, True] == [each.manual for each in listed]
    log = (await admin.deliveries.get(tenant_id="acme", delivery_id=ring.delivery_id)).attempt_log
    assert [each.manual for each in listed[:-1]] == [each.manual for each in log]
    await installation.pool.execute(ENDED, ring.delivery_id, 200)
    every = rows.Sql("ARRAY(SELECT generate_series(1, 100))")
    await rows.change(installation.pool, "deliveries", ring.delivery_id, manual_attempts=every)
    await admin.deliveries.replay(**named)
    assert [*range(2, 101), 201] == (await installation.delivery(ring))["manual_attempts"]


async def test_an_attempt_of_before_the_upgrade_gets_its_endpoint(admin: Admin, installation: Installation) -> None:
    """It has none until the leader fills it in; by its event and by its id it is found before that."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    [ring] = (event := await installation.published()).deliveries
    attempt = await attempted(installation, ring, 1, 0, endpoint_id=None)
    assert () == (await admin.attempts.list(tenant_id="acme", endpoint_id=endpoint)).items
    [shown] = (await admin.attempts.list(tenant_id="acme", event_id=event.event_id)).items
    assert (attempt, endpoint) == (shown.attempt_id, shown.endpoint_id)

    history = PostgresHistory(installation.pool)
    assert not await history.fill_attempts()
    assert (shown,) == (await admin.attempts.list(tenant_id="acme", endpoint_id=endpoint)).items
    await installation.pool.execute(
        "INSERT INTO hookseal.attempts (tenant_id, delivery_id, number, started_at, outcome, signed_by, worker)"
        " SELECT tenant_id, delivery_id, n, now(), 'timeout', '{}', 'w'"
        " FROM hookseal.attempts, generate_series(2, 601) AS n"
    )
    assert [True, False] == [await history.fill_attempts() for _ in range(2)]
    assert 601 == await installation.pool.fetchval(
        "SELECT count(*) FROM hookseal.attempts WHERE endpoint_id IS NOT NULL"
    )
