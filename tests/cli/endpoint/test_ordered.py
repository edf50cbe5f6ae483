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
    endpoint = (await begun.run(*NEW, "--ordered", "--on-dead-letter", "stop", "--json")).json["endpoint_id"]
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
    of = ("--tenant", "acme", "--endpoint", endpoint)
    changed = await begun.run("endpoint", "update", *of, "--on-dead-letter", "skip")
    assert "on_dead_letter: stop -> skip" in changed.out
    later = await begun.run("endpoint", "update", *of, "--ordered", "--json")
    assert (5, True) == (later.code, "add another endpoint with --ordered" in later.json["error"]["message"])
