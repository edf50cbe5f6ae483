-- Claims a batch of deliveries, or records a batch of outcomes, in one statement.
-- A column of words is passed as the lines of one text, which takes the worker a third of the time of an array. No word
-- is empty.

-- Whether a delivery is in no line, or is the head of its line.
-- name: is_in_turn
(d.position IS NULL
       OR (d.id, d.position) = (SELECT h.id, h.position FROM hookseal.deliveries AS h
                                WHERE h.tenant_id = d.tenant_id AND h.endpoint_id = d.endpoint_id AND h.position IS NOT NULL
                                ORDER BY h.position, h.id
                                LIMIT 1))

-- Whether a delivery is the one that a ring names, and may begin: it is due, and waits for nothing. One that waits in its lane
-- may begin if a worker has taken it from there (`is_parked`), or if it waits for no more than room: a worker handles a ring
-- only while the lane has room. (The outbox also parks deliveries whose rings are in Redis.)
-- `IS NOT DISTINCT FROM`, here and beside every other comparison of ids, and `CASE` make the planner find a delivery by its
-- id, instead of reading the backlog of its tenant or endpoint, or everything that is due: a plan that was made before there
-- were statistics would do that.
-- name: may_begin
d.endpoint_id IS NOT DISTINCT FROM a.endpoint_id
      AND CASE WHEN d.state = 'pending'
                AND (d.waiting_for IS NULL OR a.is_parked
                     OR d.waiting_for = 'concurrency'
                        AND NOT EXISTS (SELECT FROM hookseal.held_endpoints AS h
                                        WHERE h.tenant_id = d.tenant_id AND h.endpoint_id = d.endpoint_id
                                          AND h.released_at IS NULL))
               THEN d.next_attempt_at <= now() END

-- What a claim writes: the lease, and what it read of the endpoint, which is `s`. `claimed_at` is a time at which the endpoint is
-- locked: by it the attempt finds the url that was read (0002_endpoints.sql). `now()` may be before a change that was read.
-- name: lease
state = 'sending', next_attempt_at = NULL, rung_at = coalesce(d.rung_at, now()), waiting_for = NULL, held_at = NULL,
        lease_owner = $5, lease_token = coalesce((SELECT $7::text::uuid), gen_random_uuid()),
        lease_expires_at = now() + make_interval(secs => $6),
        claimed_number = least(d.attempts, 2147483646) + 1, claimed_at = clock_timestamp(),
        claimed_refs = coalesce(s.refs, '{}'), claimed_generation = s.generation

-- Whether a delivery that was never attempted has been held: then it has an error, or its line has moved to it since, or the
-- breaker of its endpoint has closed while it waited for room. An error that begins with $9 is a delay of hookseal itself, which
-- holds nothing. Whether hookseal delayed what was before it in its line is not known any more: the head has left the line, and
-- its error is that of its attempt.
-- name: was_held
(coalesce(NOT starts_with(d.last_error, $9::text),
                 d.position IS NOT NULL AND d.next_attempt_at > d.created_at)
        OR d.waiting_for IS NOT NULL
           AND EXISTS (SELECT FROM hookseal.lanes AS l
                       WHERE l.tenant_id = d.tenant_id AND l.endpoint_id = d.endpoint_id AND l.reopened_at > d.created_at)) AS was_held

-- What a claim returns of a delivery and its event, which are `c` and `v`. Python cannot read every year that a role with the
-- right to write may put into `created_at`.
-- name: delivery_read
v.id AS event_id, v.event_type, v.correlation_id, v.traceparent, v.tracestate, v.body, c.claimed_number, c.budget_spent,
       least(greatest(c.created_at, '2000-01-01Z'), '9000-01-01Z') AS created_at, c.claimed_at, c.lease_token::text AS lease_token,
       c.was_held

-- What a claim returns of an endpoint, which is `e`, and of the database.
-- name: endpoint_read
e.enabled, e.is_failing, e.timeout_ms,
       e.attempts_allowed, e.backoff_base_seconds, e.backoff_cap_seconds, e.retry_schedule::text[] AS retry_schedule,
       e.concurrency, e.rate, e.ordered,
       {pointer_columns}, e.previous_due, {pointer_epochs},
       coalesce((SELECT (tableoid::bigint << 31) + extract(epoch FROM pg_postmaster_start_time())::bigint
                 FROM hookseal.control WHERE name = 'restore'), 0) AS database,
       e.audited_generation

-- What a claim reads in the row of an endpoint, which is `e`.
-- name: endpoint_row
e.tenant_id, e.id, e.enabled, e.first_failure_at IS NOT NULL AS is_failing, e.timeout_ms, e.attempts_allowed,
           e.backoff_base_seconds, e.backoff_cap_seconds, e.retry_schedule, e.concurrency, e.rate, e.ordered,
           {pointer_columns}, {pointer_standing},
           array_remove(ARRAY[e.secret_ref, CASE WHEN {is_previous_due} THEN e.previous_secret_ref END], NULL) AS refs

