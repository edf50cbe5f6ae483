-- Counts over the whole installation. Each count ends at $1 rows, and reads them from an index that has only such.

-- Returns for how long the oldest delivery has been due. What was rung and what was not is in an index each.
-- name: oldest_due_seconds
SELECT greatest(coalesce(extract(epoch FROM now() - least(
    (SELECT min(next_attempt_at) FROM hookseal.deliveries
     WHERE next_attempt_at IS NOT NULL AND waiting_for IS NULL AND rung_at IS NULL),
    (SELECT min(next_attempt_at) FROM hookseal.deliveries
     WHERE next_attempt_at IS NOT NULL AND waiting_for IS NULL AND rung_at IS NOT NULL))), 0), 0)::float8

-- Counts the due deliveries, up to a limit.
-- name: due
SELECT count(*)
FROM (SELECT FROM (
          (SELECT FROM hookseal.deliveries
           WHERE next_attempt_at IS NOT NULL AND waiting_for IS NULL AND rung_at IS NULL AND next_attempt_at <= now()
           ORDER BY next_attempt_at LIMIT $1)
          UNION ALL
          (SELECT FROM hookseal.deliveries
           WHERE next_attempt_at IS NOT NULL AND waiting_for IS NULL AND rung_at IS NOT NULL AND next_attempt_at <= now()
           ORDER BY next_attempt_at LIMIT $1)) AS either
      LIMIT $1) AS due

-- Counts the deliveries that wait for their next attempt, whose time has not come, up to a limit.
-- name: not_due
SELECT count(*)
FROM (SELECT FROM (
          (SELECT FROM hookseal.deliveries
           WHERE next_attempt_at IS NOT NULL AND waiting_for IS NULL AND rung_at IS NULL AND next_attempt_at > now()
           ORDER BY next_attempt_at LIMIT $1)
          UNION ALL
          (SELECT FROM hookseal.deliveries
           WHERE next_attempt_at IS NOT NULL AND waiting_for IS NULL AND rung_at IS NOT NULL AND next_attempt_at > now()
           ORDER BY next_attempt_at LIMIT $1)) AS either
      LIMIT $1) AS not_due

-- Counts the held deliveries by reason. Each reason has its own limit, so that a frequent one hides no other. The order
-- makes the planner use the index, in which it reads no row of another reason. What waits for room in the lane of a held endpoint
-- waits for what holds the endpoint: it is counted there, of the 1,000 lanes that have been for longest.
-- name: waiting
SELECT w.waiting_for AS label, greatest(least(w.number - coalesce(sum(m.number) FILTER (WHERE m.waiting_for = w.waiting_for), 0)
                                              + coalesce(sum(m.number) FILTER (WHERE m.held_for = w.waiting_for), 0), $1), 0)::bigint
       AS number
FROM (SELECT r.waiting_for, few.number
      FROM unnest(ARRAY['secret', 'endpoint_disabled', 'breaker', 'rate', 'concurrency', 'order']) AS r (waiting_for)
      CROSS JOIN LATERAL (SELECT count(*) AS number
                          FROM (SELECT FROM hookseal.deliveries AS d
                                WHERE d.waiting_for = r.waiting_for
                                ORDER BY d.waiting_for, d.held_at, d.id
                                LIMIT $1) AS d) AS few) AS w
LEFT JOIN (SELECT r.waiting_for, h.waiting_for AS held_for, sum(few.number)::bigint AS number
           FROM (SELECT l.tenant_id, l.endpoint_id FROM hookseal.lanes AS l ORDER BY l.since LIMIT least($1, 1000)) AS l
           CROSS JOIN LATERAL (SELECT h.waiting_for FROM hookseal.held_endpoints AS h
                               WHERE h.tenant_id = l.tenant_id AND h.endpoint_id = l.endpoint_id AND h.released_at IS NULL
                               LIMIT 1) AS h
           CROSS JOIN unnest(ARRAY['rate', 'concurrency']) AS r (waiting_for)
           CROSS JOIN LATERAL (SELECT count(*) AS number
                               FROM (SELECT FROM hookseal.deliveries AS d
                                     WHERE d.tenant_id = l.tenant_id AND d.endpoint_id = l.endpoint_id
                                       AND d.waiting_for = r.waiting_for
                                     ORDER BY d.tenant_id, d.endpoint_id, d.waiting_for, d.id
                                     LIMIT $1) AS d) AS few
           GROUP BY r.waiting_for, h.waiting_for) AS m ON w.waiting_for IN (m.waiting_for, m.held_for)
