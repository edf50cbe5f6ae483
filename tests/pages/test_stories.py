"""What a customer does, by the forms and links of the pages."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hookseal import Admin
from hookseal.audit import log
from hookseal.ground import ids
from hookseal.pages.views import deliveries
from hookseal.pages.views.verifying import LANGUAGES
from tests import rows
from tests.doubles.logbook import audited
from tests.doubles.stored import Installation
from tests.operations.blocked import blocked
from tests.operations.test_replay_jobs import dead_letters
from tests.pages.browser import Browser
from tests.pages.conftest import Browsing
from tests.worker.world import receiving

pytestmark = pytest.mark.req("UI-01")

SECRET = re.compile(r"whsec_[A-Za-z0-9+/=]{32,}")
JANE = "jane@acme.example"
EXAMPLE = '{"1": {"type": "object", "examples": [{"id": 7}]}}'


async def added(admin: Admin, url: str = "https://a.example/hook", **more: Any) -> str:
    """Add an endpoint of acme, and return its id."""
    given: dict[str, Any] = {"tenant_id": "acme", "url": url, "event_types": ["*"], "actor": "test", **more}
    return (await admin.endpoints.add(**given)).endpoint_id


def last_of(audit: list[dict[str, object]]) -> tuple[object, object]:
    """Return what was done last, and by whom."""
    return audit[-1]["action"], audit[-1]["who"]


async def test_an_endpoint_is_added_with_types_of_the_catalogue(
    jane: Browser, admin: Admin, installation: Installation
) -> None:
    for name in ("invoice.paid", "invoice.sent", "user.added"):
        await admin.event_types.add(name=name, description=f"when {name}", actor="test")
    await jane.open("/")
    assert "You have no endpoint yet" in jane.text
    await jane.follow("Add an endpoint")
    await jane.press(
        "Add",
        url="https://a.example/hook",
        description="Billing\r\nand more",
        every="no",
        type=["invoice.paid", "user.added"],
        more="order.*\r\n\r\n",
        headers="X-Team: billing\r\nAuthorization: Bearer a:b",
    )

    assert (200, True) == (jane.status, "The endpoint is added" in jane.text)
    [endpoint] = (await admin.endpoints.list(tenant_id="acme")).items
    details = await admin.endpoints.get(tenant_id="acme", endpoint_id=endpoint.endpoint_id)
    assert ("https://a.example/hook", "Billing\nand more", ("invoice.paid", "user.added", "order.*")) == (
        *(details.url, details.description, details.event_types),
    )
    assert ("authorization", "x-team") == details.header_names
    assert ("endpoint.added", JANE) == last_of(await audited(installation.pool))
    await jane.open("/")
    assert "https://a.example/hook" in jane.page.links
    assert "Working" in jane.text
    await jane.follow("https://a.example/hook")
    assert "Billing and more" in jane.text
    assert "x-team" in jane.text
    assert "Bearer" not in jane.response.text


async def test_what_is_wrong_is_said_beside_its_field(jane: Browser, admin: Admin, installation: Installation) -> None:
    """In words of a customer; what was typed stays in the form, and nothing is stored."""
    await added(admin, "https://taken.example")
    before = await audited(installation.pool)
    wrong = {
        "url": [
            ("", "The URL must be https"),
            ("http://", "The URL must be"),
            ("https://user:pw@a.example", "The URL holds credentials"),
            ("https://10.0.0.1/", "The URL names an address that may not be dialled"),
            ("https://taken.example", "You already have an endpoint with this URL"),
            ("https://a.example/" + "x" * 2_048, "The URL is longer than"),
        ],
        "headers": [
            ("no colon", "a name, a colon and a value"),
            ("Host: a.example", "header"),
        ],
        "more": [("..", "event type must be words"), ("", "must have at least one")],
        "description": [("x" * 1_025, "The description must be at most")],
    }
    for name, cases in wrong.items():
        for value, said in cases:
            await jane.open("/add")
            given = {"url": "https://b.example", "description": "mine", "every": "no", "more": "a.b", name: value}
            await jane.press("Add", **given)
            assert 422 == jane.status, (name, value)
            assert said.lower() in jane.text.lower(), (name, value, jane.text)
            errors = [given for _, given in jane.page.elements if (given.get("id") or "").startswith("error-")]
            assert 1 == len(errors), (name, value)
            [form] = [form for form in jane.page.forms if "Add" in form.buttons]
            assert value.strip() == form.values[name][0].strip(), (name, value)
            assert "tenant" not in jane.text
            assert "HOOKSEAL" not in jane.text
    assert before == await audited(installation.pool)


async def test_settings_are_changed(jane: Browser, admin: Admin, installation: Installation) -> None:
    endpoint_id = await added(admin, headers={"X-Old": "1", "X-Kept": "2"}, description="first")
    await jane.open(f"/endpoint/{endpoint_id}")
    await jane.follow("Change the settings")
    await jane.press("Save", url="https://a.example/b", remove=["x-old"], headers="X-New: 3")

    assert "The changes are saved" in jane.text
    details = await admin.endpoints.get(tenant_id="acme", endpoint_id=endpoint_id)
    assert ("https://a.example/b", "first", ("x-kept", "x-new")) == (
        *(details.url, details.description, details.header_names),
    )
    assert ("endpoint.updated", JANE) == last_of(await audited(installation.pool))
    rows_before = await audited(installation.pool)
    await jane.open(f"/endpoint/{endpoint_id}/edit")
    await jane.press("Save")
    assert "Nothing was changed" in jane.text
    assert rows_before == await audited(installation.pool)


@pytest.mark.req("DEL-13", part="sealed-values")
@pytest.mark.parametrize(("visitor", "chosen"), [("manager", "remove"), ("jane", "remove"), ("jane", "keep")])
async def test_before_headers_are_removed_for_another_server_the_page_asks(
    visitor: str, chosen: str, browsing: Browsing, admin: Admin
) -> None:
    """It names them. Only who may reveal may keep them, whatever the form says."""
    endpoint_id = await added(admin, headers={"X-Old": "1"})
    named: dict[str, Any] = {"tenant_id": "acme", "endpoint_id": endpoint_id}
    async with browsing(visitor) as browser:
        await browser.open(f"/endpoint/{endpoint_id}/edit")
        await browser.press("Save", url="https://b.example", headers="X-New: 3")
        assert (409, True) == (browser.status, "is of another server, which does not get: header x-old" in browser.text)
        assert (1, ("x-old",)) == (
            (before := await admin.endpoints.get(**named)).generation,
            before.header_names,
        )
        [form] = [form for form in browser.page.forms if "Save" in form.buttons]
        assert (["remove"] if visitor == "manager" else ["remove", "keep"]) == form.options["sealed"]
        if visitor == "manager":
            await browser.press("Save", sealed="keep")
            assert (403, 1) == (browser.status, (await admin.endpoints.get(**named)).generation)
        await browser.send(form, sealed=chosen)
    after = await admin.endpoints.get(**named)
    assert ("https://b.example", ("x-new", "x-old") if chosen == "keep" else ("x-new",)) == (
        *(after.url, after.header_names),
    )


@pytest.mark.parametrize(
    ("theirs", "shown"),
    [
        ({"description": "theirs"}, ("Description", "first", "theirs")),
        ({"url": "https://theirs.example"}, ("URL", "https://a.example/hook", "https://theirs.example")),
        ({"event_types": ["a.b"]}, ("Event types", "*", "a.b")),
        ({"headers": {"X-A": "1"}}, ("Headers", "", "x-a")),
    ],
)
async def test_the_second_of_two_people_sees_what_changed(
    theirs: dict[str, Any], shown: tuple[str, str, str], jane: Browser, admin: Admin
) -> None:
    """Nothing is overwritten; what they typed is still there, and saved when they save again."""
    endpoint_id = await added(admin, description="first")
    await jane.open(f"/endpoint/{endpoint_id}/edit")
    await admin.endpoints.update(tenant_id="acme", endpoint_id=endpoint_id, actor="test", **theirs)
    await jane.press("Save", description="mine")

    assert (409, True) == (jane.status, "Somebody changed this endpoint" in jane.text)
    assert " ".join(" ".join(shown).split()) in jane.text
    assert "mine" != (await admin.endpoints.find(tenant_id="acme", endpoint_id=endpoint_id)).description
    await jane.press("Save")
    assert (200, "mine") == (
        jane.status,
        (await admin.endpoints.find(tenant_id="acme", endpoint_id=endpoint_id)).description,
    )


async def test_a_secret_is_shown_when_somebody_asks_for_it(
    jane: Browser, admin: Admin, installation: Installation
) -> None:
    """By a form, on record, in no address, and kept by no cache."""
    endpoint_id = await added(admin)
    await jane.open(f"/endpoint/{endpoint_id}/secret")
    assert not SECRET.search(jane.response.text)
    assert "One secret signs each request: number 1" in jane.text
    await jane.press("Show the secret")

    revealed = await admin.secrets.reveal(tenant_id="acme", endpoint_id=endpoint_id, actor="test")
    assert revealed.secret is not None
    assert revealed.secret.reveal().decode() in jane.page.text
    assert "no-store" == jane.response.headers["cache-control"]
    assert not SECRET.search(str(jane.response.url))
    assert ("secret.revealed", JANE) == last_of((await audited(installation.pool))[:-1])


async def test_a_secret_is_shown_with_its_own_number(jane: Browser, admin: Admin, installation: Installation) -> None:
    """Also if another one replaces it while the page is made: after the secret was read, and before its status is."""
    endpoint_id = await added(admin)
    how: dict[str, Any] = {"tenant_id": "acme", "endpoint_id": endpoint_id, "actor": "test", "overlap_seconds": 0}

    async def rotate() -> None:
        async with installation.pool.acquire() as connection, connection.transaction():
            await connection.execute("LOCK TABLE hookseal.endpoints")  # who reads it next waits until it is rotated
            await admin.secrets.rotate(**how, algorithm="ed25519", connection=connection)

    await jane.open(f"/endpoint/{endpoint_id}/secret")
    async with asyncio.TaskGroup() as tasks, installation.pool.acquire() as connection, connection.transaction():
        await log.lock_chain(connection, ids.TenantId("acme"))
        tasks.create_task(jane.press("Show the secret"))
        await blocked(installation)  # it has read the secret, and cannot record it
        tasks.create_task(rotate())
        await blocked(installation, 2)

    assert "One secret signs each request: number 2" in jane.text
    assert "The secret, number 1" in jane.text


async def test_a_secret_is_rotated_asked_for_rolled_back_and_ended(
    jane: Browser, admin: Admin, installation: Installation
) -> None:
    async with receiving() as receiver:
        endpoint_id = await added(admin, f"{receiver.base_url}/hook")
        await jane.open(f"/endpoint/{endpoint_id}/secret")
        first = next(form for form in jane.page.forms if "Make a new secret" in form.buttons)
        await jane.press("Make a new secret", overlap="3600")
        assert "number 2, the new one, and number 1, the old one, until" in jane.text
        assert not SECRET.search(jane.response.text)
        await jane.send(first)  # the same form, pressed twice
        assert "number 2, the new one, and number 1, the old one" in jane.text
        assert 2 == (await admin.secrets.status(tenant_id="acme", endpoint_id=endpoint_id)).generation

        await jane.press("Ask it")
        assert "It does not verify" in jane.text  # this receiver accepts everything
        await jane.press("Go back to the old secret")
        assert "number 1, the new one, and number 2, the old one" in jane.text
        await jane.press("End the old secret")
        assert "One secret signs each request: number 1" in jane.text
    done = [(row["action"], row["who"]) for row in await audited(installation.pool)]
    assert [("secret.rotated", JANE), ("secret.rolled_back", JANE), ("secret.overlap_ended", JANE)] == [
        each for each in done if each[0] in {"secret.rotated", "secret.rolled_back", "secret.overlap_ended"}
    ]


async def test_the_second_of_two_who_rotate_sees_it(jane: Browser, admin: Admin) -> None:
    endpoint_id = await added(admin)
    await jane.open(f"/endpoint/{endpoint_id}/secret")
    await admin.secrets.rotate(tenant_id="acme", endpoint_id=endpoint_id, actor="test")
    await jane.press("Make a new secret", overlap="0")
    assert (409, True) == (jane.status, "Somebody changed this endpoint" in jane.text)
    assert "number 2, the new one, and number 1, the old one" in jane.text
    [form] = [form for form in jane.page.forms if "Make a new secret" in form.buttons]
    assert ["0"] == form.options["overlap"]  # no other one is possible while two sign
    await jane.send(form, overlap="3600")
    assert (409, True) == (jane.status, "Two secrets sign already" in jane.text)
    await jane.press("Make a new secret", overlap="0")
    assert (200, True) == (jane.status, "One secret signs each request: number 3" in jane.text)


async def test_an_endpoint_is_disabled_and_enabled(jane: Browser, admin: Admin, installation: Installation) -> None:
    endpoint_id = await added(admin)
    await jane.open(f"/endpoint/{endpoint_id}")
    await jane.press("Disable")
    assert "The endpoint is disabled. Its deliveries wait" in jane.text
    await installation.deliveries()
    await jane.open("/")
    assert "Disabled" in jane.text
    await jane.open(f"/endpoint/{endpoint_id}")
    await jane.press("Enable, and send what waits")
    assert "Deliveries that waited and are sent now: 1." in jane.text
    assert (await admin.endpoints.find(tenant_id="acme", endpoint_id=endpoint_id)).enabled
    done = [(row["action"], row["who"]) for row in await audited(installation.pool)]
    assert [("endpoint.disabled", JANE), ("endpoint.enabled", JANE)] == done[-2:]


async def test_a_paused_endpoint_is_tried(jane: Browser, admin: Admin, installation: Installation) -> None:
    endpoint_id = await added(admin)
    await rows.hold(installation.pool, endpoint_id, waiting_for="breaker", probe_at=rows.ahead(minutes=5))
    await jane.open(f"/endpoint/{endpoint_id}")
    assert "Paused" in jane.text
    assert "Your receiver failed many times in a row" in jane.text
    await jane.press("Try one now")
    assert "The oldest delivery that waits is tried now" in jane.text


async def test_an_endpoint_is_deleted_after_a_question(jane: Browser, admin: Admin, installation: Installation) -> None:
    endpoint_id = await added(admin)
    await installation.deliveries()
    await jane.open(f"/endpoint/{endpoint_id}")
    await jane.follow("Delete")
    assert "what waits for it is cancelled: 1" in jane.text
    await jane.press("Delete")
    assert "Deliveries that were cancelled: 1." in jane.text
    assert () == (await admin.endpoints.list(tenant_id="acme")).items
    assert ("endpoint.deleted", JANE) == last_of(await audited(installation.pool))


async def test_an_example_is_sent(jane: Browser, admin: Admin, installation: Installation) -> None:
    endpoint_id = await added(admin)
    await admin.event_types.add(name="none.such", description="", actor="test")
    await jane.open(f"/endpoint/{endpoint_id}/test")
    assert "Ask the support of the product to add one" in jane.text
    await admin.event_types.add(name="invoice.paid", description="", schemas=EXAMPLE, actor="test")
    await jane.open(f"/endpoint/{endpoint_id}/test")
    [form] = [form for form in jane.page.forms if "Send" in form.buttons]
    assert ["invoice.paid"] == form.options["type"]
    await jane.press("Send")
    assert "The test event is on its way" in jane.text
    assert "invoice.paid" in jane.text
    [delivery] = (await admin.deliveries.list(tenant_id="acme", endpoint_id=endpoint_id)).items
    body = await admin.events.payload(tenant_id="acme", event_id=delivery.event_id, actor="test")
    assert b'{"id": 7}' == body
    assert JANE in [row["who"] for row in await audited(installation.pool)]
    for name in ("none.such", "no.such", "", ".."):
        await jane.open(f"/endpoint/{endpoint_id}/test")
        await jane.press("Send", type=name)
        assert (422, True) == (jane.status, "Choose a type that has an example" in jane.text)


async def test_deliveries_are_found_by_state_type_time_and_endpoint(
    jane: Browser, admin: Admin, installation: Installation
) -> None:
    endpoint_id, other = await added(admin), await added(admin, "https://b.example", event_types=["b"])
    now, day = datetime.now(UTC), timedelta(days=1)
    old = await rows.event(installation.pool, event_type="old")
    await rows.delivery(
        installation.pool, endpoint_id, old, id=ids.first_uuid7(now - 2 * day), state="delivered", created_at=rows.NOW
    )
    await rows.publish(installation.pool, 2, event_type="a")
    await rows.publish(installation.pool, event_type="b")  # to both endpoints

    async def number(**query: str) -> int:
        await jane.open("/deliveries?" + "&".join(f"{name}={value}" for name, value in query.items()))
        assert 200 == jane.status, query
        return len(re.findall(r'href="/delivery/', jane.response.text))

    yesterday = (now - day).strftime("%Y-%m-%dT%H:%M")
    assert 5 == await number()
    assert 1 == await number(state="delivered")
    assert 2 == await number(type="a", state="pending")
    assert 1 == await number(endpoint=other)
    assert 4 == await number(endpoint=endpoint_id)
    assert 1 == await number(until=yesterday)
    assert 4 == await number(since=yesterday)
    for wrong, said in (
        ("since=tomorrow", "Since must be a date"),
        ("type=..", "event type must be words"),
        ("after=none", "cursor"),
    ):
        await jane.open(f"/deliveries?{wrong}")
        assert (422, True) == (jane.status, said.lower() in jane.text.lower()), (wrong, jane.text)


async def test_pages_follow_one_another(jane: Browser, admin: Admin, installation: Installation) -> None:
    await added(admin)
    await rows.publish(installation.pool, 30)
    await jane.open("/deliveries?state=pending")
    seen = set(re.findall(r'href="(/delivery/[^"]+)"', jane.response.text))
    await jane.follow("Older")
    seen |= set(re.findall(r'href="(/delivery/[^"]+)"', jane.response.text))
    assert 30 == len(seen)
    assert "Older" not in jane.page.links
    await jane.follow("Newest")
    assert "Older" in jane.page.links


async def test_a_search_that_goes_on_says_so(
    jane: Browser, admin: Admin, installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page searches so many deliveries; what it does not find is not said to be nowhere."""
    monkeypatch.setattr(deliveries, "SEARCHED", 3)  # in place of 3,000
    await added(admin)
    await rows.publish(installation.pool, event_type="a")
    await rows.publish(installation.pool, 4, event_type="b")
    await jane.open("/deliveries?type=a")
    assert "There is none among those that were searched" in jane.text
    await jane.follow("Older")
    assert 1 == len(re.findall(r'href="/delivery/', jane.response.text))


