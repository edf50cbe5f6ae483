-- The schema of hookseal, in eight files that run in this order:
--
--   0001_deliveries.sql  what is sent, to whom, and how far it got; what workers agree on
--   0001_secrets.sql     what signs, sealed; under which master keys; and the log of who changed what
--   0001_publish.sql     how an event comes in: the functions that every language calls
--   0001_operator_events.sql  what is published for the operator
--   0001_retention.sql   how deliveries and events leave: the functions that the leader of the outbox calls
--   0001_statistics.sql  how the attempts of each endpoint went
--   0001_guards.sql      which changes a right to a column is too coarse for
--   0001_rights.sql      which role may do what with all of this
--
-- How a row moves
-- ---------------
-- 1. Publish. A producer calls hookseal.publish. In the producer's own transaction it inserts one row of `events`, with
--    the bytes that will be sent, and one row of `deliveries` for each endpoint that subscribes. Each delivery is
--    `pending`, and due when `next_attempt_at` has come: now.
-- 2. Ring. A job in Redis names the delivery, to say that it may be due. The producer adds it after its commit. If it does
--    not promise to (`rings`), `rung_at` is null, and the worker that leads the outbox (its lease is a row of `control`)
--    adds the job. Redis may lose every ring: a sweep of `deliveries` rings them again.
-- 3. Claim. A worker reserves the delivery for one attempt: `pending` becomes `sending`, under a lease (`lease_owner`,
--    `lease_token`, `lease_expires_at`). The same statement reads the endpoint's row. What it read that matters later is
--    stored with the claim: `claimed_refs`, the secrets that sign, and `claimed_generation`, the generation of the row.
-- 4. Send and record. The worker inserts one row of `attempts`, and the delivery becomes `delivered`, `dead_letter`,
--    `failed` or `cancelled`, or `pending` again with a later `next_attempt_at`. That statement names the lease token: a
--    worker that lost its lease records nothing. A sweep ends a lease that expired, with an attempt `unknown`.
-- 5. Hold. A delivery that must wait, because its endpoint is disabled, its secret was refused or its breaker is open, is
--    `pending` with `waiting_for` and `held_at`, and is in no index of what is due. `held_endpoints` says which endpoints
--    are held, and when the next delivery of each is released to try.
-- 6. Park. A delivery whose endpoint has as many requests in flight, or in this second, as it may have waits in the same
--    way. `lanes` says which endpoints have such deliveries; a worker whose lane has room claims the next ones directly.
-- 7. Line. The deliveries of an ordered endpoint are sent one after another, in the order in which their publishes committed.
--    `position` is the place of a delivery in this line; null: it is in no line, or has left it. A claim takes only the
--    delivery with the lowest position, the head; the others are `pending` with `waiting_for` `order`. The row of `lines`
--    gives out the positions.
-- 8. Replay. An operator makes a finished delivery `pending` again, with a new budget; a row of `replays` does so for many.
-- 9. Leave. HOOKSEAL_RETENTION_DAYS after it ended (`finished_at`) a delivery is deleted with its attempts; an event is
--    deleted that long after its publish, once it has no delivery left.
--
-- An endpoint's row is also a pointer: it names the secrets that sign (`secret_ref`, `previous_secret_ref`), the sealed
-- header values (`headers_ref`) and the sealed TLS identity (`tls_ref`), each a row of `secret_records`. Every change of
-- the columns that the MAC covers writes a higher `generation` and a new `mac`, under a key that PostgreSQL cannot read;
-- and the audit log keeps every generation. So workers refuse a row that was altered, and one that is older than the
-- audit log says. The database stores all of this, and the workers check it.
--
-- Rules that hold for every table
-- -------------------------------
-- The primary key of what belongs to a tenant begins with `tenant_id`; that of a delivery is its id. Times that decide
-- something lie between the years 2000 and 9000: Python cannot read every time that PostgreSQL can store. Every function
-- has its own search path, and every name of ours is written with its schema, so that nothing that another role creates is
-- called by mistake.
--
-- The four tables that keep history are vacuumed when a twentieth of their rows is dead, not a fifth as by default; and pages
-- of a table whose rows are updated keep room for the new versions (decision 23).

-- The mark of the line to which this schema belongs: builds before the first release numbered theirs in the same way.
COMMENT ON SCHEMA hookseal IS 'hookseal, first line of schemas';

-- Returns whether these are 1 to 30 delays, of 1 second to 7 days each and at most 30 days in all.
CREATE FUNCTION hookseal.is_retry_schedule(delays integer[]) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT array_ndims(delays) = 1 AND cardinality(delays) <= 30 AND array_position(delays, NULL) IS NULL
       AND (SELECT bool_and(delay BETWEEN 1 AND 604800) AND sum(delay) <= 2592000 FROM unnest(delays) AS delay)
$$;

