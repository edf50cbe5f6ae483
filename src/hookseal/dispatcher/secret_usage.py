"""Which attempts each version of an endpoint's secret has signed, and which claims in flight use it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from hookseal.ground.ids import EndpointId, TenantId
from hookseal.postgres.handles import Executor
from hookseal.postgres.statements import Statements

_SQL: Final = Statements("hookseal.dispatcher", "secret_usage.sql", seconds=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """How much one version has signed, and how many claims with a valid lease have read it."""

    attempts: int = 0
    last_signed_at: datetime | None = None
    claims_in_flight: int = 0


async def of_endpoint(executor: Executor, tenant: TenantId, endpoint_id: EndpointId) -> Mapping[str, Use]:
    """Return the use of every reference that ever signed for the endpoint, which may be deleted.

    Every attempt of the endpoint is counted. Raises `Unavailable`.
    """
    claims = await _SQL.rows(executor, "claims", tenant, endpoint_id)
    attempts = await _SQL.rows(executor, "attempts", tenant, endpoint_id)
    in_flight = {row["ref"]: row["claims"] for row in claims}
    signed = {row["ref"]: row for row in attempts}
    return {
        ref: Use(
            attempts=signed[ref]["attempts"] if ref in signed else 0,
            last_signed_at=signed[ref]["last_signed_at"] if ref in signed else None,
            claims_in_flight=in_flight.get(ref, 0),
        )
        for ref in in_flight.keys() | signed.keys()
    }
