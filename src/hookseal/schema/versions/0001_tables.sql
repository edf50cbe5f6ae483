-- The tables of the first release (design 1.5). Every tenant-owned table begins with the tenant.

CREATE TABLE hookseal.endpoints (
    tenant_id                  text        NOT NULL CHECK (tenant_id ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
    id                         uuid        NOT NULL UNIQUE,
    name                       text,
    url                        text        NOT NULL CHECK (length(url) BETWEEN 1 AND 2048),
    event_types                text[]      NOT NULL,
    enabled                    boolean     NOT NULL DEFAULT true,
    disabled_reason            text,
    scheme                     text        NOT NULL DEFAULT 'standard',
    algorithm                  text        NOT NULL DEFAULT 'hmac',
    timeout_ms                 integer     NOT NULL DEFAULT 5000 CHECK (timeout_ms BETWEEN 100 AND 20000),
    secret_ref                 text,
    previous_secret_ref        text,
    previous_secret_expires_at timestamptz CHECK (previous_secret_expires_at BETWEEN '2000-01-01Z' AND '9000-01-01Z'),
    secret_provider            text,
    secret_updated_at          timestamptz,
    lead                       text        NOT NULL DEFAULT 'previous' CHECK (lead IN ('previous', 'current')),
    generation                 bigint      NOT NULL DEFAULT 0,
    mac                        bytea,
    mac_key_id                 text,
    secret                     text,
    has_plaintext              boolean     GENERATED ALWAYS AS (secret IS NOT NULL) STORED,
    created_at                 timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, url)
);
COMMENT ON COLUMN hookseal.endpoints.mac IS
    'HMAC under the integrity key over where requests go and which secrets sign them (design, law 11)';
COMMENT ON COLUMN hookseal.endpoints.secret IS
    'Plaintext of an older system, to be migrated. No worker signs from it.';

CREATE TABLE hookseal.events (
    tenant_id      text        NOT NULL,
    id             text        NOT NULL CHECK (id ~ '^[A-Za-z0-9_-]{1,128}$'),
    event_type     text        NOT NULL,
    occurred_at    timestamptz NOT NULL,
    correlation_id text,
    traceparent    text,
    body           bytea       NOT NULL CHECK (octet_length(body) <= 262144),
    fingerprint    bytea       NOT NULL,
    PRIMARY KEY (tenant_id, id)
);
COMMENT ON COLUMN hookseal.events.fingerprint IS
    'SHA-256 over what the producer gave (kind, type, data text or raw body): what a repeat is compared with';

CREATE TABLE hookseal.deliveries (
    tenant_id           text        NOT NULL,
    id                  uuid        NOT NULL UNIQUE,
    endpoint_id         uuid        NOT NULL,
    event_id            text        NOT NULL,
    state               text        NOT NULL DEFAULT 'pending' CHECK (state IN
                            ('pending', 'sending', 'delivered', 'dead_letter', 'failed', 'cancelled')),
    attempts            integer     NOT NULL DEFAULT 0,
    next_attempt_at     timestamptz DEFAULT now() CHECK (next_attempt_at BETWEEN '2000-01-01Z' AND '9000-01-01Z'),
    rung_at             timestamptz,
    waiting_for         text        CHECK (waiting_for IN
                            ('secret', 'endpoint_disabled', 'breaker', 'rate', 'concurrency', 'order')),
    lease_owner         text,
    lease_token         uuid,
    lease_expires_at    timestamptz,
    claimed_number      integer,
    claimed_at          timestamptz,
    claimed_refs        text[],
    claimed_generation  bigint,
    last_error          text,
    created_at          timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, event_id) REFERENCES hookseal.events (tenant_id, id),
    CHECK ((state = 'sending') = (lease_token IS NOT NULL)),
    CHECK (state <> 'sending' OR num_nulls(lease_owner, lease_expires_at, claimed_number, claimed_at, claimed_refs) = 0),
    CHECK ((state = 'pending') = (next_attempt_at IS NOT NULL)),
    CHECK (waiting_for IS NULL OR state = 'pending')
);
COMMENT ON COLUMN hookseal.deliveries.endpoint_id IS
    'No foreign key: the history outlives the endpoint';
COMMENT ON COLUMN hookseal.deliveries.claimed_refs IS
    'Both refs that the running claim read; with number, start and generation, what an attempt of a dead worker is written from';
CREATE UNIQUE INDEX deliveries_once ON hookseal.deliveries (tenant_id, endpoint_id, event_id);
CREATE INDEX deliveries_due ON hookseal.deliveries (next_attempt_at) WHERE state = 'pending';
CREATE INDEX deliveries_leased ON hookseal.deliveries (lease_expires_at) WHERE state = 'sending';

CREATE TABLE hookseal.attempts (
    tenant_id   text        NOT NULL,
    delivery_id uuid        NOT NULL,
    number      integer     NOT NULL,
    started_at  timestamptz NOT NULL,
    duration_ms integer,
    status      integer,
    outcome     text        NOT NULL,
    snippet     text        CHECK (octet_length(snippet) <= 2048),
    signed_by   text[]      NOT NULL,
    worker      text        NOT NULL,
    PRIMARY KEY (tenant_id, delivery_id, number),
    FOREIGN KEY (tenant_id, delivery_id) REFERENCES hookseal.deliveries (tenant_id, id)
);

CREATE TABLE hookseal.secret_keys (
    key_id      text        PRIMARY KEY CHECK (key_id ~ '^[0-9a-f]{16}$'),
    state       text        NOT NULL CHECK (state IN ('staged', 'active', 'decrypt_only', 'retired', 'destroyed')),
    check_value bytea       NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX secret_keys_one_active ON hookseal.secret_keys (state) WHERE state = 'active';

CREATE TABLE hookseal.secret_records (
    tenant_id  text        NOT NULL,
    name       text        NOT NULL,
    version    bigint      NOT NULL CHECK (version > 0),
    provider   text        NOT NULL,
    purpose    text        NOT NULL,
    scheme     text,
    sealed     bytea,
    key_id     text,
    state      text        NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'previous', 'retired', 'destroyed')),
    created_at timestamptz NOT NULL DEFAULT now(),
    changed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, name, version),
    CHECK ((provider = 'db' AND state <> 'destroyed') = (sealed IS NOT NULL)),
    CHECK ((sealed IS NULL) = (key_id IS NULL))
);
COMMENT ON COLUMN hookseal.secret_records.sealed IS
    'The envelope of docs/CANONICAL/SECRETS.md; null for external providers and once destroyed';
CREATE UNIQUE INDEX secret_records_one_active ON hookseal.secret_records (tenant_id, name) WHERE state = 'active';

CREATE TABLE hookseal.producers (
    role_name  text        NOT NULL,
    tenant_id  text        NOT NULL,
    granted_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, role_name)
);
COMMENT ON COLUMN hookseal.producers.tenant_id IS 'The tenant that the role may publish for; * for all';