-- Claims the due deliveries of these rings, each with its event and the endpoint's row.
-- It waits for no lock: it leaves out a delivery if another transaction has locked it or its endpoint. It also leaves out
-- deliveries that do not fit into $8 bytes of bodies, counted in the order of the rings.
-- A delivery in the line of an ordered endpoint is claimed only if it is the head. The comparison with the position that the
-- snapshot has makes this true even if the row has changed since: a delivery that has moved to the end is left out.
-- It also returns the due deliveries that it did not claim, and why: they are behind others in the line of an ordered endpoint
-- ('order'), another transaction has locked their endpoint ('endpoint') or them, or they did not fit ('delivery').
-- The columns of an endpoint are in the row of its first delivery only. That one is claimed if any of them is, since the sum of
-- the bodies only grows.
-- `(SELECT ...)` hides the number of rings from the planner: a plan for a few known rings looks cheaper than one for any number,
-- so PostgreSQL would make a new plan for each such claim, which takes longer than the claim.
-- `FULL JOIN` finds the endpoint of each delivery by a hash. The planner expects one row, and would go through all endpoints for
-- each delivery if it may: of 125 deliveries to as many endpoints, that took half of the time of the claim. An inner join with
-- the events in the same step would let it: PostgreSQL then makes a `LEFT JOIN` of the `FULL JOIN`.
-- The last step reads each event again, by its place in the table (`ctid`), which is the same for the whole statement. So the
-- bodies are copied once, to sort and sum up their sizes, and not from step to step.
-- name: claim_all
WITH asked AS MATERIALIZED (
    SELECT a.tenant_id, a.endpoint_id, a.id, a.is_parked, a.n
    FROM unnest(string_to_array((SELECT $1::text), E'\n', ''), string_to_array((SELECT $2::text), E'\n', '')::uuid[],
                string_to_array((SELECT $3::text), E'\n', '')::uuid[], string_to_array((SELECT $4::text), E'\n', '')::boolean[])
         WITH ORDINALITY AS a (tenant_id, endpoint_id, id, is_parked, n)
), due AS MATERIALIZED (
    SELECT d.tenant_id, d.id, d.endpoint_id, d.event_id, a.n, {was_held}
    FROM asked AS a JOIN hookseal.deliveries AS d ON d.id = a.id AND d.tenant_id IS NOT DISTINCT FROM a.tenant_id
    WHERE {may_begin}
      AND {is_in_turn}
    FOR UPDATE OF d SKIP LOCKED
), endpoint_id AS MATERIALIZED (
    SELECT tenant_id, endpoint_id, min(n) AS first FROM due GROUP BY tenant_id, endpoint_id
), endpoint AS MATERIALIZED (
    SELECT w.first, {endpoint_row}, h.waiting_for AS held_for, h.probe_id
    FROM endpoint_id AS w
    JOIN hookseal.endpoints AS e ON e.id = w.endpoint_id AND e.tenant_id IS NOT DISTINCT FROM w.tenant_id
    LEFT JOIN hookseal.held_endpoints AS h
        ON h.tenant_id = w.tenant_id AND h.endpoint_id = w.endpoint_id AND h.released_at IS NULL
    FOR KEY SHARE OF e SKIP LOCKED
), gone AS MATERIALIZED (
    SELECT w.tenant_id, w.endpoint_id,
           coalesce(
               (SELECT l.action FROM hookseal.audit_log AS l
                WHERE l.tenant_id = w.tenant_id AND l.subject = 'endpoint:' || w.endpoint_id
                  AND l.action <> 'stale.found'
                ORDER BY l.sequence DESC LIMIT 1) <> 'endpoint.deleted', false) AS endpoint_lost
    FROM endpoint_id AS w
    WHERE NOT EXISTS (SELECT FROM hookseal.endpoints AS e WHERE e.id = w.endpoint_id AND e.tenant_id IS NOT DISTINCT FROM w.tenant_id)
), sized AS MATERIALIZED (
    SELECT due.tenant_id, due.id, due.n, due.was_held, e.refs, e.generation, e.id IS NOT NULL AS endpoint_found,
           CASE WHEN e.held_for IS NOT NULL THEN e.probe_id IS NOT DISTINCT FROM due.id END AS is_probe, e.held_for,
           coalesce(g.endpoint_lost, false) AS endpoint_lost,
           v.ctid AS event_ctid, sum(octet_length(v.body)) OVER (ORDER BY due.n) AS bytes
    FROM due FULL JOIN endpoint AS e ON e.tenant_id = due.tenant_id AND e.id = due.endpoint_id
    LEFT JOIN hookseal.events AS v ON v.tenant_id = due.tenant_id AND v.id = due.event_id
    LEFT JOIN gone AS g ON g.tenant_id = due.tenant_id AND g.endpoint_id = due.endpoint_id
    WHERE e.id IS NOT NULL OR g.endpoint_id IS NOT NULL
), claimed AS (
    UPDATE hookseal.deliveries AS d
    SET {lease}
    FROM sized AS s
    WHERE d.id = s.id AND d.tenant_id IS NOT DISTINCT FROM s.tenant_id AND s.event_ctid IS NOT NULL AND s.bytes <= $8
    RETURNING d.id, d.claimed_number, d.budget_spent, d.created_at, d.claimed_at, d.lease_token,
              s.was_held, s.endpoint_lost, s.endpoint_found, s.is_probe, s.held_for, s.n, s.event_ctid
), unclaimed AS (
    SELECT d.id, CASE WHEN NOT {is_in_turn} THEN 'order'
                      WHEN EXISTS (SELECT FROM due WHERE due.tenant_id = d.tenant_id AND due.id = d.id)
                       AND NOT EXISTS (SELECT FROM endpoint AS e WHERE e.tenant_id = d.tenant_id AND e.id = d.endpoint_id)
                       AND NOT EXISTS (SELECT FROM gone AS g WHERE g.tenant_id = d.tenant_id AND g.endpoint_id = d.endpoint_id)
                      THEN 'endpoint'
                      ELSE 'delivery' END AS left_for
    FROM asked AS a JOIN hookseal.deliveries AS d ON d.id = a.id AND d.tenant_id IS NOT DISTINCT FROM a.tenant_id
    WHERE (SELECT count(*) FROM claimed) < (SELECT count(*) FROM asked)
      AND {may_begin}
      AND NOT EXISTS (SELECT FROM claimed WHERE claimed.id = d.id)
)
SELECT coalesce(c.id, u.id)::text AS delivery_id, {delivery_read},
       c.endpoint_lost, c.endpoint_found, c.is_probe, c.held_for,
       e.id IS NOT NULL AS has_endpoint, {endpoint_read}, u.left_for
