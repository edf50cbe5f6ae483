-- Returns the references of the secrets that sign for the endpoints with one of these urls.
-- name: refs_at
SELECT r.ref
FROM hookseal.endpoints AS e
CROSS JOIN LATERAL (VALUES
    (e.secret_ref), (CASE WHEN e.previous_secret_expires_at > now() THEN e.previous_secret_ref END)) AS r (ref)
WHERE e.url = ANY ($1::text[]) AND r.ref IS NOT NULL

-- Returns whether the attempt of this delivery that is in flight is the first one of a replay. A replay has a new budget; a
-- retry has spent a part of it. A copy with a new id repeats another delivery.
-- name: is_replay
SELECT d.budget_spent = 0 AND (d.attempts > 0 OR d.replay_of IS NOT NULL)
FROM hookseal.deliveries AS d
WHERE d.id = $1::text::uuid
