-- Whose deliveries wait. The statements go from tenant to tenant by an index, and count up to a limit, so that they read no more
-- if more is pending. What is rung is in no index by tenant: of that the oldest are read.

-- The oldest $1 deliveries that were rung, by tenant.
-- name: rung
SELECT d.tenant_id, min(d.due_at) AS due_at, count(*) AS number, count(*) FILTER (WHERE d.due_at <= now()) AS due
    FROM (SELECT d.tenant_id, d.next_attempt_at::timestamptz AS due_at
          FROM hookseal.deliveries AS d
          WHERE d.next_attempt_at IS NOT NULL AND d.waiting_for IS NULL AND d.rung_at IS NOT NULL
          ORDER BY d.next_attempt_at, d.id
          LIMIT $1) AS d
    GROUP BY d.tenant_id

-- Since when the tenant `t` has held deliveries, those of disabled endpoints apart. It goes from endpoint to endpoint, to
-- `t.endpoints` of them. What is held with its endpoint has waited since then, or since its publish; of what waits for anything else
-- the first three are compared, because one that is tried in vain is held anew. The tenant is compared outside: with an equal
-- tenant, too, the index would be read from the beginning of the tenant.
-- name: held_since
(WITH RECURSIVE walked (endpoint_id, waiting_for, n) AS (
        (SELECT d.endpoint_id, d.waiting_for::text, 1
         FROM hookseal.deliveries AS d
         WHERE d.waiting_for IS NOT NULL AND d.tenant_id = t.tenant_id
         ORDER BY d.tenant_id, d.endpoint_id, d.waiting_for
         LIMIT 1)
        UNION ALL
        SELECT following.endpoint_id, following.waiting_for, walked.n + 1
        FROM walked
        CROSS JOIN LATERAL (
            SELECT d.tenant_id, d.endpoint_id, d.waiting_for::text AS waiting_for
            FROM hookseal.deliveries AS d
            WHERE d.waiting_for IS NOT NULL
              AND (d.tenant_id, d.endpoint_id, d.waiting_for) > (t.tenant_id, walked.endpoint_id, walked.waiting_for)
            ORDER BY d.tenant_id, d.endpoint_id, d.waiting_for
            LIMIT 1) AS following
        WHERE walked.n < t.endpoints AND following.tenant_id = t.tenant_id
     )
     SELECT min(CASE WHEN h.waiting_for = walked.waiting_for THEN greatest(h.since, oldest.created_at) ELSE oldest.held_at END)
            AS held_at
     FROM walked
     LEFT JOIN LATERAL (
         SELECT h.waiting_for, h.since
         FROM hookseal.held_endpoints AS h
         WHERE h.tenant_id = t.tenant_id AND h.endpoint_id = walked.endpoint_id AND h.released_at IS NULL
         LIMIT 1) AS h ON true
     CROSS JOIN LATERAL (
         SELECT d.held_at::timestamptz AS held_at, d.created_at
         FROM hookseal.deliveries AS d
         WHERE d.tenant_id = t.tenant_id AND d.endpoint_id = walked.endpoint_id AND d.waiting_for = walked.waiting_for
         ORDER BY d.tenant_id, d.endpoint_id, d.waiting_for, d.id
         LIMIT 3) AS oldest
     WHERE walked.waiting_for <> 'endpoint_disabled')

-- What is pending of the tenant `w`, up to $1 of each kind.
-- name: counted
CROSS JOIN LATERAL (
    SELECT count(*) AS number, count(*) FILTER (WHERE d.next_attempt_at <= now()) AS due
    FROM (SELECT d.next_attempt_at
          FROM hookseal.deliveries AS d
          WHERE d.next_attempt_at IS NOT NULL AND d.waiting_for IS NULL AND d.rung_at IS NULL AND d.tenant_id = w.tenant_id
          ORDER BY d.tenant_id, d.next_attempt_at, d.id
          LIMIT $1) AS d) AS unrung
CROSS JOIN LATERAL (
    SELECT count(*) AS number
    FROM (SELECT FROM hookseal.deliveries AS d
          WHERE d.waiting_for IS NOT NULL AND d.tenant_id = w.tenant_id
          ORDER BY d.tenant_id, d.endpoint_id, d.waiting_for, d.id
          LIMIT $1) AS d) AS held
LEFT JOIN rung ON rung.tenant_id = w.tenant_id

