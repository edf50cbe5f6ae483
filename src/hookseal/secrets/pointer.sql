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
       headers_ref,
       tls_ref,
       generation,
       mac,
       mac_key_id,
       coalesce((SELECT epoch FROM hookseal.control WHERE name = 'cache'), -1) AS cache_epoch,
       coalesce((SELECT epoch FROM hookseal.control WHERE name = 'restore'), -1) AS restore_epoch,
       now() AS read_at,
       (SELECT max(l.generation)
          FROM hookseal.audit_log AS l
         WHERE l.tenant_id = $1 AND l.subject = 'endpoint:' || $2::text) AS audited_generation
  FROM hookseal.endpoints
 WHERE tenant_id = $1 AND id = $2::text::uuid
   FOR UPDATE

-- name: page
SELECT e.tenant_id,
       e.id::text AS endpoint_id,
       e.url,
       e.scheme,
       e.algorithm,
       e.secret_ref,
       e.previous_secret_ref,
       e.previous_secret_expires_at,
       e.previous_scheme,
       e.previous_algorithm,
       e.previous_secret_ref IS NOT NULL AND coalesce(e.previous_secret_expires_at > now(), false) AS previous_due,
       e.lead,
       e.headers_ref,
       e.tls_ref,
       e.generation,
       e.mac,
       e.mac_key_id,
       coalesce((SELECT epoch FROM hookseal.control WHERE name = 'cache'), -1) AS cache_epoch,
       coalesce((SELECT epoch FROM hookseal.control WHERE name = 'restore'), -1) AS restore_epoch,
       now() AS read_at,
       (SELECT max(l.generation)
          FROM hookseal.audit_log AS l
         WHERE l.tenant_id = e.tenant_id AND l.subject = 'endpoint:' || e.id) AS audited_generation
  FROM hookseal.endpoints AS e
 WHERE ($1::text IS NULL OR e.tenant_id = $1) AND (e.tenant_id, e.id) > ($2, $3::text::uuid)
 ORDER BY e.tenant_id, e.id
 LIMIT $4

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
       headers_ref = $16,
       tls_ref = $17,
       secret_updated_at = CASE WHEN secret_ref IS DISTINCT FROM $6 THEN now() ELSE secret_updated_at END
 WHERE tenant_id = $1 AND id = $2::text::uuid

-- name: moment
SELECT now() + make_interval(secs => $1)
