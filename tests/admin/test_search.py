"""Deliveries and events from Python: found by every filter, page by page, of one tenant only."""

import asyncio
from dataclasses import fields
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from hookseal import Admin
from hookseal.admin import (
    DeliveriesByState,
    Delivery,
    DeliveryDetails,
    Endpoint,
    EndpointDetails,
    EventDetails,
    RotationStatus,
    StoredEvent,
)
from hookseal.dispatcher.core.model import Ring, State
from hookseal.dispatcher.store import delivery_queries, endpoint_queries, event_queries
from hookseal.dispatcher.store.delivery_queries import Filter
from hookseal.dispatcher.store.publish import NewEvent as GivenEvent
from hookseal.dispatcher.store.publish import publish_json
from hookseal.errors import Conflict, Malformed, NotFound, Refused, Unavailable
from hookseal.ground.ids import EndpointId, EventId, Place, TenantId
from tests import rows
from tests.admin.refusals import refused_field
from tests.doubles.logbook import audited
from tests.doubles.stored import Installation

pytestmark = [pytest.mark.req("DEL-18"), pytest.mark.req("DEL-20")]

JANE = "jane@product.example"
NOW = datetime.now(UTC)
EAST, WEST = timezone(timedelta(hours=14)), timezone(timedelta(hours=-12))
ENDED = """
UPDATE hookseal.deliveries SET state = 'delivered', attempts = 1, next_attempt_at = NULL WHERE id = $1::text::uuid
"""
ATTEMPT = """
INSERT INTO hookseal.attempts (tenant_id, delivery_id, number, started_at, duration_ms, status, outcome, signed_by,
                               worker)
VALUES ('acme', $1::text::uuid, 1, now(), 12, 204, 'delivered', $2, 'w-1')
"""


async def finished(installation: Installation, ring: Ring, ref: str) -> None:
    """Record the delivery as delivered at its first attempt, signed by this secret."""
    await installation.pool.execute(ENDED, ring.delivery_id)
    await installation.pool.execute(ATTEMPT, ring.delivery_id, [ref])


async def test_each_filter_selects_deliveries(admin: Admin, installation: Installation) -> None:
    """Each filter selects what it names, and a delivery is shown with its attempts."""
    endpoint = (await installation.endpoint()).pointer
    await installation.endpoint("globex")
    (one,) = (first := await installation.published()).deliveries
    (two,) = await installation.deliveries(event_type="user.created")
    (other,) = await installation.deliveries("globex")
    await finished(installation, one, endpoint.secret_ref or "")
    both, hour = {one.delivery_id, two.delivery_id}, timedelta(hours=1)
    for given, expected in (
        ({}, both),
        ({"tenant_id": "*"}, both | {other.delivery_id}),
        ({"endpoint_id": endpoint.endpoint_id}, both),
        ({"event_type": "user.created"}, {two.delivery_id}),
        ({"event_id": first.event_id}, {one.delivery_id}),
        ({"correlation_id": "corr-1"}, both),
        ({"correlation_id": "corr-2"}, set()),
        ({"correlation_id": "corr-1", "states": ["delivered"]}, {one.delivery_id}),
        ({"states": ["delivered"]}, {one.delivery_id}),
        ({"states": ["delivered", "pending"]}, both),
        ({"since": NOW - hour, "until": NOW + hour}, both),
        ({"since": NOW + hour}, set()),
        ({"until": NOW - hour}, set()),
        ({"event_id": first.event_id, "until": NOW - hour}, set()),
        ({"signed_by": endpoint.secret_ref}, {one.delivery_id}),
        ({"signed_by": endpoint.secret_ref, "until": NOW - hour}, set()),
    ):
        page = await admin.deliveries.list(**({"tenant_id": "acme"} | given))
        assert expected == {each.delivery_id for each in page.items}, given
        assert page.next_cursor is None

    shown = await admin.deliveries.get(tenant_id="acme", delivery_id=one.delivery_id)
    [attempt] = shown.attempt_log
    assert ("corr-1", 204, (endpoint.secret_ref,)) == (shown.correlation_id, attempt.status, attempt.signed_by)


