-- Reads the secret columns of an endpoint's row.
-- name: read_row
SELECT e.secret_ref, e.generation, e.mac
FROM hookseal.endpoints AS e
WHERE e.tenant_id = $1 AND e.id = $2::text::uuid

-- Writes older secret columns back into an endpoint's row.
-- An attacker with write access to the table does this to make a revoked secret sign again.
-- name: write_row
UPDATE hookseal.endpoints AS e
SET secret_ref = $3, generation = $4, mac = $5
WHERE e.tenant_id = $1 AND e.id = $2::text::uuid
