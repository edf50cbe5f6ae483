-- What a claim leaves when it ends: no lease, and nothing of what it read.
-- name: claim_ended
lease_owner = NULL, lease_token = NULL, lease_expires_at = NULL,
        claimed_number = NULL, claimed_at = NULL, claimed_refs = NULL, claimed_generation = NULL

-- Records one attempt and the new state of its delivery, fenced by its lease, and disables the endpoint after a 410.
-- Numbers are limited, and an attempt that already exists is ignored: another program has written these. They must not
-- prevent an outcome from being recorded, nor the other leases that are ended in the same statement.
-- A 410 is an answer to the pointer that the claim read. If the pointer has moved since, the endpoint stays enabled, and
-- the delivery is due again. The endpoint is locked first, in the same order as in an operator's change.
-- $16: whether something held the delivery before this attempt, as in `record_all`.
-- $17: whether the endpoint may be disabled; the caller audits that in the same transaction, or records without it.
-- If the delivery is the probe of its endpoint ($14): once it was signed, an endpoint that waits for a secret is released.
-- An open breaker closes if the endpoint was not in trouble ($15); its lane is then crowded, so that workers begin slowly.
-- name: record
WITH gone AS (
    SELECT e.generation IS DISTINCT FROM d.claimed_generation AS moved
    FROM hookseal.deliveries AS d
    JOIN hookseal.endpoints AS e ON e.tenant_id = d.tenant_id AND e.id = d.endpoint_id
    WHERE $7::text IS NOT NULL AND d.id = $2::text::uuid AND d.tenant_id IS NOT DISTINCT FROM $1 AND d.lease_token = $3::text::uuid
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
        rung_at = CASE WHEN late.moved OR $4 = 'pending' OR $16::boolean THEN NULL ELSE d.rung_at END,
        {claim_ended}
    FROM late
    WHERE d.id = $2::text::uuid AND d.tenant_id IS NOT DISTINCT FROM $1 AND d.lease_token = $3::text::uuid
    RETURNING d.tenant_id, d.id, d.endpoint_id, late.moved
), disabled AS (
    UPDATE hookseal.endpoints AS e
    SET enabled = false, disabled_reason = $7, disabled_at = now()
    FROM ended
    WHERE $7::text IS NOT NULL AND $17::boolean AND NOT ended.moved
      AND e.tenant_id = ended.tenant_id AND e.id = ended.endpoint_id AND e.enabled
    RETURNING e.id
), freed AS (  -- the probe was signed: the secret is available again
    UPDATE hookseal.held_endpoints AS h
    SET released_at = CASE WHEN h.waiting_for = 'secret' THEN now() END, probe_id = NULL
    FROM ended
    WHERE $14::boolean AND h.tenant_id = ended.tenant_id AND h.endpoint_id = ended.endpoint_id AND h.released_at IS NULL
      AND NOT (h.waiting_for = 'breaker' AND $15::boolean)
), closed AS (
    DELETE FROM hookseal.held_endpoints AS h
    USING ended
    WHERE $14::boolean AND h.tenant_id = ended.tenant_id AND h.endpoint_id = ended.endpoint_id AND h.released_at IS NULL
      AND h.waiting_for = 'breaker' AND $15::boolean
    RETURNING h.tenant_id, h.endpoint_id
), reopened AS (
    INSERT INTO hookseal.lanes AS l (tenant_id, endpoint_id, reopened_at)
    SELECT tenant_id, endpoint_id, now() FROM closed
    ON CONFLICT (tenant_id, endpoint_id) DO UPDATE SET reopened_at = excluded.reopened_at
), logged AS (
    INSERT INTO hookseal.attempts
        (tenant_id, delivery_id, number, started_at, duration_ms, status, outcome, snippet, signed_by, worker, endpoint_id)
    SELECT d.tenant_id, d.id, d.claimed_number, d.claimed_at, $8, $9, $10, $11, $12, $13, d.endpoint_id
    FROM ended CROSS JOIN hookseal.deliveries AS d  -- as it was before
    WHERE d.id = $2::text::uuid
        ON CONFLICT (tenant_id, delivery_id, number) DO NOTHING  -- a unique index of others refuses it
)
SELECT moved, EXISTS (SELECT FROM disabled) AS disabled FROM ended