-- Where events are sent: one row for each url of a tenant, with its retry settings and its pointer.
CREATE TABLE hookseal.endpoints (
    tenant_id                  text        NOT NULL CHECK (tenant_id ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$'
                                                           OR tenant_id = '_operator'),
    id                         uuid        NOT NULL UNIQUE,
    name                       text,
    event_types                text[]      NOT NULL,
    created_at                 timestamptz NOT NULL DEFAULT now(),
    -- Whether requests are sent.
    enabled                    boolean     NOT NULL DEFAULT true,
    disabled_reason            text,
    disabled_at                timestamptz,
    -- The same, of the last time before it was enabled.
    last_disabled_reason       text,
    last_disabled_at           timestamptz,
    -- Between which failures no attempt succeeded.
    first_failure_at           timestamptz CHECK (first_failure_at BETWEEN '2000-01-01Z' AND '9000-01-01Z'),
    last_failure_at            timestamptz CHECK (last_failure_at BETWEEN '2000-01-01Z' AND '9000-01-01Z'),
    -- Time-out and retries.
    timeout_ms                 integer     NOT NULL DEFAULT 5000 CHECK (timeout_ms BETWEEN 100 AND 20000),
    max_attempts               integer     NOT NULL DEFAULT 10 CHECK (max_attempts BETWEEN 1 AND 100),
    backoff_base_seconds       integer     NOT NULL DEFAULT 30 CHECK (backoff_base_seconds BETWEEN 1 AND 86400),
    backoff_cap_seconds        integer     NOT NULL DEFAULT 43200 CHECK (backoff_cap_seconds BETWEEN 1 AND 604800),
    retry_schedule             integer[]   DEFAULT '{5,30,300,1800,7200,18000,36000,50400,72000,86400}'
                                           CHECK (retry_schedule IS NULL
                                                  OR coalesce(hookseal.is_retry_schedule(retry_schedule), false)),
    attempts_allowed           integer     NOT NULL
                               GENERATED ALWAYS AS (coalesce(cardinality(retry_schedule) + 1, max_attempts)) STORED,
    -- How much it takes at once. Null: the limit of the installation, and no rate.
    concurrency                integer     CHECK (concurrency BETWEEN 1 AND 1000),
    rate                       integer     CHECK (rate BETWEEN 1 AND 10000),
    -- Whether its deliveries are sent one after another, in order, and what a delivery that was given up does to the others.
    ordered                    boolean     NOT NULL DEFAULT false,
    on_dead_letter             text        NOT NULL DEFAULT 'stop' CHECK (on_dead_letter IN ('stop', 'skip')),
    -- The pointer. The MAC covers these, with tenant_id and id.
    url                        text        NOT NULL CHECK (length(url) BETWEEN 1 AND 2048),
    scheme                     text        NOT NULL DEFAULT 'standard',
    algorithm                  text        NOT NULL DEFAULT 'hmac',
    secret_ref                 text,
    previous_secret_ref        text,
    previous_secret_expires_at timestamptz CHECK (previous_secret_expires_at BETWEEN '2000-01-01Z' AND '9000-01-01Z'),
    previous_scheme            text,
    previous_algorithm         text,
    lead                       text        NOT NULL DEFAULT 'previous' CHECK (lead IN ('previous', 'current')),
    headers_ref                text,
    tls_ref                    text,
    generation                 bigint      NOT NULL DEFAULT 0,
    mac                        bytea,
    mac_key_id                 text,
    -- For display, and for rotation by schedule. These columns do not affect what is signed or trusted.
    secret_provider            text,
    secret_updated_at          timestamptz,
    rotate_every_days          integer     CHECK (rotate_every_days BETWEEN 1 AND 30),
    header_names               text[]      NOT NULL DEFAULT '{}' CHECK (cardinality(header_names) <= 20),
    tls_shown                  jsonb,
    -- The plaintext of an older system, until it is migrated.
    secret                     text,
    has_plaintext              boolean     GENERATED ALWAYS AS (secret IS NOT NULL) STORED,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, url),
    -- Workers publish operator events while they record, and must not wait for the lock of a line then.
    CHECK (NOT ordered OR tenant_id <> '_operator')
);
COMMENT ON COLUMN hookseal.endpoints.first_failure_at IS
    'Since when the endpoint is failing: since then no attempt has succeeded; null if it is not failing';
COMMENT ON COLUMN hookseal.endpoints.last_failure_at IS
    'A recent failure of a failing endpoint: written at most once in ten minutes by each worker';
COMMENT ON COLUMN hookseal.endpoints.retry_schedule IS
    'Seconds between the attempts; null: max_attempts, backoff_base_seconds and backoff_cap_seconds decide';
COMMENT ON COLUMN hookseal.endpoints.attempts_allowed IS
    'How many attempts a delivery may use: from retry_schedule, else from max_attempts';
COMMENT ON COLUMN hookseal.endpoints.concurrency IS
    'The most requests in flight, over all workers; null: HOOKSEAL_ENDPOINT_CONCURRENCY';
COMMENT ON COLUMN hookseal.endpoints.rate IS 'The most requests a second, over all workers; null: no such limit';
COMMENT ON COLUMN hookseal.endpoints.ordered IS
    'Its deliveries form a line: one is sent at a time, in the order of publishing. Set when the endpoint is added, and never changed';
COMMENT ON COLUMN hookseal.endpoints.on_dead_letter IS
    'If it is ordered: whether a dead letter or a failed delivery stops its line (stop) or leaves it (skip)';
COMMENT ON COLUMN hookseal.endpoints.previous_scheme IS
    'The scheme of the previous secret: each version keeps its own';
COMMENT ON COLUMN hookseal.endpoints.headers_ref IS
    'The ref of the sealed names and values of the endpoint''s own headers';
COMMENT ON COLUMN hookseal.endpoints.tls_ref IS
    'The ref of the sealed TLS identity: client certificate with key, and the only authorities that are trusted';
COMMENT ON COLUMN hookseal.endpoints.generation IS
    'Higher after each move of the pointer; a row with a lower one than in the audit log is stale';
COMMENT ON COLUMN hookseal.endpoints.mac IS
    'HMAC under the integrity key over where requests go and which secrets sign them (docs/CANONICAL/SECRETS.md)';
COMMENT ON COLUMN hookseal.endpoints.rotate_every_days IS
    'A worker rotates the secret at this age; null: only an operator rotates it';
COMMENT ON COLUMN hookseal.endpoints.header_names IS
    'The names of those headers, for display without a master key. Requests do not use them';
