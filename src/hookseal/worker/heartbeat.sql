-- Writes the row of the worker, with the time of its heartbeat; returns its rank among the live workers, and how many others
-- there are.
-- name: beat
WITH beat AS (
    INSERT INTO hookseal.workers (id, version, drain_seconds, lease_seconds, key_ids, providers)
    VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (id) DO UPDATE SET beaten_at = now()
)
SELECT count(*) FILTER (WHERE w.id < $1) AS rank, count(*) AS others
FROM hookseal.workers AS w
WHERE w.id <> $1 AND w.beaten_at > now() - make_interval(secs => $7)

-- Deletes the rows of workers whose last heartbeat is more than an hour old.
-- name: forget
DELETE FROM hookseal.workers WHERE beaten_at < now() - interval '1 hour'

-- Deletes the row of a worker that stops.
-- name: leave
DELETE FROM hookseal.workers WHERE id = $1
