-- Attempts of one endpoint or of one event, by the times at which they began.
--
-- A page of an endpoint reads at most $11 attempts in the order of one index, from the attempt $8 to $10 on, and returns those
-- that match every condition. The last one that was read is returned even if it does not match: the next page begins there. So a
-- page costs the same with any number of attempts, also if none matches.
--
-- The index has the endpoint and the time: what began at the same time is sorted, and few attempts did.

-- The delivery of an attempt, `w`, and its event. `OFFSET 0` makes the planner read each by its id, and stop early.
-- name: delivery
CROSS JOIN LATERAL (
    SELECT d.endpoint_id, d.event_id, e.event_type, coalesce(w.number = ANY (d.manual_attempts), false) AS manual
    FROM hookseal.deliveries AS d JOIN hookseal.events AS e ON e.tenant_id = d.tenant_id AND e.id = d.event_id
    WHERE d.tenant_id = w.tenant_id AND d.id = w.delivery_id
    OFFSET 0) AS d

-- The columns of an attempt.
-- name: listed
w.tenant_id, w.delivery_id || '.' || w.number AS attempt_id, w.delivery_id::text AS delivery_id,
       d.endpoint_id::text AS endpoint_id, d.event_id, d.event_type, w.number, d.manual,
       hookseal.url_at(w.tenant_id, d.endpoint_id, w.started_at) AS url,
       w.started_at, w.duration_ms, w.status, w.outcome, w.signed_by, w.worker, w.snippet

-- The conditions of a page.
-- name: matches
($4::boolean IS NULL OR (a.outcome = 'delivered') = $4)
             AND ($5::integer IS NULL OR coalesce(a.status / 100, 0) = $5)
             AND ($3::text[] IS NULL AND $13::text IS NULL
                  OR coalesce((SELECT ($3::text[] IS NULL OR e.event_type = ANY ($3)) AND ($13 IS NULL OR $13 = ANY (e.channels))
                               FROM hookseal.deliveries AS d
                               JOIN hookseal.events AS e ON e.tenant_id = d.tenant_id AND e.id = d.event_id
                               WHERE d.tenant_id = a.tenant_id AND d.id = a.delivery_id), false)) AS matches

-- The attempts of the endpoint $2 in a span of time.
-- name: of_endpoint
hookseal.attempts AS r
            WHERE r.endpoint_id = $2::text::uuid AND r.tenant_id = $1
              AND r.started_at >= $6::text::timestamptz AND r.started_at < $7::text::timestamptz

-- Reads a page of the attempts of an endpoint, newest first.
-- name: page_of_endpoint
SELECT {listed}, w.matches, w.place = $11 AS is_end
FROM (SELECT a.*, {matches}
      FROM (SELECT r.*, row_number() OVER (ORDER BY r.started_at DESC, r.delivery_id DESC, r.number DESC) AS place
            FROM {of_endpoint}
              AND (r.started_at, r.delivery_id, r.number) < ($8::text::timestamptz, $9::text::uuid, $10::integer)
            ORDER BY r.started_at DESC, r.delivery_id DESC, r.number DESC
            LIMIT $11) AS a) AS w
{delivery}
WHERE w.matches OR w.place = $11
ORDER BY w.started_at DESC, w.delivery_id DESC, w.number DESC
LIMIT $12

-- Reads a page of the attempts of an endpoint, oldest first.
-- name: page_of_endpoint_rising
SELECT {listed}, w.matches, w.place = $11 AS is_end
FROM (SELECT a.*, {matches}
      FROM (SELECT r.*, row_number() OVER (ORDER BY r.started_at, r.delivery_id, r.number) AS place
            FROM {of_endpoint}
              AND (r.started_at, r.delivery_id, r.number) > ($8::text::timestamptz, $9::text::uuid, $10::integer)
            ORDER BY r.started_at, r.delivery_id, r.number
            LIMIT $11) AS a) AS w
{delivery}
WHERE w.matches OR w.place = $11
ORDER BY w.started_at, w.delivery_id, w.number
LIMIT $12

-- Reads a page of the attempts of the event $14, to every endpoint or to $2, oldest first if $15, else newest first. It reads all
-- of them, and at most $11, to sort them: the last one of so many is returned with `is_end`.
-- name: page_of_event
SELECT {listed}, w.matches, w.place = $11 AS is_end
FROM (SELECT a.*, {matches}
      FROM (SELECT r.*, row_number() OVER () AS place
            FROM hookseal.delivery_links AS l
            CROSS JOIN LATERAL (
                SELECT * FROM hookseal.attempts AS i WHERE i.tenant_id = l.tenant_id AND i.delivery_id = l.id OFFSET 0) AS r
            WHERE l.tenant_id = $1 AND l.event_id = $14 AND ($2::text IS NULL OR l.endpoint_id = $2::text::uuid)
            LIMIT $11) AS a) AS w
{delivery}
WHERE w.place = $11
   OR w.matches AND w.started_at >= $6::text::timestamptz AND w.started_at < $7::text::timestamptz
      AND CASE WHEN $15::boolean
               THEN (w.started_at, w.delivery_id, w.number) > ($8::text::timestamptz, $9::text::uuid, $10::integer)
               ELSE (w.started_at, w.delivery_id, w.number) < ($8::text::timestamptz, $9::text::uuid, $10::integer) END
ORDER BY w.place = $11 DESC, CASE WHEN $15 THEN w.started_at END, CASE WHEN $15 THEN w.delivery_id END,
         CASE WHEN $15 THEN w.number END, w.started_at DESC, w.delivery_id DESC, w.number DESC
LIMIT $12

-- Reads the time of an attempt of the tenant, if it is one of the endpoint $4 and the event $5, as far as these are given.
-- Python cannot read every time that PostgreSQL can store.
-- name: time_of
SELECT a.started_at::text
FROM hookseal.attempts AS a
JOIN hookseal.delivery_links AS l ON l.tenant_id = a.tenant_id AND l.id = a.delivery_id
WHERE a.tenant_id = $1 AND a.delivery_id = $2::text::uuid AND a.number = $3
  AND ($4::text IS NULL OR l.endpoint_id = $4::text::uuid) AND ($5::text IS NULL OR l.event_id = $5)

-- Reads one attempt.
-- name: show
SELECT {listed}
FROM hookseal.attempts AS w
{delivery}
WHERE w.tenant_id = $1 AND w.delivery_id = $2::text::uuid AND w.number = $3
