"""The real components that the state machine drives: operators on their own connections, workers, and the clock."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self, TypeVar

import asyncpg

from hookseal.dispatcher.core.model import Claim, Ring
from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.errors import Busy
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.operations.endpoint import rotation
from hookseal.operations.operator import Operator
from hookseal.postgres.pool import Connection
from hookseal.secrets.boot import unlock
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Provider, Purpose, SecretRef, endpoint_secret_name
from hookseal.secrets.endpoint.rotation import RotationRequest, RotationResult
from hookseal.secrets.resolve.service import SecretService
from tests.doubles import moved_clock
from tests.doubles.stored import Installation, begin, keyring
from tests.operations.endpoint.rotation_model import GIVEN, EndOverlap, Operation, RollBack, Rotate
from tests.operations.endpoint.rotation_stored import Stored, stored
from tests.operations.watched import Watched, connect, released

T = TypeVar("T")
LEASE_SECONDS = 45


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """What a claim of a delivery signs with: refs, current first, and their signatures of one content."""

    refs: tuple[str, ...]
    signatures: tuple[str, ...]


@dataclass(kw_only=True)
class Site:
    """One endpoint of its own tenant, in the shared installation."""

    world: "World"
    tenant: TenantId
    endpoint: EndpointId
    first: bytes

    def ref(self, version: int) -> str:
        """Return the ref of a version of its secret."""
        return f"db:{self.tenant}:{endpoint_secret_name(self.endpoint)}:{version}"

    def rotation_request(self, asked: Rotate) -> RotationRequest:
        """Return the request for this rotation, with the given or the drawn secret."""
        return RotationRequest(
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

    async def do(self, connection: Connection, operation: Operation) -> RotationResult | Pointer | Exception:
        """Run the operation as an operator, and return its answer or error."""
        operator = Operator(connection=connection, unlocked=self.world.installation.unlocked, who="ada@desk")
        here: dict[str, Any] = {"tenant": self.tenant, "endpoint_id": self.endpoint}
        work: Coroutine[Any, Any, RotationResult | Pointer]
        match operation:
            case Rotate():
                work = rotation.rotate_secret(operator, self.rotation_request(operation))
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
    ) -> list[tuple[Operation, RotationResult | Pointer | Exception]]:
        """Start the second operation when the first is about to send its statement of that number.

        Return both with their results, in the order in which they took effect.
        """
        ada, bob = self.world.operators
        pause = ada.pause(at)
        bob.watch()
        async with asyncio.TaskGroup() as tasks:
            one = tasks.create_task(self.do(ada, first))
            await pause.wait_until_reached_or_done(one)
            other = tasks.create_task(self.do(bob, second))
            if one.done() or not ada.has_locked:
                await asyncio.wait({other})
            else:
                await bob.locks.wait()
            is_first = one.done() or ada.has_locked
            pause.resume()
        ada.watch()
        both = [(first, one.result()), (second, other.result())]
        return both if is_first else both[::-1]

    async def do_and_claim(
        self, operation: Operation, ring: Ring, at: int
    ) -> tuple[RotationResult | Pointer | Exception, Claim | None, bool]:
        """Claim when the operation is about to send its statement of that number.

        Return the result, the claim (None while the row is locked), and whether the operation was done before it.
        """
        ada = self.world.operators[0]
        pause = ada.pause(at)
        async with asyncio.TaskGroup() as tasks:
            one = tasks.create_task(self.do(ada, operation))
            await pause.wait_until_reached_or_done(one)
            is_held = ada.has_locked and not one.done()
            is_after = one.done()
            [claim] = await asyncio.gather(self.claim(ring), return_exceptions=True)
            pause.resume()
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
        """Return what is stored, after verifying the MAC of the row."""
        return await stored(self.world.installation, self.tenant, self.endpoint)

    async def opened(self, version: int) -> bytes:
        """Return the secret of a stored version."""
        ref = SecretRef.parse(self.ref(version))
        return (await self.world.installation.unlocked.store.get(ref, purpose=Purpose.WEBHOOK_SIGNING)).reveal()


class World:
    """An installation on a PostgreSQL with a movable clock, run step by step by synchronous code."""

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
        """Run the coroutine to its end."""
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
        """Return the time of PostgreSQL's clock."""
        return await moved_clock.now(self.pool)

    async def move(self, by: timedelta) -> datetime:
        """Move PostgreSQL's clock, and return the new time."""
        return await moved_clock.move(self.pool, by)

    async def ends(self, connection: Watched, endpoint: str) -> None:
        """End that operator's connection; return once PostgreSQL has noticed and there is a new one."""
        connection.terminate()
        async with self.pool.acquire() as other:
            await released(other, endpoint)
        number = self.operators.index(connection)
        self.operators[number] = await connect(self._database_url, moved_clock.SETTINGS)

    async def _begin(self) -> None:
        await moved_clock.make(self._database_url, stands_still=True)
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
    """Return a worker's signature of that content for a claim."""
    assert claim.target is not None
    async with service.signers(claim.target.pointer) as signers:
        return Signed(
            refs=tuple(signer.ref for signer in signers),
            signatures=tuple(signer.sign(content) for signer in signers),
        )
