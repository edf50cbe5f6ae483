-- Tenants. An id and a uid never mean different tenants, so that one text may be either.

-- What is shown of a tenant.
-- name: shown
t.tenant_id, t.uid, t.name, t.metadata::text AS metadata, t.created_at, t.updated_at

-- Adds a tenant, by default with a new id. A deleted one that has no history left begins anew.
-- name: add
INSERT INTO hookseal.tenants AS t (tenant_id, uid, name, metadata)
VALUES (coalesce($1, 'app_' || replace(hookseal.uuid7()::text, '-', '')), $2, $3, $4::text::json)
ON CONFLICT (tenant_id) DO UPDATE
SET uid = excluded.uid, name = excluded.name, metadata = excluded.metadata,
    created_at = now(), updated_at = now(), deleted_at = NULL
WHERE t.deleted_at IS NOT NULL
  AND NOT EXISTS (SELECT FROM hookseal.events AS e WHERE e.tenant_id = t.tenant_id)
  AND NOT EXISTS (SELECT FROM hookseal.delivery_links AS l WHERE l.tenant_id = t.tenant_id)
RETURNING {shown}

-- Returns the tenant with this id or uid, each of which has an index.
-- name: get
SELECT {shown}
FROM hookseal.tenants AS t
WHERE t.tenant_id = ANY (ARRAY(SELECT u.tenant_id FROM hookseal.tenants AS u WHERE u.uid = $1 AND u.deleted_at IS NULL) || $1::text)
  AND t.deleted_at IS NULL

-- The same, and locks its row: it then gets no endpoint until the transaction ends.
-- name: lock
SELECT {shown}
FROM hookseal.tenants AS t
WHERE (t.tenant_id = $1 OR t.uid = $1) AND t.deleted_at IS NULL
FOR UPDATE

-- Stores what was changed.
-- name: update
UPDATE hookseal.tenants AS t
SET uid = $2, name = $3, metadata = $4::text::json, updated_at = now()
WHERE t.tenant_id = $1
RETURNING {shown}

-- Returns the endpoints of a tenant that is to be deleted.
-- name: endpoints
SELECT e.id::text AS id
FROM hookseal.endpoints AS e
WHERE e.tenant_id = $1
ORDER BY e.id
LIMIT $2

-- Deletes the tenant, and keeps nothing of it but its id.
-- name: delete
UPDATE hookseal.tenants AS t
SET deleted_at = now(), uid = NULL, name = NULL, metadata = '{}'
WHERE t.tenant_id = $1

-- Returns when a tenant was added, also a deleted one.
-- name: added_at
SELECT t.created_at
FROM hookseal.tenants AS t
WHERE t.tenant_id = $1

-- Returns tenants after one of that time and id, the oldest first.
-- name: oldest
SELECT {shown}
FROM hookseal.tenants AS t
WHERE t.deleted_at IS NULL AND (t.created_at, t.tenant_id) > ($1::timestamptz, $2::text)
ORDER BY t.created_at, t.tenant_id
LIMIT $3

-- The same, the newest first.
-- name: newest
SELECT {shown}
FROM hookseal.tenants AS t
WHERE t.deleted_at IS NULL AND (t.created_at, t.tenant_id) < ($1::timestamptz, $2::text)
ORDER BY t.created_at DESC, t.tenant_id DESC
LIMIT $3
