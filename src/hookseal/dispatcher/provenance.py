"""Which attempts each version of an endpoint's secret signed, and which claims in flight still hold it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from hookseal.dispatcher.database import translated
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.sql import statements
from hookseal.schema.database import Executor

_SQL: Final = statements("hookseal.dispatcher", "provenance.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What one version signed so far, and how many unexpired claims read it. All zero: it never signed."""

    attempts: int = 0
    last_signed_at: datetime | None = None
    claims_in_flight: int = 0


async def of_endpoint(executor: Executor, tenant: TenantId, endpoint_id: EndpointId) -> Mapping[str, Use]:
    """Return the use of every ref that ever signed for the endpoint, by ref; also of one that was deleted.

    Every attempt of the endpoint is counted. Raises `Unavailable`.
    """
    with translated():
        claims = await executor.fetch(_SQL["claims"], tenant, endpoint_id)
        attempts = await executor.fetch(_SQL["attempts"], tenant, endpoint_id)
    held = {row["ref"]: row["claims"] for row in claims}
    signed = {row["ref"]: row for row in attempts}
    return {
        ref: Use(
            attempts=signed[ref]["attempts"] if ref in signed else 0,
            last_signed_at=signed[ref]["last_signed_at"] if ref in signed else None,
            claims_in_flight=held.get(ref, 0),
        )
        for ref in held.keys() | signed.keys()
    }
