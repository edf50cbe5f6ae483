-- What workers read and write of crowded lanes. Deliveries that another transaction has locked are left out.
-- A column of words is passed as the lines of one text, and a delivery is found by its id, as in batches.sql.

-- Lets the due deliveries of these rings wait, each for $4 or for what its held endpoint waits for.
-- A lane that is not held is crowded from now on, before the first of them waits: so a worker finds them. It leaves out
-- the probe of a held endpoint. It returns those that wait, and for what those that did not wait before. What waits for its
-- order does not make a lane crowded, and is no probe: the leader makes it due when its turn comes.
-- name: park
WITH asked AS MATERIALIZED (
    SELECT a.tenant_id, a.endpoint_id, a.id, a.waiting_for
    FROM unnest(string_to_array($1, E'\n', ''), string_to_array($2, E'\n', '')::uuid[], string_to_array($3, E'\n', '')::uuid[],
                string_to_array($4, E'\n', '')) AS a (tenant_id, endpoint_id, id, waiting_for)
), due AS MATERIALIZED (
    SELECT d.tenant_id, d.id, d.endpoint_id, a.waiting_for
    FROM asked AS a JOIN hookseal.deliveries AS d ON d.id = a.id AND d.tenant_id IS NOT DISTINCT FROM a.tenant_id
    WHERE d.endpoint_id IS NOT DISTINCT FROM a.endpoint_id
      AND CASE WHEN d.state = 'pending' AND d.waiting_for IS NULL THEN d.next_attempt_at <= now() END
    FOR UPDATE OF d SKIP LOCKED
), judged AS MATERIALIZED (
    SELECT due.tenant_id, due.id, due.endpoint_id, due.waiting_for, h.waiting_for AS held_for, h.reason
    FROM due
    LEFT JOIN hookseal.held_endpoints AS h
        ON h.tenant_id = due.tenant_id AND h.endpoint_id = due.endpoint_id AND h.released_at IS NULL
    WHERE h.probe_id IS DISTINCT FROM due.id OR due.waiting_for = 'order'
), crowded AS (
    INSERT INTO hookseal.lanes (tenant_id, endpoint_id, waiting_for)
    SELECT tenant_id, endpoint_id, min(waiting_for) FROM judged WHERE held_for IS NULL AND waiting_for <> 'order'
    GROUP BY tenant_id, endpoint_id
    ORDER BY tenant_id, endpoint_id
    ON CONFLICT DO NOTHING
), new AS (
    UPDATE hookseal.deliveries AS d
    SET waiting_for = CASE WHEN judged.waiting_for = 'order' THEN 'order' ELSE coalesce(judged.held_for, judged.waiting_for) END,
        held_at = now(), rung_at = NULL,
        last_error = coalesce(judged.reason, d.last_error)
    FROM judged
    WHERE d.id = judged.id AND d.tenant_id IS NOT DISTINCT FROM judged.tenant_id
    RETURNING d.id, d.waiting_for
)
SELECT new.id::text AS delivery_id, new.waiting_for FROM new
UNION ALL
SELECT d.id::text, NULL
FROM asked AS a JOIN hookseal.deliveries AS d ON d.id = a.id AND d.tenant_id IS NOT DISTINCT FROM a.tenant_id
WHERE d.endpoint_id IS NOT DISTINCT FROM a.endpoint_id AND CASE WHEN d.state = 'pending' THEN d.waiting_for IS NOT NULL END

-- Returns which of these deliveries are due, waiting or not, and whether each is the probe of its held endpoint.
-- name: due
SELECT d.id::text AS delivery_id,
       EXISTS (SELECT FROM hookseal.held_endpoints AS h
               WHERE h.tenant_id = d.tenant_id AND h.endpoint_id = d.endpoint_id AND h.probe_id = d.id
                 AND h.released_at IS NULL) AS is_probe
FROM unnest(string_to_array($1, E'\n', ''), string_to_array($2, E'\n', '')::uuid[], string_to_array($3, E'\n', '')::uuid[])
     AS a (tenant_id, endpoint_id, id)
JOIN hookseal.deliveries AS d ON d.id = a.id AND d.tenant_id IS NOT DISTINCT FROM a.tenant_id
WHERE d.endpoint_id IS NOT DISTINCT FROM a.endpoint_id
      AND CASE WHEN d.state = 'pending' THEN d.next_attempt_at <= now() END

-- Opens the breakers of these endpoints: they are held until a probe is answered, the first after $4 seconds.
-- An endpoint that is held already is left as it is, and not returned.
-- name: open_breakers
INSERT INTO hookseal.held_endpoints AS h (tenant_id, endpoint_id, waiting_for, reason, step_seconds, probe_at)
SELECT o.tenant_id, o.endpoint_id, 'breaker', o.reason, $4::float8, now() + make_interval(secs => $4::float8 * $5::float8)
FROM unnest(string_to_array($1, E'\n', ''), string_to_array($2, E'\n', '')::uuid[], string_to_array($3, E'\n', ''))
     AS o (tenant_id, endpoint_id, reason)
ORDER BY o.tenant_id, o.endpoint_id
ON CONFLICT (tenant_id, endpoint_id) DO UPDATE
SET since = now(), waiting_for = excluded.waiting_for, reason = excluded.reason, is_transient = false,
    step_seconds = excluded.step_seconds, probe_at = excluded.probe_at, probe_id = NULL, released_at = NULL
WHERE h.released_at IS NOT NULL
RETURNING h.tenant_id, h.endpoint_id::text AS endpoint_id

