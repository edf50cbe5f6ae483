"""Endpoints and deliveries in a real PostgreSQL, written by the product's own functions."""

import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar

import asyncpg

from hookseal.audit.chain import Action
from hookseal.dispatcher.core.model import Claim, Ring
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.dispatcher.store.held import PostgresHeldEndpoints
from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.dispatcher.store.publish import NewEvent, PublishResult, publish_json
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Algorithm
from hookseal.operations.endpoint.endpoints import AddedEndpoint, add_endpoint
from hookseal.operations.endpoint.rotation import rotate_secret, signing
from hookseal.operations.operator import Operator
from hookseal.operations.tokens import publish_key
from hookseal.postgres.pool import Connection, Pool
from hookseal.secrets.boot import Unlocked, unlock
from hookseal.secrets.core.keyring import KeyRing, MasterKey
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Provider
from hookseal.secrets.core.signing import generate_signing_secret
from hookseal.secrets.core.token_seal import TokenSeal
from hookseal.secrets.endpoint.pointer import lock, move
from hookseal.secrets.endpoint.rotation import RotationRequest, RotationResult
from hookseal.secrets.extras.stored import EndpointExtras
from hookseal.secrets.extras.tls_identity import NONE, TlsIdentity
from hookseal.secrets.key import keys
from hookseal.secrets.store.postgres import PostgresStore
from tests import rows

_TOKEN = """
SELECT t.*, t.id::text AS token_id, t.user_name AS "user", t.made_of::text AS made_of
FROM hookseal.api_tokens AS t WHERE t.id = $1::text::uuid
"""
T = TypeVar("T")
P = ParamSpec("P")
MASTER_KEY_TEXT = "7yyrkuc1ed1FZi0YxFzajm8mpnMX8VMElPYFusAJKMQ="
# Moves the end of what has ended to the past. A trigger would set it to the present.
AGE = """
SET LOCAL session_replication_role = replica;
UPDATE hookseal.deliveries SET finished_at = now() - interval '31 days' WHERE finished_at IS NOT NULL"""


