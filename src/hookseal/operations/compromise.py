"""A master key that leaked, audited: it is marked, and what was ever sealed under it and signs is replaced.

Sealing the records under another key is not enough: who has the key and a copy of the table has the secrets.
"""

from collections.abc import Callable
from dataclasses import dataclass

from hookseal.audit.entry import Action, Change
from hookseal.ground.errors import Defect, HooksealError, InDoubt
from hookseal.ground.ids import SYSTEM_TENANT, EndpointId, TenantId
from hookseal.ground.wire import Algorithm
from hookseal.operations.integrity import rotate_integrity_key
from hookseal.operations.operator import Operator
from hookseal.operations.rotation import end_overlap, rotate
from hookseal.secrets import active_key, compromise, epoch, key_moves, key_rules
from hookseal.secrets.compromise import Exposed, Remedy
from hookseal.secrets.rotation import Wanted
from hookseal.secrets.signer import generate_signing_secret


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How secrets are rotated: with which overlap, and whether a running one is cut short; or only looked at."""

    overlap_seconds: int
    force: bool
    dry_run: bool
    random_bytes: Callable[[int], bytes]

    @property
    def ends_overlaps(self) -> bool:
        """Whether nothing that was exposed may sign on, as `--overlap 0` says of every older version."""
        return self.overlap_seconds == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Replaced:
    """A version that was sealed under the key, and why it could not be replaced; None where it was, or needs not be."""

    exposed: Exposed
    error: HooksealError | None


async def drill(operator: Operator, key_id: str, how: How, tell: Callable[[Replaced], None]) -> None:
    """Mark the key as compromised, and replace every secret that was ever sealed under it and is in use.

    `tell` is given every version that was sealed under it. Header values and client keys only their owner can replace,
    so those stay; a previous secret in a running overlap signs until its end, unless the drill is without an overlap.
    Raises `NotFound`, `Conflict` if it is the active key, under which the new secrets would be sealed, `InDoubt` and
    `Unavailable`; run again it goes on.
    """
    if how.dry_run:
        key_rules.require_replaced((await key_moves.life(operator.connection, key_id)).state, key_id)
    else:
        await mark_compromised(operator, key_id)
    async for exposed in compromise.exposed(operator.connection, key_id):
        error = None
        if not how.dry_run:
            try:
                await _replace(operator, key_id, exposed, how)
            except InDoubt:
                raise
            except HooksealError as refused:  # one endpoint's trouble is no reason to leave the others as they are
                error = refused
        tell(Replaced(exposed=exposed, error=error))


async def mark_compromised(operator: Operator, key_id: str) -> None:
    """Have it on record that others may know the key; every worker forgets what it has cached.

    Raises `NotFound`, `Conflict` if it is the active key, `Unavailable`.
    """
    async with operator.changing() as connection:
        await active_key.hold(connection)
        found = await key_moves.life(connection, key_id)
        key_rules.require_replaced(found.state, key_id)
        await key_moves.compromised(connection, key_id)
        facts = {
            "versions": await compromise.count(connection, key_id),
            "cache_epoch": await epoch.move(connection),  # what workers have cached of it is forgotten
        }
        await operator.tell(
            Change(
                tenant_id=SYSTEM_TENANT,
                action=Action.KEY_COMPROMISED,
                subject=f"key:{key_id}",
                before={"state": found.state, "compromised_at": found.compromised_at},
                after=facts,
            )
        )


async def _replace(operator: Operator, key_id: str, exposed: Exposed, how: How) -> None:
    match exposed.remedy:
        case Remedy.ROTATION:
            await rotate(operator, _wanted(key_id, exposed, how))
        case Remedy.END_OF_OVERLAP if how.ends_overlaps:
            tenant, endpoint_id, generation = _pointer(exposed)
            await end_overlap(operator, tenant=tenant, endpoint_id=endpoint_id, expect_generation=generation)
        case Remedy.NEW_INTEGRITY_KEY:
            await rotate_integrity_key(operator, how.random_bytes)
        case Remedy.END_OF_OVERLAP | Remedy.NEW_HEADER_VALUES | Remedy.NEW_CLIENT_KEY | Remedy.NONE:
            return


def _wanted(key_id: str, exposed: Exposed, how: How) -> Wanted:
    tenant, endpoint_id, generation = _pointer(exposed)
    return Wanted(
        tenant_id=tenant,
        endpoint_id=endpoint_id,
        overlap_seconds=how.overlap_seconds,
        secret=generate_signing_secret(Algorithm.HMAC),
        rotation_id=f"compromise.{key_id}.{endpoint_id}.{generation}",
        expect_generation=generation,
        force=how.force,
    )


def _pointer(exposed: Exposed) -> tuple[TenantId, EndpointId, int]:
    if exposed.endpoint_id is None or exposed.generation is None:
        raise Defect("a version signs, and no endpoint has it")
    return exposed.tenant_id, exposed.endpoint_id, exposed.generation
