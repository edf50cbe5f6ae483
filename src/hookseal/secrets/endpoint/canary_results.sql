-- The results of canaries. Each row is about one generation of the endpoint only.

-- Returns a new UUIDv7.
-- name: new_id
SELECT hookseal.uuid7()::text

-- Stores the result of one canary.
-- name: keep
INSERT INTO hookseal.rotation_canaries
    (tenant_id, id, endpoint_id, generation, secret_ref, verdict, status, control_status, detail, sent_at)
VALUES ($1, $2::text::uuid, $3::text::uuid, $4, $5, $6, $7, $8, $9, $10)

-- Deletes all but the newest results of an endpoint.
-- name: prune
DELETE FROM hookseal.rotation_canaries
 WHERE tenant_id = $1
   AND id IN (SELECT id
                FROM hookseal.rotation_canaries
               WHERE tenant_id = $1 AND endpoint_id = $2::text::uuid
               ORDER BY sent_at DESC, id DESC
              OFFSET $3)

-- Returns the newest result of one generation of an endpoint.
-- name: last
SELECT id::text,
       tenant_id,
       endpoint_id::text,
       generation,
       secret_ref,
       verdict,
       status,
       control_status,
       detail,
       sent_at
  FROM hookseal.rotation_canaries
 WHERE tenant_id = $1 AND endpoint_id = $2::text::uuid AND generation = $3
 ORDER BY sent_at DESC, id DESC
 LIMIT 1
