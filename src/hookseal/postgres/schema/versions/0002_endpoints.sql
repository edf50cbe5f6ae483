-- What a product keeps with an endpoint, and the urls that endpoints had.
--
-- Each column is added without a rewrite of the table, and each check without a look at its rows (NOT VALID): those that exist
-- get the default, which meets it. PostgreSQL checks every later write.

-- Returns whether this is an object with at most 50 members, all text: keys of 1 to 128 characters, and at most 4096 bytes of
-- keys and values in all.
CREATE FUNCTION hookseal.is_metadata(metadata jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN jsonb_typeof($1) = 'object' THEN (
        SELECT count(*) <= 50 AND coalesce(sum(octet_length(m.key) + octet_length(m.value #>> '{}')), 0) <= 4096
           AND coalesce(bool_and(jsonb_typeof(m.value) = 'string' AND length(m.key) BETWEEN 1 AND 128), true)
        FROM jsonb_each($1) AS m) ELSE false END
$$;

ALTER TABLE hookseal.endpoints
    ADD COLUMN uid         text,
    ADD COLUMN description text  NOT NULL DEFAULT '',
    ADD COLUMN metadata    jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN updated_at  timestamptz;
ALTER TABLE hookseal.endpoints
    ALTER COLUMN updated_at SET DEFAULT now(),
    ADD CHECK (uid ~ '^[A-Za-z0-9_.-]+$' AND length(uid) <= 256) NOT VALID,
    ADD CHECK (length(description) <= 1024) NOT VALID,
    ADD CHECK (hookseal.is_metadata(metadata)) NOT VALID;
COMMENT ON COLUMN hookseal.endpoints.uid IS 'The id that the product has given it';
COMMENT ON COLUMN hookseal.endpoints.metadata IS 'What the product keeps with it: an object whose values are text';
COMMENT ON COLUMN hookseal.endpoints.updated_at IS
    'When one of its settings was changed last; a failure, or another secret, is none. Null: not since the table has this column';
-- The uid of a deleted endpoint is free again, since its row is gone.
CREATE UNIQUE INDEX endpoints_uid ON hookseal.endpoints (tenant_id, uid) WHERE uid IS NOT NULL;

-- Dates each statement that writes a setting; ours do so only if they change one. No role may write the date itself.
CREATE FUNCTION hookseal.date_change() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    NEW.updated_at := greatest(now(), OLD.updated_at);
    RETURN NEW;
END
$$;
CREATE TRIGGER endpoints_date_change
    BEFORE UPDATE OF uid, name, description, metadata, url, event_types, enabled, scheme, algorithm, lead, headers_ref, tls_ref,
                     timeout_ms, max_attempts, backoff_base_seconds, backoff_cap_seconds, retry_schedule, concurrency, rate,
                     on_dead_letter, rotate_every_days
    ON hookseal.endpoints
    FOR EACH ROW EXECUTE FUNCTION hookseal.date_change();

-- Several endpoints of a tenant may have one url, if somebody asked for it; the others are still one for each url. The index
-- holds all of them, so that it also finds the endpoints with a url. The tenant is not its first column: before the first
-- ANALYZE the planner would find an endpoint by its tenant in it, and read all others.
ALTER TABLE hookseal.endpoints ADD COLUMN shares_url boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN hookseal.endpoints.shares_url IS 'Whether it may have the url of another endpoint: once asked for, for good';
ALTER TABLE hookseal.endpoints DROP CONSTRAINT endpoints_tenant_id_url_key;
CREATE UNIQUE INDEX endpoints_url ON hookseal.endpoints (url, tenant_id, (CASE WHEN NOT shares_url THEN true END));

-- The urls that an endpoint does not have any more, so that an attempt shows the url that it used. The url of now is in
-- `endpoints`, with the time since which it is that. Both times are taken while the row is locked, as a claim takes its time
-- after it has locked the row: so each claim lies on the right side of each change.
-- A url leaves when no delivery is left that may have used it.
CREATE TABLE hookseal.endpoint_urls (
    tenant_id   text        NOT NULL,
    endpoint_id uuid        NOT NULL,
    until       timestamptz NOT NULL,
    since       timestamptz NOT NULL,
    url         text        NOT NULL,
    PRIMARY KEY (tenant_id, endpoint_id, until)
);
COMMENT ON TABLE hookseal.endpoint_urls IS 'The former urls of each endpoint, and all urls of those that are deleted';

-- Nobody knows the urls before: so those of now are dated with this moment. No other one can change until the commit.
DO $$
BEGIN
    EXECUTE format('ALTER TABLE hookseal.endpoints ADD COLUMN url_since timestamptz NOT NULL DEFAULT %L', clock_timestamp());
END
$$;
ALTER TABLE hookseal.endpoints ALTER COLUMN url_since SET DEFAULT now();
COMMENT ON COLUMN hookseal.endpoints.url_since IS 'Since when it has this url, as far as that is known';

CREATE FUNCTION hookseal.keep_url() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    at timestamptz := clock_timestamp();
BEGIN
    INSERT INTO hookseal.endpoint_urls (tenant_id, endpoint_id, until, since, url)
    VALUES (OLD.tenant_id, OLD.id, at, OLD.url_since, OLD.url);
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    NEW.url_since := at;
    RETURN NEW;
END
$$;
CREATE TRIGGER endpoints_keep_url BEFORE UPDATE OF url ON hookseal.endpoints
    FOR EACH ROW WHEN (OLD.url <> NEW.url)
    EXECUTE FUNCTION hookseal.keep_url();
CREATE TRIGGER endpoints_keep_last_url BEFORE DELETE ON hookseal.endpoints
    FOR EACH ROW EXECUTE FUNCTION hookseal.keep_url();

-- Returns the url that an endpoint had at that time, also if it is deleted; null if that is not known.
CREATE FUNCTION hookseal.url_at(tenant text, endpoint uuid, at timestamptz) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT CASE WHEN had.since <= $3 THEN had.url END
        FROM ((SELECT u.until, u.since, u.url FROM hookseal.endpoint_urls AS u
               WHERE u.tenant_id = $1 AND u.endpoint_id = $2 AND u.until > $3
               ORDER BY u.until
               LIMIT 1)
              UNION ALL
              SELECT 'infinity', e.url_since, e.url FROM hookseal.endpoints AS e
              WHERE e.tenant_id = $1 AND e.id = $2) AS had
        ORDER BY had.until
        LIMIT 1);
END
$$;

-- Deletes up to 500 urls that ended more than `days` ago, of which no delivery is left that was made before. An id of a delivery
-- begins with its time in milliseconds. Returns how many it deleted. It waits for no lock.
CREATE FUNCTION hookseal.remove_urls(days integer) RETURNS bigint
LANGUAGE sql VOLATILE STRICT SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
    WITH unused AS MATERIALIZED (
        SELECT u.tenant_id, u.endpoint_id, u.until
        FROM hookseal.endpoint_urls AS u
        WHERE u.until < now() - make_interval(days => greatest($1, 1), mins => 1)
          AND NOT EXISTS (
              SELECT FROM hookseal.delivery_links AS l
              WHERE l.endpoint_id = u.endpoint_id
                AND l.id < (lpad(to_hex((extract(epoch FROM u.until) * 1000)::bigint + 1), 12, '0')
                            || '70008000000000000000')::uuid)
        LIMIT 500
        FOR UPDATE OF u SKIP LOCKED
    ), gone AS (
        DELETE FROM hookseal.endpoint_urls AS u
        USING unused
        WHERE u.tenant_id = unused.tenant_id AND u.endpoint_id = unused.endpoint_id AND u.until = unused.until
        RETURNING 1
    )
    SELECT count(*) FROM gone
$$;
COMMENT ON FUNCTION hookseal.remove_urls(integer) IS
    'Deletes up to 500 former urls, ended more than so many days ago (at least 1), that no delivery can have used';

-- is_metadata stays public: a check runs with the rights of the writing role.
-- Returns the newest generation of an endpoint that the audit log knows now. It is volatile: a statement that has waited for
-- the lock of an endpoint reads the log as it is after the wait, not by its own snapshot, which is older.
CREATE FUNCTION hookseal.audited_generation(tenant text, endpoint uuid) RETURNS bigint
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT max(l.generation) FROM hookseal.audit_log AS l WHERE l.tenant_id = $1 AND l.subject = 'endpoint:' || $2
$$;
COMMENT ON FUNCTION hookseal.audited_generation(text, uuid) IS
    'The newest generation of an endpoint that the audit log knows, as committed now';

REVOKE EXECUTE ON FUNCTION
    hookseal.date_change(), hookseal.keep_url(), hookseal.url_at(text, uuid, timestamptz), hookseal.remove_urls(integer),
    hookseal.audited_generation(text, uuid)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION hookseal.audited_generation(text, uuid) TO hookseal_worker, hookseal_operator, hookseal_readonly;
GRANT EXECUTE ON FUNCTION hookseal.url_at(text, uuid, timestamptz) TO hookseal_worker, hookseal_operator, hookseal_readonly;
GRANT EXECUTE ON FUNCTION hookseal.remove_urls(integer) TO hookseal_worker;
GRANT SELECT ON hookseal.endpoint_urls TO hookseal_worker, hookseal_operator, hookseal_readonly;
GRANT SELECT (uid, description, metadata, updated_at, shares_url, url_since) ON hookseal.endpoints
    TO hookseal_worker, hookseal_readonly;
GRANT INSERT (uid, description, metadata, shares_url), UPDATE (uid, description, metadata, shares_url)
    ON hookseal.endpoints TO hookseal_operator;
