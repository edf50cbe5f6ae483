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

-- Walks the deliveries of one endpoint, newest first, $9 of them at the most, and looks at the attempts of each through
-- their key. The order by both columns leaves the planner only the endpoint's own index, and the LIMIT 1 only that look:
-- the index of all ids, and an EXISTS, which could be hashed, would read what is everybody's.
-- Where the walk ends, its last delivery is told even if it is not kept: there the next one begins.
-- name: page_signed_by
SELECT w.tenant_id, w.id::text AS delivery_id, w.endpoint_id::text AS endpoint_id, w.event_id, w.event_type,
       w.state, w.attempts, w.budget_spent, w.created_at, w.next_attempt_at, w.waiting_for, w.last_error,
       w.replay_of::text AS replay_of, w.kept, w.place = $9 AS is_end
FROM (SELECT d.*, e.event_type,
             ($3::text IS NULL OR e.event_type = $3)
             AND ($4::text IS NULL OR d.state = $4)
             AND ($5::timestamptz IS NULL OR d.created_at >= $5)
             AND (coalesce(d.state = 'sending' AND $8 = ANY (d.claimed_refs), false)
                  OR coalesce((SELECT true FROM hookseal.attempts AS a
                               WHERE a.tenant_id = d.tenant_id AND a.delivery_id = d.id AND $8 = ANY (a.signed_by)
                               LIMIT 1), false)) AS kept
      FROM (SELECT walked.*, row_number() OVER (ORDER BY walked.endpoint_id DESC, walked.id DESC) AS place
            FROM hookseal.deliveries AS walked
            WHERE walked.tenant_id = $1
              AND (walked.endpoint_id, walked.id) >= ($2::text::uuid, '00000000-0000-0000-0000-000000000000'::uuid)
              AND (walked.endpoint_id, walked.id) <
                  ($2::text::uuid, coalesce($6::text::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid))
            ORDER BY walked.endpoint_id DESC, walked.id DESC
            LIMIT $9) AS d
      JOIN hookseal.events AS e ON e.tenant_id = d.tenant_id AND e.id = d.event_id) AS w
WHERE w.kept OR w.place = $9
ORDER BY w.endpoint_id DESC, w.id DESC
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
