"""`hookseal delivery` lists deliveries, shows their attempts, and replays them."""

from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hookseal.admin import Delivery
from hookseal.cli.delivery import _row
from hookseal.dispatcher.core.model import Ring
from hookseal.ground.ids import first_uuid7
from tests import rows
from tests.cli.command import hookseal, on_a_terminal
from tests.cli.documented import documented
from tests.cli.installation import Begun

UNKNOWN = "0197c1f0-5e6a-7c3b-9d2e-4f5061728394"
STARTED = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
STEERING = "a\x1b[2J\x9b31m\r\u202eb"
REF = "db:acme:webhook-endpoint-x:1"


async def attempted(begun: Begun, ring: Ring) -> None:
    """Record the delivery as delivered at its second attempt."""
    for number, outcome, status, snippet in ((1, "http_error", 503, STEERING), (2, "delivered", 204, None)):
        facts: dict[str, Any] = {
            "started_at": STARTED,
            "duration_ms": 12,
            "status": status,
            "outcome": outcome,
            "snippet": snippet,
        }
        await rows.attempt(begun.stored.pool, ring.delivery_id, number, **facts, signed_by=[REF], worker="w-1")
    await rows.set_state(begun.stored.pool, "delivered", ring.delivery_id, attempts=2)


async def listed(begun: Begun, *options: str) -> list[str]:
    """Return the ids of the deliveries on the one listed page."""
    ended = await begun.run("delivery", "list", *options, "--json")
    assert (0, "") == (ended.code, ended.err)
    assert {"items", "next_cursor"} == ended.json.keys()
    assert ended.json["next_cursor"] is None
    return [item["delivery_id"] for item in ended.json["items"]]


@pytest.mark.req("DEL-15")
@pytest.mark.req("OPS-04", part="json")
async def test_a_delivery_is_shown_with_its_attempts(begun: Begun) -> None:
    """A delivery is shown with every attempt: time, duration, status, outcome, snippet, secrets and worker."""
    endpoint = (await begun.stored.endpoint()).pointer.endpoint_id
    (ring,) = await begun.stored.deliveries()
    waiting = (await begun.run("delivery", "show", ring.delivery_id, "--json")).json
    row = await begun.stored.delivery(ring)
    expected = {
        "tenant_id": "acme",
        "delivery_id": ring.delivery_id,
        "endpoint_id": endpoint,
        "event_id": row["event_id"],
        "event_type": "invoice.paid",
        "state": "pending",
        "attempts": 0,
        "budget_spent": 0,
        "created_at": row["created_at"].isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "next_attempt_at": row["next_attempt_at"].isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "waiting_for": None,
        "last_error": None,
        "replay_of": None,
        "correlation_id": "corr-1",
        "attempt_log": [],
    }
    assert expected == waiting
    assert documented("delivery show").keys() == waiting.keys()

    await attempted(begun, ring)
    shown = (await begun.run("delivery", "show", ring.delivery_id, "--json")).json
    first = {
        "number": 1,
        "manual": False,
        "url": None,  # not known: the endpoint is younger
        "started_at": "2026-03-01T12:00:00.250Z",
        "duration_ms": 12,
        "status": 503,
        "outcome": "http_error",
        "signed_by": [REF],
        "worker": "w-1",
        "snippet": STEERING,
    }
    second = first | {"number": 2, "status": 204, "outcome": "delivered", "snippet": None}
    changes = {"state": "delivered", "attempts": 2, "next_attempt_at": None, "attempt_log": [first, second]}
    assert expected | changes == shown


async def test_a_snippet_cannot_control_the_terminal(begun: Begun) -> None:
    """Control characters of an answer are escaped, as text, on a terminal and in JSON."""
    await begun.stored.endpoint()
    (ring,) = await begun.stored.deliveries()
    await attempted(begun, ring)
    show = ("delivery", "show", ring.delivery_id)
    for_a_person = await begun.run(*show)
    assert "  a\\x1b[2J\\x9b31m\\r\\u202eb\n" in for_a_person.out
    for ended in (for_a_person, await on_a_terminal(*show, **begun.settings), await begun.run(*show, "--json")):
        assert all(line.isprintable() for line in ended.out.split("\n"))
        assert "31m" in ended.out


@pytest.mark.req("OPS-12")
@pytest.mark.req("OPS-04", part="json")
async def test_why_explains_what_a_delivery_waits_for(begun: Begun) -> None:
    """The command explains in a few lines, or in fields, what a delivery waits for; an unknown id is not found."""
    endpoint = (await begun.stored.endpoint()).pointer.endpoint_id
    of = ("--tenant", "acme", "--endpoint", endpoint)
    await begun.run("endpoint", "disable", *of)
    await rows.change(begun.stored.pool, "endpoints", disabled_reason="it\tmoves\n  hookseal x")
    (ring,) = await begun.stored.deliveries()
    found = (await begun.run("delivery", "why", ring.delivery_id, "--json")).json
    held_at = (await begun.stored.delivery(ring))["held_at"].isoformat(timespec="milliseconds")

    assert documented("delivery why").keys() == found.keys()
    assert ("pending", "endpoint_disabled", held_at.replace("+00:00", "Z")) == (
        found["state"], found["waiting_for"], found["since"],
    )  # fmt: skip
    assert f"hookseal endpoint enable {' '.join(of)}" == found["command"]
    text = (await begun.run("delivery", "why", ring.delivery_id)).out
    assert found["text"].replace("\t", "\\t") + "\n" == text
    assert ("(“it\\tmoves   hookseal x”)" in text.splitlines()[0], f"  {found['command']}") == (
        True,
        text.splitlines()[-1],
    )
    assert 3 == (await begun.run("delivery", "why", UNKNOWN, "--json")).code


