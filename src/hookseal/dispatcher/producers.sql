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

-- name: add
INSERT INTO hookseal.producers (tenant_id, role_name)
VALUES ($1, $2)
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
SELECT EXISTS (SELECT FROM hookseal.producers WHERE role_name = $1)

-- name: every
SELECT p.role_name AS role, p.tenant_id, p.granted_at, EXISTS (SELECT FROM pg_roles WHERE rolname = p.role_name) AS role_exists
FROM hookseal.producers AS p
WHERE ($1::text IS NULL OR p.tenant_id = $1)
  AND ($2::text IS NULL OR p.role_name = $2)
ORDER BY p.tenant_id, p.role_name
