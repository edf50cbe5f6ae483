-- The rights to publish. Publishing reads this table and does not wait for its lock.

-- Makes other changes of the rights wait until the transaction ends.
-- name: one_at_a_time
LOCK TABLE hookseal.producers IN SHARE ROW EXCLUSIVE MODE

-- Returns whether a role with this name exists.
-- name: role_exists
SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)

-- Returns whether the role may call the functions that publish.
-- name: is_member
SELECT EXISTS (
    SELECT FROM pg_auth_members AS m
    JOIN pg_roles AS g ON g.oid = m.roleid AND g.rolname = 'hookseal_producer'
    JOIN pg_roles AS r ON r.oid = m.member AND r.rolname = $1)

-- Returns the statement that lets the role call them.
-- name: grant_statement
SELECT format('GRANT hookseal_producer TO %I', $1::text)

-- Returns the statement that takes this right from the role.
-- name: revoke_statement
SELECT format('REVOKE hookseal_producer FROM %I', $1::text)

-- Deletes the row of a dropped role with the same name, before the present role gets its own row.
-- name: forget_stale
DELETE FROM hookseal.producers AS p
WHERE p.tenant_id = $1 AND p.role_name = $2
  AND NOT EXISTS (SELECT FROM pg_roles AS r WHERE r.rolname = $2 AND r.oid = p.role)

-- Lets the role publish for the tenant.
-- name: add
INSERT INTO hookseal.producers (tenant_id, role_name, role)
SELECT $1, r.rolname, r.oid
FROM pg_roles AS r
WHERE r.rolname = $2
ON CONFLICT DO NOTHING
RETURNING role_name

-- Returns since when the role may publish for the tenant.
-- name: granted_at
SELECT granted_at
FROM hookseal.producers
WHERE tenant_id = $1 AND role_name = $2

-- Takes the right to publish for the tenant from the role.
-- name: remove
DELETE FROM hookseal.producers
WHERE tenant_id = $1 AND role_name = $2
RETURNING role_name

-- Returns whether the role may publish for any tenant.
-- name: has_other
SELECT EXISTS (
    SELECT FROM hookseal.producers AS p
    JOIN pg_roles AS r ON r.rolname = p.role_name AND r.oid = p.role
    WHERE p.role_name = $1)

-- Returns whether the role may publish for every tenant.
-- name: has_every
SELECT EXISTS (
    SELECT FROM hookseal.producers AS p
    JOIN pg_roles AS r ON r.rolname = p.role_name AND r.oid = p.role
    WHERE p.role_name = $1 AND p.tenant_id = '*')

-- Lists the rights, and which rows no longer give one.
-- name: every
SELECT p.role_name AS role, p.tenant_id, p.granted_at, r.oid IS NOT NULL AS role_exists,
       r.oid IS NULL OR p.role IS DISTINCT FROM r.oid AS stale
FROM hookseal.producers AS p
LEFT JOIN pg_roles AS r ON r.rolname = p.role_name
WHERE ($1::text IS NULL OR p.tenant_id = $1)
  AND ($2::text IS NULL OR p.role_name = $2)
ORDER BY p.tenant_id, p.role_name