async def test_a_held_delivery_is_shown_without_a_next_attempt(begun: Begun) -> None:
    """As text, a delivery has a time of the next attempt only while nothing holds it."""
    of = ("--tenant", "acme", "--endpoint", (await begun.stored.endpoint()).pointer.endpoint_id)
    (due,) = await begun.stored.deliveries()
    await begun.run("endpoint", "disable", *of)
    (held,) = await begun.stored.deliveries()
    shown = [(await begun.run("delivery", "show", each.delivery_id)).out for each in (due, held)]
    assert [True, False] == ["next attempt at" in text for text in shown]


async def test_an_untried_delivery_has_no_error_in_a_list(begun: Begun) -> None:
    """Its row says what it waits for; that of one that was tried, or has ended, has its error."""
    await begun.stored.endpoint()
    [held], [tried], [ended] = [await begun.stored.deliveries() for _ in range(3)]
    error = "the receiver answered 503"
    for ring, facts in (
        (held, {"waiting_for": "breaker", "held_at": rows.NOW}),
        (tried, {"waiting_for": "breaker", "held_at": rows.NOW, "attempts": 3}),
        (ended, {"state": "failed", "next_attempt_at": None, "finished_at": rows.NOW}),
    ):
        await rows.change(begun.stored.pool, "deliveries", ring.delivery_id, last_error=error, **facts)
    shown = {line.split()[0]: line for line in (await begun.run("delivery", "list")).out.splitlines()[1:]}

    assert shown[held.delivery_id].endswith("waits until its endpoint answers again")
    assert [True, True] == [shown[ring.delivery_id].endswith(error) for ring in (tried, ended)]
    assert [error] * 3 == [each["last_error"] for each in (await begun.run("delivery", "list", "--json")).json["items"]]


@pytest.mark.pure
async def test_a_reason_of_a_newer_schema_is_shown_as_it_is() -> None:
    """While an upgrade goes on, an older command lists deliveries that wait for what it does not know."""
    facts: dict[str, Any] = {each.name: None for each in fields(Delivery)}
    item = Delivery(**facts | {"state": "pending", "attempts": 0, "waiting_for": "quota"})
    assert "quota" == _row(item)["last_error"]


async def test_the_text_is_a_table(begun: Begun) -> None:
    """The text is a table with a note on further pages, or says that there is nothing."""
    assert "no deliveries\n" == (await begun.run("delivery", "list")).out
    await begun.stored.endpoint()
    (first,) = await begun.stored.deliveries()
    (second,) = await begun.stored.deliveries(event_type="user.created")
    table = (await begun.run("delivery", "list")).out.splitlines()
    assert "delivery id event type state attempts age tenant id last error" == " ".join(table[0].split())
    assert [
        [second.delivery_id, "user.created", "pending", "0", "acme", "-"],
        [first.delivery_id, "invoice.paid", "pending", "0", "acme", "-"],
    ] == [[cell for at, cell in enumerate(line.split()) if at != 4] for line in table[1:]]
    wide = (await begun.run("delivery", "list", "--wide")).out.splitlines()[1].split()
    created_at = (await begun.stored.delivery(second))["created_at"].isoformat(timespec="milliseconds")
    assert created_at.replace("+00:00", "Z") == wide[4]
    assert ["acme", second.endpoint_id] == [wide[5], wide[9]]
    assert "acme" not in (await begun.run("delivery", "list", "--wide", "--tenant", "acme")).out
    assert "\nmore: --cursor " in (await begun.run("delivery", "list", "--limit", "1")).out


