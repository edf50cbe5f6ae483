"""What canaries proved: whether a receiver had switched to the secret that was current at a generation."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from hookseal.ground.ids import DeliveryId, EndpointId, TenantId
from hookseal.ground.sql import statements
from hookseal.schema.database import Connection, Executor
from hookseal.secrets.database import outages_translated

MOST_KEPT: Final = 100  # for each endpoint
_SQL: Final = statements("hookseal.secrets", "evidence.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One canary: of which secret and generation, what it proved, and by which answers.

    `id` is the webhook-id that the receiver got; `sent_at` is the database's time of the reading that it was
    sent by.
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
    """Return an id for a request that is no delivery, a UUIDv7. Raises `SecretUnavailable`."""
    with outages_translated():
        made: str = await executor.fetchval(_SQL["new_id"])
    return DeliveryId(made)


async def keep(connection: Connection, evidence: Evidence) -> None:
    """Write it down in the caller's transaction; of each endpoint the newest hundred are kept.

    Raises `SecretUnavailable`, and `SecretDenied` without the right.
    """
    with outages_translated():
        await connection.execute(
            _SQL["keep"],
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
        await connection.execute(_SQL["prune"], evidence.tenant_id, evidence.endpoint_id, MOST_KEPT)


async def last(executor: Executor, tenant: TenantId, endpoint_id: EndpointId, generation: int) -> Evidence | None:
    """Return the newest canary of exactly this generation, None if there was none. Raises `SecretUnavailable`."""
    with outages_translated():
        row = await executor.fetchrow(_SQL["last"], tenant, endpoint_id, generation)
    return None if row is None else Evidence(**row)