@pytest.mark.req("SEC-23")
@pytest.mark.req("SEC-08")
async def test_what_a_destroyed_version_signed_is_still_listed(admin: Admin, installation: Installation) -> None:
    """So is that of a deleted endpoint. An absent version and another tenant's are not found, with the same answer."""
    urls = [f"https://{name}.example/" for name in ("kept", "gone", "unused")]
    kept, gone, unused = [(await installation.endpoint(url=url)).pointer for url in urls]
    made = {ring.endpoint_id: ring for ring in await installation.deliveries()}
    for pointer in (kept, gone):
        await finished(installation, made[pointer.endpoint_id], str(pointer.secret_ref))
    await installation.rotate(kept.endpoint_id, overlap_seconds=0)
    for pointer in (gone, unused):
        await admin.endpoints.delete(tenant_id="acme", endpoint_id=pointer.endpoint_id, actor=JANE)
    await rows.change(installation.pool, "secret_records", where="state = 'retired'", state="destroyed", sealed=None)
    for pointer, attempts in ((kept, 1), (gone, 1), (unused, 0)):
        page = await admin.deliveries.list(tenant_id="acme", signed_by=pointer.secret_ref)
        assert [made[pointer.endpoint_id].delivery_id] * attempts == [each.delivery_id for each in page.items]
        first, *_ = await admin.secrets.versions(tenant_id="acme", endpoint_id=pointer.endpoint_id)
        assert ("destroyed", False, attempts, False) == (first.state, first.signs, first.attempts, first.needed)
        assert "its material was destroyed; what it signed stays on record" == first.reason

    provider, _, name, _ = str(kept.secret_ref).split(":")
    answers = set()
    for tenant, ref in (
        ("acme", f"{provider}:acme:{name}:9"),
        ("acme", f"aws:acme:{name}:1"),
        ("globex", f"{provider}:globex:{name}:1"),
    ):
        with pytest.raises(NotFound) as caught:
            await admin.deliveries.list(tenant_id=tenant, signed_by=ref)
        answers.add((caught.value.field, str(caught.value)))
    assert ["signed_by"] == [field for field, _ in answers]


async def test_an_absent_endpoint_has_no_list(admin: Admin, installation: Installation) -> None:
    """An endpoint that does not exist is not found; one without deliveries has an empty list, a deleted one has its."""
    with pytest.raises(NotFound) as caught:
        await admin.deliveries.list(tenant_id="*", endpoint_id="0197c1f0-5e6a-7c3b-9d2e-4f5061728394")
    assert "endpoint_id" == caught.value.field
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    assert () == (await admin.deliveries.list(tenant_id="*", endpoint_id=endpoint)).items
    (ring,) = await installation.deliveries()
    await installation.pool.execute("DELETE FROM hookseal.endpoints")
    [left] = (await admin.deliveries.list(tenant_id="*", endpoint_id=endpoint)).items
    assert ring.delivery_id == left.delivery_id
    assert () == (await admin.deliveries.list(tenant_id="*", endpoint_id=endpoint, states=["failed"])).items


async def test_a_cursor_lists_every_delivery_once(admin: Admin, installation: Installation) -> None:
    """Following the cursor lists every delivery exactly once, newest first, while others are added."""
    await installation.endpoint()
    made = [(await installation.deliveries())[0].delivery_id for _ in range(5)]
    seen: list[str] = []
    cursor = None
    while not seen or cursor is not None:
        page = await admin.deliveries.list(tenant_id="*", limit=2, cursor=cursor)
        seen += [each.delivery_id for each in page.items]
        cursor = page.next_cursor
        await installation.deliveries()
    assert sorted(made, reverse=True) == seen


async def test_one_object_is_found_in_its_own_tenant_only(admin: Admin, installation: Installation) -> None:
    """`*` is no tenant for a delivery, a job or a purge: a program may pass on what its user gave as the tenant."""
    await installation.endpoint()
    (ring,) = await installation.deliveries()
    every: dict[str, Any] = {"tenant_id": "*"}
    delivery = every | {"delivery_id": ring.delivery_id}
    job = every | {"replay_id": "0197c1f0-5e6a-7c3b-9d2e-4f5061728394"}
    for call in (
        admin.deliveries.get(**delivery),
        admin.deliveries.why(**delivery),
        admin.deliveries.replay(**delivery, actor=JANE),
        admin.deliveries.skip(**delivery, actor=JANE),
        admin.replays.get(**job),
        admin.replays.cancel(**job, actor=JANE),
        admin.secrets.purge(**every, actor=JANE, older_than_days=0),
    ):
        with pytest.raises(Malformed) as caught:
            await call
        assert "tenant_id" == caught.value.field


async def test_a_replay_makes_a_delivery_due_again(admin: Admin, installation: Installation) -> None:
    """A finished delivery is due again, under its id or a new one, on record; both are found by the event."""
    endpoint = (await installation.endpoint()).pointer
    (ring,) = (published := await installation.published()).deliveries
    named: dict[str, Any] = {"tenant_id": "acme", "delivery_id": ring.delivery_id}
    with pytest.raises(Conflict) as caught:
        await admin.deliveries.replay(**named, actor=JANE)
    assert "delivery_id" == caught.value.field
    await finished(installation, ring, endpoint.secret_ref or "")
    new = await admin.deliveries.replay(**named, actor=JANE, new_id=True)
    same = await admin.deliveries.replay(**named, actor=JANE)

    assert (ring.delivery_id, ring.delivery_id, None) == (new.replay_of, same.delivery_id, same.replay_of)
    found = await admin.deliveries.list(tenant_id="acme", event_id=published.event_id)
    assert [new.delivery_id, ring.delivery_id] == [each.delivery_id for each in found.items]
    event = await admin.events.get(tenant_id="acme", event_id=published.event_id)
    assert [None, ring.delivery_id] == [each.replay_of for each in event.deliveries]
    last = (await audited(installation.pool))[-1]
    assert ("delivery.replayed", JANE) == (last["action"], last["who"])


