-- name: page
SELECT d.tenant_id, d.id::text AS delivery_id, d.endpoint_id::text AS endpoint_id, d.event_id, e.event_type,
       d.state, d.attempts, d.budget_spent, d.created_at, d.next_attempt_at, d.waiting_for, d.last_error,
       d.replay_of::text AS replay_of
FROM hookseal.deliveries AS d
JOIN hookseal.events AS e ON e.tenant_id = d.tenant_id AND e.id = d.event_id
WHERE ($1::text IS NULL OR d.tenant_id = $1)
  AND ($2::text IS NULL OR d.endpoint_id = $2::text::uuid)
  AND ($3::text IS NULL OR e.event_type = $3)
  AND ($4::text IS NULL OR d.state = $4)
  AND ($5::timestamptz IS NULL OR d.created_at >= $5)
  AND ($6::text IS NULL OR d.id < $6::text::uuid)
ORDER BY d.id DESC
LIMIT $7

-- name: has_endpoint
SELECT EXISTS (SELECT FROM hookseal.endpoints AS e
               WHERE e.id = $1::text::uuid AND ($2::text IS NULL OR e.tenant_id = $2))
    OR EXISTS (SELECT FROM hookseal.deliveries AS d
               WHERE d.endpoint_id = $1::text::uuid AND ($2::text IS NULL OR d.tenant_id = $2))

-- name: show
SELECT d.tenant_id, d.id::text AS delivery_id, d.endpoint_id::text AS endpoint_id, d.event_id, e.event_type,
       d.state, d.attempts, d.budget_spent, d.next_attempt_at, d.waiting_for, d.last_error, d.replay_of::text AS replay_of,
       e.correlation_id
FROM hookseal.deliveries AS d
JOIN hookseal.events AS e ON e.tenant_id = d.tenant_id AND e.id = d.event_id
WHERE d.id = $1::text::uuid

-- name: attempts
SELECT number, started_at, duration_ms, status, outcome, signed_by, worker, snippet
FROM hookseal.attempts
WHERE tenant_id = $1 AND delivery_id = $2::text::uuid
ORDER BY number
