-- The plaintext secrets of an older system. Every statement but the counts needs the column. No worker signs with them.

-- Counts the endpoints that have a plaintext and no sealed secret.
-- name: count_unmigrated
SELECT count(*)
  FROM hookseal.endpoints
 WHERE has_plaintext AND secret_ref IS NULL

-- Counts the endpoints that have a plaintext.
-- name: count_plaintext
SELECT count(*)
  FROM hookseal.endpoints
 WHERE has_plaintext

-- Reads a page of the endpoints that have a plaintext.
-- name: page
SELECT tenant_id, id::text AS endpoint_id
  FROM hookseal.endpoints
 WHERE has_plaintext AND (tenant_id, id) > ($1, $2::text::uuid)
 ORDER BY tenant_id, id
 LIMIT $3

-- Locks a row and reads its pointer, its plaintext and whether a delivery is held. It is one statement because there are
-- many rows. While the row is locked no delivery of the endpoint is claimed, so none becomes held.
-- name: lock
SELECT convert_to(e.secret, 'UTF8') AS plaintext,
       EXISTS (SELECT
                 FROM hookseal.deliveries AS d
                WHERE d.tenant_id = $1 AND d.endpoint_id = $2::text::uuid
                  AND d.state = 'pending' AND d.waiting_for IS NOT NULL) AS some_wait,
       {pointer}
  FROM hookseal.endpoints AS e
 WHERE e.tenant_id = $1 AND e.id = $2::text::uuid
   FOR UPDATE

-- Empties the plaintext column in these rows.
-- name: empty
UPDATE hookseal.endpoints AS e
   SET secret = NULL
  FROM unnest($1::text[], $2::text[]) AS checked (tenant_id, id)
 WHERE e.tenant_id = checked.tenant_id AND e.id = checked.id::uuid AND e.secret IS NOT NULL

-- Returns whether this role may read the plaintext.
-- name: may_read
SELECT has_column_privilege('hookseal.endpoints', 'secret', 'SELECT')

-- Limits the wait for each lock of the transaction to two seconds.
-- name: wait_shortly
SET LOCAL lock_timeout = '2s'

-- Makes PostgreSQL refuse plaintext from now on.
-- name: forbid
SELECT hookseal.forbid_plaintext()
