"""What the state machine of rotation drives and compares: the real components, what PostgreSQL stores, and a model."""

import asyncio
import base64
import hmac
import os
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from math import ceil
from typing import Any, Final, Self, TypeVar

import asyncpg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hookseal.audit import log
from hookseal.dispatcher.core.model import Claim, Ring
from hookseal.dispatcher.store import held
from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.errors import Busy, Conflict, HooksealError, Malformed
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.operations.endpoint import rotation
from hookseal.postgres.pool import Connection
from hookseal.secrets.boot import unlock
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Provider, Purpose, SecretRef, endpoint_secret_name
from hookseal.secrets.endpoint import pointer
from hookseal.secrets.endpoint.rotation import RotationRequest, RotationResult, status
from hookseal.secrets.resolve.service import SecretService
from tests.doubles import moved_clock
from tests.doubles.stored import Installation, begin, keyring
from tests.operations.watched import Watched, connect, released

_PAIR: Final = Ed25519PrivateKey.from_private_bytes(bytes(32))
# Secrets that an operator may supply, each with the algorithm and schemes that it can sign for.
GIVEN: Final = {
    "key": b"whsec_" + base64.b64encode(b"k" * 32),
    "text": b"a text of more than sixteen bytes",
    "pair": b"whsk_" + base64.b64encode(bytes(32) + _PAIR.public_key().public_bytes_raw()),
}
_FITS: Final = {
    (Scheme.STANDARD, Algorithm.HMAC): {"key"},
    (Scheme.SVIX, Algorithm.HMAC): {"key"},
    (Scheme.X_WEBHOOK, Algorithm.HMAC): {"key", "text"},
    (Scheme.STANDARD, Algorithm.ED25519): {"pair"},
    (Scheme.SVIX, Algorithm.ED25519): {"pair"},
}