-- Gives a delivery back, due after $4 seconds, with its budget unspent.
-- name: release
UPDATE hookseal.deliveries AS d
SET state = 'pending', next_attempt_at = now() + make_interval(secs => $4), rung_at = NULL,
    last_error = coalesce($5, d.last_error),
    {claim_ended}
WHERE d.id = $2::text::uuid AND d.tenant_id IS NOT DISTINCT FROM $1 AND d.lease_token = $3::text::uuid
RETURNING 1

-- Gives a claimed delivery back to wait for its endpoint, or to be due again.
-- The reason may no longer exist: the delivery waits only if the endpoint is still disabled, or if its secret was refused
-- for the pointer that it still has; otherwise it is due. Until this is committed nobody can enable the endpoint or move
-- its pointer. If another transaction is changing the endpoint, the statement does not wait: the delivery is due again
-- after $6 seconds. The first refusal holds the endpoint, even while it is being released.
-- name: hold
WITH mine AS (
    SELECT d.tenant_id, d.id, d.endpoint_id, d.claimed_generation
    FROM hookseal.deliveries AS d
    WHERE d.id = $2::text::uuid AND d.tenant_id IS NOT DISTINCT FROM $1 AND d.lease_token = $3::text::uuid
    FOR UPDATE
), endpoint AS (
    SELECT e.enabled, e.generation
    FROM mine JOIN hookseal.endpoints AS e ON e.tenant_id = mine.tenant_id AND e.id = mine.endpoint_id
    FOR SHARE OF e SKIP LOCKED
), held AS (
    SELECT h.reason, h.waiting_for
    FROM mine JOIN hookseal.held_endpoints AS h ON h.tenant_id = mine.tenant_id AND h.endpoint_id = mine.endpoint_id
    WHERE h.released_at IS NULL
), decided AS (
    SELECT mine.*, already, CASE WHEN $7::boolean THEN $5 ELSE coalesce((SELECT reason FROM held), $5) END AS reason,
           CASE WHEN $4 = 'endpoint_disabled' THEN coalesce((SELECT NOT enabled FROM endpoint), false)
                ELSE ($7::boolean OR already)
                     AND mine.claimed_generation IS NOT DISTINCT FROM (SELECT generation FROM endpoint)
                     AND ($9::bigint IS NULL
                          OR $9 = coalesce((SELECT epoch FROM hookseal.control WHERE name = 'cache'), -1))
                     AND ($10::bigint IS NULL
                          OR $10 = coalesce((SELECT epoch FROM hookseal.control WHERE name = 'restore'), -1))
           END AS waits,
           CASE WHEN $4 = 'endpoint_disabled' THEN $4 ELSE coalesce((SELECT waiting_for FROM held), $4) END AS waiting_for,
           mine.claimed_generation IS NOT NULL AND NOT EXISTS (SELECT FROM endpoint) AS is_changing
    FROM mine, (SELECT EXISTS (SELECT FROM held)) AS is_held (already)
), given_back AS (
    UPDATE hookseal.deliveries AS d
    SET state = 'pending', rung_at = NULL,
        next_attempt_at = CASE WHEN decided.is_changing THEN now() + make_interval(secs => $6::float8) ELSE now() END,
        waiting_for = CASE WHEN decided.waits THEN decided.waiting_for END, held_at = CASE WHEN decided.waits THEN now() END,
        last_error = CASE WHEN decided.waits THEN decided.reason ELSE d.last_error END,
        {claim_ended}
    FROM decided
    WHERE d.id = decided.id AND d.tenant_id IS NOT DISTINCT FROM decided.tenant_id
), holding AS (
    INSERT INTO hookseal.held_endpoints AS h (tenant_id, endpoint_id, reason, is_transient, step_seconds, probe_at)
    SELECT decided.tenant_id, decided.endpoint_id, decided.reason, $8::boolean, $6::float8, now() + make_interval(secs => $6::float8)
    FROM decided
    WHERE decided.waits AND NOT decided.already AND $4 = 'secret'
    ON CONFLICT (tenant_id, endpoint_id) DO UPDATE
    SET since = now(), waiting_for = excluded.waiting_for, reason = excluded.reason, is_transient = excluded.is_transient, step_seconds = excluded.step_seconds,
        probe_at = excluded.probe_at, probe_id = NULL, released_at = NULL
    WHERE h.released_at IS NOT NULL
), explained AS (  -- a probe was refused for another reason than the recorded one, or none was recorded
    UPDATE hookseal.held_endpoints AS h
    SET reason = decided.reason
    FROM decided
    WHERE decided.waits AND decided.already AND $4 = 'secret' AND $7::boolean AND h.reason IS DISTINCT FROM decided.reason
      AND h.tenant_id = decided.tenant_id AND h.endpoint_id = decided.endpoint_id AND h.released_at IS NULL
)
SELECT waits FROM decided

