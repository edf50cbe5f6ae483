-- The life of master keys. They belong to the installation, so no statement here has a tenant.

-- Returns one key with the times of its life.
-- name: life
SELECT key_id, state, promoted_at, drained_at, compromised_at, retired_at, destroyed_at
  FROM hookseal.secret_keys
 WHERE key_id = $1

-- Lists the live workers that do not hold the key.
-- name: workers_without
SELECT id
  FROM hookseal.workers
 WHERE beaten_at > now() - make_interval(secs => $2) AND NOT key_ids @> ARRAY[$1::text]
 ORDER BY id

-- Lists the live workers that hold the key.
-- name: workers_with
SELECT id
  FROM hookseal.workers
 WHERE beaten_at > now() - make_interval(secs => $2) AND key_ids @> ARRAY[$1::text]
 ORDER BY id

-- Counts the records that need the key, and the pending deliveries that need one of these records. A record whose bytes
-- name an unregistered key, or a key that never sealed it, was altered; it counts for every key that ever sealed it,
-- because one of them opens it after a repair. The deliveries are counted by state, since each state has its index.
-- name: use
WITH used AS MATERIALIZED (
    SELECT r.tenant_id, r.endpoint_id, r.state
      FROM hookseal.secret_records AS r
     WHERE r.key_id = $1
        OR $1 = ANY (r.wrapped_by) AND r.sealed IS NOT NULL
           AND (r.key_id <> ALL (r.wrapped_by)
                OR NOT EXISTS (SELECT FROM hookseal.secret_keys AS k WHERE k.key_id = r.key_id))
), signing AS MATERIALIZED (
    SELECT u.tenant_id, u.endpoint_id FROM used AS u WHERE u.state IN ('active', 'previous')
)
SELECT (SELECT count(*) FROM used) AS records,
       (SELECT count(*)
          FROM hookseal.deliveries AS d
         WHERE d.state = 'pending' AND (d.tenant_id, d.endpoint_id) IN (SELECT s.tenant_id, s.endpoint_id FROM signing AS s))
       + (SELECT count(*)
            FROM hookseal.deliveries AS d
           WHERE d.state = 'sending'
             AND (d.tenant_id, d.endpoint_id) IN (SELECT s.tenant_id, s.endpoint_id FROM signing AS s)) AS deliveries

-- Registers a key as staged: processes may have it, and it seals nothing yet.
-- name: register
INSERT INTO hookseal.secret_keys (key_id, state, check_value)
VALUES ($1, 'staged', $2)

-- Makes the active key decrypt-only.
-- name: step_back
UPDATE hookseal.secret_keys SET state = 'decrypt_only', drained_at = NULL WHERE state = 'active'

-- Makes a key the active one; it is not drained then.
-- name: promote
UPDATE hookseal.secret_keys SET state = 'active', promoted_at = coalesce(promoted_at, now()), drained_at = NULL WHERE key_id = $1

-- Marks a key as drained: a re-wrap left no record under it.
-- name: drained
UPDATE hookseal.secret_keys SET drained_at = now() WHERE key_id = $1

-- Marks a key as compromised, unless it is marked already.
-- name: compromised
UPDATE hookseal.secret_keys SET compromised_at = now() WHERE key_id = $1 AND compromised_at IS NULL

-- Stops the use of the key for decryption.
-- name: retire
UPDATE hookseal.secret_keys SET state = 'retired', retired_at = now() WHERE key_id = $1

-- Marks the key as destroyed: a process that has it does not start.
-- name: destroy
UPDATE hookseal.secret_keys SET state = 'destroyed', destroyed_at = now() WHERE key_id = $1
