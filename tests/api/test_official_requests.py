"""What the official client sends besides the plain call: nulls, keys, filters, loops over pages; and without async."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from svix.api import (
    ApplicationIn,
    ApplicationListOptions,
    EndpointIn,
    EndpointListOptions,
    EndpointPatch,
    EndpointSecretRotateIn,
    EventTypeIn,
    EventTypeListOptions,
    MessageIn,
    RecoverIn,
    Svix,
    SvixAsync,
    SvixOptions,
)
from svix.api.application import ApplicationCreateOptions
from svix.api.background_task import BackgroundTaskListOptions
from svix.api.message import MessageCreateOptions, MessageGetOptions
from svix.api.message_attempt import MessageAttemptListByEndpointOptions, MessageAttemptListByMsgOptions
from svix.exceptions import HttpError, HTTPValidationError
from svix.models import (
    ApplicationPatch,
    BackgroundTaskStatus,
    BackgroundTaskType,
    EndpointUpsertIn,
    EventTypePatch,
    EventTypeUpsertIn,
    Ordering,
)

from tests import rows
from tests.api.official import official
from tests.doubles.stored import Installation
from tests.operations.test_replay_jobs import dead_letters

pytestmark = pytest.mark.req("API-02", part="python")

ORDERS = (Ordering.ASCENDING, Ordering.DESCENDING)


@pytest.fixture
async def svix(url: str) -> AsyncIterator[SvixAsync]:
    """Yield the official client, which may do everything."""
    async with official("every", url) as client:
        yield client


async def walked(page: Callable[[str | None], Awaitable[Any]]) -> list[Any]:
    """Return what all pages of a list have, read as its documentation says."""
    found: list[Any] = []
    iterator = None
    while True:
        answer = await page(iterator)
        found += answer.data
        if answer.done:
            return found
        iterator = answer.iterator


def nulls(model: type[Any], **given: Any) -> Any:
    """Return what the client sends if every other member is None."""
    return model(**{name: None for name, field in model.model_fields.items() if not field.is_required()} | given)


async def test_lists_are_walked_in_both_orders(svix: SvixAsync) -> None:
    names = [f"a{number}" for number in range(5)]
    for name in names:
        await svix.application.create(ApplicationIn(name=name, uid=name))
        await svix.event_type.create(EventTypeIn(name=name, description=name))
        await svix.endpoint.create("a0", EndpointIn(url=f"https://{name}.example", uid=name))
    for order in ORDERS:
        expected = names if order is Ordering.ASCENDING else names[::-1]
        applications = await walked(
            lambda after, order=order: svix.application.list(  # type: ignore[misc]
                ApplicationListOptions(limit=2, order=order, iterator=after)
            )
        )
        types = await walked(
            lambda after, order=order: svix.event_type.list(  # type: ignore[misc]
                EventTypeListOptions(limit=2, order=order, iterator=after)
            )
        )
        endpoints = await walked(
            lambda after, order=order: svix.endpoint.list(  # type: ignore[misc]
                "a0", EndpointListOptions(limit=2, order=order, iterator=after)
            )
        )
        assert [expected] * 3 == [
            [each.uid for each in applications],
            [each.name for each in types],
            [each.uid for each in endpoints],
        ]


async def test_attempts_are_walked_and_filtered(svix: SvixAsync, installation: Installation) -> None:
    made = await svix.endpoint.create("acme", EndpointIn(url="https://a.example", uid="main"))
    [ring] = (published := await installation.published()).deliveries
    expected = [f"{ring.delivery_id}.{number}" for number in (5, 4, 3, 2, 1)]
    for number in range(1, 6):
        await rows.attempt(installation.pool, ring.delivery_id, number, snippet="oh")
    of_endpoint, of_message = MessageAttemptListByEndpointOptions, MessageAttemptListByMsgOptions

    assert expected == [
        each.id
        for each in await walked(
            lambda after: svix.message_attempt.list_by_endpoint("acme", "main", of_endpoint(limit=2, iterator=after))
        )
    ]
    assert expected == [
        each.id
        for each in await walked(
            lambda after: svix.message_attempt.list_by_msg(
                "acme", published.event_id, of_message(limit=2, iterator=after, endpoint_id=made.id)
            )
        )
    ]
    now = datetime.now(UTC)
    filters: dict[str, Any] = {
        "with_content": False,
        "expanded_statuses": True,
        "after": now - timedelta(days=1),
        "before": now + timedelta(days=1),
        "event_types": ["invoice.paid"],
    }
    for page in (
        await svix.message_attempt.list_by_endpoint("acme", "main", of_endpoint(**filters, with_msg=False)),
        await svix.message_attempt.list_by_msg("acme", published.event_id, of_message(**filters)),
    ):
        assert ([*expected], {""}) == ([each.id for each in page.data], {each.response for each in page.data})


async def test_tasks_are_walked_and_filtered(svix: SvixAsync, installation: Installation) -> None:
    await svix.endpoint.create("acme", EndpointIn(url="https://a.example", uid="main"))
    await dead_letters(installation, 1)
    since, until = datetime.now(UTC) - timedelta(hours=1), datetime.now(UTC) + timedelta(hours=1)
    made = [(await svix.endpoint.recover("acme", "main", RecoverIn(since=since, until=until))).id for _ in range(3)]
    options = BackgroundTaskListOptions
    found = await walked(lambda after: svix.background_task.list(options(limit=2, iterator=after)))

    assert made[::-1] == [each.id for each in found]
    for given, expected in (
        (options(status=BackgroundTaskStatus.RUNNING, task=BackgroundTaskType.ENDPOINT_RECOVER), made[::-1]),
        (options(status=BackgroundTaskStatus.FINISHED), []),
        (options(order=Ordering.DESCENDING), made[::-1]),
    ):
        assert expected == [each.id for each in (await svix.background_task.list(given)).data], given
    with pytest.raises(HTTPValidationError) as caught:
        await svix.background_task.list(options(order=Ordering.ASCENDING))
    assert ["query", "order"] == caught.value.detail[0].loc


async def test_a_member_that_is_null_is_as_one_that_is_left_out(svix: SvixAsync) -> None:
    await svix.application.create(nulls(ApplicationIn, name="Acme", uid="acme"))
    await svix.application.upsert("acme", nulls(ApplicationIn, name="Acme"))
    await svix.application.patch("acme", ApplicationPatch(throttle_rate=None))
    made = await svix.endpoint.create("acme", nulls(EndpointIn, url="https://a.example"))
    assert (None, None, "", {}, False) == (made.uid, made.event_types, made.description, made.metadata, made.disabled)
    assert made.id == (await svix.endpoint.upsert("acme", made.id, nulls(EndpointUpsertIn, url="https://a.example"))).id
    members = ("channels", "event_types", "throttle_rate", "uid")
    await svix.endpoint.patch("acme", made.id, EndpointPatch(**dict.fromkeys(members)))
    await svix.endpoint.rotate_secret("acme", made.id, nulls(EndpointSecretRotateIn))
    await svix.event_type.create(nulls(EventTypeIn, name="a", description="a"))
    await svix.event_type.upsert("a", nulls(EventTypeUpsertIn, description="b"))
    await svix.event_type.patch("a", EventTypePatch(schemas=None, feature_flags=None, group_name=None))
    message = await svix.message.create("acme", nulls(MessageIn, event_type="a", payload={"id": 1}))
    assert ("a", None) == (message.event_type, message.channels)
    await svix.endpoint.recover("acme", made.id, nulls(RecoverIn, since=datetime.now(UTC)))


@pytest.mark.req("API-05")
async def test_a_key_of_the_caller_is_that_of_the_message(svix: SvixAsync) -> None:
    once, message = (
        MessageCreateOptions(idempotency_key="once", with_content=True),
        MessageIn(event_type="a", payload={}),
    )
    message.payload = {"id": 1}
    made = await svix.message.create("acme", message, once)
    assert made == await svix.message.create("acme", message, once)
    assert {"id": 1} == made.payload
    assert {"id": 1} == (await svix.message.get("acme", made.id, MessageGetOptions(with_content=True))).payload
    assert {} == (await svix.message.get("acme", made.id, MessageGetOptions(with_content=False))).payload
    with pytest.raises(HTTPValidationError) as caught:
        await svix.message.create("acme", MessageIn(event_type="a", payload={"id": 2}), once)
    assert ["header", "idempotency-key"] == caught.value.detail[0].loc

    key = ApplicationCreateOptions(idempotency_key="once")
    application = await svix.application.create(ApplicationIn(name="One"), key)
    assert application == await svix.application.create(ApplicationIn(name="One"), key)
    with pytest.raises(HTTPValidationError) as caught:
        await svix.application.create(ApplicationIn(name="Two"), key)
    assert ["header", "idempotency-key"] == caught.value.detail[0].loc


@pytest.mark.req("API-07")
async def test_filters_of_applications_are_refused(svix: SvixAsync) -> None:
    for name in ("no_endpoints", "disabled_endpoints", "svix_play_endpoints"):
        given: dict[str, Any] = {f"exclude_apps_with_{name}": True}
        with pytest.raises(HTTPValidationError) as caught:
            await svix.application.list(ApplicationListOptions(**given))
        assert ["query", *given] == caught.value.detail[0].loc


async def test_the_client_without_async_does_the_same(url: str) -> None:
    def calls() -> None:
        svix = Svix("every", SvixOptions(server_url=url, retry_schedule=[]))
        try:
            assert "acme" == svix.application.get_or_create(ApplicationIn(name="Acme", uid="acme")).id
            made = svix.endpoint.create("acme", EndpointIn(url="https://a.example", uid="main"))
            assert [made] == svix.endpoint.list("acme", EndpointListOptions(limit=1)).data
            assert made.id == svix.endpoint.upsert("acme", "main", EndpointUpsertIn(url="https://b.example")).id
            assert svix.endpoint.patch("acme", "main", EndpointPatch(disabled=True)).disabled
            old = svix.endpoint.get_secret("acme", "main").key
            assert old != svix.endpoint.rotate_secret("acme", "main", EndpointSecretRotateIn()).key
            message = svix.message.create("acme", MessageIn(event_type="a", payload={"id": 1}))
            assert {"id": 1} == svix.message.get("acme", message.id, MessageGetOptions(with_content=True)).payload
            assert [] == svix.message_attempt.list_by_msg("acme", message.id).data
            assert svix.endpoint.delete("acme", "main") is None  # type: ignore[func-returns-value]
            with pytest.raises(HttpError) as caught:
                svix.endpoint.get("acme", "main")
            assert (404, "not_found") == (caught.value.status_code, caught.value.code)
        finally:
            svix._httpx_client.close()

    await asyncio.to_thread(calls)


async def test_the_older_name_of_the_flags_of_an_event_type_may_be_null(client: httpx.AsyncClient) -> None:
    """The JavaScript client of version 1 sends it if a caller gives null."""
    older = {"description": "a", "featureFlag": None, "featureFlags": None}
    for method, path, body in (
        ("POST", "", {"name": "a"} | older),
        ("PUT", "/a", older),
        ("PATCH", "/a", older),
    ):
        response = await client.request(method, f"/api/v1/event-type{path}", json=body)
        assert response.is_success, (method, response.text)
        refused = await client.request(method, f"/api/v1/event-type{path}", json=body | {"featureFlag": "beta"})
        assert (422, ["body", "featureFlag"]) == (refused.status_code, refused.json()["detail"][0]["loc"]), method