COMMENT ON COLUMN hookseal.endpoints.tls_shown IS
    'Subjects, fingerprints and expiry times of those certificates, for display without a master key. Requests do not use them';
COMMENT ON COLUMN hookseal.endpoints.secret IS
    'Plaintext of an older system, to be migrated. No worker signs with it.';
CREATE INDEX endpoints_with_plaintext ON hookseal.endpoints (tenant_id) WHERE has_plaintext;
CREATE INDEX endpoints_failing ON hookseal.endpoints (first_failure_at) WHERE first_failure_at IS NOT NULL;
CREATE INDEX endpoints_disabled ON hookseal.endpoints (tenant_id, id) WHERE NOT enabled;
CREATE INDEX endpoints_rotated_by_schedule ON hookseal.endpoints (secret_updated_at) WHERE rotate_every_days IS NOT NULL;

-- Ends the failing of an endpoint that an operator enables, or gives another url: it begins anew.
CREATE FUNCTION hookseal.forget_failures() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    NEW.first_failure_at := NULL;
    NEW.last_failure_at := NULL;
    RETURN NEW;
END
$$;
CREATE TRIGGER endpoints_begin_anew BEFORE UPDATE OF enabled, url ON hookseal.endpoints
    FOR EACH ROW WHEN (NEW.enabled AND NOT OLD.enabled OR NEW.url <> OLD.url)
    EXECUTE FUNCTION hookseal.forget_failures();

-- What each endpoint subscribes to, a row for each of its event types. So a publish reads the endpoints that match, however
-- many others the tenant has. Triggers write it, and nothing else does.
CREATE TABLE hookseal.subscriptions (
    tenant_id   text NOT NULL,
    pattern     text NOT NULL,
    endpoint_id uuid NOT NULL,
    PRIMARY KEY (tenant_id, pattern, endpoint_id)
);
COMMENT ON TABLE hookseal.subscriptions IS
    'The event_types of each endpoint, by which publish finds the endpoints that match. Triggers write it';

-- Writes the subscriptions of an endpoint that is added, changed or deleted. A pattern that is longer than any event type
-- matches none, and an index cannot hold it.
CREATE FUNCTION hookseal.write_subscriptions() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        DELETE FROM hookseal.subscriptions AS s
        WHERE s.tenant_id = OLD.tenant_id AND s.pattern = ANY (OLD.event_types) AND s.endpoint_id = OLD.id;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO hookseal.subscriptions (tenant_id, pattern, endpoint_id)
        SELECT DISTINCT NEW.tenant_id, t.pattern, NEW.id
        FROM unnest(NEW.event_types) AS t (pattern)
        WHERE length(t.pattern) <= 128;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER endpoints_subscribe AFTER INSERT OR DELETE ON hookseal.endpoints
    FOR EACH ROW EXECUTE FUNCTION hookseal.write_subscriptions();
CREATE TRIGGER endpoints_change_subscriptions AFTER UPDATE OF tenant_id, id, event_types ON hookseal.endpoints
    FOR EACH ROW WHEN (OLD.tenant_id <> NEW.tenant_id OR OLD.id <> NEW.id OR OLD.event_types <> NEW.event_types)
    EXECUTE FUNCTION hookseal.write_subscriptions();

CREATE FUNCTION hookseal.empty_subscriptions() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM hookseal.subscriptions;
    RETURN NULL;
END
$$;
CREATE TRIGGER subscriptions_end_with_endpoints AFTER TRUNCATE ON hookseal.endpoints
    FOR EACH STATEMENT EXECUTE FUNCTION hookseal.empty_subscriptions();

-- The types of columns with limited values. A statement that writes a row reads each check of its table from the text, also for
-- columns that it does not change. The check of a domain is read once in a session, and runs only where a value is assigned.
-- As checks of the tables, these would take 6 to 10 % of the time of a publish, a claim and an outcome.
-- `length`, since a pattern with a maximum length would take ten times as long.
CREATE DOMAIN hookseal.event_id AS text CHECK (VALUE ~ '^[A-Za-z0-9_-]+$' AND length(VALUE) <= 128);
CREATE DOMAIN hookseal.event_body AS bytea CHECK (octet_length(VALUE) <= 262144);
CREATE DOMAIN hookseal.delivery_state AS text CHECK (VALUE IN
    ('pending', 'sending', 'delivered', 'dead_letter', 'failed', 'cancelled'));
CREATE DOMAIN hookseal.wait_reason AS text CHECK (VALUE IN
    ('secret', 'endpoint_disabled', 'breaker', 'rate', 'concurrency', 'order'));
CREATE DOMAIN hookseal.budget AS integer CHECK (VALUE >= 0);
-- Python cannot read every time that PostgreSQL can store.
CREATE DOMAIN hookseal.readable_time AS timestamptz CHECK (VALUE BETWEEN '2000-01-01Z' AND '9000-01-01Z');

-- One row for each event that was published. It is stored as long as its deliveries, and for the retention at least.
CREATE TABLE hookseal.events (
    occurred_at    timestamptz         NOT NULL,
    tenant_id      text                NOT NULL,
    id             hookseal.event_id   NOT NULL,
    event_type     text                NOT NULL,
    correlation_id text,
    traceparent    text,
    fingerprint    bytea               NOT NULL,
    body           hookseal.event_body NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.05);
COMMENT ON COLUMN hookseal.events.body IS 'What is sent, byte for byte: it is never serialized again';
COMMENT ON COLUMN hookseal.events.fingerprint IS
    'The first 16 bytes of SHA-256 over kind, type, and data text or raw body, to compare a repeat with';
