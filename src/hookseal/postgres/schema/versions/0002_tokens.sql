-- Tokens of the HTTP API: who may call it, for which tenant, and for what.
--
-- A token is random, is shown once, and is stored only as its SHA-256: what is read here opens nothing. The audit log names
-- a token by its name, so at most one token of a name can be in use at a time.

CREATE TABLE hookseal.api_tokens (
    tenant_id    text                   NOT NULL CHECK (tenant_id ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$' OR tenant_id = '*'),
    id           uuid                   NOT NULL UNIQUE,
    name         text                   NOT NULL CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$'),
    digest       bytea                  NOT NULL UNIQUE CHECK (octet_length(digest) = 32),
    scopes       text[]                 NOT NULL CHECK (scopes <@ ARRAY['read', 'publish', 'manage', 'operate', 'reveal']
                                                        AND cardinality(scopes) BETWEEN 1 AND 5),
    created_at   timestamptz            NOT NULL DEFAULT now(),
    expires_at   hookseal.readable_time,
    revoked_at   timestamptz,
    last_used_on date,
    PRIMARY KEY (tenant_id, id)
);
COMMENT ON COLUMN hookseal.api_tokens.tenant_id IS 'The tenant that it acts for; * for all';
COMMENT ON COLUMN hookseal.api_tokens.digest IS 'SHA-256 of the token, which is stored nowhere';
COMMENT ON COLUMN hookseal.api_tokens.revoked_at IS
    'Since when it is refused and its name is free. Equal to expires_at: it had expired, and another token took its name';
COMMENT ON COLUMN hookseal.api_tokens.last_used_on IS 'The day, in UTC, of its last use: written at most once a day';
CREATE UNIQUE INDEX api_tokens_in_use ON hookseal.api_tokens (name) WHERE revoked_at IS NULL;

GRANT SELECT, INSERT (tenant_id, id, name, digest, scopes, expires_at), UPDATE (revoked_at, last_used_on)
    ON hookseal.api_tokens TO hookseal_operator;
GRANT SELECT (tenant_id, id, name, scopes, created_at, expires_at, revoked_at, last_used_on)
    ON hookseal.api_tokens TO hookseal_readonly;
