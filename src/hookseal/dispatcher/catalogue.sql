-- Endpoints as an operator reads them. The column `secret` is never among what is read.

-- name: page
SELECT e.tenant_id, e.id::text AS endpoint_id, e.name, e.url, e.event_types, e.enabled, e.disabled_reason,
       e.scheme, e.algorithm, e.generation, e.created_at
FROM hookseal.endpoints AS e
WHERE ($1::text IS NULL OR e.tenant_id = $1)
  AND ($2::boolean IS NULL OR e.enabled = $2)
  AND ($3::text IS NULL OR e.id < $3::text::uuid)
ORDER BY e.id DESC
LIMIT $4

-- name: show
SELECT e.tenant_id, e.id::text AS endpoint_id, e.name, e.url, e.event_types, e.enabled, e.disabled_reason, e.disabled_at,
       e.scheme, e.algorithm, e.timeout_ms,
       e.max_attempts, e.backoff_base_seconds, e.backoff_cap_seconds, e.retry_schedule, e.attempts_allowed,
       e.secret_ref, e.previous_secret_ref, e.previous_secret_expires_at, e.previous_scheme, e.previous_algorithm,
       e.secret_provider, e.secret_updated_at, e.rotate_every_days, e.header_names, e.headers_ref,
       e.tls_shown AS tls, e.tls_ref, e.lead,
       e.generation, e.has_plaintext, e.created_at,
       coalesce(e.generation < (SELECT max(l.generation) FROM hookseal.audit_log AS l
                                WHERE l.tenant_id = e.tenant_id AND l.subject = 'endpoint:' || e.id), false) AS put_back,
       held.pending AS pending_deliveries, held.waiting AS waiting_deliveries, held.since AS waiting_since,
       (SELECT h.probe_at FROM hookseal.held_endpoints AS h
        WHERE h.tenant_id = e.tenant_id AND h.endpoint_id = e.id AND h.released_at IS NULL) AS next_probe_at
FROM hookseal.endpoints AS e
CROSS JOIN LATERAL (
    SELECT count(*) AS pending, count(d.waiting_for) AS waiting, min(d.held_at) AS since
    FROM hookseal.deliveries AS d
    WHERE d.tenant_id = e.tenant_id AND d.endpoint_id = e.id AND d.state = 'pending'
) AS held
WHERE e.tenant_id = $1 AND e.id = $2::text::uuid
