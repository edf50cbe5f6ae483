-- Secrets, master keys, and the audit log.
--
-- A secret is a name of a tenant with numbered versions; `tenant:name:version` after its provider is its ref. The
-- material is in an envelope that was sealed outside PostgreSQL (docs/CANONICAL/SECRETS.md): a data key of its own,
-- wrapped by a master key, bound to tenant, name, version and purpose. So a row that is copied to another place does not
-- open, and the table without a master key reveals no secret. Of a name at most one version is `active`; during the
-- overlap of a rotation the one before is `previous`; later it is `retired`, and when it is no longer needed
-- `destroyed`: the row stays, `sealed` is null.
--
-- With a provider outside PostgreSQL the row is the same, but `sealed` is null: the material lies at the provider,
-- encrypted under a key of its own, `share`, which lies here. Neither place reveals the secret alone.
--
-- A master key is `staged` when it is registered; `active` when it is promoted, and seals new records; `decrypt_only`
-- while its records are re-wrapped under the next one; `retired` when it opens nothing any more; finally `destroyed`.
--
-- Every change writes a row of `audit_log` in its own transaction, chained by a MAC to the row before. A row of a table
-- that contradicts the log is stale: workers and `hookseal restore` compare them.

-- The master keys of the installation: never the key, only its id, its state and times, and its check value.
CREATE TABLE hookseal.secret_keys (
    key_id         text        PRIMARY KEY CHECK (key_id ~ '^[0-9a-f]{16}$'),
    state          text        NOT NULL CHECK (state IN ('staged', 'active', 'decrypt_only', 'retired', 'destroyed')),
    check_value    bytea       NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    promoted_at    timestamptz,
    drained_at     timestamptz,
    compromised_at timestamptz,
    retired_at     timestamptz,
    destroyed_at   timestamptz
);
COMMENT ON COLUMN hookseal.secret_keys.drained_at IS
    'When a re-wrap left no record under this key: a record under it is stale from then on';
CREATE UNIQUE INDEX secret_keys_one_active ON hookseal.secret_keys (state) WHERE state = 'active';

-- The lock of the master keys. It is no advisory lock, because every role that may log in can take and keep one.
CREATE TABLE hookseal.key_lock ();
COMMENT ON TABLE hookseal.key_lock IS
    'Always empty. A transaction that seals locks it in ROW EXCLUSIVE MODE, one that changes master keys in SHARE ROW EXCLUSIVE MODE';

-- Every version of every secret, sealed. ref, endpoint_id and key_id are generated, so they cannot contradict the row.
CREATE TABLE hookseal.secret_records (
    tenant_id   text        NOT NULL,
    name        text        NOT NULL,
    version     bigint      NOT NULL CHECK (version > 0),
    provider    text        NOT NULL,
    purpose     text        NOT NULL,
    scheme      text,
    sealed      bytea,
    wrapped_by  text[]      NOT NULL DEFAULT '{}',
    share       bytea,
    state       text        NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'previous', 'retired', 'destroyed')),
    created_at  timestamptz NOT NULL DEFAULT now(),
    changed_at  timestamptz NOT NULL DEFAULT now(),
    ref         text        GENERATED ALWAYS AS (provider || ':' || tenant_id || ':' || name || ':' || version::text) STORED,
    endpoint_id uuid        GENERATED ALWAYS AS (
                    substring(name FROM '^(?:webhook-endpoint|endpoint-headers|endpoint-tls)-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$')::uuid
                ) STORED,
    key_id      text        GENERATED ALWAYS AS (encode(substring(sealed FROM 3 FOR 8), 'hex')) STORED,
    PRIMARY KEY (tenant_id, name, version),
    CHECK ((provider = 'db' AND state <> 'destroyed') = (sealed IS NOT NULL)),
    CHECK (share IS NULL OR (provider <> 'db' AND state <> 'destroyed'))
);
COMMENT ON COLUMN hookseal.secret_records.sealed IS
    'The envelope of docs/CANONICAL/SECRETS.md; null for external providers and once destroyed';
COMMENT ON COLUMN hookseal.secret_records.wrapped_by IS
    'Every master key that it was ever sealed under, oldest first, to find what a leaked key exposes';
COMMENT ON COLUMN hookseal.secret_records.share IS
    'The key and the tag of what lies at a provider outside PostgreSQL (docs/CANONICAL/SECRETS.md); null for db and once destroyed';
COMMENT ON COLUMN hookseal.secret_records.ref IS 'How an endpoint names this version';
COMMENT ON COLUMN hookseal.secret_records.endpoint_id IS
    'The endpoint of this signing secret, header values or TLS identity; null for the installation''s own';
