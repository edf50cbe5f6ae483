-- The metrics that the leader measures once a sweep, over all tenants, beside those that the overview has, too. Records and
-- plaintext rows are all counted, through an index. The worker runs all of these as one statement.

-- Returns for how long the oldest finished delivery has been kept beyond $1 days.
-- name: retention_lag_seconds
SELECT greatest(coalesce(extract(epoch FROM now() - make_interval(days => $1) - min(finished_at)), 0), 0)::float8
FROM hookseal.deliveries
WHERE finished_at IS NOT NULL

-- Counts the enabled endpoints that are failing.
-- name: endpoints_failing
SELECT count(*) FROM hookseal.endpoints WHERE first_failure_at IS NOT NULL AND enabled

-- Returns for how many seconds the endpoints that have failed for longest have been failing, at most $1 of them.
-- name: longest_failing
SELECT id::text AS label, greatest(extract(epoch FROM now() - first_failure_at), 0)::float8 AS number
FROM hookseal.endpoints
WHERE first_failure_at IS NOT NULL AND enabled
ORDER BY first_failure_at
LIMIT $1

-- Counts the running replay jobs.
-- name: replays_running
SELECT count(*) FROM hookseal.replays WHERE state = 'running'

-- Returns how long ago a running replay job took its last step: the one that has waited longest.
-- name: replay_idle_seconds
SELECT coalesce(extract(epoch FROM now() - min(moved_at)), 0)::float8 FROM hookseal.replays WHERE state = 'running'

-- Counts the records by the key that they are sealed under.
-- name: records
SELECT coalesce(k.key_id, 'unregistered') AS key_id,
       coalesce(k.state, 'unregistered') AS state,
       sum(coalesce(r.records, 0))::bigint AS number
FROM hookseal.secret_keys AS k
FULL JOIN (SELECT key_id, count(*) AS records FROM hookseal.secret_records WHERE key_id IS NOT NULL GROUP BY key_id) AS r
    USING (key_id)
GROUP BY 1, 2

-- Returns for how many seconds each key has been in its state.
-- A key stops being `active` when the next one is promoted. A staged key has only the time of its row.
-- name: key_ages
SELECT k.key_id,
       k.state,
       greatest(extract(epoch FROM now() - coalesce(
           CASE k.state
               WHEN 'active' THEN k.promoted_at
               WHEN 'decrypt_only' THEN (SELECT min(n.promoted_at)
                                           FROM hookseal.secret_keys AS n
                                          WHERE n.promoted_at > coalesce(k.promoted_at, k.created_at))
               WHEN 'retired' THEN k.retired_at
               WHEN 'destroyed' THEN k.destroyed_at
           END,
           k.created_at)), 0)::float8 AS number
FROM hookseal.secret_keys AS k

-- Counts the endpoints whose breaker is open.
-- name: breakers_open
SELECT count(*) FROM hookseal.held_endpoints WHERE waiting_for = 'breaker' AND released_at IS NULL

-- Returns for how many seconds the endpoints whose breakers have been open for longest have been so, at most $1 of them.
-- name: longest_open
SELECT h.tenant_id AS label_1, h.endpoint_id::text AS label_2, greatest(extract(epoch FROM now() - h.since), 0)::float8 AS number
FROM hookseal.held_endpoints AS h
WHERE h.waiting_for = 'breaker' AND h.released_at IS NULL
ORDER BY h.since, h.tenant_id, h.endpoint_id
LIMIT $1

-- Returns for how many seconds all enabled endpoints of a tenant have been held: the last of them since then. The $1 tenants
-- for which that is longest are named, the others are one row. It reads 10,000 held endpoints at most, and of each tenant as
-- many endpoints as there are before the first one that is not held.
-- name: tenants_stopped
SELECT CASE WHEN s.n <= $1 THEN s.tenant_id ELSE '_other' END AS label, max(s.seconds) AS number
FROM (SELECT h.tenant_id, greatest(extract(epoch FROM now() - max(h.since)), 0)::float8 AS seconds,
             row_number() OVER (ORDER BY max(h.since), h.tenant_id) AS n
      FROM (SELECT h.tenant_id, h.endpoint_id, h.since
            FROM hookseal.held_endpoints AS h
            WHERE h.released_at IS NULL
            LIMIT 10000) AS h
      WHERE coalesce((SELECT e.enabled FROM hookseal.endpoints AS e
                      WHERE e.tenant_id = h.tenant_id AND e.id = h.endpoint_id LIMIT 1), false)
      GROUP BY h.tenant_id
      HAVING NOT coalesce((SELECT true FROM hookseal.endpoints AS e
                           WHERE e.tenant_id = h.tenant_id AND e.enabled
                             AND NOT coalesce((SELECT true FROM hookseal.held_endpoints AS held
                                               WHERE held.tenant_id = e.tenant_id AND held.endpoint_id = e.id
                                                 AND held.released_at IS NULL
                                               LIMIT 1), false)
                           LIMIT 1), false)) AS s
GROUP BY 1

-- Counts the crowded lanes.
-- name: lanes_crowded
SELECT count(*) FROM hookseal.lanes

-- Counts the ordered endpoints that are stopped by a dead letter or a failed delivery, up to $1. The order makes the planner use
-- the index that has only such deliveries, also where many others were given up, or lines are long.
-- name: lines_stopped
SELECT count(DISTINCT (d.tenant_id, d.endpoint_id))
FROM (SELECT d.tenant_id, d.endpoint_id
      FROM hookseal.deliveries AS d
      WHERE d.position IS NOT NULL AND d.state IN ('dead_letter', 'failed')
      ORDER BY d.tenant_id, d.endpoint_id
      LIMIT $1) AS d

-- Counts the endpoints that have a plaintext secret.
-- name: plaintext_rows
SELECT count(*) FROM hookseal.endpoints WHERE has_plaintext

-- Counts the scheduled rotations that are at least an hour late.
-- The time counts from the earliest time that was announced. A rotation that was not announced is late after a day more.
-- name: rotations_overdue
SELECT count(*)
FROM (SELECT e.tenant_id, e.id, make_interval(secs => least($1::float8, e.rotate_every_days * 43200)) AS warning,
             greatest(e.secret_updated_at + make_interval(secs => e.rotate_every_days * 86400), e.previous_secret_expires_at)
             AS due_at
      FROM hookseal.endpoints AS e
      WHERE e.rotate_every_days IS NOT NULL AND e.secret_ref IS NOT NULL) AS s
CROSS JOIN LATERAL (SELECT hookseal.rotation_announced_at(s.tenant_id, s.id)) AS last (at)
CROSS JOIN LATERAL (SELECT CASE WHEN last.at >= s.due_at - s.warning THEN last.at END) AS announced (at)
WHERE s.due_at < now() - interval '1 hour'
  AND now() - interval '1 hour' > greatest(s.due_at, coalesce(announced.at, s.due_at + interval '24 hours' - s.warning) + s.warning)

-- Counts the live workers.
-- name: workers_live
SELECT count(*) FROM hookseal.workers WHERE beaten_at > now() - make_interval(secs => $1)
