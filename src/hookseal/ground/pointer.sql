-- What `Pointer` holds, for every statement that reads one. A statement names these by {name}; its endpoint is `e`.

-- What stands in the row of the endpoint, but for its key.
-- name: pointer_columns
e.url, e.scheme, e.algorithm, e.secret_ref, e.previous_secret_ref, e.previous_secret_expires_at, e.previous_scheme,
e.previous_algorithm, e.lead, e.headers_ref, e.tls_ref, e.generation, e.mac, e.mac_key_id

-- Whether the overlap still runs.
-- name: is_previous_due
(e.previous_secret_ref IS NOT NULL AND coalesce(e.previous_secret_expires_at > now(), false))

-- Whether the overlap still runs, and the newest generation that the audit log knows.
-- A statement that locks the row may read a newer version of it than its snapshot has, and the log by its snapshot. If the
-- two differ, the function reads the log again, so that a move that was committed meanwhile does not look unaudited.
-- name: pointer_standing
{is_previous_due} AS previous_due,
(SELECT CASE WHEN max(l.generation) = e.generation THEN e.generation
             ELSE hookseal.audited_generation(e.tenant_id, e.id) END
 FROM hookseal.audit_log AS l
 WHERE l.tenant_id = e.tenant_id AND l.subject = 'endpoint:' || e.id) AS audited_generation

-- The epochs of caches and of restores.
-- name: pointer_epochs
coalesce((SELECT epoch FROM hookseal.control WHERE name = 'cache'), -1) AS cache_epoch,
coalesce((SELECT epoch FROM hookseal.control WHERE name = 'restore'), -1) AS restore_epoch

-- All of it.
-- name: pointer
e.tenant_id, e.id::text AS endpoint_id, now() AS read_at, {pointer_columns}, {pointer_standing}, {pointer_epochs}
