-- The columns of an endpoint that the dispatcher writes. None of them is part of a key, so claims do not wait for a lock.

-- Adds an endpoint without a secret, unless the tenant already has an endpoint with this url and it may not share one.
-- name: insert
INSERT INTO hookseal.endpoints
    (tenant_id, id, url, event_types, name, timeout_ms, max_attempts, backoff_base_seconds, backoff_cap_seconds,
     retry_schedule, concurrency, rate, rotate_every_days, ordered, on_dead_letter, uid, description, metadata,
     shares_url, channels)
SELECT $1, coalesce($13::text::uuid, hookseal.uuid7()), $2, $3, $4, $5, $6, $7, $8, $9::text[]::integer[], $10, $11, $12, $14,
       $15, $16, $17, $18::text::jsonb, $19, $20
WHERE $19::boolean OR NOT EXISTS (SELECT FROM hookseal.endpoints WHERE tenant_id = $1 AND url = $2)
ON CONFLICT (tenant_id, url, (CASE WHEN NOT shares_url THEN true END)) DO NOTHING
RETURNING id::text

-- Returns which endpoint of the tenant has the url: of several the one with the id $3, else the one with the lowest id.
-- name: at_url
SELECT id::text
FROM hookseal.endpoints
WHERE tenant_id = $1 AND url = $2
ORDER BY id IS DISTINCT FROM $3::text::uuid, id
LIMIT 1

-- Lets the endpoint have the url of another one.
-- name: share_url
UPDATE hookseal.endpoints
SET shares_url = true
WHERE tenant_id = $1 AND id = $2::text::uuid AND NOT shares_url

-- Writes the names of the endpoint's own headers.
-- name: name_headers
UPDATE hookseal.endpoints
SET header_names = $3
WHERE tenant_id = $1 AND id = $2::text::uuid

-- Writes the description of its TLS identity.
-- name: show_tls
UPDATE hookseal.endpoints
SET tls_shown = $3::text::jsonb
WHERE tenant_id = $1 AND id = $2::text::uuid

-- Reads and locks the settings of an endpoint. Claims do not wait for this lock.
-- name: lock
SELECT event_types, name, timeout_ms, max_attempts, backoff_base_seconds, backoff_cap_seconds,
       retry_schedule::text[] AS retry_schedule, concurrency, rate, ordered, on_dead_letter, rotate_every_days, header_names,
       tls_shown::text AS tls_shown, enabled, disabled_reason, uid, description, metadata::text AS metadata,
       channels
FROM hookseal.endpoints
WHERE tenant_id = $1 AND id = $2::text::uuid
FOR NO KEY UPDATE

-- Writes the settings of an endpoint, except whether it is enabled or ordered.
-- name: change
UPDATE hookseal.endpoints
SET event_types = $3, name = $4, timeout_ms = $5, max_attempts = $6, backoff_base_seconds = $7, backoff_cap_seconds = $8,
    retry_schedule = $9::text[]::integer[], concurrency = $10, rate = $11, rotate_every_days = $12, header_names = $13,
    tls_shown = $14::text::jsonb, on_dead_letter = $15, uid = $16, description = $17, metadata = $18::text::jsonb,
    channels = $19
WHERE tenant_id = $1 AND id = $2::text::uuid

-- Enables the endpoint. It keeps why and when it was disabled last.
-- name: enable
UPDATE hookseal.endpoints
SET enabled = true, last_disabled_reason = disabled_reason, last_disabled_at = disabled_at,
    disabled_reason = NULL, disabled_at = NULL
WHERE tenant_id = $1 AND id = $2::text::uuid

-- Disables the endpoint from the next claim on.
-- name: disable
UPDATE hookseal.endpoints
SET enabled = false, disabled_reason = $3, disabled_at = now()
WHERE tenant_id = $1 AND id = $2::text::uuid

-- Deletes the endpoint's row; its deliveries stay.
-- name: delete
DELETE FROM hookseal.endpoints
WHERE tenant_id = $1 AND id = $2::text::uuid

-- Returns the shortest drain of the live workers.
-- name: smallest_drain
SELECT min(drain_seconds)
FROM hookseal.workers
WHERE beaten_at > now() - make_interval(secs => $1)
