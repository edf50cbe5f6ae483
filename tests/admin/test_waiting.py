"""Waiting from Python until a revocation is complete: only for one that is committed."""

import asyncio
import math
from typing import Any

import pytest

from hookseal import Admin
from hookseal.admin import AddedEndpoint
from hookseal.dispatcher.store import held
from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.errors import Conflict, Malformed, NotFound
from tests.admin.test_signing_secrets import JANE, NEW
from tests.doubles.stored import Installation
from tests.worker.waiting import eventually

UNKNOWN = "0197c1f0-5e6a-7c3b-9d2e-4f5061728394"


@pytest.fixture
async def added(admin: Admin) -> AddedEndpoint:
    """Return a new endpoint."""
    return await admin.endpoints.add(**NEW)


def named(added: AddedEndpoint, **more: Any) -> dict[str, Any]:
    """Return the arguments that name the endpoint."""
    return {"tenant_id": "acme", "endpoint_id": added.endpoint_id} | more


@pytest.mark.parametrize("other", [{"tenant_id": "globex"}, {"endpoint_id": UNKNOWN}])
async def test_an_unknown_endpoint_is_not_found(admin: Admin, added: AddedEndpoint, other: dict[str, Any]) -> None:
    """Another tenant's endpoint and an unknown one are refused: nothing of them was revoked."""
    with pytest.raises(NotFound) as caught:
        await admin.secrets.wait_until_complete(**named(added, generation=1) | other)

    assert "endpoint_id" == caught.value.field


@pytest.mark.parametrize("wrong", ["x", None, math.nan, True, 1.0, 0, -(2**70)])
async def test_a_generation_is_a_whole_number(admin: Admin, added: AddedEndpoint, wrong: Any) -> None:
    """Anything else is malformed, and the error names the argument."""
    with pytest.raises(Malformed) as caught:
        await admin.secrets.wait_until_complete(**named(added, generation=wrong))

    assert "generation" == caught.value.field


async def test_a_revocation_that_was_rolled_back_is_a_conflict(
    admin: Admin, added: AddedEndpoint, installation: Installation
) -> None:
    """A rotation that is not committed, or was rolled back, has revoked nothing; so has one that never was."""
    async with installation.pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        rotated = await admin.secrets.rotate(**named(added), actor=JANE, overlap_seconds=0, connection=connection)
        with pytest.raises(Conflict, match="at generation 1, not yet at 2: first commit"):
            await admin.secrets.wait_until_complete(**named(added, generation=rotated.generation))
        await transaction.rollback()
    for generation in (rotated.generation, 2**70):
        with pytest.raises(Conflict) as caught:
            await admin.secrets.wait_until_complete(**named(added, generation=generation))
        assert "generation" == caught.value.field

    await admin.secrets.wait_until_complete(**named(added, generation=1))


async def test_an_endpoint_deleted_meanwhile_is_waited_for(
    admin: Admin, added: AddedEndpoint, installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request in flight may still begin after its endpoint is deleted, so the wait ends after it."""
    (ring,) = await installation.deliveries()
    ledger = PostgresLedger(installation.pool, worker="w", lease_seconds=45.0)
    claim = await ledger.claim(ring)
    assert claim is not None
    looked, look = set[asyncio.Task[Any] | None](), held.older_claims

    async def looking(*arguments: Any) -> int:
        looked.add(asyncio.current_task())
        return await look(*arguments)

    monkeypatch.setattr(held, "older_claims", looking)
    rotating = asyncio.ensure_future(admin.secrets.rotate(**named(added), actor=JANE, overlap_seconds=0))

    async def is_committed() -> bool:
        return 2 == (await admin.endpoints.get(**named(added))).generation

    await eventually(is_committed)
    waiting = asyncio.ensure_future(admin.secrets.wait_until_complete(**named(added, generation=2)))

    async def both_looked() -> bool:
        return {rotating, waiting} <= looked

    await eventually(both_looked)  # an endpoint that is deleted before is not found
    await admin.endpoints.delete(**named(added), actor=JANE)
    looked.clear()
    await eventually(both_looked)
    assert (False, False) == (rotating.done(), waiting.done())
    await ledger.release(claim, None)

    await asyncio.wait_for(waiting, 60)
    assert 0 == (await rotating).older_claims
    with pytest.raises(NotFound):
        await admin.secrets.wait_until_complete(**named(added, generation=2))
