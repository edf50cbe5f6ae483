-- Reads events for an operator.

-- Pages of the events of a tenant, by the time of their publish. Each reads at most $9 events from the event $7, $8 on, and returns
-- those that match. The last event that was read is returned even if it does not match: the next page begins there.

-- The columns of a page.
-- name: listed
w.tenant_id, w.id AS event_id, w.event_type, w.occurred_at, w.correlation_id, w.traceparent,
       coalesce(w.channels, '{}') AS channels,
       w.matches, w.place = $9 AS is_end

-- The conditions that no index finds.
-- name: matches
($2::text[] IS NULL OR e.event_type = ANY ($2)) AND ($3::text IS NULL OR coalesce($3 = ANY (e.channels), false)) AS matches

-- Those that an index finds.
-- name: of_tenant
SELECT tenant_id, id, event_type, occurred_at, correlation_id, traceparent, channels
            FROM hookseal.events
            WHERE tenant_id = $1
              AND ($4::text IS NULL OR correlation_id = $4)
              AND occurred_at >= $5::text::timestamptz AND occurred_at < $6::text::timestamptz

-- Reads a page, newest first.
-- name: page
SELECT {listed}
FROM (SELECT e.*, row_number() OVER (ORDER BY e.occurred_at DESC, e.id DESC) AS place, {matches}
      FROM ({of_tenant}
              AND (occurred_at, id) < ($7::text::timestamptz, $8::text)
            ORDER BY occurred_at DESC, id DESC
            LIMIT $9) AS e) AS w
WHERE w.matches OR w.place = $9
ORDER BY w.occurred_at DESC, w.id DESC
LIMIT $10

-- Reads a page, oldest first.
-- name: page_rising
SELECT {listed}
FROM (SELECT e.*, row_number() OVER (ORDER BY e.occurred_at, e.id) AS place, {matches}
      FROM ({of_tenant}
              AND (occurred_at, id) > ($7::text::timestamptz, $8::text)
            ORDER BY occurred_at, id
            LIMIT $9) AS e) AS w
WHERE w.matches OR w.place = $9
ORDER BY w.occurred_at, w.id
LIMIT $10

-- Reads the time of an event. Python cannot read every time that PostgreSQL can store.
-- name: time_of
SELECT occurred_at::text
FROM hookseal.events
WHERE tenant_id = $1 AND id = $2

-- Reads one event, without its body.
-- name: show
SELECT tenant_id, id AS event_id, event_type, occurred_at, correlation_id, traceparent, coalesce(channels, '{}') AS channels
FROM hookseal.events
WHERE tenant_id = $1 AND id = $2

-- Reads some events of a tenant, without their bodies.
-- name: some
SELECT tenant_id, id AS event_id, event_type, occurred_at, correlation_id, traceparent, coalesce(channels, '{}') AS channels
FROM hookseal.events
WHERE tenant_id = $1 AND id = ANY ($2::text[])

-- What a list shows of an event: no role may read every column.
-- name: shown
e.tenant_id, e.id, e.event_type, e.occurred_at, e.correlation_id, e.traceparent, e.channels

-- Reads at most $3 events with the id $1, and as many with the correlation id $1, of $2 tenants that have had an endpoint.
-- `OFFSET 0` makes the planner look for them in the index, tenant by tenant.
-- name: everywhere
SELECT e.tenant_id, e.id AS event_id, e.event_type, e.occurred_at, e.correlation_id, e.traceparent,
       coalesce(e.channels, '{}') AS channels
FROM ((SELECT i.* FROM (SELECT t.tenant_id FROM hookseal.tenants AS t LIMIT $2) AS t
       CROSS JOIN LATERAL (SELECT {shown} FROM hookseal.events AS e
                           WHERE e.tenant_id = t.tenant_id AND e.id = $1 OFFSET 0) AS i
       LIMIT $3)
      UNION ALL
      (SELECT c.* FROM (SELECT t.tenant_id FROM hookseal.tenants AS t LIMIT $2) AS t
       CROSS JOIN LATERAL (SELECT {shown} FROM hookseal.events AS e
                           WHERE e.tenant_id = t.tenant_id AND e.correlation_id = $1 AND e.id <> $1 LIMIT $3) AS c
       LIMIT $3)) AS e
ORDER BY e.occurred_at DESC, e.tenant_id, e.id

-- Counts the tenants, up to $1.
-- name: count_tenants
SELECT count(*) FROM (SELECT FROM hookseal.tenants AS t LIMIT $1) AS c

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

-- Reads the bodies of several events, from the first on, as long as they have at most $3 bytes in all; that of the first one
-- always. Their sizes are known without reading a body that is stored apart.
-- name: bodies
SELECT b.id, b.body
FROM (SELECT e.id, e.body, g.place,
             sum(octet_length(e.body)) OVER (ORDER BY g.place) AS size, row_number() OVER (ORDER BY g.place) AS number
      FROM unnest($2::text[]) WITH ORDINALITY AS g (id, place)
      JOIN hookseal.events AS e ON e.tenant_id = $1 AND e.id = g.id) AS b
WHERE b.size <= $3 OR b.number = 1
ORDER BY b.place
