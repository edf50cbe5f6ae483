-- What the leader does with held deliveries. No statement waits for a lock: rows that another transaction has locked are
-- left to the next look. Two workers may run these statements at the same time.

-- Releases the oldest delivery of each held endpoint whose probe is due. If none waits, the endpoint is released.
-- The time to the next probe doubles. A probe that is planned later than hookseal ever plans one counts as due: another
-- program has written that time.
-- name: probe
WITH due AS (
    SELECT h.tenant_id, h.endpoint_id, h.waiting_for, e.enabled IS FALSE AS is_disabled
    FROM hookseal.held_endpoints AS h
    LEFT JOIN hookseal.endpoints AS e ON e.tenant_id = h.tenant_id AND e.id = h.endpoint_id
    WHERE h.released_at IS NULL AND (h.probe_at <= now() OR h.probe_at > now() + make_interval(secs => 2 * $2::float8))
    ORDER BY h.probe_at
    LIMIT $1
    FOR UPDATE OF h SKIP LOCKED
), oldest AS (
    SELECT due.tenant_id, due.endpoint_id, due.is_disabled, d.id
    FROM due
    LEFT JOIN LATERAL (
        SELECT first.id
        FROM unnest(CASE due.waiting_for WHEN 'secret' THEN ARRAY['secret'] ELSE ARRAY['breaker', 'concurrency', 'rate'] END)
             AS w (waiting_for)
        CROSS JOIN LATERAL (
            SELECT held.id
            FROM hookseal.deliveries AS held
            WHERE held.tenant_id = due.tenant_id AND held.endpoint_id = due.endpoint_id
              AND held.waiting_for = w.waiting_for AND NOT due.is_disabled
            ORDER BY held.id
            LIMIT 1
            FOR UPDATE SKIP LOCKED) AS first
        ORDER BY first.id
        LIMIT 1) AS d ON true
), probed AS (
    UPDATE hookseal.deliveries AS d
    SET waiting_for = NULL, held_at = NULL, next_attempt_at = now(), rung_at = NULL
    FROM oldest
    WHERE d.tenant_id = oldest.tenant_id AND d.id = oldest.id
), next AS (
    UPDATE hookseal.held_endpoints AS h
    SET probe_id = oldest.id, step_seconds = least(2 * h.step_seconds, $2::float8),
        probe_at = now() + make_interval(secs => least(2 * h.step_seconds, $2::float8) * (1 - $3 + 2 * $3 * random())),
        released_at = CASE WHEN oldest.id IS NULL THEN now() END
    FROM oldest
    WHERE h.tenant_id = oldest.tenant_id AND h.endpoint_id = oldest.endpoint_id
)
SELECT tenant_id, endpoint_id::text AS endpoint_id, id::text AS delivery_id FROM oldest WHERE id IS NOT NULL

