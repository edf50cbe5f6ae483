"""Rotates the secret of an endpoint: changes the pointer, audits it, probes held deliveries, waits for old claims."""

from collections.abc import Callable
from typing import Any, Final

from hookseal.audit.entry import Action
from hookseal.dispatcher import held_deliveries
from hookseal.ground.clock import Clock
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.operations.operator import Operator
from hookseal.postgres.handles import Executor
from hookseal.secrets.endpoint import pointer, rotation
from hookseal.secrets.endpoint.overlap import require_generation
from hookseal.secrets.endpoint.rotation import RotationRequest, RotationResult

LOOK_AGAIN_SECONDS: Final = 0.1


async def rotate_secret(operator: Operator, request: RotationRequest) -> RotationResult:
    """Rotate the endpoint's secret. Every later claim signs with the secrets of the result.

    A repeat of a rotation id changes nothing and returns the same answer; if that has the secret, it is audited.
    Raises as `secrets.endpoint.rotation.rotate_pointer` does, and `Unavailable`.
    """
    async with operator.changing() as connection:
        rotated = await rotation.rotate_pointer(
            connection, operator.unlocked.store_on(connection), operator.unlocked.integrity, request
        )
        if rotated.before is not None:
            await held_deliveries.probe(connection, request.tenant_id, request.endpoint_id)
        if rotated.before is not None or rotated.secret is not None:
            await _audit_rotation(operator, request, rotated)
    return rotated


async def roll_back(
    operator: Operator,
    *,
    tenant: TenantId,
    endpoint_id: EndpointId,
    overlap_seconds: int,
    expect_generation: int | None = None,
) -> Pointer:
    """Make the previous secret current again during its overlap; the current one becomes the previous one.

    Raises `NotFound`, `SecretTampered`, `SecretDestroyed`, `Conflict`, `Unavailable`.
    """
    async with operator.changing() as connection:
        found = await _lock(operator, tenant, endpoint_id, expect_generation)
        store, integrity = operator.unlocked.store_on(connection), operator.unlocked.integrity
        after = await rotation.roll_back(connection, store, integrity, found, overlap_seconds=overlap_seconds)
        await _record_move(operator, Action.SECRET_ROLLED_BACK, found, after)
    return after


async def end_overlap(
    operator: Operator, *, tenant: TenantId, endpoint_id: EndpointId, expect_generation: int | None = None
) -> Pointer:
    """End the overlap: the previous secret no longer signs.

    Raises `NotFound`, `SecretTampered`, `Conflict` if there is no previous secret, and `Unavailable`.
    """
    async with operator.changing() as connection:
        found = await _lock(operator, tenant, endpoint_id, expect_generation)
        after = await rotation.end_overlap(connection, operator.unlocked.integrity, found)
        await _record_move(operator, Action.SECRET_OVERLAP_ENDED, found, after)
    return after


async def wait_until_complete(
    source: Executor,
    *,
    tenant: TenantId,
    endpoint_id: EndpointId,
    generation: int,
    clock: Clock,
    report: Callable[[int], None] = lambda _left: None,
) -> None:
    """Wait until no valid lease has a lower generation than this: a revocation is then complete.

    `report` is called with the number of such claims after each count. Raises `Unavailable`.
    """
    while left := await held_deliveries.older_claims(source, tenant, endpoint_id, generation):
        report(left)
        await clock.sleep(LOOK_AGAIN_SECONDS)


async def _lock(
    operator: Operator, tenant: TenantId, endpoint_id: EndpointId, expect_generation: int | None
) -> Pointer:
    found = await pointer.lock(operator.connection, tenant=tenant, endpoint_id=endpoint_id)
    require_generation(found, expect_generation)
    return found


async def _record_move(operator: Operator, action: Action, before: Pointer, after: Pointer) -> None:
    # Every change locks held deliveries before the audit log. The same order everywhere avoids deadlocks.
    await held_deliveries.probe(operator.connection, after.tenant_id, after.endpoint_id)
    await operator.audit(action, of=after, before=signing(before), after=signing(after))


def signing(found: Pointer) -> dict[str, Any]:
    """Return the facts of a pointer for an audit row: which versions sign, how, and until when."""
    return {
        "generation": found.generation,
        "secret_ref": found.secret_ref,
        "scheme": found.scheme,
        "algorithm": found.algorithm,
        "previous_secret_ref": found.previous_secret_ref,
        "previous_scheme": found.previous_scheme,
        "previous_algorithm": found.previous_algorithm,
        "previous_secret_expires_at": found.previous_secret_expires_at,
        "lead": found.lead,
    }


async def _audit_rotation(operator: Operator, request: RotationRequest, rotated: RotationResult) -> None:
    """Audit a rotation, with the key that sealed its secret, or a repeat that shows the secret again."""
    if rotated.before is None or rotated.after is None:
        action, before = Action.SECRET_REVEALED, None
        after: dict[str, Any] = {
            # The stored answer has no MAC, so its generation must not enter the audit log.
            "secret_ref": rotated.secret_ref,
            "previous_secret_ref": rotated.previous_secret_ref,
            "previous_secret_expires_at": rotated.previous_secret_expires_at,
        }
    else:
        action, before = Action.SECRET_ROTATED, signing(rotated.before)
        after = signing(rotated.after) | {"key_id": await operator.unlocked.sealing_key_id(operator.connection)}
    await operator.audit(action, of=request, before=before, after=after | {"rotation_id": rotated.rotation_id})
