-- The versions of a secret as an operator reads them: the column `sealed` is never among what is read.

-- name: of_endpoint
SELECT v.ref, v.state, v.scheme, v.created_at, v.changed_at,
       coalesce(v.ref = e.secret_ref OR (v.ref = e.previous_secret_ref AND e.previous_secret_expires_at > now()), false)
       AS signs
  FROM (SELECT r.version, r.state, r.scheme, r.created_at, r.changed_at,
               concat_ws(':', r.provider, r.tenant_id, r.name, r.version) AS ref
          FROM hookseal.secret_records AS r
         WHERE r.tenant_id = $1 AND r.name = $2) AS v
  LEFT JOIN hookseal.endpoints AS e ON e.tenant_id = $1 AND e.id = $3::text::uuid
 ORDER BY v.version

-- name: has_endpoint
SELECT EXISTS (SELECT FROM hookseal.endpoints WHERE tenant_id = $1 AND id = $2::text::uuid)
