"""Tenants that suffer one attack each: their arrangement, the attack, its reversal, and what the receivers got."""

from collections.abc import Sequence
from dataclasses import dataclass

from hookseal.dispatcher.core.model import Ring
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.ground.clock import SystemClock
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.operations.endpoint import rotation
from hookseal.receiver import verify
from hookseal.secrets.core.signing import generate_signing_secret
from hookseal.secrets.endpoint.rotation import RotationRequest
from hookseal.secrets.extras.tls_identity import NONE, TlsIdentity
from tests.doubles.client_certificates import Authority, identity
from tests.doubles.kept_rows import keep, put_back
from tests.worker.attacks import Attack
from tests.worker.waiting import eventually
from tests.worker.world import Received, Receiver, World

RIVAL = "rival"
AUTHORITY = Authority()
TLS = identity(AUTHORITY.client(), AUTHORITY)  # never shown: the attacked endpoints are reached without TLS
KEPT = ("endpoints", "secret_records", "audit_heads")


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackedEndpoint:
    """An endpoint with two versions of its secret that both sign, the current one first, and a header of its own."""

    tenant: str
    endpoint_id: EndpointId
    path: str
    secrets: tuple[str, str]
    header: str

    def require_genuine(self, got: Received) -> None:
        """Fail unless the request is signed with exactly the two secrets, and has this header."""
        signatures = got.headers["webhook-signature"].split(" ")
        for signature, secret in zip(signatures, self.secrets, strict=True):
            verify(got.body, got.headers | {"webhook-signature": signature}, [secret], now=SystemClock().now())
        assert self.header == got.headers["x-own"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """An attack on one endpoint of a tenant, and a second endpoint that must not be affected."""

    attack: Attack
    victim: AttackedEndpoint
    sibling: AttackedEndpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """All scenes, and an endpoint of another tenant."""

    world: World
    scenes: tuple[Scene, ...]
    other_tenant: AttackedEndpoint
    thief: str

    @property
    def endpoints_by_path(self) -> dict[str, AttackedEndpoint]:
        found = [self.other_tenant]
        for scene in self.scenes:
            found += [scene.victim, scene.sibling]
        return {party.path: party for party in found}

    async def attack(self, scene: Scene) -> None:
        victim = scene.victim.endpoint_id
        await self.world.pool.execute(
            scene.attack.sql.format(
                tenant=scene.victim.tenant,
                victim=victim,
                sibling=scene.sibling.endpoint_id,
                other_tenant=self.other_tenant.endpoint_id,
                signing=f"webhook-endpoint-{victim}",
                headers=f"endpoint-headers-{victim}",
                thief=f"{self.thief}/{scene.victim.tenant}",
            )
        )

    async def restore(self) -> None:
        """Restore every row as it was before the attacks, and make everything that waits due now."""
        async with self.world.pool.acquire() as connection, connection.transaction():
            await put_back(connection, *KEPT)
            await connection.execute("SET LOCAL session_replication_role = replica")  # else a trigger refuses it
            await connection.execute("DELETE FROM hookseal.audit_log WHERE sequence = 1000000")
        await self.retry_all()

    async def retry_all(self, *, at_delivered: bool = False, cached: bool = False) -> None:
        """Make what waits due now, and what was delivered if asked for; unless `cached`, discard all caches."""
        if not cached:
            await self.world.pool.execute("UPDATE hookseal.control SET epoch = epoch + 1 WHERE name = 'cache'")
        await self.world.pool.execute("DELETE FROM hookseal.held_endpoints")
        await self.world.pool.execute(
            "UPDATE hookseal.deliveries SET state = 'pending', waiting_for = NULL, held_at = NULL,"
            " next_attempt_at = now(), rung_at = NULL, last_error = NULL, budget_spent = 0"
            " WHERE state = 'pending' OR (state = 'delivered' AND $1)",
            at_delivered,
        )

    def require_genuine(self, receiver: Receiver) -> None:
        """Fail unless every request arrived at the URL of an endpoint, signed with the two secrets of that endpoint."""
        endpoints_by_path = self.endpoints_by_path
        for got in receiver.received:
            endpoints_by_path[got.path].require_genuine(got)

    async def settled(self) -> None:
        """Return when every delivery has ended or waits."""

        async def look() -> bool:
            return not await self.world.pool.fetchval(
                "SELECT EXISTS (SELECT FROM hookseal.deliveries"
                " WHERE state IN ('pending', 'sending') AND waiting_for IS NULL)"
            )

        await eventually(look)

    async def published(self) -> dict[str, tuple[Ring, Ring]]:
        """Publish an event in every tenant of a scene; return the deliveries to victim and sibling by tenant."""
        found = {}
        for scene in self.scenes:
            rings = {ring.endpoint_id: ring for ring in await self.world.publish(scene.victim.tenant, rung=False)}
            found[scene.victim.tenant] = (rings[scene.victim.endpoint_id], rings[scene.sibling.endpoint_id])
        return found


async def arranged(world: World, attacks: Sequence[Attack], *, base_url: str, thief: str) -> Stage:
    """Make a tenant for each attack, copy the rows, rotate all secrets, and copy the rows again.

    Only endpoints whose attack is about TLS have a TLS identity: a worker takes long to load more than a hundred.
    """
    tenants = [f"t{number}" for number, _ in enumerate(attacks)]
    begun = {
        (tenant, part): await _begun(world, tenant, part, base_url, TLS if "tls" in attack.sql else NONE)
        for tenant, attack in zip(tenants, attacks, strict=True)
        for part in ("victim", "sibling")
    }
    begun[RIVAL, "other_tenant"] = await _begun(world, RIVAL, "other_tenant", base_url, TLS)
    await world.pool.execute(
        "CREATE TABLE old_endpoints AS SELECT * FROM hookseal.endpoints;"
        "CREATE TABLE old_secret_records AS SELECT * FROM hookseal.secret_records"
    )
    endpoints_by_path = {key: await _rotated(world, *key, *first) for key, first in begun.items()}
    await keep(world.pool, *KEPT)
    scenes = [
        Scene(attack=attack, victim=endpoints_by_path[tenant, "victim"], sibling=endpoints_by_path[tenant, "sibling"])
        for tenant, attack in zip(tenants, attacks, strict=True)
    ]
    return Stage(world=world, scenes=tuple(scenes), other_tenant=endpoints_by_path[RIVAL, "other_tenant"], thief=thief)


async def _begun(world: World, tenant: str, part: str, base_url: str, tls: TlsIdentity) -> tuple[EndpointId, str]:
    new = NewEndpoint(
        tenant_id=TenantId(tenant),
        url=f"{base_url}/{tenant}/{part}",
        event_types=("*",),
        settings={"timeout_ms": 10_000},
    )
    added = await world.installation.add(new, headers={"x-own": f"{tenant}.{part}".encode()}, tls=tls)
    return added.pointer.endpoint_id, added.secret.reveal().decode()


async def _rotated(world: World, tenant: str, part: str, endpoint_id: EndpointId, first: str) -> AttackedEndpoint:
    wanted = RotationRequest(
        tenant_id=TenantId(tenant), endpoint_id=endpoint_id, overlap_seconds=3600, secret=generate_signing_secret()
    )
    rotated = await world.installation.act(rotation.rotate_secret, wanted)
    assert rotated.secret is not None
    return AttackedEndpoint(
        tenant=tenant,
        endpoint_id=endpoint_id,
        path=f"/{tenant}/{part}",
        secrets=(rotated.secret.reveal().decode(), first),
        header=f"{tenant}.{part}",
    )
