-- What the versions of an endpoint's secret signed, and what may still be sent signed with them.

-- name: attempts
SELECT signed.ref, count(*) AS attempts, max(a.started_at) AS last_signed_at
FROM hookseal.deliveries AS d
JOIN hookseal.attempts AS a ON a.tenant_id = d.tenant_id AND a.delivery_id = d.id
CROSS JOIN LATERAL unnest(a.signed_by) AS signed (ref)
WHERE d.tenant_id = $1 AND d.endpoint_id = $2::text::uuid
GROUP BY signed.ref

-- A claim whose lease is over sends nothing any more: its attempt is written once a sweep finds it.
-- name: claims
SELECT held.ref, count(*) AS claims
FROM hookseal.deliveries AS d
CROSS JOIN LATERAL unnest(d.claimed_refs) AS held (ref)
WHERE d.tenant_id = $1 AND d.endpoint_id = $2::text::uuid AND d.state = 'sending' AND d.lease_expires_at > now()
GROUP BY held.ref
