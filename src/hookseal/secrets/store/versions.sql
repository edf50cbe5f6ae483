-- The states of the versions of a secret: active, previous and retired.

-- Makes one version of a name the previous one, and retires all others but the one that becomes active.
-- name: step_aside
UPDATE hookseal.secret_records
   SET state = CASE WHEN version = $4 THEN 'previous' ELSE 'retired' END,
       changed_at = now()
 WHERE tenant_id = $1 AND name = $2 AND version <> $3 AND state IN ('active', 'previous')
   AND state <> CASE WHEN version = $4 THEN 'previous' ELSE 'retired' END

-- Makes a version the active one, unless its material is destroyed.
-- name: activate
UPDATE hookseal.secret_records
   SET state = 'active', changed_at = CASE state WHEN 'active' THEN changed_at ELSE now() END
 WHERE tenant_id = $1 AND name = $2 AND version = $3 AND state <> 'destroyed'
RETURNING version
