-- What the worker that leads measures once a sweep, over all tenants. What is due and what waits is counted up to a
-- bound, so that it costs no more the worse things stand; records and rows with plaintext are all counted, by an index.

-- name: oldest_due_seconds
SELECT coalesce(extract(epoch FROM now() - min(next_attempt_at)), 0)::float8
FROM hookseal.deliveries
WHERE state = 'pending' AND waiting_for IS NULL AND next_attempt_at <= now()

-- name: due
SELECT count(*)
FROM (SELECT
        FROM hookseal.deliveries
       WHERE state = 'pending' AND waiting_for IS NULL AND next_attempt_at <= now()
       LIMIT $1) AS due

-- name: waiting
SELECT waiting_for AS label, count(*) AS number
FROM (SELECT waiting_for FROM hookseal.deliveries WHERE waiting_for IS NOT NULL LIMIT $1) AS held
GROUP BY waiting_for

-- name: records
SELECT coalesce(k.key_id, 'unregistered') AS key_id,
       coalesce(k.state, 'unregistered') AS state,
       sum(coalesce(r.records, 0))::bigint AS number
FROM hookseal.secret_keys AS k
FULL JOIN (SELECT key_id, count(*) AS records FROM hookseal.secret_records WHERE key_id IS NOT NULL GROUP BY key_id) AS r
    USING (key_id)
GROUP BY 1, 2

-- A key leaves `active` when the next one is promoted. One of an older version may have no time but that of its row.
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

-- name: plaintext_rows
SELECT count(*) FROM hookseal.endpoints WHERE has_plaintext

-- Counted from when it comes at the earliest, as it was announced; a worker that does not even announce is late, too.
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

-- name: workers_live
SELECT count(*) FROM hookseal.workers WHERE beaten_at > now() - make_interval(secs => $1)