FROM claimed AS c
FULL JOIN endpoint AS e ON e.first = c.n
LEFT JOIN hookseal.events AS v ON v.ctid = c.event_ctid
FULL JOIN unclaimed AS u ON false
WHERE coalesce(c.id, u.id) IS NOT NULL  -- an endpoint of which nothing is claimed has no row

-- Claims the due delivery of one ring, as `claim_all` does, with a quarter less CPU: so a delivery that comes alone is sent
-- sooner. It returns nothing, and `claim_all` decides, if the delivery may not begin, is not in turn or does not fit, if its
-- endpoint is held or missing, or if one of them is locked.
-- name: claim_one
WITH due AS MATERIALIZED (
    SELECT d.tenant_id, d.id, d.endpoint_id, d.event_id, {was_held}
    FROM (SELECT $1::text, $2::text::uuid, $3::text::uuid, $4::text::boolean) AS a (tenant_id, endpoint_id, id, is_parked)
    JOIN hookseal.deliveries AS d ON d.id = a.id AND d.tenant_id IS NOT DISTINCT FROM a.tenant_id
    WHERE {may_begin}
      AND {is_in_turn}
    FOR UPDATE OF d SKIP LOCKED
), endpoint AS MATERIALIZED (
    SELECT {endpoint_row}
    FROM due JOIN hookseal.endpoints AS e ON e.id = due.endpoint_id AND e.tenant_id IS NOT DISTINCT FROM due.tenant_id
    WHERE NOT EXISTS (SELECT FROM hookseal.held_endpoints AS h
                      WHERE h.tenant_id = due.tenant_id AND h.endpoint_id = due.endpoint_id AND h.released_at IS NULL)
    FOR KEY SHARE OF e SKIP LOCKED
), claimed AS (
    UPDATE hookseal.deliveries AS d
    SET {lease}
    FROM due CROSS JOIN endpoint AS s JOIN hookseal.events AS v ON v.tenant_id = due.tenant_id AND v.id = due.event_id
    WHERE d.id = due.id AND d.tenant_id IS NOT DISTINCT FROM due.tenant_id AND octet_length(v.body) <= $8::bigint
    RETURNING d.id, d.claimed_number, d.budget_spent, d.created_at, d.claimed_at, d.lease_token, due.was_held, v.ctid AS event_ctid
)
SELECT c.id::text AS delivery_id, {delivery_read},
       false AS endpoint_lost, true AS endpoint_found, NULL::boolean AS is_probe, NULL::text AS held_for,
       true AS has_endpoint, {endpoint_read}, NULL::text AS left_for
