-- Who may publish for whom. Publishing reads this table and is not held up by its lock.

-- name: one_at_a_time
LOCK TABLE hookseal.producers IN SHARE ROW EXCLUSIVE MODE

-- name: role_exists
SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)

-- name: is_member
SELECT EXISTS (
    SELECT FROM pg_auth_members AS m
    JOIN pg_roles AS g ON g.oid = m.roleid AND g.rolname = 'hookseal_producer'
    JOIN pg_roles AS r ON r.oid = m.member AND r.rolname = $1)

-- name: grant_statement
SELECT format('GRANT hookseal_producer TO %I', $1::text)

-- name: revoke_statement
SELECT format('REVOKE hookseal_producer FROM %I', $1::text)

-- A row that another role of this name has left behind.
-- name: forget_stale
DELETE FROM hookseal.producers AS p
WHERE p.tenant_id = $1 AND p.role_name = $2
  AND NOT EXISTS (SELECT FROM pg_roles AS r WHERE r.rolname = $2 AND r.oid = p.role)

-- name: add
INSERT INTO hookseal.producers (tenant_id, role_name, role)
SELECT $1, r.rolname, r.oid
FROM pg_roles AS r
WHERE r.rolname = $2
ON CONFLICT DO NOTHING
RETURNING role_name

-- name: granted_at
SELECT granted_at
FROM hookseal.producers
WHERE tenant_id = $1 AND role_name = $2

-- name: remove
DELETE FROM hookseal.producers
WHERE tenant_id = $1 AND role_name = $2
RETURNING role_name

-- name: has_other
SELECT EXISTS (
    SELECT FROM hookseal.producers AS p
    JOIN pg_roles AS r ON r.rolname = p.role_name AND r.oid = p.role
    WHERE p.role_name = $1)

-- name: every
SELECT p.role_name AS role, p.tenant_id, p.granted_at, r.oid IS NOT NULL AS role_exists,
       r.oid IS NULL OR p.role IS DISTINCT FROM r.oid AS stale
FROM hookseal.producers AS p
LEFT JOIN pg_roles AS r ON r.rolname = p.role_name
WHERE ($1::text IS NULL OR p.tenant_id = $1)
  AND ($2::text IS NULL OR p.role_name = $2)
ORDER BY p.tenant_id, p.role_name
