"""Attempts as the official client lists them: of an endpoint and of a message, by what came back."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from svix.api import SvixAsync
from svix.api.endpoint import EndpointGetStatsOptions
from svix.api.message_attempt import (
    MessageAttemptListAttemptedMessagesOptions,
    MessageAttemptListByEndpointOptions,
    MessageAttemptListByMsgOptions,
    MessageAttemptResendOptions,
)
from svix.exceptions import HttpError, HTTPValidationError
from svix.models import MessageStatus, StatusCodeClass

from hookseal import Admin
from hookseal.api import paging
from hookseal.api.calls import attempts, deliveries, messages
from hookseal.dispatcher.store import delivery_queries, event_queries
from hookseal.dispatcher.store.publish import NewEvent, publish_json
from hookseal.errors import Malformed
from hookseal.ground.ids import EventId, TenantId
from hookseal.postgres.pool import Executor, connected
from tests import rows
from tests.api.official import official
from tests.doubles.logbook import audited
from tests.doubles.stored import Installation
from tests.operations.blocked import blocked
from tests.operations.test_replay_jobs import dead_letters

pytestmark = pytest.mark.req("API-02", part="python")


@pytest.fixture
async def svix(url: str) -> AsyncIterator[SvixAsync]:
    """Yield the official client, which may do everything."""
    async with official("every", url) as client:
        yield client


async def test_attempts_are_listed_and_shown(svix: SvixAsync, admin: Admin, installation: Installation) -> None:
    added = await admin.endpoints.add(
        tenant_id="acme", url="https://a.example/hook", event_types=["*"], uid="main", actor="test"
    )
    new = NewEvent(tenant_id=TenantId("acme"), event_type="invoice.paid", channels=("eu", "de"))
    [ring] = (await publish_json(installation.pool, new, "{}")).deliveries
    [delivery] = (await admin.deliveries.list(tenant_id="acme")).items
    await rows.attempt(
        installation.pool, ring.delivery_id, 1, status=503, outcome="server_error", snippet="oh", duration_ms=7
    )
    await rows.attempt(installation.pool, ring.delivery_id, 2, status=None, outcome="timeout", duration_ms=None)
    await rows.attempt(installation.pool, ring.delivery_id, 3)
    first, second, third = (f"{ring.delivery_id}.{number}" for number in (1, 2, 3))

    page = await svix.message_attempt.list_by_endpoint("acme", "main")
    assert ([third, second, first], True) == ([each.id for each in page.data], page.done)
    failed = await svix.message_attempt.get("acme", delivery.event_id, first)
    assert (delivery.event_id, added.endpoint_id, "https://a.example/hook", 503, 7, "oh") == (
        *(failed.msg_id, failed.endpoint_id, failed.url, failed.response_status_code, failed.response_duration_ms),
        failed.response,
    )
    assert (MessageStatus.FAIL, "fail", 0) == (failed.status, failed.status_text.value, failed.trigger_type.value)
    unanswered = await svix.message_attempt.get("acme", delivery.event_id, second)
    assert (0, 0, "timeout") == (unanswered.response_status_code, unanswered.response_duration_ms, unanswered.response)

    options = MessageAttemptListByMsgOptions
    for given, expected in (
        (options(), [third, second, first]),
        (options(endpoint_id="main"), [third, second, first]),
        (options(endpoint_id=added.endpoint_id), [third, second, first]),
        (options(status=MessageStatus.SUCCESS), [third]),
        (options(status=MessageStatus.FAIL), [second, first]),
        (options(status=MessageStatus.PENDING), []),
        (options(status_code_class=StatusCodeClass.CODE5XX), [first]),
        (options(status_code_class=StatusCodeClass.CODE_NONE), [second]),
        (options(event_types=["invoice.paid", "no.such"]), [third, second, first]),
        (options(event_types=["no.such"]), []),
        (options(channel="eu"), [third, second, first]),
        (options(channel="us"), []),
        (options(limit=1), [third]),
        (options(limit=1, iterator=third), [second]),
        (options(iterator=f"-{first}"), [third, second]),
        (options(before=failed.timestamp - timedelta(days=1)), []),
        (options(after=failed.timestamp + timedelta(days=1)), []),
    ):
        found = await svix.message_attempt.list_by_msg("acme", delivery.event_id, given)
        assert expected == [each.id for each in found.data], given


async def test_messages_to_an_endpoint_and_endpoints_of_a_message(
    svix: SvixAsync, admin: Admin, installation: Installation
) -> None:
    """Each with where it stands; what was never sent is canceled for clients that know it, and failed for others."""
    added = await admin.endpoints.add(
        tenant_id="acme", url="https://a.example", event_types=["*"], uid="main", actor="test"
    )
    events: dict[str, str] = {}
    for state in ("delivered", "failed", "dead_letter", "cancelled", "sending", "pending"):
        channels = ("eu",) if state == "pending" else ()
        new = NewEvent(tenant_id=TenantId("acme"), event_type="invoice.paid", channels=channels)
        event = await publish_json(installation.pool, new, '{"n": 1}')
        events[event.event_id] = state
        if state != "pending":
            await rows.set_state(installation.pool, state, event.deliveries[0].delivery_id)
    options = MessageAttemptListAttemptedMessagesOptions
    page = await svix.message_attempt.list_attempted_messages("acme", "main")
    expected = [("pending", 1), ("sending", 3), ("cancelled", 4), ("dead_letter", 2), ("failed", 2), ("delivered", 0)]
    assert expected == [(events[each.id], each.status.value) for each in page.data]
    assert ["pending", "sending", "canceled", "fail", "fail", "success"] == [
        each.status_text.value for each in page.data
    ]
    assert {"invoice.paid"} == {each.event_type for each in page.data}
    for given, states in (
        (options(status=MessageStatus.CANCELED), ["cancelled"]),
        (options(status=MessageStatus.FAIL), ["dead_letter", "failed"]),
        (options(status=MessageStatus.FAIL, expanded_statuses=False), ["cancelled", "dead_letter", "failed"]),
        (options(status=MessageStatus.CANCELED, expanded_statuses=False), []),
        (options(event_types=["no.such"]), []),
        (options(channel="eu"), ["pending"]),
        (options(channel="us"), []),
        (options(limit=2), ["pending", "sending"]),
        (options(before=datetime.now(UTC) - timedelta(hours=1)), []),
    ):
        found = await svix.message_attempt.list_attempted_messages("acme", added.endpoint_id, given)
        assert states == [events[each.id] for each in found.data], given
    first = await svix.message_attempt.list_attempted_messages("acme", "main", options(limit=4))
    rest = await svix.message_attempt.list_attempted_messages("acme", "main", options(iterator=first.iterator))
    assert [each.id for each in page.data] == [each.id for each in first.data + rest.data]
    read = await svix.message_attempt.list_attempted_messages("acme", "main", options(limit=1, with_content=True))
    assert read.data[0].payload

    other = await admin.endpoints.add(tenant_id="acme", url="https://b.example", event_types=["*"], actor="test")
    event = await installation.published()
    destinations = await svix.message_attempt.list_attempted_destinations("acme", event.event_id)
    assert {(added.endpoint_id, "https://a.example", 1), (other.endpoint_id, "https://b.example", 1)} == {
        (each.id, each.url, each.status.value) for each in destinations.data
    }
    await admin.endpoints.delete(tenant_id="acme", endpoint_id=other.endpoint_id, actor="test")
    left = await svix.message_attempt.list_attempted_destinations("acme", event.event_id)
    assert [added.endpoint_id] == [each.id for each in left.data]


async def test_a_message_that_is_removed_while_it_is_listed_is_left_out(
    svix: SvixAsync, admin: Admin, installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retention may remove a message between the two statements of the list: the others are listed."""
    await admin.endpoints.add(tenant_id="acme", url="https://a.example", event_types=["*"], uid="main", actor="test")
    old, new = await installation.published(), await installation.published()
    listed = event_queries.find_all

    async def removing(executor: Executor, tenant: TenantId, event_ids: Sequence[EventId]) -> list[dict[str, Any]]:
        async with connected(executor) as connection:
            await connection.execute("DELETE FROM hookseal.deliveries WHERE event_id = $1", old.event_id)
            await connection.execute("DELETE FROM hookseal.events WHERE id = $1", old.event_id)
        return await listed(executor, tenant, event_ids)

    monkeypatch.setattr(event_queries, "find_all", removing)
    page = await svix.message_attempt.list_attempted_messages("acme", "main")

    assert ([new.event_id], True) == ([each.id for each in page.data], page.done)


