-- What many deliveries cost one statement: claims and outcomes, each of one batch.

-- One statement for all rings that came together. It waits for no lock: a delivery or an endpoint that somebody else
-- holds is left out, and so is what does not fit into $7 bytes of bodies, counted in the order of the rings.
-- `IS NOT DISTINCT FROM` keeps the planner from looking for a delivery through the backlog of its endpoint.
-- name: claim_all
WITH asked AS MATERIALIZED (
    SELECT a.tenant_id, a.endpoint_id, a.id, a.n
    FROM unnest($1::text[], $2::text[]::uuid[], $3::text[]::uuid[]) WITH ORDINALITY AS a (tenant_id, endpoint_id, id, n)
), due AS MATERIALIZED (
    SELECT d.tenant_id, d.id, d.endpoint_id, d.event_id, a.n
    FROM asked AS a JOIN hookseal.deliveries AS d ON d.tenant_id = a.tenant_id AND d.id = a.id
    WHERE d.endpoint_id IS NOT DISTINCT FROM a.endpoint_id AND d.state = 'pending' AND d.waiting_for IS NULL
      AND d.next_attempt_at <= now()
    FOR UPDATE OF d SKIP LOCKED
), wanted AS MATERIALIZED (
    SELECT DISTINCT tenant_id, endpoint_id FROM due
), endpoint AS MATERIALIZED (
    SELECT e.tenant_id, e.id, e.enabled, e.timeout_ms, e.attempts_allowed, e.backoff_base_seconds, e.backoff_cap_seconds,
           e.retry_schedule, e.url, e.scheme, e.algorithm, e.secret_ref, e.previous_secret_ref,
           e.previous_secret_expires_at, e.previous_scheme, e.previous_algorithm, e.lead, e.headers_ref, e.tls_ref,
           e.generation, e.mac, e.mac_key_id,
           coalesce(e.previous_secret_expires_at > now() AND e.previous_secret_ref IS NOT NULL, false) AS previous_due,
           (SELECT max(l.generation) FROM hookseal.audit_log AS l
            WHERE l.tenant_id = w.tenant_id AND l.subject = 'endpoint:' || w.endpoint_id) AS audited_generation,
           h.endpoint_id IS NOT NULL AS is_held, h.probe_id
    FROM wanted AS w
    JOIN hookseal.endpoints AS e ON e.tenant_id = w.tenant_id AND e.id = w.endpoint_id
    LEFT JOIN hookseal.held_endpoints AS h
        ON h.tenant_id = w.tenant_id AND h.endpoint_id = w.endpoint_id AND h.released_at IS NULL
    FOR KEY SHARE OF e SKIP LOCKED
), gone AS MATERIALIZED (
    SELECT w.tenant_id, w.endpoint_id,
           coalesce(
               (SELECT l.action FROM hookseal.audit_log AS l
                WHERE l.tenant_id = w.tenant_id AND l.subject = 'endpoint:' || w.endpoint_id
                  AND l.action <> 'rollback.found'
                ORDER BY l.sequence DESC LIMIT 1) <> 'endpoint.deleted', false) AS endpoint_lost
    FROM wanted AS w
    WHERE NOT EXISTS (SELECT FROM hookseal.endpoints AS e WHERE e.tenant_id = w.tenant_id AND e.id = w.endpoint_id)
), sized AS MATERIALIZED (
    SELECT due.tenant_id, due.id, due.endpoint_id, e.secret_ref, e.previous_secret_ref, e.previous_due, e.generation,
           coalesce(g.endpoint_lost, false) AS endpoint_lost,
           v.id AS event_id, v.event_type, v.correlation_id, v.traceparent, v.body,
           sum(octet_length(v.body)) OVER (ORDER BY due.n) AS bytes
    FROM due
    JOIN hookseal.events AS v ON v.tenant_id = due.tenant_id AND v.id = due.event_id
    LEFT JOIN endpoint AS e ON e.tenant_id = due.tenant_id AND e.id = due.endpoint_id
    LEFT JOIN gone AS g ON g.tenant_id = due.tenant_id AND g.endpoint_id = due.endpoint_id
    WHERE e.id IS NOT NULL OR g.endpoint_id IS NOT NULL
), claimed AS (
    UPDATE hookseal.deliveries AS d
    SET state = 'sending', next_attempt_at = NULL, rung_at = coalesce(d.rung_at, now()),
        lease_owner = $4, lease_token = coalesce($6::text::uuid, gen_random_uuid()), lease_expires_at = now() + make_interval(secs => $5),
        claimed_number = least(d.attempts, 2147483646) + 1, claimed_at = now(),
        claimed_refs = array_remove(ARRAY[s.secret_ref, CASE WHEN s.previous_due THEN s.previous_secret_ref END], NULL),
        claimed_generation = s.generation
    FROM sized AS s
    WHERE d.tenant_id = s.tenant_id AND d.id = s.id AND s.bytes <= $7
    RETURNING d.tenant_id, d.endpoint_id, d.id, s.event_id, s.event_type, s.correlation_id, s.traceparent, s.body,
              d.claimed_number, d.budget_spent, d.created_at, d.claimed_at, d.lease_token, s.endpoint_lost
)
SELECT c.id::text AS delivery_id, c.event_id, c.event_type, c.correlation_id, c.traceparent, c.body,
       c.claimed_number, c.budget_spent, c.created_at, c.claimed_at, c.lease_token::text AS lease_token,
       c.endpoint_lost,
       e.id IS NOT NULL AS endpoint_found, e.enabled, e.timeout_ms,
       e.attempts_allowed, e.backoff_base_seconds, e.backoff_cap_seconds, e.retry_schedule,
       e.url, e.scheme, e.algorithm, e.secret_ref, e.previous_secret_ref, e.previous_secret_expires_at, e.previous_scheme,
       e.previous_algorithm, e.previous_due, e.lead, e.headers_ref, e.tls_ref, e.generation, e.mac, e.mac_key_id,
       coalesce((SELECT epoch FROM hookseal.control WHERE name = 'cache'), -1) AS cache_epoch,
       coalesce((SELECT epoch FROM hookseal.control WHERE name = 'restore'), -1) AS restore_epoch,
       coalesce((SELECT (tableoid::bigint << 31) + extract(epoch FROM pg_postmaster_start_time())::bigint
                 FROM hookseal.control WHERE name = 'restore'), 0) AS database,
       e.audited_generation, CASE WHEN e.is_held THEN e.probe_id IS NOT DISTINCT FROM c.id END AS is_probe