-- Releases a batch of the held deliveries of a released endpoint.
-- It takes the oldest deliveries of the endpoint that was released longest ago. They are due now, or, if the endpoint is
-- disabled, wait until it is enabled. Those that wait in a lane stay there, unless the endpoint is disabled. Those of an
-- ordered endpoint wait for their order, until `move_lines` makes the head of the line due. Each reason to wait is read by
-- itself, so that the index passes by those that stay, however many there are.
-- name: release_batch
WITH released AS (
    SELECT h.tenant_id, h.endpoint_id, h.is_transient
    FROM hookseal.held_endpoints AS h
    WHERE h.released_at IS NOT NULL
    ORDER BY h.released_at
    LIMIT 1
    FOR UPDATE SKIP LOCKED
), becomes AS (
    SELECT released.tenant_id, released.endpoint_id,
           CASE WHEN e.enabled IS FALSE THEN 'endpoint_disabled' END AS waiting_for, e.ordered IS TRUE AS is_ordered,
           CASE WHEN e.enabled IS FALSE THEN ARRAY['breaker', 'concurrency', 'order', 'rate', 'secret']
                WHEN e.ordered THEN ARRAY['breaker', 'endpoint_disabled', 'secret']
                ELSE ARRAY['breaker', 'endpoint_disabled', 'order', 'secret'] END AS ends
    FROM released
    LEFT JOIN hookseal.endpoints AS e ON e.tenant_id = released.tenant_id AND e.id = released.endpoint_id
), held AS (
    SELECT d.tenant_id, d.id,
           coalesce(becomes.waiting_for, CASE WHEN becomes.is_ordered AND d.position IS NOT NULL THEN 'order' END) AS waiting_for
    FROM becomes
    CROSS JOIN LATERAL unnest(becomes.ends) AS w (waiting_for)
    CROSS JOIN LATERAL (
        SELECT held.tenant_id, held.id, held.position
        FROM hookseal.deliveries AS held
        WHERE held.tenant_id = becomes.tenant_id AND held.endpoint_id = becomes.endpoint_id
          AND held.waiting_for = w.waiting_for
        ORDER BY held.id
        LIMIT $1
        FOR UPDATE SKIP LOCKED) AS d
    LIMIT $1
), few AS (
    SELECT * FROM held LIMIT 1000  -- there are never more, but a plan for any $1 expects a tenth of all
), changed AS (
    UPDATE hookseal.deliveries AS d
    SET waiting_for = held.waiting_for, held_at = CASE WHEN held.waiting_for IS NOT NULL THEN now() END,
        next_attempt_at = now(), rung_at = NULL,
        last_error = CASE WHEN held.waiting_for = 'endpoint_disabled' THEN 'the endpoint is disabled' ELSE d.last_error END
    FROM few AS held
    WHERE d.tenant_id = held.tenant_id AND d.id = held.id
), turn AS (
    UPDATE hookseal.held_endpoints AS h
    SET released_at = now()
    FROM released
    WHERE h.tenant_id = released.tenant_id AND h.endpoint_id = released.endpoint_id
      AND (SELECT count(*) FROM held) = $1
), over AS (
    DELETE FROM hookseal.held_endpoints AS h
    USING released
    WHERE h.tenant_id = released.tenant_id AND h.endpoint_id = released.endpoint_id
      AND (SELECT count(*) FROM held) < $1
)
SELECT tenant_id, endpoint_id::text AS endpoint_id, is_transient,
       (SELECT count(*) FROM held WHERE waiting_for IS NULL) AS due
FROM released

-- Sets the probe of every endpoint that is held because the store did not answer to now: the store answers again.
-- name: probe_transient
WITH late AS (
    SELECT h.tenant_id, h.endpoint_id
    FROM hookseal.held_endpoints AS h
    WHERE h.released_at IS NULL AND h.is_transient AND h.probe_at > now()
    FOR UPDATE SKIP LOCKED
)
UPDATE hookseal.held_endpoints AS h
SET probe_at = now()
FROM late
WHERE h.tenant_id = late.tenant_id AND h.endpoint_id = late.endpoint_id