GROUP BY w.waiting_for, w.number

-- Returns for how many seconds the delivery that was held first has waited, for each reason. What waits for room in the lane of
-- a held endpoint waits for what holds that endpoint. Of each lane, in $1 lanes at most, the three oldest deliveries are
-- compared, because one that is tried in vain is held anew. The same number of held endpoints of each reason is looked at. So that of an endpoint which is held for a secret or a breaker has
-- waited since then, or since it was published.
-- name: oldest_waiting
SELECT held.waiting_for AS label, greatest(extract(epoch FROM now() - min(held.held_at)), 0)::float8 AS number
FROM ((SELECT w.waiting_for, oldest.held_at
       FROM unnest(ARRAY['secret', 'endpoint_disabled', 'breaker', 'order']) AS w (waiting_for)
       CROSS JOIN LATERAL (SELECT d.held_at::timestamptz AS held_at FROM hookseal.deliveries AS d
                           WHERE d.waiting_for = w.waiting_for
                           ORDER BY d.waiting_for, d.held_at, d.id
                           LIMIT 1) AS oldest)
      UNION ALL
      (SELECT h.waiting_for, greatest(h.since, oldest.created_at)
       FROM unnest(ARRAY['secret', 'breaker']) AS w (waiting_for)
       CROSS JOIN LATERAL (
           SELECT h.tenant_id, h.endpoint_id, h.waiting_for, h.since FROM hookseal.held_endpoints AS h
           WHERE h.waiting_for = w.waiting_for AND h.released_at IS NULL ORDER BY h.waiting_for, h.since LIMIT $1) AS h
       CROSS JOIN LATERAL (
           SELECT d.created_at FROM hookseal.deliveries AS d
           WHERE d.tenant_id = h.tenant_id AND d.endpoint_id = h.endpoint_id AND d.waiting_for = h.waiting_for
           ORDER BY d.tenant_id, d.endpoint_id, d.waiting_for, d.id
           LIMIT 1) AS oldest)
      UNION ALL
      (SELECT coalesce(h.waiting_for, r.waiting_for), oldest.held_at
       FROM (SELECT l.tenant_id, l.endpoint_id FROM hookseal.lanes AS l ORDER BY l.since LIMIT $1) AS l
       LEFT JOIN hookseal.held_endpoints AS h
           ON h.tenant_id = l.tenant_id AND h.endpoint_id = l.endpoint_id AND h.released_at IS NULL
       CROSS JOIN unnest(ARRAY['rate', 'concurrency']) AS r (waiting_for)
       CROSS JOIN LATERAL (SELECT d.held_at::timestamptz AS held_at FROM hookseal.deliveries AS d
                           WHERE d.tenant_id = l.tenant_id AND d.endpoint_id = l.endpoint_id AND d.waiting_for = r.waiting_for
                           ORDER BY d.tenant_id, d.endpoint_id, d.waiting_for, d.id
                           LIMIT 3) AS oldest)) AS held
GROUP BY held.waiting_for
ORDER BY number DESC, label

-- Counts the master keys that are not destroyed, by state.
-- name: keys
SELECT k.state AS label, count(*) AS number
FROM hookseal.secret_keys AS k
WHERE k.state <> 'destroyed'
GROUP BY k.state
ORDER BY k.state

-- What ended without being delivered has an index by state and id. Each count compares pairs: if it named one state, the planner
-- could take the order of the ids from the primary key, and would read what was delivered.
-- name: undelivered
d.state IN ('dead_letter', 'failed', 'cancelled')

