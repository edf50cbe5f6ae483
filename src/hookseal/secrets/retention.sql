-- Material whose version was retired for so long that nobody may need it any more. Only what signs for endpoints, or
-- fills their headers, or proves them at a receiver, is ever found: what the installation keeps for itself has other purposes.

-- Endpoints whose overlap ended a while ago: their previous version signs nothing any more, and is not retired yet.
-- name: run_out
SELECT e.tenant_id, e.id::text AS endpoint_id
  FROM hookseal.endpoints AS e
 WHERE e.previous_secret_ref IS NOT NULL
   AND e.previous_secret_expires_at <= now() - make_interval(secs => $1::float8)
   AND ($2::text IS NULL OR (e.tenant_id, e.id) > ($2::text, $3::text::uuid))
 ORDER BY e.tenant_id, e.id
 LIMIT $4

-- Over all tenants, each to be looked at by itself.
-- name: tenants
SELECT DISTINCT r.tenant_id
  FROM hookseal.secret_records AS r
 WHERE r.state = 'retired' AND r.provider = 'db' AND r.purpose = ANY ($1::text[])
   AND r.changed_at BETWEEN '2000-01-01Z' AND now() - make_interval(secs => $2::float8)
   AND r.tenant_id NOT LIKE '\_%'
 ORDER BY r.tenant_id

-- Not what the pointer of its endpoint names (no other may name it), nor what a claim in flight may still ask for. A
-- claim says which versions sign; it reads the header values and the TLS identity of the generation that it was made at.
-- name: find
SELECT r.name, r.version, r.key_id, r.changed_at AS retired_at
  FROM hookseal.secret_records AS r
 CROSS JOIN LATERAL (
       SELECT concat_ws(':', r.provider, r.tenant_id, r.name, r.version) AS ref,
              substring(r.name FROM '^(?:webhook-endpoint|endpoint-headers|endpoint-tls)-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$')::uuid
              AS endpoint_id) AS own
  LEFT JOIN hookseal.endpoints AS e ON e.tenant_id = r.tenant_id AND e.id = own.endpoint_id
 WHERE r.tenant_id = $1 AND r.state = 'retired' AND r.provider = 'db' AND r.purpose = ANY ($2::text[])
   AND r.changed_at BETWEEN '2000-01-01Z' AND now() - make_interval(secs => $3::float8)
   AND own.ref IS DISTINCT FROM e.secret_ref
   AND own.ref IS DISTINCT FROM e.previous_secret_ref
   AND own.ref IS DISTINCT FROM e.headers_ref
   AND own.ref IS DISTINCT FROM e.tls_ref
   AND NOT EXISTS (
       SELECT
         FROM hookseal.deliveries AS d
        WHERE d.tenant_id = r.tenant_id AND d.state = 'sending' AND d.lease_expires_at > now()
          AND (own.ref = ANY (d.claimed_refs)
               OR (r.purpose IN ('endpoint-headers', 'endpoint-tls') AND d.endpoint_id = own.endpoint_id
                   AND (e.id IS NULL OR d.claimed_generation < e.generation))))
   AND ($4::text IS NULL OR (r.name, r.version) > ($4::text, $5::bigint))
 ORDER BY r.name, r.version
 LIMIT $6
   FOR UPDATE OF r SKIP LOCKED

-- One statement for a batch, so that the cache epoch moves once (a trigger moves it).
-- name: destroy
UPDATE hookseal.secret_records AS r
   SET state = 'destroyed', sealed = NULL, key_id = NULL, changed_at = now()
  FROM unnest($2::text[], $3::bigint[]) AS doomed (name, version)
 WHERE r.tenant_id = $1 AND r.name = doomed.name AND r.version = doomed.version AND r.state = 'retired'
