-- Versions to retire, and versions that were retired long ago, to destroy. Only the secrets of endpoints are found, by
-- their purposes: the installation's own secrets have others.

-- Reads a page of the endpoints whose previous version must be retired: their overlap ended a while ago.
-- name: ended_overlaps
SELECT e.tenant_id, e.id::text AS endpoint_id
  FROM hookseal.endpoints AS e
 WHERE e.previous_secret_ref IS NOT NULL
   AND e.previous_secret_expires_at <= now() - make_interval(secs => $1::float8)
   AND (e.tenant_id, e.id) > (coalesce($2::text, ''), coalesce($3::text, '00000000-0000-0000-0000-000000000000')::uuid)
 ORDER BY e.tenant_id, e.id
 LIMIT $4

-- Lists the tenants that may have a version to destroy.
-- name: tenants
SELECT DISTINCT r.tenant_id
  FROM hookseal.secret_records AS r
 WHERE r.state = 'retired' AND r.purpose = ANY ($1::text[])
   AND r.changed_at BETWEEN '2000-01-01Z' AND now() - make_interval(secs => $2::float8)
   AND r.tenant_id <> '_system'
 ORDER BY r.tenant_id

-- Locks a batch of the versions whose material is no longer needed.
-- It leaves out versions that the pointer of their endpoint names (no other pointer may), and those that a claim in
-- flight may still read. A claim stores which versions sign; it reads the headers and the TLS identity of the generation
-- that it stores.
-- name: lock_expired
SELECT r.ref, r.key_id, r.changed_at AS retired_at
  FROM hookseal.secret_records AS r
  LEFT JOIN hookseal.endpoints AS e ON e.tenant_id = r.tenant_id AND e.id = r.endpoint_id
 WHERE r.tenant_id = $1 AND r.state = 'retired' AND r.purpose = ANY ($2::text[])
   AND r.changed_at BETWEEN '2000-01-01Z' AND now() - make_interval(secs => $3::float8)
   AND r.ref IS DISTINCT FROM e.secret_ref
   AND r.ref IS DISTINCT FROM e.previous_secret_ref
   AND r.ref IS DISTINCT FROM e.headers_ref
   AND r.ref IS DISTINCT FROM e.tls_ref
   AND NOT EXISTS (
       SELECT
         FROM hookseal.deliveries AS d
        WHERE d.tenant_id = r.tenant_id AND d.state = 'sending' AND d.lease_expires_at > now()
          AND (r.ref = ANY (d.claimed_refs)
               OR (r.purpose IN ('endpoint-headers', 'endpoint-tls') AND d.endpoint_id = r.endpoint_id
                   AND (e.id IS NULL OR d.claimed_generation < e.generation))))
   AND (r.name, r.version) > (coalesce($4::text, ''), coalesce($5::bigint, 0))
 ORDER BY r.name, r.version
 LIMIT $6
   FOR UPDATE OF r SKIP LOCKED

-- Destroys the material of a batch of versions.
-- One statement for a batch, so that the cache epoch moves once (a trigger moves it).
-- name: destroy
UPDATE hookseal.secret_records AS r
   SET state = 'destroyed', sealed = NULL, share = NULL, changed_at = now()
  FROM unnest($2::text[], $3::text[]::bigint[]) AS expired (name, version)
 WHERE r.tenant_id = $1 AND r.name = expired.name AND r.version = expired.version AND r.state = 'retired'