-- The order in which events are looked at when they are old. A row is written once, so that this index costs little.
-- It is by an expression, so that only the statement that asks for it can use it: a list of a tenant would read all others.
CREATE INDEX events_by_age ON hookseal.events ((occurred_at AT TIME ZONE 'UTC'));
-- For an operator who searches: what a tenant published, newest first, and the events with one correlation id. The lists are
-- in the order of time and id, but only the events of one call share a time. So the id is not in the index: it would double it.
CREATE INDEX events_newest ON hookseal.events (tenant_id, occurred_at);
CREATE INDEX events_correlated ON hookseal.events (tenant_id, correlation_id) WHERE correlation_id IS NOT NULL;
-- The last index: of those that cost the same, as they do before the first ANALYZE, the planner takes the newest. Another one
-- would read all events of the tenant for each that is looked up.
ALTER TABLE hookseal.events ADD PRIMARY KEY (tenant_id, id);

-- One event for one endpoint: its state, when it is due, what it waits for, and its lease.
-- First comes what never changes: an update on the same page writes only what lies behind it to the WAL. Then, as in the other
-- large tables, columns of 8 bytes come before those of 4, and texts last: so nothing is filled up.
-- Each statement that writes a row reads all checks of the table and the conditions of its triggers from their text, even for
-- one row. So these are few and short: they ask for null in place of a word where that says the same, domains check what
-- concerns one column, and the rest of a trigger's condition is in its function if it is seldom asked.
CREATE TABLE hookseal.deliveries (
    tenant_id           text        NOT NULL,
    id                  uuid        PRIMARY KEY,
    endpoint_id         uuid        NOT NULL,
    event_id            text        NOT NULL,
    replay_of           uuid,
    created_at          timestamptz NOT NULL DEFAULT now(),
    -- If it is pending: when it is due, and since when it is held.
    rung_at             timestamptz,
    next_attempt_at     hookseal.readable_time DEFAULT now(),
    held_at             hookseal.readable_time,
    -- Its place in the line of an ordered endpoint. Triggers give it, and take it away.
    position            bigint      CHECK (position > 0),
    -- If it has ended: since when. Triggers set it if a statement does not; an update may set a time within the last minute only.
    finished_at         timestamptz,
    -- If it is being sent: the lease, and what the claim read. Null when the claim has ended: a delivery is kept for long.
    lease_expires_at    timestamptz,
    claimed_at          timestamptz,
    claimed_generation  bigint,
    claimed_number      integer,
    -- Its progress.
    attempts            integer     NOT NULL DEFAULT 0,
    budget_spent        hookseal.budget NOT NULL DEFAULT 0,
    state               hookseal.delivery_state NOT NULL DEFAULT 'pending',
    last_error          text,
    -- If it is pending: what it waits for.
    waiting_for         hookseal.wait_reason,
    -- If it is being sent.
    lease_owner         text,
    lease_token         uuid,
    claimed_refs        text[],
    CHECK ((state = 'sending') = (lease_token IS NOT NULL)),
    CHECK (lease_token IS NULL OR num_nulls(lease_owner, lease_expires_at, claimed_number, claimed_at, claimed_refs) = 0),
    CHECK ((state = 'pending') = (next_attempt_at IS NOT NULL)),
    CHECK (waiting_for IS NULL OR next_attempt_at IS NOT NULL)
) WITH (fillfactor = 75, autovacuum_vacuum_scale_factor = 0.05);
COMMENT ON COLUMN hookseal.deliveries.endpoint_id IS
    'No foreign key: the history outlives the endpoint';
COMMENT ON COLUMN hookseal.deliveries.replay_of IS
    'The delivery that this one repeats under a new id; null for a delivery that publish made';
COMMENT ON COLUMN hookseal.deliveries.budget_spent IS
    'Attempts made since it was published or last replayed; attempts counts all of them';
COMMENT ON COLUMN hookseal.deliveries.rung_at IS
    'When it was last rung for its current due time; null: not yet, so the outbox rings it. Equal to created_at: its producer rings it';
COMMENT ON COLUMN hookseal.deliveries.held_at IS
    'Since when it is held; null if waiting_for is null. If the endpoint is disabled, it is cancelled after HOOKSEAL_HELD_DAYS';
COMMENT ON COLUMN hookseal.deliveries.position IS
    'Its place in the line of its ordered endpoint: only the lowest is claimed. Null: it is in no line, or has left it';
COMMENT ON COLUMN hookseal.deliveries.finished_at IS
    'Since when its state is final; null before. HOOKSEAL_RETENTION_DAYS later it is deleted with its attempts';
COMMENT ON COLUMN hookseal.deliveries.claimed_refs IS
    'The refs that the current claim read. With number and start they are stored as the attempt if the worker dies';

-- Due deliveries: those that were rung, and those that were not, in the order in which they become due and by tenant.
-- So a row that is not marked as rung is in two indexes, one that hookseal has rung is in two, and one that its producer
-- rings is in one. The id lets a sweep continue exactly where its last batch ended.
CREATE INDEX deliveries_rung ON hookseal.deliveries (next_attempt_at, id)
    WHERE next_attempt_at IS NOT NULL AND waiting_for IS NULL AND rung_at IS NOT NULL;
-- Those of them that hookseal itself has rung: a producer marks what it rings when it stores it. The outbox counts them.
CREATE INDEX deliveries_standing ON hookseal.deliveries (next_attempt_at, id)
    WHERE next_attempt_at IS NOT NULL AND waiting_for IS NULL AND rung_at <> created_at;
CREATE INDEX deliveries_unrung ON hookseal.deliveries (next_attempt_at, id)
    WHERE next_attempt_at IS NOT NULL AND waiting_for IS NULL AND rung_at IS NULL;