def keyring() -> KeyRing:
    """Return a keyring with the master key of these tests."""
    return KeyRing(MasterKey.parse(MASTER_KEY_TEXT, variable="SECRETS_MASTER_KEY"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """An initialised installation in the database of a test."""

    pool: Pool
    unlocked: Unlocked

    def operator(self, connection: Connection) -> Operator:
        return Operator(connection=connection, unlocked=self.unlocked, who="ada@desk")

    async def act(
        self, operation: Callable[Concatenate[Operator, P], Awaitable[T]], *args: P.args, **named: P.kwargs
    ) -> T:
        """Call an operation as an operator."""
        async with self.pool.acquire() as connection:
            return await operation(self.operator(connection), *args, **named)

    async def add(
        self,
        endpoint: NewEndpoint,
        secret: SecretMaterial | None = None,
        *,
        headers: Mapping[str, bytes] | None = None,
        tls: TlsIdentity = NONE,
    ) -> AddedEndpoint:
        values = {name: SecretMaterial(value) for name, value in (headers or {}).items()}
        own = EndpointExtras(headers=values, tls=tls)
        async with self.pool.acquire() as connection:
            return await add_endpoint(self.operator(connection), endpoint, secret, own_drain_seconds=25, own=own)

    async def endpoint(self, tenant: str = "acme", *, url: str = "https://receiver.example/hook") -> AddedEndpoint:
        return await self.add(NewEndpoint(tenant_id=TenantId(tenant), url=url, event_types=("*",)))

    async def rotate(
        self,
        endpoint_id: EndpointId,
        *,
        tenant: str = "acme",
        overlap_seconds: int = 0,
        secret: SecretMaterial | None = None,
        **changes: Any,
    ) -> RotationResult:
        """Rotate the secret of an endpoint; by default the new one is drawn, and the previous one is revoked."""
        drawn = generate_signing_secret(changes.get("algorithm") or Algorithm.HMAC)
        request = RotationRequest(
            tenant_id=TenantId(tenant),
            endpoint_id=endpoint_id,
            overlap_seconds=overlap_seconds,
            secret=secret or drawn,
            **changes,
        )
        return await self.act(rotate_secret, request)

    async def pointer(self, endpoint_id: EndpointId, tenant: str = "acme") -> Pointer:
        """Return the pointer of an endpoint, as a claim would read it now."""
        async with self.pool.acquire() as connection, connection.transaction():
            return await lock(connection, tenant=TenantId(tenant), endpoint_id=endpoint_id)

    async def set_scheme(self, endpoint_id: EndpointId, scheme: str, tenant: str = "acme") -> None:
        """Give an endpoint a scheme, also one that only a later version knows."""
        async with self.pool.acquire() as connection, connection.transaction():
            row = await lock(connection, tenant=TenantId(tenant), endpoint_id=endpoint_id)
            moved = await move(connection, self.unlocked.integrity, row, scheme=scheme)
            await self.operator(connection).audit(Action.SECRET_ROTATED, of=moved, after=signing(moved))

    def ledger(self, worker: str = "w1", *, lease_seconds: float = 45) -> PostgresLedger:
        """Return the ledger of a worker."""
        return PostgresLedger(self.pool, worker=worker, lease_seconds=lease_seconds)

    async def claim(self, ring: Ring | None = None, worker: str = "w1", *, lease_seconds: float = 45) -> Claim:
        """Claim a delivery for a worker, which must be possible; by default the only delivery of a new event."""
        if ring is None:
            [ring] = await self.deliveries()
        claim = await self.ledger(worker, lease_seconds=lease_seconds).claim(ring)
        assert claim is not None
        return claim

    async def claimed(self, ring: Ring | None = None) -> Pointer:
        """Claim a delivery in the same way, and return the pointer that the claim has read."""
        claim = await self.claim(ring)
        assert claim.target is not None
        return claim.target.pointer

    async def signed(self, pointer: Pointer) -> list[str]:
        """Return the signatures of the content `x` by this pointer, current first."""
        async with self.unlocked.service.signers(pointer) as signers:
            return [signer.sign(b"x") for signer in signers]

    async def deliveries(self, tenant: str = "acme", *, event_type: str = "invoice.paid") -> tuple[Ring, ...]:
        return (await self.published(tenant, event_type=event_type)).deliveries

    async def published(self, tenant: str = "acme", *, event_type: str = "invoice.paid") -> PublishResult:
        event = NewEvent(tenant_id=TenantId(tenant), event_type=event_type, correlation_id="corr-1")
        return await publish_json(self.pool, event, '{"n": 1}')

    async def change_token(self, token_id: str, **changes: Any) -> None:
        """Change a token as if it had been made so: it is signed again."""
        await rows.change(self.pool, "api_tokens", token_id, **changes)
        row = await self.pool.fetchrow(_TOKEN, token_id)
        assert row is not None
        signed = TokenSeal(self.unlocked.integrity).signed(dict(row))
        await rows.change(self.pool, "api_tokens", token_id, signature=signed["signature"])

    async def settle(self) -> None:
        """Release the due probes and all released deliveries, as the leader does."""
        holds = PostgresHeldEndpoints(self.pool)
        await holds.probe()
        while await holds.release_batch() is not None:
            pass

    async def delivery(self, ring: Ring) -> asyncpg.Record:
        row = await self.pool.fetchrow("SELECT * FROM hookseal.deliveries WHERE id = $1::text::uuid", ring.delivery_id)
        assert row is not None
        return row

    async def attempts(self, ring: Ring) -> list[asyncpg.Record]:
        return await self.pool.fetch(
            "SELECT * FROM hookseal.attempts WHERE delivery_id = $1::text::uuid ORDER BY number", ring.delivery_id
        )


async def begin(pool: Pool) -> Installation:
    """Return the installation, initialised with the key of these tests: now, or in the template of `begun_pool`."""
    async with pool.acquire() as connection:
        if not await connection.fetchval("SELECT EXISTS (SELECT FROM hookseal.secret_keys)"):
            await keys.initialise(connection, keyring(), PostgresStore(connection, keyring()), os.urandom)
            await publish_key(connection, (await unlock(connection, Provider.DB, keyring())).integrity)
    return Installation(pool=pool, unlocked=await unlock(pool, Provider.DB, keyring()))


async def begin_with_two_tenants(pool: Pool) -> Installation:
    """Return the same, with an endpoint of `acme` and one of `globex`."""
    made = await begin(pool)
    await made.endpoint()
    await made.endpoint("globex")
    return made
