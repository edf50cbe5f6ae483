-- The key that seals. It belongs to the installation, so no statement here has a tenant.

-- name: share
SELECT pg_advisory_xact_lock_shared($1)

-- name: hold
SELECT pg_advisory_xact_lock($1)

-- name: active
SELECT key_id FROM hookseal.secret_keys WHERE state = 'active'
