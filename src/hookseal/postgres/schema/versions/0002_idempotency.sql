-- Requests that a client of the HTTP API may repeat: what the first request with a key made, so that a repetition gets its
-- answer.
--
-- The row is the first thing that the transaction of the change writes, and gets its result at the end: so it exists if, and
-- only if, the change does. Another request with the key waits at the primary key until that transaction has ended.
-- Nothing here tells what was asked. A key is random and is kept as a digest; the fingerprint of the request is made with the
-- key, so that nobody who reads it can try out what a body had.

CREATE TABLE hookseal.idempotency_keys (
    tenant_id   text        NOT NULL CHECK (tenant_id ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$' OR tenant_id = '*'),
    actor       text        NOT NULL CHECK (length(actor) BETWEEN 1 AND 128),
    key_digest  bytea       NOT NULL CHECK (octet_length(key_digest) = 32),
    call        text        NOT NULL CHECK (length(call) BETWEEN 1 AND 128),
    fingerprint bytea       NOT NULL CHECK (octet_length(fingerprint) = 32),
    status      smallint    CHECK (status BETWEEN 200 AND 299),
    result_id   text        CHECK (length(result_id) BETWEEN 1 AND 256),
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, actor, key_digest),
    CHECK ((status IS NULL) = (result_id IS NULL))
);
COMMENT ON COLUMN hookseal.idempotency_keys.tenant_id IS 'The tenant for which the client may act; * for all';
COMMENT ON COLUMN hookseal.idempotency_keys.actor IS 'Who the client is, as in the audit log: a key of another client is another key';
COMMENT ON COLUMN hookseal.idempotency_keys.key_digest IS 'SHA-256 of the key, which is stored nowhere';
COMMENT ON COLUMN hookseal.idempotency_keys.fingerprint IS 'HMAC-SHA256 of path, query and body, with the key as its key';
COMMENT ON COLUMN hookseal.idempotency_keys.result_id IS
    'What the request made. Null only within the transaction that makes it';
CREATE INDEX idempotency_keys_created ON hookseal.idempotency_keys (created_at);

-- Deletes up to 500 keys that are older than 12 hours, the oldest first; returns how many. It waits for no lock.
CREATE FUNCTION hookseal.remove_idempotency_keys() RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
    WITH old AS MATERIALIZED (
        SELECT k.tenant_id, k.actor, k.key_digest
        FROM hookseal.idempotency_keys AS k
        WHERE k.created_at < now() - interval '12 hours'
        ORDER BY k.created_at
        LIMIT 500
        FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM hookseal.idempotency_keys AS k
        USING old
        WHERE k.tenant_id = old.tenant_id AND k.actor = old.actor AND k.key_digest = old.key_digest
        RETURNING 1
    )
    SELECT count(*) FROM gone
$$;
COMMENT ON FUNCTION hookseal.remove_idempotency_keys() IS 'Deletes up to 500 idempotency keys that are older than 12 hours';

REVOKE EXECUTE ON FUNCTION hookseal.remove_idempotency_keys() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION hookseal.remove_idempotency_keys() TO hookseal_worker;
GRANT SELECT, INSERT (tenant_id, actor, key_digest, call, fingerprint), UPDATE (status, result_id)
    ON hookseal.idempotency_keys TO hookseal_operator, hookseal_api;
