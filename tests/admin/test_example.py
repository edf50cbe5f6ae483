"""Examples: an event that goes to one endpoint only, delivered and listed as every other."""

from typing import Any

import pytest

from hookseal import Admin
from hookseal.errors import Malformed, NotFound, Refused
from tests import rows
from tests.admin.refusals import refused_field
from tests.doubles.logbook import audited
from tests.doubles.stored import Installation

pytestmark = [pytest.mark.req("DEL-18"), pytest.mark.req("DEL-20")]

JANE = "jane@product.example"


async def test_an_example_goes_to_its_endpoint_only(admin: Admin, installation: Installation) -> None:
    """The endpoint need not subscribe to the type, others that do get nothing; its attempt is manual, and on record."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await installation.endpoint(url="https://other.example/")
    await rows.change(installation.pool, "endpoints", endpoint, event_types=["no.such"])
    named: dict[str, Any] = {"tenant_id": "acme", "endpoint_id": endpoint, "actor": JANE}
    sent = await admin.endpoints.send_example(**named, event_type="invoice.paid", data={"id": 1})
    raw = await admin.endpoints.send_example(**named, event_type="a.b", body=b"1.10")

    listed = (await admin.deliveries.list(tenant_id="acme")).items
    assert [raw.delivery_id, sent.delivery_id] == [each.delivery_id for each in listed]
    assert {(endpoint, "pending", None)} == {(each.endpoint_id, each.state, each.waiting_for) for each in listed}
    assert (True, sent.event_id, "invoice.paid") == (sent.due, listed[1].event_id, listed[1].event_type)
    bodies = await admin.events.payloads(tenant_id="acme", event_ids=[sent.event_id, raw.event_id], actor=JANE)
    assert bodies[sent.event_id].endswith(b',"data":{"id":1}}')
    assert b"1.10" == bodies[raw.event_id]
    row, _ = [row for row in await audited(installation.pool) if row["action"] == "delivery.example_sent"]
    assert (f"delivery:{sent.delivery_id}", JANE) == (row["subject"], row["who"])
    assert {"endpoint_id": endpoint, "event_id": sent.event_id, "event_type": "invoice.paid"} == row["after"]
    await rows.attempt(installation.pool, sent.delivery_id)
    [attempt] = (await admin.attempts.list(tenant_id="acme", event_id=sent.event_id)).items
    assert attempt.manual


async def test_an_example_waits_as_other_deliveries_do(admin: Admin, installation: Installation) -> None:
    """At an endpoint that is held it waits with them; an ordered one sends it in its line."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await rows.hold(installation.pool, endpoint, waiting_for="breaker")
    held = await admin.endpoints.send_example(
        tenant_id="acme", endpoint_id=endpoint, event_type="a.b", data=None, actor=JANE
    )
    ordered = await admin.endpoints.add(
        tenant_id="acme", url="https://ordered.example/", event_types=["a.b"], ordered=True, actor=JANE
    )
    named: dict[str, Any] = {"tenant_id": "acme", "endpoint_id": ordered.endpoint_id, "actor": JANE}
    first, second = [await admin.endpoints.send_example(**named, event_type="a.b", data=1) for _ in range(2)]

    waits = {each.delivery_id: each.waiting_for for each in (await admin.deliveries.list(tenant_id="acme")).items}
    assert (False, "breaker", None, "order") == (
        held.due, waits[held.delivery_id], waits[first.delivery_id], waits[second.delivery_id],
    )  # fmt: skip


@pytest.mark.req("SEC-08")
async def test_an_example_that_cannot_be_sent_is_refused(admin: Admin, installation: Installation) -> None:
    """So is one for a disabled endpoint, of another tenant, or that is no event; nothing is stored."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    named: dict[str, Any] = {"tenant_id": "acme", "endpoint_id": endpoint, "event_type": "a.b", "actor": JANE}
    for wrong, field in (
        ({"data": 1, "event_type": "a.*"}, "event_type"),
        ({"data": 1, "body": b""}, "data"),
        ({}, "data"),
        ({"data": {1, 2}}, "data"),
        ({"body": "text"}, "body"),
        ({"body": bytes(262_145)}, "body"),
    ):
        assert field == await refused_field(admin.endpoints.send_example(**named | wrong))
    with pytest.raises(Malformed, match="at most 262144 bytes"):  # with the wrapper
        await admin.endpoints.send_example(**named, data="x" * 262_140)
    with pytest.raises(NotFound):
        await admin.endpoints.send_example(**named | {"tenant_id": "globex"}, data=1)
    await admin.endpoints.disable(tenant_id="acme", endpoint_id=endpoint, actor=JANE, reason="it moves")
    with pytest.raises(Refused) as caught:
        await admin.endpoints.send_example(**named, data=1)
    assert "endpoint_id" == caught.value.field
    assert () == (await admin.events.list(tenant_id="acme")).items
