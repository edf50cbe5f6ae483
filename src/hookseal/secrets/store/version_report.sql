-- The versions of a secret for an operator. No statement reads the column `sealed`.

-- Lists the versions of an endpoint's secret, and which of them sign attempts that are claimed now, and until when.
-- name: of_endpoint
SELECT v.ref, v.state, v.scheme, v.created_at, v.changed_at,
       coalesce(newest.is_this, true)
       AND coalesce(v.ref = e.secret_ref OR (v.ref = e.previous_secret_ref AND e.previous_secret_expires_at > now()), false)
       AS signs,
       NOT coalesce(newest.is_this, true) AND v.ref IN (e.secret_ref, coalesce(e.previous_secret_ref, '')) AS named_by_old_row,
       CASE WHEN coalesce(newest.is_this, true) AND v.ref = e.previous_secret_ref AND v.ref IS DISTINCT FROM e.secret_ref
                 AND e.previous_secret_expires_at > now()
            THEN e.previous_secret_expires_at END AS signs_until
  FROM hookseal.secret_records AS v
  LEFT JOIN hookseal.endpoints AS e ON e.tenant_id = $1 AND e.id = $3::text::uuid
  LEFT JOIN LATERAL (
       SELECT coalesce(e.generation = max(l.generation), e.mac IS NULL) AS is_this  -- a stale row signs nothing
         FROM hookseal.audit_log AS l
        WHERE l.tenant_id = $1 AND l.subject = 'endpoint:' || $3::text) AS newest ON true
 WHERE v.tenant_id = $1 AND v.name = $2
 ORDER BY v.version

-- Returns whether the tenant has the endpoint.
-- name: has_endpoint
SELECT EXISTS (SELECT FROM hookseal.endpoints WHERE tenant_id = $1 AND id = $2::text::uuid)

-- Returns whether the version exists, even if its material is destroyed.
-- name: has_version
SELECT EXISTS (SELECT
                 FROM hookseal.secret_records
                WHERE tenant_id = $1 AND name = $2 AND version = $3 AND provider = $4)
