"""Handles a leaked master key, audited: marks it, and replaces every secret in use that was ever sealed under it.

A re-wrap is not enough: an attacker with the key and a copy of the table has the secrets.
"""

from collections.abc import Callable
from dataclasses import dataclass

from hookseal.audit.entry import Action
from hookseal.ground.errors import Defect, HooksealError, InDoubt
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.wire import Algorithm
from hookseal.operations.endpoint.rotation import end_overlap, rotate_secret
from hookseal.operations.key.keys import rotate_integrity_key
from hookseal.operations.operator import Operator
from hookseal.secrets.endpoint.rotation import RotationRequest
from hookseal.secrets.key import compromise, moves, rules
from hookseal.secrets.key.compromise import Exposed, Remedy
from hookseal.secrets.resolve import epoch
from hookseal.secrets.sealing import active_key
from hookseal.secrets.signing.signer import generate_signing_secret


@dataclass(frozen=True, slots=True, kw_only=True)
class CompromiseOptions:
    """How secrets are rotated: the overlap, and whether a running overlap is cut short. A dry run changes nothing."""

    overlap_seconds: int
    force: bool
    dry_run: bool
    random_bytes: Callable[[int], bytes]

    @property
    def ends_overlaps(self) -> bool:
        """Whether exposed previous versions of running overlaps stop signing, too: with `--overlap 0`."""
        return self.overlap_seconds == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Replaced:
    """An exposed version, and the error if it could not be replaced. None: it was, or need not be replaced."""

    exposed: Exposed
    error: HooksealError | None


async def drill(operator: Operator, key_id: str, how: CompromiseOptions, report: Callable[[Replaced], None]) -> None:
    """Mark the key as compromised, and replace every secret that was ever sealed under it and is in use.

    `report` is called with every version that was sealed under it. Header values and client keys are not replaced,
    because only their owner can. A previous secret signs until its overlap ends, unless `ends_overlaps`. Raises
    `NotFound`, `Conflict` if it is the active key, under which the new secrets would be sealed, `InDoubt` and
    `Unavailable`; a repeat continues.
    """
    if how.dry_run:
        rules.require_replaced((await moves.life(operator.connection, key_id)).state, key_id)
    else:
        await mark_compromised(operator, key_id)
    async for exposed in compromise.exposed(operator.connection, key_id):
        error = None
        if not how.dry_run:
            try:
                await _replace(operator, key_id, exposed, how)
            except InDoubt:
                raise
            except HooksealError as refused:  # an error of one endpoint must not stop the others
                error = refused
        report(Replaced(exposed=exposed, error=error))


async def mark_compromised(operator: Operator, key_id: str) -> None:
    """Mark the key as compromised; every worker discards its cached secrets.

    Raises `NotFound`, `Conflict` if it is the active key, `Unavailable`.
    """
    async with operator.changing() as connection:
        await active_key.lock_exclusive(connection)
        found = await moves.life(connection, key_id)
        rules.require_replaced(found.state, key_id)
        await moves.compromised(connection, key_id)
        facts = {
            "versions": await compromise.count(connection, key_id),
            "cache_epoch": await epoch.move_cache(connection),  # workers discard their cached secrets
        }
        before = {"state": found.state, "compromised_at": found.compromised_at}
        await operator.audit(Action.KEY_COMPROMISED, of=f"key:{key_id}", before=before, after=facts)


async def _replace(operator: Operator, key_id: str, exposed: Exposed, how: CompromiseOptions) -> None:
    match exposed.remedy:
        case Remedy.ROTATION:
            await rotate_secret(operator, _wanted(key_id, exposed, how))
        case Remedy.END_OF_OVERLAP if how.ends_overlaps:
            tenant, endpoint_id, generation = _pointer(exposed)
            await end_overlap(operator, tenant=tenant, endpoint_id=endpoint_id, expect_generation=generation)
        case Remedy.NEW_INTEGRITY_KEY:
            await rotate_integrity_key(operator, how.random_bytes)
        case Remedy.END_OF_OVERLAP | Remedy.NEW_HEADER_VALUES | Remedy.NEW_CLIENT_KEY | Remedy.NONE:
            return


def _wanted(key_id: str, exposed: Exposed, how: CompromiseOptions) -> RotationRequest:
    tenant, endpoint_id, generation = _pointer(exposed)
    return RotationRequest(
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
        raise Defect("a version signs, and no endpoint names it")
    return exposed.tenant_id, exposed.endpoint_id, exposed.generation
