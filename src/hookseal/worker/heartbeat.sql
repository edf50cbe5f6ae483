-- Writes the row of the worker, with the time of its heartbeat; returns its rank among the live workers that do not drain,
-- and how many others of these there are. A drain has no end: an earlier heartbeat that is late does not take it back.
-- name: beat
WITH beat AS (
    INSERT INTO hookseal.workers AS own
        (id, version, drain_seconds, lease_seconds, key_ids, providers, drains, unrecorded_since, revision,
         requests, most_requests, bytes, most_bytes, connections, most_connections, batch_connections, most_batch_connections,
         limited_by, draining_since)
    VALUES ($1, $2, $3, $4, $5, $6, $7, now() - make_interval(secs => $9), $10, $11, $12, $13, $14, $15, $16, $17, $18, $19,
            CASE WHEN $7 THEN now() END)
    ON CONFLICT (id) DO UPDATE
    SET beaten_at = now(), drains = own.drains OR excluded.drains, unrecorded_since = excluded.unrecorded_since,
        requests = excluded.requests, most_requests = excluded.most_requests,
        bytes = excluded.bytes, most_bytes = excluded.most_bytes,
        connections = excluded.connections, most_connections = excluded.most_connections,
        batch_connections = excluded.batch_connections, most_batch_connections = excluded.most_batch_connections,
        limited_by = excluded.limited_by, draining_since = coalesce(own.draining_since, excluded.draining_since)
)
SELECT count(*) FILTER (WHERE w.id < $1) AS rank, count(*) AS others
FROM hookseal.workers AS w
WHERE w.id <> $1 AND NOT w.drains AND w.beaten_at > now() - make_interval(secs => $8)

-- Deletes the rows of workers whose last heartbeat is more than an hour old.
-- name: forget
DELETE FROM hookseal.workers WHERE beaten_at < now() - interval '1 hour'

-- Deletes the row of a worker that stops.
-- name: leave
DELETE FROM hookseal.workers WHERE id = $1
