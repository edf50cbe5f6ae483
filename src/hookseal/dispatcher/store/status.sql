-- What an operator asks first of the whole installation, beside its counts. Each read ends at a limit. A look-up of one row has a
-- LIMIT, so that a plan for any arguments does not read a whole table in its place.

-- Whether the endpoint of `t` is not held.
-- name: is_not_held
NOT coalesce((SELECT true FROM hookseal.held_endpoints AS h
                    WHERE h.tenant_id = t.tenant_id AND h.endpoint_id = t.endpoint_id AND h.released_at IS NULL LIMIT 1), false)

-- Endpoints in trouble, of each kind of trouble those first that have been for longest; at most $1 of each. Of stopped lines and
-- failing endpoints $2 are read.
-- name: found
(SELECT h.tenant_id, h.endpoint_id, 1 AS place, h.since
     FROM unnest(ARRAY['secret', 'breaker']) AS w (waiting_for)
     CROSS JOIN LATERAL (
         SELECT h.tenant_id, h.endpoint_id, h.since
         FROM hookseal.held_endpoints AS h
         WHERE h.waiting_for = w.waiting_for AND h.released_at IS NULL
         ORDER BY h.waiting_for, h.since
         LIMIT $1) AS h)
    UNION ALL
    (SELECT t.tenant_id, t.endpoint_id, 2, t.since
     FROM (SELECT d.tenant_id, d.endpoint_id, min(d.finished_at) AS since
           FROM (SELECT d.tenant_id, d.endpoint_id, d.finished_at
                 FROM hookseal.deliveries AS d
                 WHERE d.position IS NOT NULL AND d.state IN ('dead_letter', 'failed')
                 ORDER BY d.tenant_id, d.endpoint_id
                 LIMIT $2) AS d
           GROUP BY d.tenant_id, d.endpoint_id
           ORDER BY since) AS t
     WHERE {is_not_held}
     LIMIT $1)
    UNION ALL
    (SELECT t.tenant_id, t.endpoint_id, 3, t.since
     FROM (SELECT e.tenant_id, e.id AS endpoint_id, e.first_failure_at AS since, e.enabled
           FROM hookseal.endpoints AS e
           WHERE e.first_failure_at IS NOT NULL
           ORDER BY e.first_failure_at
           LIMIT $2) AS t
     WHERE t.enabled AND {is_not_held}
     LIMIT $1)
    UNION ALL
    (SELECT l.tenant_id, l.endpoint_id, 4, l.since
     FROM hookseal.lanes AS l
     ORDER BY l.since
     LIMIT $1)

-- Returns $1 of the endpoints in trouble that are enabled, each once, with the state that every list says. Those that are only
-- crowded come last. Up to $3 of what waits for each is counted. What is held with its endpoint has waited since then, or since
-- its publish; else the three oldest deliveries of each reason are compared, because one that is tried in vain is held anew.
-- name: in_trouble
SELECT c.tenant_id, c.endpoint_id::text AS endpoint_id, c.name, c.url, c.state, s.held_for, c.since, s.held_reason AS reason,
       last.outcome AS last_outcome, last.status AS last_status, last.started_at AS last_attempt_at,
       waiting.number AS waiting, greatest(extract(epoch FROM now() - oldest.since), 0)::float8 AS oldest_seconds
FROM (SELECT e.name, e.url, f.*
      FROM (SELECT DISTINCT ON (f.tenant_id, f.endpoint_id) f.*
            FROM ({found}) AS f
            ORDER BY f.tenant_id, f.endpoint_id, f.place) AS f
      CROSS JOIN LATERAL (
          SELECT e.name, e.url FROM hookseal.endpoints AS e
          WHERE e.tenant_id = f.tenant_id AND e.id = f.endpoint_id AND e.enabled LIMIT 1) AS e
      ORDER BY f.place = 4, f.since, f.endpoint_id
      LIMIT $1) AS f
