"""What comes by itself to an endpoint's secret, audited, once however many try: rotation by schedule, retirement."""

from dataclasses import dataclass
from datetime import datetime

from hookseal.audit.entry import Action, Change
from hookseal.ground.errors import Conflict
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Algorithm
from hookseal.operations import rotation
from hookseal.operations.operator import Operator
from hookseal.secrets import pointer, schedule
from hookseal.secrets.retention import RunOut
from hookseal.secrets.rotation import Wanted
from hookseal.secrets.schedule import Scheduled, Turn
from hookseal.secrets.signer import generate_signing_secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """A rotation that was announced: of which secret, and when it comes at the earliest."""

    generation: int
    secret_ref: str | None
    rotates_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RotatedBySchedule:
    """A rotation that was made: what signs from now on, and until when what signed before does beside it."""

    generation: int
    secret_ref: str
    both_sign_until: datetime


async def take_turn(
    operator: Operator, scheduled: Scheduled, *, overlap_seconds: int
) -> Announced | RotatedBySchedule | None:
    """Announce or make the next rotation of the endpoint, if it is time to; None if it is not, or not any more.

    Whether it is, is decided anew once the row is held, so it is done once. Scheme, algorithm and lead stay, and
    a disabled endpoint is rotated as any other. Raises `NotFound`, `SecretTampered` if the row was altered or put
    back (an announcement of such a row would itself be false evidence), `Conflict` if this rotation's id was used
    before or the current secret has no material to sign with through the overlap, and `Unavailable`.
    """
    async with operator.changing() as connection:
        found = await pointer.locked(connection, tenant=scheduled.tenant_id, endpoint_id=scheduled.endpoint_id)
        now = await schedule.of_endpoint(connection, found.tenant_id, found.endpoint_id)
        if now is None or now.turn is Turn.WAIT:
            return None
        operator.unlocked.integrity.verify(found)
        if now.turn is Turn.ANNOUNCE:
            return await _announced(operator, found, now)
        return await _rotated(operator, found, overlap_seconds)


async def retire_run_out(operator: Operator, run_out: RunOut) -> bool:
    """Retire the previous version of an endpoint whose overlap is over; return whether there was one.

    It signs nothing since then; from now on its retention runs. Raises `NotFound`, `SecretTampered`, `Unavailable`.
    """
    async with operator.changing() as connection:
        found = await pointer.locked(connection, tenant=run_out.tenant_id, endpoint_id=run_out.endpoint_id)
        if found.previous_secret_ref is None or found.previous_due:
            return False
        await rotation.end_overlap(operator, tenant=found.tenant_id, endpoint_id=found.endpoint_id)
    return True


async def _announced(operator: Operator, found: Pointer, scheduled: Scheduled) -> Announced:
    announced = Announced(generation=found.generation, secret_ref=found.secret_ref, rotates_at=scheduled.rotates_at)
    after = {
        "generation": announced.generation,
        "secret_ref": announced.secret_ref,
        "rotate_every_days": scheduled.rotate_every_days,
        "rotates_at": announced.rotates_at,
    }
    await operator.tell(
        Change(
            tenant_id=found.tenant_id,
            action=Action.SECRET_ROTATION_ANNOUNCED,
            subject=f"endpoint:{found.endpoint_id}",
            after=after,
        )
    )
    return announced


async def _rotated(operator: Operator, found: Pointer, overlap_seconds: int) -> RotatedBySchedule:
    wanted = Wanted(
        tenant_id=found.tenant_id,
        endpoint_id=found.endpoint_id,
        overlap_seconds=overlap_seconds,
        secret=generate_signing_secret(Algorithm(found.algorithm)),
        rotation_id=f"scheduled-{found.endpoint_id}-{found.generation}",
        expect_generation=found.generation,
    )
    rotated = await rotation.rotate(operator, wanted)
    if rotated.before is None or rotated.previous_secret_expires_at is None:
        raise Conflict(
            f"a rotation {wanted.rotation_id} was made before, so the row is not as it was then: "
            "run `hookseal endpoint rotate` by hand",
            field="rotation_id",
        )
    return RotatedBySchedule(
        generation=rotated.generation,
        secret_ref=rotated.secret_ref,
        both_sign_until=rotated.previous_secret_expires_at,
    )