CREATE INDEX deliveries_unrung_by_tenant ON hookseal.deliveries (tenant_id, next_attempt_at, id)
    WHERE next_attempt_at IS NOT NULL AND waiting_for IS NULL AND rung_at IS NULL;
CREATE INDEX deliveries_leased ON hookseal.deliveries (lease_expires_at) WHERE state = 'sending';
-- The id of an endpoint is that of one tenant, and each publish writes an entry.
CREATE INDEX deliveries_pending ON hookseal.deliveries (endpoint_id) WHERE state = 'pending';
CREATE INDEX deliveries_waiting ON hookseal.deliveries (waiting_for, held_at, id) WHERE waiting_for IS NOT NULL;
-- Finds the probe of an endpoint, its oldest held delivery; deliveries to release, oldest first; and held endpoints.
CREATE INDEX deliveries_held ON hookseal.deliveries (tenant_id, endpoint_id, waiting_for, id)
    WHERE waiting_for IS NOT NULL;
-- What ended without being delivered, which a replay job walks, oldest first. The walk must not read what was delivered.
CREATE INDEX deliveries_not_delivered ON hookseal.deliveries (tenant_id, id)
    WHERE state IN ('dead_letter', 'failed', 'cancelled');
-- The few that ended undelivered, newest first: a list of dead letters does not read what was delivered.
-- These are the rows of the index above in another order. Neither can take the place of the other: the list is one of all
-- tenants by id, and a replay job would read what failed of other tenants.
CREATE INDEX deliveries_undelivered ON hookseal.deliveries (state, id) WHERE state IN ('dead_letter', 'failed', 'cancelled');
-- The order in which deliveries leave. A delivery gets into it once, when it ends.
CREATE INDEX deliveries_finished ON hookseal.deliveries (finished_at) WHERE finished_at IS NOT NULL;

-- The line of an ordered endpoint. The id makes one of two deliveries the head if another program gave both one position.
CREATE INDEX deliveries_in_line ON hookseal.deliveries (tenant_id, endpoint_id, position, id) WHERE position IS NOT NULL;
-- What stops a line: few.
CREATE INDEX deliveries_stopping ON hookseal.deliveries (tenant_id, endpoint_id)
    WHERE position IS NOT NULL AND state IN ('dead_letter', 'failed');

-- The links of each delivery to its tenant, event and endpoint, which never change, and the indexes that find it by them.
-- They are a table of their own because an update writes an entry into each index of its row, and a delivery is updated at
-- least twice: with these indexes on `deliveries` a claim and its record take PostgreSQL 1.3 times the CPU (decision 19).
-- Triggers add a row with each delivery, and delete it with the delivery.
CREATE TABLE hookseal.delivery_links (
    tenant_id   text NOT NULL,
    id          uuid NOT NULL,
    endpoint_id uuid NOT NULL,
    event_id    text NOT NULL,
    replay_of   uuid,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, event_id) REFERENCES hookseal.events (tenant_id, id)
) WITH (autovacuum_vacuum_scale_factor = 0.05);
COMMENT ON TABLE hookseal.delivery_links IS
    'The tenant, endpoint and event of each delivery, with the indexes that find it by them. Triggers write it';
-- An endpoint gets one delivery of an event, except for replays: for them the last column is null. The event comes
-- before the endpoint because publish, and the foreign key when an event is deleted, look links up by tenant and
-- event. Without the replays in it, each deleted event would read the whole table.
CREATE UNIQUE INDEX delivery_links_once ON hookseal.delivery_links
    (tenant_id, event_id, endpoint_id, (CASE WHEN replay_of IS NULL THEN true END));
-- The history of an endpoint, newest first.
CREATE INDEX delivery_links_of_endpoint ON hookseal.delivery_links (endpoint_id, id);

CREATE FUNCTION hookseal.add_links() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO hookseal.delivery_links (tenant_id, id, endpoint_id, event_id, replay_of)
    SELECT a.tenant_id, a.id, a.endpoint_id, a.event_id, a.replay_of FROM added AS a;
    RETURN NULL;
END
$$;
CREATE TRIGGER deliveries_add_links AFTER INSERT ON hookseal.deliveries
    REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION hookseal.add_links();

-- Nothing of ours changes these columns or truncates these tables; the owner may.
CREATE FUNCTION hookseal.move_link() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE hookseal.delivery_links AS l
    SET tenant_id = NEW.tenant_id, id = NEW.id, endpoint_id = NEW.endpoint_id, event_id = NEW.event_id,
        replay_of = NEW.replay_of
    WHERE l.tenant_id = OLD.tenant_id AND l.id = OLD.id;
    RETURN NULL;
END
$$;
CREATE TRIGGER links_move_with_delivery AFTER UPDATE OF tenant_id, id, endpoint_id, event_id, replay_of ON hookseal.deliveries
    FOR EACH ROW EXECUTE FUNCTION hookseal.move_link();

CREATE FUNCTION hookseal.empty_links() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM hookseal.delivery_links;
    RETURN NULL;
END
$$;
CREATE TRIGGER links_end_with_deliveries AFTER TRUNCATE ON hookseal.deliveries
    FOR EACH STATEMENT EXECUTE FUNCTION hookseal.empty_links();

CREATE FUNCTION hookseal.keep_links() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF EXISTS (SELECT FROM hookseal.deliveries) THEN
        RAISE EXCEPTION 'deliveries need their links: truncate hookseal.deliveries, too' USING ERRCODE = '23503';
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER links_stay_with_deliveries AFTER TRUNCATE ON hookseal.delivery_links
    FOR EACH STATEMENT EXECUTE FUNCTION hookseal.keep_links();

