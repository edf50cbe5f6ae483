"""The stage of every chapter: what a chapter can do to the installation, and what it can wait for."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import asyncpg

from hookseal.demo.receiver import Receiver
from hookseal.dispatcher.core.model import Ring, State
from hookseal.dispatcher.store import delivery_queries
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.dispatcher.store.publish import Event, publish_json
from hookseal.ground.clock import Clock
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.operations.endpoint.endpoints import add_endpoint
from hookseal.operations.operator import Operator
from hookseal.postgres.statements import statements
from hookseal.queue.bell import Bell
from hookseal.secrets.boot import Unlocked

LIMIT_SECONDS: Final = 15.0
_LOOK_AGAIN_SECONDS: Final = 0.02
_SQL: Final = statements("hookseal.demo", "stage.sql")

Pool = asyncpg.Pool
T = TypeVar("T")
_DRAIN_SECONDS: Final = 25  # the default of the worker, which the demo uses


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedEndpoint:
    """An endpoint that sends to this path of the receiver."""

    tenant_id: TenantId
    endpoint_id: EndpointId
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """An installation with a running worker, and the receiver of its endpoints."""

    pool: "Pool[asyncpg.Record]"
    unlocked: Unlocked
    ringing: Bell
    receiver: Receiver
    clock: Clock

    @asynccontextmanager
    async def operator(self) -> AsyncIterator[Operator]:
        """Provide an operator, who may change the installation."""
        async with self.pool.acquire() as connection:
            yield Operator(connection=connection, unlocked=self.unlocked, who="hookseal demo")

    async def add(self, path: str, subscription: str, **settings: Any) -> AddedEndpoint:
        """Add an endpoint for the tenant that the path begins with, and make the receiver expect its secret.

        `settings` are further fields of `NewEndpoint`.
        """
        tenant = TenantId(path.split("/")[1])
        url = self.receiver.base_url + path
        endpoint = NewEndpoint(tenant_id=tenant, url=url, event_types=(subscription,), **settings)
        async with self.operator() as operator:
            added = await add_endpoint(operator, endpoint, None, own_drain_seconds=_DRAIN_SECONDS)
        self.receiver.expect(path, added.secret.reveal().decode("ascii"), endpoint.scheme)
        return AddedEndpoint(tenant_id=tenant, endpoint_id=added.pointer.endpoint_id, path=path)

    async def publish(self, tenant: TenantId, event_type: str, number: int) -> tuple[Ring, ...]:
        """Publish an event, ring its deliveries, and return them."""
        event = Event(tenant_id=tenant, event_type=event_type, correlation_id=f"demo-{number}")
        published = await publish_json(self.pool, event, f'{{"number": {number}}}')
        await self.ringing.ring(published.due)
        return published.deliveries

    async def states(self, endpoint: AddedEndpoint) -> dict[str, int]:
        """Return the number of the endpoint's deliveries in each state."""
        rows = await self.pool.fetch(_SQL["states"], endpoint.tenant_id, endpoint.endpoint_id)
        return {row["state"]: row["deliveries"] for row in rows}

    async def wait_until_done(self, endpoint: AddedEndpoint) -> None:
        """Return once no delivery of the endpoint is pending or being sent."""
        while {State.PENDING, State.SENDING} & (await self.states(endpoint)).keys():
            await self.clock.sleep(_LOOK_AGAIN_SECONDS)

    async def wait_for_state(self, ring: Ring, state: State) -> None:
        """Return once the delivery is in this state."""
        while await self.pool.fetchval(_SQL["state"], ring.tenant_id, ring.delivery_id) != state:
            await self.clock.sleep(_LOOK_AGAIN_SECONDS)

    async def read_row(self, endpoint: AddedEndpoint) -> tuple[Any, ...]:
        """Return the secret columns of an endpoint's row, to be written back later."""
        return tuple(await self.pool.fetchrow(_SQL["read_row"], endpoint.tenant_id, endpoint.endpoint_id) or ())

    async def write_row(self, endpoint: AddedEndpoint, row: tuple[Any, ...]) -> None:
        """Write older secret columns back, as an attacker with write access to the table."""
        await self.pool.execute(_SQL["write_row"], endpoint.tenant_id, endpoint.endpoint_id, *row)

    async def waiting_for(self, ring: Ring) -> str | None:
        """Return what the delivery waits for, None if nothing."""
        found: str | None = await self.pool.fetchval(_SQL["waiting_for"], ring.tenant_id, ring.delivery_id)
        return found

    async def wait_until_held(self, ring: Ring) -> None:
        """Return once the delivery waits for something."""
        while await self.waiting_for(ring) is None:
            await self.clock.sleep(_LOOK_AGAIN_SECONDS)

    async def show(self, ring: Ring) -> dict[str, Any]:
        """Return the delivery with its attempts, as `hookseal delivery show` does."""
        return await delivery_queries.show(self.pool, ring.delivery_id)


@asynccontextmanager
async def time_limit(seconds: float = LIMIT_SECONDS) -> AsyncIterator[None]:
    """End the block silently after so many seconds: the check of what was seen by then says what is missing."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            yield


async def side_by_side(*coroutines: Coroutine[Any, Any, T]) -> list[T]:
    """Run all coroutines, return their results in order. If one raises, cancel the others and raise its error."""
    tasks = [asyncio.create_task(one) for one in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
