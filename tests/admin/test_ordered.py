"""Ordered endpoints from Python."""

from typing import Any

import pytest

from hookseal import Admin
from hookseal.errors import Conflict, Malformed, NotFound
from tests import rows
from tests.doubles.logbook import audited
from tests.doubles.stored import Installation

pytestmark = [pytest.mark.req("DEL-17"), pytest.mark.req("DEL-18", part="manage")]

JANE = "jane@product.example"
NEW: dict[str, Any] = {
    "tenant_id": "acme",
    "url": "https://receiver.example/hook",
    "event_types": ["*"],
    "actor": JANE,
}


async def test_an_ordered_endpoint_is_added_stopped_and_skipped(admin: Admin, installation: Installation) -> None:
    """An ordered endpoint is added; a dead letter stops it, is shown and skipped; then it is set to `skip`."""
    added = await admin.endpoints.add(**NEW, ordered=True)
    named: dict[str, Any] = {"tenant_id": "acme", "endpoint_id": added.endpoint_id}
    [first] = await installation.deliveries()
    await installation.pool.execute("UPDATE hookseal.deliveries SET state = 'dead_letter', next_attempt_at = NULL")
    found = await admin.endpoints.get(**named)
    assert (True, "stop", first.delivery_id) == (found.ordered, found.on_dead_letter, found.stopped_by)
    [listed] = (await admin.endpoints.list(tenant_id="acme")).items
    assert found.stopped_by == listed.stopped_by

    skipping: dict[str, Any] = {"tenant_id": "acme", "delivery_id": first.delivery_id, "actor": JANE}
    with pytest.raises(NotFound):
        await admin.deliveries.skip(**skipping | {"tenant_id": "globex"})
    skipped = await admin.deliveries.skip(**skipping)
    assert (added.endpoint_id, "dead_letter") == (skipped.endpoint_id, skipped.state)
    with pytest.raises(Conflict):
        await admin.deliveries.skip(**skipping)
    updated = await admin.endpoints.update(**named, actor=JANE, on_dead_letter="skip")
    assert ("on_dead_letter",) == updated.changed
    assert [("delivery.skipped", JANE), ("endpoint.updated", JANE)] == [
        (row["action"], row["who"]) for row in (await audited(installation.pool))[-2:]
    ]


async def test_skip_releases_what_is_stopped(admin: Admin, installation: Installation) -> None:
    """An endpoint that a dead letter has stopped goes on once it is set to `skip`."""
    added = await admin.endpoints.add(**NEW, ordered=True)
    named: dict[str, Any] = {"tenant_id": "acme", "endpoint_id": added.endpoint_id}
    [ring] = await installation.deliveries()
    await rows.set_state(installation.pool, "dead_letter")
    assert ring.delivery_id == (await admin.endpoints.get(**named)).stopped_by
    await admin.endpoints.update(**named, actor=JANE, on_dead_letter="skip")
    assert (await admin.endpoints.get(**named)).stopped_by is None


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"ordered": "yes"}, "ordered"),
        ({"on_dead_letter": "skip"}, "on_dead_letter"),
        ({"ordered": True, "on_dead_letter": "wait"}, "on_dead_letter"),
        ({"ordered": True, "on_dead_letter": 1}, "on_dead_letter"),
    ],
)
async def test_a_wrong_value_names_its_argument(admin: Admin, given: dict[str, Any], field: str) -> None:
    """A wrong value names its argument."""
    with pytest.raises(Malformed) as caught:
        await admin.endpoints.add(**NEW, **given)

    assert field == caught.value.field