-- Releases a page of the endpoints with deliveries that are held without a reason.
-- A statement that publishes or holds a delivery may read the endpoint just before another transaction changes it. So a
-- delivery may wait for an endpoint that is enabled and not held. This statement releases such an endpoint; if its
-- deliveries wait for a secret, the endpoint is probed first. If they wait for room in a lane, and the endpoint has no row
-- in `lanes`, the row is inserted, so that workers claim them. A delivery that waits for its order has a reason while its
-- endpoint has a line. The statement goes from endpoint to endpoint, so that its cost does not depend on the number of
-- deliveries.
-- name: release_strays
WITH RECURSIVE walked (tenant_id, endpoint_id, waiting_for, number) AS (
    (SELECT d.tenant_id, d.endpoint_id, d.waiting_for, 1
     FROM hookseal.deliveries AS d
     WHERE d.waiting_for IS NOT NULL AND (d.tenant_id, d.endpoint_id, d.waiting_for) > ($1::text, $2::text::uuid, $3::text)
     ORDER BY d.tenant_id, d.endpoint_id, d.waiting_for
     LIMIT 1)
    UNION ALL
    SELECT following.tenant_id, following.endpoint_id, following.waiting_for, walked.number + 1
    FROM walked
    CROSS JOIN LATERAL (
        SELECT d.tenant_id, d.endpoint_id, d.waiting_for
        FROM hookseal.deliveries AS d
        WHERE d.waiting_for IS NOT NULL
          AND (d.tenant_id, d.endpoint_id, d.waiting_for) > (walked.tenant_id, walked.endpoint_id, walked.waiting_for)
        ORDER BY d.tenant_id, d.endpoint_id, d.waiting_for
        LIMIT 1) AS following
    WHERE walked.number < $4
), stray AS (
    SELECT w.tenant_id, w.endpoint_id, w.waiting_for
    FROM walked AS w
    WHERE NOT coalesce((SELECT true FROM hookseal.held_endpoints AS h
                        WHERE h.tenant_id = w.tenant_id AND h.endpoint_id = w.endpoint_id LIMIT 1), false)
      AND NOT (w.waiting_for = 'endpoint_disabled'
               AND coalesce((SELECT NOT e.enabled FROM hookseal.endpoints AS e
                             WHERE e.tenant_id = w.tenant_id AND e.id = w.endpoint_id LIMIT 1), false))
      AND NOT (w.waiting_for = 'order'
               AND coalesce((SELECT true FROM hookseal.lines AS l
                             WHERE l.tenant_id = w.tenant_id AND l.endpoint_id = w.endpoint_id LIMIT 1), false))
), released AS (
    INSERT INTO hookseal.held_endpoints (tenant_id, endpoint_id, released_at)
    SELECT tenant_id, endpoint_id, CASE WHEN bool_or(waiting_for = 'secret') THEN NULL ELSE now() END
    FROM stray
    WHERE waiting_for IN ('secret', 'endpoint_disabled', 'order')
    GROUP BY tenant_id, endpoint_id
    ORDER BY tenant_id, endpoint_id
    ON CONFLICT DO NOTHING
    RETURNING 1
), laned AS (
    INSERT INTO hookseal.lanes (tenant_id, endpoint_id)
    SELECT DISTINCT s.tenant_id, s.endpoint_id
    FROM stray AS s
    WHERE s.waiting_for NOT IN ('secret', 'endpoint_disabled', 'order')
      AND NOT coalesce((SELECT true FROM hookseal.lanes AS l
                        WHERE l.tenant_id = s.tenant_id AND l.endpoint_id = s.endpoint_id LIMIT 1), false)
    ORDER BY s.tenant_id, s.endpoint_id
    ON CONFLICT DO NOTHING
    RETURNING 1
)
SELECT tenant_id, endpoint_id::text AS endpoint_id, waiting_for, number,
       (SELECT count(*) FROM released) + (SELECT count(*) FROM laned) AS released
FROM walked
ORDER BY number DESC
LIMIT 1

-- Looks at the next $4 deliveries that have waited for a disabled endpoint for $1 days, the oldest first, and cancels them.
-- It passes over those of endpoints that were enabled since: they are being released, or a breaker or a secret stops that.
-- name: cancel_held
WITH page AS MATERIALIZED (
    SELECT d.tenant_id, d.endpoint_id, d.id, d.held_at
    FROM hookseal.deliveries AS d
    WHERE d.waiting_for = 'endpoint_disabled' AND d.held_at < now() - make_interval(days => $1)
      AND (d.held_at, d.id) > (coalesce($2::timestamptz, '-infinity'), coalesce($3::text, '00000000-0000-0000-0000-000000000000')::uuid)
    ORDER BY d.held_at, d.id
    LIMIT $4
), few AS (
    SELECT * FROM page LIMIT 1000  -- there are never more, but a plan for any $4 expects a tenth of all
), late AS (
    SELECT d.tenant_id, d.id
    FROM few AS page
    JOIN hookseal.endpoints AS e ON e.tenant_id = page.tenant_id AND e.id = page.endpoint_id AND NOT e.enabled
    JOIN hookseal.deliveries AS d ON d.tenant_id = page.tenant_id AND d.id = page.id AND d.waiting_for = 'endpoint_disabled'
    FOR UPDATE OF d SKIP LOCKED
), cancelled AS (
    UPDATE hookseal.deliveries AS d
    SET state = 'cancelled', next_attempt_at = NULL, waiting_for = NULL, held_at = NULL,
        last_error = 'its endpoint was disabled for longer than it may wait (HOOKSEAL_HELD_DAYS is ' || $1::integer || ')'
    FROM late
    WHERE d.tenant_id = late.tenant_id AND d.id = late.id
    RETURNING 1
)
SELECT page.held_at, page.id::text AS id, (SELECT count(*) FROM page) AS number, (SELECT count(*) FROM cancelled) AS cancelled
FROM page
ORDER BY page.held_at DESC, page.id DESC
LIMIT 1

