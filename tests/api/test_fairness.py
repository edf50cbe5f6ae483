"""What one tenant asks of the API leaves turns for others."""

import asyncio
from typing import Any

import httpx
import pytest

from hookseal import Admin
from tests.doubles.stored import Installation
from tests.worker.waiting import eventually_equals

_WAITING = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


@pytest.mark.req("DEL-06")
async def test_repeated_requests_leave_turns_for_other_tenants(
    admin: Admin, url: str, installation: Installation
) -> None:
    """While the first with a key has not ended, it and its repetitions hold six turns, and no more."""

    def create(tenant: str) -> Any:
        headers = {"authorization": f"Bearer {tenant}", "idempotency-key": "k"}
        body = {"url": f"https://{tenant}.example"}
        return client.post(f"/api/v1/app/{tenant}/endpoint", json=body, headers=headers)

    first: dict[str, Any] = {"idempotency_key": "k", "call": "endpoint.create", "content": b"", "tenant_id": "acme"}
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        async with admin.once(**first, actor="token:acme") as once:
            repeated = [asyncio.create_task(create("acme")) for _ in range(30)]
            await eventually_equals(5, lambda: installation.pool.fetchval(_WAITING))
            made = await create("globex")
            assert (201, [False] * 30) == (made.status_code, [each.done() for each in repeated])
            await once.record(status=201, result_id="x")
        answers = await asyncio.gather(*repeated)
    assert {422} == {each.status_code for each in answers}  # the first had other content
