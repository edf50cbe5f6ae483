"""An installation with a movable clock, and the scheduled rotations of its endpoints."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import asyncpg

from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.operations.endpoint.endpoints import AddedEndpoint
from hookseal.operations.endpoint.rotation import Announced, RotatedBySchedule, take_turn
from hookseal.operations.operator import Operator
from hookseal.postgres.pool import Pool
from hookseal.secrets.endpoint import schedule
from hookseal.secrets.endpoint.schedule import Scheduled, Turn
from tests import rows
from tests.doubles import moved_clock
from tests.doubles.stored import Installation, begin

DAY = timedelta(days=1)
DAY_SECONDS = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduling:
    """An installation whose clock a test moves."""

    installation: Installation

    @property
    def pool(self) -> Pool:
        return self.installation.pool

    async def pass_(self, by: timedelta) -> None:
        """Move the clock by so much time."""
        await moved_clock.move(self.pool, by)

    async def endpoint(self, *, days: int | None = 30, tenant: str = "acme", number: int = 0) -> AddedEndpoint:
        """Add an endpoint with a rotation period of that many days."""
        new = NewEndpoint(tenant_id=TenantId(tenant), url=f"https://receiver.example/{number}", event_types=("*",))
        added = await self.installation.add(new)
        await rows.change(self.pool, "endpoints", added.pointer.endpoint_id, rotate_every_days=days)
        return added

    async def near(self) -> list[Scheduled]:
        """Return the endpoints with a scheduled step that is due."""
        return [each for each in await schedule.upcoming(self.pool, None) if each.turn is not Turn.WAIT]

    async def turn(self, each: Scheduled) -> Announced | RotatedBySchedule | None:
        """Do the scheduled step of the endpoint, as the worker `w1`."""
        async with self.pool.acquire() as connection:
            operator = Operator(connection=connection, unlocked=self.installation.unlocked, who="worker/w1")
            return await take_turn(operator, each, overlap_seconds=DAY_SECONDS)

    async def turns(self) -> list[Announced | RotatedBySchedule | None]:
        """Do every due scheduled step once."""
        return [await self.turn(each) for each in await self.near()]

    async def pointer(self, endpoint_id: EndpointId, tenant: str = "acme") -> Pointer:
        """Return the pointer as a claim would read it now."""
        return await self.installation.pointer(endpoint_id, tenant)

    async def signed_by(self, endpoint_id: EndpointId) -> list[str]:
        """Return the versions that would sign an attempt now, current first."""
        async with self.installation.unlocked.service.signers(await self.pointer(endpoint_id)) as signers:
            return [signer.ref.rpartition(":")[2] for signer in signers]


@asynccontextmanager
async def scheduling(database_url: str) -> AsyncIterator[Scheduling]:
    """Yield an installation that has begun, with its own clock."""
    await moved_clock.make(database_url)
    async with asyncpg.create_pool(database_url, min_size=1, max_size=8, server_settings=moved_clock.SETTINGS) as pool:
        yield Scheduling(installation=await begin(pool))