def drawn_key() -> bytes:
    """Return a random HMAC secret."""
    return b"whsec_" + base64.b64encode(os.urandom(32))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotate:
    """A requested rotation; `given` names one of `GIVEN`, else the secret is `drawn`, for HMAC."""

    overlap_seconds: int
    rotation_id: str | None = None
    expect: int | None = None
    scheme: Scheme | None = None
    algorithm: Algorithm | None = None
    lead: str | None = None
    force: bool = False
    given: str | None = None
    drawn: bytes = field(default_factory=drawn_key, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RollBack:
    """A requested rollback."""

    overlap_seconds: int
    expect: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EndOverlap:
    """A requested end of the overlap."""

    expect: int | None = None


Operation = Rotate | RollBack | EndOverlap


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What an operation answers. `fresh`: it moved the pointer. `shows`: the version whose secret is returned."""

    generation: int
    current: int
    previous: int | None
    expires_at: datetime | None
    fresh: bool = True
    shows: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The operation is refused with this kind of error for this field, and changes nothing."""

    kind: type[HooksealError]
    about: str


class _Refused(Exception):
    """Carries a refusal to where it is answered."""

    def __init__(self, kind: type[HooksealError], about: str) -> None:
        super().__init__(kind, about)
        self.refusal = Refusal(kind=kind, about=about)


@dataclass(slots=True, kw_only=True)
class Version:
    """A version of the secret: its algorithm and text; None while a text that was drawn has not been returned."""

    scheme: Scheme
    algorithm: Algorithm
    text: bytes | None

    def signature(self, content: bytes) -> str:
        assert self.text is not None
        if self.algorithm is Algorithm.ED25519:
            seed = base64.b64decode(self.text.removeprefix(b"whsk_"))[:32]
            return "v1a," + base64.b64encode(Ed25519PrivateKey.from_private_bytes(seed).sign(content)).decode()
        if self.scheme is Scheme.X_WEBHOOK:
            return "sha256=" + hmac.new(self.text, content, "sha256").hexdigest()
        key = base64.b64decode(self.text.removeprefix(b"whsec_"))
        return "v1," + base64.b64encode(hmac.digest(key, content, "sha256")).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class PointerRow:
    """The endpoint row: the version numbers, and how each of the two signs."""

    generation: int
    current: tuple[int, str, str]
    previous: tuple[int, str, str] | None
    expires_at: datetime | None
    previous_due: bool
    lead: str


@dataclass(slots=True, kw_only=True)
class Model:
    """An endpoint with its first secret, at the time `now`."""

    now: datetime
    versions: dict[int, Version]
    generation: int = 1
    current: int = 1
    previous: int | None = None
    expires_at: datetime | None = None
    lead: str = "previous"
    answers: dict[str, tuple[Rotate, Answer]] = field(default_factory=dict)
    rotations: int = 0
    audited: list[tuple[str, int | None]] = field(default_factory=lambda: [("endpoint.added", 1)])

    def due(self) -> tuple[int, ...]:
        """Return the versions that a claim now signs with, current first."""
        if self.previous is None or self.expires_at is None or self.now >= self.expires_at:
            return (self.current,)
        return (self.current, self.previous)

    def row(self) -> PointerRow:
        return PointerRow(
            generation=self.generation,
            current=self._how(self.current),
            previous=None if self.previous is None else self._how(self.previous),
            expires_at=self.expires_at,
            previous_due=len(self.due()) > 1,
            lead=self.lead,
        )

    def seconds_left(self) -> int | None:
        """Return the remaining seconds of the overlap, rounded up; None without an overlap."""
        if len(self.due()) == 1 or self.expires_at is None:
            return None
        return ceil((self.expires_at - self.now).total_seconds())

    def states(self) -> dict[int, str]:
        named = {self.current: "active", self.previous: "previous"}
        return {version: named.get(version, "retired") for version in self.versions}

    def do(self, operation: Operation) -> Answer | Refusal:
        try:
            return self._do(operation)
        except _Refused as error:
            return error.refusal

    def _do(self, operation: Operation) -> Answer:
        match operation:
            case Rotate():
                return self._rotate(operation)
            case RollBack():
                self._require_generation(operation.expect)
                return self._roll_back(operation)
            case EndOverlap():
                self._require_generation(operation.expect)
                if self.previous is None:
                    raise _Refused(Conflict, "endpoint_id")
                return self._move("secret.overlap_ended", self.current)

    def _how(self, number: int) -> tuple[int, str, str]:
        version = self.versions[number]
        return (number, version.scheme, version.algorithm)

    def _rotate(self, asked: Rotate) -> Answer:
        if asked.rotation_id in self.answers:
            return self._again(asked)
        self._require_generation(asked.expect)
        if len(self.due()) > 1 and asked.overlap_seconds and not asked.force:
            raise _Refused(Conflict, "endpoint_id")
        before = self.versions[self.current]
        how = (asked.scheme or before.scheme, asked.algorithm or before.algorithm)
        if how not in _FITS:
            raise _Refused(Malformed, "algorithm")
        if asked.given is not None and asked.given not in _FITS[how]:
            raise _Refused(Malformed, "secret")
        number = max(self.versions) + 1
        drawn = asked.drawn if how[1] is Algorithm.HMAC else None  # for ed25519 hookseal draws it itself
        text = drawn if asked.given is None else GIVEN[asked.given]
        self.versions[number] = Version(scheme=how[0], algorithm=how[1], text=text)
        self.lead = asked.lead or self.lead
        self.rotations += 1
        answer = self._move("secret.rotated", number, asked.overlap_seconds)
        answer = replace(answer, shows=how[1] is Algorithm.HMAC)
        if asked.rotation_id is not None:
            self.answers[asked.rotation_id] = (asked, answer)
        return answer

    def _again(self, asked: Rotate) -> Answer:
        first, answer = self.answers[asked.rotation_id or ""]
        if first != asked:
            raise _Refused(Conflict, "rotation_id")
        shows = answer.shows and answer.current == self.current
        if shows:
            self.audited.append(("secret.revealed", None))  # the answer omits a generation that the row cannot prove
        return replace(answer, fresh=False, shows=shows)

    def _roll_back(self, asked: RollBack) -> Answer:
        if len(self.due()) == 1 or self.previous is None:
            raise _Refused(Conflict, "endpoint_id")
        return self._move("secret.rolled_back", self.previous, asked.overlap_seconds)

    def _require_generation(self, expected: int | None) -> None:
        if expected is not None and expected != self.generation:
            raise _Refused(Conflict, "expect_generation")

    def _move(self, action: str, current: int, overlap_seconds: int = 0) -> Answer:
        """Move the pointer: the current version signs during the overlap, and any other older one no more."""
        self.previous = self.current if overlap_seconds else None
        self.expires_at = self.now + timedelta(seconds=overlap_seconds) if overlap_seconds else None
        self.current = current
        self.generation += 1
        self.audited.append((action, self.generation))
        return Answer(
            generation=self.generation, current=self.current, previous=self.previous, expires_at=self.expires_at
        )


# What PostgreSQL stores of an endpoint, and the answers of operations, in the terms of the model.

_AUDITED = """
SELECT action, (after ->> 'generation')::bigint FROM hookseal.audit_log WHERE tenant_id = $1 ORDER BY sequence
"""
_ROTATIONS = """
SELECT rotation_id FROM hookseal.secret_rotations WHERE tenant_id = $1 AND endpoint_id = $2::text::uuid
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Everything that PostgreSQL stores of an endpoint."""

    row: PointerRow
    audited_generation: int | None
    states: dict[int, str]
    schemes: dict[int, str | None]
    audited: list[tuple[str, int | None]]
    is_chained: bool
    rotations: list[str]
    older_claims: int
    overlap: dict[str, Any]


async def stored(installation: Installation, tenant: TenantId, endpoint: EndpointId) -> Stored:
    """Return what is stored, after verifying the MAC of the row."""
    unlocked, here = installation.unlocked, (tenant, endpoint)
    [chain] = await log.verify(installation.pool, unlocked.integrity, tenant=tenant)
    versions = await unlocked.store.versions(tenant, endpoint_secret_name(endpoint))
    async with installation.pool.acquire() as connection:
        async with connection.transaction():
            found = await pointer.lock(connection, tenant=tenant, endpoint_id=endpoint)
        unlocked.integrity.verify(found)
        return Stored(
            row=_row(found),
            audited_generation=found.audited_generation,
            states={version.ref.version: version.state.value for version in versions},
            schemes={version.ref.version: version.scheme for version in versions},
            audited=[tuple(row) for row in await connection.fetch(_AUDITED, tenant)],
            is_chained=chain.broken is None,
            rotations=[row["rotation_id"] for row in await connection.fetch(_ROTATIONS, *here)],
            older_claims=await held.older_claims(connection, *here, found.generation),
            overlap=await status(connection, *here, limit=1),
        )


def _row(found: Pointer) -> PointerRow:
    signing = (found.secret_ref, found.scheme, found.algorithm)
    previous = (found.previous_secret_ref, found.previous_scheme or "", found.previous_algorithm or "")
    return PointerRow(
        generation=found.generation,
        current=(_number(signing[0]) or 0, *signing[1:]),
        previous=None if (number := _number(previous[0])) is None else (number, *previous[1:]),
        expires_at=found.previous_secret_expires_at,
        previous_due=found.previous_due,
        lead=found.lead,
    )


def _number(ref: str | None) -> int | None:
    return None if ref is None else SecretRef.parse(ref).version


def answered(outcome: RotationResult | Pointer) -> Answer:
    """Return the answer in the terms of the model."""
    return Answer(
        generation=outcome.generation,
        current=_number(outcome.secret_ref) or 0,
        previous=_number(outcome.previous_secret_ref),
        expires_at=outcome.previous_secret_expires_at,
        fresh=not isinstance(outcome, RotationResult) or outcome.before is not None,
        shows=isinstance(outcome, RotationResult) and outcome.secret is not None,
    )


# The real components that the state machine drives: operators on their own connections, workers, and the clock.

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
        operator = self.world.installation.operator(connection)
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
        return self._runner.run(work)

    async def site(self) -> Site:
        """Return a new endpoint."""
        self._tenants += 1
        added = await self.installation.endpoint(f"t{self._tenants}")
        return Site(
            world=self, tenant=added.pointer.tenant_id, endpoint=added.pointer.endpoint_id, first=added.secret.reveal()
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
    assert claim.target is not None
    async with service.signers(claim.target.pointer) as signers:
        return Signed(
            refs=tuple(signer.ref for signer in signers), signatures=tuple(signer.sign(content) for signer in signers)
        )
