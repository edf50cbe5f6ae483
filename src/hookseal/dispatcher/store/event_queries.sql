-- Reads events for an operator.

-- Reads at most $8 events of a tenant, newest first, and returns those of the type. The last event that was read is
-- returned even if it does not match: the next page begins there.
-- name: page
SELECT w.tenant_id, w.id AS event_id, w.event_type, w.occurred_at, w.correlation_id, w.traceparent,
       coalesce(w.channels, '{}') AS channels,
       w.matches, w.place = $8 AS is_end
FROM (SELECT e.*, row_number() OVER (ORDER BY e.occurred_at DESC, e.id DESC) AS place,
             ($2::text IS NULL OR e.event_type = $2) AS matches
      FROM (SELECT tenant_id, id, event_type, occurred_at, correlation_id, traceparent, channels
            FROM hookseal.events
            WHERE tenant_id = $1
              AND ($3::text IS NULL OR correlation_id = $3)
              AND ($4::timestamptz IS NULL OR occurred_at >= $4)
              AND ($5::timestamptz IS NULL OR occurred_at < $5)
              AND ($6::timestamptz IS NULL OR (occurred_at, id) < ($6, $7::text))
            ORDER BY occurred_at DESC, id DESC
            LIMIT $8) AS e) AS w
WHERE w.matches OR w.place = $8
ORDER BY w.occurred_at DESC, w.id DESC
LIMIT $9

-- Reads one event, without its body.
-- name: show
SELECT tenant_id, id AS event_id, event_type, occurred_at, correlation_id, traceparent, coalesce(channels, '{}') AS channels
FROM hookseal.events
WHERE tenant_id = $1 AND id = $2

-- Reads the oldest deliveries of an event.
-- name: deliveries
SELECT d.id::text AS delivery_id, d.endpoint_id::text AS endpoint_id, d.state, d.attempts, d.created_at, d.last_error,
       d.replay_of::text AS replay_of
FROM (SELECT l.id
      FROM hookseal.delivery_links AS l
      WHERE l.tenant_id = $1 AND l.event_id = $2
      ORDER BY l.id
      LIMIT $3) AS oldest
JOIN hookseal.deliveries AS d ON d.id = oldest.id
ORDER BY d.id

-- Reads the body of an event, as it is sent.
-- name: body
SELECT body
FROM hookseal.events
WHERE tenant_id = $1 AND id = $2