-- Gives deliveries back by their lease tokens alone, due now and unspent.
-- name: give_back
WITH held AS (
    SELECT d.tenant_id, d.id, d.lease_token
    FROM hookseal.deliveries AS d
    WHERE d.state = 'sending' AND d.lease_token = ANY ($1::text[]::uuid[])
    FOR UPDATE
), given_back AS (
    UPDATE hookseal.deliveries AS d
    SET state = 'pending', next_attempt_at = now(), rung_at = NULL,
        {claim_ended}
    FROM held
    WHERE d.id = held.id AND d.tenant_id IS NOT DISTINCT FROM held.tenant_id
    RETURNING held.lease_token
)
SELECT lease_token::text AS token FROM given_back

-- Ends a delivery for which nothing may be sent any more, without an attempt.
-- name: end
WITH ended AS (
    UPDATE hookseal.deliveries AS d
    SET state = $4::text, last_error = $5, {claim_ended}
    WHERE d.id = $2::text::uuid AND d.tenant_id IS NOT DISTINCT FROM $1 AND d.lease_token = $3::text::uuid
    RETURNING d.tenant_id, d.endpoint_id
), freed AS (  -- the other deliveries can be ended without a secret, too
    UPDATE hookseal.held_endpoints AS h
    SET released_at = now()
    FROM ended
    WHERE $6::boolean AND h.tenant_id = ended.tenant_id AND h.endpoint_id = ended.endpoint_id AND h.released_at IS NULL
)
SELECT FROM ended

-- Returns a row if a session has, or waits for, a lock of a whole table that keeps others from writing what a record writes.
-- name: tables_locked
SELECT FROM pg_locks AS l
WHERE l.locktype = 'relation' AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.relation IN ('hookseal.attempts'::regclass, 'hookseal.deliveries'::regclass)
  AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
LIMIT 1

-- Prolongs the lease of all that a worker has claimed. It waits for no row: one that another transaction has locked is left out.
-- A claim that has read an older pointer of its endpoint keeps its own lease, so that a revocation waits no longer than that.
-- name: prolong_leases
WITH mine AS (
    SELECT d.tenant_id, d.id
    FROM hookseal.deliveries AS d
    LEFT JOIN hookseal.endpoints AS e ON e.tenant_id = d.tenant_id AND e.id = d.endpoint_id
    WHERE d.state = 'sending' AND d.lease_owner = $1 AND d.claimed_generation IS NOT DISTINCT FROM e.generation
    FOR UPDATE OF d SKIP LOCKED
)
UPDATE hookseal.deliveries AS d
SET lease_expires_at = now() + make_interval(secs => $2)
FROM mine
WHERE d.id = mine.id AND d.tenant_id IS NOT DISTINCT FROM mine.tenant_id
RETURNING 1

