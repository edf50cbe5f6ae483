"""Rotates secrets by schedule and retires versions after their overlap, audited, once even if several workers try."""

from dataclasses import dataclass
from datetime import datetime

from hookseal.audit.entry import Action
from hookseal.ground.errors import Conflict
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Algorithm
from hookseal.operations.endpoint import rotation
from hookseal.operations.operator import Operator
from hookseal.secrets.endpoint import pointer, schedule
from hookseal.secrets.endpoint.rotation import RotationRequest
from hookseal.secrets.endpoint.schedule import Scheduled, Turn
from hookseal.secrets.signing.signer import generate_signing_secret
from hookseal.secrets.store.retention import EndedOverlap


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
    stale (its values must not enter the audit log), `Conflict` if the id of this rotation was used before or the
    material of the current secret is gone, and `Unavailable`.
    """
    async with operator.changing() as connection:
        found = await pointer.lock(connection, tenant=scheduled.tenant_id, endpoint_id=scheduled.endpoint_id)
        now = await schedule.of_endpoint(connection, found.tenant_id, found.endpoint_id)
        if now is None or now.turn is Turn.WAIT:
            return None
        operator.unlocked.integrity.verify(found)
        if now.turn is Turn.ANNOUNCE:
            return await _announce(operator, found, now)
        return await _rotate_by_schedule(operator, found, overlap_seconds)


async def retire_ended_overlap(operator: Operator, ended: EndedOverlap) -> bool:
    """Retire the previous version of an endpoint after its overlap; return whether there was one.

    Its retention begins now. Raises `NotFound`, `SecretTampered` and `Unavailable`.
    """
    async with operator.changing() as connection:
        found = await pointer.lock(connection, tenant=ended.tenant_id, endpoint_id=ended.endpoint_id)
        if found.previous_secret_ref is None or found.previous_due:
            return False
        await rotation.end_overlap(operator, tenant=found.tenant_id, endpoint_id=found.endpoint_id)
    return True


async def _announce(operator: Operator, found: Pointer, scheduled: Scheduled) -> Announced:
    announced = Announced(generation=found.generation, secret_ref=found.secret_ref, rotates_at=scheduled.rotates_at)
    after = {
        "generation": announced.generation,
        "secret_ref": announced.secret_ref,
        "rotate_every_days": scheduled.rotate_every_days,
        "rotates_at": announced.rotates_at,
    }
    await operator.audit(Action.SECRET_ROTATION_ANNOUNCED, of=found, after=after)
    return announced


async def _rotate_by_schedule(operator: Operator, found: Pointer, overlap_seconds: int) -> RotatedBySchedule:
    request = RotationRequest(
        tenant_id=found.tenant_id,
        endpoint_id=found.endpoint_id,
        overlap_seconds=overlap_seconds,
        secret=generate_signing_secret(Algorithm(found.algorithm)),
        rotation_id=f"scheduled-{found.endpoint_id}-{found.generation}",
        expect_generation=found.generation,
    )
    rotated = await rotation.rotate_secret(operator, request)
    if rotated.before is None or rotated.previous_secret_expires_at is None:
        raise Conflict(
            f"a rotation {request.rotation_id} was made before, so the row is not as it was then: "
            "run `hookseal endpoint rotate` by hand",
            field="rotation_id",
        )
    return RotatedBySchedule(
        generation=rotated.generation,
        secret_ref=rotated.secret_ref,
        both_sign_until=rotated.previous_secret_expires_at,
    )
