"""Clears the caches of workers, destroys old versions, and reveals a secret; all audited."""

from collections.abc import Callable
from dataclasses import dataclass

from hookseal.audit.chain import Action
from hookseal.dispatcher.store import held
from hookseal.errors import NotFound
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.operations.operator import Operator
from hookseal.postgres.pool import Executor
from hookseal.secrets.boot import Unlocked
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Purpose, SecretRef
from hookseal.secrets.core.signing import public_key_of
from hookseal.secrets.core.trust import require_known, require_own
from hookseal.secrets.endpoint import pointer
from hookseal.secrets.resolve import epoch
from hookseal.secrets.store import external, retention
from hookseal.secrets.store.external import Place, Removal
from hookseal.secrets.store.retention import BATCH


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleared:
    """The new cache epoch, which every worker reads with its next claim, and the deliveries that waited for a secret.

    Of each endpoint the oldest of these `woken` deliveries is probed; the others follow once it is signed.
    """

    epoch: int
    woken: int


async def clear_caches(operator: Operator) -> Cleared:
    """Make every worker discard its cached secrets, and probe each held endpoint.

    Raises `Unavailable`.
    """
    async with operator.changing() as connection:
        before = await epoch.lock_cache(connection)
        moved = await epoch.move_cache(connection)
        woken = await held.probe_all(connection)
        after = {"epoch": moved, "woken_deliveries": woken}
        await operator.audit(Action.CACHE_CLEARED, of="cache", before={"epoch": before}, after=after)
    return Cleared(epoch=moved, woken=woken)


async def purge_batch(operator: Operator, tenant: TenantId, *, days: int) -> int:
    """Destroy up to `BATCH` of the tenant's versions that were retired `days` ago or earlier; return how many.

    If it is less than `BATCH`, none is left for now. Raises `Refused` if the tenant's audit log accepts no row, and
    `Unavailable`; then nothing of the batch is destroyed.
    """
    async with operator.changing() as connection:
        expired = await retention.lock_expired(connection, tenant, days=days)
        if expired:
            await retention.destroy(connection, tenant, expired)
        for each in expired:
            await operator.audit(
                Action.SECRET_DESTROYED,
                of=f"secret:{each.ref}",
                tenant=tenant,
                before={"state": "retired", "retired_at": each.retired_at, "key_id": each.key_id},
                after={"state": "destroyed"},
            )
    return len(expired)


async def remove_leftovers(
    source: Executor, unlocked: Unlocked, *, after: Place | None = None, goes_on: Callable[[], bool] = lambda: True
) -> Removal:
    """Remove at the providers outside PostgreSQL what no version in use needs, while `goes_on`; return how many.

    It begins `after` the last version of the removal before. Raises `Unavailable` if PostgreSQL does not answer.
    """
    stores = unlocked.stores
    if stores is None:
        return Removal(removed=0)
    return await external.remove(source, stores.apis(), owner=stores.installation_id, after=after, goes_on=goes_on)


async def purgeable(operator: Operator, tenant: TenantId, *, days: int) -> int:
    """Return how many versions repeated calls of `purge_batch` would destroy now. Raises `Unavailable`."""
    count, last = 0, None
    async with operator.changing() as connection:
        while expired := await retention.lock_expired(connection, tenant, days=days, after=last):
            count, last = count + len(expired), expired[-1]
            if len(expired) < BATCH:
                break
    return count


@dataclass(frozen=True, slots=True, kw_only=True)
class Revealed:
    """The current secret of an endpoint. For a key pair only the public key is set."""

    pointer: Pointer
    scheme: Scheme
    algorithm: Algorithm
    secret: SecretMaterial | None
    public_key: str | None


async def reveal(operator: Operator, tenant: TenantId, endpoint_id: EndpointId) -> Revealed:
    """Audit and return what the receiver of the endpoint needs of its current secret.

    Raises `NotFound` if there is no such endpoint or it has no secret, `SecretTampered` if its row was altered or
    is stale, `SecretDenied` if the row names a secret of another endpoint, `SecretUnusable` if a later version set its
    scheme or algorithm, what the store raises, and `Unavailable`.
    """
    async with operator.changing() as connection:
        row = await pointer.lock(connection, tenant=tenant, endpoint_id=endpoint_id)
        if row.mac is not None:
            operator.unlocked.integrity.verify(row)
        if row.mac is None or row.secret_ref is None:
            raise NotFound("the endpoint has no secret of ours yet", field="endpoint_id")
        ref = SecretRef.parse(row.secret_ref)
        require_own(ref, tenant=tenant, endpoint_id=endpoint_id)
        scheme, algorithm = require_known(row.scheme, row.algorithm)
        secret = await operator.unlocked.store_on(connection).get(ref, purpose=Purpose.WEBHOOK_SIGNING)
        is_pair = algorithm is Algorithm.ED25519
        after = {
            "generation": row.generation,
            "secret_ref": row.secret_ref,
            "shown": "public key" if is_pair else "secret",
        }
        await operator.audit(Action.SECRET_REVEALED, of=row, after=after)
    if is_pair:
        return Revealed(pointer=row, scheme=scheme, algorithm=algorithm, secret=None, public_key=public_key_of(secret))
    return Revealed(pointer=row, scheme=scheme, algorithm=algorithm, secret=secret, public_key=None)
