-- Retries, rotation, audit, and what workers agree on through PostgreSQL (design 1.5).

CREATE FUNCTION hookseal.is_retry_schedule(delays integer[]) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT array_ndims(delays) = 1 AND cardinality(delays) <= 30 AND array_position(delays, NULL) IS NULL
       AND (SELECT bool_and(delay BETWEEN 1 AND 604800) AND sum(delay) <= 2592000 FROM unnest(delays) AS delay)
$$;

ALTER TABLE hookseal.endpoints
    ADD COLUMN max_attempts         integer     NOT NULL DEFAULT 10 CHECK (max_attempts BETWEEN 1 AND 100),
    ADD COLUMN backoff_base_seconds integer     NOT NULL DEFAULT 30 CHECK (backoff_base_seconds BETWEEN 1 AND 86400),
    ADD COLUMN backoff_cap_seconds  integer     NOT NULL DEFAULT 43200 CHECK (backoff_cap_seconds BETWEEN 1 AND 604800),
    ADD COLUMN retry_schedule       integer[]   CHECK (retry_schedule IS NULL
                                                       OR coalesce(hookseal.is_retry_schedule(retry_schedule), false)),
    ADD COLUMN attempts_allowed     integer     NOT NULL
                                    GENERATED ALWAYS AS (coalesce(cardinality(retry_schedule) + 1, max_attempts)) STORED,
    ADD COLUMN disabled_at          timestamptz,
    ADD COLUMN previous_scheme      text,
    ADD COLUMN previous_algorithm   text;
COMMENT ON COLUMN hookseal.endpoints.retry_schedule IS
    'Seconds between the attempts, in place of max_attempts, backoff_base_seconds and backoff_cap_seconds';
COMMENT ON COLUMN hookseal.endpoints.attempts_allowed IS
    'How many attempts a delivery may spend, whichever columns say it';
COMMENT ON COLUMN hookseal.endpoints.previous_scheme IS
    'The scheme that the previous secret was made for: each version keeps its own';

ALTER TABLE hookseal.deliveries
    ADD COLUMN budget_spent integer NOT NULL DEFAULT 0 CHECK (budget_spent >= 0),
    ADD COLUMN replay_of    uuid;
COMMENT ON COLUMN hookseal.deliveries.budget_spent IS
    'Attempts made since it was published or last replayed; attempts counts all of them';
COMMENT ON COLUMN hookseal.deliveries.replay_of IS
    'The delivery that this one repeats under an id of its own, null for what publish made';
COMMENT ON COLUMN hookseal.deliveries.rung_at IS
    'When it was last rung for the time at which it is due; null means that nobody has yet, so the outbox does';
DROP INDEX hookseal.deliveries_once;
-- The event before the endpoint: a publish looks up what it made by tenant and event.
CREATE UNIQUE INDEX deliveries_once ON hookseal.deliveries (tenant_id, event_id, endpoint_id) WHERE replay_of IS NULL;
-- With the id, so that a sweep goes on exactly where its last batch ended.
DROP INDEX hookseal.deliveries_due;
CREATE INDEX deliveries_due ON hookseal.deliveries (next_attempt_at, id) WHERE state = 'pending';
CREATE INDEX deliveries_unrung ON hookseal.deliveries (next_attempt_at) WHERE state = 'pending' AND rung_at IS NULL;
CREATE INDEX deliveries_pending ON hookseal.deliveries (tenant_id, endpoint_id) WHERE state = 'pending';
CREATE INDEX deliveries_waiting ON hookseal.deliveries (waiting_for) WHERE waiting_for IS NOT NULL;
CREATE INDEX deliveries_of_endpoint ON hookseal.deliveries (endpoint_id, id);

CREATE INDEX endpoints_with_plaintext ON hookseal.endpoints (tenant_id) WHERE has_plaintext;
CREATE INDEX secret_records_of_key ON hookseal.secret_records (key_id);

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
    'What was asked, without the secret; the same id with another intent is refused';
COMMENT ON COLUMN hookseal.secret_rotations.outcome IS
    'done here; begun and failed are for stores outside PostgreSQL, where the version is allocated before it is put';
COMMENT ON COLUMN hookseal.secret_rotations.answer IS 'What was answered, without the secret';
CREATE INDEX secret_rotations_of_endpoint ON hookseal.secret_rotations (tenant_id, endpoint_id, created_at);

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
    PRIMARY KEY (tenant_id, sequence)
);
COMMENT ON TABLE hookseal.audit_log IS
    'Append-only, chained per tenant by an HMAC under the integrity key (docs/CANONICAL/SECRETS.md)';
CREATE INDEX audit_log_newest ON hookseal.audit_log (at, tenant_id, sequence);

CREATE TABLE hookseal.audit_heads (
    tenant_id text   PRIMARY KEY,
    sequence  bigint NOT NULL,
    mac       bytea  NOT NULL
);
COMMENT ON TABLE hookseal.audit_heads IS 'The end of each chain: the lock of whoever appends, and what truncation contradicts';

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

CREATE TABLE hookseal.workers (
    id            text        PRIMARY KEY,
    version       text        NOT NULL,
    drain_seconds integer     NOT NULL,
    lease_seconds integer     NOT NULL,
    key_ids       text[]      NOT NULL,
    started_at    timestamptz NOT NULL DEFAULT now(),
    beaten_at     timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE hookseal.workers IS 'Heartbeats. A worker that was not heard of for long is not live (LIVE_SECONDS in endpoint_rules.py)';

CREATE TABLE hookseal.control (
    name   text   PRIMARY KEY CHECK (name IN ('cache', 'outbox', 'notify')),
    epoch  bigint NOT NULL DEFAULT 0,
    holder text,
    token  uuid,
    until  timestamptz
);
COMMENT ON TABLE hookseal.control IS
    'cache: secrets cached under an older epoch are forgotten. outbox: which worker rings. notify: until when publish sends NOTIFY';
INSERT INTO hookseal.control (name) VALUES ('cache'), ('outbox'), ('notify');

-- Whoever closes a master key or destroys a version, by command or by hand: no cache keeps what it had opened.
CREATE FUNCTION hookseal.move_cache_epoch() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF EXISTS (SELECT FROM changed WHERE state = ANY (TG_ARGV)) THEN
        UPDATE hookseal.control SET epoch = epoch + 1 WHERE name = 'cache';
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER secret_keys_move_cache_epoch AFTER UPDATE ON hookseal.secret_keys
    REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION hookseal.move_cache_epoch('retired', 'destroyed');
-- A version that is retired needs none: no pointer names it any more, so no claim asks for it.
CREATE TRIGGER secret_records_move_cache_epoch AFTER UPDATE ON hookseal.secret_records
    REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION hookseal.move_cache_epoch('destroyed');
