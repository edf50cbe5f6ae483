"""What an operator reads of the versions of an endpoint's secret, without their material."""

from typing import Any, Final

from hookseal.ground.errors import NotFound
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.sql import statements
from hookseal.schema.database import Executor
from hookseal.secrets.database import outages_translated
from hookseal.secrets.ref import endpoint_secret_name

_SQL: Final = statements("hookseal.secrets", "inventory.sql")


async def of_endpoint(executor: Executor, tenant: TenantId, endpoint_id: EndpointId) -> list[dict[str, Any]]:
    """Return every version of the endpoint's secret, oldest first, and whether it signs what is claimed now.

    The versions of an endpoint that was deleted stay known. Raises `NotFound` if the tenant neither has nor
    had such an endpoint, and `SecretUnavailable`.
    """
    name = endpoint_secret_name(endpoint_id)
    with outages_translated():
        rows = await executor.fetch(_SQL["of_endpoint"], tenant, name, endpoint_id)
        known = rows or await executor.fetchval(_SQL["has_endpoint"], tenant, endpoint_id)
    if not known:
        raise NotFound("the tenant has no such endpoint", field="endpoint")
    return [dict(row) for row in rows]