async def test_a_delivery_shows_every_attempt(jane: Browser, admin: Admin, installation: Installation) -> None:
    endpoint_id = await added(admin, headers={"X-Team": "hidden-value"})
    [delivery] = await rows.publish(installation.pool, body='{"amount": 12}')
    ref = (await admin.secrets.status(tenant_id="acme", endpoint_id=endpoint_id)).secret_ref
    given: dict[str, Any] = {"signed_by": [ref]}
    await rows.attempt(installation.pool, delivery, 1, status=503, outcome="throttled", snippet="come later", **given)
    await rows.attempt(installation.pool, delivery, 2, status=None, outcome="timeout", duration_ms=5_000, **given)
    await rows.attempt(installation.pool, delivery, 3, duration_ms=7, **given)
    await jane.open(f"/delivery/{delivery}")

    for said in (
        *("Attempt 1: Overloaded", "Attempt 2: Timed out", "Attempt 3: Accepted", "come later", "5000 ms", "7 ms"),
        *("secret number 1", "https://a.example/hook", "x-team", "webhook-signature"),
    ):
        assert said in jane.text, said
    assert "hidden-value" not in jane.response.text
    assert "amount" not in jane.response.text
    await jane.press("Show the body")
    assert '"amount": 12' in jane.text
    assert ("event.payload_read", JANE) == last_of(await audited(installation.pool))