-- Looks at the next lines of ordered endpoints, and makes the head of each due if it waits without a reason.
-- A head never has to wait for its order. It may also wait for a reason that has ended: its publisher read an endpoint that
-- was disabled, or a lane that was crowded, just before that changed. Making it due keeps every line moving, even if the
-- worker that ended the delivery before it has died, or did not see it yet. A delivery that was given up leaves its line here
-- if its endpoint skips such deliveries now. If the endpoint is disabled, its deliveries that wait for their order must wait
-- for the endpoint instead: `release_batch` does that.
-- name: move_lines
WITH page AS MATERIALIZED (
    SELECT l.tenant_id, l.endpoint_id, e.enabled, e.on_dead_letter, row_number() OVER (ORDER BY l.tenant_id, l.endpoint_id) AS n
    FROM (SELECT * FROM hookseal.lines AS l
          WHERE (l.tenant_id, l.endpoint_id) > ($1, $2::text::uuid)
          ORDER BY l.tenant_id, l.endpoint_id
          LIMIT $3) AS l
    LEFT JOIN hookseal.endpoints AS e ON e.tenant_id = l.tenant_id AND e.id = l.endpoint_id
), head AS MATERIALIZED (
    SELECT page.tenant_id, page.endpoint_id, page.enabled, page.on_dead_letter, h.id, h.state, h.waiting_for
    FROM page
    CROSS JOIN LATERAL (
        SELECT d.id, d.state, d.waiting_for
        FROM hookseal.deliveries AS d
        WHERE d.tenant_id = page.tenant_id AND d.endpoint_id = page.endpoint_id AND d.position IS NOT NULL
        ORDER BY d.position, d.id
        LIMIT 1) AS h
), waiting AS MATERIALIZED (
    SELECT d.tenant_id, d.id
    FROM head JOIN hookseal.deliveries AS d ON d.tenant_id = head.tenant_id AND d.id = head.id
    WHERE head.enabled AND d.waiting_for = head.waiting_for
      AND (head.waiting_for IN ('order', 'endpoint_disabled')
           OR NOT EXISTS (SELECT FROM hookseal.held_endpoints AS h
                          WHERE h.tenant_id = head.tenant_id AND h.endpoint_id = head.endpoint_id)
          AND (head.waiting_for IN ('secret', 'breaker')
               OR NOT EXISTS (SELECT FROM hookseal.lanes AS l
                              WHERE l.tenant_id = head.tenant_id AND l.endpoint_id = head.endpoint_id)))
    FOR UPDATE OF d SKIP LOCKED
), made_due AS (
    UPDATE hookseal.deliveries AS d
    SET waiting_for = NULL, held_at = NULL, next_attempt_at = now(), rung_at = NULL
    FROM waiting
    WHERE d.tenant_id = waiting.tenant_id AND d.id = waiting.id
    RETURNING 1
), given_up AS MATERIALIZED (
    SELECT d.tenant_id, d.id
    FROM head JOIN hookseal.deliveries AS d ON d.tenant_id = head.tenant_id AND d.id = head.id
    WHERE head.state IN ('dead_letter', 'failed') AND head.on_dead_letter = 'skip' AND d.state IN ('dead_letter', 'failed')
    FOR UPDATE OF d SKIP LOCKED
), skipped AS (
    UPDATE hookseal.deliveries AS d
    SET position = NULL
    FROM given_up
    WHERE d.tenant_id = given_up.tenant_id AND d.id = given_up.id
), paused AS (
    INSERT INTO hookseal.held_endpoints (tenant_id, endpoint_id, released_at)
    SELECT page.tenant_id, page.endpoint_id, now()
    FROM page
    WHERE NOT page.enabled AND EXISTS (
        SELECT FROM hookseal.deliveries AS d
        WHERE d.tenant_id = page.tenant_id AND d.endpoint_id = page.endpoint_id AND d.waiting_for = 'order')
    ON CONFLICT DO NOTHING
)
SELECT page.tenant_id, page.endpoint_id::text AS endpoint_id, page.n, (SELECT count(*) FROM made_due) AS due
FROM page
ORDER BY page.n DESC
LIMIT 1