async def test_a_resend_replays_the_newest_delivery_of_an_event_to_an_endpoint(
    admin: Admin, installation: Installation
) -> None:
    """One that waits for its next attempt is due at once, a finished one again; a disabled endpoint is refused."""
    endpoint = (await installation.endpoint()).pointer
    (ring,) = (published := await installation.published()).deliveries
    named: dict[str, Any] = {
        "tenant_id": "acme", "event_id": published.event_id, "endpoint_id": ring.endpoint_id, "actor": JANE,
    }  # fmt: skip
    await rows.change(installation.pool, "deliveries", next_attempt_at=rows.ahead(hours=1), budget_spent=1)
    assert ring.delivery_id == (await admin.deliveries.resend(**named)).delivery_id
    assert 1 == (await installation.delivery(ring))["budget_spent"]
    with pytest.raises(Conflict):  # it is due
        await admin.deliveries.resend(**named)
    await finished(installation, ring, endpoint.secret_ref or "")
    copy = await admin.deliveries.replay(tenant_id="acme", delivery_id=ring.delivery_id, actor=JANE, new_id=True)
    await installation.pool.execute(ENDED, copy.delivery_id)
    assert copy.delivery_id == (await admin.deliveries.resend(**named)).delivery_id
    last = (await audited(installation.pool))[-1]
    assert ("delivery.replayed", f"delivery:{copy.delivery_id}", JANE) == (last["action"], last["subject"], last["who"])

    await installation.pool.execute(ENDED, copy.delivery_id)
    await admin.endpoints.disable(tenant_id="acme", endpoint_id=ring.endpoint_id, actor=JANE, reason="it moves")
    with pytest.raises(Refused) as caught:
        await admin.deliveries.resend(**named)
    assert "endpoint_id" == caught.value.field
    other = (await installation.endpoint(url="https://other.example/")).pointer.endpoint_id
    with pytest.raises(NotFound):
        await admin.deliveries.resend(**named | {"endpoint_id": other})


