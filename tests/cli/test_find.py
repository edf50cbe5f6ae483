"""`hookseal find`: what has an id, in every tenant; and what of the lists is for an operator."""

import pytest

from tests import rows
from tests.cli.installation import Begun


@pytest.mark.req("OPS-04", part="json")
async def test_the_id_of_an_event_is_found(begun: Begun) -> None:
    pool = begun.stored.pool
    endpoint = await rows.endpoint(pool)
    await rows.delivery(pool, endpoint, await rows.event(pool, id="acme"))
    found = await begun.run("find", "acme", "--json")
    assert (0, "acme", None, ["acme"], True) == (
        *(found.code, found.json["tenant"]["tenant_id"], found.json["delivery"]),
        *([each["event_id"] for each in found.json["events"]], found.json["complete"]),
    )
    lines = [line.split() for line in (await begun.run("find", "acme")).out.splitlines()]
    assert (["tenant"], ["tenant", "id", "acme"]) == (lines[0], lines[1])
    assert ["acme", "acme", "invoice.paid"] == lines[-1][:3]


async def test_a_webhook_id_is_found_and_another_is_not(begun: Begun) -> None:
    delivery = await rows.delivery(begun.stored.pool, state="dead_letter")
    assert "dead_letter" in (await begun.run("find", delivery)).out
    nothing = await begun.run("find", "0197c1f0-5e6a-7c3b-9d2e-4f5061728394")
    assert (3, "") == (nothing.code, nothing.out)
    assert "nothing has this id" in nothing.err
    assert 2 == (await begun.run("find", "a b")).code


async def test_the_states_become_arguments(begun: Begun) -> None:
    held, failing, _ = await rows.endpoints(begun.stored.pool, 3)
    await rows.hold(begun.stored.pool, held)
    await rows.change(begun.stored.pool, "endpoints", failing, first_failure_at=rows.NOW)
    listed = await begun.run("endpoint", "list", "--state", "held", "--state", "failing", "--json")
    assert {held, failing} == {each["endpoint_id"] for each in listed.json["items"]}
