-- The rows of versions, which every store with rows in PostgreSQL has. A name has one sequence of numbers, whatever the
-- providers of its versions are.

-- Whether the master key of a record opens nothing any more.
-- name: key_is_closed
EXISTS (SELECT
          FROM hookseal.secret_keys AS k
         WHERE k.key_id = r.key_id
           AND k.state IN ('retired', 'destroyed')) AS key_is_closed

-- Reads the records of these versions, with what their endpoints and the audit log say of them.
-- They may belong to many tenants, and each is found by its whole key. A record, the endpoint that names it and the audit
-- log change in one transaction. The master key must be the one in the last audit row of the version, or one that it was
-- re-wrapped to since. A single re-wrap is looked up here: a call of the function, which follows several, costs more.
-- name: get
SELECT r.ref,
       r.purpose,
       r.sealed,
       r.share,
       r.state,
       {key_is_closed},
       CASE asked.ref WHEN e.secret_ref THEN 'active'
                     WHEN e.headers_ref THEN 'active'
                     WHEN e.tls_ref THEN 'active'
                     WHEN e.previous_secret_ref THEN 'previous' END AS pointed_state,
       r.tenant_id <> '_system'
       AND EXISTS (SELECT
                     FROM hookseal.secret_keys AS k
                    WHERE k.key_id = r.key_id AND k.drained_at IS NOT NULL) AS key_is_drained,
       (SELECT CASE WHEN l.after ->> 'key_id' = r.key_id THEN r.key_id
                    WHEN EXISTS (SELECT
                                   FROM hookseal.audit_log AS w
                                  WHERE w.tenant_id = '_system' AND w.action = 'key.rewrapped'
                                    AND w.subject = 'key:' || (l.after ->> 'key_id') AND w.after ->> 'to' = r.key_id)
                    THEN r.key_id
                    WHEN hookseal.was_rewrapped(l.after ->> 'key_id', r.key_id) THEN r.key_id
                    ELSE l.after ->> 'key_id' END
          FROM hookseal.audit_log AS l
         WHERE l.tenant_id = asked.tenant_id AND l.subject = 'endpoint:' || e.id
           AND asked.ref IN (l.after ->> 'secret_ref', l.after ->> 'headers_ref', l.after ->> 'tls_ref') AND l.after ->> 'key_id' IS NOT NULL
         ORDER BY l.sequence DESC
         LIMIT 1) AS audited_key_id
  FROM unnest($1::text[], $2::text[], $3::text[]::bigint[], $4::text[]) AS asked (tenant_id, name, version, ref)
  JOIN hookseal.secret_records AS r
    ON r.tenant_id = asked.tenant_id AND r.name = asked.name AND r.version = asked.version
  LEFT JOIN hookseal.endpoints AS e
    ON e.tenant_id = r.tenant_id AND e.id = r.endpoint_id
 WHERE r.ref = asked.ref

-- Reads records of the installation's own secrets in the same form. No endpoint names them, and no re-wrap leaves one behind.
-- A role that may not open the secrets of tenants reads these.
-- name: get_own
SELECT r.ref,
       r.purpose,
       r.sealed,
       r.share,
       r.state,
       {key_is_closed},
       NULL::text AS pointed_state,
       false AS key_is_drained,
       NULL::text AS audited_key_id
  FROM unnest($1::text[], $2::text[], $3::text[]::bigint[], $4::text[]) AS asked (tenant_id, name, version, ref)
  JOIN hookseal.own_secrets() AS r
    ON r.tenant_id = asked.tenant_id AND r.name = asked.name AND r.version = asked.version
 WHERE r.ref = asked.ref

-- Locks the oldest version of a name. It is never deleted, so this locks the name.
-- name: lock
SELECT purpose
  FROM hookseal.secret_records
 WHERE tenant_id = $1 AND name = $2
 ORDER BY version
 LIMIT 1
   FOR UPDATE

-- Returns the number of the next version of a name.
-- A cache may still hold the number of a record that somebody deleted, so numbers in the audit log count as used.
-- name: next_version
SELECT greatest(0, max(r.version),
                (SELECT max(substring(audited.ref FROM ':([0-9]{1,18})$')::bigint)
                   FROM hookseal.audit_log AS l
                  CROSS JOIN LATERAL (VALUES (l.after ->> 'secret_ref'), (l.after ->> 'headers_ref'), (l.after ->> 'tls_ref'),
                                             (l.after ->> 'integrity_ref')) AS audited (ref)
                  WHERE l.tenant_id = $1
                    AND l.subject = coalesce(
                        'endpoint:' || substring($2::text FROM '^(?:webhook-endpoint|endpoint-headers|endpoint-tls)-(.*)$'), $2::text)
                    AND split_part(audited.ref, ':', 2) = $1 AND split_part(audited.ref, ':', 3) = $2)) + 1
  FROM hookseal.secret_records AS r
 WHERE r.tenant_id = $1 AND r.name = $2

-- Makes the active version of a name the previous one, and retires the previous one.
-- name: step_back
UPDATE hookseal.secret_records
   SET state = CASE state WHEN 'active' THEN 'previous' ELSE 'retired' END,
       changed_at = now()
 WHERE tenant_id = $1 AND name = $2 AND state IN ('active', 'previous')

-- Lists the versions of a name, of one provider or of all, oldest first.
-- name: versions
SELECT ref, state, purpose, scheme, created_at, changed_at
  FROM hookseal.secret_records
 WHERE tenant_id = $1 AND name = $2 AND ($3::text IS NULL OR provider = $3)
 ORDER BY version

-- Lists the providers outside PostgreSQL, other than these, that have versions in use.
-- name: in_use
SELECT DISTINCT provider
  FROM hookseal.secret_records
 WHERE provider <> 'db' AND state IN ('active', 'previous') AND provider <> ALL ($1::text[])

-- Returns the id of this installation.
-- name: installation
SELECT token::text FROM hookseal.control WHERE name = 'installation'
