-- What canaries proved of a rotation. Each row is of one generation of the endpoint, and says nothing of another.

-- name: new_id
SELECT hookseal.uuid7()::text

-- name: keep
INSERT INTO hookseal.rotation_canaries
    (tenant_id, id, endpoint_id, generation, secret_ref, verdict, status, control_status, detail, sent_at)
VALUES ($1, $2::text::uuid, $3::text::uuid, $4, $5, $6, $7, $8, $9, $10)

-- name: prune
DELETE FROM hookseal.rotation_canaries
 WHERE tenant_id = $1
   AND id IN (SELECT id
                FROM hookseal.rotation_canaries
               WHERE tenant_id = $1 AND endpoint_id = $2::text::uuid
               ORDER BY sent_at DESC, id DESC
              OFFSET $3)

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
