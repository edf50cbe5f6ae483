-- name: states
SELECT d.state, count(*) AS deliveries
FROM hookseal.deliveries AS d
WHERE d.tenant_id = $1 AND d.endpoint_id = $2::text::uuid
GROUP BY d.state

-- name: state
SELECT d.state
FROM hookseal.deliveries AS d
WHERE d.tenant_id = $1 AND d.id = $2::text::uuid

-- name: row
SELECT e.secret_ref, e.generation, e.mac
FROM hookseal.endpoints AS e
WHERE e.tenant_id = $1 AND e.id = $2::text::uuid

-- What somebody does who may write the table, and would have a revoked secret sign again.
-- name: put_back
UPDATE hookseal.endpoints AS e
SET secret_ref = $3, generation = $4, mac = $5
WHERE e.tenant_id = $1 AND e.id = $2::text::uuid

-- name: waits_for
SELECT d.waiting_for
FROM hookseal.deliveries AS d
WHERE d.tenant_id = $1 AND d.id = $2::text::uuid