-- Reads a page of the crowded lanes, the limits of each endpoint, and whether it is enabled and not held. `LIMIT 1` has it look
-- up one endpoint after the other, since a join may read all endpoints that come before the page.
-- name: page
WITH page AS MATERIALIZED (
    SELECT l.tenant_id, l.endpoint_id, l.reopened_at
    FROM hookseal.lanes AS l
    WHERE (l.tenant_id, l.endpoint_id) > ($1, $2::text::uuid)
    ORDER BY l.tenant_id, l.endpoint_id
    LIMIT $3
)
SELECT l.tenant_id, l.endpoint_id::text AS endpoint_id, l.reopened_at, e.concurrency, e.rate, e.ordered,
       coalesce(e.enabled, true)
       AND NOT coalesce((SELECT true FROM hookseal.held_endpoints AS h
                         WHERE h.tenant_id = l.tenant_id AND h.endpoint_id = l.endpoint_id AND h.released_at IS NULL
                         LIMIT 1), false) AS is_open
FROM page AS l
LEFT JOIN LATERAL (SELECT e.enabled, e.concurrency, e.rate, e.ordered FROM hookseal.endpoints AS e
                   WHERE e.tenant_id = l.tenant_id AND e.id = l.endpoint_id LIMIT 1) AS e ON true
ORDER BY l.tenant_id, l.endpoint_id

-- Returns the oldest waiting deliveries of these lanes behind the given ids, as many of each as asked for. Nothing is changed.
-- Each lane is read once for each reason to wait, so that the index gives the oldest without reading the others. Of what
-- waits for its order only the head of the line is returned. `(SELECT ...)` hides from the planner how many lanes there are, as
-- in `claim_all`.
-- name: next
SELECT a.tenant_id, a.endpoint_id::text AS endpoint_id, d.id::text AS delivery_id
FROM unnest(string_to_array((SELECT $1::text), E'\n', ''), string_to_array((SELECT $2::text), E'\n', '')::uuid[],
            string_to_array((SELECT $3::text), E'\n', '')::integer[], string_to_array((SELECT $4::text), E'\n', '')::uuid[])
     WITH ORDINALITY AS a (tenant_id, endpoint_id, wanted, after, n)
CROSS JOIN LATERAL (
    SELECT oldest.id
    FROM unnest(ARRAY['breaker', 'concurrency', 'rate']) AS w (waiting_for)
    CROSS JOIN LATERAL (
        SELECT held.id
        FROM hookseal.deliveries AS held
        WHERE held.tenant_id = a.tenant_id AND held.endpoint_id = a.endpoint_id AND held.waiting_for = w.waiting_for
          AND held.id > a.after
        ORDER BY held.id
        LIMIT a.wanted) AS oldest
    UNION ALL
    SELECT head.id
    FROM (SELECT h.id, h.waiting_for
          FROM hookseal.deliveries AS h
          WHERE h.tenant_id = a.tenant_id AND h.endpoint_id = a.endpoint_id AND h.position IS NOT NULL
          ORDER BY h.position, h.id
          LIMIT 1) AS head
    WHERE head.waiting_for = 'order'
    ORDER BY id
    LIMIT a.wanted) AS d
WHERE NOT EXISTS (SELECT FROM hookseal.held_endpoints AS h
                  WHERE h.tenant_id = a.tenant_id AND h.endpoint_id = a.endpoint_id AND h.released_at IS NULL)
ORDER BY a.n, d.id

-- Returns whether all endpoints are of one tenant.
-- name: has_one_tenant
SELECT coalesce(min(tenant_id) = max(tenant_id), false) FROM hookseal.endpoints

-- Deletes these lanes, unless more than $3 deliveries wait in them or their breakers closed in the last $4 seconds.
-- It returns the lanes that were stored, deleted now or not, and those in which a delivery waits, and whether one waits. A
-- publisher that read a stored lane before may let a delivery wait in it yet. Lanes of held endpoints are neither deleted
-- nor returned: what waits there waits for a probe.
-- name: delete
WITH asked AS MATERIALIZED (
    SELECT a.tenant_id, a.endpoint_id, l.tenant_id IS NOT NULL AS is_stored,
           (SELECT count(*)
            FROM (SELECT FROM unnest(ARRAY['breaker', 'concurrency', 'rate']) AS w (waiting_for)
                  CROSS JOIN LATERAL (
                      SELECT FROM hookseal.deliveries AS d
                      WHERE d.tenant_id = a.tenant_id AND d.endpoint_id = a.endpoint_id AND d.waiting_for = w.waiting_for
                      ORDER BY d.id
                      LIMIT $3 + 1) AS of_one
                  LIMIT $3 + 1) AS few) AS waiting
    FROM unnest(string_to_array($1, E'\n', ''), string_to_array($2, E'\n', '')::uuid[]) AS a (tenant_id, endpoint_id)
    LEFT JOIN hookseal.lanes AS l ON l.tenant_id = a.tenant_id AND l.endpoint_id = a.endpoint_id
    WHERE NOT EXISTS (SELECT FROM hookseal.held_endpoints AS h
                      WHERE h.tenant_id = a.tenant_id AND h.endpoint_id = a.endpoint_id AND h.released_at IS NULL)
), calm AS (
    SELECT l.tenant_id, l.endpoint_id
    FROM asked JOIN hookseal.lanes AS l ON l.tenant_id = asked.tenant_id AND l.endpoint_id = asked.endpoint_id
    WHERE asked.waiting <= $3 AND coalesce(l.reopened_at < now() - make_interval(secs => $4), true)
    FOR UPDATE OF l SKIP LOCKED
), deleted AS (
    DELETE FROM hookseal.lanes AS l
    USING calm
    WHERE l.tenant_id = calm.tenant_id AND l.endpoint_id = calm.endpoint_id
)
SELECT tenant_id, endpoint_id::text AS endpoint_id, waiting > 0 AS waits
FROM asked
WHERE is_stored OR waiting > 0
