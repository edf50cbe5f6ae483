-- Replay jobs. A job walks the deliveries of its tenant in the order of their ids, which is that of their creation.

-- Returns the time at which a selection ends, and the ids between which it lies: an id begins with the milliseconds at which
-- it was made, and a version after them, so that no id equals one of these.
-- name: window
SELECT w.until,
       CASE WHEN $1::timestamptz IS NULL THEN '00000000-0000-0000-0000-000000000000'
            ELSE lpad(to_hex(floor(extract(epoch FROM $1::timestamptz) * 1000)::bigint), 12, '0') || repeat('0', 20)
       END::uuid::text AS cursor,
       (lpad(to_hex(ceil(extract(epoch FROM w.until) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid::text AS end_id
FROM (SELECT least($2::timestamptz, clock_timestamp()) AS until) AS w

-- The delivery of a link, `l`. `OFFSET 0` makes the planner read each by its id, in the order of the links, and stop early.
-- name: linked
(SELECT * FROM hookseal.deliveries AS i WHERE i.tenant_id = l.tenant_id AND i.id = l.id OFFSET 0)

-- Reads at most $8 deliveries after the cursor, and decides what happens to them, up to $9 that are replayed.
-- It reads one of three: the deliveries of an event, the undelivered ones, or all. The row comparisons make the planner use the
-- index that begins with the tenant.
-- Unless delivered ones are wanted, too, it leaves out what was delivered to the same endpoint under another id since it ended.
-- `(SELECT ...)` hides the tenant from the planner: of one that came after the last ANALYZE it expects a single row, and would
-- read all links of the tenant for each delivery.
-- name: walk
WITH walked AS MATERIALIZED (
    (SELECT d.id, d.endpoint_id, d.event_id, d.state, d.finished_at
     FROM hookseal.delivery_links AS l CROSS JOIN LATERAL {linked} AS d
     WHERE $7::text IS NOT NULL AND l.tenant_id = $1 AND l.event_id = $7
       AND l.id > $2::text::uuid AND l.id < $3::text::uuid
     ORDER BY l.id
     LIMIT $8)
    UNION ALL
    (SELECT d.id, d.endpoint_id, d.event_id, d.state, d.finished_at
     FROM hookseal.deliveries AS d
     WHERE $7::text IS NULL AND 'delivered' <> ALL ($4::text[]) AND d.state IN ('dead_letter', 'failed', 'cancelled')
       AND (d.tenant_id, d.id) > ($1, $2::text::uuid) AND (d.tenant_id, d.id) < ($1, $3::text::uuid)
     ORDER BY d.tenant_id, d.id
     LIMIT $8)
    UNION ALL
    (SELECT d.id, d.endpoint_id, d.event_id, d.state, d.finished_at
     FROM hookseal.delivery_links AS l CROSS JOIN LATERAL {linked} AS d
     WHERE $7::text IS NULL AND 'delivered' = ANY ($4::text[])
       AND (l.tenant_id, l.id) > ($1, $2::text::uuid) AND (l.tenant_id, l.id) < ($1, $3::text::uuid)
     ORDER BY l.tenant_id, l.id
     LIMIT $8)
), matched AS MATERIALIZED (
    SELECT w.id, CASE WHEN a.endpoint_id IS NULL THEN 'deleted'
                      WHEN a.waiting_for = 'endpoint_disabled' THEN 'disabled'
                      ELSE 'replayed' END AS fate
    FROM walked AS w
    LEFT JOIN hookseal.audience AS a ON a.tenant_id = $1 AND a.endpoint_id = w.endpoint_id
    WHERE w.state = ANY ($4::text[]) AND ($5::text IS NULL OR w.endpoint_id = $5::text::uuid)
      AND ($6::text IS NULL
           OR (SELECT e.event_type FROM hookseal.events AS e WHERE e.tenant_id = $1 AND e.id = w.event_id) = $6)
      AND ('delivered' = ANY ($4::text[])
           OR NOT EXISTS (
               SELECT FROM hookseal.delivery_links AS l JOIN hookseal.deliveries AS copy ON copy.id = l.id
               WHERE l.tenant_id = (SELECT $1::text) AND l.event_id = w.event_id AND l.endpoint_id = w.endpoint_id
                 AND copy.state = 'delivered' AND copy.finished_at > w.finished_at))
), numbered AS MATERIALIZED (
    SELECT m.id, m.fate, count(*) FILTER (WHERE m.fate = 'replayed') OVER (ORDER BY m.id) AS nth
    FROM matched AS m
), taken AS MATERIALIZED (
    SELECT id, fate FROM numbered WHERE nth <= $9
), seen AS (
    SELECT (SELECT count(*) FROM walked) AS walked,
           (SELECT count(*) FROM numbered) > (SELECT count(*) FROM taken) AS is_cut
)
SELECT (seen.walked = $8 OR seen.is_cut) AS has_more, seen.is_cut,
       CASE WHEN seen.is_cut THEN (SELECT id::text FROM taken ORDER BY id DESC LIMIT 1)
            ELSE (SELECT id::text FROM walked ORDER BY id DESC LIMIT 1) END AS ended_with,
       ARRAY(SELECT id::text FROM taken WHERE fate = 'replayed' ORDER BY id) AS replayed,
       (SELECT count(*) FROM taken WHERE fate = 'disabled') AS disabled,
       (SELECT count(*) FROM taken WHERE fate = 'deleted') AS deleted
FROM seen

-- Stores a new job.
-- name: insert
INSERT INTO hookseal.replays
    (tenant_id, id, endpoint_id, event_type, event_id, states, since, until, cursor, end_id, rate, matched)
VALUES ($1, hookseal.uuid7(), $2::text::uuid, $3, $4, $5, $6, $7, $8::text::uuid, $9::text::uuid, $10, $11)
RETURNING *, id::text AS replay_id

-- Counts the running jobs of a tenant.
-- name: count_running
SELECT count(*) FROM hookseal.replays WHERE tenant_id = $1 AND state = 'running'

-- Reads the running jobs, the one first that has waited longest for its step, without those that are named. A step that
-- fails does not move its job, so those that fail would always be the first.
-- name: running
SELECT tenant_id, id::text AS replay_id
FROM hookseal.replays
WHERE state = 'running' AND id <> ALL ($2::text[]::uuid[])
ORDER BY moved_at
LIMIT $1

-- Locks a running job for a step, and returns how many deliveries its rate allows now. The step then waits no longer than $4
-- for a lock, such as that of the line of an ordered endpoint, which a publisher may have locked for long.
-- name: take
SELECT r.*, r.id::text AS replay_id, r.cursor::text AS place, r.end_id::text AS end,
       set_config('lock_timeout', $4, true) AS lock_timeout,
       floor(r.rate * least(greatest(extract(epoch FROM now() - r.paid_until), 0), $3))::integer AS allowance
FROM hookseal.replays AS r
WHERE r.tenant_id = $1 AND r.id = $2::text::uuid AND r.state = 'running'
FOR UPDATE SKIP LOCKED

-- Moves a job behind the deliveries of a step, and ends it if there are no more.
-- name: move
UPDATE hookseal.replays
SET cursor = coalesce($3::text::uuid, cursor), replayed = replayed + $4, disabled = disabled + $5, deleted = deleted + $6,
    paid_until = greatest(paid_until, now() - make_interval(secs => $7)) + make_interval(secs => $4::float8 / rate),
    moved_at = now(), state = CASE WHEN $8 THEN 'running' ELSE 'done' END, ended_at = CASE WHEN $8 THEN NULL ELSE now() END
WHERE tenant_id = $1 AND id = $2::text::uuid
RETURNING *, id::text AS replay_id

-- Locks a job.
-- name: lock
SELECT *, id::text AS replay_id FROM hookseal.replays WHERE id = $1::text::uuid FOR UPDATE

-- Cancels a job.
-- name: cancel
UPDATE hookseal.replays SET state = 'cancelled', ended_at = now()
WHERE tenant_id = $1 AND id = $2::text::uuid
RETURNING *, id::text AS replay_id

-- Reads a job by its id.
-- name: show
SELECT *, id::text AS replay_id FROM hookseal.replays WHERE id = $1::text::uuid

-- Reads a page of jobs, newest first.
-- name: page
SELECT *, id::text AS replay_id
FROM hookseal.replays
WHERE ($1::text IS NULL OR tenant_id = $1) AND ($2::text IS NULL OR state = $2) AND ($3::text IS NULL OR id < $3::text::uuid)
ORDER BY id DESC
LIMIT $4
