"""Who is on call: finds an event in two steps, sees why it waits, and sends again, skips and cancels."""

from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser

from tests import rows
from tests.browser.entering import as_customer, as_operator
from tests.browser.installation import Stage
from tests.worker.waiting import eventually
from tests.worker.world import status

STORY = "operator"


async def given_up(stage: Stage, tenant: str, number: int = 1, *, ordered: bool = False) -> tuple[str, list[str]]:
    """Return an endpoint whose receiver fails, and the ids of as many events, of which each was given up."""
    path = f"/{tenant}"
    stage.receiver.answers[path] = status(500)
    added = await stage.admin.endpoints.add(
        tenant_id=tenant,
        url=stage.hook(tenant),
        event_types=["*"],
        max_attempts=1,
        ordered=ordered,
        actor="test",
    )
    events = [await stage.publish(tenant, correlation_id=f"order:{tenant}") for _ in range(number)]

    async def ended() -> bool:
        page = await stage.admin.deliveries.list(tenant_id=tenant, states=["dead_letter"])
        return len(page.items) == (1 if ordered else number)

    await eventually(ended)
    del stage.receiver.answers[path]
    return added.endpoint_id, events


async def test_an_event_is_found_in_two_steps_and_sent_again(
    browser: Browser, stage: Stage, with_javascript: bool
) -> None:
    """By its id alone, whosever it is; the page says why it is not delivered, and its payload only if it is asked."""
    tenant = stage.tenant()
    _, [event] = await given_up(stage, tenant)
    async with as_operator(browser, stage, STORY, java_script_enabled=with_javascript) as visit:
        await visit.fill("Find by webhook-id, event id, correlation id or tenant", event)
        await visit.press("Find")
        assert f"Event {event}" == await visit.heading()
        assert '"id"' not in await visit.text()

        delivery = await stage.delivery(tenant, "dead_letter")
        await visit.follow(delivery)
        text = await visit.text()
        assert "It is a dead letter: all its attempts are spent (1)" in text
        assert "server_error, status 500" in text

        await visit.press("Send it again")
        assert "sent again" in await visit.text()
        assert event == (await stage.received(tenant, 2)).headers["x-hookseal-event-id"]

        await visit.open(f"/operator/tenant/{tenant}/event/{event}")
        await visit.press("Read the payload")
        assert '{"id":1}' in "".join((await visit.text()).split())
        await visit.follow("Audit log")
        assert "event.payload_read" in await visit.text()
        rows = await stage.admin.audit.list(tenant_id=tenant, action="event.payload_read")
        assert "operator@test" in rows.items[0].actor


async def test_what_was_given_up_is_counted_sent_and_cancelled(
    browser: Browser, stage: Stage, with_javascript: bool
) -> None:
    """The number comes first and changes nothing; a job that runs shows its progress, and the rest can be cancelled."""
    tenant = stage.tenant()
    await given_up(stage, tenant, 5)
    async with as_operator(browser, stage, STORY, java_script_enabled=with_javascript) as visit:
        await visit.open(f"/operator/tenant/{tenant}/replay")
        await visit.press("Count")
        assert "5 would be sent again" in await visit.text()
        assert () == (await stage.admin.replays.list(tenant_id=tenant)).items

        await visit.fill("At most so many a second (1 to 1,000)", "1")
        await visit.press("Send them again")
        assert "of 5 sent again" in await visit.text()
        await visit.press("Cancel the rest")
        assert "Cancelled" in await visit.text()
        [job] = (await stage.admin.replays.list(tenant_id=tenant)).items
        assert "cancelled" == job.state
        assert job.replayed < 5


async def test_an_ordered_endpoint_goes_on_behind_what_stops_it(
    browser: Browser, stage: Stage, with_javascript: bool
) -> None:
    tenant = stage.tenant()
    _, [first, second] = await given_up(stage, tenant, 2, ordered=True)
    async with as_operator(browser, stage, STORY, java_script_enabled=with_javascript) as visit:
        await visit.open(f"/operator/endpoints?state=stopped&tenant={tenant}")
        await visit.follow("what stops it")
        await visit.press("Go on behind it")
        assert "goes on" in await visit.text()
        assert second == (await stage.received(tenant, 2)).headers["x-hookseal-event-id"]
    assert first != second


@pytest.mark.timeout(400)  # axe-core looks at twenty pages, in both themes
async def test_each_page_is_accessible_and_fits_a_narrow_window(browser: Browser, stage: Stage, shots: Path) -> None:
    tenant = stage.tenant()
    endpoint, [event, *_] = await given_up(stage, tenant, 3)
    delivery = await stage.delivery(tenant)
    states: list[dict[str, Any]] = [{"enabled": False, "reason": "It moved"}, {}, {}]
    for number, state in enumerate(states):
        added = await stage.admin.endpoints.add(
            tenant_id=tenant, url=f"{stage.hook(tenant)}/{number}", event_types=["no.such"], actor="test", **state
        )
        if number == 1:
            await rows.change(stage.world.pool, "endpoints", added.endpoint_id, first_failure_at=rows.NOW)
        if number == 2:
            await rows.hold(stage.world.pool, added.endpoint_id, tenant=tenant, probe_at=rows.ahead(hours=1))
    job = await stage.admin.replays.start(tenant_id=tenant, endpoint_id=endpoint, rate_per_second=1, actor="test")
    at = f"/operator/tenant/{tenant}"
    async with as_operator(browser, stage, STORY) as visit:
        for path in (
            "/operator",
            f"/operator/search?q=order:{tenant}",
            "/operator/search?q=a+b",
            "/operator/search?q=nothing",
            "/operator/endpoints?state=trouble",
            f"/operator/endpoints?tenant={tenant}",
            "/operator/endpoints?state=no-such",
            f"/operator/endpoints?state=disabled&tenant={tenant}",
            f"/operator/deliveries?tenant={tenant}",
            "/operator/deliveries?since=never",
            "/operator/replays",
            "/operator/tenants",
            "/operator/keys",
            at,
            f"{at}/event/{event}",
            f"{at}/delivery/{delivery}",
            f"{at}/replay?since=2026-01-01T00:00",
            f"{at}/replays/{job.replay_id}",
            f"{at}/audit",
            f"{at}/audit?action=endpoint.added",
            "/operator/tenant/_system/audit",
            f"{at}/event/no-such",
        ):
            await visit.open(path)
            await visit.check(STORY)
        await visit.open("/operator")
        await visit.page.screenshot(path=shots / "operator.png", full_page=True)


async def test_a_customer_sees_nothing_of_it(browser: Browser, stage: Stage) -> None:
    """Nor does who is not signed in: each page of an operator is refused, and says nothing."""
    tenant, other = stage.tenant(), stage.tenant()
    await given_up(stage, other)
    async with as_customer(browser, stage, STORY, tenant=tenant) as visit:
        for path in ("/operator", "/operator/endpoints", f"/operator/tenant/{other}", "/operator/keys"):
            answer = await visit.open(path)
            assert answer is not None
            assert 403 == answer.status
            assert other not in await visit.text()
