"""A producer that uses SQL only: it publishes without a ring."""

import asyncpg

Pool = asyncpg.Pool


async def subscribe(pool: "Pool[asyncpg.Record]") -> None:
    """Insert one endpoint that subscribes to everything."""
    await pool.execute(
        "INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types)"
        " VALUES ('acme', hookseal.uuid7(), 'https://receiver.example/hook', '{*}')"
    )


async def publish(pool: "Pool[asyncpg.Record]", events: int = 1) -> set[str]:
    """Publish that many events in one transaction; return the ids of their deliveries."""
    rows = await pool.fetch(
        "SELECT (hookseal.publish('acme', 'invoice.paid', '{}'::json)).delivery_id::text"
        " FROM generate_series(1, $1::int)",
        events,
    )
    return {row["delivery_id"] for row in rows}