CROSS JOIN LATERAL (
    SELECT s.* FROM hookseal.endpoint_states AS s
    WHERE s.tenant_id = f.tenant_id AND s.endpoint_id = f.endpoint_id LIMIT 1) AS s
CROSS JOIN LATERAL (
    SELECT f.tenant_id, f.endpoint_id, f.name, f.url, f.place,
           CASE WHEN f.place = 4 THEN 'crowded' ELSE s.state END AS state,
           CASE WHEN f.place = 4 THEN f.since ELSE s.since END AS since) AS c
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
          LIMIT $3) AS d) AS waiting
CROSS JOIN LATERAL (
    SELECT min(CASE WHEN r.waiting_for = s.held_for THEN greatest(s.held_since, few.created_at) ELSE few.held_at END) AS since
    FROM unnest(ARRAY['secret', 'endpoint_disabled', 'breaker', 'rate', 'concurrency', 'order']) AS r (waiting_for)
    CROSS JOIN LATERAL (
        SELECT d.held_at, d.created_at
        FROM hookseal.deliveries AS d
        WHERE d.tenant_id = c.tenant_id AND d.endpoint_id = c.endpoint_id AND d.waiting_for = r.waiting_for
        ORDER BY d.tenant_id, d.endpoint_id, d.waiting_for, d.id
        LIMIT 3) AS few) AS oldest
ORDER BY c.place = 4, c.since, c.endpoint_id

-- Whether the worker `w` has drained for ten seconds more than its limit, and should have ended.
-- name: overstays
coalesce(w.draining_since < now() - make_interval(secs => w.drain_seconds + 10), false) AS overstays

-- Returns the live workers, at most $2: the last heartbeat of each is less than $1 seconds old.
-- name: workers
SELECT w.id AS worker_id, w.version, w.started_at, w.beaten_at, w.drains, {overstays},
       w.unrecorded_since IS NOT NULL AS cannot_record,
       w.requests, w.most_requests, w.bytes, w.most_bytes, w.connections, w.most_connections,
       w.batch_connections, w.most_batch_connections, coalesce(w.limited_by, '{}') AS limited_by
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

-- The time of the call that published `d`, with which its id begins. Its transaction may have begun long before, and an id that
-- another program made says nothing.
-- name: published_at
CASE WHEN substr(d.id::text, 15, 1) = '7'
                  THEN greatest(d.created_at, to_timestamp(('x' || translate(left(d.id::text, 13), '-', ''))::bit(48)::bigint / 1000.0))
                  ELSE d.created_at END