-- Sets or clears held_at together with waiting_for: a delivery that is held by hand without a date would wait for ever.
CREATE FUNCTION hookseal.date_wait() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    NEW.held_at := CASE WHEN NEW.waiting_for IS NOT NULL THEN now() END;
    RETURN NEW;
END
$$;
CREATE TRIGGER deliveries_date_wait BEFORE INSERT OR UPDATE OF waiting_for, held_at ON hookseal.deliveries
    FOR EACH ROW WHEN ((NEW.waiting_for IS NULL) <> (NEW.held_at IS NULL))
    EXECUTE FUNCTION hookseal.date_wait();

-- Dates the end of a delivery, so that it leaves after the retention. Triggers do this for every statement that ends
-- one without a date. A replay clears the date. An update can set it to a time within the last minute only: otherwise a
-- worker could make a delivery leave early. The statement that records a batch
-- sets the date itself: the trigger would take a tenth of that statement's time.
CREATE FUNCTION hookseal.date_end() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    NEW.finished_at := CASE WHEN NEW.state NOT IN ('pending', 'sending') THEN clock_timestamp() END;
    RETURN NEW;
END
$$;
CREATE TRIGGER deliveries_date_end BEFORE INSERT OR UPDATE OF state, finished_at ON hookseal.deliveries
    FOR EACH ROW WHEN ((NEW.next_attempt_at IS NULL AND NEW.lease_token IS NULL) = (NEW.finished_at IS NULL))
    EXECUTE FUNCTION hookseal.date_end();
CREATE TRIGGER deliveries_correct_end BEFORE UPDATE OF finished_at ON hookseal.deliveries
    FOR EACH ROW WHEN (NEW.finished_at IS DISTINCT FROM OLD.finished_at
                       AND NEW.finished_at NOT BETWEEN clock_timestamp() - interval '1 minute' AND clock_timestamp())
    EXECUTE FUNCTION hookseal.date_end();

-- The lines: one row for each ordered endpoint, which gives out the positions. Whoever takes one locks the row until their
-- transaction ends. So positions are given out in the order of the commits, and a delivery never appears in front of one
-- that a claim could see.
CREATE TABLE hookseal.lines (
    tenant_id     text   NOT NULL,
    endpoint_id   uuid   NOT NULL,
    last_position bigint NOT NULL DEFAULT 0 CHECK (last_position >= 0),
    PRIMARY KEY (tenant_id, endpoint_id)
);
COMMENT ON TABLE hookseal.lines IS
    'Lines: one row for each ordered endpoint. No foreign key: a second publish in a transaction would lock the endpoint';
COMMENT ON COLUMN hookseal.lines.last_position IS 'The highest position that was given out';

-- Begins the line of a new ordered endpoint, behind what is left of an endpoint with this id.
CREATE FUNCTION hookseal.begin_line() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO hookseal.lines (tenant_id, endpoint_id, last_position)
    SELECT NEW.tenant_id, NEW.id, coalesce(max(d.position), 0)
    FROM hookseal.deliveries AS d
    WHERE d.tenant_id = NEW.tenant_id AND d.endpoint_id = NEW.id AND d.position IS NOT NULL;
    RETURN NULL;
END
$$;
CREATE TRIGGER endpoints_begin_line AFTER INSERT ON hookseal.endpoints
    FOR EACH ROW WHEN (NEW.ordered)
    EXECUTE FUNCTION hookseal.begin_line();

-- Deletes the line of an endpoint that is deleted, or gives it the endpoint's new id. It waits for every transaction that has
-- taken positions of the line: so the transaction that deletes the endpoint then sees all its deliveries.
CREATE FUNCTION hookseal.follow_endpoint() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        DELETE FROM hookseal.lines AS l WHERE l.tenant_id = OLD.tenant_id AND l.endpoint_id = OLD.id;
    ELSE
        UPDATE hookseal.lines AS l SET tenant_id = NEW.tenant_id, endpoint_id = NEW.id
        WHERE l.tenant_id = OLD.tenant_id AND l.endpoint_id = OLD.id;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER lines_follow_endpoint AFTER DELETE OR UPDATE OF tenant_id, id ON hookseal.endpoints
    FOR EACH ROW WHEN (OLD.ordered)
    EXECUTE FUNCTION hookseal.follow_endpoint();

-- Gives out the next positions of a line, at most 1000; returns the one before the first of them, null if the endpoint has
-- no line. It waits for every transaction that has taken positions of this line.
CREATE FUNCTION hookseal.take_positions(tenant text, endpoint uuid, number bigint) RETURNS bigint
LANGUAGE sql VOLATILE STRICT SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE hookseal.lines AS l
    SET last_position = l.last_position + least(greatest($3, 1), 1000)
    WHERE l.tenant_id = $1 AND l.endpoint_id = $2
    RETURNING l.last_position - least(greatest($3, 1), 1000)
$$;

-- Lets a new delivery wait for its turn if others are in the line. Its position 0 asks for a place at the end; a batch brings
-- the positions that it has taken. The line is read after its lock was taken, so that this is decided in the order of the
-- positions.
CREATE FUNCTION hookseal.join_line() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NEW.state <> 'pending' THEN
        RETURN NEW;
    END IF;
    IF NEW.position = 0 THEN
        NEW.position := hookseal.take_positions(NEW.tenant_id, NEW.endpoint_id, 1) + 1;
    END IF;
    IF NEW.position IS NOT NULL AND NEW.waiting_for IS DISTINCT FROM 'endpoint_disabled' AND EXISTS (
        SELECT FROM hookseal.deliveries AS d
        WHERE d.tenant_id = NEW.tenant_id AND d.endpoint_id = NEW.endpoint_id AND d.position IS NOT NULL)
    THEN
        NEW.waiting_for := 'order';
        NEW.held_at := now();
        NEW.last_error := NULL;
        NEW.rung_at := NULL;
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER deliveries_join_line BEFORE INSERT ON hookseal.deliveries
    FOR EACH ROW WHEN (NEW.position IS NOT NULL)
    EXECUTE FUNCTION hookseal.join_line();

