-- The store `db`. Every statement carries the tenant.

-- Adds the first version of a name, unless the name has one, of whichever provider.
-- name: put
INSERT INTO hookseal.secret_records (tenant_id, name, version, provider, purpose, scheme, sealed, wrapped_by)
SELECT $1::text, $2::text, $3::bigint, 'db', $4::text, $5::text, $6::bytea, ARRAY[$7::text]
 WHERE NOT EXISTS (SELECT FROM hookseal.secret_records WHERE tenant_id = $1 AND name = $2)
    ON CONFLICT DO NOTHING
RETURNING version

-- Adds a version of a name as the active one.
-- name: add
INSERT INTO hookseal.secret_records (tenant_id, name, version, provider, purpose, scheme, sealed, wrapped_by)
VALUES ($1, $2, $3, 'db', $4, $5, $6, ARRAY[$7::text])

-- Removes the material of a version for good; its row stays.
-- name: destroy
UPDATE hookseal.secret_records
   SET state = 'destroyed',
       sealed = NULL,
       changed_at = CASE state WHEN 'destroyed' THEN changed_at ELSE now() END
 WHERE tenant_id = $1 AND name = $2 AND version = $3 AND provider = 'db'
RETURNING version

-- Makes this store that of a version, which keeps its number and its state.
-- name: take_over
UPDATE hookseal.secret_records
   SET provider = 'db', sealed = $4, share = NULL, changed_at = now(),
       wrapped_by = CASE WHEN $5 = ANY (wrapped_by) THEN wrapped_by ELSE wrapped_by || $5::text END
 WHERE tenant_id = $1 AND name = $2 AND version = $3
