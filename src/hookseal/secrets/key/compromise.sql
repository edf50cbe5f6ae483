-- The versions of all tenants that were ever sealed under a master key. The key that seals it now is compared as well as
-- the list of all keys that did, because somebody may have altered the list.

-- Reads a page of the versions that were ever sealed under the key, with their use now.
-- name: exposed
SELECT r.tenant_id,
       r.name,
       r.version,
       r.ref AS ref,
       r.purpose,
       r.state,
       e.id::text AS endpoint_id,
       e.generation,
       CASE r.ref
            WHEN e.secret_ref THEN 'current'
            WHEN e.previous_secret_ref THEN 'previous'
            WHEN e.headers_ref THEN 'headers'
            WHEN e.tls_ref THEN 'tls' END AS used_as,
       -- If the current version is exposed, too, its rotation ends the overlap.
       CASE WHEN r.ref = e.previous_secret_ref
            THEN coalesce(e.previous_secret_expires_at > now(), false)
                 AND NOT EXISTS (SELECT
                                   FROM hookseal.secret_records AS c
                                  WHERE c.tenant_id = r.tenant_id AND c.name = r.name
                                    AND c.ref = e.secret_ref
                                    AND ($1 = ANY (c.wrapped_by) OR c.key_id = $1))
            ELSE false END AS signs_on
  FROM hookseal.secret_records AS r
  LEFT JOIN hookseal.endpoints AS e
    ON e.tenant_id = r.tenant_id AND e.id = r.endpoint_id
 WHERE ($1 = ANY (r.wrapped_by) OR r.key_id = $1)
   AND (r.tenant_id, r.name, r.version) > ($2, $3, $4::bigint)
 ORDER BY r.tenant_id, r.name, r.version
 LIMIT $5

-- Counts the versions that were ever sealed under the key.
-- name: count
SELECT count(*)
  FROM hookseal.secret_records AS r
 WHERE $1 = ANY (r.wrapped_by) OR r.key_id = $1
