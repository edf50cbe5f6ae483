-- A repeat of an event answers with what publish made, not with replays; whoever listens is told.

CREATE OR REPLACE FUNCTION hookseal.store_event(
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
        IF FOUND AND EXISTS (SELECT FROM hookseal.control WHERE name = 'notify' AND until > now()) THEN
            PERFORM pg_notify('hookseal_unrung', '');
        END IF;
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
        LEFT JOIN hookseal.deliveries AS d ON d.tenant_id = $1 AND d.event_id = $3 AND d.replay_of IS NULL
        ORDER BY d.id;
END
$$;
