-- Which endpoints need a rotation by schedule, by the database's clock. schedule.py decides when one is due; these
-- statements return at least all endpoints for which it decides to act.

-- Reads a page of the endpoints that may need an announcement or a rotation, the oldest secrets first.
-- It leaves out rows with times that hookseal never writes: Python might fail to read them, and with them the page.
-- name: upcoming
SELECT e.tenant_id,
       e.id::text AS endpoint_id,
       e.rotate_every_days,
       e.secret_updated_at AS updated_at,
       e.previous_secret_expires_at AS overlap_ends_at,
       hookseal.rotation_announced_at(e.tenant_id, e.id) AS announced_at,
       now() AS read_at
  FROM hookseal.endpoints AS e
 WHERE e.rotate_every_days IS NOT NULL
   AND e.secret_ref IS NOT NULL
   AND e.secret_updated_at BETWEEN '2000-01-01Z' AND now()
   AND greatest(e.secret_updated_at + make_interval(secs => e.rotate_every_days * 86400), e.previous_secret_expires_at)
       - make_interval(secs => least($1::float8, e.rotate_every_days * 43200)) <= now()
   AND (e.secret_updated_at, e.id) > (coalesce($2::timestamptz, '-infinity'), coalesce($3::text, '00000000-0000-0000-0000-000000000000')::uuid)
 ORDER BY e.secret_updated_at, e.id
 LIMIT $4

-- Returns the schedule of one endpoint.
-- name: of_endpoint
SELECT e.tenant_id,
       e.id::text AS endpoint_id,
       e.rotate_every_days,
       e.secret_updated_at AS updated_at,
       e.previous_secret_expires_at AS overlap_ends_at,
       hookseal.rotation_announced_at(e.tenant_id, e.id) AS announced_at,
       now() AS read_at
  FROM hookseal.endpoints AS e
 WHERE e.tenant_id = $1 AND e.id = $2::text::uuid
   AND e.rotate_every_days IS NOT NULL
   AND e.secret_ref IS NOT NULL
   AND e.secret_updated_at BETWEEN '2000-01-01Z' AND now()