FROM claimed AS c CROSS JOIN endpoint AS e JOIN hookseal.events AS v ON v.ctid = c.event_ctid

-- Records many attempts and the new states of their deliveries, each fenced by its own lease.
-- It waits for no lock: it leaves out rows that another transaction has locked, or has changed since the statement began,
-- since these have another place (`ctid`). Numbers are limited as in `record`. An attempt that disables its endpoint, or is
-- the probe of a held endpoint, is recorded by `record`, alone. If another program inserts one of the attempts at the same
-- moment, PostgreSQL refuses the batch, and it is repeated in halves: `ON CONFLICT` would take a tenth of the time.
-- `rung_at` of a delivery that ends says whether something held it before this attempt: then it is null.
-- name: record_all
WITH made AS MATERIALIZED (
    SELECT m.*
    FROM unnest(string_to_array($1, E'\n', ''), string_to_array($2, E'\n', '')::uuid[], string_to_array($3, E'\n', '')::uuid[],
                string_to_array($4, E'\n', ''), string_to_array($5, E'\n', '')::float8[], string_to_array($6, E'\n', '')::integer[],
                string_to_array($7, E'\n', '')::integer[], string_to_array($8, E'\n', ''), string_to_array($9, E'\n', ''),
                string_to_array($10, E'\n', '')::boolean[], $11::text[], $12::text[])
         AS m (tenant_id, id, token, state, wait, duration_ms, status, outcome, refs, was_held, error, snippet)
), held AS MATERIALIZED (
    SELECT d.ctid AS place, d.claimed_number, d.claimed_at,
           m.state, m.error, m.wait, m.duration_ms, m.status, m.outcome, m.snippet, m.refs, m.was_held
    FROM made AS m JOIN hookseal.deliveries AS d ON d.id = m.id AND d.tenant_id IS NOT DISTINCT FROM m.tenant_id
    WHERE d.lease_token IS NOT DISTINCT FROM m.token
    FOR UPDATE OF d SKIP LOCKED
), ended AS (
    UPDATE hookseal.deliveries AS d
    SET state = h.state, attempts = d.claimed_number, budget_spent = least(d.budget_spent, 2147483646) + 1,
        last_error = h.error,
        next_attempt_at = CASE WHEN h.state = 'pending' THEN now() + make_interval(secs => h.wait) END,
        rung_at = CASE WHEN h.state = 'pending' OR h.was_held THEN NULL ELSE d.rung_at END,
        finished_at = CASE WHEN h.state <> 'pending' THEN now() END,  -- else a trigger sets it, which takes longer
        lease_owner = NULL, lease_token = NULL, lease_expires_at = NULL,
        claimed_number = NULL, claimed_at = NULL, claimed_refs = NULL, claimed_generation = NULL
    FROM held AS h
    WHERE d.ctid = h.place
    RETURNING d.tenant_id, d.id, d.endpoint_id, h.claimed_number, h.claimed_at, h.duration_ms, h.status, h.outcome, h.snippet, h.refs
), logged AS (
    INSERT INTO hookseal.attempts
        (tenant_id, delivery_id, number, started_at, duration_ms, status, outcome, snippet, signed_by, worker, endpoint_id)
    SELECT tenant_id, id, claimed_number, claimed_at, duration_ms, status, outcome, snippet, coalesce(string_to_array(refs, ' '), '{}'),
           $13, endpoint_id
    FROM ended
    WHERE NOT EXISTS (  -- else the insert would wait for a transaction that deletes this attempt
        SELECT FROM hookseal.attempts AS a
        WHERE a.tenant_id = ended.tenant_id AND a.delivery_id = ended.id AND a.number = ended.claimed_number)
)
SELECT id::text AS delivery_id FROM ended

-- Returns which of these deliveries still have the lease of the attempt: another transaction has locked or changed their row.
-- name: leased_still
SELECT d.id::text AS delivery_id
FROM unnest(string_to_array($1, E'\n', ''), string_to_array($2, E'\n', '')::uuid[], string_to_array($3, E'\n', '')::uuid[])
     AS m (tenant_id, id, token)
JOIN hookseal.deliveries AS d ON d.id = m.id AND d.tenant_id IS NOT DISTINCT FROM m.tenant_id
WHERE d.lease_token = m.token

-- Returns which of these attempts are recorded with this outcome.
-- name: recorded_of
SELECT m.id::text AS delivery_id
FROM unnest(string_to_array($1, E'\n', ''), string_to_array($2, E'\n', '')::uuid[], string_to_array($3, E'\n', '')::integer[],
            string_to_array($4, E'\n', '')) AS m (tenant_id, id, number, outcome)
JOIN hookseal.attempts AS a ON a.tenant_id = m.tenant_id AND a.delivery_id = m.id AND a.number = m.number
WHERE a.worker = $5 AND a.outcome = m.outcome
