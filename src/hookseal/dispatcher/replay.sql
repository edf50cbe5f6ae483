-- Replays deliveries. It locks the endpoint first and then the delivery, as whoever deletes an endpoint does. Claims wait
-- for no lock.

-- Returns whether the endpoint of a delivery is enabled, and locks it, so that this does not change until the transaction
-- ends.
-- name: endpoint_of
SELECT e.enabled
FROM hookseal.deliveries AS d
JOIN hookseal.endpoints AS e ON e.tenant_id = d.tenant_id AND e.id = d.endpoint_id
WHERE d.id = $1::text::uuid AND ($2::text IS NULL OR d.tenant_id = $2)
FOR SHARE OF e

-- Reads and locks the delivery, so that no other transaction claims or changes it.
-- The lock may have waited for another replay, which made it due after this transaction began: so it compares with the
-- clock, not with now().
-- name: lock
SELECT d.tenant_id, d.endpoint_id::text AS endpoint_id, d.event_id, d.state, d.attempts, d.replay_of::text AS replay_of,
       d.state = 'pending' AND d.waiting_for IS NULL AND d.next_attempt_at > clock_timestamp() AS is_put_off
FROM hookseal.deliveries AS d
WHERE d.id = $1::text::uuid
FOR UPDATE

-- Returns whether an endpoint is enabled, and locks it in the same way.
-- name: endpoint
SELECT e.enabled
FROM hookseal.endpoints AS e
WHERE e.tenant_id = $1 AND e.id = $2::text::uuid
FOR SHARE

-- Makes finished deliveries due now, with a new budget. If what they are for is held, they are held with it.
-- Those that are not finished any more, or whose endpoint is gone, are left as they are.
-- name: again
WITH finished AS (
    SELECT d.tenant_id, d.id, d.endpoint_id
    FROM hookseal.deliveries AS d
    WHERE d.tenant_id = $1 AND d.id = ANY ($2::text[]::uuid[]) AND d.state NOT IN ('pending', 'sending')
    ORDER BY d.id
    FOR UPDATE
)
UPDATE hookseal.deliveries AS d
SET state = 'pending', budget_spent = 0, next_attempt_at = now(), rung_at = NULL, waiting_for = a.waiting_for,
    held_at = CASE WHEN a.waiting_for IS NOT NULL THEN now() END, last_error = coalesce(a.last_error, d.last_error)
FROM finished AS f
JOIN hookseal.audience AS a ON a.tenant_id = f.tenant_id AND a.endpoint_id = f.endpoint_id
WHERE d.tenant_id = f.tenant_id AND d.id = f.id
RETURNING d.id::text, d.waiting_for

-- Makes a delivery that is to be tried later due now, with its budget as it is.
-- name: hasten
UPDATE hookseal.deliveries AS d
SET next_attempt_at = now(), rung_at = NULL
WHERE d.tenant_id = $1 AND d.id = ANY ($2::text[]::uuid[])
RETURNING d.id::text, d.waiting_for

-- Makes a new delivery of the same event, due now.
-- name: repeat
INSERT INTO hookseal.deliveries (tenant_id, id, endpoint_id, event_id, replay_of)
SELECT d.tenant_id, hookseal.uuid7(), d.endpoint_id, d.event_id, d.id
FROM hookseal.deliveries AS d
WHERE d.tenant_id = $1 AND d.id = ANY ($2::text[]::uuid[])
RETURNING id::text, waiting_for
