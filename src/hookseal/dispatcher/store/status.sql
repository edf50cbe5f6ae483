-- What an operator asks first of the whole installation, beside its counts. Each read ends at a limit.

-- Whether the endpoint of `t` is not held. `LIMIT 1` has it look up one after the other.
-- name: is_not_held
NOT coalesce((SELECT true FROM hookseal.held_endpoints AS h
                    WHERE h.tenant_id = t.tenant_id AND h.endpoint_id = t.endpoint_id AND h.released_at IS NULL LIMIT 1), false)

-- Endpoints in trouble, of each state those first that have been for longest; at most $1 of each. Of stopped lines and failing
-- endpoints $2 are read.
-- name: found
(SELECT h.tenant_id, h.endpoint_id, 1 AS place, 'held' AS state, h.waiting_for AS held_for, h.since, h.reason
     FROM hookseal.held_endpoints AS h
     WHERE h.released_at IS NULL
     ORDER BY h.since
     LIMIT $1)
    UNION ALL
    (SELECT t.tenant_id, t.endpoint_id, 2, 'stopped', NULL, min(t.finished_at), NULL
     FROM (SELECT d.tenant_id, d.endpoint_id, d.finished_at
           FROM hookseal.deliveries AS d
           WHERE d.position IS NOT NULL AND d.state IN ('dead_letter', 'failed')
           LIMIT $2) AS t
     WHERE {is_not_held}
     GROUP BY t.tenant_id, t.endpoint_id
     ORDER BY min(t.finished_at)
     LIMIT $1)
    UNION ALL
    (SELECT t.tenant_id, t.endpoint_id, 3, 'failing', NULL, t.first_failure_at, NULL
     FROM (SELECT e.tenant_id, e.id AS endpoint_id, e.first_failure_at, e.enabled
           FROM hookseal.endpoints AS e
           WHERE e.first_failure_at IS NOT NULL
           ORDER BY e.first_failure_at
           LIMIT $2) AS t
     WHERE t.enabled AND {is_not_held}
     LIMIT $1)
    UNION ALL
    (SELECT l.tenant_id, l.endpoint_id, 4, 'crowded', NULL, l.since, NULL
     FROM hookseal.lanes AS l
     ORDER BY l.since
     LIMIT $1)

-- Returns $1 of the endpoints in trouble that are enabled, each once, in the first state that is true. Those that are only
-- crowded come last. Up to $2 of what waits for each is counted.
-- name: in_trouble
SELECT c.tenant_id, c.endpoint_id::text AS endpoint_id, c.name, c.url, c.state, c.held_for, c.since, c.reason,
       last.outcome AS last_outcome, last.status AS last_status, last.started_at AS last_attempt_at,
       waiting.number AS waiting, extract(epoch FROM now() - oldest.held_at)::float8 AS oldest_seconds
FROM (SELECT e.name, e.url, f.*
      FROM (SELECT DISTINCT ON (f.tenant_id, f.endpoint_id) f.*
            FROM ({found}) AS f
            ORDER BY f.tenant_id, f.endpoint_id, f.place) AS f
      JOIN hookseal.endpoints AS e ON e.tenant_id = f.tenant_id AND e.id = f.endpoint_id AND e.enabled
      ORDER BY f.place = 4, f.since, f.endpoint_id
      LIMIT $1) AS c
LEFT JOIN LATERAL (
    SELECT a.outcome, a.status, a.started_at
    FROM hookseal.attempts AS a
    WHERE a.endpoint_id = c.endpoint_id
    ORDER BY a.endpoint_id DESC, a.started_at DESC
    LIMIT 1) AS last ON true
CROSS JOIN LATERAL (
    SELECT count(*) AS number
    FROM (SELECT FROM hookseal.deliveries AS d
          WHERE d.tenant_id = c.tenant_id AND d.endpoint_id = c.endpoint_id AND d.waiting_for IS NOT NULL
          ORDER BY d.tenant_id, d.endpoint_id, d.waiting_for, d.id
          LIMIT $2) AS d) AS waiting
CROSS JOIN LATERAL (
    SELECT min(few.held_at) AS held_at
    FROM unnest(ARRAY['secret', 'endpoint_disabled', 'breaker', 'rate', 'concurrency', 'order']) AS r (waiting_for)
    CROSS JOIN LATERAL (
        SELECT d.held_at
        FROM hookseal.deliveries AS d
        WHERE d.tenant_id = c.tenant_id AND d.endpoint_id = c.endpoint_id AND d.waiting_for = r.waiting_for
        ORDER BY d.tenant_id, d.endpoint_id, d.waiting_for, d.id
        LIMIT 3) AS few) AS oldest