async def test_the_deliveries_of_an_endpoint_are_counted_by_state(admin: Admin, installation: Installation) -> None:
    """Those made in the time that is given, up to a limit, which is said; also of a deleted endpoint."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await installation.endpoint(url="https://other.example/")
    named: dict[str, Any] = {"tenant_id": "acme", "endpoint_id": endpoint}
    none = dict.fromkeys(State, 0)
    assert none | {"complete": True} == counted(await admin.endpoints.deliveries_by_state(**named))
    states = [State.PENDING, State.PENDING, State.SENDING, State.DELIVERED, State.DEAD_LETTER, State.FAILED]
    for state in [*states, State.CANCELLED]:
        [ring] = [each for each in await installation.deliveries() if each.endpoint_id == endpoint]
        await rows.set_state(installation.pool, state, ring.delivery_id)
    every = dict.fromkeys(State, 1) | {State.PENDING: 2, "complete": True}
    hour = timedelta(hours=1)
    cases: list[tuple[dict[str, Any], dict[str, int | bool]]] = [
        ({}, every),
        ({"since": NOW - hour, "until": NOW + hour}, every),
        ({"since": NOW + hour}, none | {"complete": True}),
        ({"until": NOW - hour}, none | {"complete": True}),
    ]
    for given, expected in cases:
        assert expected == counted(await admin.endpoints.deliveries_by_state(**named, **given)), given
    span: dict[str, Any] = {"since": None, "until": None, "walked": 3}
    newest = await delivery_queries.count_by_state(installation.pool, TenantId("acme"), EndpointId(endpoint), **span)
    assert (dict.fromkeys((State.CANCELLED, State.FAILED, State.DEAD_LETTER), 1), False) == newest

    await admin.endpoints.delete(**named, actor=JANE)
    assert 3 == (await admin.endpoints.deliveries_by_state(**named)).cancelled


def counted(found: DeliveriesByState) -> dict[str, int | bool]:
    """Return the counts."""
    return {name: getattr(found, name) for name in (*State, "complete")}


async def test_why_explains_as_the_command_does(admin: Admin, installation: Installation) -> None:
    """The Admin explains where a delivery stands, as the command does."""
    added = await installation.endpoint()
    named: dict[str, Any] = {"tenant_id": "acme", "endpoint_id": added.pointer.endpoint_id, "actor": JANE}
    await admin.endpoints.disable(**named, reason="it moves")
    (ring,) = await installation.deliveries()
    found = await admin.deliveries.why(tenant_id="acme", delivery_id=ring.delivery_id)

    assert ("pending", "endpoint_disabled") == (found.state, found.waiting_for)
    assert (0, "the endpoint is disabled", None) == (found.attempts, found.last_error, found.next_attempt_at)
    assert f"hookseal endpoint enable --tenant acme --endpoint {ring.endpoint_id}" == found.command


@pytest.mark.req("SEC-08")
async def test_replay_jobs_are_started_found_and_cancelled(admin: Admin, installation: Installation) -> None:
    """A job for what ended undelivered is started, found, and cancelled, on record; another tenant finds nothing."""
    await installation.endpoint()
    (ring,) = await installation.deliveries()
    with pytest.raises(NotFound):
        await admin.replays.start(tenant_id="acme", actor=JANE)
    await installation.pool.execute("UPDATE hookseal.deliveries SET state = 'failed', next_attempt_at = NULL")
    counted = await admin.replays.count(tenant_id="acme", endpoint_id=ring.endpoint_id)
    assert (1, {"endpoint_disabled": 0, "endpoint_deleted": 0}) == (counted.would_replay, counted.would_skip)
    job = await admin.replays.start(
        tenant_id="acme", actor=JANE, endpoint_id=ring.endpoint_id, states=["failed"], rate_per_second=5
    )
    named: dict[str, Any] = {"tenant_id": "acme", "replay_id": job.replay_id}
    assert ("running", 1, 5, ring.endpoint_id) == (job.state, job.matched, job.rate, job.filter["endpoint_id"])
    assert job == await admin.replays.get(**named)
    assert (job,) == (await admin.replays.list(tenant_id="acme", state="running")).items
    for call in (
        admin.replays.get(**named | {"tenant_id": "globex"}),
        admin.replays.cancel(**named | {"tenant_id": "globex"}, actor=JANE),
        admin.deliveries.why(tenant_id="globex", delivery_id=ring.delivery_id),
    ):
        with pytest.raises(NotFound):
            await call
    assert () == (await admin.replays.list(tenant_id="globex")).items
    assert "cancelled" == (await admin.replays.cancel(**named, actor=JANE)).state
    with pytest.raises(Conflict) as caught:
        await admin.replays.cancel(**named, actor=JANE)

    assert "replay_id" == caught.value.field
    rows = (await audited(installation.pool))[-2:]
    assert [("replay.started", JANE), ("replay.cancelled", JANE)] == [(row["action"], row["who"]) for row in rows]


@pytest.mark.req("SEC-08")
async def test_another_tenants_data_is_not_found(admin: Admin, installation: Installation) -> None:
    """What belongs to another tenant is not found, and the error says nothing about it."""
    await installation.endpoint()
    (ring,) = (published := await installation.published()).deliveries
    theirs: dict[str, Any] = {"tenant_id": "globex", "delivery_id": ring.delivery_id}
    for call in (
        admin.deliveries.get(**theirs),
        admin.deliveries.replay(**theirs, actor=JANE),
        admin.events.get(tenant_id="globex", event_id=published.event_id),
        admin.events.payload(tenant_id="globex", event_id=published.event_id, actor=JANE),
        admin.deliveries.list(tenant_id="globex", endpoint_id=ring.endpoint_id),
        admin.deliveries.resend(
            tenant_id="globex", event_id=published.event_id, endpoint_id=ring.endpoint_id, actor=JANE
        ),
        admin.endpoints.deliveries_by_state(tenant_id="globex", endpoint_id=ring.endpoint_id),
    ):
        with pytest.raises(NotFound) as caught:
            await call
        assert "acme" not in str(caught.value)
    assert () == (await admin.events.list(tenant_id="globex")).items


@pytest.mark.req("SEC-08")
async def test_an_event_is_shown_with_the_deliveries_of_its_tenant(admin: Admin, installation: Installation) -> None:
    """Two tenants may use one event id: each event is shown with the deliveries of its own tenant only."""
    made = {}
    for tenant in ("acme", "globex"):
        await installation.endpoint(tenant)
        event = GivenEvent(tenant_id=TenantId(tenant), event_type="invoice.paid", event_id=EventId("shared"))
        made[tenant] = [ring.delivery_id for ring in (await publish_json(installation.pool, event, "1")).deliveries]
    for tenant, deliveries in made.items():
        shown = await admin.events.get(tenant_id=tenant, event_id="shared")
        assert deliveries == [delivery.delivery_id for delivery in shown.deliveries]


async def test_events_are_found_page_by_page(admin: Admin, installation: Installation) -> None:
    """Events are found by type, correlation and time, the newest first, and page by page each exactly once."""
    published = [await installation.published(event_type=f"a.{number % 2}") for number in range(5)]
    ids, hour = [each.event_id for each in reversed(published)], timedelta(hours=1)
    for given, expected in (
        ({}, ids),
        ({"event_types": ["a.1"]}, [ids[1], ids[3]]),
        ({"event_types": ["a.1", "a.0", "no.such"]}, ids),
        ({"oldest_first": True, "event_types": ["a.1"]}, [ids[3], ids[1]]),
        ({"correlation_id": "corr-1"}, ids),
        ({"correlation_id": "corr-2"}, []),
        ({"since": NOW - hour, "until": NOW + hour}, ids),
        ({"since": NOW + hour}, []),
        ({"until": NOW - hour}, []),
    ):
        found = await admin.events.list(tenant_id="acme", **given)
        assert expected == [each.event_id for each in found.items], given

    for oldest_first in (False, True):
        expected = ids[::-1] if oldest_first else ids
        named: dict[str, Any] = {"tenant_id": "acme", "limit": 2, "oldest_first": oldest_first}
        by_cursor, by_id, backwards = list[str](), list[str](), list[str]()
        cursor = None
        while not by_cursor or cursor is not None:
            page = await admin.events.list(**named, cursor=cursor)
            by_cursor += [each.event_id for each in page.items]
            cursor = page.next_cursor
        page = await admin.events.list(**named)
        while page.items:
            by_id += [each.event_id for each in page.items]
            page = await admin.events.list(**named, after=by_id[-1])
        page = await admin.events.list(**named, before=expected[-1])
        following = await admin.events.list(**named, cursor=page.next_cursor)
        assert [expected[-1]] == [each.event_id for each in following.items]
        while page.items:
            backwards = [each.event_id for each in page.items] + backwards
            page = await admin.events.list(**named, before=backwards[0])
        assert (expected, expected, expected[:-1]) == (by_cursor, by_id, backwards)
    one = await admin.events.find(tenant_id="acme", event_id=ids[0])
    assert one == (await admin.events.list(tenant_id="acme", limit=1)).items[0]


async def test_events_are_found_by_their_channel(admin: Admin, installation: Installation) -> None:
    """Those that were published in it, whatever other channels they are in."""
    for name, channels in (("none", ()), ("one", ("a",)), ("both", ("a", "b"))):
        event = GivenEvent(
            tenant_id=TenantId("acme"), event_type="invoice.paid", event_id=EventId(name), channels=channels
        )
        await publish_json(installation.pool, event, "1")
    for channel, expected in (("a", ["both", "one"]), ("b", ["both"]), ("c", [])):
        page = await admin.events.list(tenant_id="acme", channel=channel)
        assert expected == [each.event_id for each in page.items]


async def test_deliveries_and_attempts_are_found_by_the_channel_of_their_event(
    admin: Admin, installation: Installation
) -> None:
    """Together with every other condition, and by each way in which deliveries are read."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    rings = {}
    for name, channels in (("none", ()), ("one", ("a",)), ("both", ("a", "b"))):
        event = GivenEvent(
            tenant_id=TenantId("acme"), event_type="invoice.paid", event_id=EventId(name), channels=channels
        )
        [rings[name]] = (await publish_json(installation.pool, event, "1")).deliveries
        await rows.attempt(installation.pool, rings[name].delivery_id)
    await rows.set_state(installation.pool, "failed", rings["both"].delivery_id)
    of_acme: dict[str, Any] = {"tenant_id": "acme"}
    for given, expected in (
        (of_acme, {"a": ["both", "one"], "b": ["both"], "c": []}),
        ({"tenant_id": "*"}, {"a": ["both", "one"]}),
        (of_acme | {"endpoint_id": endpoint}, {"a": ["both", "one"], "b": ["both"]}),
        (of_acme | {"states": ["failed"]}, {"a": ["both"], "c": []}),
        (of_acme | {"states": ["pending"]}, {"a": ["one"], "b": []}),
        (of_acme | {"event_id": "one"}, {"a": ["one"], "b": []}),
        (of_acme | {"event_type": "a.b"}, {"a": []}),
    ):
        for channel, events in expected.items():
            page = await admin.deliveries.list(**given, channel=channel)
            assert events == [each.event_id for each in page.items], (given, channel)
    for given, expected in (
        (of_acme | {"endpoint_id": endpoint}, {"a": ["both", "one"], "b": ["both"], "c": []}),
        (of_acme | {"endpoint_id": endpoint, "event_types": ["invoice.paid"]}, {"b": ["both"]}),
        (of_acme | {"endpoint_id": endpoint, "event_types": ["a.b"]}, {"b": []}),
        (of_acme | {"event_id": "one"}, {"a": ["one"], "b": []}),
    ):
        for channel, events in expected.items():
            found = await admin.attempts.list(**given, channel=channel)
            assert events == sorted(each.event_id for each in found.items), (given, channel)


