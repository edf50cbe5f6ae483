-- The versions of a secret as an operator reads them: the column `sealed` is never among what is read.

-- name: of_endpoint
SELECT v.ref, v.state, v.scheme, v.created_at, v.changed_at,
       coalesce(newest.is_this, true)
       AND coalesce(v.ref = e.secret_ref OR (v.ref = e.previous_secret_ref AND e.previous_secret_expires_at > now()), false)
       AS signs,
       NOT coalesce(newest.is_this, true) AND v.ref IN (e.secret_ref, coalesce(e.previous_secret_ref, '')) AS named_by_old_row,
       CASE WHEN coalesce(newest.is_this, true) AND v.ref = e.previous_secret_ref AND v.ref IS DISTINCT FROM e.secret_ref
                 AND e.previous_secret_expires_at > now()
            THEN e.previous_secret_expires_at END AS signs_until
  FROM (SELECT r.version, r.state, r.scheme, r.created_at, r.changed_at,
               concat_ws(':', r.provider, r.tenant_id, r.name, r.version) AS ref
          FROM hookseal.secret_records AS r
         WHERE r.tenant_id = $1 AND r.name = $2) AS v
  LEFT JOIN hookseal.endpoints AS e ON e.tenant_id = $1 AND e.id = $3::text::uuid
  LEFT JOIN LATERAL (
       SELECT e.generation >= max(l.generation) AS is_this  -- a row that was put back signs nothing
         FROM hookseal.audit_log AS l
        WHERE l.tenant_id = $1 AND l.subject = 'endpoint:' || $3::text) AS newest ON true
 ORDER BY v.version

-- name: has_endpoint
SELECT EXISTS (SELECT FROM hookseal.endpoints WHERE tenant_id = $1 AND id = $2::text::uuid)

-- name: has_version
SELECT EXISTS (SELECT
                 FROM hookseal.secret_records
                WHERE tenant_id = $1 AND name = $2 AND version = $3 AND provider = $4)
