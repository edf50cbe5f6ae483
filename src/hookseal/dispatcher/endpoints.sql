-- The columns of an endpoint that the dispatcher writes. None of them is a key column: claims need not wait.

-- name: insert
INSERT INTO hookseal.endpoints
    (tenant_id, id, url, event_types, name, timeout_ms, max_attempts, backoff_base_seconds, backoff_cap_seconds,
     retry_schedule, rotate_every_days)
VALUES ($1, coalesce($11::text::uuid, hookseal.uuid7()), $2, $3, $4, $5, $6, $7, $8, $9, $10)
ON CONFLICT (tenant_id, url) DO NOTHING
RETURNING id::text

-- name: at_url
SELECT id::text
FROM hookseal.endpoints
WHERE tenant_id = $1 AND url = $2

-- name: name_headers
UPDATE hookseal.endpoints
SET header_names = $3
WHERE tenant_id = $1 AND id = $2::text::uuid

-- name: show_tls
UPDATE hookseal.endpoints
SET tls_shown = $3::jsonb
WHERE tenant_id = $1 AND id = $2::text::uuid

-- name: lock
SELECT event_types, name, timeout_ms, max_attempts, backoff_base_seconds, backoff_cap_seconds, retry_schedule,
       rotate_every_days, header_names, tls_shown, enabled, disabled_reason
FROM hookseal.endpoints
WHERE tenant_id = $1 AND id = $2::text::uuid
FOR NO KEY UPDATE

-- name: change
UPDATE hookseal.endpoints
SET event_types = $3, name = $4, timeout_ms = $5, max_attempts = $6, backoff_base_seconds = $7, backoff_cap_seconds = $8,
    retry_schedule = $9, rotate_every_days = $10, header_names = $11, tls_shown = $12::jsonb
WHERE tenant_id = $1 AND id = $2::text::uuid

-- name: enable
UPDATE hookseal.endpoints
SET enabled = true, disabled_reason = NULL, disabled_at = NULL
WHERE tenant_id = $1 AND id = $2::text::uuid

-- name: disable
UPDATE hookseal.endpoints
SET enabled = false, disabled_reason = $3, disabled_at = now()
WHERE tenant_id = $1 AND id = $2::text::uuid

-- name: delete
DELETE FROM hookseal.endpoints
WHERE tenant_id = $1 AND id = $2::text::uuid

-- name: smallest_drain
SELECT min(drain_seconds)
FROM hookseal.workers
WHERE beaten_at > now() - make_interval(secs => $1)
