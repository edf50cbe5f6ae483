-- The table of master keys. It belongs to the installation, so no statement here has a tenant.

-- Returns whether there is neither a key nor a secret yet.
-- name: is_empty
SELECT NOT EXISTS (SELECT FROM hookseal.secret_keys) AND NOT EXISTS (SELECT FROM hookseal.secret_records)

-- Returns whether there is no key yet, while secrets are kept outside PostgreSQL.
-- name: has_no_key
SELECT NOT EXISTS (SELECT FROM hookseal.secret_keys) AND EXISTS (SELECT FROM hookseal.secret_records WHERE tenant_id = '_system')

-- Registers the first key as active.
-- name: register_first
INSERT INTO hookseal.secret_keys (key_id, state, check_value, promoted_at)
VALUES ($1, 'active', $2, now())

-- Lists every key with its check value.
-- name: registered
SELECT key_id, state, check_value
  FROM hookseal.secret_keys
 ORDER BY created_at, key_id

-- Lists every key that is registered or named by a record, with the number of its records and live workers.
-- name: counted
SELECT key_id, coalesce(k.state, 'unregistered') AS state, coalesce(r.records, 0) AS records,
       (SELECT count(*)
          FROM hookseal.workers AS w
         WHERE w.beaten_at > now() - make_interval(secs => $1) AND w.key_ids @> ARRAY[key_id]) AS workers,
       k.promoted_at, k.drained_at, k.compromised_at, k.retired_at, k.destroyed_at
  FROM hookseal.secret_keys k
  FULL JOIN (SELECT key_id, count(*) AS records
               FROM hookseal.secret_records
              WHERE key_id IS NOT NULL
              GROUP BY key_id) r USING (key_id)
 ORDER BY k.created_at NULLS LAST, key_id

-- Lists those of the keys under which a record is sealed.
-- name: needed
SELECT id
  FROM unnest($1::text[]) AS id
 WHERE EXISTS (SELECT FROM hookseal.secret_records WHERE key_id = id)

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
-- name: retired
UPDATE hookseal.secret_keys SET state = 'retired', retired_at = now() WHERE key_id = $1

-- Marks the key as destroyed: a process that has it does not start.
-- name: destroyed
UPDATE hookseal.secret_keys SET state = 'destroyed', destroyed_at = now() WHERE key_id = $1