-- What the tenants of `rest` have pending, up to $1. It goes from tenant to tenant until there are so many.
-- name: of_rest
(SELECT FROM rest AS r
           CROSS JOIN LATERAL (
               (SELECT FROM hookseal.deliveries AS d
                WHERE d.next_attempt_at IS NOT NULL AND d.waiting_for IS NULL AND d.rung_at IS NULL AND d.tenant_id = r.tenant_id
                ORDER BY d.tenant_id, d.next_attempt_at, d.id
                LIMIT $1)
               UNION ALL
               (SELECT FROM hookseal.deliveries AS d
                WHERE d.waiting_for IS NOT NULL AND d.tenant_id = r.tenant_id
                ORDER BY d.tenant_id, d.endpoint_id, d.waiting_for, d.id
                LIMIT $1)) AS each
           LIMIT $1) AS few

-- The figures of a tenant.
-- name: figures
w.tenant_id, least(unrung.number + held.number + coalesce(rung.number, 0), $1) AS pending,
       least(unrung.due + coalesce(rung.due, 0), $1) AS due, held.number AS waiting,
       extract(epoch FROM now() - w.since)::float8 AS oldest_seconds

-- The deliveries that have been due or held for longest, $4 of each kind, and the endpoints that have: whatever the number of tenants
-- is, those that have waited for longest are among theirs.
-- name: oldest
(SELECT d.tenant_id, d.next_attempt_at::timestamptz AS since
           FROM hookseal.deliveries AS d
           WHERE d.next_attempt_at IS NOT NULL AND d.waiting_for IS NULL AND d.rung_at IS NULL
           ORDER BY d.next_attempt_at, d.id
           LIMIT $4)
          UNION ALL
          SELECT d.tenant_id, d.since
          FROM unnest(ARRAY['secret', 'breaker', 'rate', 'concurrency', 'order']) AS w (waiting_for)
          CROSS JOIN LATERAL (
              SELECT d.tenant_id, d.held_at::timestamptz AS since
              FROM hookseal.deliveries AS d
              WHERE d.waiting_for = w.waiting_for
              ORDER BY d.waiting_for, d.held_at, d.id
              LIMIT $4) AS d
          UNION ALL
          SELECT h.tenant_id, greatest(h.since, d.created_at)
          FROM unnest(ARRAY['secret', 'breaker']) AS w (waiting_for)
          CROSS JOIN LATERAL (
              SELECT h.tenant_id, h.endpoint_id, h.waiting_for, h.since
              FROM hookseal.held_endpoints AS h
              WHERE h.waiting_for = w.waiting_for AND h.released_at IS NULL
              ORDER BY h.waiting_for, h.since
              LIMIT $4) AS h
          CROSS JOIN LATERAL (
              SELECT d.created_at
              FROM hookseal.deliveries AS d
              WHERE d.tenant_id = h.tenant_id AND d.endpoint_id = h.endpoint_id AND d.waiting_for = h.waiting_for
              ORDER BY d.tenant_id, d.endpoint_id, d.waiting_for, d.id
              LIMIT 1) AS d

