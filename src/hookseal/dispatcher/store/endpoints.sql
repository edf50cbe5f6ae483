-- The columns of an endpoint that the dispatcher writes. None of them is part of a key, so claims do not wait for a lock.

-- Rows of settings are passed and returned as JSON, by the names of their columns.

-- The columns of the settings that `EndpointSettings` declares.
-- name: settings
{hookseal.dispatcher.core.endpoint_settings:COLUMNS}

-- Those of them that may change.
-- name: changeable
{hookseal.dispatcher.core.endpoint_settings:CHANGEABLE}

-- Adds an endpoint without a secret, unless the tenant already has an endpoint with this url and it may not share one.
-- name: insert
INSERT INTO hookseal.endpoints (tenant_id, id, url, shares_url, event_types, {settings})
SELECT $1, coalesce($2::text::uuid, hookseal.uuid7()), $3, $4, event_types, {settings}
FROM jsonb_populate_record(NULL::hookseal.endpoints, $5::text::jsonb)
WHERE $4::boolean OR NOT EXISTS (SELECT FROM hookseal.endpoints AS e WHERE e.tenant_id = $1 AND e.url = $3)
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
SELECT to_jsonb(e)::text
FROM (SELECT event_types, {settings}, header_names, tls_shown, enabled, disabled_reason
      FROM hookseal.endpoints
      WHERE tenant_id = $1 AND id = $2::text::uuid
      FOR NO KEY UPDATE) AS e

-- Writes the settings of an endpoint, except whether it is enabled or ordered.
-- name: change
UPDATE hookseal.endpoints
SET (event_types, {changeable}, header_names, tls_shown)
    = (SELECT event_types, {changeable}, header_names, tls_shown
       FROM jsonb_populate_record(NULL::hookseal.endpoints, $3::text::jsonb))
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