async def test_a_page_reads_a_limited_number_of_rows(installation: Installation) -> None:
    """A page ends after the number of events that it may read, and its cursor continues behind them."""
    published = [await installation.published(event_type="a.rare" if number == 0 else "a.b") for number in range(4)]
    wanted = event_queries.EventFilter(tenant_id=TenantId("acme"), event_types=("a.rare",))
    found, cursor, pages = [], None, 0
    while pages == 0 or cursor is not None:
        items, cursor = await event_queries.page(installation.pool, wanted, Place(cursor=cursor), limit=10, walked=2)
        found += [item["event_id"] for item in items]
        pages += 1

    assert ([published[0].event_id], 3) == (found, pages)


async def test_reading_a_payload_is_audited(admin: Admin, installation: Installation) -> None:
    """The payload is returned as it is sent, and who read it is on record; the record has nothing of it."""
    published = await installation.published()
    body = await admin.events.payload(tenant_id="acme", event_id=published.event_id, actor=JANE)

    assert b',"data":{"n": 1}}' in body
    [row] = await audited(installation.pool)
    assert {
        "action": "event.payload_read",
        "subject": f"event:{published.event_id}",
        "who": JANE,
        "before": None,
        "after": {"body_bytes": len(body)},
    } == row


@pytest.mark.req("SEC-08")
async def test_several_events_and_endpoints_are_read_by_one_statement(admin: Admin, installation: Installation) -> None:
    """Those of the tenant that exist, each once, as in a list."""
    mine = [(await installation.endpoint(url=f"https://{name}.example/")).pointer.endpoint_id for name in "ab"]
    theirs = (await installation.endpoint("globex")).pointer.endpoint_id
    found = await admin.endpoints.find_all(tenant_id="acme", endpoint_ids=[*mine, mine[0], theirs])
    assert {each.endpoint_id: each for each in (await admin.endpoints.list(tenant_id="acme")).items} == found
    ids = [(await installation.published()).event_id for _ in range(2)]
    other = (await installation.published("globex")).event_id
    events = await admin.events.find_all(tenant_id="acme", event_ids=[*ids, ids[0], other, "no-such"])
    assert {each.event_id: each for each in (await admin.events.list(tenant_id="acme")).items} == events
    assert {} == await admin.events.find_all(tenant_id="acme", event_ids=[other])
    for wrong in ([], [f"e-{number}" for number in range(251)], ["a b"]):
        assert "event_ids" == await refused_field(admin.events.find_all(tenant_id="acme", event_ids=wrong))
    for wrong in ([], ["a b"]):
        assert "endpoint_ids" == await refused_field(admin.endpoints.find_all(tenant_id="acme", endpoint_ids=wrong))


