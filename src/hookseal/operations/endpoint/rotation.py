"""Rotates the secret of an endpoint: changes the pointer, audits it, probes held deliveries, waits for old claims."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from hookseal.audit.chain import Action
from hookseal.dispatcher.store import held
from hookseal.errors import Conflict
from hookseal.ground.clock import Clock
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.operations.operator import Operator
from hookseal.postgres.pool import Executor
from hookseal.secrets.core.overlap import require_generation
from hookseal.secrets.core.signing import generate_signing_secret
from hookseal.secrets.core.trust import require_known
from hookseal.secrets.endpoint import pointer, rotation, schedule
from hookseal.secrets.endpoint.rotation import RotationRequest, RotationResult
from hookseal.secrets.endpoint.schedule import Scheduled, Turn
from hookseal.secrets.store.retention import EndedOverlap

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
            await held.probe(connection, request.tenant_id, request.endpoint_id)
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
        row = await _lock(operator, tenant, endpoint_id, expect_generation)
        store, integrity = operator.unlocked.store_on(connection), operator.unlocked.integrity
        after = await rotation.roll_back(connection, store, integrity, row, overlap_seconds=overlap_seconds)
        await _record_move(operator, Action.SECRET_ROLLED_BACK, row, after)
    return after


async def end_overlap(
    operator: Operator, *, tenant: TenantId, endpoint_id: EndpointId, expect_generation: int | None = None
) -> Pointer:
    """End the overlap: the previous secret no longer signs.

    Raises `NotFound`, `SecretTampered`, `Conflict` if there is no previous secret, and `Unavailable`.
    """
    async with operator.changing() as connection:
        row = await _lock(operator, tenant, endpoint_id, expect_generation)
        after = await rotation.end_overlap(connection, operator.unlocked.integrity, row)
        await _record_move(operator, Action.SECRET_OVERLAP_ENDED, row, after)
    return after


async def wait_until_complete(
    source: Executor,
    *,
    tenant: TenantId,
    endpoint_id: EndpointId,
    generation: int,
    clock: Clock,
    report: Callable[[int], None] = lambda _claims: None,
) -> None:
    """Wait until no valid lease has a lower generation than this: a revocation is then complete.

    `report` is called with the number of such claims after each count. Raises `Unavailable`.
    """
    while older_claims := await held.older_claims(source, tenant, endpoint_id, generation):
        report(older_claims)
        await clock.sleep(LOOK_AGAIN_SECONDS)


async def _lock(
    operator: Operator, tenant: TenantId, endpoint_id: EndpointId, expect_generation: int | None
) -> Pointer:
    row = await pointer.lock(operator.connection, tenant=tenant, endpoint_id=endpoint_id)
    require_generation(row, expect_generation)
    return row


async def _record_move(operator: Operator, action: Action, before: Pointer, after: Pointer) -> None:
    # Every change locks held deliveries before the audit log. The same order everywhere avoids deadlocks.
    await held.probe(operator.connection, after.tenant_id, after.endpoint_id)
    await operator.audit(action, of=after, before=signing(before), after=signing(after))


def signing(row: Pointer) -> dict[str, Any]:
    """Return the facts of a pointer for an audit row: which versions sign, how, and until when."""
    return {
        "generation": row.generation,
        "secret_ref": row.secret_ref,
        "scheme": row.scheme,
        "algorithm": row.algorithm,
        "previous_secret_ref": row.previous_secret_ref,
        "previous_scheme": row.previous_scheme,
        "previous_algorithm": row.previous_algorithm,
        "previous_secret_expires_at": row.previous_secret_expires_at,
        "lead": row.lead,
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """A rotation that was announced: the secret concerned, and the earliest time of the rotation."""

    generation: int
    secret_ref: str | None
    rotates_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RotatedBySchedule:
    """A rotation that was made: the new secret, and until when the previous one signs beside it."""

    generation: int
    secret_ref: str
    both_sign_until: datetime


async def take_turn(
    operator: Operator, scheduled: Scheduled, *, overlap_seconds: int
) -> Announced | RotatedBySchedule | None:
    """Announce or make the next rotation of the endpoint, if it is time; return None if it is not.

    This is decided again under the lock of the row, so it happens once. Scheme, algorithm and lead do not change, and
    a disabled endpoint is rotated like any other. Raises `NotFound`, `SecretTampered` if the row was altered or is
    stale (its values must not enter the audit log), `SecretUnusable` if a later version set its scheme or algorithm,
    `Conflict` if the id of this rotation was used before or the material of the current secret is gone, and
    `Unavailable`.
    """
    async with operator.changing() as connection:
        row = await pointer.lock(connection, tenant=scheduled.tenant_id, endpoint_id=scheduled.endpoint_id)
        now = await schedule.of_endpoint(connection, row.tenant_id, row.endpoint_id)
        if now is None or now.turn is Turn.WAIT:
            return None
        operator.unlocked.integrity.verify(row)
        if now.turn is Turn.ANNOUNCE:
            return await _announce(operator, row, now)
        return await _rotate_by_schedule(operator, row, overlap_seconds)


async def retire_ended_overlap(operator: Operator, ended: EndedOverlap) -> bool:
    """Retire the previous version of an endpoint after its overlap; return whether there was one.

    Its retention begins now. Raises `NotFound`, `SecretTampered` and `Unavailable`.
    """
    async with operator.changing() as connection:
        row = await pointer.lock(connection, tenant=ended.tenant_id, endpoint_id=ended.endpoint_id)
        if row.previous_secret_ref is None or row.previous_due:
            return False
        await end_overlap(operator, tenant=row.tenant_id, endpoint_id=row.endpoint_id)
    return True


async def _announce(operator: Operator, row: Pointer, scheduled: Scheduled) -> Announced:
    announced = Announced(generation=row.generation, secret_ref=row.secret_ref, rotates_at=scheduled.rotates_at)
    after = {
        "generation": announced.generation,
        "secret_ref": announced.secret_ref,
        "rotate_every_days": scheduled.rotate_every_days,
        "rotates_at": announced.rotates_at,
    }
    await operator.audit(Action.SECRET_ROTATION_ANNOUNCED, of=row, after=after)
    return announced


async def _rotate_by_schedule(operator: Operator, row: Pointer, overlap_seconds: int) -> RotatedBySchedule:
    _, algorithm = require_known(row.scheme, row.algorithm)
    request = RotationRequest(
        tenant_id=row.tenant_id,
        endpoint_id=row.endpoint_id,
        overlap_seconds=overlap_seconds,
        secret=generate_signing_secret(algorithm),
        rotation_id=f"scheduled-{row.endpoint_id}-{row.generation}",
        expect_generation=row.generation,
    )
    rotated = await rotate_secret(operator, request)
    if rotated.before is None or rotated.previous_secret_expires_at is None:
        raise Conflict(
            f"a rotation {request.rotation_id} was made before, so the row is not as it was then",
            advice="run `hookseal endpoint rotate` by hand",
            field="rotation_id",
        )
    return RotatedBySchedule(
        generation=rotated.generation,
        secret_ref=rotated.secret_ref,
        both_sign_until=rotated.previous_secret_expires_at,
    )
