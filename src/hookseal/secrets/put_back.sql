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
                    AND r.name IN ('webhook-endpoint-' || e.id, 'endpoint-headers-' || e.id, 'endpoint-tls-' || e.id)
                    AND r.state <> CASE concat_ws(':', r.provider, r.tenant_id, r.name, r.version)
                                        WHEN e.secret_ref THEN 'active'
                                        WHEN e.headers_ref THEN 'active'
                                        WHEN e.tls_ref THEN 'active'
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
                   FROM unnest(ARRAY[e.secret_ref, e.previous_secret_ref, e.headers_ref, e.tls_ref]) AS named (ref)
                  WHERE named.ref LIKE 'db:%'
                    AND NOT EXISTS (
                        SELECT
                          FROM hookseal.secret_records AS r
                         WHERE r.tenant_id = e.tenant_id
                           AND r.name IN ('webhook-endpoint-' || e.id, 'endpoint-headers-' || e.id, 'endpoint-tls-' || e.id)
                           AND concat_ws(':', r.provider, r.tenant_id, r.name, r.version) = named.ref))
              OR EXISTS (
                 SELECT
                   FROM hookseal.secret_records AS r
                   JOIN LATERAL (
                        SELECT l.after ->> 'key_id' AS key_id
                          FROM hookseal.audit_log AS l
                         WHERE l.tenant_id = r.tenant_id AND l.subject = 'endpoint:' || e.id
                           AND concat_ws(':', r.provider, r.tenant_id, r.name, r.version)
                               IN (l.after ->> 'secret_ref', l.after ->> 'headers_ref', l.after ->> 'tls_ref')
                           AND l.after ->> 'key_id' IS NOT NULL
                         ORDER BY l.sequence DESC
                         LIMIT 1) AS told ON true
                   JOIN hookseal.secret_keys AS k
                     ON k.key_id = encode(substring(r.sealed FROM 3 FOR 8), 'hex')
                    AND k.key_id <> told.key_id AND NOT hookseal.was_rewrapped(told.key_id, k.key_id)
                  WHERE r.tenant_id = e.tenant_id
                    AND r.name IN ('webhook-endpoint-' || e.id, 'endpoint-headers-' || e.id, 'endpoint-tls-' || e.id)
                    AND r.state IN ('active', 'previous'))
              OR EXISTS (
                 SELECT
                   FROM hookseal.secret_records AS r
                   JOIN hookseal.secret_keys AS k
                     ON k.key_id = encode(substring(r.sealed FROM 3 FOR 8), 'hex') AND k.drained_at IS NOT NULL
                  WHERE r.tenant_id = e.tenant_id
                    AND r.name IN ('webhook-endpoint-' || e.id, 'endpoint-headers-' || e.id, 'endpoint-tls-' || e.id))
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

-- One page of the endpoints that were deleted and of which a record is not as a deletion, or a purge, left it.
-- name: left
SELECT own.tenant_id,
       own.endpoint_id,
       NULL::bigint AS generation,
       (SELECT max(l.generation)
          FROM hookseal.audit_log AS l
         WHERE l.tenant_id = own.tenant_id AND l.subject = 'endpoint:' || own.endpoint_id) AS audited_generation,
       CASE WHEN newest.action = 'endpoint.deleted' THEN 'record' END AS kind
  FROM (SELECT DISTINCT r.tenant_id, right(r.name, 36) AS endpoint_id
          FROM hookseal.secret_records AS r
         WHERE ($1::text IS NULL OR r.tenant_id = $1)
           AND (r.tenant_id, right(r.name, 36)) > ($2, $3)
           AND r.name ~ '^(webhook-endpoint|endpoint-headers|endpoint-tls)-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
           AND r.state <> 'destroyed'
           AND (r.state <> 'retired'
                OR EXISTS (
                   SELECT
                     FROM hookseal.audit_log AS l
                    WHERE l.tenant_id = r.tenant_id
                      AND l.subject = concat_ws(':', 'secret', r.provider, r.tenant_id, r.name, r.version)
                      AND l.action = 'secret.destroyed'))
           AND NOT EXISTS (
               SELECT
                 FROM hookseal.endpoints AS e
                WHERE e.tenant_id = r.tenant_id AND e.id::text = right(r.name, 36))
         ORDER BY r.tenant_id, right(r.name, 36)
         LIMIT $4) AS own
  LEFT JOIN LATERAL (
       SELECT l.action
         FROM hookseal.audit_log AS l
        WHERE l.tenant_id = own.tenant_id AND l.subject = 'endpoint:' || own.endpoint_id AND l.action <> 'rollback.found'
        ORDER BY l.sequence DESC
        LIMIT 1) AS newest ON true
 ORDER BY own.tenant_id, own.endpoint_id

