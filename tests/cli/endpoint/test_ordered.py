"""`hookseal endpoint add --ordered`, and what an operator does when a dead letter stops such an endpoint."""

import pytest

from tests.cli.installation import Begun
from tests.doubles.logbook import audited

NEW = ("endpoint", "add", "--tenant", "acme", "--url", "https://receiver.example/1", "--event-type", "*")
GIVEN_UP = """
UPDATE hookseal.deliveries SET state = 'dead_letter', waiting_for = NULL, next_attempt_at = NULL
WHERE id = $1::text::uuid
"""

pytestmark = [pytest.mark.req("DEL-17"), pytest.mark.timeout(300)]  # runs many commands one after the other


async def shown(begun: Begun, endpoint: str) -> tuple[object, ...]:
    """Return what `endpoint show` says about order."""
    found = (await begun.run("endpoint", "show", "--tenant", "acme", "--endpoint", endpoint, "--json")).json
    return tuple(found[name] for name in ("ordered", "on_dead_letter", "stopped_by"))


async def test_a_dead_letter_stops_its_line_until_it_is_skipped(begun: Begun) -> None:
    """The delivery that stops an endpoint is listed, shown and explained; it is skipped once, which is audited."""
    endpoint = (await begun.run(*NEW, "--ordered", "--json")).json["endpoint_id"]
    assert (True, "stop", None) == await shown(begun, endpoint)
    [first], [second] = [await begun.stored.deliveries() for _ in range(2)]
    await begun.stored.pool.execute(GIVEN_UP, first.delivery_id)
    assert (True, "stop", first.delivery_id) == await shown(begun, endpoint)
    assert "stopped" in (await begun.run("endpoint", "list")).out
    why = await begun.run("delivery", "why", second.delivery_id)
    assert f"`hookseal delivery skip {first.delivery_id}`" in why.out

    skipped = await begun.run("delivery", "skip", first.delivery_id, "--json")
    assert {
        "tenant_id": "acme",
        "delivery_id": first.delivery_id,
        "endpoint_id": endpoint,
        "state": "dead_letter",
    } == skipped.json
    assert (True, "stop", None) == await shown(begun, endpoint)
    assert "delivery.skipped" == (await audited(begun.stored.pool))[-1]["action"]
    again = await begun.run("delivery", "skip", first.delivery_id, "--json")
    assert (4, "delivery") == (again.code, again.json["error"]["field"])
    assert 3 == (await begun.run("delivery", "skip", endpoint)).code


async def test_on_dead_letter_can_be_set_to_skip(begun: Begun) -> None:
    """`--on-dead-letter` is set when the endpoint is added, and changed later; `skip` releases what is stopped."""
    endpoint = (await begun.run(*NEW, "--ordered", "--on-dead-letter", "skip", "--json")).json["endpoint_id"]
    of = ("--tenant", "acme", "--endpoint", endpoint)
    assert (True, "skip", None) == await shown(begun, endpoint)
    changed = await begun.run("endpoint", "update", *of, "--on-dead-letter", "stop")
    assert "on_dead_letter: skip -> stop" in changed.out
    [ring] = await begun.stored.deliveries()
    await begun.stored.pool.execute(GIVEN_UP, ring.delivery_id)
    assert 0 == (await begun.run("endpoint", "update", *of, "--on-dead-letter", "skip")).code

    assert (True, "skip", None) == await shown(begun, endpoint)


async def test_order_is_chosen_only_at_the_addition(begun: Begun) -> None:
    """Order is chosen when an endpoint is added; without it there is nothing that a dead letter could stop."""
    wrong = await begun.run(*NEW, "--on-dead-letter", "stop", "--json")
    assert (2, "on_dead_letter") == (wrong.code, wrong.json["error"]["field"])
    operator = await begun.run(*NEW, "--tenant", "_operator", "--ordered", "--json")
    assert (5, "ordered") == (operator.code, operator.json["error"]["field"])
    endpoint = (await begun.run(*NEW, "--json")).json["endpoint_id"]
    of = ("--tenant", "acme", "--endpoint", endpoint)
    later = await begun.run("endpoint", "update", *of, "--ordered", "--json")
    assert (5, "ordered") == (later.code, later.json["error"]["field"])
    assert "add another endpoint with --ordered" in later.json["error"]["message"]
    unordered = await begun.run("endpoint", "update", *of, "--on-dead-letter", "skip", "--json")
    assert (2, "on_dead_letter") == (unordered.code, unordered.json["error"]["field"])
