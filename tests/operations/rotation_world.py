"""The real parts that a machine of rotations drives: operators on connections of their own, workers, and the clock."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self, TypeVar

import asyncpg

from hookseal.dispatcher.ledger import PostgresLedger
from hookseal.dispatcher.model import Claim, Ring
from hookseal.ground.errors import Busy
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.operations import rotation
from hookseal.operations.operator import Operator
from hookseal.schema.database import Connection
from hookseal.secrets.boot import unlock
from hookseal.secrets.context import Purpose
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.ref import Provider, SecretRef, endpoint_secret_name
from hookseal.secrets.rotation import Rotated, Wanted
from hookseal.secrets.service import SecretService
from tests.doubles.stored import Installation, begin, keyring
from tests.operations import moved_clock
from tests.operations.rotation_model import GIVEN, EndOverlap, Operation, RollBack, Rotate
from tests.operations.rotation_stored import Stored, stored
from tests.operations.watched import Watched, connect, released

T = TypeVar("T")
LEASE_SECONDS = 45


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """What a claim of a delivery signs with: references, current first, and their signatures of one content."""

    refs: tuple[str, ...]
    signatures: tuple[str, ...]


@dataclass(kw_only=True)
class Site:
    """One endpoint of a tenant of its own, in the installation of all."""

    world: "World"
    tenant: TenantId
    endpoint: EndpointId
    first: bytes

    def ref(self, version: int) -> str:
        """Return the reference of a version of its secret."""
        return f"db:{self.tenant}:{endpoint_secret_name(self.endpoint)}:{version}"

    def wanted(self, asked: Rotate) -> Wanted:
        """Return the rotation that is asked for, with what was given, or else what was drawn."""
        return Wanted(
            tenant_id=self.tenant,
            endpoint_id=self.endpoint,
            overlap_seconds=asked.overlap_seconds,
            secret=SecretMaterial(asked.drawn if asked.given is None else GIVEN[asked.given]),
            given=asked.given is not None,
            rotation_id=asked.rotation_id,
            expect_generation=asked.expect,
            scheme=asked.scheme,
            algorithm=asked.algorithm,
            lead=asked.lead,
            force=asked.force,
        )

    async def do(self, connection: Connection, operation: Operation) -> Rotated | Pointer | Exception:
        """Do it as an operator does, and return what was answered or raised."""
        operator = Operator(connection=connection, unlocked=self.world.installation.unlocked, who="ada@desk")
        here: dict[str, Any] = {"tenant": self.tenant, "endpoint_id": self.endpoint}
        work: Coroutine[Any, Any, Rotated | Pointer]
        match operation:
            case Rotate():
                work = rotation.rotate(operator, self.wanted(operation))
            case RollBack(overlap_seconds=seconds, expect=expect):
                work = rotation.roll_back(operator, overlap_seconds=seconds, expect_generation=expect, **here)
            case EndOverlap(expect=expect):
                work = rotation.end_overlap(operator, expect_generation=expect, **here)
        try:
            return await work
        except Exception as error:  # noqa: BLE001 -- whatever it is, the model is asked whether it is right
            return error

    async def do_both(
        self, first: Operation, second: Operation, at: int
    ) -> list[tuple[Operation, Rotated | Pointer | Exception]]:
        """Begin the second as the first is about to send the statement of that number.

        Return both, with what came of them, in the order in which they happened.
        """
        ada, bob = self.world.operators
        pause = ada.pause(at)
        bob.watch()
        async with asyncio.TaskGroup() as tasks:
            one = tasks.create_task(self.do(ada, first))
            await pause.reached_or(one)
            other = tasks.create_task(self.do(bob, second))
            if one.done() or not ada.has_locked:
                await asyncio.wait({other})
            else:
                await bob.locks.wait()
            is_first = one.done() or ada.has_locked
            pause.let_go()
        ada.watch()
        both = [(first, one.result()), (second, other.result())]
        return both if is_first else both[::-1]

    async def do_and_claim(
        self, operation: Operation, ring: Ring, at: int
    ) -> tuple[Rotated | Pointer | Exception, Claim | None, bool]:
        """Claim as the operation is about to send the statement of that number.

        Return what came of it, the claim, None while the row is held, and whether the operation was done before.
        """
        ada = self.world.operators[0]
        pause = ada.pause(at)
        async with asyncio.TaskGroup() as tasks:
            one = tasks.create_task(self.do(ada, operation))
            await pause.reached_or(one)
            is_held = ada.has_locked and not one.done()
            is_after = one.done()
            [claim] = await asyncio.gather(self.claim(ring), return_exceptions=True)
            pause.let_go()
        ada.watch()
        if is_held:
            assert isinstance(claim, Busy), claim
            return one.result(), None, is_after
        assert isinstance(claim, Claim), claim
        return one.result(), claim, is_after

    async def publish(self) -> Ring:
        """Publish an event and return its delivery."""
        [ring] = await self.world.installation.deliveries(self.tenant)
        return ring

    async def claim(self, ring: Ring) -> Claim:
        """Claim the delivery. Raises `Busy`."""
        claim = await self.world.ledger.claim(ring)
        assert claim is not None
        return claim

    async def stored(self) -> Stored:
        """Return what is stored, once the MAC of the row was verified."""
        return await stored(self.world.installation, self.tenant, self.endpoint)

    async def opened(self, version: int) -> bytes:
        """Return the text of a version as it is stored."""
        ref = SecretRef.parse(self.ref(version))
        return (await self.world.installation.unlocked.store.get(ref, purpose=Purpose.WEBHOOK_SIGNING)).reveal()


class World:
    """An installation on a PostgreSQL whose clock is moved, run step by step by whoever is not asynchronous."""

    def __init__(self, database_url: str) -> None:
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._database_url = database_url
        self._tenants = 0

    def __enter__(self) -> Self:
        self.run(self._begin())
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self._end())
        self._runner.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it to its end."""
        return self._runner.run(work)

    async def site(self) -> Site:
        """Return a new endpoint."""
        self._tenants += 1
        added = await self.installation.endpoint(f"t{self._tenants}")
        return Site(
            world=self,
            tenant=added.pointer.tenant_id,
            endpoint=added.pointer.endpoint_id,
            first=added.secret.reveal(),
        )

    async def now(self) -> datetime:
        """Return the time by PostgreSQL's clock."""
        return await moved_clock.now(self.pool)

    async def move(self, by: timedelta) -> datetime:
        """Move PostgreSQL's clock, and return what time it is."""
        return await moved_clock.move(self.pool, by)

    async def ends(self, connection: Watched, endpoint: str) -> None:
        """Have that operator's connection end; return once PostgreSQL knows, and another one is there."""
        connection.terminate()
        async with self.pool.acquire() as other:
            await released(other, endpoint)
        number = self.operators.index(connection)
        self.operators[number] = await connect(self._database_url, moved_clock.SETTINGS)

    async def _begin(self) -> None:
        await moved_clock.make(self._database_url)
        self.pool = await asyncpg.create_pool(
            self._database_url, min_size=1, max_size=4, server_settings=moved_clock.SETTINGS
        )
        self.installation: Installation = await begin(self.pool)
        other = await unlock(self.pool, Provider.DB, keyring())
        self.workers: tuple[SecretService, ...] = (self.installation.unlocked.service, other.service)
        self.ledger = PostgresLedger(self.pool, worker="w-1", lease_seconds=LEASE_SECONDS)
        self.operators = [await connect(self._database_url, moved_clock.SETTINGS) for _ in range(2)]

    async def _end(self) -> None:
        for connection in self.operators:
            await connection.close()
        await self.pool.close()


async def signed(service: SecretService, claim: Claim, content: bytes) -> Signed:
    """Return what a worker signs that content with for a claim."""
    assert claim.target is not None
    async with service.signers(claim.target.pointer) as signers:
        return Signed(
            refs=tuple(signer.ref for signer in signers),
            signatures=tuple(signer.sign(content) for signer in signers),
        )
