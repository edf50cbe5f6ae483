-- The key that seals. It belongs to the installation, so no statement here has a tenant.

-- name: share
LOCK TABLE hookseal.key_lock IN ROW EXCLUSIVE MODE

-- name: hold
LOCK TABLE hookseal.key_lock IN SHARE ROW EXCLUSIVE MODE

-- name: active
SELECT key_id FROM hookseal.secret_keys WHERE state = 'active'