-- Counts the rest. What is pending is what is due, waits for its time, or is held: so these are of one moment. Of the dead letters
-- the newest 1,000 are looked at for those of a day.
-- name: overview
WITH free AS MATERIALIZED (
    SELECT ({due}) AS due, ({not_due}) AS not_due
), held AS MATERIALIZED (
    SELECT least(sum(w.number), $1)::bigint AS waiting,
           coalesce(json_object_agg(w.label, w.number) FILTER (WHERE w.number > 0), '{}')::text AS waiting_for
    FROM ({waiting}) AS w
)
SELECT (SELECT count(*) FROM (SELECT FROM hookseal.tenants AS t WHERE t.deleted_at IS NULL LIMIT $1) AS c) AS tenants,
       (SELECT count(*) FROM (SELECT FROM hookseal.endpoints AS e LIMIT $1) AS c) AS endpoints,
       (SELECT count(*) FROM (SELECT FROM hookseal.endpoints AS e WHERE NOT e.enabled ORDER BY e.tenant_id, e.id LIMIT $1) AS c) AS disabled_endpoints,
       (SELECT count(*) FROM (SELECT FROM hookseal.endpoints AS e WHERE e.first_failure_at IS NOT NULL ORDER BY e.first_failure_at LIMIT $1) AS c)
           AS failing_endpoints,
       (SELECT count(*) FROM (SELECT FROM hookseal.held_endpoints AS h WHERE h.released_at IS NULL ORDER BY h.waiting_for, h.since LIMIT $1) AS c)
           AS held_endpoints,
       (SELECT count(DISTINCT (c.tenant_id, c.endpoint_id))
        FROM (SELECT d.tenant_id, d.endpoint_id FROM hookseal.deliveries AS d
              WHERE d.position IS NOT NULL AND d.state IN ('dead_letter', 'failed')
              ORDER BY d.tenant_id, d.endpoint_id LIMIT $1) AS c) AS stopped_endpoints,
       least(free.due + free.not_due + held.waiting, $1)::bigint AS pending, free.due, free.not_due,
       ({oldest_due_seconds}) AS oldest_due_seconds, held.waiting, held.waiting_for,
       (SELECT count(*) FROM (SELECT FROM hookseal.deliveries AS d WHERE d.state = 'sending' LIMIT $1) AS c) AS sending,
       (SELECT count(*) FROM (SELECT FROM hookseal.deliveries AS d
                              WHERE {undelivered}
                                AND (d.state, d.id) >= ('dead_letter', '00000000-0000-0000-0000-000000000000'::uuid)
                                AND (d.state, d.id) <= ('dead_letter', 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
                              ORDER BY d.state, d.id LIMIT $1) AS c) AS dead_letters,
       (SELECT count(*) FROM (SELECT d.finished_at FROM hookseal.deliveries AS d
                              WHERE {undelivered}
                                AND (d.state, d.id) >= ('dead_letter', '00000000-0000-0000-0000-000000000000'::uuid)
                                AND (d.state, d.id) <= ('dead_letter', 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
                              ORDER BY d.state DESC, d.id DESC LIMIT least($1, 1000)) AS c
        WHERE c.finished_at > now() - interval '1 day') AS dead_letters_of_day,
       (SELECT count(*) FROM (SELECT FROM hookseal.deliveries AS d
                              WHERE {undelivered}
                                AND (d.state, d.id) >= ('failed', '00000000-0000-0000-0000-000000000000'::uuid)
                                AND (d.state, d.id) <= ('failed', 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
                              ORDER BY d.state, d.id LIMIT $1) AS c) AS failed,
       (SELECT count(*) FROM (SELECT FROM hookseal.replays AS r WHERE r.state = 'running' LIMIT $1) AS c) AS running_replays,
       (SELECT count(*) FROM (SELECT e.secret_updated_at + make_interval(secs => e.rotate_every_days * 86400) AS due_at
                              FROM hookseal.endpoints AS e
                              WHERE e.rotate_every_days IS NOT NULL AND e.secret_updated_at < now() - interval '1 day'
                              ORDER BY e.secret_updated_at LIMIT $1) AS c
        WHERE c.due_at < now()) AS rotations_due,
       (SELECT count(*) FROM hookseal.workers AS w WHERE w.beaten_at > now() - make_interval(secs => $2)) AS live_workers,
       $1::bigint AS most
FROM free CROSS JOIN held
