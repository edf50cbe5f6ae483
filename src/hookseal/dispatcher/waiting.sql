-- Deliveries that are held back or in flight, as an operator's change finds them. It cancels what nobody claims or rings
-- at this moment, and releases endpoints: what waits for one is let go by the worker that leads, in batches. Whether a
-- refused secret is back is seen by one delivery first: an endpoint that is refused still must not cost a claim for each.

-- name: release
INSERT INTO hookseal.held_endpoints AS h (tenant_id, endpoint_id, released_at)
SELECT $1, $2::text::uuid, now()
WHERE EXISTS (SELECT FROM hookseal.held_endpoints WHERE tenant_id = $1 AND endpoint_id = $2::text::uuid)
   OR EXISTS (SELECT FROM hookseal.deliveries
              WHERE tenant_id = $1 AND endpoint_id = $2::text::uuid AND waiting_for IS NOT NULL)
ON CONFLICT (tenant_id, endpoint_id) DO UPDATE SET released_at = now()

-- name: probe
INSERT INTO hookseal.held_endpoints AS h (tenant_id, endpoint_id)
SELECT $1, $2::text::uuid
WHERE EXISTS (SELECT FROM hookseal.held_endpoints WHERE tenant_id = $1 AND endpoint_id = $2::text::uuid)
   OR EXISTS (SELECT FROM hookseal.deliveries
              WHERE tenant_id = $1 AND endpoint_id = $2::text::uuid AND waiting_for = 'secret')
ON CONFLICT (tenant_id, endpoint_id) DO UPDATE SET probe_at = now(), step_seconds = 15 WHERE h.released_at IS NULL

-- name: probe_all
UPDATE hookseal.held_endpoints SET probe_at = now(), step_seconds = 15 WHERE released_at IS NULL

-- name: count
SELECT count(*)
FROM hookseal.deliveries AS d
WHERE d.tenant_id = $1 AND d.endpoint_id = $2::text::uuid AND d.waiting_for IS NOT NULL

-- name: count_all
SELECT count(*) FROM hookseal.deliveries AS d WHERE d.waiting_for = 'secret'

-- name: older_claims
SELECT count(*)
FROM hookseal.deliveries AS d
WHERE d.tenant_id = $1 AND d.endpoint_id = $2::text::uuid
  AND d.state = 'sending' AND d.claimed_generation < $3 AND d.lease_expires_at > now()

-- name: cancel
WITH left_over AS (
    SELECT d.tenant_id, d.id
    FROM hookseal.deliveries AS d
    WHERE d.tenant_id = $1 AND d.endpoint_id = $2::text::uuid AND d.state = 'pending'
    ORDER BY d.tenant_id, d.id
    FOR UPDATE
), forgotten AS (
    DELETE FROM hookseal.held_endpoints AS h WHERE h.tenant_id = $1 AND h.endpoint_id = $2::text::uuid
)
UPDATE hookseal.deliveries AS d
SET state = 'cancelled', next_attempt_at = NULL, waiting_for = NULL, held_at = NULL, last_error = 'the endpoint was deleted'
FROM left_over
WHERE d.tenant_id = left_over.tenant_id AND d.id = left_over.id
