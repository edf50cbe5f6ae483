-- One delivery again. Whoever replays it locks the delivery, then its endpoint, as a claim does.

-- name: lock
SELECT d.tenant_id, d.endpoint_id::text AS endpoint_id, d.event_id, d.state, d.attempts, d.replay_of::text AS replay_of
FROM hookseal.deliveries AS d
WHERE d.id = $1::text::uuid
FOR UPDATE

-- name: endpoint
SELECT e.enabled
FROM hookseal.endpoints AS e
WHERE e.tenant_id = $1 AND e.id = $2::text::uuid
FOR SHARE

-- name: again
UPDATE hookseal.deliveries AS d
SET state = 'pending', budget_spent = 0, next_attempt_at = now(), rung_at = NULL
WHERE d.tenant_id = $1 AND d.id = $2::text::uuid
RETURNING d.id::text

-- name: repeat
INSERT INTO hookseal.deliveries (tenant_id, id, endpoint_id, event_id, replay_of)
SELECT d.tenant_id, hookseal.uuid7(), d.endpoint_id, d.event_id, d.id
FROM hookseal.deliveries AS d
WHERE d.tenant_id = $1 AND d.id = $2::text::uuid
RETURNING id::text
