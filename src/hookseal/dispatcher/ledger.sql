-- Numbers that no count of ours can reach, and an attempt that is there already, were written by somebody else. They
-- must not keep an outcome, nor all the leases that are ended with it, from being written.
-- A 410 is about what the claim read. Of an endpoint that has moved since then it says nothing: that stays enabled, and
-- the delivery is due again, for what the endpoint is now. The endpoint is locked first, as an operator's change locks it.
-- name: record
WITH gone AS (
    SELECT e.generation IS DISTINCT FROM d.claimed_generation AS moved
    FROM hookseal.deliveries AS d
    JOIN hookseal.endpoints AS e ON e.tenant_id = d.tenant_id AND e.id = d.endpoint_id
    WHERE $7::text IS NOT NULL AND d.tenant_id = $1 AND d.id = $2::text::uuid AND d.lease_token = $3::text::uuid
    FOR NO KEY UPDATE OF e
), late AS (
    SELECT coalesce((SELECT moved FROM gone), false) AS moved
), ended AS (
    UPDATE hookseal.deliveries AS d
    SET state = CASE WHEN late.moved THEN 'pending' ELSE $4 END,
        attempts = d.claimed_number,
        budget_spent = CASE WHEN late.moved THEN d.budget_spent ELSE least(d.budget_spent, 2147483646) + 1 END,
        last_error = CASE WHEN late.moved THEN $5 || ' before the endpoint was changed' ELSE $5 END,
        next_attempt_at = CASE WHEN late.moved OR $4 = 'pending' THEN now() + make_interval(secs => $6) END,
        rung_at = CASE WHEN late.moved OR $4 = 'pending' THEN NULL ELSE d.rung_at END,
        lease_owner = NULL, lease_token = NULL, lease_expires_at = NULL
    FROM late
    WHERE d.tenant_id = $1 AND d.id = $2::text::uuid AND d.lease_token = $3::text::uuid
    RETURNING d.tenant_id, d.id, d.endpoint_id, d.claimed_number, d.claimed_at, late.moved
), disabled AS (
    UPDATE hookseal.endpoints AS e
    SET enabled = false, disabled_reason = $7, disabled_at = now()
    FROM ended
    WHERE $7::text IS NOT NULL AND NOT ended.moved AND e.tenant_id = ended.tenant_id AND e.id = ended.endpoint_id
      AND e.enabled
), freed AS (  -- it was signed: nothing is refused any more
    UPDATE hookseal.held_endpoints AS h
    SET released_at = now()
    FROM ended
    WHERE $14::boolean AND h.tenant_id = ended.tenant_id AND h.endpoint_id = ended.endpoint_id AND h.released_at IS NULL
), told AS (
    INSERT INTO hookseal.attempts
        (tenant_id, delivery_id, number, started_at, duration_ms, status, outcome, snippet, signed_by, worker)
    SELECT tenant_id, id, claimed_number, claimed_at, $8, $9, $10, $11, $12, $13 FROM ended
        ON CONFLICT DO NOTHING
)
SELECT moved FROM ended

-- name: release
UPDATE hookseal.deliveries AS d
SET state = 'pending', next_attempt_at = now() + make_interval(secs => $4), rung_at = NULL,
    last_error = coalesce($5, d.last_error),
    lease_owner = NULL, lease_token = NULL, lease_expires_at = NULL
WHERE d.tenant_id = $1 AND d.id = $2::text::uuid AND d.lease_token = $3::text::uuid
RETURNING 1

