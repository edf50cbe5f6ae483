"""A customer: from the first endpoint to the recovery of what failed, with scripts and without."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from playwright.async_api import Browser, expect

from tests.browser.entering import as_customer
from tests.browser.installation import EVENT_TYPES, Stage, verified
from tests.browser.visiting import Visit
from tests.worker.waiting import eventually
from tests.worker.world import status

STORY = "customer"


async def shown_secret(visit: Visit) -> str:
    """Show the secret by a deliberate act, and return it."""
    await visit.follow("Secret")
    assert "whsec_" not in await visit.page.content()
    await visit.press("Show the secret")
    secret: str = await visit.page.locator(".secret code").inner_text()
    assert secret.startswith("whsec_")
    assert "whsec_" not in visit.page.url
    return secret


async def test_from_the_first_endpoint_to_a_verified_event(
    browser: Browser, stage: Stage, with_javascript: bool
) -> None:
    """A wrong URL is named beside its field; the secret verifies the test event; the delivery shows the answer."""
    tenant = stage.tenant()
    stage.receiver.answers[f"/{tenant}"] = status(200)
    async with as_customer(browser, stage, STORY, tenant=tenant, java_script_enabled=with_javascript) as visit:
        assert "Endpoints" == await visit.heading()
        await visit.follow("Add an endpoint")
        await visit.fill("URL", "https://10.0.0.7/hook")
        await visit.press("Add")
        field = visit.page.get_by_label("URL", exact=True)
        await expect(field).to_have_attribute("aria-invalid", "true")
        await expect(field).to_have_value("https://10.0.0.7/hook")
        await expect(visit.page.get_by_role("alert")).to_be_visible()

        await visit.fill("URL", stage.hook(tenant))
        await visit.fill("Description", "Books <b>all</b> of it")
        await visit.page.get_by_label("Only these:").check()
        await visit.page.get_by_role("checkbox", name="invoice.paid").check()
        await visit.fill("Headers of your own", "X-Team: billing")
        await visit.press("Add")
        assert "The endpoint is added" in await visit.text()
        secret = await shown_secret(visit)
        await visit.follow("Overview")
        assert stage.hook(tenant) == await visit.heading()
        assert "Books <b>all</b> of it" in await visit.text()
        assert "billing" not in await visit.page.content()

        await visit.follow("Test")
        await visit.page.get_by_label("Event type").select_option("invoice.paid")
        await visit.press("Send")
        got = await stage.received(tenant)
        assert EVENT_TYPES["invoice.paid"] == verified(got, secret)
        assert "billing" == got.headers["x-team"]

        delivery = await stage.delivery(tenant, "delivered")
        await visit.open(f"/delivery/{delivery}")
        text = await visit.text()
        assert "Delivered" in text
        assert "as you like it" in text
        assert stage.hook(tenant) in text
        await visit.press("Show the body")
        assert json.dumps(EVENT_TYPES["invoice.paid"]["total"]) in await visit.text()
        await visit.press("Send it again")
        assert got.headers["webhook-id"] == (await stage.received(tenant, 2)).headers["webhook-id"]
    rows = await stage.admin.audit.list(tenant_id=tenant)
    by_jane = {row.action for row in rows.items if row.actor.endswith("/jane")}
    assert {"endpoint.added", "secret.revealed", "event.payload_read"} <= by_jane


async def test_a_secret_is_rotated_and_the_old_one_ends(browser: Browser, stage: Stage, with_javascript: bool) -> None:
    """While both sign, the receiver verifies with either; it is asked whether it has switched; the old one ends."""
    tenant = stage.tenant()
    await stage.admin.endpoints.add(tenant_id=tenant, url=stage.hook(tenant), event_types=["*"], actor="test")
    async with as_customer(browser, stage, STORY, tenant=tenant, java_script_enabled=with_javascript) as visit:
        await visit.follow(stage.hook(tenant))
        old = await shown_secret(visit)
        await visit.page.get_by_label("How long the old secret signs beside the new one").select_option("an hour")
        await visit.press("Make a new secret")
        assert "Two secrets sign each request" in await visit.text()
        new = await shown_secret(visit)
        await stage.publish(tenant)
        got = await stage.received(tenant)
        assert {"id": 1} == verified(got, old)["data"] == verified(got, new)["data"]

        await visit.press("Ask it")
        assert "It does not verify" in await visit.text()  # this receiver accepts whatever comes
        await visit.press("Go back to the old secret")
        assert old == await shown_secret(visit)
        await visit.press("End the old secret")
        assert "One secret signs each request" in await visit.text()


async def test_what_failed_is_recovered_and_what_waited_goes_out(
    browser: Browser, stage: Stage, with_javascript: bool
) -> None:
    """A disabled endpoint gets its deliveries when it is enabled; what was given up is counted, and sent again."""
    tenant, path = stage.tenant(), ""
    path = f"/{tenant}"
    stage.receiver.answers[path] = status(500)
    await stage.admin.endpoints.add(
        tenant_id=tenant, url=stage.hook(tenant), event_types=["*"], max_attempts=1, actor="test"
    )
    lost = await stage.publish(tenant)
    await stage.delivery(tenant, "dead_letter")
    del stage.receiver.answers[path]
    async with as_customer(browser, stage, STORY, tenant=tenant, java_script_enabled=with_javascript) as visit:
        await visit.follow(stage.hook(tenant))
        assert "Last failure" in await visit.text()
        await visit.press("Disable")
        late = await stage.publish(tenant)
        await visit.press("Enable, and send what waits")
        assert late == (await stage.received(tenant, 2)).headers["x-hookseal-event-id"]

        await visit.follow("Recover")
        since = (datetime.now(UTC) - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M")
        await visit.fill("Since (UTC)", since)
        await visit.press("Count")
        assert "1 delivery since" in await visit.text()
        await visit.press("Send it again")
        assert lost == (await stage.received(tenant, 3)).headers["x-hookseal-event-id"]

        async def done() -> bool:
            await visit.page.reload()
            return "1 of 1" in await visit.text()

        await eventually(done)
        await visit.follow("Overview")
        await visit.follow("Delete")
        await visit.press("Delete")
        assert "You have no endpoint yet" in await visit.text()


async def test_what_others_send_is_text(browser: Browser, stage: Stage, with_javascript: bool) -> None:
    """The answer of a receiver, a description and a type full of markup, bidirectional marks and NUL are harmless."""
    tenant = stage.tenant()
    markup = "<script>document.title='owned'</script><img src=x onerror=alert(1)>"
    evil = f"{markup}\u202etxt.exe\x00{'w' * 3_000}"

    async def answer() -> web.Response:
        return web.Response(status=500, text=evil)

    stage.receiver.answers[f"/{tenant}"] = answer
    added = await stage.admin.endpoints.add(
        tenant_id=tenant, url=stage.hook(tenant), event_types=["*"], description=markup, actor="test"
    )
    await stage.publish(tenant, {"evil": evil.replace("\x00", "")})
    await stage.received(tenant)
    async with as_customer(browser, stage, STORY, tenant=tenant, java_script_enabled=with_javascript) as visit:
        await visit.open(f"/endpoint/{added.endpoint_id}")
        assert markup in await visit.text()
        delivery = await stage.delivery(tenant)

        async def attempted() -> bool:
            await visit.open(f"/delivery/{delivery}")
            return "Answer" in await visit.text()

        await eventually(attempted)
        answered = await visit.page.get_by_label("Answer to attempt 1").inner_text()
        assert answered.startswith(markup)
        assert len(answered) < 2_100
        await visit.press("Show the body")
        body = await visit.page.get_by_label("Body", exact=True).inner_text()
        assert markup in body
        for shown in (answered, body):
            assert "\u202e" not in shown
        assert "owned" not in await visit.page.title()
        assert 0 == await visit.page.locator("main script, main img").count()


@pytest.mark.timeout(400)  # axe-core looks at twenty pages, in both themes
async def test_each_page_is_accessible_and_fits_a_narrow_window(browser: Browser, stage: Stage, shots: Path) -> None:
    tenant = stage.tenant()
    url = stage.hook(tenant) + "/" + "long" * 60
    stage.receiver.answers[f"/{tenant}"] = status(200)
    one = await stage.admin.endpoints.add(
        tenant_id=tenant,
        url=stage.hook(tenant),
        event_types=["invoice.*"],
        headers={"X-Team": "billing"},
        description="The books",
        actor="test",
    )
    await stage.admin.endpoints.add(
        tenant_id=tenant, url=url, event_types=["*"], enabled=False, reason="off", actor="test"
    )
    await stage.admin.secrets.rotate(tenant_id=tenant, endpoint_id=one.endpoint_id, actor="test")
    await stage.publish(tenant)
    await stage.received(tenant)
    delivery = await stage.delivery(tenant, "delivered")
    at = f"/endpoint/{one.endpoint_id}"
    async with as_customer(browser, stage, STORY, tenant=tenant) as visit:
        for path in (
            "/",
            "/add",
            at,
            f"{at}/edit",
            f"{at}/delete",
            f"{at}/secret",
            f"{at}/test",
            f"{at}/recover?since=2026-01-01T00:00",
            f"{at}/recover?since=never",
            f"{at}/verify",
            "/deliveries",
            "/deliveries?since=never",
            f"/delivery/{delivery}",
            "/no-such-page",
            "/login?code=spent",
        ):
            await visit.open(path)
            await visit.check(STORY)
        await visit.open("/add")
        await visit.fill("URL", "https://10.0.0.7/hook")
        await visit.press("Add")
        await visit.check(STORY)
        await visit.open(f"{at}/secret")
        await visit.press("Show the secret")
        await visit.check(STORY)
        await visit.open(at)
        await visit.page.screenshot(path=shots / "customer.png", full_page=True)
    async with as_customer(browser, stage, STORY, tenant=tenant, scopes=["read"]) as visit:
        for path in ("/", at, f"{at}/secret", "/add"):
            await visit.open(path)
            await visit.check(STORY)