-- Whether a lease, of the delivery `d`, has expired and is to be ended: not that of a worker that knows outcomes which it cannot
-- record, as long as that worker is live ($2): it records them as soon as it can. Nor one whose outcome is in `refused_outcomes`.
-- name: is_lost
d.state = 'sending' AND d.lease_expires_at < now()
      AND NOT EXISTS (SELECT FROM hookseal.workers AS w
                      WHERE w.id = d.lease_owner AND w.unrecorded_since IS NOT NULL
                        AND w.beaten_at > now() - make_interval(secs => $2))
      AND NOT EXISTS (SELECT FROM hookseal.refused_outcomes AS r
                      WHERE r.tenant_id = d.tenant_id AND r.delivery_id = d.id AND r.lease_token = d.lease_token)

-- Ends expired leases, oldest first, each with an attempt whose outcome is unknown; of the delivery $4 only, if it is given.
-- It reads no lease that ended before $3 (null: it reads all). It always returns a row, which says where the next look begins:
-- at the oldest lease that had expired, and no later than five seconds ago, since a claim may be committed late.
-- name: end_lost_leases
WITH oldest AS MATERIALIZED (
    SELECT min(first.lease_expires_at) AS expired_at
    FROM (SELECT d.lease_expires_at
          FROM hookseal.deliveries AS d
          WHERE d.state = 'sending' AND d.lease_expires_at < now()
            AND d.lease_expires_at >= coalesce($3::timestamptz, '-infinity')
          ORDER BY d.lease_expires_at
          LIMIT 1) AS first
), lost AS (
    SELECT d.tenant_id, d.id, d.endpoint_id, d.lease_owner, d.claimed_number, d.claimed_at, d.claimed_refs
    FROM hookseal.deliveries AS d
    WHERE {is_lost}
      AND d.lease_expires_at >= (SELECT expired_at FROM oldest) AND ($4::text IS NULL OR d.id = $4::text::uuid)
    ORDER BY d.lease_expires_at
    LIMIT $1
    FOR UPDATE OF d SKIP LOCKED
), judged AS (
    SELECT lost.*, e.attempts_allowed
    FROM lost LEFT JOIN hookseal.endpoints AS e ON e.tenant_id = lost.tenant_id AND e.id = lost.endpoint_id
), ended AS (
    UPDATE hookseal.deliveries AS d
    SET state = CASE WHEN d.budget_spent >= judged.attempts_allowed - 1 THEN 'dead_letter' ELSE 'pending' END,
        next_attempt_at = CASE WHEN d.budget_spent >= judged.attempts_allowed - 1 THEN NULL ELSE now() END,
        attempts = d.claimed_number, budget_spent = least(d.budget_spent, 2147483646) + 1, rung_at = NULL,
        last_error = 'the worker ended before the answer was recorded',
        {claim_ended}
    FROM judged
    WHERE d.id = judged.id AND d.tenant_id IS NOT DISTINCT FROM judged.tenant_id
    RETURNING d.tenant_id, d.id, d.endpoint_id, d.state, judged.claimed_number, judged.claimed_at, judged.claimed_refs, judged.lease_owner
), logged AS (
    INSERT INTO hookseal.attempts (tenant_id, delivery_id, number, started_at, outcome, signed_by, worker, endpoint_id)
    SELECT tenant_id, id, claimed_number, claimed_at, 'unknown', claimed_refs, lease_owner, endpoint_id FROM ended
    WHERE NOT EXISTS (  -- else the insert would wait for a transaction that deletes this attempt
        SELECT FROM hookseal.attempts AS a
        WHERE a.tenant_id = ended.tenant_id AND a.delivery_id = ended.id AND a.number = ended.claimed_number)
        ON CONFLICT (tenant_id, delivery_id, number) DO NOTHING
)
SELECT ended.state, least(oldest.expired_at, now() - interval '5 seconds') AS since
FROM oldest LEFT JOIN ended ON true

