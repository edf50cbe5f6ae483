"""Rotation as an operator sees it: the change, its audit row, the delivery it has tried, and when it is complete."""

from collections.abc import Callable
from typing import Any, Final

from hookseal.audit.entry import Action, Change
from hookseal.dispatcher import waiting
from hookseal.ground.clock import Clock
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.operations.operator import Operator
from hookseal.secrets import pointer, rotation
from hookseal.secrets.overlap import require_generation
from hookseal.secrets.rotation import Rotated, Wanted

LOOK_AGAIN_SECONDS: Final = 0.1


async def rotate(operator: Operator, wanted: Wanted) -> Rotated:
    """Rotate the endpoint's secret; every claim from now on signs as the answer says.

    A repeat of a rotation id changes nothing: its answer is given again, and that is audited. Raises as
    `secrets.rotation.rotate` does, and `Unavailable`.
    """
    async with operator.changing() as connection:
        rotated = await rotation.rotate(
            connection, operator.unlocked.store_on(connection), operator.unlocked.integrity, wanted
        )
        if rotated.before is not None:
            await waiting.probe(connection, wanted.tenant_id, wanted.endpoint_id)
        if rotated.before is not None or rotated.secret is not None:
            await operator.tell(_told(wanted, rotated, await operator.unlocked.sealing_key_id(connection)))
    return rotated


async def roll_back(
    operator: Operator,
    *,
    tenant: TenantId,
    endpoint_id: EndpointId,
    overlap_seconds: int,
    expect_generation: int | None = None,
) -> Pointer:
    """Make the previous secret current again within its overlap; what was current becomes the previous one.

    Raises `NotFound`, `SecretTampered`, `SecretDestroyed`, `Conflict`, `Unavailable`.
    """
    async with operator.changing() as connection:
        found = await _found(operator, tenant, endpoint_id, expect_generation)
        store, integrity = operator.unlocked.store_on(connection), operator.unlocked.integrity
        after = await rotation.roll_back(connection, store, integrity, found, overlap_seconds=overlap_seconds)
        await _moved(operator, Action.SECRET_ROLLED_BACK, found, after)
    return after


async def end_overlap(
    operator: Operator, *, tenant: TenantId, endpoint_id: EndpointId, expect_generation: int | None = None
) -> Pointer:
    """Drop the previous secret now. Raises `NotFound`, `SecretTampered`, `Conflict`, `Unavailable`."""
    async with operator.changing() as connection:
        found = await _found(operator, tenant, endpoint_id, expect_generation)
        after = await rotation.end_overlap(connection, operator.unlocked.integrity, found)
        await _moved(operator, Action.SECRET_OVERLAP_ENDED, found, after)
    return after


async def completed(
    operator: Operator,
    *,
    tenant: TenantId,
    endpoint_id: EndpointId,
    generation: int,
    clock: Clock,
    tell: Callable[[int], None],
) -> None:
    """Return once no claim that began before this generation may still send: a revocation is then done.

    `tell` is given how many are left whenever that was asked. Raises `Unavailable`.
    """
    while left := await waiting.older_claims(operator.connection, tenant, endpoint_id, generation):
        tell(left)
        await clock.sleep(LOOK_AGAIN_SECONDS)


async def _found(
    operator: Operator, tenant: TenantId, endpoint_id: EndpointId, expect_generation: int | None
) -> Pointer:
    found = await pointer.locked(operator.connection, tenant=tenant, endpoint_id=endpoint_id)
    require_generation(found, expect_generation)
    return found


async def _moved(operator: Operator, action: Action, before: Pointer, after: Pointer) -> None:
    # Before the audit log, as everybody does: so that nobody waits in a circle.
    await waiting.probe(operator.connection, after.tenant_id, after.endpoint_id)
    await operator.tell(
        Change(
            tenant_id=after.tenant_id,
            action=action,
            subject=f"endpoint:{after.endpoint_id}",
            before=signing(before),
            after=signing(after),
        )
    )


def signing(found: Pointer) -> dict[str, Any]:
    """Return what an audit row says of a pointer: which versions sign, how, and until when."""
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


def _told(wanted: Wanted, rotated: Rotated, key_id: str | None) -> Change:
    """Return the row of a rotation, with the key that sealed its secret; or of the repeat that gave it out again."""
    if rotated.before is None or rotated.after is None:
        action, before = Action.SECRET_REVEALED, None
        after = {
            # Not the generation that was kept with the answer: nobody vouches for it, and the log would.
            "secret_ref": rotated.secret_ref,
            "previous_secret_ref": rotated.previous_secret_ref,
            "previous_secret_expires_at": rotated.previous_secret_expires_at,
        }
    else:
        action, before = Action.SECRET_ROTATED, signing(rotated.before)
        after = signing(rotated.after) | {"key_id": key_id}
    return Change(
        tenant_id=wanted.tenant_id,
        action=action,
        subject=f"endpoint:{wanted.endpoint_id}",
        before=before,
        after=after | {"rotation_id": rotated.rotation_id},
    )
