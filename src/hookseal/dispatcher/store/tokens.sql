-- Tokens of the HTTP API.

-- What is shown of a token.
-- name: shown
t.id::text AS token_id, t.name, t.tenant_id, t.scopes, t.created_at, t.expires_at, t.revoked_at, t.last_used_on,
t.portal, t.user_name AS "user", t.session_id,
CASE WHEN t.revoked_at < t.expires_at OR t.revoked_at IS NOT NULL AND t.expires_at IS NULL THEN 'revoked'
     WHEN t.expires_at <= now() THEN 'expired' ELSE 'active' END AS state

-- What proves that a token is genuine, beside what is shown of it. A process without a master key needs the public key.
-- name: proof
t.digest, t.refresh_url, t.code_digest, t.code_spent_at, t.made_of::text AS made_of, t.generation, t.signature,
t.signature_key_id,
(SELECT p.public_key FROM hookseal.token_keys AS p WHERE p.key_id = t.signature_key_id) AS public_key

-- The highest generation that the audit log has of the name of a token. Each end of a token has a higher one.
-- name: audited
(SELECT max(l.generation)
 FROM hookseal.audit_log AS l
 WHERE l.tenant_id = CASE t.tenant_id WHEN '*' THEN '_system' ELSE t.tenant_id END AND l.subject = 'token:' || t.name)

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

-- Returns what a new token gets from the database: id, name, times and generation. One of a portal gets a name, and ends after
-- so many seconds, and at that time at the latest.
-- name: begin
SELECT t.id::text AS token_id, t.name, now() AS created_at,
       least(now() + make_interval(secs => $3::integer), $4::timestamptz) AS expires_at,
       least(coalesce({audited}, 0), 9223372036854775806) + 1 AS generation
FROM (SELECT $1::text AS tenant_id, made.id, coalesce($2::text, 'portal-' || replace(made.id::text, '-', '')) AS name
      FROM (SELECT hookseal.uuid7() AS id) AS made) AS t

-- Adds a token, unless one of this name is in use.
-- name: add
INSERT INTO hookseal.api_tokens AS t
    (tenant_id, id, name, digest, scopes, created_at, expires_at, portal, user_name, session_id, refresh_url, code_digest,
     made_of, generation, signature, signature_key_id)
VALUES ($1, $2::text::uuid, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13::text::uuid, $14, $15, $16)
ON CONFLICT DO NOTHING
RETURNING {shown}, {proof}, {known}

-- Locks the token whose code may be used now. Of two at once the second waits for the first, and then finds it spent.
-- name: lock_code
SELECT t.id::text AS token_id
FROM hookseal.api_tokens AS t
WHERE t.code_digest = $1 AND t.code_spent_at IS NULL AND t.created_at > now() - interval '10 minutes'
  AND t.revoked_at IS NULL AND t.expires_at > now()
FOR UPDATE

-- Returns those of the tokens that are no older copies. They are locked: a statement of its own sees what the lock waited for.
-- name: newest
SELECT {shown}, {proof}, now() AS read_at
FROM hookseal.api_tokens AS t
WHERE t.id = ANY ($1::text[]::uuid[]) AND t.generation = {audited}

-- Gives tokens another end, or spends their codes, with new signatures.
-- name: sign_again
UPDATE hookseal.api_tokens AS t
SET expires_at = n.expires_at, code_spent_at = n.code_spent_at, generation = n.generation, signature = n.signature,
    signature_key_id = n.signature_key_id
FROM unnest($1::text[]::uuid[], $2::text[]::timestamptz[], $3::text[]::timestamptz[], $4::text[]::bigint[], $5::text[]::bytea[],
            $6::text[])
     AS n (id, expires_at, code_spent_at, generation, signature, signature_key_id)
WHERE t.id = n.id

-- Returns the tokens of portals with these digests, in hexadecimal, or whose codes have them, whether they may be used or not.
-- `OFFSET 0` makes the planner look each up in the indexes.
-- name: of_portals
SELECT s.digest AS asked, {shown}, {proof}
FROM unnest($1::text[]) AS s (digest),
     LATERAL (SELECT * FROM hookseal.api_tokens AS k
              WHERE k.code_digest = decode(s.digest, 'hex') OR k.digest = decode(s.digest, 'hex')
              OFFSET 0) AS t
WHERE t.portal

-- Locks the tokens of a tenant's portals that are in use, or those of these sessions, unless they end in so many seconds anyway.
-- name: lock_portals
SELECT t.id::text AS token_id
FROM hookseal.api_tokens AS t
WHERE t.tenant_id = $1 AND t.portal AND t.revoked_at IS NULL
  AND t.expires_at > now() + make_interval(secs => $2::integer)
  AND (cardinality($3::text[]) = 0 OR t.session_id = ANY($3::text[]))
ORDER BY t.id
FOR UPDATE

-- Locks the token of this name that is in use.
-- name: lock_name
SELECT t.id::text AS token_id FROM hookseal.api_tokens AS t WHERE t.name = $1 AND t.revoked_at IS NULL FOR UPDATE

-- Locks the sessions that were made of the code of a token.
-- name: lock_sessions
SELECT t.id::text AS token_id
FROM hookseal.api_tokens AS t
WHERE t.tenant_id = $1 AND t.made_of = $2::text::uuid AND t.revoked_at IS NULL
FOR UPDATE

-- Locks all tokens of a tenant that are in use.
-- name: lock_all
SELECT t.id::text AS token_id
FROM hookseal.api_tokens AS t
WHERE t.tenant_id = $1 AND t.revoked_at IS NULL
ORDER BY t.id
FOR UPDATE

-- Revokes these tokens, which are locked. Returns them with the generation that the audit log must get.
-- name: revoke
UPDATE hookseal.api_tokens AS t
SET revoked_at = now()
WHERE t.id = ANY ($1::text[]::uuid[])
RETURNING {shown}, least(coalesce({audited}, 0), 9223372036854775806) + 1 AS generation

-- Returns a token by its id.
-- name: get
SELECT {shown}
FROM hookseal.api_tokens AS t
WHERE t.id = $1::text::uuid

-- Returns those of the tokens with these digests, in hexadecimal, that may be used now, and are no older copies; and whether the
-- use of each today is on record. `OFFSET 0` makes the planner look each up in the index.
-- name: find
SELECT s.digest AS asked, {shown}, {proof},
       t.last_used_on IS NOT DISTINCT FROM (now() AT TIME ZONE 'UTC')::date AS was_used_today
FROM unnest($1::text[]) AS s (digest),
     LATERAL (SELECT * FROM hookseal.api_tokens AS k WHERE k.digest = decode(s.digest, 'hex') OFFSET 0) AS t
WHERE t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > now()) AND t.generation = {audited}

-- Records that these tokens were used today.
-- name: use
SELECT hookseal.use_tokens($1::text[]::uuid[])

-- Publishes the key that verifies the tokens signed under a version of the integrity key.
-- name: publish_key
INSERT INTO hookseal.token_keys (key_id, public_key) VALUES ($1, $2)
ON CONFLICT (key_id) DO UPDATE SET public_key = EXCLUDED.public_key

-- Returns tokens before an id, of one tenant or of all, the newest first: those of portals, or the others.
-- name: page
SELECT {shown}
FROM hookseal.api_tokens AS t
WHERE ($1::text IS NULL OR t.tenant_id = $1) AND ($2::text IS NULL OR t.id < $2::text::uuid) AND t.portal = $4
ORDER BY t.id DESC
LIMIT $3
