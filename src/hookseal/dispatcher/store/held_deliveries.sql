-- What an operator's change does to deliveries that are held or in flight. It cancels pending deliveries, and marks
-- endpoints as released or to be probed; the leader then releases the deliveries in batches. A probe comes first, because
-- an endpoint whose secret is still refused must not cost one claim for each of its deliveries.

-- Makes the leader release all held deliveries of the endpoint.
-- name: release
INSERT INTO hookseal.held_endpoints AS h (tenant_id, endpoint_id, released_at)
SELECT $1, $2::text::uuid, now()
WHERE EXISTS (SELECT FROM hookseal.held_endpoints WHERE tenant_id = $1 AND endpoint_id = $2::text::uuid)
   OR EXISTS (SELECT FROM hookseal.deliveries
              WHERE tenant_id = $1 AND endpoint_id = $2::text::uuid AND waiting_for IS NOT NULL)
ON CONFLICT (tenant_id, endpoint_id) DO UPDATE SET released_at = now()

-- Makes the leader probe the endpoint at its next look, and returns what it is held for.
-- name: probe
INSERT INTO hookseal.held_endpoints AS h (tenant_id, endpoint_id)
SELECT $1, $2::text::uuid
WHERE EXISTS (SELECT FROM hookseal.held_endpoints WHERE tenant_id = $1 AND endpoint_id = $2::text::uuid)
   OR EXISTS (SELECT FROM hookseal.deliveries
              WHERE tenant_id = $1 AND endpoint_id = $2::text::uuid AND waiting_for = 'secret')
ON CONFLICT (tenant_id, endpoint_id) DO UPDATE SET probe_at = now(), step_seconds = 15 WHERE h.released_at IS NULL
RETURNING h.waiting_for

-- Makes the leader probe each held endpoint at its next look. It locks them in the order in which breakers open.
-- name: probe_all
WITH held AS (
    SELECT h.tenant_id, h.endpoint_id
    FROM hookseal.held_endpoints AS h
    WHERE h.released_at IS NULL
    ORDER BY h.tenant_id, h.endpoint_id
    FOR UPDATE
)
UPDATE hookseal.held_endpoints AS h
SET probe_at = now(), step_seconds = 15
FROM held
WHERE h.tenant_id = held.tenant_id AND h.endpoint_id = held.endpoint_id AND h.released_at IS NULL

-- Counts the held deliveries of an enabled endpoint: those that a release makes due, and those that are in line behind the
-- head of an ordered endpoint, which may itself be held or not.
-- name: count
WITH head AS MATERIALIZED (
    SELECT p.id
    FROM hookseal.deliveries AS p
    WHERE p.tenant_id = $1 AND p.endpoint_id = $2::text::uuid AND p.position IS NOT NULL
    ORDER BY p.position, p.id
    LIMIT 1
)
SELECT count(*) FILTER (WHERE d.position IS NULL OR d.id = (SELECT id FROM head)) AS due,
       count(*) FILTER (WHERE d.position IS NOT NULL AND d.id <> (SELECT id FROM head)) AS in_line,
       (SELECT id::text FROM head) AS head
FROM hookseal.deliveries AS d
WHERE d.tenant_id = $1 AND d.endpoint_id = $2::text::uuid AND d.waiting_for IS NOT NULL

-- Counts the deliveries that wait for a secret, those in the lanes of endpoints that are held for one, too.
-- name: count_all
SELECT (SELECT count(*) FROM hookseal.deliveries AS d WHERE d.waiting_for = 'secret')
       + (SELECT count(*)
          FROM hookseal.held_endpoints AS h
          JOIN hookseal.deliveries AS d ON d.tenant_id = h.tenant_id AND d.endpoint_id = h.endpoint_id
          WHERE h.waiting_for = 'secret' AND h.released_at IS NULL AND d.waiting_for IN ('concurrency', 'rate'))

-- Counts the claims that have read an older generation of the endpoint and whose lease is still valid.
-- name: older_claims
SELECT count(*)
FROM hookseal.deliveries AS d
WHERE d.tenant_id = $1 AND d.endpoint_id = $2::text::uuid
  AND d.state = 'sending' AND d.claimed_generation < $3 AND d.lease_expires_at > now()

-- Cancels the pending deliveries of an endpoint that is being deleted.
-- name: cancel
WITH left_over AS (
    SELECT d.tenant_id, d.id
    FROM hookseal.deliveries AS d
    WHERE d.tenant_id = $1 AND d.endpoint_id = $2::text::uuid AND d.state = 'pending'
    ORDER BY d.tenant_id, d.id
    FOR UPDATE
), forgotten AS (
    DELETE FROM hookseal.held_endpoints AS h WHERE h.tenant_id = $1 AND h.endpoint_id = $2::text::uuid
), given_up AS (  -- a delivery that stopped the line leaves it, so that the retention can delete it
    UPDATE hookseal.deliveries AS d
    SET position = NULL
    WHERE d.tenant_id = $1 AND d.endpoint_id = $2::text::uuid AND d.position IS NOT NULL AND d.state IN ('dead_letter', 'failed')
), emptied AS (
    DELETE FROM hookseal.lanes AS l WHERE l.tenant_id = $1 AND l.endpoint_id = $2::text::uuid
)
UPDATE hookseal.deliveries AS d
SET state = 'cancelled', next_attempt_at = NULL, waiting_for = NULL, held_at = NULL, last_error = 'the endpoint was deleted'
FROM left_over
WHERE d.tenant_id = left_over.tenant_id AND d.id = left_over.id
