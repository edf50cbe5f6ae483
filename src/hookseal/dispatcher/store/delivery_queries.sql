-- Pages of deliveries, newest first. Each reads at most $8 deliveries in the order of one index, from the id $5 down to
-- the id $9, and returns those that match every condition. An id begins with the time at which the delivery was made, by
-- which replay jobs select, too; `created_at` is the time at which the transaction of its producer began. The last delivery
-- that was read is returned even if it does not match: the next page begins there. So a page costs the same with any
-- number of deliveries, also if none matches.
--
-- The comparisons of pairs, and the order by both columns, make the planner use the index of the page. With the index
-- of all ids it would read the rows of other tenants and endpoints, and not count them.

-- The delivery of a link, `l`. `OFFSET 0` makes the planner read each by its id, in the order of the links, and stop early.
-- name: linked
(SELECT * FROM hookseal.deliveries AS i WHERE i.tenant_id = l.tenant_id AND i.id = l.id OFFSET 0)

-- What a delivery waits for, if it waits for room in its lane and its endpoint is held: the row of the delivery stays as
-- it is, since writing every row of a backlog, twice, would cost far more than this look, and would be late.
-- name: holding
hookseal.held_endpoints AS h
        WHERE h.tenant_id = w.tenant_id AND h.endpoint_id = w.endpoint_id AND h.released_at IS NULL
          AND w.waiting_for IN ('concurrency', 'rate')
        LIMIT 1

-- The columns of a page.
-- name: listed
w.tenant_id, w.id::text AS delivery_id, w.endpoint_id::text AS endpoint_id, w.event_id,
       (SELECT e.event_type FROM hookseal.events AS e WHERE e.tenant_id = w.tenant_id AND e.id = w.event_id) AS event_type,
       w.state, w.attempts, w.budget_spent, w.created_at, w.next_attempt_at,
       coalesce((SELECT h.waiting_for FROM {holding}), w.waiting_for) AS waiting_for,
       coalesce((SELECT h.reason FROM {holding}), w.last_error) AS last_error,
       w.replay_of::text AS replay_of, w.matches, w.place = $8 AS is_end

-- The conditions of a page. The event and the attempts of a delivery are read by subqueries that return one value, so
-- that the planner reads them through their primary keys: a join or an EXISTS may be hashed, and then reads those of all.
-- name: matches
($1::text IS NULL OR d.tenant_id = $1)
             AND ($2::text IS NULL OR d.endpoint_id = $2::text::uuid)
             AND ($3::text IS NULL
                  OR $3 = (SELECT e.event_type FROM hookseal.events AS e
                           WHERE e.tenant_id = d.tenant_id AND e.id = d.event_id))
             AND ($10::text IS NULL
                  OR coalesce($10 = ANY ((SELECT e.channels FROM hookseal.events AS e
                                          WHERE e.tenant_id = d.tenant_id AND e.id = d.event_id)::text[]), false))
             AND ($4::text[] IS NULL OR d.state = ANY ($4::text[]))
             AND ($7::text IS NULL
                  OR coalesce(d.state = 'sending' AND $7 = ANY (d.claimed_refs), false)
                  OR coalesce((SELECT true FROM hookseal.attempts AS a
                               WHERE a.tenant_id = d.tenant_id AND a.delivery_id = d.id AND $7 = ANY (a.signed_by)
                               LIMIT 1), false)) AS matches

-- Reads a page among all deliveries.
-- name: page_of_all
SELECT {listed}
FROM (SELECT d.*, {matches}
      FROM (SELECT r.*, row_number() OVER (ORDER BY r.id DESC) AS place
            FROM hookseal.deliveries AS r
            WHERE r.id >= $9::text::uuid AND r.id < $5::text::uuid
            ORDER BY r.id DESC
            LIMIT $8) AS d) AS w
WHERE w.matches OR w.place = $8
ORDER BY w.id DESC
LIMIT $6

