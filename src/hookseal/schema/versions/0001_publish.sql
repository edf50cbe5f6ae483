-- Publishing (design 1.4): one call, one transaction; the same functions serve every language.
-- They run with the rights of hookseal_publisher, which may read what fan-out needs and insert
-- events and deliveries, nothing else.

CREATE FUNCTION hookseal.uuid7() RETURNS uuid
LANGUAGE sql VOLATILE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    -- RFC 9562, 5.7: 48 bits of milliseconds, then version, variant and random bits.
    SELECT encode(
        set_bit(set_bit(
            overlay(uuid_send(gen_random_uuid())
                    PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
                    FROM 1 FOR 6),
            52, 1), 53, 1), 'hex')::uuid
$$;

CREATE FUNCTION hookseal.subscribes(event_types text[], event_type text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (
        SELECT FROM unnest(event_types) AS wanted
        WHERE wanted IN ('*', event_type)
           OR (right(wanted, 2) = '.*' AND starts_with(event_type, left(wanted, -1))))
$$;

CREATE FUNCTION hookseal.require(ok boolean, field text, rule text) RETURNS void
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF ok IS NOT TRUE THEN
        RAISE EXCEPTION '% must be %', field, rule USING ERRCODE = 'HS422', COLUMN = field;
    END IF;
END
$$;

CREATE FUNCTION hookseal.may_publish(tenant text) RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_has_role(session_user, (SELECT nspowner FROM pg_namespace WHERE nspname = 'hookseal'), 'MEMBER')
        OR EXISTS (
            SELECT FROM hookseal.producers AS p JOIN pg_roles AS r ON r.rolname = p.role_name
            WHERE p.tenant_id IN (tenant, '*') AND pg_has_role(session_user, r.oid, 'MEMBER'))
$$;

-- The answer: one row for each delivery; one with neither delivery nor endpoint when nobody subscribes.
CREATE TYPE hookseal.published AS (event_id text, delivery_id uuid, endpoint_id uuid, duplicate boolean);

CREATE FUNCTION hookseal.store_event(
    tenant text, type text, id text, body bytea, at timestamptz, print bytea, correlation text, parent text)
RETURNS SETOF hookseal.published
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    inserted integer;
BEGIN
    PERFORM hookseal.require(octet_length(store_event.body) <= 262144, 'body', 'at most 262144 bytes as sent');
    INSERT INTO hookseal.events (tenant_id, id, event_type, occurred_at, correlation_id, traceparent, body, fingerprint)
    VALUES ($1, $3, $2, $5, $7, $8, $4, $6)
    ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS inserted = ROW_COUNT;
    IF inserted = 1 THEN
        INSERT INTO hookseal.deliveries (tenant_id, id, endpoint_id, event_id)
        SELECT $1, hookseal.uuid7(), e.id, $3
        FROM hookseal.endpoints AS e
        WHERE e.tenant_id = $1 AND e.enabled AND hookseal.subscribes(e.event_types, $2)
        ORDER BY e.id;
    ELSIF NOT EXISTS (
        SELECT FROM hookseal.events AS e
        WHERE e.tenant_id = $1 AND e.id = $3 AND e.event_type = $2 AND e.fingerprint = $6)
    THEN
        RAISE EXCEPTION 'event id is already used with another type or other data'
            USING ERRCODE = 'HS409', COLUMN = 'event_id';
    END IF;
    RETURN QUERY
        SELECT $3, d.id, d.endpoint_id, inserted = 0
        FROM (VALUES (1)) AS one (row)
        LEFT JOIN hookseal.deliveries AS d ON d.tenant_id = $1 AND d.event_id = $3
        ORDER BY d.id;
END
$$;

CREATE FUNCTION hookseal.admit_event(
    tenant text, type text, id text, correlation text, parent text)
RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM hookseal.require(tenant ~ '^[a-z0-9][a-z0-9._-]{0,62}$', 'tenant',
        '1 to 63 characters of a-z, 0-9, ".", "_" and "-", beginning with a letter or digit');
    PERFORM hookseal.require(type ~ '^[a-z0-9_]+([.][a-z0-9_]+)*$' AND length(type) <= 128, 'event_type',
        'words of a-z, 0-9 and "_", separated by dots, at most 128 characters');
    PERFORM hookseal.require(id ~ '^[A-Za-z0-9_-]{1,128}$', 'event_id',
        '1 to 128 characters of A-Z, a-z, 0-9, "_" and "-"');
    PERFORM hookseal.require(correlation IS NULL OR correlation ~ '^[!-~]{1,128}$', 'correlation_id',
        '1 to 128 visible ASCII characters');
    PERFORM hookseal.require(parent IS NULL OR parent ~ '^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$', 'traceparent',
        'a W3C traceparent');
    IF NOT hookseal.may_publish(tenant) THEN
        RAISE EXCEPTION 'role % may not publish for tenant %', session_user, tenant USING ERRCODE = '42501';
    END IF;
END
$$;

CREATE FUNCTION hookseal.publish(
    tenant text, event_type text, data json, event_id text DEFAULT NULL,
    correlation_id text DEFAULT NULL, traceparent text DEFAULT NULL)
RETURNS SETOF hookseal.published
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    id text := coalesce($4, hookseal.uuid7()::text);
    at timestamptz := date_trunc('milliseconds', clock_timestamp());
BEGIN
    PERFORM hookseal.admit_event($1, $2, id, $5, $6);
    PERFORM hookseal.require($3 IS NOT NULL, 'data', 'JSON');
    PERFORM hookseal.require(octet_length($3::text) <= 262144, 'body', 'at most 262144 bytes as sent');
    RETURN QUERY SELECT * FROM hookseal.store_event(
        $1, $2, id,
        convert_to(format('{"type":"%s","timestamp":"%s","data":%s}', $2,
            to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), $3::text), 'UTF8'),
        at, sha256(convert_to('data:' || $2 || ':' || $3::text, 'UTF8')), $5, $6);
END
$$;

CREATE FUNCTION hookseal.publish_raw(
    tenant text, event_type text, body bytea, event_id text DEFAULT NULL,
    correlation_id text DEFAULT NULL, traceparent text DEFAULT NULL)
RETURNS SETOF hookseal.published
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    id text := coalesce($4, hookseal.uuid7()::text);
    at timestamptz := date_trunc('milliseconds', clock_timestamp());
BEGIN
    PERFORM hookseal.admit_event($1, $2, id, $5, $6);
    PERFORM hookseal.require($3 IS NOT NULL, 'body', 'bytes');
    RETURN QUERY SELECT * FROM hookseal.store_event(
        $1, $2, id, $3, at, sha256(convert_to('raw:' || $2 || ':', 'UTF8') || $3), $5, $6);
END
$$;