-- Returns the $2 tenants whose oldest delivery has been due or held for longest, if that is among those that have been for longest.
-- Of the others, up to $3, it is what is due, or what the first endpoint with held deliveries holds. A tenant for which nothing is
-- due and only disabled endpoints hold something comes last.
-- name: by_tenant
WITH RECURSIVE of_unrung (tenant_id, due_at, n) AS (
    (SELECT d.tenant_id, d.next_attempt_at::timestamptz, 1
     FROM hookseal.deliveries AS d
     WHERE d.next_attempt_at IS NOT NULL AND d.waiting_for IS NULL AND d.rung_at IS NULL
     ORDER BY d.tenant_id, d.next_attempt_at, d.id
     LIMIT 1)
    UNION ALL
    SELECT following.tenant_id, following.due_at, of_unrung.n + 1
    FROM of_unrung
    CROSS JOIN LATERAL (
        SELECT d.tenant_id, d.next_attempt_at::timestamptz AS due_at
        FROM hookseal.deliveries AS d
        WHERE d.next_attempt_at IS NOT NULL AND d.waiting_for IS NULL AND d.rung_at IS NULL
          AND d.tenant_id > of_unrung.tenant_id
        ORDER BY d.tenant_id, d.next_attempt_at, d.id
        LIMIT 1) AS following
    WHERE of_unrung.n < $3
), of_held (tenant_id, endpoint_id, waiting_for, held_at, created_at, n) AS (
    (SELECT d.tenant_id, d.endpoint_id, d.waiting_for::text, d.held_at::timestamptz, d.created_at, 1
     FROM hookseal.deliveries AS d
     WHERE d.waiting_for IS NOT NULL
     ORDER BY d.tenant_id, d.endpoint_id, d.waiting_for, d.id
     LIMIT 1)
    UNION ALL
    SELECT following.tenant_id, following.endpoint_id, following.waiting_for, following.held_at, following.created_at, of_held.n + 1
    FROM of_held
    CROSS JOIN LATERAL (
        SELECT d.tenant_id, d.endpoint_id, d.waiting_for::text AS waiting_for, d.held_at::timestamptz AS held_at, d.created_at
        FROM hookseal.deliveries AS d
        WHERE d.waiting_for IS NOT NULL AND d.tenant_id > of_held.tenant_id
        ORDER BY d.tenant_id, d.endpoint_id, d.waiting_for, d.id
        LIMIT 1) AS following
    WHERE of_held.n < $3
), rung AS MATERIALIZED (
    {rung}
), behind AS MATERIALIZED (
    SELECT f.tenant_id, min(f.since) FILTER (WHERE f.since <= now()) AS since
    FROM ({oldest}
          UNION ALL
          SELECT u.tenant_id, u.due_at FROM of_unrung AS u
          UNION ALL
          SELECT r.tenant_id, r.due_at FROM rung AS r
          UNION ALL
          SELECT d.tenant_id,
                 CASE WHEN d.waiting_for = 'endpoint_disabled' THEN NULL
                      WHEN d.waiting_for = h.waiting_for THEN greatest(h.since, d.created_at) ELSE d.held_at END
          FROM of_held AS d
          LEFT JOIN LATERAL (
              SELECT h.waiting_for, h.since
              FROM hookseal.held_endpoints AS h
              WHERE h.tenant_id = d.tenant_id AND h.endpoint_id = d.endpoint_id AND h.released_at IS NULL
              LIMIT 1) AS h ON true) AS f
    GROUP BY f.tenant_id
), worst AS MATERIALIZED (
    SELECT b.tenant_id, b.since FROM behind AS b ORDER BY b.since, b.tenant_id LIMIT $2
), rest AS MATERIALIZED (
    SELECT b.tenant_id, b.since FROM behind AS b ORDER BY b.since, b.tenant_id OFFSET $2
), others AS MATERIALIZED (
    SELECT count(*) AS tenants, extract(epoch FROM now() - min(r.since))::float8 AS oldest_seconds,
           least((SELECT count(*) FROM {of_rest}) + coalesce(sum(rung.number), 0), $1)::bigint AS pending
    FROM rest AS r
    LEFT JOIN rung ON rung.tenant_id = r.tenant_id
)
SELECT {figures}, others.tenants AS other_tenants, others.pending AS others_pending, others.oldest_seconds AS others_oldest_seconds,
       coalesce((SELECT max(u.n) FROM of_unrung AS u), 0) < $3 AND coalesce((SELECT max(h.n) FROM of_held AS h), 0) < $3
       AS complete
FROM worst AS w
{counted}
CROSS JOIN others
ORDER BY w.since, w.tenant_id

-- Returns the same of the tenants $2, in any order, of $3 endpoints with held deliveries.
-- name: of_tenants
WITH rung AS MATERIALIZED (
    {rung}
), chosen AS MATERIALIZED (
    SELECT t.tenant_id, least(due.since, held.since, ring.since) AS since
    FROM (SELECT u.tenant_id, greatest($3 / count(*) OVER (), 1) AS endpoints FROM unnest($2::text[]) AS u (tenant_id)) AS t
    LEFT JOIN LATERAL (
        SELECT d.next_attempt_at::timestamptz AS since
        FROM hookseal.deliveries AS d
        WHERE d.next_attempt_at IS NOT NULL AND d.waiting_for IS NULL AND d.rung_at IS NULL AND d.tenant_id = t.tenant_id
          AND d.next_attempt_at <= now()
        ORDER BY d.tenant_id, d.next_attempt_at, d.id
        LIMIT 1) AS due ON true
    LEFT JOIN (SELECT r.tenant_id, r.due_at AS since FROM rung AS r WHERE r.due_at <= now()) AS ring
        ON ring.tenant_id = t.tenant_id
    CROSS JOIN LATERAL (SELECT oldest.held_at AS since FROM {held_since} AS oldest) AS held
)
SELECT {figures}
FROM chosen AS w
{counted}