async def test_reading_several_payloads_is_audited_once(admin: Admin, installation: Installation) -> None:
    """Those that exist are returned by their ids, and the record names them; nothing is on record if none does."""
    ids = sorted([(await installation.published()).event_id for _ in range(2)])
    theirs = (await installation.published("globex", event_type="invoice.due")).event_id
    bodies = await admin.events.payloads(tenant_id="acme", event_ids=[*ids, ids[0], theirs, "no-such"], actor=JANE)
    assert {} == await admin.events.payloads(tenant_id="acme", event_ids=[theirs], actor=JANE)

    assert ids == sorted(bodies)
    assert bodies[ids[1]] != await admin.events.payload(tenant_id="globex", event_id=theirs, actor=JANE)
    [row] = await audited(installation.pool)
    assert ("event.payload_read", "events", JANE) == (row["action"], row["subject"], row["who"])
    assert {"event_ids": ids, "body_bytes": sum(map(len, bodies.values()))} == row["after"]
    for wrong in ([], "e", ["a b"], [f"e{number}" for number in range(251)]):
        assert "event_ids" == await refused_field(admin.events.payloads(tenant_id="acme", event_ids=wrong, actor=JANE))


async def test_payloads_are_read_as_far_as_they_fit(admin: Admin, installation: Installation) -> None:
    """In the order in which they are named, and the first one always; the record names those that were read."""
    ids = [(await installation.published()).event_id for _ in range(4)]
    size = len(await admin.events.payload(tenant_id="acme", event_id=ids[0], actor=JANE))
    order = [ids[2], "no-such", ids[0], ids[3], ids[1]]
    for most, expected in ((3 * size, order[:1] + order[2:4]), (3 * size - 1, [ids[2], ids[0]]), (0, [ids[2]])):
        bodies = await admin.events.payloads(tenant_id="acme", event_ids=order, actor=JANE, most_bytes=most)
        assert expected == list(bodies), most
        row = (await audited(installation.pool))[-1]
        assert {"event_ids": sorted(expected), "body_bytes": size * len(expected)} == row["after"]
    given: Any = "x"
    call = admin.events.payloads(tenant_id="acme", event_ids=ids, actor=JANE, most_bytes=given)
    assert "most_bytes" == await refused_field(call)