COMMENT ON COLUMN hookseal.secret_records.key_id IS 'The master key that it is sealed under, from the envelope itself';
CREATE UNIQUE INDEX secret_records_one_active ON hookseal.secret_records (tenant_id, name) WHERE state = 'active';
-- The order in which a re-wrap reads the records of a key.
CREATE INDEX secret_records_of_key ON hookseal.secret_records (key_id, tenant_id, name, version);
CREATE INDEX secret_records_of_endpoint ON hookseal.secret_records (tenant_id, endpoint_id) WHERE endpoint_id IS NOT NULL;
CREATE INDEX secret_records_retired ON hookseal.secret_records (changed_at) WHERE state = 'retired';
-- Whether a provider outside PostgreSQL has secrets that are in use, which every start asks.
CREATE INDEX secret_records_elsewhere ON hookseal.secret_records (provider)
    WHERE provider <> 'db' AND state IN ('active', 'previous');

-- What may lie at a provider outside PostgreSQL although no version in use needs it. A version is `begun` here, in a
-- transaction of its own, before it is written to the provider; the transaction that adds it to secret_records removes
-- it here. So a row that stays was never used: a worker removes it at the provider, and its number is `burnt`. A version
-- that is `destroyed` is here until a worker has removed it at the provider.
CREATE TABLE hookseal.secret_leftovers (
    tenant_id text        NOT NULL,
    name      text        NOT NULL,
    version   bigint      NOT NULL CHECK (version > 0),
    provider  text        NOT NULL,
    why       text        NOT NULL CHECK (why IN ('begun', 'destroyed', 'burnt')),
    since     timestamptz NOT NULL DEFAULT now(),
    share     bytea,
    PRIMARY KEY (tenant_id, name, version)
);
COMMENT ON TABLE hookseal.secret_leftovers IS
    'Versions to remove at a provider outside PostgreSQL, and version numbers that must not be used again (burnt)';
COMMENT ON COLUMN hookseal.secret_leftovers.share IS
    'Of a version that moves and keeps its number: the share, so that a repeat writes the same bytes';
CREATE INDEX secret_leftovers_to_remove ON hookseal.secret_leftovers (since) WHERE why <> 'burnt';

-- Every rotation, by its id: a repeat of the id gets the same answer.
CREATE TABLE hookseal.secret_rotations (
    tenant_id   text        NOT NULL,
    rotation_id text        NOT NULL CHECK (rotation_id ~ '^[A-Za-z0-9._-]{1,128}$'),
    endpoint_id uuid        NOT NULL,
    intent      json        NOT NULL,
    outcome     text        NOT NULL CHECK (outcome IN ('begun', 'done', 'failed')),
    version     bigint      NOT NULL CHECK (version > 0),
    answer      json,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, rotation_id)
);
COMMENT ON COLUMN hookseal.secret_rotations.intent IS
    'The arguments, without the secret; the same id with another intent is refused';
COMMENT ON COLUMN hookseal.secret_rotations.outcome IS
    'Always done: what a rotation left unfinished at a provider outside PostgreSQL is in secret_leftovers';
COMMENT ON COLUMN hookseal.secret_rotations.answer IS 'The answer, without the secret';
CREATE INDEX secret_rotations_of_endpoint ON hookseal.secret_rotations (tenant_id, endpoint_id, created_at);

-- The results of canaries: whether a receiver had switched to the secret of a generation.
CREATE TABLE hookseal.rotation_canaries (
    tenant_id      text        NOT NULL,
    id             uuid        NOT NULL,
    endpoint_id    uuid        NOT NULL,
    generation     bigint      NOT NULL,
    secret_ref     text        NOT NULL,
    verdict        text        NOT NULL CHECK (verdict IN ('switched', 'not_switched', 'does_not_verify', 'no_answer')),
    status         integer,
    control_status integer,
    detail         text,
    sent_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id)
);
COMMENT ON TABLE hookseal.rotation_canaries IS
    'Results of pings that were signed with the current secret only, and of controls with an invalid signature';
CREATE INDEX rotation_canaries_of_endpoint ON hookseal.rotation_canaries (tenant_id, endpoint_id, sent_at);

-- The audit log: a chain of rows for each tenant. Rows are only added.
CREATE TABLE hookseal.audit_log (
    tenant_id      text        NOT NULL,
    sequence       bigint      NOT NULL CHECK (sequence > 0),
    at             timestamptz NOT NULL,
    actor          text        NOT NULL,
    action         text        NOT NULL,
    subject        text        NOT NULL,
    before         json,
    after          json,
    correlation_id text,
    previous_mac   bytea       NOT NULL,
    mac            bytea       NOT NULL,
    mac_key_id     text        NOT NULL,
    -- The generation after the change, to compare the endpoint's row with.
    generation     bigint      GENERATED ALWAYS AS ((after ->> 'generation')::bigint) STORED,
    PRIMARY KEY (tenant_id, sequence)
);
COMMENT ON TABLE hookseal.audit_log IS
    'Append-only, chained per tenant by an HMAC under the integrity key (docs/CANONICAL/SECRETS.md)';
