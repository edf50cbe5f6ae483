"""The life of master keys with whole workers: the keys of each process, and the commands of an operator."""

import base64
import os
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from types import MappingProxyType
from typing import Any

from hookseal.ground.ids import TenantId
from hookseal.operations.key.keys import destroy_key, finish_rewrap, promote_key, retire_key, rewrap_batch, stage_key
from hookseal.operations.operator import Operator
from hookseal.secrets.boot import unlock
from hookseal.secrets.core.envelope import seal
from hookseal.secrets.core.keyring import KeyRing, MasterKey
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Provider, Purpose, SecretContext
from hookseal.secrets.key.rewrap import BEGINNING, Cursor
from tests import forked
from tests.cli.command import hookseal
from tests.doubles.stored import MASTER_KEY_TEXT
from tests.worker.environment import environment
from tests.worker.fleet import Worker
from tests.worker.waiting import eventually
from tests.worker.world import World

OLD = MASTER_KEY_TEXT
SYSTEM_HEAD = "SELECT FROM hookseal.audit_heads WHERE tenant_id = '_system' FOR UPDATE"
_WAITS = (
    "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    " AND query LIKE '%' || $1 || '%')"
)


def another() -> str:
    """Return a new master key, encoded as in its variable."""
    return base64.b64encode(os.urandom(32)).decode()


def key(text: str) -> MasterKey:
    return MasterKey.parse(text, variable="SECRETS_MASTER_KEY")


def id_of(text: str) -> str:
    return key(text).key_id


def staged(new: str) -> dict[str, str]:
    """Return the variables of a process that has the next key as well."""
    return {"SECRETS_MASTER_KEY": OLD, "SECRETS_MASTER_KEY_NEXT": new}


def swapped(new: str) -> dict[str, str]:
    """Return the variables of a process after the next key became the active one."""
    return {"SECRETS_MASTER_KEY": new, "SECRETS_MASTER_KEY_PREVIOUS": OLD}


def alone(new: str) -> dict[str, str]:
    """Return the variables of a process without the old key."""
    return {"SECRETS_MASTER_KEY": new}


async def command(
    world: World, *arguments: str, keys: Mapping[str, str] = MappingProxyType({}), code: int = 0
) -> dict[str, Any]:
    """Run a command with these keys; require that exit code and return the JSON that it printed."""
    ended = await hookseal(*arguments, "--json", **environment(world.database_url, world.redis_url, **keys))
    assert code == ended.code, ended.out + ended.err
    return ended.json


@asynccontextmanager
async def operating(world: World, *keys: str) -> AsyncIterator[Operator]:
    """Yield an operator in this process that has these keys."""
    ring = KeyRing(key(keys[0]), tuple(key(text) for text in keys[1:]))
    async with world.pool.acquire() as connection:
        unlocked = await unlock(connection, Provider.DB, ring)
        yield Operator(connection=connection, unlocked=unlocked, who="ada@desk")


async def stage(world: World, new: str) -> None:
    async with operating(world, OLD) as operator:
        await stage_key(operator, key(new))


async def promote(world: World, new: str) -> None:
    async with operating(world, OLD, new) as operator:
        await promote_key(operator, id_of(new))


async def rewrap(world: World, new: str, *, batches: int | None = None) -> None:
    """Re-wrap every record of the old key, or that many batches."""
    after: Cursor | None = BEGINNING
    async with operating(world, OLD, new) as operator:
        while after is not None and batches != 0:
            done = await rewrap_batch(operator, id_of(OLD), after, wait=True)
            after = None if done is None else done.last
            batches = None if batches is None else batches - 1
        if batches is None:
            assert 0 == (await finish_rewrap(operator, id_of(OLD))).records


async def retire(world: World, new: str) -> None:
    async with operating(world, OLD, new) as operator:
        await retire_key(operator, id_of(OLD))


async def destroy(world: World, new: str) -> None:
    """Mark the old key as destroyed, as an operator without it."""
    async with operating(world, new) as operator:
        await destroy_key(operator, id_of(OLD))


async def records(world: World, text: str) -> int:
    return int(await world.pool.fetchval("SELECT count(*) FROM hookseal.secret_records WHERE key_id = $1", id_of(text)))


async def bulk(world: World, number: int, *, tenant: str) -> None:
    """Store that many more records under the old key, of endpoints that do not exist."""
    ring = KeyRing(key(OLD))
    rows = []
    for count in range(number):
        name = f"webhook-endpoint-01890a5d-ac96-774b-bcce-{count:012x}"
        context = SecretContext(tenant=TenantId(tenant), name=name, version=1, purpose=Purpose.WEBHOOK_SIGNING)
        sealed = seal(ring, SecretMaterial(f"secret-{count}".encode()), context)
        rows.append((tenant, name, 1, "db", "webhook-signing", sealed, [id_of(OLD)], "retired"))
    columns = ["tenant_id", "name", "version", "provider", "purpose", "sealed", "wrapped_by", "state"]
    async with world.pool.acquire() as connection:
        await connection.copy_records_to_table("secret_records", schema_name="hookseal", records=rows, columns=columns)


async def waits(world: World, statement: str) -> None:
    """Return when a session waits for a lock in a statement that contains this text."""
    await eventually(lambda: world.pool.fetchval(_WAITS, statement))


async def killed_in_mid_batch(world: World, **keys: str) -> None:
    """Kill the command that re-wraps when a batch is written and not committed."""
    variables = os.environ | environment(world.database_url, world.redis_url, **keys)
    async with world.pool.acquire() as holder, holder.transaction():
        await holder.execute(SYSTEM_HEAD)
        process = await forked.start(
            *("key", "rewrap", id_of(OLD)),
            env=variables,
            stdout=DEVNULL,
            stderr=DEVNULL,
        )
        try:
            await waits(world, "audit_heads AS head")
        finally:
            process.kill()
            await process.wait()


class Fleet:
    """Workers by name, each of which can be restarted with other keys."""

    def __init__(self, world: World, stack: AsyncExitStack) -> None:
        self._world = world
        self._stack = stack
        self.running: dict[str, Worker] = {}
        self.all: list[Worker] = []

    async def start(self, name: str, **keys: str) -> Worker:
        worker = self.running[name] = await self._stack.enter_async_context(self._world.worker(**keys))
        self.all.append(worker)
        return worker

    async def stop(self, name: str) -> None:
        await self.running.pop(name).stop()

    async def restart(self, name: str, **keys: str) -> Worker:
        """Restart a worker with these keys; the others continue."""
        await self.stop(name)
        return await self.start(name, **keys)

    async def leader(self) -> str:
        async def look() -> str | None:
            holder = await self._world.pool.fetchval("SELECT holder FROM hookseal.control WHERE name = 'outbox'")
            return next((name for name, worker in self.running.items() if worker.worker_id == holder), None)

        return await eventually(look)


@asynccontextmanager
async def fleet(world: World) -> AsyncIterator[Fleet]:
    """Yield a fleet without workers; none runs after the block."""
    async with AsyncExitStack() as stack:
        yield Fleet(world, stack)
