-- The store `db`. Every statement carries the tenant.

-- name: put
INSERT INTO hookseal.secret_records (tenant_id, name, version, provider, purpose, scheme, sealed, key_id)
SELECT $1::text, $2::text, $3::bigint, 'db', $4::text, $5::text, $6::bytea, $7::text
 WHERE NOT EXISTS (SELECT FROM hookseal.secret_records WHERE tenant_id = $1 AND name = $2)
    ON CONFLICT DO NOTHING
RETURNING version

-- name: get
SELECT purpose,
       sealed,
       EXISTS (SELECT
                 FROM hookseal.secret_keys k
                WHERE k.key_id = r.key_id AND k.state IN ('retired', 'destroyed')) AS key_is_closed
  FROM hookseal.secret_records r
 WHERE tenant_id = $1 AND name = $2 AND version = $3 AND provider = 'db'

-- name: lock
SELECT purpose
  FROM hookseal.secret_records
 WHERE tenant_id = $1 AND name = $2
 ORDER BY version
 LIMIT 1
   FOR UPDATE

-- name: next_version
SELECT max(version) + 1
  FROM hookseal.secret_records
 WHERE tenant_id = $1 AND name = $2

-- name: step_back
UPDATE hookseal.secret_records
   SET state = CASE state WHEN 'active' THEN 'previous' ELSE 'retired' END,
       changed_at = now()
 WHERE tenant_id = $1 AND name = $2 AND state IN ('active', 'previous')

-- name: add
INSERT INTO hookseal.secret_records (tenant_id, name, version, provider, purpose, scheme, sealed, key_id)
VALUES ($1, $2, $3, 'db', $4, $5, $6, $7)

-- name: versions
SELECT version, state, purpose, scheme, created_at, changed_at
  FROM hookseal.secret_records
 WHERE tenant_id = $1 AND name = $2 AND provider = 'db'
 ORDER BY version

-- name: destroy
UPDATE hookseal.secret_records
   SET state = 'destroyed',
       sealed = NULL,
       key_id = NULL,
       changed_at = CASE state WHEN 'destroyed' THEN changed_at ELSE now() END
 WHERE tenant_id = $1 AND name = $2 AND version = $3 AND provider = 'db'
RETURNING version
