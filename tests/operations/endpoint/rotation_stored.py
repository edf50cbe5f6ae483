"""What PostgreSQL stores of an endpoint, and the answers of operations, in the terms of the model."""

from dataclasses import dataclass
from typing import Any

from hookseal.audit import log
from hookseal.dispatcher.store import held
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.secrets.core.ref import SecretRef, endpoint_secret_name
from hookseal.secrets.endpoint import pointer, rotation
from hookseal.secrets.endpoint.rotation import RotationResult
from tests.doubles.stored import Installation
from tests.operations.endpoint.rotation_model import Answer, PointerRow

_AUDITED = """
SELECT action, (after ->> 'generation')::bigint FROM hookseal.audit_log WHERE tenant_id = $1 ORDER BY sequence
"""
_ROTATIONS = """
SELECT rotation_id FROM hookseal.secret_rotations WHERE tenant_id = $1 AND endpoint_id = $2::text::uuid
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Everything that PostgreSQL stores of an endpoint."""

    row: PointerRow
    audited_generation: int | None
    states: dict[int, str]
    schemes: dict[int, str | None]
    audited: list[tuple[str, int | None]]
    is_chained: bool
    rotations: list[str]
    older_claims: int
    overlap: dict[str, Any]


async def stored(installation: Installation, tenant: TenantId, endpoint: EndpointId) -> Stored:
    """Return what is stored, after verifying the MAC of the row."""
    unlocked, here = installation.unlocked, (tenant, endpoint)
    [chain] = await log.verify(installation.pool, unlocked.integrity, tenant=tenant)
    versions = await unlocked.store.versions(tenant, endpoint_secret_name(endpoint))
    async with installation.pool.acquire() as connection:
        async with connection.transaction():
            found = await pointer.lock(connection, tenant=tenant, endpoint_id=endpoint)
        unlocked.integrity.verify(found)
        return Stored(
            row=_row(found),
            audited_generation=found.audited_generation,
            states={version.ref.version: version.state.value for version in versions},
            schemes={version.ref.version: version.scheme for version in versions},
            audited=[tuple(row) for row in await connection.fetch(_AUDITED, tenant)],
            is_chained=chain.broken is None,
            rotations=[row["rotation_id"] for row in await connection.fetch(_ROTATIONS, *here)],
            older_claims=await held.older_claims(connection, *here, found.generation),
            overlap=await rotation.status(connection, *here, limit=1),
        )


def _row(found: Pointer) -> PointerRow:
    signing = (found.secret_ref, found.scheme, found.algorithm)
    previous = (found.previous_secret_ref, found.previous_scheme or "", found.previous_algorithm or "")
    return PointerRow(
        generation=found.generation,
        current=(_number(signing[0]) or 0, *signing[1:]),
        previous=None if (number := _number(previous[0])) is None else (number, *previous[1:]),
        expires_at=found.previous_secret_expires_at,
        previous_due=found.previous_due,
        lead=found.lead,
    )


def _number(ref: str | None) -> int | None:
    return None if ref is None else SecretRef.parse(ref).version


def answered(outcome: RotationResult | Pointer) -> Answer:
    """Return the answer in the terms of the model."""
    return Answer(
        generation=outcome.generation,
        current=_number(outcome.secret_ref) or 0,
        previous=_number(outcome.previous_secret_ref),
        expires_at=outcome.previous_secret_expires_at,
        fresh=not isinstance(outcome, RotationResult) or outcome.before is not None,
        shows=isinstance(outcome, RotationResult) and outcome.secret is not None,
    )
