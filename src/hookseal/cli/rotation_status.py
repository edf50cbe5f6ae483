"""`hookseal endpoint rotation-status`: what an overlap stands at."""

from typing import Any, Final

from hookseal.cli.endpoint_options import Endpoint, Tenant
from hookseal.cli.output import Json, emit, rfc3339
from hookseal.cli.runtime import connect, require_schema, run, start
from hookseal.config.settings import Part, Settings
from hookseal.dispatcher import waiting
from hookseal.ground import ids
from hookseal.secrets import rotation

_NEEDS: Final = frozenset({Part.DATABASE})
_ROTATIONS: Final = 10


def rotation_status(*, tenant: Tenant, endpoint: Endpoint, as_json: Json = False) -> None:
    """Show which secrets sign for an endpoint, how long the overlap still runs, and its last ten rotations.

    `older_claims` are requests in flight that began before the last change: they may sign as it was before.

    Example: hookseal endpoint rotation-status --tenant acme --endpoint 0197c1f0-5e6a-7c3b-9d2e-4f5061728394
    """
    found = run(_found(start(_NEEDS), ids.tenant_id(tenant), ids.endpoint_id(endpoint)))
    emit(found, as_json=as_json, text=lambda: _text(found))


async def _found(settings: Settings, tenant: ids.TenantId, endpoint: ids.EndpointId) -> dict[str, Any]:
    async with connect(settings.database) as connection:
        await require_schema(connection)
        found = await rotation.standing(connection, tenant, endpoint, limit=_ROTATIONS)
        older = await waiting.older_claims(connection, tenant, endpoint, found["generation"])
    return found | {"older_claims": older}


def _text(found: dict[str, Any]) -> str:
    lines = [f"current       {found['secret_ref'] or '-'} ({found['scheme']})"]
    if found["overlapping"]:
        until = rfc3339(found["previous_secret_expires_at"])
        lines.append(f"previous      {found['previous_secret_ref']} ({found['previous_scheme']})")
        lines.append(f"overlap       until {until}, {found['seconds_left']} s from now; lead {found['lead']}")
    else:
        lines.append("previous      none signs")
    lines += [f"generation    {found['generation']}", f"older claims  {found['older_claims']}"]
    lines += [
        f"rotation      {rfc3339(one['created_at'])}  version {one['version']}  {one['rotation_id']}"
        for one in found["rotations"]
    ]
    return "\n".join(lines)
