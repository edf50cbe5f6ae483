"""The overview: how much there is in the installation, with bounded reads."""

from dataclasses import asdict

import pytest

from hookseal import Admin
from hookseal.dispatcher.store.overview import overview
from tests import rows
from tests.doubles.stored import Installation

pytestmark = pytest.mark.req("DEL-20")


async def test_the_overview_counts_each_kind(admin: Admin, installation: Installation) -> None:
    """What is deleted, released or has ended is not counted, and each count ends at a limit."""
    assert {"most": 10_000} == {name: number for name, number in asdict(await admin.overview()).items() if number}
    pool = installation.pool
    one, disabled, held, released = await rows.endpoints(pool, 4)
    await rows.change(pool, "endpoints", one, first_failure_at=rows.NOW)
    await rows.change(pool, "endpoints", disabled, enabled=False)
    await rows.hold(pool, held)
    await rows.hold(pool, released, released_at=rows.NOW)
    await installation.endpoint("gone")
    await admin.tenants.delete(tenant_id="gone", actor="jane")
    for state in ("pending", "sending", "delivered", "dead_letter", "dead_letter", "failed", "cancelled"):
        await rows.delivery(pool, one, state=state)
    await rows.wait_for(pool, "secret", await rows.delivery(pool, one))
    await rows.worker(pool)
    await rows.worker(pool, "w-2", beaten_at=rows.ago(minutes=5))
    await admin.replays.start(tenant_id="acme", actor="jane", states=["failed"])

    expected = {
        "tenants": 1,
        "endpoints": 4,
        "disabled_endpoints": 1,
        "failing_endpoints": 1,
        "held_endpoints": 1,
        "pending": 2,
        "waiting": 1,
        "sending": 1,
        "dead_letters": 2,
        "failed": 1,
        "running_replays": 1,
        "live_workers": 1,
        "most": 10_000,
    }
    assert expected == asdict(await admin.overview())
    assert {1} == set((await overview(pool, most=1)).values())
