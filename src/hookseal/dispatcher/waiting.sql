-- Deliveries that are held back or in flight, as an operator's change finds them. It waits for whoever claims or rings
-- one, which is one statement; neither of them waits while it holds a row, so nobody waits in a circle.

-- name: wake
WITH held AS (
    SELECT d.tenant_id, d.id
    FROM hookseal.deliveries AS d
    WHERE d.tenant_id = $1 AND d.endpoint_id = $2::text::uuid AND d.waiting_for IS NOT NULL AND d.state = 'pending'
    ORDER BY d.tenant_id, d.id
    FOR UPDATE
)
UPDATE hookseal.deliveries AS d
SET next_attempt_at = now(), rung_at = NULL
FROM held
WHERE d.tenant_id = held.tenant_id AND d.id = held.id

-- name: wake_all
WITH held AS (
    SELECT d.tenant_id, d.id
    FROM hookseal.deliveries AS d
    WHERE d.waiting_for = 'secret' AND d.state = 'pending'
    ORDER BY d.tenant_id, d.id
    FOR UPDATE
)
UPDATE hookseal.deliveries AS d
SET next_attempt_at = now(), rung_at = NULL
FROM held
WHERE d.tenant_id = held.tenant_id AND d.id = held.id

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
)
UPDATE hookseal.deliveries AS d
SET state = 'cancelled', next_attempt_at = NULL, waiting_for = NULL, last_error = 'the endpoint was deleted'
FROM left_over
WHERE d.tenant_id = left_over.tenant_id AND d.id = left_over.id
