-- The table of master keys. It belongs to the installation, so no statement here has a tenant.

-- Returns whether there is neither a key nor a secret yet.
-- name: is_empty
SELECT NOT EXISTS (SELECT FROM hookseal.secret_keys) AND NOT EXISTS (SELECT FROM hookseal.secret_records)

-- Returns whether there is no key yet, while secrets are kept outside PostgreSQL.
-- name: has_no_key
SELECT NOT EXISTS (SELECT FROM hookseal.secret_keys) AND EXISTS (SELECT FROM hookseal.secret_records WHERE tenant_id = '_system')

-- Registers the first key as active.
-- name: register
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
