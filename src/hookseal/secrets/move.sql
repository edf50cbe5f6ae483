-- Moving secrets to another provider.

-- Lists the live workers that do not read the provider.
-- name: workers_without
SELECT id
  FROM hookseal.workers
 WHERE beaten_at > now() - make_interval(secs => $2) AND NOT providers @> ARRAY[$1::text]
 ORDER BY id

-- Adds the master keys that ever sealed one version to those of another.
-- name: pass_on_keys
UPDATE hookseal.secret_records AS copy
   SET wrapped_by = of.wrapped_by || ARRAY(SELECT key FROM unnest(copy.wrapped_by) AS key WHERE key <> ALL (of.wrapped_by))
  FROM hookseal.secret_records AS of
 WHERE of.tenant_id = $1 AND of.name = $2 AND of.version = $3
   AND copy.tenant_id = $1 AND copy.name = $2 AND copy.version = $4