async def test_a_delivery_of_a_later_version_is_shown(jane: Browser, admin: Admin, installation: Installation) -> None:
    """Its endpoint may have a scheme whose headers this version does not know."""
    endpoint_id = await added(admin)
    await installation.set_scheme(ids.EndpointId(endpoint_id), "later")
    [delivery] = await rows.publish(installation.pool)
    await jane.open(f"/delivery/{delivery}")
    assert 200 == jane.response.status_code
    assert "those of its scheme" in jane.text


async def test_every_attempt_of_many_is_shown(jane: Browser, admin: Admin, installation: Installation) -> None:
    await added(admin)
    [delivery] = await rows.publish(installation.pool)
    for number in range(1, 31):
        await rows.attempt(installation.pool, delivery, number, status=500, outcome="server_error", snippet="x" * 2_048)
    await jane.open(f"/delivery/{delivery}")
    seen = re.findall(r"Attempt ([0-9]+):", jane.text)
    assert "x" * 2_048 in jane.text
    while "Earlier attempts" in jane.page.links:
        await jane.follow("Earlier attempts")
        seen += re.findall(r"Attempt ([0-9]+):", jane.text)
    assert [str(number) for number in range(30, 0, -1)] == seen
    await jane.follow("Newest attempts")
    assert "Attempt 30:" in jane.text