-- What the claim found may be over by now: it waits only if the endpoint is disabled still, or its secret was refused
-- for what it is still; else it is due. Until this is committed nobody enables the endpoint or moves its pointer. Whoever
-- is changing it is not waited for: then it is looked at again. The first refusal holds the endpoint, also one that was
-- just being released.
-- name: hold
WITH mine AS (
    SELECT d.tenant_id, d.id, d.endpoint_id, d.claimed_generation
    FROM hookseal.deliveries AS d
    WHERE d.tenant_id = $1 AND d.id = $2::text::uuid AND d.lease_token = $3::text::uuid
    FOR UPDATE
), endpoint AS (
    SELECT e.enabled, e.generation
    FROM mine JOIN hookseal.endpoints AS e ON e.tenant_id = mine.tenant_id AND e.id = mine.endpoint_id
    FOR SHARE OF e SKIP LOCKED
), held AS (
    SELECT EXISTS (SELECT FROM mine JOIN hookseal.held_endpoints AS h
                       ON h.tenant_id = mine.tenant_id AND h.endpoint_id = mine.endpoint_id
                   WHERE h.released_at IS NULL) AS already
), found AS (
    SELECT mine.*, held.already,
           CASE WHEN $4 = 'endpoint_disabled' THEN coalesce((SELECT NOT enabled FROM endpoint), false)
                ELSE ($7::boolean OR held.already)
                     AND mine.claimed_generation IS NOT DISTINCT FROM (SELECT generation FROM endpoint)
                     AND ($9::bigint IS NULL
                          OR $9 = coalesce((SELECT epoch FROM hookseal.control WHERE name = 'cache'), -1))
                     AND ($10::bigint IS NULL
                          OR $10 = coalesce((SELECT epoch FROM hookseal.control WHERE name = 'restore'), -1))
           END AS waits,
           mine.claimed_generation IS NOT NULL AND NOT EXISTS (SELECT FROM endpoint) AS is_changing
    FROM mine, held
), given AS (
    UPDATE hookseal.deliveries AS d
    SET state = 'pending', rung_at = NULL,
        next_attempt_at = CASE WHEN found.is_changing THEN now() + make_interval(secs => $6::float8) ELSE now() END,
        waiting_for = CASE WHEN found.waits THEN $4 END, held_at = CASE WHEN found.waits THEN now() END,
        last_error = CASE WHEN found.waits THEN $5 ELSE d.last_error END,
        lease_owner = NULL, lease_token = NULL, lease_expires_at = NULL
    FROM found
    WHERE d.tenant_id = found.tenant_id AND d.id = found.id
), holding AS (
    INSERT INTO hookseal.held_endpoints AS h (tenant_id, endpoint_id, is_transient, step_seconds, probe_at)
    SELECT found.tenant_id, found.endpoint_id, $8::boolean, $6::float8, now() + make_interval(secs => $6::float8)
    FROM found
    WHERE found.waits AND NOT found.already AND $4 = 'secret'
    ON CONFLICT (tenant_id, endpoint_id) DO UPDATE
    SET since = now(), is_transient = excluded.is_transient, step_seconds = excluded.step_seconds,
        probe_at = excluded.probe_at, probe_id = NULL, released_at = NULL
    WHERE h.released_at IS NOT NULL
)
SELECT waits FROM found

-- name: give_back
WITH held AS (
    SELECT d.tenant_id, d.id, d.lease_token
    FROM hookseal.deliveries AS d
    WHERE d.state = 'sending' AND d.lease_token = ANY ($1::text[]::uuid[])
    FOR UPDATE
), given AS (
    UPDATE hookseal.deliveries AS d
    SET state = 'pending', next_attempt_at = now(), rung_at = NULL,
        lease_owner = NULL, lease_token = NULL, lease_expires_at = NULL
    FROM held
    WHERE d.tenant_id = held.tenant_id AND d.id = held.id
    RETURNING held.lease_token
)
SELECT lease_token::text AS token FROM given

-- name: end
UPDATE hookseal.deliveries AS d
SET state = $4, last_error = $5, lease_owner = NULL, lease_token = NULL, lease_expires_at = NULL
WHERE d.tenant_id = $1 AND d.id = $2::text::uuid AND d.lease_token = $3::text::uuid
RETURNING 1

-- name: end_lost_leases
WITH lost AS (
    SELECT d.tenant_id, d.id, d.endpoint_id, d.lease_owner
    FROM hookseal.deliveries AS d
    WHERE d.state = 'sending' AND d.lease_expires_at < now()
    ORDER BY d.lease_expires_at
    LIMIT $1
    FOR UPDATE SKIP LOCKED
), judged AS (
    SELECT lost.*, e.attempts_allowed
    FROM lost LEFT JOIN hookseal.endpoints AS e ON e.tenant_id = lost.tenant_id AND e.id = lost.endpoint_id
), ended AS (
    UPDATE hookseal.deliveries AS d
    SET state = CASE WHEN d.budget_spent >= judged.attempts_allowed - 1 THEN 'dead_letter' ELSE 'pending' END,
        next_attempt_at = CASE WHEN d.budget_spent >= judged.attempts_allowed - 1 THEN NULL ELSE now() END,
        attempts = d.claimed_number, budget_spent = least(d.budget_spent, 2147483646) + 1, rung_at = NULL,
        last_error = 'the worker ended before the answer was recorded',
        lease_owner = NULL, lease_token = NULL, lease_expires_at = NULL
    FROM judged
    WHERE d.tenant_id = judged.tenant_id AND d.id = judged.id
    RETURNING d.tenant_id, d.id, d.state, d.claimed_number, d.claimed_at, d.claimed_refs, judged.lease_owner
), told AS (
    INSERT INTO hookseal.attempts (tenant_id, delivery_id, number, started_at, outcome, signed_by, worker)
    SELECT tenant_id, id, claimed_number, claimed_at, 'unknown', claimed_refs, lease_owner FROM ended
        ON CONFLICT DO NOTHING
)
SELECT state FROM ended