-- Takes a delivery that ends out of its line, with every statement that ends one. If its endpoint says `stop`, what was given up keeps its
-- place, and nothing behind it is sent.
CREATE FUNCTION hookseal.leave_line() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NEW.state IN ('pending', 'sending') THEN
        RETURN NEW;
    END IF;
    IF NEW.state IN ('delivered', 'cancelled') OR NOT EXISTS (
        SELECT FROM hookseal.endpoints AS e
        WHERE e.tenant_id = NEW.tenant_id AND e.id = NEW.endpoint_id AND e.ordered AND e.on_dead_letter = 'stop')
    THEN
        NEW.position := NULL;
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER deliveries_leave_line BEFORE UPDATE OF state ON hookseal.deliveries
    FOR EACH ROW WHEN (NEW.position IS NOT NULL)
    EXECUTE FUNCTION hookseal.leave_line();

-- One row for each attempt of a delivery, never changed. `signed_by` names the secrets that signed it.
-- It has no foreign key, which would take a tenth of the time of a record. None is needed: each statement of ours that
-- inserts an attempt also updates its delivery, and so has locked it. A trigger deletes the attempts of deliveries that are
-- deleted.
CREATE TABLE hookseal.attempts (
    started_at  timestamptz NOT NULL,
    number      integer     NOT NULL,
    duration_ms integer,
    status      integer,
    tenant_id   text        NOT NULL,
    delivery_id uuid        NOT NULL,
    outcome     text        NOT NULL,
    snippet     text        CHECK (octet_length(snippet) <= 2048),
    signed_by   text[]      NOT NULL,
    worker      text        NOT NULL,
    PRIMARY KEY (tenant_id, delivery_id, number)
) WITH (autovacuum_vacuum_scale_factor = 0.05);

-- Deletes the attempts and the links of deliveries that were deleted. The statements are planned at each use: a plan that was
-- made for a small table would read all of a large one for each delivery. Other joins are off, since they would read the whole
-- table.
CREATE FUNCTION hookseal.delete_with_deliveries() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
BEGIN
    EXECUTE 'DELETE FROM hookseal.attempts AS a USING deleted AS d WHERE a.tenant_id = d.tenant_id AND a.delivery_id = d.id';
    EXECUTE 'DELETE FROM hookseal.delivery_links AS l USING deleted AS d WHERE l.tenant_id = d.tenant_id AND l.id = d.id';
    RETURN NULL;
END
$$;
CREATE TRIGGER deliveries_delete_rest AFTER DELETE ON hookseal.deliveries
    REFERENCING OLD TABLE AS deleted
    FOR EACH STATEMENT EXECUTE FUNCTION hookseal.delete_with_deliveries();

-- Endpoints whose secret was refused or whose breaker is open. Their deliveries are held, and from time to time one is
-- released as a probe.
CREATE TABLE hookseal.held_endpoints (
    tenant_id    text             NOT NULL,
    endpoint_id  uuid             NOT NULL,
    since        timestamptz      NOT NULL DEFAULT now(),
    waiting_for  text             NOT NULL DEFAULT 'secret' CHECK (waiting_for IN ('secret', 'breaker')),
    reason       text,
    is_transient boolean          NOT NULL DEFAULT false,
    step_seconds double precision NOT NULL DEFAULT 15 CHECK (step_seconds BETWEEN 1 AND 3600),
    probe_at     timestamptz      NOT NULL DEFAULT now() CHECK (probe_at BETWEEN '2000-01-01Z' AND '9000-01-01Z'),
    probe_id     uuid,
    released_at  timestamptz      CHECK (released_at BETWEEN '2000-01-01Z' AND '9000-01-01Z'),
    PRIMARY KEY (tenant_id, endpoint_id)
);
COMMENT ON TABLE hookseal.held_endpoints IS
    'Endpoints whose secret was refused or whose breaker is open: their deliveries are held, and one at a time is released as a probe';
COMMENT ON COLUMN hookseal.held_endpoints.waiting_for IS
    'What its deliveries wait for. secret: the probe must be signed. breaker: the probe must be answered without trouble';
COMMENT ON COLUMN hookseal.held_endpoints.reason IS 'Why it is held: the last_error of its deliveries';
COMMENT ON COLUMN hookseal.held_endpoints.is_transient IS
    'The store did not answer; as soon as it answers for one such endpoint, all of them are probed';
COMMENT ON COLUMN hookseal.held_endpoints.step_seconds IS 'The time from the last probe to the next one; it doubles';
COMMENT ON COLUMN hookseal.held_endpoints.probe_id IS 'The delivery that was released last as the probe';
COMMENT ON COLUMN hookseal.held_endpoints.released_at IS
    'Since then its deliveries are released: the leader releases them in batches, and then deletes the row';
CREATE INDEX held_endpoints_probed ON hookseal.held_endpoints (probe_at) WHERE released_at IS NULL;
CREATE INDEX held_endpoints_released ON hookseal.held_endpoints (released_at) WHERE released_at IS NOT NULL;

