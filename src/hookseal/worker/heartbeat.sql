-- name: beat
INSERT INTO hookseal.workers (id, version, drain_seconds, lease_seconds, key_ids)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (id) DO UPDATE SET beaten_at = now()

-- name: forget
DELETE FROM hookseal.workers WHERE beaten_at < now() - interval '1 hour'

-- name: leave
DELETE FROM hookseal.workers WHERE id = $1
