-- Records of one master key, of every tenant, in the order of their index. Only heads are read and written.

-- name: free
SELECT tenant_id, name, version, purpose, substring(sealed FROM 1 FOR $6) AS head
  FROM hookseal.secret_records
 WHERE key_id = $1 AND (tenant_id, name, version) > ($2, $3, $4::bigint)
 ORDER BY tenant_id, name, version
 LIMIT $5
   FOR UPDATE SKIP LOCKED

-- name: held
SELECT tenant_id, name, version, purpose, substring(sealed FROM 1 FOR $6) AS head
  FROM hookseal.secret_records
 WHERE key_id = $1 AND (tenant_id, name, version) > ($2, $3, $4::bigint)
 ORDER BY tenant_id, name, version
 LIMIT $5
   FOR UPDATE

-- The body is what stands there: compared is the head that was read, so nothing that was written since is lost.
-- name: write
UPDATE hookseal.secret_records AS r
   SET sealed = new.head || substring(r.sealed FROM $7 + 1),
       key_id = $1,
       wrapped_by = CASE WHEN $1 = ANY (r.wrapped_by) THEN r.wrapped_by ELSE r.wrapped_by || $1::text END
  FROM unnest($2::text[], $3::text[], $4::bigint[], $5::bytea[], $6::bytea[])
       AS new (tenant_id, name, version, old_head, head)
 WHERE r.tenant_id = new.tenant_id AND r.name = new.name AND r.version = new.version
   AND substring(r.sealed FROM 1 FOR $7) = new.old_head

-- By the id inside the record, which nothing indexes: asked once, where records are left.
-- name: misnamed
SELECT tenant_id, name, version
  FROM hookseal.secret_records
 WHERE substring(sealed FROM 3 FOR 8) = decode($1, 'hex') AND key_id <> $1
 ORDER BY tenant_id, name, version
 LIMIT $2