-- Reads a page among the deliveries of a tenant.
-- name: page_of_tenant
SELECT {listed}
FROM (SELECT d.*, {matches}
      FROM (SELECT r.*, l.tenant_id AS link_tenant, l.id AS link_id,
                   row_number() OVER (ORDER BY l.tenant_id DESC, l.id DESC) AS place
            FROM hookseal.delivery_links AS l CROSS JOIN LATERAL {linked} AS r
            WHERE (l.tenant_id, l.id) >= ($1, $9::text::uuid) AND (l.tenant_id, l.id) < ($1, $5::text::uuid)
            ORDER BY l.tenant_id DESC, l.id DESC
            LIMIT $8) AS d) AS w
WHERE w.matches OR w.place = $8
ORDER BY w.link_tenant DESC, w.link_id DESC
LIMIT $6

-- Reads a page among the deliveries of an endpoint.
-- name: page_of_endpoint
SELECT {listed}
FROM (SELECT d.*, {matches}
      FROM (SELECT r.*, l.endpoint_id AS link_endpoint, l.id AS link_id,
                   row_number() OVER (ORDER BY l.endpoint_id DESC, l.id DESC) AS place
            FROM hookseal.delivery_links AS l CROSS JOIN LATERAL {linked} AS r
            WHERE (l.endpoint_id, l.id) >= ($2::text::uuid, $9::text::uuid)
              AND (l.endpoint_id, l.id) < ($2::text::uuid, $5::text::uuid)
            ORDER BY l.endpoint_id DESC, l.id DESC
            LIMIT $8) AS d) AS w
WHERE w.matches OR w.place = $8
ORDER BY w.link_endpoint DESC, w.link_id DESC
LIMIT $6

-- Reads a page among the deliveries in those of the states $4 in which a delivery ended undelivered. The deliveries in each
-- state come from the index of these states in the order of their ids, and are merged.
-- name: page_of_states
SELECT {listed}
FROM (SELECT d.*, {matches}
      FROM (SELECT r.*, row_number() OVER (ORDER BY r.id DESC) AS place
            FROM ((SELECT * FROM hookseal.deliveries AS s
                  WHERE s.state = 'dead_letter' AND 'dead_letter' = ANY ($4::text[])
                    AND (s.state, s.id) >= ('dead_letter', $9::text::uuid) AND (s.state, s.id) < ('dead_letter', $5::text::uuid)
                  ORDER BY s.state DESC, s.id DESC LIMIT $8)
                  UNION ALL
                  (SELECT * FROM hookseal.deliveries AS s
                  WHERE s.state = 'failed' AND 'failed' = ANY ($4::text[])
                    AND (s.state, s.id) >= ('failed', $9::text::uuid) AND (s.state, s.id) < ('failed', $5::text::uuid)
                  ORDER BY s.state DESC, s.id DESC LIMIT $8)
                  UNION ALL
                  (SELECT * FROM hookseal.deliveries AS s
                  WHERE s.state = 'cancelled' AND 'cancelled' = ANY ($4::text[])
                    AND (s.state, s.id) >= ('cancelled', $9::text::uuid) AND (s.state, s.id) < ('cancelled', $5::text::uuid)
                  ORDER BY s.state DESC, s.id DESC LIMIT $8)
                 ) AS r
            ORDER BY r.id DESC
            LIMIT $8) AS d) AS w
WHERE w.matches OR w.place = $8
ORDER BY w.id DESC
LIMIT $6

-- Reads a page among the deliveries of one event, or of the events with one correlation id.
-- name: page_of_events
SELECT {listed}
FROM (SELECT d.*, {matches}
      FROM (SELECT r.*, l.id AS link_id, row_number() OVER (ORDER BY l.id DESC) AS place
            FROM hookseal.events AS e
            JOIN hookseal.delivery_links AS l ON l.tenant_id = e.tenant_id AND l.event_id = e.id
            CROSS JOIN LATERAL {linked} AS r
            WHERE e.tenant_id = $1
              AND ($11::text IS NULL OR e.id = $11)
              AND ($12::text IS NULL OR e.correlation_id = $12)
              AND l.id >= $9::text::uuid AND l.id < $5::text::uuid
            ORDER BY l.id DESC
            LIMIT $8) AS d) AS w