-- Keeps an outcome that was refused, with what refused it ($17), as long as the delivery has the lease of the attempt.
-- It writes no table but its own. The other arguments are those of `record`.
-- name: keep
WITH mine AS (
    SELECT FROM hookseal.deliveries AS d
    WHERE d.id = $2::text::uuid AND d.tenant_id IS NOT DISTINCT FROM $1 AND d.lease_token = $3::text::uuid
), kept AS (
    INSERT INTO hookseal.refused_outcomes
        (tenant_id, delivery_id, lease_token, state, error, retry_in_seconds, disable, duration_ms, status, outcome, snippet,
         signed_by, worker, is_probe, is_untroubled, was_held, reason)
    SELECT $1, $2::text::uuid, $3::text::uuid, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17 FROM mine
    ON CONFLICT (tenant_id, delivery_id, lease_token) DO NOTHING
)
SELECT FROM mine

-- Returns the deliveries whose leases `end_lost_leases` would end, at most $1.
-- name: lost_leases
SELECT d.id::text AS delivery_id
FROM hookseal.deliveries AS d
WHERE {is_lost} AND d.lease_expires_at >= coalesce($3::timestamptz, '-infinity')
ORDER BY d.lease_expires_at
LIMIT $1

-- Keeps the outcome of an expired lease, of the delivery $1, as `end_lost_leases` would record it: it was refused ($3).
-- name: keep_lost
INSERT INTO hookseal.refused_outcomes
    (tenant_id, delivery_id, lease_token, state, error, retry_in_seconds, outcome, signed_by, worker, is_probe, is_untroubled,
     was_held, reason)
SELECT d.tenant_id, d.id, d.lease_token,
       CASE WHEN d.budget_spent >= e.attempts_allowed - 1 THEN 'dead_letter' ELSE 'pending' END,
       'the worker ended before the answer was recorded', 0, 'unknown', d.claimed_refs, d.lease_owner, false, false, true, $3
FROM hookseal.deliveries AS d LEFT JOIN hookseal.endpoints AS e ON e.tenant_id = d.tenant_id AND e.id = d.endpoint_id
WHERE d.id = $1::text::uuid AND {is_lost}
ON CONFLICT (tenant_id, delivery_id, lease_token) DO NOTHING

-- Returns outcomes that were refused, as the arguments of `record`: the $1 that were tried longest ago.
-- name: refused
SELECT r.tenant_id, r.delivery_id::text AS delivery_id, r.lease_token::text AS lease_token, r.state, r.error, r.retry_in_seconds,
       r.disable, r.duration_ms, r.status, r.outcome, r.snippet, r.signed_by, r.worker, r.is_probe, r.is_untroubled, r.was_held,
       coalesce(d.endpoint_id, r.delivery_id)::text AS endpoint_id
FROM hookseal.refused_outcomes AS r
LEFT JOIN hookseal.deliveries AS d ON d.id = r.delivery_id AND d.tenant_id IS NOT DISTINCT FROM r.tenant_id
ORDER BY r.tried_at
LIMIT $1

-- Notes that this outcome was tried again and refused ($4).
-- name: refused_again
UPDATE hookseal.refused_outcomes SET tried_at = now(), reason = $4
WHERE tenant_id = $1 AND delivery_id = $2::text::uuid AND lease_token = $3::text::uuid

-- Deletes an outcome that is recorded, or whose lease is lost.
-- name: forget_refused
DELETE FROM hookseal.refused_outcomes
WHERE tenant_id = $1 AND delivery_id = $2::text::uuid AND lease_token = $3::text::uuid

