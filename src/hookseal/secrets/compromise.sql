-- Every version that was ever sealed under a master key, of all tenants. By the column of now, and by the id inside the
-- record, as well: somebody may have written the others.

-- name: exposed
SELECT r.tenant_id,
       r.name,
       r.version,
       concat_ws(':', r.provider, r.tenant_id, r.name, r.version) AS ref,
       r.purpose,
       r.state,
       e.id::text AS endpoint_id,
       e.generation,
       CASE concat_ws(':', r.provider, r.tenant_id, r.name, r.version)
            WHEN e.secret_ref THEN 'current'
            WHEN e.previous_secret_ref THEN 'previous'
            WHEN e.headers_ref THEN 'headers'
            WHEN e.tls_ref THEN 'tls' END AS used_as,
       -- A rotation of a current one that is exposed, too, ends the overlap by itself.
       CASE WHEN concat_ws(':', r.provider, r.tenant_id, r.name, r.version) = e.previous_secret_ref
            THEN coalesce(e.previous_secret_expires_at > now(), false)
                 AND NOT EXISTS (SELECT
                                   FROM hookseal.secret_records AS c
                                  WHERE c.tenant_id = r.tenant_id AND c.name = r.name
                                    AND concat_ws(':', c.provider, c.tenant_id, c.name, c.version) = e.secret_ref
                                    AND ($1 = ANY (c.wrapped_by) OR c.key_id = $1
                                         OR substring(c.sealed FROM 3 FOR 8) = decode($1, 'hex')))
            ELSE false END AS signs_on
  FROM hookseal.secret_records AS r
  LEFT JOIN hookseal.endpoints AS e
    ON e.tenant_id = r.tenant_id
   AND e.id = substring(r.name FROM '^(?:webhook-endpoint|endpoint-headers|endpoint-tls)-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$')::uuid
 WHERE ($1 = ANY (r.wrapped_by) OR r.key_id = $1 OR substring(r.sealed FROM 3 FOR 8) = decode($1, 'hex'))
   AND (r.tenant_id, r.name, r.version) > ($2, $3, $4::bigint)
 ORDER BY r.tenant_id, r.name, r.version
 LIMIT $5

-- name: count
SELECT count(*)
  FROM hookseal.secret_records AS r
 WHERE $1 = ANY (r.wrapped_by) OR r.key_id = $1 OR substring(r.sealed FROM 3 FOR 8) = decode($1, 'hex')
