-- What may lie at a provider outside PostgreSQL although no version in use needs it.

-- Takes the next number of a name; nothing if another change takes it at this moment.
-- name: take
INSERT INTO hookseal.secret_leftovers (tenant_id, name, version, provider, why)
SELECT $1::text, $2::text, greatest($4::bigint, max(l.version) + 1), $3::text, 'begun'
  FROM hookseal.secret_leftovers AS l
 WHERE l.tenant_id = $1 AND l.name = $2
    ON CONFLICT DO NOTHING
RETURNING version

-- Notes that a version, whose number it has already, is about to be written.
-- name: begin
INSERT INTO hookseal.secret_leftovers AS l (tenant_id, name, version, provider, why, share)
VALUES ($1, $2, $3, $4, 'begun', $5)
    ON CONFLICT (tenant_id, name, version) DO UPDATE
       SET why = 'begun', since = now(), provider = $4,
           share = CASE WHEN l.provider = $4 THEN coalesce(l.share, $5) ELSE $5 END
RETURNING share

-- Burns the number of a version.
-- name: burn
UPDATE hookseal.secret_leftovers SET why = 'burnt' WHERE tenant_id = $1 AND name = $2 AND version = $3

-- Notes that a version has its row.
-- name: settle
DELETE FROM hookseal.secret_leftovers WHERE tenant_id = $1 AND name = $2 AND version = $3

-- Notes that a version leaves a provider, with its share, by which it can return until it is removed there.
-- name: add_left
INSERT INTO hookseal.secret_leftovers (tenant_id, name, version, provider, why, share)
VALUES ($1, $2, $3, $4, 'destroyed',
        (SELECT r.share FROM hookseal.secret_records AS r WHERE r.tenant_id = $1 AND r.name = $2 AND r.version = $3))
    ON CONFLICT DO NOTHING

-- Notes those of these destroyed versions that lie outside PostgreSQL.
-- name: add_destroyed
INSERT INTO hookseal.secret_leftovers (tenant_id, name, version, provider, why)
SELECT r.tenant_id, r.name, r.version, r.provider, 'destroyed'
  FROM unnest($2::text[], $3::text[]::bigint[]) AS destroyed (name, version)
  JOIN hookseal.secret_records AS r
    ON r.tenant_id = $1 AND r.name = destroyed.name AND r.version = destroyed.version
 WHERE r.provider NOT IN ('db', 'dev')
    ON CONFLICT DO NOTHING

-- Locks one version to remove, after this place, and returns what else its provider has of the name.
-- name: lock_one
SELECT l.tenant_id, l.name, l.version, l.provider,
       EXISTS (SELECT
                 FROM hookseal.secret_records AS r
                WHERE r.tenant_id = l.tenant_id AND r.name = l.name AND r.provider = l.provider
                  AND r.state <> 'destroyed')
       OR EXISTS (SELECT
                    FROM hookseal.secret_leftovers AS o
                   WHERE o.tenant_id = l.tenant_id AND o.name = l.name AND o.version <> l.version
                     AND o.provider = l.provider AND o.why = 'begun') AS is_needed,
       (SELECT r.ref
          FROM hookseal.secret_records AS r
         WHERE r.tenant_id = l.tenant_id AND r.name = l.name AND r.provider = l.provider AND r.state = 'active') AS active
  FROM hookseal.secret_leftovers AS l
 WHERE l.provider = ANY ($1::text[])
   AND (l.why = 'destroyed' OR (l.why = 'begun' AND l.since < now() - make_interval(secs => $2::float8)))
   AND (l.tenant_id, l.name, l.version) > ($3, $4, $5::bigint)
 ORDER BY l.tenant_id, l.name, l.version
 LIMIT 1
   FOR UPDATE OF l SKIP LOCKED

-- Notes that a version was removed at its provider: the number of one that was never used is burnt.
-- name: removed
WITH gone AS (
    DELETE FROM hookseal.secret_leftovers
     WHERE tenant_id = $1 AND name = $2 AND version = $3 AND why = 'destroyed')
UPDATE hookseal.secret_leftovers
   SET why = 'burnt'
 WHERE tenant_id = $1 AND name = $2 AND version = $3 AND why = 'begun'