CREATE INDEX audit_log_newest ON hookseal.audit_log (at, tenant_id, sequence);
-- The newest rows with an action, of all tenants or of one.
CREATE INDEX audit_log_of_action ON hookseal.audit_log (action, at, tenant_id, sequence);
CREATE INDEX audit_log_of_tenants_action ON hookseal.audit_log (tenant_id, action, sequence);
CREATE INDEX audit_log_of_subject ON hookseal.audit_log (tenant_id, subject, generation);
-- The last row about a subject, however old it is and however many rows are about others.
CREATE INDEX audit_log_last_of_subject ON hookseal.audit_log (tenant_id, subject, sequence);
-- The master key that a version was sealed under, however often its endpoint was changed since.
CREATE INDEX audit_log_key_ids ON hookseal.audit_log (tenant_id, subject, sequence) WHERE after ->> 'key_id' IS NOT NULL;
-- The re-wraps from one key to another: every batch has a row.
CREATE INDEX audit_log_rewraps ON hookseal.audit_log (subject, (after ->> 'to'))
    WHERE tenant_id = '_system' AND action = 'key.rewrapped';

-- The end of each chain.
CREATE TABLE hookseal.audit_heads (
    tenant_id text   PRIMARY KEY,
    sequence  bigint NOT NULL,
    mac       bytea  NOT NULL
);
COMMENT ON TABLE hookseal.audit_heads IS 'The end of each chain: locked by each append, and a check against removed rows';

-- Refuses every change or removal of a row of the log.
CREATE FUNCTION hookseal.refuse_change() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = '42501';
END
$$;
CREATE TRIGGER audit_log_keeps_rows BEFORE UPDATE OR DELETE ON hookseal.audit_log
    FOR EACH ROW EXECUTE FUNCTION hookseal.refuse_change();
CREATE TRIGGER audit_log_keeps_all BEFORE TRUNCATE ON hookseal.audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION hookseal.refuse_change();

-- Returns when the next rotation of the endpoint was announced, null if it was not. An announcement counts only until the
-- schedule is changed or turned off, because it was about another rotation then.
CREATE FUNCTION hookseal.rotation_announced_at(tenant text, endpoint uuid) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT l.at
      FROM hookseal.audit_log AS l
     WHERE l.tenant_id = $1 AND l.subject = 'endpoint:' || $2 AND l.action = 'secret.rotation_announced'
       AND NOT EXISTS (
           SELECT
             FROM hookseal.audit_log AS s
            WHERE s.tenant_id = $1 AND s.subject = 'endpoint:' || $2 AND s.sequence > l.sequence
              AND s.action = 'endpoint.updated' AND s.after -> 'rotate_every_days' IS NOT NULL)
     ORDER BY l.sequence DESC
     LIMIT 1
$$;

-- Returns whether re-wraps lead from the one master key to the other, directly or through others.
CREATE FUNCTION hookseal.was_rewrapped(from_key text, to_key text) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH RECURSIVE reached (key_id) AS (
        SELECT $1
         UNION
        SELECT k.key_id
          FROM reached AS r
          JOIN hookseal.secret_keys AS k
            ON EXISTS (SELECT
                         FROM hookseal.audit_log AS l
                        WHERE l.tenant_id = '_system' AND l.action = 'key.rewrapped'
                          AND l.subject = 'key:' || r.key_id AND l.after ->> 'to' = k.key_id)
    )
    SELECT EXISTS (SELECT FROM reached WHERE key_id = $2)
$$;
COMMENT ON FUNCTION hookseal.was_rewrapped(text, text) IS
    'Whether, by the re-wraps in the audit log, a record that was sealed under the one key may be under the other now';

-- Makes every worker discard its cached secrets when a row gets one of these states: so a master key that is retired or a
-- version that is destroyed, by a command or by hand, does not stay in a cache.
CREATE FUNCTION hookseal.move_cache_epoch() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF EXISTS (SELECT FROM changed WHERE state = ANY (TG_ARGV)) THEN
        UPDATE hookseal.control SET epoch = epoch % 1000000000000000 + 1 WHERE name = 'cache';
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER secret_keys_move_cache_epoch AFTER UPDATE ON hookseal.secret_keys
    REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION hookseal.move_cache_epoch('retired', 'destroyed');
-- The state `retired` of a version is left out: no pointer names the version any more, so no claim reads it.
CREATE TRIGGER secret_records_move_cache_epoch AFTER UPDATE ON hookseal.secret_records
    REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION hookseal.move_cache_epoch('destroyed');

-- Makes PostgreSQL refuse plaintext secrets from now on. An operator may empty the column but not alter the table; this
-- function is the only change of the table that they may make.
CREATE FUNCTION hookseal.forbid_plaintext() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_constraint
                    WHERE conrelid = 'hookseal.endpoints'::regclass AND conname = 'endpoints_no_plaintext') THEN
        ALTER TABLE hookseal.endpoints ADD CONSTRAINT endpoints_no_plaintext CHECK (secret IS NULL);
    END IF;
END
$$;
COMMENT ON FUNCTION hookseal.forbid_plaintext() IS
    'Forbids plaintext secrets from now on; fails if an endpoint has one. `hookseal db upgrade` then removes the column';