async def test_a_message_is_sent_again(svix: SvixAsync, admin: Admin, installation: Installation) -> None:
    """A delivery that ended is due again, on record; it cannot be while it is due, or its endpoint is disabled."""
    added = await admin.endpoints.add(tenant_id="acme", url="https://a.example", event_types=["*"], actor="test")
    await dead_letters(installation, 1)
    [delivery] = (await admin.deliveries.list(tenant_id="acme")).items
    endpoint, event = added.endpoint_id, delivery.event_id
    off: dict[str, Any] = {"tenant_id": "acme", "endpoint_id": endpoint, "actor": "test"}
    await admin.endpoints.disable(**off, reason="x")
    with pytest.raises(HttpError) as caught:
        await svix.message_attempt.resend("acme", event, endpoint)
    assert (409, "the endpoint is disabled: enable it first") == (caught.value.status_code, caught.value.detail)
    await admin.endpoints.enable(**off)

    await svix.message_attempt.resend("acme", event, endpoint)
    again = await admin.deliveries.get(tenant_id="acme", delivery_id=delivery.delivery_id)
    assert "pending" == again.state
    last = (await audited(installation.pool))[-1]
    assert ("delivery.replayed", "token:every") == (last["action"], last["who"])
    with pytest.raises(HttpError) as caught:
        await svix.message_attempt.resend("acme", event, endpoint)
    assert (409, "conflict") == (caught.value.status_code, caught.value.code)
    await admin.endpoints.disable(**off, reason="x")
    with pytest.raises(HttpError, match="the endpoint is disabled: enable it first"):
        await svix.message_attempt.resend("acme", event, endpoint)
    with pytest.raises(HttpError) as caught:
        await svix.message_attempt.resend("acme", "none", endpoint)
    assert 404 == caught.value.status_code