MALFORMED: list[tuple[str, dict[str, Any], str]] = [
    ("deliveries", {"states": ["pending", "lost"]}, "states"),
    ("deliveries", {"states": "failed"}, "states"),
    ("deliveries", {"states": []}, "states"),
    ("deliveries", {"event_type": "a.*"}, "event_type"),
    ("deliveries", {"event_id": "a b"}, "event_id"),
    ("deliveries", {"channel": "a b"}, "channel"),
    ("attempts", {"event_id": "e", "channel": "a b"}, "channel"),
    ("deliveries", {"correlation_id": "a\0b"}, "correlation_id"),
    ("deliveries", {"since": datetime(2026, 1, 1)}, "since"),  # noqa: DTZ001 -- the point of the test
    ("deliveries", {"signed_by": "x"}, "signed_by"),
    ("deliveries", {"signed_by": 5}, "signed_by"),
    ("deliveries", {"signed_by": []}, "signed_by"),
    ("deliveries", {"signed_by": "db:globex:webhook-endpoint-x:1"}, "signed_by"),
    ("deliveries", {"signed_by": "db:acme:webhook-endpoint-x:1", "event_id": "e"}, "signed_by"),
    ("deliveries", {"tenant_id": None}, "tenant_id"),
    ("deliveries", {"endpoint_id": "0197C1F0-5E6A-7C3B-9D2E-4F5061728394"}, "endpoint_id"),
    ("deliveries", {"limit": 0}, "limit"),
    ("deliveries", {"limit": 1001}, "limit"),
    ("deliveries", {"cursor": ""}, "cursor"),
    ("deliveries", {"cursor": "!"}, "cursor"),
    ("deliveries", {"cursor": "\u00e9"}, "cursor"),
    ("deliveries", {"cursor": "bm90aGluZw=="}, "cursor"),
    ("deliveries", {"tenant_id": "*", "event_id": "e"}, "event_id"),
    ("deliveries", {"tenant_id": "*", "correlation_id": "c"}, "correlation_id"),
    ("replays", {"state": "lost"}, "state"),
    ("replays", {"limit": 0}, "limit"),
    ("events", {"tenant_id": "*"}, "tenant_id"),
    ("events", {"until": "yesterday"}, "until"),
    ("events", {"event_types": ["a.*"]}, "event_types"),
    ("events", {"channel": "a b"}, "channel"),
    ("events", {"channel": 5}, "channel"),
    ("events", {"after": "a b"}, "after"),
    ("events", {"before": "no-such"}, "before"),
    ("events", {"before": "no-such", "after": "no-such"}, "before"),
    ("events", {"cursor": "bm90aGluZw=="}, "cursor"),
    ("events", {"limit": 1001}, "limit"),
    ("attempts", {}, "endpoint_id"),
    ("attempts", {"event_id": "e", "tenant_id": "*"}, "tenant_id"),
    ("attempts", {"event_id": "e", "event_types": "a.b"}, "event_types"),
    ("attempts", {"event_id": "e", "event_types": []}, "event_types"),
    ("attempts", {"event_id": "e", "event_types": ["a.*"]}, "event_types"),
    ("attempts", {"event_id": "e", "outcome": "timeout"}, "outcome"),
    ("attempts", {"event_id": "e", "status_class": 6}, "status_class"),
    ("attempts", {"event_id": "e", "status_class": "2"}, "status_class"),
    ("attempts", {"event_id": "e", "after": "0197c1f0-5e6a-7c3b-9d2e-4f5061728394"}, "after"),
    ("attempts", {"event_id": "e", "before": "0197c1f0-5e6a-7c3b-9d2e-4f5061728394.0"}, "before"),
    ("attempts", {"event_id": "e", "after": "0197c1f0-5e6a-7c3b-9d2e-4f5061728394.1"}, "after"),
    ("attempts", {"event_id": "e", "cursor": "bm90aGluZw=="}, "cursor"),
    ("attempts", {"event_id": "e", "limit": 0}, "limit"),
    ("tokens", {"tenant_id": "_system"}, "tenant_id"),
    ("tokens", {"cursor": "bm90aGluZw=="}, "cursor"),
    ("tokens", {"limit": 0}, "limit"),
]


async def test_a_malformed_filter_is_named(admin: Admin) -> None:
    """A malformed filter is refused by its name."""
    assert MALFORMED == [
        (group, given, await refused_field(getattr(admin, group).list(**({"tenant_id": "acme"} | given))))
        for group, given, _ in MALFORMED
    ]


async def test_an_id_without_its_tenant_names_the_argument(admin: Admin) -> None:
    """The error for an id that says nothing without its tenant names the argument for the tenant."""
    cases: list[tuple[dict[str, Any], str]] = [
        ({"event_id": "e"}, "event ids"),
        ({"correlation_id": "e"}, "correlation ids"),
    ]
    for given, said in cases:
        with pytest.raises(Malformed, match=f"{said} are those of a tenant") as caught:
            await admin.deliveries.list(tenant_id="*", **given)
        assert ([*given], "name it with --tenant") == ([caught.value.field], caught.value.advice)


@pytest.mark.parametrize(
    ("group", "method"),
    [
        ("endpoints", "list"),
        ("endpoints", "stats"),
        ("deliveries", "list"),
        ("replays", "list"),
        ("events", "list"),
        ("tokens", "list"),
    ],
)
async def test_every_list_checks_its_limit_and_cursor(admin: Admin, group: str, method: str) -> None:
    """In every list a limit or a cursor of the wrong type is refused by its name."""
    page = getattr(getattr(admin, group), method)
    limits: list[Any] = [None, True, "5"]
    cursors: list[Any] = [5, b"", []]
    for limit in limits:
        assert "limit" == await refused_field(page(tenant_id="acme", limit=limit))
    for cursor in cursors:
        assert "cursor" == await refused_field(page(tenant_id="acme", cursor=cursor))


@pytest.mark.parametrize("searched", [0, 250_001, True, "5"])
async def test_a_wrong_number_to_search_is_named(admin: Admin, searched: Any) -> None:
    for method in (admin.deliveries.list, admin.replays.count, admin.events.list):
        assert "searched" == await refused_field(method(tenant_id="acme", searched=searched))
    few = 50_001 if searched == 250_001 else searched
    assert "searched" == await refused_field(admin.attempts.list(tenant_id="acme", event_id="e-1", searched=few))


@pytest.mark.parametrize("states", [None, 5, "failed", [], ["lost"], [None], ["pending"]])
async def test_wrong_states_are_named(admin: Admin, states: Any) -> None:
    """States that are no list, or not those of a finished delivery, are refused by the name of the argument."""
    assert "states" == await refused_field(admin.replays.count(tenant_id="acme", states=states))
    assert "states" == await refused_field(admin.replays.start(tenant_id="acme", actor=JANE, states=states))