WHERE w.matches OR w.place = $8
ORDER BY w.link_id DESC
LIMIT $6

-- Counts the deliveries in the states $1, which are pending and sending or one of them, up to $2. Each state has an index of
-- its own. Those of one tenant are not counted alone: their number may be small beside what would have to be read.
-- name: count_unfinished
SELECT count(*)
FROM (SELECT
      FROM hookseal.deliveries AS d
      WHERE d.state = 'pending' AND 'pending' = ANY ($1::text[])
      UNION ALL
      SELECT
      FROM hookseal.deliveries AS d
      WHERE d.state = 'sending' AND 'sending' = ANY ($1::text[])
      LIMIT $2) AS counted

-- Reads a page among the deliveries that are pending or being sent, if there are few.
-- It reads all of them, through the indexes that have only such, and sorts them.
-- name: page_of_few
SELECT {listed}
FROM (SELECT d.*, {matches}
      FROM (SELECT r.*, 0 AS place
            FROM hookseal.deliveries AS r
            WHERE r.state = 'pending' AND 'pending' = ANY ($4::text[]) AND ($1::text IS NULL OR r.tenant_id = $1)
            UNION ALL
            SELECT r.*, 0
            FROM hookseal.deliveries AS r
            WHERE r.state = 'sending' AND 'sending' = ANY ($4::text[]) AND ($1::text IS NULL OR r.tenant_id = $1)
            LIMIT $8) AS d
      WHERE d.id >= $9::text::uuid AND d.id < $5::text::uuid) AS w
WHERE w.matches
ORDER BY w.id DESC
LIMIT $6

-- Reads the newest delivery of an event to an endpoint. `OFFSET 0` makes the planner find them by the event.
-- name: latest
SELECT l.id::text
FROM (SELECT l.id FROM hookseal.delivery_links AS l
      WHERE l.tenant_id = $1 AND l.event_id = $2 AND l.endpoint_id = $3::text::uuid
      OFFSET 0) AS l
ORDER BY l.id DESC
LIMIT 1

-- Counts the newest $5 deliveries of an endpoint from the id $3 on and below $4, by their states.
-- name: count_by_state
SELECT r.state, count(*) AS deliveries
FROM (SELECT l.tenant_id, l.id
      FROM hookseal.delivery_links AS l
      WHERE (l.endpoint_id, l.id) >= ($2::text::uuid, $3::text::uuid)
        AND (l.endpoint_id, l.id) < ($2::text::uuid, $4::text::uuid) AND l.tenant_id = $1
      ORDER BY l.endpoint_id DESC, l.id DESC
      LIMIT $5) AS l
CROSS JOIN LATERAL {linked} AS r
GROUP BY r.state

-- Returns whether an endpoint with this id exists or existed: its deliveries stay when it is deleted.
-- name: has_endpoint
SELECT EXISTS (SELECT FROM hookseal.endpoints AS e
               WHERE e.id = $1::text::uuid AND ($2::text IS NULL OR e.tenant_id = $2))
    OR EXISTS (SELECT FROM hookseal.delivery_links AS l
               WHERE l.endpoint_id = $1::text::uuid AND ($2::text IS NULL OR l.tenant_id = $2))

-- Reads one delivery by its id, with each of its attempts, oldest first. It is one statement, so that both are of the
-- same moment.
-- name: show
SELECT w.tenant_id, w.id::text AS delivery_id, w.endpoint_id::text AS endpoint_id, w.event_id, e.event_type,
       w.state, w.attempts, w.budget_spent, w.created_at, w.next_attempt_at,
       coalesce((SELECT h.waiting_for FROM {holding}), w.waiting_for) AS waiting_for,
       coalesce((SELECT h.reason FROM {holding}), w.last_error) AS last_error,
       w.replay_of::text AS replay_of, e.correlation_id,
       a.number, coalesce(a.number = ANY (w.manual_attempts), false) AS manual,
       hookseal.url_at(w.tenant_id, w.endpoint_id, a.started_at) AS url,
       a.started_at, a.duration_ms, a.status, a.outcome, a.signed_by, a.worker, a.snippet
