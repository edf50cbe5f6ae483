"""Many rows, written by SQL: endpoints in trouble, and the deliveries that wait for them."""

from typing import Final

from hookseal.postgres.pool import Connection

# Of ten endpoints four are held: one by a refused secret, three by their breaker. Two of them are failing. One of ten
# is at its limit. Of the others the deliveries are due, or wait for their next attempt. As many were delivered, one of
# ten was given up. No trigger runs: it would take most of the time.
_GROW: Final = """
SET LOCAL session_replication_role = replica;
INSERT INTO hookseal.tenants (tenant_id)
SELECT 't' || n FROM generate_series({least} / {of_tenant}, {most} / {of_tenant} - 1) AS n;
INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types, first_failure_at, rotate_every_days, secret_updated_at)
SELECT 't' || n * 10 / {of_tenant}, md5(n::text)::uuid, 'https://a.example/' || n, '{{*}}',
       CASE WHEN n % 10 < 2 THEN now() - make_interval(secs => n) END, 7, now() - interval '8 days'
FROM generate_series({least} / 10, {most} / 10 - 1) AS n;
INSERT INTO hookseal.held_endpoints (tenant_id, endpoint_id, waiting_for, since)
SELECT 't' || n * 10 / {of_tenant}, md5(n::text)::uuid, CASE WHEN n % 10 = 0 THEN 'secret' ELSE 'breaker' END,
       now() - interval '1 h'
FROM generate_series({least} / 10, {most} / 10 - 1) AS n WHERE n % 10 < 4;
INSERT INTO hookseal.lanes (tenant_id, endpoint_id)
SELECT 't' || n * 10 / {of_tenant}, md5(n::text)::uuid
FROM generate_series({least} / 10, {most} / 10 - 1) AS n WHERE n % 10 = 4;
INSERT INTO hookseal.deliveries (tenant_id, id, endpoint_id, event_id, next_attempt_at, rung_at, waiting_for, held_at)
SELECT 't' || n / {of_tenant}, hookseal.uuid7(), md5((n / 10)::text)::uuid, 'e' || n,
       now() + make_interval(secs => CASE WHEN n / 10 % 10 = 9 THEN 3600 ELSE n / 1e3 - 3600 END),
       CASE WHEN n / 10 % 10 = 5 AND n % 10 = 0 THEN now() END,
       CASE WHEN n / 10 % 10 = 0 THEN 'secret' WHEN n / 10 % 10 < 4 THEN 'breaker'
            WHEN n / 10 % 10 = 4 THEN 'concurrency' END,
       CASE WHEN n / 10 % 10 < 5 THEN now() - interval '30 min' END
FROM generate_series({least}, {most} - 1) AS n;
WITH ended AS (
    INSERT INTO hookseal.deliveries (tenant_id, id, endpoint_id, event_id, state, next_attempt_at, finished_at)
    SELECT 't' || n / {of_tenant}, hookseal.uuid7(), md5((n / 10)::text)::uuid, 'd' || n,
           CASE WHEN n % 10 = 0 THEN 'dead_letter' ELSE 'delivered' END, NULL, now()
    FROM generate_series({least}, {most} - 1) AS n
    RETURNING tenant_id, id, endpoint_id)
INSERT INTO hookseal.attempts (tenant_id, delivery_id, number, started_at, outcome, signed_by, worker, endpoint_id)
SELECT tenant_id, id, 1, now(), 'delivered', '{{}}', 'w', endpoint_id FROM ended;
"""


async def grow(connection: Connection, least: int, most: int, *, of_tenant: int = 100) -> None:
    """Store the deliveries from the number `least` up to `most`, and an endpoint for every ten of them.

    Each tenant has `of_tenant` of them, by which both numbers must be divisible.
    """
    async with connection.transaction():
        await connection.execute(_GROW.format(least=least, most=most, of_tenant=of_tenant))