@pytest.mark.req("API-05")
async def test_a_resend_is_made_once_for_a_key(svix: SvixAsync, admin: Admin, installation: Installation) -> None:
    """A client repeats it after a lost answer, when the message may have been sent again already."""
    added = await admin.endpoints.add(tenant_id="acme", url="https://a.example", event_types=["*"], actor="test")
    await dead_letters(installation, 1)
    [delivery] = (await admin.deliveries.list(tenant_id="acme")).items

    async def resent(key: str) -> str:
        once = MessageAttemptResendOptions(idempotency_key=key)
        await svix.message_attempt.resend("acme", delivery.event_id, added.endpoint_id, once)
        return (await admin.deliveries.get(tenant_id="acme", delivery_id=delivery.delivery_id)).state

    assert ["pending"] * 2 == [await resent("once"), await resent("once")]
    await rows.set_state(installation.pool, "delivered", delivery.delivery_id)
    assert ["delivered", "pending"] == [await resent("once"), await resent("other")]
    await admin.endpoints.disable(tenant_id="acme", endpoint_id=added.endpoint_id, reason="x", actor="test")
    assert "pending" == await resent("once")
    replayed = [row for row in await audited(installation.pool) if row["action"] == "delivery.replayed"]
    assert 2 == len(replayed)


@pytest.mark.req("API-05")
async def test_two_resends_with_one_id_at_once_are_one(admin: Admin, installation: Installation) -> None:
    """The second waits for the first, and returns what that did, also if the message has been delivered meanwhile."""
    added = await admin.endpoints.add(tenant_id="acme", url="https://a.example", event_types=["*"], actor="test")
    await dead_letters(installation, 1)
    [delivery] = (await admin.deliveries.list(tenant_id="acme")).items
    named: dict[str, Any] = {"tenant_id": "acme", "event_id": delivery.event_id, "endpoint_id": added.endpoint_id}
    named |= {"resend_id": "r-1", "actor": "test"}
    async with installation.pool.acquire() as connection, connection.transaction():
        first = await admin.deliveries.resend(**named, connection=connection)
        second = asyncio.create_task(admin.deliveries.resend(**named))
        await blocked(installation)
        await rows.set_state(connection, "delivered", delivery.delivery_id)

    assert first == await second == await admin.deliveries.resend(**named)
    assert "delivered" == (await admin.deliveries.get(tenant_id="acme", delivery_id=delivery.delivery_id)).state
    with pytest.raises(Malformed):
        await admin.deliveries.resend(**named | {"resend_id": "a b"})


async def test_deliveries_are_counted_by_their_state(svix: SvixAsync, admin: Admin, installation: Installation) -> None:
    await admin.endpoints.add(tenant_id="acme", url="https://a.example", event_types=["*"], uid="main", actor="test")
    await dead_letters(installation, 2)
    await installation.deliveries()
    for state in ("delivered", "failed", "cancelled", "sending"):
        [ring] = await installation.deliveries()
        await rows.set_state(installation.pool, state, ring.delivery_id)
    stats = await svix.endpoint.get_stats("acme", "main")

    assert (1, 1, 1, 3, 1) == (stats.success, stats.pending, stats.sending, stats.fail, stats.canceled)
    later = EndpointGetStatsOptions(since=datetime.now(UTC) + timedelta(hours=1))
    nothing = await svix.endpoint.get_stats("acme", "main", later)
    assert 0 == nothing.success + nothing.pending + nothing.sending + nothing.fail + nothing.canceled


