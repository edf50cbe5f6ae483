"""By keyboard alone: every page is reached and every form is sent, and the focus can always be seen."""

from playwright.async_api import Browser, Page

from tests.browser.entering import as_customer, as_operator
from tests.browser.installation import Stage
from tests.browser.visiting import Visit

_FOCUSED = """() => {
  const it = document.activeElement
  const style = getComputedStyle(it)
  const label = it.labels && it.labels[0] ? it.labels[0].innerText : it.getAttribute('aria-label')
  return {
    name: (label || it.innerText || '').trim(),
    tag: it.tagName,
    seen: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0,
  }
}"""
_MOST = 80  # stops on a page


async def focus(page: Page, name: str) -> None:
    """Press Tab until what has this name has the focus. Each stop on the way must be visible."""
    for _ in range(_MOST):
        await page.keyboard.press("Tab")
        found = await page.evaluate(_FOCUSED)
        assert found["seen"] or found["tag"] == "BODY", found
        if found["name"] == name:
            return
    raise AssertionError(f"{name} is not reached by Tab on {page.url}")


async def enter(visit: Visit, name: str, key: str = "Enter") -> None:
    """Go to what has this name, press the key there, and wait for the page that follows."""
    await focus(visit.page, name)
    async with visit.page.expect_navigation():
        await visit.page.keyboard.press(key)


async def test_a_customer_adds_an_endpoint_and_sees_its_secret(browser: Browser, stage: Stage) -> None:
    tenant = stage.tenant()
    async with as_customer(browser, stage, "customer", tenant=tenant) as visit:
        await enter(visit, "Add an endpoint")
        await focus(visit.page, "URL")
        await visit.page.keyboard.type(stage.hook(tenant))
        await enter(visit, "Add", "Space")
        assert stage.hook(tenant) == await visit.heading()
        await enter(visit, "Secret")
        await enter(visit, "Show the secret")
        assert "whsec_" in await visit.text()


async def test_the_first_stop_leads_past_the_navigation(browser: Browser, stage: Stage) -> None:
    async with as_customer(browser, stage, "customer", tenant=stage.tenant()) as visit:
        await visit.open("/")
        await focus(visit.page, "Skip to the content")
        await visit.page.keyboard.press("Enter")
        assert "main" == await visit.page.evaluate("document.activeElement.id")


async def test_an_operator_finds_an_event(browser: Browser, stage: Stage) -> None:
    tenant = stage.tenant()
    await stage.admin.endpoints.add(tenant_id=tenant, url=stage.hook(tenant), event_types=["*"], actor="test")
    event = await stage.publish(tenant)
    delivery = await stage.delivery(tenant)
    async with as_operator(browser, stage, "operator") as visit:
        await focus(visit.page, "Find by webhook-id, event id, correlation id or tenant")
        await visit.page.keyboard.type(event)
        async with visit.page.expect_navigation():
            await visit.page.keyboard.press("Enter")
        await enter(visit, delivery)
        assert f"Delivery {delivery}" == await visit.heading()
