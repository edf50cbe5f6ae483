-- Counts the deliveries of an endpoint by state.
-- name: states
SELECT d.state, count(*) AS deliveries
FROM hookseal.deliveries AS d
WHERE d.tenant_id = $1 AND d.endpoint_id = $2::text::uuid
GROUP BY d.state

-- Returns the state of a delivery.
-- name: state
SELECT d.state
FROM hookseal.deliveries AS d
WHERE d.tenant_id = $1 AND d.id = $2::text::uuid

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

-- Returns what a delivery waits for.
-- name: waiting_for
SELECT d.waiting_for
FROM hookseal.deliveries AS d
WHERE d.tenant_id = $1 AND d.id = $2::text::uuid
