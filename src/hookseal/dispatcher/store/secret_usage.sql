-- The use of the versions of an endpoint's secret: finished attempts, and claims in flight.

-- Counts the attempts of an endpoint by the secrets that signed them.
-- name: attempts
SELECT signed.ref, count(*) AS attempts, max(a.started_at) AS last_signed_at
FROM hookseal.delivery_links AS l
JOIN hookseal.attempts AS a ON a.tenant_id = l.tenant_id AND a.delivery_id = l.id
CROSS JOIN LATERAL unnest(a.signed_by) AS signed (ref)
WHERE l.tenant_id = $1 AND l.endpoint_id = $2::text::uuid
GROUP BY signed.ref

-- Counts the claims in flight of an endpoint by the secrets that they read.
-- A claim whose lease has expired sends nothing more; the sweep records its attempt.
-- name: claims
SELECT held.ref, count(*) AS claims
FROM hookseal.deliveries AS d
CROSS JOIN LATERAL unnest(d.claimed_refs) AS held (ref)
WHERE d.tenant_id = $1 AND d.endpoint_id = $2::text::uuid AND d.state = 'sending' AND d.lease_expires_at > now()
GROUP BY held.ref
