-- The stores outside PostgreSQL. Every statement carries the tenant.

-- Adds the first version of a name, unless the name has one, of whichever provider.
-- name: put
INSERT INTO hookseal.secret_records (tenant_id, name, version, provider, purpose, scheme, share)
SELECT $1::text, $2::text, $3::bigint, $4::text, $5::text, $6::text, $7::bytea
 WHERE NOT EXISTS (SELECT FROM hookseal.secret_records WHERE tenant_id = $1 AND name = $2)
    ON CONFLICT DO NOTHING

-- Adds a version of a name as the active one.
-- name: add
INSERT INTO hookseal.secret_records (tenant_id, name, version, provider, purpose, scheme, share)
VALUES ($1, $2, $3, $4, $5, $6, $7)

-- Returns whether the provider keeps a version of the name that is not destroyed.
-- name: is_kept
SELECT EXISTS (SELECT
                 FROM hookseal.secret_records
                WHERE tenant_id = $1 AND name = $2 AND provider = $3 AND state <> 'destroyed')

-- Removes the material of a version for good; its row stays.
-- name: destroy
UPDATE hookseal.secret_records
   SET state = 'destroyed',
       share = NULL,
       changed_at = CASE state WHEN 'destroyed' THEN changed_at ELSE now() END
 WHERE tenant_id = $1 AND name = $2 AND version = $3 AND ref = $4
RETURNING version

-- Makes this provider that of a version, which keeps its number and its state.
-- name: take_over
UPDATE hookseal.secret_records
   SET provider = $4, sealed = NULL, share = $5, changed_at = now()
 WHERE tenant_id = $1 AND name = $2 AND version = $3
