-- Stale endpoints: their rows, records and audit rows, which change in one transaction, contradict each other.

-- Reads a page of the endpoints; `kind` is null if there is no contradiction.
-- name: endpoints
SELECT e.tenant_id,
       e.id::text AS endpoint_id,
       e.generation,
       newest.generation AS audited_generation,
       CASE WHEN e.generation < newest.generation THEN 'endpoint'
            WHEN coalesce(e.generation > newest.generation, e.mac IS NOT NULL) THEN 'unaudited'
            WHEN EXISTS (
                 SELECT
                   FROM hookseal.secret_records AS r
                  WHERE r.tenant_id = e.tenant_id
                    AND r.endpoint_id = e.id
                    AND r.state <> CASE r.ref
                                        WHEN e.secret_ref THEN 'active'
                                        WHEN e.headers_ref THEN 'active'
                                        WHEN e.tls_ref THEN 'active'
                                        WHEN e.previous_secret_ref THEN 'previous'
                                        ELSE CASE WHEN r.state = 'destroyed' THEN 'destroyed'
                                                  WHEN EXISTS (
                                                       SELECT
                                                         FROM hookseal.audit_log AS l
                                                        WHERE l.tenant_id = r.tenant_id
                                                          AND l.subject = 'secret:' || r.ref
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
                           AND r.endpoint_id = e.id
                           AND r.ref = named.ref))
              OR EXISTS (
                 SELECT
                   FROM hookseal.secret_records AS r
                   JOIN LATERAL (
                        SELECT l.after ->> 'key_id' AS key_id
                          FROM hookseal.audit_log AS l
                         WHERE l.tenant_id = r.tenant_id AND l.subject = 'endpoint:' || e.id
                           AND r.ref
                               IN (l.after ->> 'secret_ref', l.after ->> 'headers_ref', l.after ->> 'tls_ref')
                           AND l.after ->> 'key_id' IS NOT NULL
                         ORDER BY l.sequence DESC
                         LIMIT 1) AS audited ON true
                   JOIN hookseal.secret_keys AS k
                     ON k.key_id = r.key_id
                    AND k.key_id <> audited.key_id AND NOT hookseal.was_rewrapped(audited.key_id, k.key_id)
                  WHERE r.tenant_id = e.tenant_id
                    AND r.endpoint_id = e.id
                    AND r.state IN ('active', 'previous'))
              OR EXISTS (
                 SELECT
                   FROM hookseal.secret_records AS r
                   JOIN hookseal.secret_keys AS k
                     ON k.key_id = r.key_id AND k.drained_at IS NOT NULL
                  WHERE r.tenant_id = e.tenant_id
                    AND r.endpoint_id = e.id)
            THEN 'record' END AS kind
  FROM hookseal.endpoints AS e
  LEFT JOIN LATERAL (
       SELECT max(l.generation) AS generation
         FROM hookseal.audit_log AS l
        WHERE l.tenant_id = e.tenant_id AND l.subject = 'endpoint:' || e.id) AS newest ON true
 WHERE ($1::text IS NULL OR e.tenant_id = $1) AND (e.tenant_id, e.id) > ($2, $3::text::uuid)
 ORDER BY e.tenant_id, e.id
 LIMIT $4

-- Reads a page of the endpoints in the log; `kind` is null if the row exists or was deleted.
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
        WHERE l.tenant_id = known.tenant_id AND l.subject = known.subject AND l.action <> 'stale.found'
        ORDER BY l.sequence DESC
        LIMIT 1) AS newest ON true
 ORDER BY known.tenant_id, known.subject

-- Reads a page of the deleted endpoints with a record that is neither retired nor destroyed, or that is back
-- although a purge destroyed it.
-- name: left
SELECT own.tenant_id,
       own.endpoint_id::text AS endpoint_id,
       NULL::bigint AS generation,
       (SELECT max(l.generation)
          FROM hookseal.audit_log AS l
         WHERE l.tenant_id = own.tenant_id AND l.subject = 'endpoint:' || own.endpoint_id) AS audited_generation,
       CASE WHEN newest.action = 'endpoint.deleted' THEN 'record' END AS kind
  FROM (SELECT DISTINCT r.tenant_id, r.endpoint_id
          FROM hookseal.secret_records AS r
         WHERE ($1::text IS NULL OR r.tenant_id = $1)
           AND r.endpoint_id IS NOT NULL AND (r.tenant_id, r.endpoint_id) > ($2, $3::text::uuid)
           AND r.state <> 'destroyed'
           AND (r.state <> 'retired'
                OR EXISTS (
                   SELECT
                     FROM hookseal.audit_log AS l
                    WHERE l.tenant_id = r.tenant_id
                      AND l.subject = 'secret:' || r.ref
                      AND l.action = 'secret.destroyed'))
           AND NOT EXISTS (
               SELECT
                 FROM hookseal.endpoints AS e
                WHERE e.tenant_id = r.tenant_id AND e.id = r.endpoint_id)
         ORDER BY r.tenant_id, r.endpoint_id
         LIMIT $4) AS own
  LEFT JOIN LATERAL (
       SELECT l.action
         FROM hookseal.audit_log AS l
        WHERE l.tenant_id = own.tenant_id AND l.subject = 'endpoint:' || own.endpoint_id AND l.action <> 'stale.found'
        ORDER BY l.sequence DESC
        LIMIT 1) AS newest ON true
 ORDER BY own.tenant_id, own.endpoint_id

