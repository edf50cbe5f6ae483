-- Replays deliveries. It locks the endpoint first and then the delivery, as the deletion of an endpoint does. Claims wait
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

-- The attempts of a delivery that an operator caused, with the next one: the last hundred, so that no row grows for ever.
-- name: marked
coalesce(d.manual_attempts[greatest(cardinality(d.manual_attempts) - 98, 1):], '{}') || least(d.attempts, 2147483646) + 1

-- Makes finished deliveries due now, with a new budget. If what they are for is held, they are held with it.
-- Those that are not finished any more, or whose endpoint is gone, are left as they are. In an ordered endpoint, what has
-- left the line gets a place at its end, in the order of the ids; what stops the line is due in its place.
-- name: again
WITH finished AS MATERIALIZED (
    SELECT d.tenant_id, d.id, d.endpoint_id, d.position
    FROM hookseal.deliveries AS d
    WHERE d.tenant_id = $1 AND d.id = ANY ($2::text[]::uuid[]) AND d.state NOT IN ('pending', 'sending')
    ORDER BY d.id
    FOR UPDATE
), leavers AS MATERIALIZED (
    SELECT f.tenant_id, f.endpoint_id, f.id, row_number() OVER (PARTITION BY f.endpoint_id ORDER BY f.id) AS nth
    FROM finished AS f
    WHERE f.position IS NULL
), line AS MATERIALIZED (  -- in one order, so that two transactions do not deadlock
    SELECT l.endpoint_id, hookseal.take_positions(l.tenant_id, l.endpoint_id, l.number) AS ended_with
    FROM (SELECT w.tenant_id, w.endpoint_id, count(*) AS number FROM leavers AS w
          GROUP BY w.tenant_id, w.endpoint_id
          ORDER BY w.tenant_id, w.endpoint_id
          OFFSET 0) AS l
), placed AS MATERIALIZED (
    SELECT f.tenant_id, f.id, f.endpoint_id, coalesce(f.position, line.ended_with + w.nth) AS position,
           f.position IS NULL AND line.ended_with IS NOT NULL AS is_behind
    FROM finished AS f
    LEFT JOIN leavers AS w ON w.id = f.id
    LEFT JOIN line ON line.endpoint_id = f.endpoint_id
)
UPDATE hookseal.deliveries AS d
SET state = 'pending', budget_spent = 0, next_attempt_at = now(), rung_at = NULL, position = f.position,
    waiting_for = CASE WHEN f.is_behind AND a.waiting_for IS DISTINCT FROM 'endpoint_disabled' THEN 'order'
                       ELSE a.waiting_for END,
    held_at = CASE WHEN f.is_behind OR a.waiting_for IS NOT NULL THEN now() END,
    last_error = coalesce(a.last_error, d.last_error), manual_attempts = {marked}
FROM placed AS f
JOIN hookseal.audience AS a ON a.tenant_id = f.tenant_id AND a.endpoint_id = f.endpoint_id
WHERE d.tenant_id = f.tenant_id AND d.id = f.id
RETURNING d.id::text, d.waiting_for

-- Makes deliveries that are to be tried later due now, with their budget as it is. If their endpoint is held, they are held
-- with it, but not the probe.
-- name: hasten
UPDATE hookseal.deliveries AS d
SET next_attempt_at = now(), rung_at = NULL, waiting_for = held.waiting_for,
    held_at = CASE WHEN held.waiting_for IS NOT NULL THEN now() END,
    last_error = coalesce(held.last_error, d.last_error), manual_attempts = {marked}
FROM hookseal.deliveries AS o
LEFT JOIN hookseal.audience AS held
    ON held.tenant_id = o.tenant_id AND held.endpoint_id = o.endpoint_id AND NOT EXISTS (
        SELECT FROM hookseal.held_endpoints AS h
        WHERE h.tenant_id = o.tenant_id AND h.endpoint_id = o.endpoint_id AND h.probe_id = o.id AND h.released_at IS NULL)
WHERE o.tenant_id = $1 AND o.id = ANY ($2::text[]::uuid[]) AND d.tenant_id = o.tenant_id AND d.id = o.id
RETURNING d.id::text, d.waiting_for

-- Returns the next $4 deliveries of an endpoint that wait for their next attempt, in the order of their ids. All pending ones
-- of the endpoint are read first: a plan that reads the ids in order would read the deliveries of everybody.
-- name: put_off
WITH put_off AS MATERIALIZED (
    SELECT d.id
    FROM hookseal.deliveries AS d
    WHERE d.tenant_id = $1 AND d.endpoint_id = $2::text::uuid AND d.state = 'pending' AND d.waiting_for IS NULL
      AND d.next_attempt_at > clock_timestamp() AND d.id > $3::text::uuid
)
SELECT p.id::text AS id FROM put_off AS p ORDER BY p.id LIMIT $4

-- Locks those of these deliveries of an endpoint that still wait for their next attempt and that no other transaction has
-- locked: a claim or another replay has those others.
-- name: lock_put_off
SELECT d.id::text AS id
FROM hookseal.deliveries AS d
WHERE d.tenant_id = $1 AND d.endpoint_id = $2::text::uuid AND d.id = ANY ($3::text[]::uuid[])
  AND d.state = 'pending' AND d.waiting_for IS NULL AND d.next_attempt_at > clock_timestamp()
FOR UPDATE SKIP LOCKED

-- Makes a new delivery of the same event, due now, or at the end of the line of an ordered endpoint. If its endpoint is held,
-- it is held with it.
-- name: repeat
INSERT INTO hookseal.deliveries
    (tenant_id, id, endpoint_id, event_id, replay_of, waiting_for, held_at, last_error, position, manual_attempts)
SELECT d.tenant_id, hookseal.uuid7(), d.endpoint_id, d.event_id, d.id, a.waiting_for,
       CASE WHEN a.waiting_for IS NOT NULL THEN now() END, a.last_error, CASE WHEN a.ordered THEN 0 END, '{1}'
FROM hookseal.deliveries AS d
JOIN hookseal.audience AS a ON a.tenant_id = d.tenant_id AND a.endpoint_id = d.endpoint_id
WHERE d.tenant_id = $1 AND d.id = ANY ($2::text[]::uuid[])
RETURNING id::text, waiting_for

-- Takes what was given up out of the line of its endpoint: the delivery $2, or all if it is null.
-- name: skip
UPDATE hookseal.deliveries AS d
SET position = NULL
WHERE d.tenant_id = $1 AND d.endpoint_id = $3::text::uuid AND ($2::text IS NULL OR d.id = $2::text::uuid)
  AND d.position IS NOT NULL AND d.state IN ('dead_letter', 'failed')
