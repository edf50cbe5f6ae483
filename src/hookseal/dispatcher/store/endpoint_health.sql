-- The health of endpoints: since when each is failing. No statement waits for a lock: an endpoint whose row another
-- transaction has locked is left to the next time.

-- Notes that these enabled endpoints are failing, and returns those that were not failing before.
-- name: mark_failing
WITH failing AS (
    SELECT e.tenant_id, e.id, e.first_failure_at
    FROM unnest($1::text[], $2::text[]::uuid[]) AS f (tenant_id, id)
    JOIN hookseal.endpoints AS e ON e.tenant_id = f.tenant_id AND e.id = f.id
    WHERE e.enabled
    FOR NO KEY UPDATE OF e SKIP LOCKED
), marked AS (
    UPDATE hookseal.endpoints AS e
    SET first_failure_at = coalesce(failing.first_failure_at, now()), last_failure_at = now()
    FROM failing
    WHERE e.tenant_id = failing.tenant_id AND e.id = failing.id
)
SELECT tenant_id, id::text AS endpoint_id FROM failing WHERE first_failure_at IS NULL

-- Notes that these endpoints are not failing any more, and returns those that were.
-- name: mark_recovered
WITH recovered AS (
    SELECT e.tenant_id, e.id
    FROM unnest($1::text[], $2::text[]::uuid[]) AS f (tenant_id, id)
    JOIN hookseal.endpoints AS e ON e.tenant_id = f.tenant_id AND e.id = f.id
    WHERE e.first_failure_at IS NOT NULL
    FOR NO KEY UPDATE OF e SKIP LOCKED
), marked AS (
    UPDATE hookseal.endpoints AS e
    SET first_failure_at = NULL, last_failure_at = NULL
    FROM recovered
    WHERE e.tenant_id = recovered.tenant_id AND e.id = recovered.id
)
SELECT tenant_id, id::text AS endpoint_id FROM recovered

-- Reads a page of the enabled endpoints that have been failing for $1 seconds, from their first to their last failure.
-- name: failing_too_long
SELECT e.tenant_id, e.id::text AS endpoint_id, e.first_failure_at
FROM hookseal.endpoints AS e
WHERE e.first_failure_at < now() - make_interval(secs => $1) AND e.enabled
  AND e.last_failure_at - e.first_failure_at >= make_interval(secs => $1)
  AND (e.first_failure_at, e.id) > ($3::timestamptz, $4::text::uuid)
ORDER BY e.first_failure_at, e.id
LIMIT $2

-- Disables one of them, if it still is one.
-- name: disable_failing
WITH failing AS (
    SELECT e.tenant_id, e.id, e.first_failure_at
    FROM hookseal.endpoints AS e
    WHERE e.tenant_id = $2 AND e.id = $3::text::uuid
      AND e.first_failure_at < now() - make_interval(secs => $1) AND e.enabled
      AND e.last_failure_at - e.first_failure_at >= make_interval(secs => $1)
    FOR NO KEY UPDATE OF e SKIP LOCKED
)
UPDATE hookseal.endpoints AS e
SET enabled = false, disabled_at = now(),
    disabled_reason = 'no attempt has succeeded since '
        || to_char(failing.first_failure_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
        || ' (HOOKSEAL_DISABLE_AFTER_SECONDS is ' || $1::integer || ')'
FROM failing
WHERE e.tenant_id = failing.tenant_id AND e.id = failing.id
RETURNING e.disabled_reason AS reason
