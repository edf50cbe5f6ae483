-- Returns the references of the secrets of all endpoints with one of these urls.
-- name: refs_at
SELECT r.ref
FROM hookseal.endpoints AS e
CROSS JOIN LATERAL (VALUES (e.secret_ref), (e.previous_secret_ref)) AS r (ref)
WHERE e.url = ANY ($1::text[]) AND r.ref IS NOT NULL
