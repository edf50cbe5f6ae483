-- Tokens of the HTTP API.

-- What is shown of a token.
-- name: shown
t.id::text AS token_id, t.name, t.tenant_id, t.scopes, t.created_at, t.expires_at, t.revoked_at, t.last_used_on,
t.portal, t.user_name AS "user", t.session_id,
CASE WHEN t.revoked_at < t.expires_at OR t.revoked_at IS NOT NULL AND t.expires_at IS NULL THEN 'revoked'
     WHEN t.expires_at <= now() THEN 'expired' ELSE 'active' END AS state

-- Whether its tenant is known: one that was added, or that has had an endpoint, and was not deleted.
-- name: known
t.tenant_id = '*'
OR EXISTS (SELECT FROM hookseal.tenants AS n WHERE n.tenant_id = t.tenant_id AND n.deleted_at IS NULL)
    AS tenant_is_known

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
RETURNING {shown}, {known}

-- Adds a token of a portal, with its code. Its name is new. It ends after so many seconds, and at that time at the latest.
-- name: add_portal
INSERT INTO hookseal.api_tokens AS t
    (tenant_id, id, name, digest, scopes, expires_at, portal, user_name, session_id, refresh_url, code_digest)
SELECT $1::text, made.id, 'portal-' || replace(made.id::text, '-', ''), $2::bytea, $3::text[],
       least(now() + make_interval(secs => $4::integer), $5::timestamptz), true, $6::text, $7::text, $8::text, $9::bytea
FROM (SELECT hookseal.uuid7() AS id) AS made
RETURNING {shown}, {known}

-- Spends a code that may be used now, and adds the token of a session, which ends with the token of the code. Of two at once the
-- second waits for the first, and then finds it spent.
-- name: exchange
WITH spent AS (
    UPDATE hookseal.api_tokens AS t
    SET code_spent_at = now()
    WHERE t.code_digest = $1 AND t.code_spent_at IS NULL AND t.created_at > now() - interval '10 minutes'
      AND t.revoked_at IS NULL AND t.expires_at > now()
    RETURNING t.tenant_id, t.id AS made_of, hookseal.uuid7() AS id, t.scopes, t.expires_at, t.user_name, t.session_id, t.refresh_url
)
INSERT INTO hookseal.api_tokens AS t
    (tenant_id, id, name, digest, scopes, expires_at, portal, user_name, session_id, refresh_url, made_of)
SELECT s.tenant_id, s.id, 'portal-' || replace(s.id::text, '-', ''), $2::bytea, s.scopes, s.expires_at, true,
       s.user_name, s.session_id, s.refresh_url, s.made_of
FROM spent AS s
RETURNING {shown}, t.refresh_url

-- Returns the tokens of portals with these digests, in hexadecimal, or whose codes have them, whether they may be used or not.
-- `OFFSET 0` makes the planner look each up in the indexes.
-- name: of_portals
SELECT s.digest, {shown}, t.refresh_url
FROM unnest($1::text[]) AS s (digest),
     LATERAL (SELECT * FROM hookseal.api_tokens AS k
              WHERE k.code_digest = decode(s.digest, 'hex') OR k.digest = decode(s.digest, 'hex')
              OFFSET 0) AS t
WHERE t.portal

-- Lets the tokens of a tenant's portals that are in use, or those of these sessions, end in so many seconds, and now if that is 0.
-- name: expire_portals
UPDATE hookseal.api_tokens AS t
SET revoked_at = CASE WHEN $2::integer = 0 THEN now() END,
    expires_at = CASE WHEN $2::integer = 0 THEN t.expires_at ELSE now() + make_interval(secs => $2::integer) END
WHERE t.tenant_id = $1 AND t.portal AND t.revoked_at IS NULL
  AND t.expires_at > now() + make_interval(secs => $2::integer)
  AND (cardinality($3::text[]) = 0 OR t.session_id = ANY($3::text[]))

-- Revokes the token of this name that is in use.
-- name: revoke
UPDATE hookseal.api_tokens AS t
SET revoked_at = now()
WHERE t.name = $1 AND t.revoked_at IS NULL
RETURNING {shown}

-- Revokes the sessions that were made of the code of a token.
-- name: revoke_sessions
UPDATE hookseal.api_tokens AS t
SET revoked_at = now()
WHERE t.tenant_id = $1 AND t.made_of = $2::text::uuid AND t.revoked_at IS NULL

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

-- Returns those of the tokens with these digests, in hexadecimal, that may be used now, and whether the use of each today is on
-- record. `OFFSET 0` makes the planner look each up in the index.
-- name: find
SELECT s.digest, {shown}, t.last_used_on IS NOT DISTINCT FROM (now() AT TIME ZONE 'UTC')::date AS was_used_today
FROM unnest($1::text[]) AS s (digest),
     LATERAL (SELECT * FROM hookseal.api_tokens AS k WHERE k.digest = decode(s.digest, 'hex') OFFSET 0) AS t
WHERE t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > now())

-- Records that these tokens were used today. It waits for nobody: another use of today, or a revocation, has the row locked.
-- name: use
UPDATE hookseal.api_tokens AS t
SET last_used_on = (now() AT TIME ZONE 'UTC')::date
WHERE t.id IN (SELECT u.id FROM hookseal.api_tokens AS u
               WHERE u.id = ANY ($1::text[]::uuid[])
                 AND u.last_used_on IS DISTINCT FROM (now() AT TIME ZONE 'UTC')::date
               FOR UPDATE SKIP LOCKED)

-- Returns tokens before an id, of one tenant or of all, the newest first: those of portals, or the others.
-- name: page
SELECT {shown}
FROM hookseal.api_tokens AS t
WHERE ($1::text IS NULL OR t.tenant_id = $1) AND ($2::text IS NULL OR t.id < $2::text::uuid) AND t.portal = $4
ORDER BY t.id DESC
LIMIT $3
