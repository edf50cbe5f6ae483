"""One installation for all tests of the pages: a worker, the API on a known port, and a receiver."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from standardwebhooks import Webhook

from hookseal import Admin, Publisher
from hookseal.admin import DeliveryState
from hookseal.postgres.pool import FairPool
from tests.api.alone import serving
from tests.servers import REDIS_DATABASES_PER_PROCESS, Servers, WithoutReset, database, empty_by_flush, sibling
from tests.worker import world as worlds
from tests.worker.environment import environment
from tests.worker.waiting import eventually
from tests.worker.world import Received, Receiver, World, receiving

_NUMBERS = count(1)
EVENT_TYPES: dict[str, dict[str, Any]] = {"invoice.paid": {"id": 7, "total": "12.50"}, "invoice.void": {"id": 7}}


@dataclass(slots=True, kw_only=True)
class Stage:
    """What runs: its pages are at `url`, and `receiver` gets what a worker sends."""

    world: World
    admin: Admin
    publisher: Publisher
    receiver: Receiver
    url: str
    settings: Mapping[str, str] = field(repr=False)

    def tenant(self) -> str:
        """Return a tenant that no other test uses."""
        return f"tenant-{next(_NUMBERS)}"

    def hook(self, tenant: str) -> str:
        """Return the url of a receiver of this tenant."""
        return f"{self.receiver.base_url}/{tenant}"

    async def received(self, tenant: str, number: int = 1) -> Received:
        """Return the request of that number to the receiver of this tenant, when it has arrived."""

        def look() -> Received | None:
            own = [each for each in self.receiver.received if each.path == f"/{tenant}"]
            return own[number - 1] if len(own) >= number else None

        return await eventually(look)

    async def publish(self, tenant: str, data: Any = None, **more: Any) -> str:
        """Publish an event, and return its id."""
        published = await self.publisher.publish(
            tenant_id=tenant, event_type="invoice.paid", data={"id": 1} if data is None else data, **more
        )
        return published.event_id

    async def delivery(self, tenant: str, *states: DeliveryState) -> str:
        """Return the id of the newest delivery of the tenant, when it is in one of the states."""

        async def look() -> str | None:
            page = await self.admin.deliveries.list(tenant_id=tenant, states=states or None, limit=1)
            return page.items[0].delivery_id if page.items else None

        return await eventually(look)


def verified(got: Received, secret: str) -> Any:
    """Return the payload of a request, verified as a receiver does."""
    Webhook(secret).verify(got.body, got.headers)
    return json.loads(got.body)


@asynccontextmanager
async def staged(servers: Servers, folder: Path) -> AsyncIterator[Stage]:
    """Run an installation of its own."""
    number = (servers.process + 1) * REDIS_DATABASES_PER_PROCESS - 1
    redis_url = sibling(servers.redis_url, str(number))
    await empty_by_flush(redis_url)
    port = free_port()
    url = f"http://127.0.0.1:{port}/portal"
    async with (
        database(servers, f"{servers.prefix}pages", template=servers.begun) as database_url,
        FairPool(database_url, max_size=4, connection_class=WithoutReset) as pool,
        receiving() as receiver,
    ):
        settings = environment(database_url, redis_url, HOOKSEAL_PORTAL_URL=url, HOOKSEAL_API_PORT=str(port))
        world = await worlds.world(pool, database_url, redis_url, folder)
        async with (
            Admin.connect(environ=settings) as admin,
            Publisher.connect(database_url, redis_url) as publisher,
            world.worker(),
            serving(settings),
        ):
            for name, example in EVENT_TYPES.items():
                schema = {"1": {"type": "object", "examples": [example]}}
                await admin.event_types.add(
                    name=name, description=f"An example: {name}.", schemas=json.dumps(schema), actor="test"
                )
            yield Stage(world=world, admin=admin, publisher=publisher, receiver=receiver, url=url, settings=settings)
    await asyncio.sleep(0)


def free_port() -> int:
    """Return a port that is free now: the address of the pages is a setting of the process that serves them."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