async def test_a_replay_that_waits_for_a_lock_says_so(admin: Admin, installation: Installation) -> None:
    """A replay that waits too long for a locked row says that it can be tried again, not that PostgreSQL is silent."""
    endpoint = (await installation.endpoint()).pointer
    (ring,) = await installation.deliveries()
    await finished(installation, ring, endpoint.secret_ref or "")
    async with installation.pool.acquire() as other, other.transaction():
        await other.execute("SELECT FROM hookseal.deliveries FOR UPDATE")
        with pytest.raises(Unavailable, match="cannot do it now: try again"):
            await admin.deliveries.replay(tenant_id="acme", delivery_id=ring.delivery_id, actor=JANE)


@pytest.mark.parametrize("rate", [None, True, "5", 0, 1_001])
async def test_a_wrong_rate_is_named(admin: Admin, rate: Any) -> None:
    """A rate that a replay job cannot have is refused by the name of the argument."""
    call = admin.replays.start(tenant_id="acme", actor=JANE, rate_per_second=rate)
    assert "rate_per_second" == await refused_field(call)


async def test_a_flag_is_true_or_false(admin: Admin, installation: Installation) -> None:
    """A text is no flag, although Python counts it as true."""
    await installation.endpoint()
    (ring,) = await installation.deliveries()
    named: dict[str, Any] = {"tenant_id": "acme", "delivery_id": ring.delivery_id, "actor": JANE, "new_id": "no"}
    assert "new_id" == await refused_field(admin.deliveries.replay(**named))


NO_TIMES: list[tuple[dict[str, Any], str]] = [
    ({"since": datetime(1, 1, 1, tzinfo=EAST)}, "since"),
    ({"until": datetime(9999, 12, 31, 23, tzinfo=WEST)}, "until"),
    ({"until": datetime(2026, 1, 1)}, "until"),  # noqa: DTZ001 -- the point of the test
]


@pytest.mark.parametrize(("given", "field"), NO_TIMES)
async def test_a_time_that_utc_does_not_have_is_named(admin: Admin, given: dict[str, Any], field: str) -> None:
    """A time outside the years 1 to 9999 in UTC, or without a time zone, is refused by its name."""
    for call in (
        admin.deliveries.list(tenant_id="acme", **given),
        admin.events.list(tenant_id="acme", **given),
        admin.replays.count(tenant_id="acme", **given),
        admin.replays.start(tenant_id="acme", actor=JANE, **given),
    ):
        assert field == await refused_field(call)


async def test_every_time_of_utc_is_accepted(admin: Admin, installation: Installation) -> None:
    """The first and the last time that UTC has select everything, in whichever time zone they are written."""
    await installation.endpoint()
    await installation.published()
    for since, until in (
        (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)),
        (datetime(1, 1, 1, 14, tzinfo=EAST), datetime(9999, 12, 31, 11, 59, tzinfo=WEST)),
    ):
        assert 1 == len((await admin.deliveries.list(tenant_id="acme", since=since, until=until)).items)
        assert 1 == len((await admin.events.list(tenant_id="acme", since=since, until=until)).items)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"since": datetime(2000, 1, 1, tzinfo=EAST)}, "since"),
        ({"until": datetime(8999, 12, 31, 23, tzinfo=WEST)}, "until"),
    ],
)
async def test_a_replay_job_and_its_count_refuse_the_same_times(
    admin: Admin, installation: Installation, given: dict[str, Any], field: str
) -> None:
    """A time that a replay job cannot have is refused by its name, also by the count, although deliveries match it."""
    await installation.endpoint()
    await installation.deliveries()
    await installation.pool.execute("UPDATE hookseal.deliveries SET state = 'delivered', next_attempt_at = NULL")
    for call in (
        admin.replays.start(tenant_id="acme", actor=JANE, states=["delivered"], **given),
        admin.replays.count(tenant_id="acme", states=["delivered"], **given),
    ):
        assert field == await refused_field(call)


async def test_results_have_every_column(installation: Installation) -> None:
    """A result has every column that the command prints, so that none is forgotten here when one is added there."""
    endpoint = (await installation.endpoint()).pointer
    (ring,) = (published := await installation.published()).deliveries
    pool, acme = installation.pool, TenantId("acme")
    pages = await asyncio.gather(
        endpoint_queries.page(pool, endpoint_queries.EndpointFilter(tenant_id=acme), Place(), limit=1),
        delivery_queries.page(pool, Filter(tenant_id=acme), limit=1, cursor=None),
        event_queries.page(pool, event_queries.EventFilter(tenant_id=acme), Place(), limit=1),
    )
    shown = await asyncio.gather(
        endpoint_queries.show(pool, acme, endpoint_id=endpoint.endpoint_id),
        endpoint_queries.find(pool, acme, endpoint_id=endpoint.endpoint_id),
        delivery_queries.show(pool, ring.delivery_id),
        event_queries.show(pool, acme, published.event_id),
    )
    rows = [*(page[0][0] for page in pages), *shown]
    for kind, row in zip(
        (Endpoint, Delivery, StoredEvent, EndpointDetails, Endpoint, DeliveryDetails, EventDetails), rows, strict=True
    ):
        assert row.keys() == {each.name for each in fields(kind)}, kind
    assert {"older_claims", "rotations", "schedule", "canary"} < {each.name for each in fields(RotationStatus)}