-- name: rung_before
SELECT d.tenant_id, d.endpoint_id::text AS endpoint_id, d.id::text AS delivery_id, d.next_attempt_at
FROM hookseal.deliveries AS d
WHERE d.state = 'pending' AND d.waiting_for IS NULL AND d.next_attempt_at <= $5 AND (d.next_attempt_at, d.id) > ($3, $4::text::uuid)
  AND d.rung_at < $2 AND d.rung_at >= d.next_attempt_at
ORDER BY d.next_attempt_at, d.id
LIMIT $1

-- name: ring_again
WITH lost AS (
    SELECT d.tenant_id, d.id
    FROM hookseal.deliveries AS d
    WHERE d.id = ANY ($1::text[]::uuid[]) AND d.state = 'pending' AND d.waiting_for IS NULL AND d.rung_at < $2
    FOR UPDATE SKIP LOCKED
)
UPDATE hookseal.deliveries AS d
SET rung_at = now()
FROM lost
WHERE d.tenant_id = lost.tenant_id AND d.id = lost.id
RETURNING d.tenant_id, d.endpoint_id::text AS endpoint_id, d.id::text AS delivery_id

-- A batch begins behind the place where the one before it ended: what that one rang is not walked past again.
-- name: ring_due
WITH due AS (
    SELECT d.tenant_id, d.id, d.next_attempt_at
    FROM hookseal.deliveries AS d
    WHERE d.state = 'pending' AND d.waiting_for IS NULL AND d.next_attempt_at <= $5
      AND (d.next_attempt_at, d.id) > ($3, $4::text::uuid)
      AND (d.rung_at IS NULL OR d.rung_at < $2 OR d.rung_at < d.next_attempt_at)
    ORDER BY d.next_attempt_at, d.id
    LIMIT $1
    FOR UPDATE SKIP LOCKED
), rung AS (
    UPDATE hookseal.deliveries AS d
    SET rung_at = now()
    FROM due
    WHERE d.tenant_id = due.tenant_id AND d.id = due.id
    RETURNING d.tenant_id, d.endpoint_id, d.id, d.next_attempt_at
)
SELECT tenant_id, endpoint_id::text AS endpoint_id, id::text AS delivery_id, next_attempt_at
FROM rung
ORDER BY next_attempt_at, id

-- name: ring_unrung
WITH unrung AS (
    SELECT d.tenant_id, d.id
    FROM hookseal.deliveries AS d
    WHERE d.state = 'pending' AND d.waiting_for IS NULL AND d.rung_at IS NULL
      AND d.next_attempt_at <= now() - make_interval(secs => $2)
      AND EXISTS (SELECT FROM hookseal.control WHERE name = 'outbox' AND token = $3::text::uuid AND until > now())
    ORDER BY d.next_attempt_at
    LIMIT $1
    FOR UPDATE SKIP LOCKED
), rung AS (
    UPDATE hookseal.deliveries AS d
    SET rung_at = now()
    FROM unrung
    WHERE d.tenant_id = unrung.tenant_id AND d.id = unrung.id
    RETURNING d.tenant_id, d.endpoint_id, d.id, d.next_attempt_at
)
SELECT tenant_id, endpoint_id::text AS endpoint_id, id::text AS delivery_id FROM rung ORDER BY next_attempt_at, id

-- name: seconds_ago
SELECT now() - make_interval(secs => $1)

-- name: longest_timeout_ms
SELECT coalesce(max(timeout_ms), 0) FROM hookseal.endpoints WHERE enabled