-- Reads due deliveries that were rung before $2 and not claimed since, in the order in which they became due.
-- It reads at most $6 deliveries that were rung, and none that nobody has rung: so a look costs the same in any backlog.
-- The first of these is returned even if it was rung later: so a look knows where the next one may begin.
-- name: rung_before
WITH walked AS (
    SELECT d.tenant_id, d.endpoint_id, d.id, d.next_attempt_at, d.rung_at,
           row_number() OVER (ORDER BY d.next_attempt_at, d.id) AS n
    FROM hookseal.deliveries AS d
    WHERE d.next_attempt_at IS NOT NULL AND d.waiting_for IS NULL AND d.rung_at IS NOT NULL AND d.next_attempt_at <= $5
      AND (d.next_attempt_at, d.id) > ($3, $4::text::uuid)
    ORDER BY d.next_attempt_at, d.id
    LIMIT $6
)
SELECT d.tenant_id, d.endpoint_id::text AS endpoint_id, d.id::text AS delivery_id, d.next_attempt_at,
       d.rung_at < $2 AS is_old
FROM walked AS d
WHERE d.rung_at < $2 OR d.n = 1
ORDER BY d.next_attempt_at, d.id
LIMIT $1

-- Marks these deliveries as rung now, unless they were rung since $2. Those that only their producer has marked are not marked
-- any more: the outbox rings them, by its rules.
-- name: ring_again
WITH lost AS (
    SELECT d.tenant_id, d.id
    FROM hookseal.deliveries AS d
    WHERE d.id = ANY ($1::text[]::uuid[]) AND CASE WHEN d.state = 'pending' AND d.waiting_for IS NULL THEN d.rung_at < $2 END
    FOR UPDATE SKIP LOCKED
)
UPDATE hookseal.deliveries AS d
SET rung_at = CASE WHEN d.rung_at <> d.created_at THEN now() END
FROM lost
WHERE d.id = lost.id AND d.tenant_id IS NOT DISTINCT FROM lost.tenant_id
RETURNING d.tenant_id, d.endpoint_id::text AS endpoint_id, d.id::text AS delivery_id, d.rung_at IS NOT NULL AS is_rung

-- Counts the deliveries that hookseal itself has rung and no worker has claimed yet, up to $1, of those due since $2 (null: of
-- all); and returns since when the oldest has been due. Their order lets no plan read all of them first.
-- name: standing
SELECT count(*), min(rung.next_attempt_at) AS oldest
FROM (SELECT d.next_attempt_at
      FROM hookseal.deliveries AS d
      WHERE d.next_attempt_at IS NOT NULL AND d.waiting_for IS NULL AND d.rung_at <> d.created_at
        AND d.next_attempt_at >= coalesce($2::timestamptz, '-infinity')
      ORDER BY d.next_attempt_at, d.id
      LIMIT $1) AS rung

