-- The pointer columns of an endpoint: which secrets sign for it. This room alone writes them.

-- name: lock
SELECT tenant_id,
       id::text AS endpoint_id,
       url,
       scheme,
       algorithm,
       secret_ref,
       previous_secret_ref,
       previous_secret_expires_at,
       previous_secret_ref IS NOT NULL AND coalesce(previous_secret_expires_at > now(), false) AS previous_due,
       lead,
       generation,
       mac,
       mac_key_id
  FROM hookseal.endpoints
 WHERE tenant_id = $1 AND id = $2
   FOR UPDATE

-- name: set_first
UPDATE hookseal.endpoints
   SET secret_ref = $3,
       secret_provider = $4,
       secret_updated_at = now(),
       generation = $5,
       mac = $6,
       mac_key_id = $7
 WHERE tenant_id = $1 AND id = $2