-- Returns how long the first attempts of the newest $1 deliveries took to come, of those published in the last $2 seconds: the
-- percentiles, and whether there were more; and how many of these deliveries are held and were never tried, by what holds them.
-- A delivery that something held before its first attempt is left out: then its record has no `rung_at`. So is one that is tried
-- again, of which that is not kept. One that is due and was neither tried nor held counts with the time until now, unless its
-- endpoint is held, at a limit or ordered. So does one that hookseal itself delays, whose error begins with $3: it has been due
-- before.
-- name: first_attempts
WITH newest AS MATERIALIZED (
    SELECT d.tenant_id, d.id, d.endpoint_id, {published_at} AS published_at, d.replay_of, d.attempts, d.waiting_for,
           d.state IN ('delivered', 'dead_letter', 'failed') AND d.attempts = 1 AND d.rung_at IS NOT NULL AS is_tried,
           d.state = 'pending' AND d.attempts = 0 AND d.waiting_for IS NULL
           AND (d.last_error IS NULL AND d.next_attempt_at <= now()
                OR starts_with(d.last_error, $3)) AS is_due
    FROM hookseal.deliveries AS d
    ORDER BY d.id DESC
    LIMIT $1
), recent AS MATERIALIZED (
    SELECT * FROM newest WHERE published_at > now() - make_interval(secs => $2) AND replay_of IS NULL
), free AS MATERIALIZED (
    SELECT t.tenant_id, t.endpoint_id
    FROM (SELECT DISTINCT r.tenant_id, r.endpoint_id FROM recent AS r WHERE r.is_due) AS t
    WHERE (SELECT NOT e.ordered FROM hookseal.endpoints AS e WHERE e.tenant_id = t.tenant_id AND e.id = t.endpoint_id LIMIT 1)
      AND {is_not_held}
      AND (SELECT true FROM hookseal.lanes AS l WHERE l.tenant_id = t.tenant_id AND l.endpoint_id = t.endpoint_id LIMIT 1) IS NULL
), held AS (
    SELECT coalesce(h.waiting_for, r.waiting_for::text) AS waiting_for, count(*) AS number
    FROM recent AS r
    LEFT JOIN LATERAL (
        SELECT h.waiting_for FROM hookseal.held_endpoints AS h
        WHERE h.tenant_id = r.tenant_id AND h.endpoint_id = r.endpoint_id AND h.released_at IS NULL
          AND r.waiting_for IN ('rate', 'concurrency')
        LIMIT 1) AS h ON true
    WHERE r.attempts = 0 AND r.waiting_for IS NOT NULL
    GROUP BY 1
)
SELECT count(*) AS number, (SELECT count(*) FROM recent) = $1 AS has_more,
       (SELECT coalesce(json_object_agg(h.waiting_for, h.number ORDER BY h.waiting_for), '{}') FROM held AS h)::text AS waiting_for,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY t.seconds) AS p50_seconds,
       percentile_cont(0.95) WITHIN GROUP (ORDER BY t.seconds) AS p95_seconds,
       percentile_cont(0.99) WITHIN GROUP (ORDER BY t.seconds) AS p99_seconds
FROM (SELECT greatest(extract(epoch FROM a.started_at - r.published_at), 0)::float8 AS seconds
      FROM recent AS r
      CROSS JOIN LATERAL (
          SELECT a.started_at FROM hookseal.attempts AS a
          WHERE a.tenant_id = r.tenant_id AND a.delivery_id = r.id AND a.number = 1 LIMIT 1) AS a
      WHERE r.is_tried
      UNION ALL
      SELECT greatest(extract(epoch FROM now() - r.published_at), 0)::float8
      FROM recent AS r JOIN free AS f ON f.tenant_id = r.tenant_id AND f.endpoint_id = r.endpoint_id
      WHERE r.is_due) AS t

-- Counts the endpoints whose secret is refused, up to $1.
-- name: secrets_refused
SELECT count(*)
FROM (SELECT FROM (SELECT h.tenant_id, h.endpoint_id FROM hookseal.held_endpoints AS h
                   WHERE h.waiting_for = 'secret' AND h.released_at IS NULL LIMIT $1) AS h
      CROSS JOIN LATERAL (SELECT FROM hookseal.endpoints AS e
                          WHERE e.tenant_id = h.tenant_id AND e.id = h.endpoint_id AND e.enabled LIMIT 1) AS e) AS h

-- Returns the rest: the time, who leads, how many secrets are refused or stop to sign within a day, up to $1, and since when the
-- oldest finished delivery has been kept.
-- name: rest
SELECT now() AS at, CASE WHEN c.until > now() THEN c.holder END AS leader,
       CASE WHEN c.until <= now() THEN extract(epoch FROM now() - c.until)::float8 END AS leaderless_seconds,
       ({secrets_refused}) AS secrets_refused,
       (SELECT count(*) FROM (SELECT FROM hookseal.endpoints AS e
                              WHERE e.previous_secret_ref IS NOT NULL AND e.previous_secret_expires_at > now()
                                AND e.previous_secret_expires_at < now() + interval '1 day' LIMIT $1) AS e) AS overlaps_ending,
       (SELECT min(d.finished_at) FROM hookseal.deliveries AS d WHERE d.finished_at IS NOT NULL) AS oldest_finished_at
FROM hookseal.control AS c
WHERE c.name = 'outbox'
