-- The rotations of an endpoint's secret: the arguments and the answer of each rotation id.

-- Returns a new UUIDv7.
-- name: new_id
SELECT hookseal.uuid7()::text

-- Returns the arguments and the answer of a rotation id.
-- name: find
SELECT intent::text AS intent, outcome, version, answer::text AS answer
  FROM hookseal.secret_rotations
 WHERE tenant_id = $1 AND rotation_id = $2

-- Stores a rotation, unless its id is in use.
-- name: keep
INSERT INTO hookseal.secret_rotations (tenant_id, rotation_id, endpoint_id, intent, outcome, version, answer)
VALUES ($1, $2, $3::text::uuid, $4::text::json, 'done', $5, $6::text::json)
    ON CONFLICT DO NOTHING
RETURNING rotation_id

-- Returns which secrets sign for an endpoint, and how long its overlap still lasts.
-- name: status
SELECT tenant_id,
       id::text AS endpoint_id,
       generation,
       scheme,
       algorithm,
       lead,
       secret_ref,
       previous_secret_ref,
       previous_scheme,
       previous_algorithm,
       previous_secret_expires_at,
       previous_secret_ref IS NOT NULL AND coalesce(previous_secret_expires_at > now(), false) AS overlapping,
       CASE WHEN previous_secret_expires_at > now()
            THEN ceil(extract(epoch FROM previous_secret_expires_at - now()))::bigint END AS seconds_left,
       (SELECT coalesce(e.generation <> max(l.generation), e.mac IS NOT NULL)
          FROM hookseal.audit_log AS l
         WHERE l.tenant_id = $1 AND l.subject = 'endpoint:' || $2::text) AS stale
  FROM hookseal.endpoints AS e
 WHERE tenant_id = $1 AND id = $2::text::uuid

-- Lists the last rotations of an endpoint, newest first.
-- name: latest
SELECT rotation_id, version, created_at
  FROM hookseal.secret_rotations
 WHERE tenant_id = $1 AND endpoint_id = $2::text::uuid
 ORDER BY created_at DESC, version DESC
 LIMIT $3