@pytest.mark.req("DEL-20")
async def test_each_option_is_a_filter(begun: Begun) -> None:
    """Each option selects what it names, a time also as so long ago; `tests/admin` tries the filters together."""
    endpoint = (await begun.stored.endpoint()).pointer
    (first,) = await begun.stored.deliveries()
    (second,) = await begun.stored.deliveries(event_type="user.created")
    globex = (await begun.stored.endpoint("globex")).pointer.endpoint_id
    (third,) = await begun.stored.deliveries("globex")
    await attempted(begun, first)
    one, two = first.delivery_id, second.delivery_id
    three = first_uuid7(datetime.now(UTC) - timedelta(days=1))
    await rows.change(begun.stored.pool, "deliveries", third.delivery_id, id=three)
    await rows.change(begun.stored.pool, "attempts", signed_by=[endpoint.secret_ref])
    event = (await begun.stored.delivery(first))["event_id"]
    for options, expected in (
        ((), [two, one, three]),
        (("--tenant", "acme"), [two, one]),
        (("--endpoint", globex), [three]),
        (("--event-type", "user.created"), [two]),
        (("--state", "delivered"), [one]),
        (("--state", "delivered", "--state", "pending"), [two, one, three]),
        (("--since", "1h"), [two, one]),
        (("--until", "1h"), [three]),
        (("--tenant", "acme", "--event-id", event), [one]),
        (("--tenant", "acme", "--correlation-id", "corr-2"), []),
        (("--channel", "eu"), []),
        (("--signed-by", str(endpoint.secret_ref)), [one]),
    ):
        assert expected == await listed(begun, *options), options


@pytest.mark.req("DEL-20")
async def test_attempts_are_listed_by_their_options(begun: Begun) -> None:
    """Each option of `delivery attempts` selects what it names; the text is a table."""
    endpoint = (await begun.stored.endpoint()).pointer.endpoint_id
    [ring] = (event := await begun.stored.published()).deliveries
    await attempted(begun, ring)
    of_endpoint = ("--endpoint", endpoint)
    for options, expected in (
        (of_endpoint, [2, 1]),
        (("--event-id", event.event_id), [2, 1]),
        ((*of_endpoint, "--oldest-first"), [1, 2]),
        ((*of_endpoint, "--event-type", "a.b", "--event-type", "invoice.paid"), [2, 1]),
        ((*of_endpoint, "--event-type", "a.b"), []),
        ((*of_endpoint, "--channel", "eu"), []),
        ((*of_endpoint, "--outcome", "failed"), [1]),
        ((*of_endpoint, "--status-class", "2"), [2]),
        ((*of_endpoint, "--since", "2026-03-02T00:00:00Z"), []),
        ((*of_endpoint, "--until", "2026-03-02T00:00:00Z"), [2, 1]),
    ):
        page = await begun.run("delivery", "attempts", "--tenant", "acme", *options, "--json")
        assert expected == [each["number"] for each in page.json["items"]], options
    first = await begun.run("delivery", "attempts", "--tenant", "acme", *of_endpoint, "--limit", "1")
    assert f"{ring.delivery_id}.2" in first.out
    cursor = first.out.rsplit(" ", 1)[1].strip()
    second = await begun.run("delivery", "attempts", "--tenant", "acme", *of_endpoint, "--cursor", cursor)
    assert f"{ring.delivery_id}.1" in second.out


@pytest.mark.req("DEL-07", part="one-delivery")
@pytest.mark.req("OPS-04", part="json")
async def test_a_replay_is_due_without_redis(begun: Begun) -> None:
    """A finished delivery is pending again, without Redis; with a new id it is a separate delivery."""
    endpoint = (await begun.stored.endpoint()).pointer.endpoint_id
    (ring,) = await begun.stored.deliveries()
    await attempted(begun, ring)
    without_redis = {name: value for name, value in begun.settings.items() if name != "REDIS_URL"}
    new = await hookseal("delivery", "replay", ring.delivery_id, "--new-id", "--json", **without_redis)
    row = await begun.stored.delivery(ring)
    shape = {
        "tenant_id": "acme",
        "delivery_id": new.json["delivery_id"],
        "endpoint_id": endpoint,
        "event_id": row["event_id"],
        "replay_of": ring.delivery_id,
        "state": "pending",
        "waiting_for": None,
    }
    assert (0, "", shape) == (new.code, new.err, new.json)
    same = await begun.run("delivery", "replay", ring.delivery_id, "--json")
    assert shape | {"delivery_id": ring.delivery_id, "replay_of": None} == same.json


@pytest.mark.req("DEL-07", part="one-delivery")
async def test_the_text_of_a_replay_says_what_is_due_or_held(begun: Begun) -> None:
    """If the breaker of its endpoint is open, the text says so as `delivery why` does; it exits with 0."""
    endpoint = (await begun.stored.endpoint()).pointer.endpoint_id
    (ring,) = await begun.stored.deliveries()
    await attempted(begun, ring)
    due = await begun.run("delivery", "replay", ring.delivery_id)
    assert (0, f"delivery {ring.delivery_id} is due now\n") == (due.code, due.out)
    await rows.set_state(begun.stored.pool, "delivered", ring.delivery_id)
    await rows.hold(begun.stored.pool, endpoint, waiting_for="breaker", probe_at=rows.ahead(hours=1))
    ended = await begun.run("delivery", "replay", ring.delivery_id)
    why = await begun.run("delivery", "why", ring.delivery_id)
    assert (0, f"delivery {ring.delivery_id} waits to be sent:\n{why.out}") == (ended.code, ended.out)
    assert why.out.startswith("The breaker of its endpoint is open")
    assert why.out.endswith(f"\n  hookseal endpoint enable --tenant acme --endpoint {endpoint}\n")
