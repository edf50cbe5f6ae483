-- Tokens of the HTTP API: who may call it, for which tenant, and for what.
--
-- A token is random, is shown once, and is stored only as its SHA-256: what is read here opens nothing. The audit log names
-- a token by its name, so at most one token of a name can be in use at a time.
--
-- A token of a portal lets a customer in for a while; one for every tenant, which may only read and operate, an operator. It may
-- have a code, for a link: used once, within ten minutes, it makes another token, that of a session. A code is stored as its
-- SHA-256, too.
--
-- All that a token grants is signed (ed25519) under a key that is derived from the integrity key, so nobody without that key can
-- make a token, or change one. `generation` is the number that the audit log has for its name: each end of a token has a higher
-- one there, so an older copy of a row is refused.

CREATE TABLE hookseal.api_tokens (
    tenant_id     text                   NOT NULL CHECK (tenant_id ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$' OR tenant_id = '*'),
    id            uuid                   NOT NULL UNIQUE,
    name          text                   NOT NULL CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$'),
    digest        bytea                  NOT NULL UNIQUE CHECK (octet_length(digest) = 32),
    scopes        text[]                 NOT NULL CHECK (scopes <@ ARRAY['read', 'publish', 'manage', 'operate', 'reveal']
                                                         AND cardinality(scopes) BETWEEN 1 AND 5),
    created_at    timestamptz            NOT NULL DEFAULT now(),
    expires_at    hookseal.readable_time,
    revoked_at    timestamptz,
    last_used_on  date,
    portal        boolean                NOT NULL DEFAULT false,
    user_name     text                   CHECK (user_name ~ '^[!-~]([ -~]*[!-~])?$' AND length(user_name) <= 64),
    session_id    text                   CHECK (session_id ~ '^[!-~]+$' AND length(session_id) <= 128),
    refresh_url   text                   CHECK (length(refresh_url) <= 2048),
    code_digest   bytea                  UNIQUE CHECK (octet_length(code_digest) = 32),
    code_spent_at timestamptz,
    made_of       uuid,
    generation    bigint                 NOT NULL,
    signature     bytea                  NOT NULL CHECK (octet_length(signature) = 64),
    signature_key_id text                NOT NULL,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT api_tokens_of_a_portal CHECK (
        CASE WHEN portal
             THEN (tenant_id <> '*' OR scopes <@ ARRAY['read', 'operate'])
                  AND expires_at IS NOT NULL AND expires_at - created_at <= interval '7 days'
             ELSE num_nonnulls(user_name, session_id, refresh_url, code_digest, code_spent_at, made_of) = 0
        END)
);
COMMENT ON COLUMN hookseal.api_tokens.tenant_id IS 'The tenant that it acts for; * for all';
COMMENT ON COLUMN hookseal.api_tokens.digest IS 'SHA-256 of the token, which is stored nowhere';
COMMENT ON COLUMN hookseal.api_tokens.revoked_at IS
    'Since when it is refused and its name is free. Equal to expires_at: it had expired, and another token took its name';
COMMENT ON COLUMN hookseal.api_tokens.last_used_on IS 'The day, in UTC, of its last use: written at most once a day';
COMMENT ON COLUMN hookseal.api_tokens.portal IS
    'Whether it lets a customer, or for every tenant an operator, in for a while: seven days at most';
COMMENT ON COLUMN hookseal.api_tokens.user_name IS 'The user of the product whom the audit log names; null if none was given';
COMMENT ON COLUMN hookseal.api_tokens.session_id IS 'By which the product may end it with others';
COMMENT ON COLUMN hookseal.api_tokens.refresh_url IS 'Where the product lets the user in again';
COMMENT ON COLUMN hookseal.api_tokens.code_digest IS 'SHA-256 of its code, which is used within ten minutes of created_at';
COMMENT ON COLUMN hookseal.api_tokens.code_spent_at IS 'When the code was used, which it is once';
COMMENT ON COLUMN hookseal.api_tokens.made_of IS 'Of a session: the token whose code made it, with which it ends';
COMMENT ON COLUMN hookseal.api_tokens.generation IS 'The highest that the audit log has of this name, or it is refused';
COMMENT ON COLUMN hookseal.api_tokens.signature IS 'Of all other columns but revoked_at and last_used_on';
COMMENT ON COLUMN hookseal.api_tokens.signature_key_id IS 'The version of the integrity key from which its key is derived';
CREATE UNIQUE INDEX api_tokens_in_use ON hookseal.api_tokens (name) WHERE revoked_at IS NULL;
CREATE UNIQUE INDEX api_tokens_of_a_code ON hookseal.api_tokens (tenant_id, made_of) WHERE made_of IS NOT NULL;
CREATE INDEX api_tokens_by_end ON hookseal.api_tokens ((least(revoked_at, expires_at)));

-- With these keys a process without a master key verifies tokens. One with it derives them itself.
CREATE TABLE hookseal.token_keys (
    key_id     text        PRIMARY KEY CHECK (key_id ~ '^[1-9][0-9]{0,18}$'),
    public_key bytea       NOT NULL CHECK (octet_length(public_key) = 32),
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN hookseal.token_keys.key_id IS 'The version of the integrity key';
COMMENT ON COLUMN hookseal.token_keys.public_key IS 'The ed25519 key that verifies the tokens signed under it';

-- Records that these tokens were used today. It waits for nobody: another use of today, or a revocation, has the row locked.
CREATE FUNCTION hookseal.use_tokens(ids uuid[]) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE hookseal.api_tokens AS t
    SET last_used_on = (now() AT TIME ZONE 'UTC')::date
    WHERE t.id IN (SELECT u.id FROM hookseal.api_tokens AS u
                   WHERE u.id = ANY (ids) AND u.last_used_on IS DISTINCT FROM (now() AT TIME ZONE 'UTC')::date
                   FOR UPDATE SKIP LOCKED)
$$;
COMMENT ON FUNCTION hookseal.use_tokens(uuid[]) IS 'Records that these tokens were used today';

-- Deletes up to 500 tokens that ended long ago: those of a portal, of which each visit makes one, after 7 days, others after 30.
-- Returns how many it deleted. It waits for no lock.
CREATE FUNCTION hookseal.remove_tokens() RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
    WITH ended AS MATERIALIZED (
        SELECT t.tenant_id, t.id
        FROM hookseal.api_tokens AS t
        WHERE least(t.revoked_at, t.expires_at) < now() - interval '7 days'
          AND (t.portal OR least(t.revoked_at, t.expires_at) < now() - interval '30 days')
        LIMIT 500
        FOR UPDATE OF t SKIP LOCKED
    ), gone AS (
        DELETE FROM hookseal.api_tokens AS t
        USING ended
        WHERE t.tenant_id = ended.tenant_id AND t.id = ended.id
        RETURNING 1
    )
    SELECT count(*) FROM gone
$$;
COMMENT ON FUNCTION hookseal.remove_tokens() IS
    'Deletes up to 500 tokens that ended more than 30 days ago, or 7 days if they are of a portal';

REVOKE EXECUTE ON FUNCTION hookseal.remove_tokens() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION hookseal.remove_tokens() TO hookseal_worker;
REVOKE EXECUTE ON FUNCTION hookseal.use_tokens(uuid[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION hookseal.use_tokens(uuid[]) TO hookseal_operator, hookseal_api, hookseal_api_publisher;
GRANT SELECT,
      INSERT (tenant_id, id, name, digest, scopes, created_at, expires_at, portal, user_name, session_id, refresh_url,
              code_digest, made_of, generation, signature, signature_key_id),
      UPDATE (expires_at, revoked_at, code_spent_at, generation, signature, signature_key_id)
    ON hookseal.api_tokens TO hookseal_operator;
GRANT SELECT, INSERT (key_id, public_key), UPDATE (public_key) ON hookseal.token_keys TO hookseal_operator;
GRANT SELECT (tenant_id, id, name, scopes, created_at, expires_at, revoked_at, last_used_on, portal, user_name, session_id)
    ON hookseal.api_tokens TO hookseal_readonly;