-- Returns the ref columns of an endpoint's row without material, or with material under a retired or destroyed key.
-- name: missing_material
SELECT named.field
  FROM hookseal.endpoints AS e
 CROSS JOIN LATERAL (
       VALUES ('secret_ref', e.secret_ref),
              ('previous_secret_ref', e.previous_secret_ref),
              ('headers_ref', e.headers_ref),
              ('tls_ref', e.tls_ref)) AS named (field, ref)
 WHERE e.tenant_id = $1 AND e.id = $2::text::uuid
   AND named.ref IS NOT NULL
   AND NOT EXISTS (
       SELECT
         FROM hookseal.secret_records AS r
        WHERE r.tenant_id = e.tenant_id
          AND r.endpoint_id = e.id
          AND r.ref = named.ref
          AND r.state <> 'destroyed'
          AND NOT EXISTS (
              SELECT
                FROM hookseal.secret_keys AS k
               WHERE k.key_id = r.key_id
                 AND k.state IN ('retired', 'destroyed')))

-- Returns the master key that a version is sealed under.
-- name: key_id
SELECT key_id
  FROM hookseal.secret_records
 WHERE tenant_id = $1 AND name = $2 AND version = $3

-- Unmarks each drained key that has a record of the endpoint, so that a re-wrap includes it again.
-- name: reopen_keys_of_endpoint
UPDATE hookseal.secret_keys AS k
   SET drained_at = NULL
 WHERE k.drained_at IS NOT NULL AND k.state = 'decrypt_only'
   AND EXISTS (SELECT
                 FROM hookseal.secret_records AS r
                WHERE r.tenant_id = $1 AND r.key_id = k.key_id
                  AND r.endpoint_id = $2::text::uuid)

-- Unmarks each drained key that has records, so that a re-wrap includes it again.
-- These include records of the installation itself, and of endpoints that are gone.
-- name: reopen_drained_keys
UPDATE hookseal.secret_keys AS k
   SET drained_at = NULL
 WHERE k.drained_at IS NOT NULL AND k.state = 'decrypt_only'
   AND EXISTS (SELECT
                 FROM hookseal.secret_records AS r
                WHERE r.key_id = k.key_id)
RETURNING k.key_id

-- Makes a retired version the previous one again.
-- name: make_previous
UPDATE hookseal.secret_records
   SET state = 'previous', changed_at = now()
 WHERE tenant_id = $1 AND name = $2 AND version = $3 AND state = 'retired'

-- Locks every version of the endpoint.
-- name: lock_records
SELECT
  FROM hookseal.secret_records AS r
 WHERE r.tenant_id = $1 AND r.endpoint_id = $2::text::uuid
 ORDER BY r.name, r.version
   FOR UPDATE

-- Destroys the versions of the endpoint that are back although the log says that they were destroyed.
-- It leaves out those that the endpoint's row names.
-- name: destroy_again
UPDATE hookseal.secret_records AS r
   SET state = 'destroyed', sealed = NULL, share = NULL, changed_at = now()
 WHERE r.tenant_id = $1 AND r.state <> 'destroyed'
   AND r.endpoint_id = $2::text::uuid
   AND NOT EXISTS (SELECT
                     FROM hookseal.endpoints AS e
                    WHERE e.tenant_id = $1 AND e.id = $2::text::uuid
                      AND r.ref
                          IN (e.secret_ref, e.previous_secret_ref, e.headers_ref, e.tls_ref))
   AND EXISTS (SELECT
                 FROM hookseal.audit_log AS l
                WHERE l.tenant_id = r.tenant_id
                  AND l.subject = 'secret:' || r.ref
                  AND l.action = 'secret.destroyed')

-- Returns whether the endpoint has no row although the log does not say that it was deleted.
-- name: is_lost
SELECT NOT EXISTS (SELECT FROM hookseal.endpoints WHERE tenant_id = $1 AND id = $2::text::uuid)
       AND coalesce(
           (SELECT l.action
              FROM hookseal.audit_log AS l
             WHERE l.tenant_id = $1 AND l.subject = 'endpoint:' || $2::text AND l.action <> 'stale.found'
             ORDER BY l.sequence DESC
             LIMIT 1) <> 'endpoint.deleted', false)

-- Returns whether the endpoint has no row, and the log says that it was deleted.
-- name: is_deleted
SELECT NOT EXISTS (SELECT FROM hookseal.endpoints WHERE tenant_id = $1 AND id = $2::text::uuid)
       AND coalesce(
           (SELECT l.action
              FROM hookseal.audit_log AS l
             WHERE l.tenant_id = $1 AND l.subject = 'endpoint:' || $2::text AND l.action <> 'stale.found'
             ORDER BY l.sequence DESC
             LIMIT 1) = 'endpoint.deleted', false)
