"""The stage that every chapter plays on: what it can do to the installation, and what it can wait for."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import asyncpg

from hookseal.demo.receiver import Receiver
from hookseal.dispatcher import history
from hookseal.dispatcher.endpoints import NewEndpoint
from hookseal.dispatcher.model import Ring, State
from hookseal.dispatcher.publish import Event, publish_json
from hookseal.ground.clock import Clock
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.sql import statements
from hookseal.operations.endpoints import add_endpoint
from hookseal.operations.operator import Operator
from hookseal.queue.bell import Bell
from hookseal.secrets.boot import Unlocked

PATIENCE_SECONDS: Final = 15.0
_LOOK_AGAIN_SECONDS: Final = 0.02
_SQL: Final = statements("hookseal.demo", "stage.sql")

Pool = asyncpg.Pool
T = TypeVar("T")
_DRAIN_SECONDS: Final = 25  # of the worker of the demo, which has no other settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """An endpoint whose requests come to this path of the receiver."""

    tenant_id: TenantId
    endpoint_id: EndpointId
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """An installation with a worker, seen from outside, and the receiver that its endpoints point at."""

    pool: "Pool[asyncpg.Record]"
    unlocked: Unlocked
    ringing: Bell
    receiver: Receiver
    clock: Clock

    @asynccontextmanager
    async def operator(self) -> AsyncIterator[Operator]:
        """Give one who may change the installation."""
        async with self.pool.acquire() as connection:
            yield Operator(connection=connection, unlocked=self.unlocked, who="hookseal demo")

    async def add(self, path: str, subscription: str, **decided: Any) -> Added:
        """Add an endpoint of the tenant that the path begins with, and have the receiver expect its secret.

        What else is `decided` are fields of `NewEndpoint`.
        """
        tenant = TenantId(path.split("/")[1])
        url = self.receiver.base_url + path
        endpoint = NewEndpoint(tenant_id=tenant, url=url, event_types=(subscription,), **decided)
        async with self.operator() as operator:
            added = await add_endpoint(operator, endpoint, None, own_drain_seconds=_DRAIN_SECONDS)
        self.receiver.expect(path, added.secret.reveal().decode("ascii"), endpoint.scheme)
        return Added(tenant_id=tenant, endpoint_id=added.pointer.endpoint_id, path=path)

    async def publish(self, tenant: TenantId, event_type: str, number: int) -> tuple[Ring, ...]:
        """Publish an event, ring its deliveries, and return them."""
        event = Event(tenant_id=tenant, event_type=event_type, correlation_id=f"demo-{number}")
        published = await publish_json(self.pool, event, f'{{"number": {number}}}')
        await self.ringing.ring(published.due)
        return published.deliveries

    async def states(self, endpoint: Added) -> dict[str, int]:
        """Return how many deliveries of the endpoint are in each state."""
        rows = await self.pool.fetch(_SQL["states"], endpoint.tenant_id, endpoint.endpoint_id)
        return {row["state"]: row["deliveries"] for row in rows}

    async def settled(self, endpoint: Added) -> None:
        """Return once no delivery of the endpoint is on its way."""
        while {State.PENDING, State.SENDING} & (await self.states(endpoint)).keys():
            await self.clock.sleep(_LOOK_AGAIN_SECONDS)

    async def reached(self, ring: Ring, wanted: State) -> None:
        """Return once the delivery is in this state."""
        while await self.pool.fetchval(_SQL["state"], ring.tenant_id, ring.delivery_id) != wanted:
            await self.clock.sleep(_LOOK_AGAIN_SECONDS)

    async def row(self, endpoint: Added) -> tuple[Any, ...]:
        """Return what an endpoint's row says of its secret, to be put back."""
        return tuple(await self.pool.fetchrow(_SQL["row"], endpoint.tenant_id, endpoint.endpoint_id) or ())

    async def put_back(self, endpoint: Added, row: tuple[Any, ...]) -> None:
        """Write what the row said before, as one who may write the table."""
        await self.pool.execute(_SQL["put_back"], endpoint.tenant_id, endpoint.endpoint_id, *row)

    async def waits_for(self, ring: Ring) -> str | None:
        """Return what the delivery is held back for."""
        found: str | None = await self.pool.fetchval(_SQL["waits_for"], ring.tenant_id, ring.delivery_id)
        return found

    async def held(self, ring: Ring) -> None:
        """Return once the delivery is held back."""
        while await self.waits_for(ring) is None:
            await self.clock.sleep(_LOOK_AGAIN_SECONDS)

    async def shown(self, ring: Ring) -> dict[str, Any]:
        """Return the delivery with its attempts, as `hookseal delivery show` does."""
        return await history.show(self.pool, ring.delivery_id)


@asynccontextmanager
async def patience(seconds: float = PATIENCE_SECONDS) -> AsyncIterator[None]:
    """End the block after so many seconds, without a word: what was seen by then tells what is missing."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            yield


async def side_by_side(*telling: Coroutine[Any, Any, T]) -> list[T]:
    """Run all of them and return what they return, in order. If one raises, the others end and it is raised."""
    tasks = [asyncio.create_task(one) for one in telling]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
