-- What a product keeps with an endpoint.
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
-- holds all of them, so that it also finds the endpoints with a url.
ALTER TABLE hookseal.endpoints ADD COLUMN shares_url boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN hookseal.endpoints.shares_url IS 'Whether it may have the url of another endpoint: once asked for, for good';
ALTER TABLE hookseal.endpoints DROP CONSTRAINT endpoints_tenant_id_url_key;
CREATE UNIQUE INDEX endpoints_url ON hookseal.endpoints (tenant_id, url, (CASE WHEN NOT shares_url THEN true END));

REVOKE EXECUTE ON FUNCTION hookseal.date_change() FROM PUBLIC;  -- is_metadata stays: a check runs with the rights of the writing role
GRANT SELECT (uid, description, metadata, updated_at, shares_url) ON hookseal.endpoints TO hookseal_worker, hookseal_readonly;
GRANT INSERT (uid, description, metadata, shares_url), UPDATE (uid, description, metadata, shares_url)
    ON hookseal.endpoints TO hookseal_operator;
