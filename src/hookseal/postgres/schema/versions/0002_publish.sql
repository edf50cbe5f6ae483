-- Publishing with an answer that has the time of each event: for the Publisher, and so for the HTTP API, which shows it.
--
-- publish, publish_raw and publish_many answer as before: a producer may have prepared statements that expect their columns.

-- The answer: as published_of_many, with the time of the event. A single event has no index.
CREATE TYPE hookseal.published_event AS (
    index integer, event_id text, delivery_id uuid, endpoint_id uuid, duplicate boolean, is_due boolean, occurred_at timestamptz);

-- Returns the time of a stored event. Volatile: so it sees one that was committed while its repeat waited for it.
CREATE FUNCTION hookseal.time_of_event(tenant text, event_id text) RETURNS timestamptz
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (SELECT e.occurred_at FROM hookseal.events AS e WHERE e.tenant_id = $1 AND e.id = $2);
END
$$;

-- Publishes one event, with data or with a body that is sent byte for byte, and in channels and with a tracestate if it is
-- given them. Otherwise it does as hookseal.publish.
CREATE FUNCTION hookseal.publish_event(
    tenant text, event_type text, data json DEFAULT NULL, body bytea DEFAULT NULL, channels text[] DEFAULT NULL,
    event_id text DEFAULT NULL, correlation_id text DEFAULT NULL, traceparent text DEFAULT NULL, tracestate text DEFAULT NULL,
    rings boolean DEFAULT false)
RETURNS SETOF hookseal.published_event
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    given hookseal.given_event;
BEGIN
    PERFORM hookseal.admit_tenant($1);
    IF ($3 IS NULL) = ($4 IS NULL) THEN
        RAISE EXCEPTION 'data must be given, or body in its place' USING ERRCODE = 'HS422', COLUMN = 'data';
    END IF;
    given := hookseal.admit_event(ROW(NULL, coalesce($6, hookseal.uuid7()::text), $2, $3::text, $4, $7, $8, NULL, NULL,
        $5, $9)::hookseal.given_event, date_trunc('milliseconds', clock_timestamp()));
    RETURN QUERY
        SELECT NULL::integer, s.event_id, s.delivery_id, s.endpoint_id, s.duplicate, s.is_due,
               CASE WHEN s.duplicate THEN hookseal.time_of_event($1, s.event_id) ELSE given.occurred_at END
        FROM hookseal.store_event($1, given, $10) AS s;
END
$$;
COMMENT ON FUNCTION hookseal.publish_event(text, text, json, bytea, text[], text, text, text, text, boolean) IS
    'Publishes one event, with data or with a body; the answer has its time';

-- Publishes up to 1000 events, otherwise as hookseal.publish_many does.
CREATE FUNCTION hookseal.publish_events(tenant text, events json[], rings boolean DEFAULT false)
RETURNS SETOF hookseal.published_event
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    at timestamptz := date_trunc('milliseconds', clock_timestamp());
BEGIN
    PERFORM hookseal.admit_tenant($1);
    RETURN QUERY
        SELECT s.index, s.event_id, s.delivery_id, s.endpoint_id, s.duplicate, s.is_due,
               CASE WHEN s.duplicate THEN hookseal.time_of_event($1, s.event_id) ELSE at END
        FROM hookseal.store_events(
            $1, ARRAY(SELECT hookseal.admit_event(e, at) FROM unnest(hookseal.read_events($2)) AS e), 20000, $3) AS s
        ORDER BY s.index, s.delivery_id;
END
$$;
COMMENT ON FUNCTION hookseal.publish_events(text, json[], boolean) IS
    'Publishes events as publish_many does; the answer has their times';

GRANT hookseal_publisher TO CURRENT_USER;
GRANT CREATE ON SCHEMA hookseal TO hookseal_publisher;
ALTER FUNCTION hookseal.publish_event(text, text, json, bytea, text[], text, text, text, text, boolean) OWNER TO hookseal_publisher;
ALTER FUNCTION hookseal.publish_events(text, json[], boolean) OWNER TO hookseal_publisher;
REVOKE CREATE ON SCHEMA hookseal FROM hookseal_publisher;
REVOKE EXECUTE ON FUNCTION
    hookseal.time_of_event(text, text),
    hookseal.publish_event(text, text, json, bytea, text[], text, text, text, text, boolean),
    hookseal.publish_events(text, json[], boolean)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION hookseal.time_of_event(text, text) TO hookseal_publisher;
GRANT EXECUTE ON FUNCTION
    hookseal.publish_event(text, text, json, bytea, text[], text, text, text, text, boolean),
    hookseal.publish_events(text, json[], boolean)
    TO hookseal_producer, CURRENT_USER;
GRANT SELECT (occurred_at) ON hookseal.events TO hookseal_publisher;