FROM hookseal.deliveries AS w
JOIN hookseal.events AS e ON e.tenant_id = w.tenant_id AND e.id = w.event_id
LEFT JOIN hookseal.attempts AS a ON a.tenant_id = w.tenant_id AND a.delivery_id = w.id
WHERE w.id = $1::text::uuid AND ($2::text IS NULL OR w.tenant_id = $2)
ORDER BY a.number

-- Reads what `why` explains: the delivery, its newest attempt, its endpoint, and whether workers run.
-- Of what is ahead of it in its line, the head is read, and how many there are, up to 10,000. What is held with its endpoint has
-- waited since then, or since its publish: a probe that fails is held anew.
-- name: why
SELECT now() AS now, d.tenant_id, d.id::text AS delivery_id, d.endpoint_id::text AS endpoint_id, d.state,
       CASE WHEN is_held.as_all THEN h.waiting_for ELSE d.waiting_for END AS waiting_for,
       CASE WHEN is_held.as_all THEN greatest(h.since, d.created_at) ELSE d.held_at END AS held_at,
       d.next_attempt_at, d.rung_at, d.finished_at, d.lease_owner, d.lease_expires_at, d.claimed_at, d.claimed_number,
       d.budget_spent, coalesce(CASE WHEN is_held.as_all THEN h.reason END, d.last_error) AS last_error,
       last.number, last.outcome, last.status, last.ended_at,
       e.enabled, e.disabled_reason, e.disabled_at, e.attempts_allowed, e.rate, h.waiting_for AS held_for, h.probe_at,
       (SELECT count(*) FROM hookseal.workers AS w WHERE w.beaten_at > now() - make_interval(secs => $2)) AS live_workers,
       EXISTS (SELECT FROM hookseal.control AS c WHERE c.name = 'outbox' AND c.until > now()) AS has_leader,
       d.position IS NOT NULL AND d.state IN ('dead_letter', 'failed') AS stops_line,
       head.id::text AS ahead, head.state AS ahead_state,
       (SELECT count(*)
        FROM (SELECT FROM hookseal.deliveries AS p
              WHERE p.tenant_id = d.tenant_id AND p.endpoint_id = d.endpoint_id AND p.position < d.position
              LIMIT 10000) AS counted) AS number_ahead
FROM hookseal.deliveries AS d
LEFT JOIN hookseal.endpoints AS e ON e.tenant_id = d.tenant_id AND e.id = d.endpoint_id
LEFT JOIN hookseal.held_endpoints AS h
    ON h.tenant_id = d.tenant_id AND h.endpoint_id = d.endpoint_id AND h.released_at IS NULL
CROSS JOIN LATERAL (SELECT d.waiting_for IN (h.waiting_for, 'concurrency', 'rate') AND h.tenant_id IS NOT NULL) AS is_held (as_all)
LEFT JOIN LATERAL (
    SELECT a.number, a.outcome, a.status,
           a.started_at + make_interval(secs => coalesce(a.duration_ms, 0) / 1000.0::float8) AS ended_at
    FROM hookseal.attempts AS a
    WHERE a.tenant_id = d.tenant_id AND a.delivery_id = d.id
    ORDER BY a.number DESC LIMIT 1) AS last ON true
LEFT JOIN LATERAL (
    SELECT p.id, p.state
    FROM hookseal.deliveries AS p
    WHERE p.tenant_id = d.tenant_id AND p.endpoint_id = d.endpoint_id AND p.position < d.position
    ORDER BY p.position, p.id LIMIT 1) AS head ON true
WHERE d.id = $1::text::uuid