-- The refs of an endpoint's row that have no material, or none that any key may open.
-- name: gone
SELECT named.field
  FROM hookseal.endpoints AS e
 CROSS JOIN LATERAL (
       VALUES ('secret_ref', e.secret_ref),
              ('previous_secret_ref', e.previous_secret_ref),
              ('headers_ref', e.headers_ref),
              ('tls_ref', e.tls_ref)) AS named (field, ref)
 WHERE e.tenant_id = $1 AND e.id = $2::text::uuid
   AND named.ref LIKE 'db:%'
   AND NOT EXISTS (
       SELECT
         FROM hookseal.secret_records AS r
        WHERE r.tenant_id = e.tenant_id
          AND r.name IN ('webhook-endpoint-' || e.id, 'endpoint-headers-' || e.id, 'endpoint-tls-' || e.id)
          AND concat_ws(':', r.provider, r.tenant_id, r.name, r.version) = named.ref
          AND r.state <> 'destroyed'
          AND NOT EXISTS (
              SELECT
                FROM hookseal.secret_keys AS k
               WHERE k.key_id IN (r.key_id, encode(substring(r.sealed FROM 3 FOR 8), 'hex'))
                 AND k.state IN ('retired', 'destroyed')))

-- name: key_id
SELECT encode(substring(sealed FROM 3 FOR 8), 'hex')
  FROM hookseal.secret_records
 WHERE tenant_id = $1 AND name = $2 AND version = $3

-- Records are under that key again, so a re-wrap has work again.
-- name: not_drained
UPDATE hookseal.secret_keys AS k
   SET drained_at = NULL
 WHERE k.drained_at IS NOT NULL AND k.state = 'decrypt_only'
   AND EXISTS (SELECT
                 FROM hookseal.secret_records AS r
                WHERE r.tenant_id = $1 AND substring(r.sealed FROM 3 FOR 8) = decode(k.key_id, 'hex')
                  AND r.name IN ('webhook-endpoint-' || $2::text, 'endpoint-headers-' || $2::text, 'endpoint-tls-' || $2::text))

-- The same for whatever came back: the installation's own secrets, and those of endpoints that are gone, too.
-- name: none_drained
UPDATE hookseal.secret_keys AS k
   SET drained_at = NULL
 WHERE k.drained_at IS NOT NULL AND k.state = 'decrypt_only'
   AND EXISTS (SELECT
                 FROM hookseal.secret_records AS r
                WHERE r.key_id = k.key_id OR substring(r.sealed FROM 3 FOR 8) = decode(k.key_id, 'hex'))
RETURNING k.key_id

-- name: as_previous
UPDATE hookseal.secret_records
   SET state = 'previous', changed_at = now()
 WHERE tenant_id = $1 AND name = $2 AND version = $3 AND state = 'retired'

-- Material that was destroyed, as the audit log tells, and came back: no pointer names it.
-- name: destroy_again
UPDATE hookseal.secret_records AS r
   SET state = 'destroyed', sealed = NULL, key_id = NULL, changed_at = now()
 WHERE r.tenant_id = $1 AND r.state <> 'destroyed'
   AND r.name IN ('webhook-endpoint-' || $2::text, 'endpoint-headers-' || $2::text, 'endpoint-tls-' || $2::text)
   AND NOT EXISTS (SELECT
                     FROM hookseal.endpoints AS e
                    WHERE e.tenant_id = $1 AND e.id = $2::text::uuid
                      AND concat_ws(':', r.provider, r.tenant_id, r.name, r.version)
                          IN (e.secret_ref, e.previous_secret_ref, e.headers_ref, e.tls_ref))
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

-- name: is_deleted
SELECT NOT EXISTS (SELECT FROM hookseal.endpoints WHERE tenant_id = $1 AND id = $2::text::uuid)
       AND coalesce(
           (SELECT l.action
              FROM hookseal.audit_log AS l
             WHERE l.tenant_id = $1 AND l.subject = 'endpoint:' || $2::text AND l.action <> 'rollback.found'
             ORDER BY l.sequence DESC
             LIMIT 1) = 'endpoint.deleted', false)
