-- The records of one master key, of all tenants, in the order of their index. Only heads are read and written.

-- Reads the heads of the next records of a key, and skips locked rows.
-- name: skip_locked
SELECT tenant_id, name, version, purpose, substring(sealed FROM 1 FOR $6) AS head
  FROM hookseal.secret_records
 WHERE key_id = $1 AND (tenant_id, name, version) > ($2, $3, $4::bigint)
 ORDER BY tenant_id, name, version
 LIMIT $5
   FOR UPDATE SKIP LOCKED

-- Reads which records of a key are next, locked or not.
-- name: next
SELECT tenant_id, name, version
  FROM hookseal.secret_records
 WHERE key_id = $1 AND (tenant_id, name, version) > ($2, $3, $4::bigint)
 ORDER BY tenant_id, name, version
 LIMIT $5

-- Reads the head of one record, unless it is not under the key any more, and waits for its lock.
-- name: wait
SELECT tenant_id, name, version, purpose, substring(sealed FROM 1 FOR $5) AS head
  FROM hookseal.secret_records
 WHERE key_id = $1 AND tenant_id = $2 AND name = $3 AND version = $4
   FOR UPDATE

-- Writes the new heads of a batch.
-- It keeps the body of the row, and writes only if the head is still the one that was read: so no other change is lost.
-- name: write
UPDATE hookseal.secret_records AS r
   SET sealed = new.head || substring(r.sealed FROM $7 + 1),
       wrapped_by = CASE WHEN $1 = ANY (r.wrapped_by) THEN r.wrapped_by ELSE r.wrapped_by || $1::text END
  FROM unnest($2::text[], $3::text[], $4::bigint[], $5::bytea[], $6::bytea[])
       AS new (tenant_id, name, version, old_head, head)
 WHERE r.tenant_id = new.tenant_id AND r.name = new.name AND r.version = new.version
   AND substring(r.sealed FROM 1 FOR $7) = new.old_head

-- Lists some of the records that the key once sealed and that now name an unregistered key, or a key that never sealed
-- them: they were altered.
-- name: altered
SELECT r.tenant_id, r.name, r.version, k.key_id IS NOT NULL AS is_registered
  FROM hookseal.secret_records AS r
  LEFT JOIN hookseal.secret_keys AS k ON k.key_id = r.key_id
 WHERE $1 = ANY (r.wrapped_by) AND r.sealed IS NOT NULL
   AND (r.key_id <> ALL (r.wrapped_by) OR k.key_id IS NULL)
 ORDER BY r.tenant_id, r.name, r.version
 LIMIT $2
