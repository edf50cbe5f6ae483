-- The plaintext secrets of an older system. Every statement but the counts needs the column; nobody signs from it.

-- name: unmigrated
SELECT count(*)
  FROM hookseal.endpoints
 WHERE has_plaintext AND secret_ref IS NULL

-- name: held
SELECT count(*)
  FROM hookseal.endpoints
 WHERE has_plaintext

-- name: page
SELECT tenant_id, id::text AS endpoint_id
  FROM hookseal.endpoints
 WHERE has_plaintext AND (tenant_id, id) > ($1, $2::text::uuid)
 ORDER BY tenant_id, id
 LIMIT $3

-- The columns of `lock` in pointer.sql, with the plaintext and whether a delivery is held back, in one statement: there
-- are many rows to go through. Until the lock is gone no other delivery of the endpoint is claimed, so none begins to wait.
-- name: lock
SELECT convert_to(secret, 'UTF8') AS plaintext,
       EXISTS (SELECT
                 FROM hookseal.deliveries AS d
                WHERE d.tenant_id = $1 AND d.endpoint_id = $2::text::uuid
                  AND d.state = 'pending' AND d.waiting_for IS NOT NULL) AS some_wait,
       tenant_id,
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

-- name: empty
UPDATE hookseal.endpoints AS e
   SET secret = NULL
  FROM unnest($1::text[], $2::text[]) AS checked (tenant_id, id)
 WHERE e.tenant_id = checked.tenant_id AND e.id = checked.id::uuid AND e.secret IS NOT NULL

-- name: may_read
SELECT has_column_privilege('hookseal.endpoints', 'secret', 'SELECT')

-- name: wait_shortly
SET LOCAL lock_timeout = '2s'

-- name: forbid
SELECT hookseal.forbid_plaintext()