ORDER BY c.place = 4, c.since, c.endpoint_id

-- Returns the live workers, at most $2: the last heartbeat of each is less than $1 seconds old.
-- name: workers
SELECT w.id AS worker_id, w.version, w.started_at, w.beaten_at, w.drains, w.unrecorded_since IS NOT NULL AS cannot_record,
       w.requests, w.most_requests, w.bytes, w.most_bytes, w.connections, w.most_connections
FROM hookseal.workers AS w
WHERE w.beaten_at > now() - make_interval(secs => $1)
ORDER BY w.id
LIMIT $2

-- Returns the replay jobs that run, at most $1, those first that took their last step longest ago.
-- name: replays
SELECT r.tenant_id, r.id::text AS replay_id, r.matched, r.replayed, r.started_at, r.moved_at,
       greatest(extract(epoch FROM now() - r.moved_at), 0)::float8 AS idle_seconds
FROM hookseal.replays AS r
WHERE r.state = 'running'
ORDER BY r.moved_at
LIMIT $1

-- How long the first attempts of the newest $2 deliveries took to come, of those of the last $3 seconds. An endpoint
-- that is held, at a limit or ordered holds deliveries back, so its deliveries are left out; a delivery that is due and was not
-- tried counts with the time until now.
-- name: first_attempts
SELECT count(*) AS number, percentile_cont(0.5) WITHIN GROUP (ORDER BY t.seconds) AS p50_seconds,
       percentile_cont(0.99) WITHIN GROUP (ORDER BY t.seconds) AS p99_seconds
FROM (SELECT greatest(extract(epoch FROM coalesce(a.started_at, now()) - d.created_at), 0)::float8 AS seconds
      FROM (SELECT d.tenant_id, d.id, d.endpoint_id, d.created_at, d.state, d.waiting_for, d.next_attempt_at, d.replay_of
            FROM hookseal.deliveries AS d
            ORDER BY d.id DESC
            LIMIT $2) AS d
      LEFT JOIN hookseal.attempts AS a ON a.tenant_id = d.tenant_id AND a.delivery_id = d.id AND a.number = 1
      JOIN hookseal.endpoints AS e ON e.tenant_id = d.tenant_id AND e.id = d.endpoint_id AND NOT e.ordered
      WHERE d.created_at > now() - make_interval(secs => $3) AND d.replay_of IS NULL
        AND (a.started_at IS NOT NULL OR d.state = 'pending' AND d.waiting_for IS NULL AND d.next_attempt_at <= now())
        AND NOT EXISTS (SELECT FROM hookseal.held_endpoints AS h
                        WHERE h.tenant_id = d.tenant_id AND h.endpoint_id = d.endpoint_id)
        AND NOT EXISTS (SELECT FROM hookseal.lanes AS l
                        WHERE l.tenant_id = d.tenant_id AND l.endpoint_id = d.endpoint_id)) AS t

-- Returns the rest: the time, who leads, how many secrets are refused or stop to sign within a day, up to $1, since when the
-- oldest finished delivery has been kept, and the time to first attempts.
-- name: rest
SELECT now() AS at, CASE WHEN c.until > now() THEN c.holder END AS leader,
       CASE WHEN c.until <= now() THEN extract(epoch FROM now() - c.until)::float8 END AS leaderless_seconds,
       (SELECT count(*) FROM (SELECT FROM hookseal.held_endpoints AS h
                              JOIN hookseal.endpoints AS e ON e.tenant_id = h.tenant_id AND e.id = h.endpoint_id AND e.enabled
                              WHERE h.released_at IS NULL AND h.waiting_for = 'secret' LIMIT $1) AS h) AS secrets_refused,
       (SELECT count(*) FROM (SELECT FROM hookseal.endpoints AS e
                              WHERE e.previous_secret_ref IS NOT NULL AND e.previous_secret_expires_at > now()
                                AND e.previous_secret_expires_at < now() + interval '1 day' LIMIT $1) AS e) AS overlaps_ending,
       (SELECT min(d.finished_at) FROM hookseal.deliveries AS d WHERE d.finished_at IS NOT NULL) AS oldest_finished_at,
       t.number, t.p50_seconds, t.p99_seconds
FROM hookseal.control AS c
CROSS JOIN ({first_attempts}) AS t
WHERE c.name = 'outbox'
