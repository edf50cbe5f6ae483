"""Endpoints of an older system: rows with a plaintext secret, inserted without hookseal."""

from typing import Final

import asyncpg

from hookseal.ground.ids import EndpointId, TenantId
from hookseal.postgres.pool import Pool
from hookseal.secrets.migrate_secrets import PlaintextEndpoint

SECRET: Final = "a plaintext secret, as an older system had it: \u00e4\n"
_INSERT: Final = """
INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types, secret)
VALUES ($1, gen_random_uuid(), $2, '{*}', $3)
RETURNING id::text
"""


async def legacy(
    pool: Pool,
    secret: str = SECRET,
    *,
    tenant: str = "acme",
    url: str = "https://receiver.example/older",
) -> PlaintextEndpoint:
    """Insert an endpoint with the five columns that an older system sets, and a random UUID."""
    made = await pool.fetchval(_INSERT, tenant, url, secret)
    return PlaintextEndpoint(TenantId(tenant), EndpointId(made))


async def row(pool: Pool, held: PlaintextEndpoint) -> asyncpg.Record:
    found = await pool.fetchrow("SELECT * FROM hookseal.endpoints WHERE id = $1::text::uuid", held.endpoint_id)
    assert found is not None
    return found