-- Replay jobs: which finished deliveries are to be sent again, and how far that is. The leader takes one step after
-- another, each in one transaction that makes deliveries due and moves the cursor behind them.
CREATE TABLE hookseal.replays (
    tenant_id     text        NOT NULL,
    id            uuid        NOT NULL UNIQUE,
    state         text        NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'done', 'cancelled')),
    -- Which deliveries: all conditions must be true, null is no condition.
    endpoint_id   uuid,
    event_type    text,
    event_id      text,
    states        text[]      NOT NULL CHECK (states <@ ARRAY['delivered', 'dead_letter', 'failed', 'cancelled']
                                  AND cardinality(states) BETWEEN 1 AND 4),
    since         timestamptz CHECK (since BETWEEN '2000-01-01Z' AND '9000-01-01Z'),
    until         timestamptz NOT NULL CHECK (until BETWEEN '2000-01-01Z' AND '9000-01-01Z'),
    end_id        uuid        NOT NULL,
    -- How fast.
    rate          integer     NOT NULL CHECK (rate BETWEEN 1 AND 1000),
    paid_until    timestamptz NOT NULL DEFAULT now() CHECK (paid_until BETWEEN '2000-01-01Z' AND '9000-01-01Z'),
    -- Its progress.
    cursor        uuid        NOT NULL,
    matched       bigint      NOT NULL,
    replayed      bigint      NOT NULL DEFAULT 0,
    disabled      bigint      NOT NULL DEFAULT 0,
    deleted       bigint      NOT NULL DEFAULT 0,
    started_at    timestamptz NOT NULL DEFAULT now(),
    moved_at      timestamptz NOT NULL DEFAULT now(),
    ended_at      timestamptz,
    PRIMARY KEY (tenant_id, id),
    CHECK ((state = 'running') = (ended_at IS NULL))
);
COMMENT ON TABLE hookseal.replays IS
    'Replay jobs. A delivery belongs to a job if its id, which begins with its time, is from since to end_id, and all conditions are true';
COMMENT ON COLUMN hookseal.replays.paid_until IS
    'Each replayed delivery moves it by 1/rate seconds. It never moves into the future, which is what limits the rate';
COMMENT ON COLUMN hookseal.replays.cursor IS 'The job has looked at every delivery up to this id; each is looked at once';
COMMENT ON COLUMN hookseal.replays.matched IS 'How many deliveries met the conditions when the job was started';
COMMENT ON COLUMN hookseal.replays.disabled IS 'Deliveries that were skipped because their endpoint is disabled';
COMMENT ON COLUMN hookseal.replays.deleted IS 'Deliveries that were skipped because their endpoint is deleted';
COMMENT ON COLUMN hookseal.replays.moved_at IS 'When the job last took a step';
CREATE INDEX replays_running ON hookseal.replays (moved_at) WHERE state = 'running';
-- Crowded lanes: endpoints with deliveries that wait in PostgreSQL because they are at a limit. A worker whose lane has
-- room claims the oldest of them. A lane that has had room for all of them for a while is deleted.
CREATE TABLE hookseal.lanes (
    tenant_id   text        NOT NULL,
    endpoint_id uuid        NOT NULL,
    since       timestamptz NOT NULL DEFAULT now(),
    waiting_for text        NOT NULL DEFAULT 'concurrency' CHECK (waiting_for IN ('concurrency', 'rate')),
    reopened_at timestamptz,
    PRIMARY KEY (tenant_id, endpoint_id)
);
COMMENT ON TABLE hookseal.lanes IS
    'Crowded lanes: endpoints with deliveries that wait because they are at a limit. What is published for one waits from the start';
COMMENT ON COLUMN hookseal.lanes.waiting_for IS 'What is published for it waits for this';
COMMENT ON COLUMN hookseal.lanes.reopened_at IS 'When its breaker closed: each worker then begins with one request at a time';

-- The workers. Each writes its row every five seconds.
CREATE TABLE hookseal.workers (
    id            text        PRIMARY KEY,
    version       text        NOT NULL,
    drain_seconds integer     NOT NULL,
    lease_seconds integer     NOT NULL,
    key_ids       text[]      NOT NULL,
    providers     text[]      NOT NULL DEFAULT '{db}',
    started_at    timestamptz NOT NULL DEFAULT now(),
    beaten_at     timestamptz NOT NULL DEFAULT now(),
    drains        boolean     NOT NULL DEFAULT false,
    unrecorded_since timestamptz
);
COMMENT ON TABLE hookseal.workers IS 'Heartbeats. A worker without a recent one is not live (LIVE_SECONDS in endpoint_rules.py)';
COMMENT ON COLUMN hookseal.workers.drains IS 'It stops, and claims no more: the others divide the limits without it';
COMMENT ON COLUMN hookseal.workers.unrecorded_since IS
    'Since when it knows an outcome that it cannot record; while it is live, no sweep ends its leases. Null: it can record';

-- What all workers share: five rows, inserted here. No advisory locks, because every role that logs in can take them.
CREATE TABLE hookseal.control (
    name   text   PRIMARY KEY CHECK (name IN ('cache', 'installation', 'outbox', 'notify', 'restore')),
    -- Without a limit a row could have the highest number, and every command that raises it would fail.
    epoch  bigint NOT NULL DEFAULT 0 CHECK (epoch BETWEEN 0 AND 1000000000000000),
    holder text,
    token  uuid,
    until  timestamptz
);
COMMENT ON TABLE hookseal.control IS
    'cache: secrets cached under an older epoch are discarded. outbox: which worker rings. notify: until when publish sends NOTIFY. restore: generations seen under an older epoch are discarded. installation: its token is the id of this installation, which marks what it keeps at providers';
INSERT INTO hookseal.control (name) VALUES ('cache'), ('outbox'), ('notify'), ('restore');
INSERT INTO hookseal.control (name, token) VALUES ('installation', gen_random_uuid());
