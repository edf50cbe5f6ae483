-- name: states
SELECT d.state, count(*) AS deliveries
FROM hookseal.deliveries AS d
WHERE d.tenant_id = $1 AND d.endpoint_id = $2::text::uuid
GROUP BY d.state

-- name: state
SELECT d.state
FROM hookseal.deliveries AS d
WHERE d.tenant_id = $1 AND d.id = $2::text::uuid