FROM claimed AS c
LEFT JOIN endpoint AS e ON e.tenant_id = c.tenant_id AND e.id = c.endpoint_id

-- Which of the rings that claimed nothing name a delivery that is due all the same: somebody held it, or its endpoint.
-- name: due_still
SELECT d.id::text AS delivery_id
FROM unnest($1::text[], $2::text[]::uuid[], $3::text[]::uuid[]) AS a (tenant_id, endpoint_id, id)
JOIN hookseal.deliveries AS d ON d.tenant_id = a.tenant_id AND d.id = a.id
WHERE d.endpoint_id IS NOT DISTINCT FROM a.endpoint_id AND d.state = 'pending' AND d.waiting_for IS NULL
      AND d.next_attempt_at <= now()

-- The outcomes of many attempts, each fenced by its own lease. It waits for no lock: what somebody else holds is left
-- out. The limits of the numbers are those of `record`; what disables an endpoint, or is the probe of one that is held, is recorded there, alone.
-- name: record_all
WITH made AS MATERIALIZED (
    SELECT m.*
    FROM unnest($1::text[], $2::text[]::uuid[], $3::text[]::uuid[], $4::text[], $5::text[], $6::float8[], $7::integer[],
                $8::integer[], $9::text[], $10::text[], $11::text[])
         AS m (tenant_id, id, token, state, error, wait, duration_ms, status, outcome, snippet, refs)
), held AS MATERIALIZED (
    SELECT d.tenant_id, d.id, m.state, m.error, m.wait, m.duration_ms, m.status, m.outcome, m.snippet, m.refs
    FROM made AS m JOIN hookseal.deliveries AS d ON d.tenant_id = m.tenant_id AND d.id = m.id
    WHERE d.lease_token IS NOT DISTINCT FROM m.token
    FOR UPDATE OF d SKIP LOCKED
), ended AS (
    UPDATE hookseal.deliveries AS d
    SET state = h.state, attempts = d.claimed_number, budget_spent = least(d.budget_spent, 2147483646) + 1,
        last_error = h.error,
        next_attempt_at = CASE WHEN h.state = 'pending' THEN now() + make_interval(secs => h.wait) END,
        rung_at = CASE WHEN h.state = 'pending' THEN NULL ELSE d.rung_at END,
        lease_owner = NULL, lease_token = NULL, lease_expires_at = NULL
    FROM held AS h
    WHERE d.tenant_id = h.tenant_id AND d.id = h.id
    RETURNING d.tenant_id, d.id, d.claimed_number, d.claimed_at, h.duration_ms, h.status, h.outcome, h.snippet, h.refs
), logged AS (
    INSERT INTO hookseal.attempts
        (tenant_id, delivery_id, number, started_at, duration_ms, status, outcome, snippet, signed_by, worker)
    SELECT tenant_id, id, claimed_number, claimed_at, duration_ms, status, outcome, snippet, string_to_array(refs, ' '),
           $12
    FROM ended
        ON CONFLICT DO NOTHING
)
SELECT id::text AS delivery_id FROM ended

-- Which of these deliveries are still under the lease of the attempt that was not recorded: somebody held their row.
-- name: leased_still
SELECT d.id::text AS delivery_id
FROM unnest($1::text[], $2::text[]::uuid[], $3::text[]::uuid[]) AS m (tenant_id, id, token)
JOIN hookseal.deliveries AS d ON d.tenant_id = m.tenant_id AND d.id = m.id
WHERE d.lease_token = m.token

-- Which of these attempts are on record, as they were made.
-- name: recorded_of
SELECT m.id::text AS delivery_id
FROM unnest($1::text[], $2::text[]::uuid[], $3::integer[], $4::text[]) AS m (tenant_id, id, number, outcome)
JOIN hookseal.attempts AS a ON a.tenant_id = m.tenant_id AND a.delivery_id = m.id AND a.number = m.number
WHERE a.worker = $5 AND a.outcome = m.outcome
