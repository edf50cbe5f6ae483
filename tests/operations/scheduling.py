"""An installation on a clock that tests shift, and the turns of its endpoints that are rotated by schedule."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import asyncpg

from hookseal.dispatcher.endpoints import NewEndpoint
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.operations.endpoints import AddedEndpoint
from hookseal.operations.operator import Operator
from hookseal.operations.scheduled import Announced, RotatedBySchedule, take_turn
from hookseal.secrets import pointer, schedule
from hookseal.secrets.schedule import Scheduled, Turn
from tests.doubles import shifted
from tests.doubles.stored import Installation, begin

Pool = asyncpg.Pool
DAY = timedelta(days=1)
DAY_SECONDS = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduling:
    """An installation whose time a test lets pass."""

    installation: Installation

    @property
    def pool(self) -> "Pool[asyncpg.Record]":
        """Its database."""
        return self.installation.pool

    async def pass_(self, by: timedelta) -> None:
        """Let so much time pass."""
        await shifted.shift(self.pool, by)

    async def endpoint(self, *, days: int | None = 30, tenant: str = "acme", number: int = 0) -> AddedEndpoint:
        """Add an endpoint that asks for a rotation every so many days."""
        new = NewEndpoint(tenant_id=TenantId(tenant), url=f"https://receiver.example/{number}", event_types=("*",))
        added = await self.installation.add(new)
        await self.pool.execute(
            "UPDATE hookseal.endpoints SET rotate_every_days = $2 WHERE id = $1::text::uuid",
            added.pointer.endpoint_id,
            days,
        )
        return added

    async def near(self) -> list[Scheduled]:
        """Return those whose turn it is."""
        return [each for each in await schedule.near(self.pool, None) if each.turn is not Turn.WAIT]

    async def turn(self, each: Scheduled) -> Announced | RotatedBySchedule | None:
        """Have the endpoint take its turn, as the worker `w1` does it."""
        async with self.pool.acquire() as connection:
            operator = Operator(connection=connection, unlocked=self.installation.unlocked, who="worker/w1")
            return await take_turn(operator, each, overlap_seconds=DAY_SECONDS)

    async def turns(self) -> list[Announced | RotatedBySchedule | None]:
        """Have all whose turn it is take it, once."""
        return [await self.turn(each) for each in await self.near()]

    async def pointer(self, endpoint_id: EndpointId, tenant: str = "acme") -> Pointer:
        """Return the endpoint's pointer as a claim would read it now."""
        async with self.pool.acquire() as connection, connection.transaction():
            return await pointer.locked(connection, tenant=TenantId(tenant), endpoint_id=endpoint_id)

    async def signed_by(self, endpoint_id: EndpointId) -> list[str]:
        """Return the versions that would sign an attempt of now, current first."""
        async with self.installation.unlocked.service.signers(await self.pointer(endpoint_id)) as signers:
            return [signer.ref.rpartition(":")[2] for signer in signers]


@asynccontextmanager
async def scheduling(database_url: str) -> AsyncIterator[Scheduling]:
    """Yield a begun installation on a clock of its own."""
    await shifted.make(database_url)
    async with asyncpg.create_pool(database_url, min_size=1, max_size=8, server_settings=shifted.SETTINGS) as pool:
        yield Scheduling(installation=await begin(pool))
