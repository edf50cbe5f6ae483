-- Tokens of the HTTP API.

-- What is shown of a token.
-- name: shown
t.id::text AS token_id, t.name, t.tenant_id, t.scopes, t.created_at, t.expires_at, t.revoked_at, t.last_used_on,
CASE WHEN t.revoked_at < t.expires_at OR t.revoked_at IS NOT NULL AND t.expires_at IS NULL THEN 'revoked'
     WHEN t.expires_at <= now() THEN 'expired' ELSE 'active' END AS state

-- Frees the name of a token that has expired.
-- name: free_name
UPDATE hookseal.api_tokens
SET revoked_at = expires_at
WHERE name = $1 AND revoked_at IS NULL AND expires_at <= now()

-- Adds a token, unless one of this name is in use.
-- name: add
INSERT INTO hookseal.api_tokens AS t (tenant_id, id, name, digest, scopes, expires_at)
VALUES ($1, hookseal.uuid7(), $2, $3, $4, $5)
ON CONFLICT DO NOTHING
RETURNING {shown}

-- Revokes the token of this name that is in use.
-- name: revoke
UPDATE hookseal.api_tokens AS t
SET revoked_at = now()
WHERE t.name = $1 AND t.revoked_at IS NULL
RETURNING {shown}

-- Revokes all tokens of a tenant that are in use.
-- name: revoke_all
UPDATE hookseal.api_tokens AS t
SET revoked_at = now()
WHERE t.tenant_id = $1 AND t.revoked_at IS NULL

-- Returns a token by its id.
-- name: get
SELECT {shown}
FROM hookseal.api_tokens AS t
WHERE t.id = $1::text::uuid

-- Returns the token with this digest if it may be used now, and whether its use today is on record.
-- name: find
SELECT {shown}, t.last_used_on IS NOT DISTINCT FROM (now() AT TIME ZONE 'UTC')::date AS was_used_today
FROM hookseal.api_tokens AS t
WHERE t.digest = $1 AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > now())

-- Records that the token was used today. It waits for nobody: another use of today, or a revocation, has the row locked.
-- name: use
UPDATE hookseal.api_tokens AS t
SET last_used_on = (now() AT TIME ZONE 'UTC')::date
WHERE t.id = (SELECT u.id FROM hookseal.api_tokens AS u
              WHERE u.tenant_id = $1 AND u.id = $2::text::uuid
                AND u.last_used_on IS DISTINCT FROM (now() AT TIME ZONE 'UTC')::date
              FOR UPDATE SKIP LOCKED)

-- Returns tokens before an id, of one tenant or of all, the newest first.
-- name: page
SELECT {shown}
FROM hookseal.api_tokens AS t
WHERE ($1::text IS NULL OR t.tenant_id = $1) AND ($2::text IS NULL OR t.id < $2::text::uuid)
ORDER BY t.id DESC
LIMIT $3