-- Marks deliveries as rung now that nobody has rung since they became due, $2 seconds before $3 (null: before now).
-- The leader of the outbox names its token $4, and gets nothing if it does not lead any more. The sweep names none.
-- If at most $1 are due, it takes all of them. Otherwise tenants take turns: it goes from tenant to tenant, beginning
-- behind $5, until it has passed 500 of them, or $1 with something due. Each of the latter gets the same share of $1, the
-- oldest first; or $6 deliveries, if that is given. So it reads no more in a larger backlog. The comparisons of pairs make
-- the planner use the index that begins with the tenant.
-- Those of a held endpoint or a crowded lane are not rung: they wait. The probe of a held endpoint is rung.
-- It always returns a row: whether there is a backlog, and the tenant at which it ended, empty at the end. A tenant is
-- backlogged if it has more that is due. `chores` says what else the leader has to do, so that it asks for nothing else.
-- It reads nothing that has been due since before $7 (null: it reads all). `since` says where the next look may begin: at the
-- oldest that is unrung, which another transaction may have locked; and no later than five seconds before those that count as
-- due, so that it finds what a transaction of up to five seconds has published.
-- name: ring_unrung
WITH RECURSIVE due AS MATERIALIZED (
    SELECT coalesce($7::timestamptz, '-infinity') AS since, coalesce($3::timestamptz, now()) - make_interval(secs => $2) AS until
    WHERE $4::text IS NULL
       OR EXISTS (SELECT FROM hookseal.control WHERE name = 'outbox' AND token = $4::text::uuid AND until > now())
), counted AS MATERIALIZED (
    SELECT count(*) >= $1 OR $6::integer IS NOT NULL AS is_backlog, min(oldest.next_attempt_at) AS since
    FROM (SELECT d.next_attempt_at
          FROM hookseal.deliveries AS d
          WHERE d.next_attempt_at IS NOT NULL AND d.waiting_for IS NULL AND d.rung_at IS NULL
            AND d.next_attempt_at >= (SELECT since FROM due) AND d.next_attempt_at <= (SELECT until FROM due)
          ORDER BY d.next_attempt_at, d.id
          LIMIT $1) AS oldest
), walked (tenant_id, is_due, number, with_due) AS (
    SELECT first.tenant_id, first.is_due, 1, first.is_due::integer
    FROM counted CROSS JOIN due
    CROSS JOIN LATERAL (
        SELECT d.tenant_id, d.next_attempt_at <= due.until AS is_due
        FROM hookseal.deliveries AS d
        WHERE d.next_attempt_at IS NOT NULL AND d.waiting_for IS NULL AND d.rung_at IS NULL AND d.tenant_id > $5
          AND d.next_attempt_at >= counted.since
        ORDER BY d.tenant_id, d.next_attempt_at, d.id
        LIMIT 1) AS first
    WHERE counted.is_backlog
    UNION ALL
    SELECT following.tenant_id, following.is_due, w.number + 1, w.with_due + following.is_due::integer
    FROM walked AS w CROSS JOIN counted CROSS JOIN due
    CROSS JOIN LATERAL (
        SELECT d.tenant_id, d.next_attempt_at <= due.until AS is_due
        FROM hookseal.deliveries AS d
        WHERE d.next_attempt_at IS NOT NULL AND d.waiting_for IS NULL AND d.rung_at IS NULL AND d.tenant_id > w.tenant_id
          AND d.next_attempt_at >= counted.since
        ORDER BY d.tenant_id, d.next_attempt_at, d.id
        LIMIT 1) AS following
    WHERE w.number < 500 AND w.with_due < $1
), ended AS MATERIALIZED (
    SELECT CASE WHEN w.number < 500 AND w.with_due < $1 THEN '' ELSE w.tenant_id END AS place,
           coalesce($6, $1 / greatest(w.with_due, 1)) AS share
    FROM walked AS w
    ORDER BY w.number DESC
    LIMIT 1
), all_due AS (
    SELECT d.tenant_id, d.id, d.endpoint_id
    FROM hookseal.deliveries AS d
    WHERE d.next_attempt_at IS NOT NULL AND d.waiting_for IS NULL AND d.rung_at IS NULL
      AND d.next_attempt_at >= (SELECT since FROM counted) AND d.next_attempt_at <= (SELECT until FROM due)
      AND (SELECT NOT is_backlog FROM counted)
    ORDER BY d.next_attempt_at, d.id
    LIMIT $1
    FOR UPDATE SKIP LOCKED
), in_turn AS (
    SELECT next.tenant_id, next.id, next.endpoint_id, next.next_attempt_at
    FROM walked AS w CROSS JOIN counted CROSS JOIN due
    CROSS JOIN LATERAL (
        SELECT d.tenant_id, d.id, d.endpoint_id, d.next_attempt_at
        FROM hookseal.deliveries AS d
        WHERE d.next_attempt_at IS NOT NULL AND d.waiting_for IS NULL AND d.rung_at IS NULL
          AND (d.tenant_id, d.next_attempt_at) >= (w.tenant_id, counted.since)
          AND (d.tenant_id, d.next_attempt_at) <= (w.tenant_id, due.until)
        ORDER BY d.tenant_id, d.next_attempt_at, d.id
        LIMIT (SELECT share FROM ended)
        FOR UPDATE SKIP LOCKED) AS next
    WHERE w.is_due
), last AS (
    SELECT DISTINCT ON (tenant_id) tenant_id, next_attempt_at, id
    FROM in_turn
    ORDER BY tenant_id, next_attempt_at DESC, id DESC
), backlogged AS MATERIALIZED (
    SELECT last.tenant_id
    FROM last CROSS JOIN due
    CROSS JOIN LATERAL (
        SELECT
        FROM hookseal.deliveries AS d
        WHERE d.next_attempt_at IS NOT NULL AND d.waiting_for IS NULL AND d.rung_at IS NULL
          AND (d.tenant_id, d.next_attempt_at, d.id) > (last.tenant_id, last.next_attempt_at, last.id)
          AND (d.tenant_id, d.next_attempt_at) <= (last.tenant_id, due.until)
        ORDER BY d.tenant_id, d.next_attempt_at, d.id
        LIMIT 1) AS further
), unrung AS MATERIALIZED (
    SELECT either.*
    FROM (SELECT tenant_id, id, endpoint_id FROM all_due
          UNION ALL
          SELECT tenant_id, id, endpoint_id FROM in_turn) AS either
    LIMIT $1  -- there are never more, but the planner does not know that
), judged AS (
    SELECT unrung.tenant_id, unrung.id,
           CASE WHEN h.probe_id IS DISTINCT FROM unrung.id THEN coalesce(h.waiting_for, l.waiting_for) END AS waiting_for,
           CASE WHEN h.probe_id IS DISTINCT FROM unrung.id THEN h.reason END AS reason
    FROM unrung
    LEFT JOIN hookseal.held_endpoints AS h
        ON h.tenant_id = unrung.tenant_id AND h.endpoint_id = unrung.endpoint_id AND h.released_at IS NULL
    LEFT JOIN hookseal.lanes AS l ON l.tenant_id = unrung.tenant_id AND l.endpoint_id = unrung.endpoint_id
), rung AS (
    UPDATE hookseal.deliveries AS d
    SET rung_at = CASE WHEN judged.waiting_for IS NULL THEN now() END,
        waiting_for = judged.waiting_for, held_at = CASE WHEN judged.waiting_for IS NOT NULL THEN now() END,
        last_error = coalesce(judged.reason, d.last_error)
    FROM judged
    WHERE d.id = judged.id AND d.tenant_id IS NOT DISTINCT FROM judged.tenant_id
    RETURNING d.tenant_id, d.endpoint_id, d.id, d.next_attempt_at, d.waiting_for IS NOT NULL AS waits
)
SELECT counted.is_backlog, coalesce((SELECT place FROM ended), '') AS place,
       (SELECT least(counted.since, due.until - interval '5 seconds') FROM due) AS since,
       rung.tenant_id, rung.endpoint_id::text AS endpoint_id, rung.id::text AS delivery_id, rung.waits,
       rung.tenant_id IN (SELECT tenant_id FROM backlogged) AS is_backlogged,
       concat_ws(' ', CASE WHEN EXISTS (SELECT FROM hookseal.held_endpoints) THEN 'held' END,
                 CASE WHEN EXISTS (SELECT FROM hookseal.lines) THEN 'lines' END,
                 CASE WHEN EXISTS (SELECT FROM hookseal.replays WHERE state = 'running') THEN 'replays' END) AS chores
FROM counted LEFT JOIN rung ON true
ORDER BY rung.next_attempt_at, rung.id

-- Returns the time $1 seconds ago.
-- name: seconds_ago
SELECT now() - make_interval(secs => $1)

-- Returns the longest time-out of an enabled endpoint.
-- name: longest_timeout_ms
SELECT coalesce(max(timeout_ms), 0) FROM hookseal.endpoints WHERE enabled
