-- The pointer columns of an endpoint: where its requests go and which secrets sign them. This room alone moves them.

-- name: lock
SELECT tenant_id,
       id::text AS endpoint_id,
       url,
       scheme,
       algorithm,
       secret_ref,
       previous_secret_ref,
       previous_secret_expires_at,
       previous_scheme,
       previous_algorithm,
       previous_secret_ref IS NOT NULL AND coalesce(previous_secret_expires_at > now(), false) AS previous_due,
       lead,
       generation,
       mac,
       mac_key_id,
       (SELECT epoch FROM hookseal.control WHERE name = 'cache') AS cache_epoch
  FROM hookseal.endpoints
 WHERE tenant_id = $1 AND id = $2::text::uuid
   FOR UPDATE

-- name: move
UPDATE hookseal.endpoints
   SET url = $3,
       scheme = $4,
       algorithm = $5,
       secret_ref = $6,
       previous_secret_ref = $7,
       previous_secret_expires_at = $8,
       previous_scheme = $9,
       previous_algorithm = $10,
       lead = $11,
       generation = $12,
       mac = $13,
       mac_key_id = $14,
       secret_provider = $15,
       secret_updated_at = CASE WHEN secret_ref IS DISTINCT FROM $6 THEN now() ELSE secret_updated_at END
 WHERE tenant_id = $1 AND id = $2::text::uuid

-- name: moment
SELECT now() + make_interval(secs => $1)
