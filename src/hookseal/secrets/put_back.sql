-- What was put back: endpoints whose rows, records and audit rows contradict each other. All move in one transaction.

-- One page of the endpoints; `kind` is null where all agree.
-- name: endpoints
SELECT e.tenant_id,
       e.id::text AS endpoint_id,
       e.generation,
       newest.generation AS audited_generation,
       CASE WHEN e.generation < newest.generation THEN 'endpoint'
            WHEN EXISTS (
                 SELECT
                   FROM hookseal.secret_records AS r
                  WHERE r.tenant_id = e.tenant_id
                    AND r.name IN ('webhook-endpoint-' || e.id, 'endpoint-headers-' || e.id)
                    AND r.state <> CASE concat_ws(':', r.provider, r.tenant_id, r.name, r.version)
                                        WHEN e.secret_ref THEN 'active'
                                        WHEN e.headers_ref THEN 'active'
                                        WHEN e.previous_secret_ref THEN 'previous'
                                        ELSE CASE WHEN r.state = 'destroyed' THEN 'destroyed'
                                                  WHEN EXISTS (
                                                       SELECT
                                                         FROM hookseal.audit_log AS l
                                                        WHERE l.tenant_id = r.tenant_id
                                                          AND l.subject = concat_ws(':', 'secret', r.provider, r.tenant_id,
                                                                                    r.name, r.version)
                                                          AND l.action = 'secret.destroyed') THEN 'destroyed'
                                                  ELSE 'retired' END END)
              OR EXISTS (
                 SELECT
                   FROM unnest(ARRAY[e.secret_ref, e.previous_secret_ref, e.headers_ref]) AS named (ref)
                  WHERE named.ref LIKE 'db:%'
                    AND NOT EXISTS (
                        SELECT
                          FROM hookseal.secret_records AS r
                         WHERE r.tenant_id = e.tenant_id
                           AND r.name IN ('webhook-endpoint-' || e.id, 'endpoint-headers-' || e.id)
                           AND concat_ws(':', r.provider, r.tenant_id, r.name, r.version) = named.ref))
              OR EXISTS (
                 SELECT
                   FROM hookseal.secret_records AS r
                   JOIN LATERAL (
                        SELECT l.after ->> 'key_id' AS key_id
                          FROM hookseal.audit_log AS l
                         WHERE l.tenant_id = r.tenant_id AND l.subject = 'endpoint:' || e.id
                           AND concat_ws(':', r.provider, r.tenant_id, r.name, r.version)
                               IN (l.after ->> 'secret_ref', l.after ->> 'headers_ref')
                           AND l.after ->> 'key_id' IS NOT NULL
                         ORDER BY l.sequence DESC
                         LIMIT 1) AS told ON told.key_id <> r.key_id
                  WHERE r.tenant_id = e.tenant_id
                    AND r.name IN ('webhook-endpoint-' || e.id, 'endpoint-headers-' || e.id)
                    AND r.state IN ('active', 'previous'))
            THEN 'record' END AS kind
  FROM hookseal.endpoints AS e
  LEFT JOIN LATERAL (
       SELECT max(l.generation) AS generation
         FROM hookseal.audit_log AS l
        WHERE l.tenant_id = e.tenant_id AND l.subject = 'endpoint:' || e.id) AS newest ON true
 WHERE ($1::text IS NULL OR e.tenant_id = $1) AND (e.tenant_id, e.id) > ($2, $3::text::uuid)
 ORDER BY e.tenant_id, e.id
 LIMIT $4

-- One page of the endpoints that the log knows; `kind` is null where the row is there, or was deleted.
-- name: lost
SELECT known.tenant_id,
       substring(known.subject FROM 10) AS endpoint_id,
       NULL::bigint AS generation,
       known.generation AS audited_generation,
       CASE WHEN e.id IS NULL AND newest.action <> 'endpoint.deleted' THEN 'lost' END AS kind
  FROM (SELECT l.tenant_id, l.subject, max(l.generation) AS generation
          FROM hookseal.audit_log AS l
         WHERE ($1::text IS NULL OR l.tenant_id = $1)
           AND (l.tenant_id, l.subject) > ($2, 'endpoint:' || $3)
           AND l.subject ~ '^endpoint:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
         GROUP BY l.tenant_id, l.subject
        HAVING max(l.generation) IS NOT NULL
         ORDER BY l.tenant_id, l.subject
         LIMIT $4) AS known
  LEFT JOIN hookseal.endpoints AS e ON e.tenant_id = known.tenant_id AND e.id = substring(known.subject FROM 10)::uuid
  JOIN LATERAL (
       SELECT l.action
         FROM hookseal.audit_log AS l
        WHERE l.tenant_id = known.tenant_id AND l.subject = known.subject AND l.action <> 'rollback.found'
        ORDER BY l.sequence DESC
        LIMIT 1) AS newest ON true
 ORDER BY known.tenant_id, known.subject

-- The refs of an endpoint's row that have no material.
-- name: gone
SELECT named.field
  FROM hookseal.endpoints AS e
 CROSS JOIN LATERAL (
       VALUES ('secret_ref', e.secret_ref),
              ('previous_secret_ref', e.previous_secret_ref),
              ('headers_ref', e.headers_ref)) AS named (field, ref)
 WHERE e.tenant_id = $1 AND e.id = $2::text::uuid
   AND named.ref LIKE 'db:%'
   AND NOT EXISTS (
       SELECT
         FROM hookseal.secret_records AS r
        WHERE r.tenant_id = e.tenant_id
          AND r.name IN ('webhook-endpoint-' || e.id, 'endpoint-headers-' || e.id)
          AND concat_ws(':', r.provider, r.tenant_id, r.name, r.version) = named.ref
          AND r.state <> 'destroyed')

-- name: key_id
SELECT key_id
  FROM hookseal.secret_records
 WHERE tenant_id = $1 AND name = $2 AND version = $3

-- name: as_previous
UPDATE hookseal.secret_records
   SET state = 'previous', changed_at = now()
 WHERE tenant_id = $1 AND name = $2 AND version = $3 AND state = 'retired'

-- Material that was destroyed, as the audit log tells, and came back: no pointer names it.
-- name: destroy_again
UPDATE hookseal.secret_records AS r
   SET state = 'destroyed', sealed = NULL, key_id = NULL, changed_at = now()
  FROM hookseal.endpoints AS e
 WHERE e.tenant_id = $1 AND e.id = $2::text::uuid AND r.tenant_id = e.tenant_id AND r.state <> 'destroyed'
   AND r.name IN ('webhook-endpoint-' || e.id, 'endpoint-headers-' || e.id)
   AND concat_ws(':', r.provider, r.tenant_id, r.name, r.version)
       NOT IN (coalesce(e.secret_ref, ''), coalesce(e.previous_secret_ref, ''), coalesce(e.headers_ref, ''))
   AND EXISTS (SELECT
                 FROM hookseal.audit_log AS l
                WHERE l.tenant_id = r.tenant_id
                  AND l.subject = concat_ws(':', 'secret', r.provider, r.tenant_id, r.name, r.version)
                  AND l.action = 'secret.destroyed')

-- name: is_lost
SELECT NOT EXISTS (SELECT FROM hookseal.endpoints WHERE tenant_id = $1 AND id = $2::text::uuid)
       AND coalesce(
           (SELECT l.action
              FROM hookseal.audit_log AS l
             WHERE l.tenant_id = $1 AND l.subject = 'endpoint:' || $2::text AND l.action <> 'rollback.found'
             ORDER BY l.sequence DESC
             LIMIT 1) <> 'endpoint.deleted', false)
