"""How many statements a change by an Admin costs once it has made others: nothing is unlocked again.

Each query message counts, also BEGIN and COMMIT. Several statements in one message count as one, since they are one
round trip.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any

from hookseal import Admin
from tests.doubles.sent import noted

JANE = "jane@product.example"
URL = "https://receiver.example"
_TURNS = 3  # of the event loop, until asyncpg has reported the last statement of a call


async def test_a_change_costs_few_statements(admin: Admin) -> None:
    """The whole cost of each: its transaction, its own statements, its audit row."""
    pool: Any = await admin.endpoints._session.source()
    sent = await noted(pool)
    # The warm-up: after it the secrets are unlocked.
    added = await admin.endpoints.add(tenant_id="acme", url=f"{URL}/1", event_types=["*"], actor=JANE)
    of: dict[str, Any] = {"tenant_id": "acme", "endpoint_id": added.endpoint_id, "actor": JANE}

    async def cost(call: Awaitable[object]) -> int:
        for asked in (None, call):
            if asked is not None:
                sent.clear()
                await asked
            for _ in range(_TURNS):
                await asyncio.sleep(0)
        return len(sent)

    costs = {
        "add": await cost(admin.endpoints.add(tenant_id="acme", url=f"{URL}/2", event_types=["*"], actor=JANE)),
        "rotate": await cost(admin.secrets.rotate(**of)),
        "reveal": await cost(admin.secrets.reveal(**of)),
        "update": await cost(admin.endpoints.update(**of, name="billing")),
    }

    assert {"add": 15, "rotate": 24, "reveal": 7, "update": 8} == costs
