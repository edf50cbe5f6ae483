-- The active key. It belongs to the installation, so no statement here has a tenant.

-- Keeps the same key active until the transaction ends; others may seal at the same time.
-- name: lock_shared
LOCK TABLE hookseal.key_lock IN ROW EXCLUSIVE MODE

-- Keeps all others from sealing, and from changing the table of keys, until the transaction ends.
-- name: lock_exclusive
LOCK TABLE hookseal.key_lock IN SHARE ROW EXCLUSIVE MODE

-- Returns the id of the active key.
-- name: active
SELECT key_id FROM hookseal.secret_keys WHERE state = 'active'