async def test_a_delivery_is_sent_again(jane: Browser, admin: Admin, installation: Installation) -> None:
    endpoint_id = await added(admin)
    [delivery] = await dead_letters(installation, 1)
    await jane.open(f"/delivery/{delivery}")
    assert "Given up" in jane.text
    page = jane.page
    await jane.press("Send it again")
    assert "The delivery is sent again" in jane.text
    assert "Waiting" in jane.text
    assert ("delivery.replayed", JANE) == last_of(await audited(installation.pool))
    jane.page = page  # pressed twice
    await jane.press("Send it again")
    assert (409, True) == (jane.status, "It is on its way already" in jane.text)
    await admin.endpoints.disable(tenant_id="acme", endpoint_id=endpoint_id, reason="test", actor="test")
    await rows.set_state(installation.pool, "dead_letter", delivery)
    await jane.open(f"/delivery/{delivery}")
    assert "Send it again" not in jane.page.buttons


async def test_what_failed_is_sent_again_after_its_number_was_shown(
    jane: Browser, admin: Admin, installation: Installation
) -> None:
    endpoint_id = await added(admin)
    await dead_letters(installation, 3)
    await jane.open(f"/endpoint/{endpoint_id}")
    await jane.follow("Recover")
    assert "Send them again" not in jane.page.buttons
    since = (datetime.now(UTC) - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M")
    await jane.press("Count", since=since)
    assert "3 deliveries since" in jane.text
    await jane.press("Send them again")
    assert "On their way 0 of 3" in jane.text
    await jane.follow("Look again")
    await jane.press("Stop it")
    assert "The rest is not sent again" in jane.text
    assert ["replay.started", "replay.cancelled"] == [
        row["action"] for row in await audited(installation.pool) if row["who"] == JANE
    ]
    await jane.open(f"/endpoint/{endpoint_id}/recover")
    later = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M")
    await jane.press("Count", since="1000-01-01T00:00")
    assert (422, True) == (jane.status, "The time must be" in jane.text)
    await jane.open(f"/endpoint/{endpoint_id}/recover")
    await jane.press("Count", since=later)
    assert 422 == jane.status


async def test_how_to_verify_is_shown_in_each_language(jane: Browser, admin: Admin) -> None:
    endpoint_id = await added(admin)
    for language in LANGUAGES.values():
        await jane.open(f"/endpoint/{endpoint_id}/verify")
        await jane.press("Show", language=language.id)
        assert " ".join(language.code.split()) in jane.text, language.name
    assert len(LANGUAGES) == 10
    for name, said in (("ed25519", "whpk_"), ("hmac", "x-webhook-signature")):
        scheme = "standard" if name == "ed25519" else "x-webhook"
        other = await added(admin, f"https://{name}.example", algorithm=name, scheme=scheme)
        await jane.open(f"/endpoint/{other}/verify")
        assert said in jane.text
