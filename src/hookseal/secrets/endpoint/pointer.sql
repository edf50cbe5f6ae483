-- The pointer columns of an endpoint: where its requests go and which secrets sign them. Only this room changes them.

-- Locks the row of one endpoint and reads its pointer: until the transaction ends nobody else moves or claims it.
-- name: lock
SELECT {pointer}
  FROM hookseal.endpoints AS e
 WHERE e.tenant_id = $1 AND e.id = $2::text::uuid
   FOR UPDATE

-- Reads a page of the pointers of one tenant, or of all.
-- name: page
SELECT {pointer}
  FROM hookseal.endpoints AS e
 WHERE ($1::text IS NULL OR e.tenant_id = $1) AND (e.tenant_id, e.id) > ($2, $3::text::uuid)
 ORDER BY e.tenant_id, e.id
 LIMIT $4

-- Writes where requests go, with which headers and identity, and how they are signed. Only an operator's role may.
-- name: direct
UPDATE hookseal.endpoints
   SET url = $3, scheme = $4, algorithm = $5, lead = $6, headers_ref = $7, tls_ref = $8
 WHERE tenant_id = $1 AND id = $2::text::uuid

-- Writes which secrets sign, and the generation and the MAC of the whole pointer. A worker's role may do it for a rotation.
-- The time of the secret changes only if the secret does, not if it only moves.
-- name: move
UPDATE hookseal.endpoints
   SET secret_ref = $3,
       previous_secret_ref = $4,
       previous_secret_expires_at = $5,
       previous_scheme = $6,
       previous_algorithm = $7,
       generation = $8,
       mac = $9,
       mac_key_id = $10,
       secret_provider = $11,
       secret_updated_at = CASE WHEN secret_ref IS DISTINCT FROM $3 AND NOT $12::boolean THEN now() ELSE secret_updated_at END
 WHERE tenant_id = $1 AND id = $2::text::uuid

-- Returns the time that many seconds after the start of the transaction.
-- name: time_after
SELECT now() + make_interval(secs => $1)
