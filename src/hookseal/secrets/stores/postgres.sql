-- The store `db`. Every statement carries the tenant.

-- name: put
INSERT INTO hookseal.secret_records (tenant_id, name, version, provider, purpose, scheme, sealed, key_id, wrapped_by)
SELECT $1::text, $2::text, $3::bigint, 'db', $4::text, $5::text, $6::bytea, $7::text, ARRAY[$7::text]
 WHERE NOT EXISTS (SELECT FROM hookseal.secret_records WHERE tenant_id = $1 AND name = $2)
    ON CONFLICT DO NOTHING
RETURNING version

-- The row with what the endpoint that points at it, and the audit log, say of it: all moved in one transaction. Which
-- key sealed it is what its endpoint's log last told, or what re-wraps made of that since: one re-wrap is looked up here,
-- for a call of the function, which follows several, costs as much as a third of the rest. The record itself says which
-- key it is, whatever the column beside it does.
-- name: get
SELECT r.purpose,
       r.sealed,
       r.state,
       EXISTS (SELECT
                 FROM hookseal.secret_keys AS k
                WHERE k.key_id IN (r.key_id, own.key_id)
                  AND k.state IN ('retired', 'destroyed')) AS key_is_closed,
       CASE $4::text WHEN e.secret_ref THEN 'active'
                     WHEN e.headers_ref THEN 'active'
                     WHEN e.tls_ref THEN 'active'
                     WHEN e.previous_secret_ref THEN 'previous' END AS pointed_state,
       r.tenant_id <> '_system'
       AND EXISTS (SELECT
                     FROM hookseal.secret_keys AS k
                    WHERE k.key_id = own.key_id AND k.drained_at IS NOT NULL) AS key_is_drained,
       (SELECT CASE WHEN l.after ->> 'key_id' = own.key_id THEN own.key_id
                    WHEN EXISTS (SELECT
                                   FROM hookseal.audit_log AS w
                                  WHERE w.tenant_id = '_system' AND w.action = 'key.rewrapped'
                                    AND w.subject = 'key:' || (l.after ->> 'key_id') AND w.after ->> 'to' = own.key_id)
                    THEN own.key_id
                    WHEN hookseal.was_rewrapped(l.after ->> 'key_id', own.key_id) THEN own.key_id
                    ELSE l.after ->> 'key_id' END
          FROM hookseal.audit_log AS l
         WHERE l.tenant_id = $1 AND l.subject = 'endpoint:' || e.id
           AND $4::text IN (l.after ->> 'secret_ref', l.after ->> 'headers_ref', l.after ->> 'tls_ref') AND l.after ->> 'key_id' IS NOT NULL
         ORDER BY l.sequence DESC
         LIMIT 1) AS audited_key_id
  FROM hookseal.secret_records AS r
 CROSS JOIN LATERAL (VALUES (encode(substring(r.sealed FROM 3 FOR 8), 'hex'))) AS own (key_id)
  LEFT JOIN hookseal.endpoints AS e
    ON e.tenant_id = r.tenant_id
   AND e.id = substring(r.name FROM '^(?:webhook-endpoint|endpoint-headers|endpoint-tls)-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$')::uuid
 WHERE r.tenant_id = $1 AND r.name = $2 AND r.version = $3 AND r.provider = 'db'

-- name: lock
SELECT purpose
  FROM hookseal.secret_records
 WHERE tenant_id = $1 AND name = $2
 ORDER BY version
 LIMIT 1
   FOR UPDATE

-- Records that somebody deleted free no number, which a cache may still hold: what the audit log tells of is used, too.
-- name: next_version
SELECT greatest(0, max(r.version),
                (SELECT max(substring(told.ref FROM ':([0-9]{1,18})$')::bigint)
                   FROM hookseal.audit_log AS l
                  CROSS JOIN LATERAL (VALUES (l.after ->> 'secret_ref'), (l.after ->> 'headers_ref'), (l.after ->> 'tls_ref'),
                                             (l.after ->> 'integrity_ref')) AS told (ref)
                  WHERE l.tenant_id = $1
                    AND l.subject = coalesce(
                        'endpoint:' || substring($2::text FROM '^(?:webhook-endpoint|endpoint-headers|endpoint-tls)-(.*)$'), $2::text)
                    AND starts_with(told.ref, concat_ws(':', 'db', $1::text, $2::text, '')))) + 1
  FROM hookseal.secret_records AS r
 WHERE r.tenant_id = $1 AND r.name = $2

-- name: step_back
UPDATE hookseal.secret_records
   SET state = CASE state WHEN 'active' THEN 'previous' ELSE 'retired' END,
       changed_at = now()
 WHERE tenant_id = $1 AND name = $2 AND state IN ('active', 'previous')

-- name: add
INSERT INTO hookseal.secret_records (tenant_id, name, version, provider, purpose, scheme, sealed, key_id, wrapped_by)
VALUES ($1, $2, $3, 'db', $4, $5, $6, $7::text, ARRAY[$7::text])

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
