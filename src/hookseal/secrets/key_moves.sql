-- The life of master keys. They belong to the installation, so no statement here has a tenant.

-- name: life
SELECT key_id, state, promoted_at, drained_at, compromised_at, retired_at, destroyed_at
  FROM hookseal.secret_keys
 WHERE key_id = $1

-- name: workers_without
SELECT id
  FROM hookseal.workers
 WHERE beaten_at > now() - make_interval(secs => $2) AND NOT key_ids @> ARRAY[$1::text]
 ORDER BY id

-- name: workers_with
SELECT id
  FROM hookseal.workers
 WHERE beaten_at > now() - make_interval(secs => $2) AND key_ids @> ARRAY[$1::text]
 ORDER BY id

-- By the id inside the record as well: somebody may have written another one into the column.
-- name: use
WITH used AS (
    SELECT r.tenant_id,
           substring(r.name FROM '^(?:webhook-endpoint|endpoint-headers|endpoint-tls)-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$')::uuid
           AS endpoint_id,
           r.state
      FROM hookseal.secret_records AS r
     WHERE r.key_id = $1 OR substring(r.sealed FROM 3 FOR 8) = decode($1, 'hex')
)
SELECT (SELECT count(*) FROM used) AS records,
       (SELECT count(*)
          FROM hookseal.deliveries AS d
         WHERE d.state IN ('pending', 'sending')
           AND EXISTS (SELECT
                         FROM used AS u
                        WHERE u.tenant_id = d.tenant_id AND u.endpoint_id = d.endpoint_id
                          AND u.state IN ('active', 'previous'))) AS deliveries

-- name: register
INSERT INTO hookseal.secret_keys (key_id, state, check_value)
VALUES ($1, 'staged', $2)

-- name: step_back
UPDATE hookseal.secret_keys SET state = 'decrypt_only', drained_at = NULL WHERE state = 'active'

-- name: promote
UPDATE hookseal.secret_keys SET state = 'active', promoted_at = coalesce(promoted_at, now()), drained_at = NULL WHERE key_id = $1

-- name: drained
UPDATE hookseal.secret_keys SET drained_at = now() WHERE key_id = $1

-- name: compromised
UPDATE hookseal.secret_keys SET compromised_at = now() WHERE key_id = $1 AND compromised_at IS NULL

-- name: retire
UPDATE hookseal.secret_keys SET state = 'retired', retired_at = now() WHERE key_id = $1

-- name: destroy
UPDATE hookseal.secret_keys SET state = 'destroyed', destroyed_at = now() WHERE key_id = $1