async def test_a_count_says_whether_it_is_complete(
    client: httpx.AsyncClient, admin: Admin, installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts the newest 5,000."""
    assert 5_000 == delivery_queries.MAX_COUNTED
    monkeypatch.setattr(delivery_queries.count_by_state, "__kwdefaults__", {"walked": 3})
    await admin.endpoints.add(tenant_id="acme", url="https://a.example", event_types=["*"], uid="main", actor="test")
    found = []
    for _ in range(2):
        await rows.publish(installation.pool, 2)
        found.append((await client.get("/api/v1/app/acme/endpoint/main/stats")).json())

    assert [(2, True), (3, False)] == [(each["pending"], each["complete"]) for each in found]


@pytest.mark.req("API-10", part="lists")
async def test_a_search_that_goes_on_is_read_to_its_end(
    client: httpx.AsyncClient, admin: Admin, installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page searches so many rows. If it finds none it is empty and not done, and its iterator leads on."""
    assert 3_000 == paging.SEARCHED
    for module in (messages, attempts, deliveries):
        monkeypatch.setattr(module, "SEARCHED", 3)
    added = await admin.endpoints.add(tenant_id="acme", url="https://a.example", event_types=["*"], actor="test")
    for event_type, number in (("b", 5), ("a", 1), ("b", 6)):
        for delivery in await rows.publish(installation.pool, number, event_type=event_type):
            await rows.attempt(installation.pool, delivery, started_at=rows.Sql("clock_timestamp()"))

    async def walked(path: str, given: dict[str, str], *, back_from: str | None = None) -> list[list[str]]:
        pages: list[list[str]] = []
        place = {} if back_from is None else {"iterator": f"-{back_from}"}
        while len(pages) < 20:
            page = (await client.get(path, params=given | place)).json()
            pages.append([each["id"] for each in page["data"]])
            if page["done"] or (back_from is not None and pages[-1]):
                break
            place = {"iterator": page["iterator" if back_from is None else "prevIterator"]}
        return pages

    for path, given, is_read_back in (
        ("/api/v1/app/acme/msg", {"event_types": "a"}, True),
        (f"/api/v1/app/acme/attempt/endpoint/{added.endpoint_id}", {"event_types": "a"}, True),
        (f"/api/v1/app/acme/endpoint/{added.endpoint_id}/msg", {"event_types": "a"}, False),
        ("/api/hookseal/v1/app/acme/delivery", {"event_type": "a"}, False),
    ):
        pages = await walked(path, given)
        assert [0, 0, 1, 0, 0] == [len(ids) for ids in pages], path
        if is_read_back:
            oldest = [each for ids in await walked(path, {"limit": "1"}) for each in ids][-1]
            assert [[], pages[2]] == await walked(path, given, back_from=oldest), path


async def test_what_is_not_there_is_absent(svix: SvixAsync, admin: Admin, installation: Installation) -> None:
    await admin.endpoints.add(tenant_id="acme", url="https://a.example", event_types=["*"], actor="test")
    event = await installation.published()
    await rows.attempt(installation.pool, event.deliveries[0].delivery_id)
    attempt = f"{event.deliveries[0].delivery_id}.1"
    for call in (
        svix.message_attempt.list_by_endpoint("acme", "none"),
        svix.message_attempt.list_by_msg("acme", "none"),
        svix.message_attempt.list_by_msg("acme", event.event_id, MessageAttemptListByMsgOptions(endpoint_id="none")),
        svix.message_attempt.get("acme", "none", attempt),
        svix.message_attempt.get("acme", event.event_id, f"{attempt}9"),
        svix.message_attempt.get("acme", event.event_id, "none"),
    ):
        with pytest.raises(HttpError) as caught:
            await call
        assert (404, "not_found") == (caught.value.status_code, caught.value.code)


async def test_what_is_not_read_is_refused(svix: SvixAsync, admin: Admin) -> None:
    added = await admin.endpoints.add(tenant_id="acme", url="https://a.example", event_types=["*"], actor="test")
    options = MessageAttemptListByEndpointOptions
    for given, name in (
        (options(with_msg=True), "with_msg"),
        (options(channel="a b"), "channel"),
        (options(event_types=["a b"]), "event_types"),
        (options(tag="a"), "tag"),
        (options(iterator="none"), "iterator"),
    ):
        with pytest.raises(HTTPValidationError) as caught:
            await svix.message_attempt.list_by_endpoint("acme", added.endpoint_id, given)
        assert ["query", name] == caught.value.detail[0].loc
