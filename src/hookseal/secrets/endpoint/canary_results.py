"""Stores the results of canaries: whether a receiver verified the secret that was current at a generation."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from hookseal.ground.ids import DeliveryId, EndpointId, TenantId
from hookseal.postgres.pool import Connection, Executor
from hookseal.secrets.statements import statements

MOST_KEPT: Final = 100  # for each endpoint
_SQL: Final = statements("canary_results.sql", package="hookseal.secrets.endpoint")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The result of one canary: its secret and generation, the verdict, and the answers that it rests on.

    `id` is the webhook-id that the receiver got. `sent_at` is the database's time at which the endpoint's row was read.
    """

    id: DeliveryId
    tenant_id: TenantId
    endpoint_id: EndpointId
    generation: int
    secret_ref: str
    verdict: str
    status: int | None
    control_status: int | None
    detail: str | None
    sent_at: datetime


async def new_id(executor: Executor) -> DeliveryId:
    """Return a new UUIDv7, the id of a request that is not a delivery. Raises `SecretUnavailable`."""
    new: str = await _SQL.value(executor, "new_id")
    return DeliveryId(new)


async def keep(connection: Connection, evidence: Evidence) -> None:
    """Store the result in the caller's transaction, and delete all but the newest hundred of the endpoint.

    Raises `SecretUnavailable`, and `SecretDenied` if the SQL role has no right to store it.
    """
    await _SQL.execute(
        connection,
        "keep",
        evidence.tenant_id,
        evidence.id,
        evidence.endpoint_id,
        evidence.generation,
        evidence.secret_ref,
        evidence.verdict,
        evidence.status,
        evidence.control_status,
        evidence.detail,
        evidence.sent_at,
    )
    await _SQL.execute(connection, "prune", evidence.tenant_id, evidence.endpoint_id, MOST_KEPT)


async def last(executor: Executor, tenant: TenantId, endpoint_id: EndpointId, generation: int) -> Evidence | None:
    """Return the newest result of exactly this generation, None without one. Raises `SecretUnavailable`."""
    row = await _SQL.row(executor, "last", tenant, endpoint_id, generation)
    return None if row is None else Evidence(**row)
