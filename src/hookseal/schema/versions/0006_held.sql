-- Deliveries that wait for their endpoint (design 1.5): they lie outside the indexes of what is due, and cost nothing.

ALTER TABLE hookseal.deliveries
    ADD COLUMN held_at timestamptz CHECK (held_at BETWEEN '2000-01-01Z' AND '9000-01-01Z');
COMMENT ON COLUMN hookseal.deliveries.held_at IS
    'Since when it waits; null while waiting_for is. What waits for a disabled endpoint ends HOOKSEAL_HELD_DAYS later';
UPDATE hookseal.deliveries SET held_at = now() WHERE waiting_for IS NOT NULL;

-- A worker of before, and a hand, write waiting_for alone: what waits without a date would wait for ever.
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

DROP INDEX hookseal.deliveries_due;
CREATE INDEX deliveries_due ON hookseal.deliveries (next_attempt_at, id)
    WHERE state = 'pending' AND waiting_for IS NULL;
DROP INDEX hookseal.deliveries_unrung;
CREATE INDEX deliveries_unrung ON hookseal.deliveries (next_attempt_at, id)
    WHERE state = 'pending' AND waiting_for IS NULL AND rung_at IS NULL;
DROP INDEX hookseal.deliveries_waiting;
CREATE INDEX deliveries_waiting ON hookseal.deliveries (waiting_for, held_at) WHERE waiting_for IS NOT NULL;
-- The oldest of an endpoint, which is its probe; what to let go, oldest first; and endpoint after endpoint.
CREATE INDEX deliveries_held ON hookseal.deliveries (tenant_id, endpoint_id, waiting_for, id)
    WHERE waiting_for IS NOT NULL;

CREATE TABLE hookseal.held_endpoints (
    tenant_id    text             NOT NULL,
    endpoint_id  uuid             NOT NULL,
    since        timestamptz      NOT NULL DEFAULT now(),
    reason       text,
    is_transient boolean          NOT NULL DEFAULT false,
    step_seconds double precision NOT NULL DEFAULT 15 CHECK (step_seconds BETWEEN 1 AND 3600),
    probe_at     timestamptz      NOT NULL DEFAULT now() CHECK (probe_at BETWEEN '2000-01-01Z' AND '9000-01-01Z'),
    probe_id     uuid,
    released_at  timestamptz      CHECK (released_at BETWEEN '2000-01-01Z' AND '9000-01-01Z'),
    PRIMARY KEY (tenant_id, endpoint_id)
);
COMMENT ON TABLE hookseal.held_endpoints IS
    'Endpoints whose secret was refused: their deliveries wait (waiting_for secret), one of them is tried now and then';
COMMENT ON COLUMN hookseal.held_endpoints.reason IS 'Why it was refused: what its deliveries have as last_error';
COMMENT ON COLUMN hookseal.held_endpoints.is_transient IS
    'The store did not answer; as soon as it answers for one such endpoint, all of them are tried';
COMMENT ON COLUMN hookseal.held_endpoints.step_seconds IS 'How long after the last probe the next one comes; it doubles';
COMMENT ON COLUMN hookseal.held_endpoints.probe_id IS 'The delivery that was let go last, to see whether the secret is back';
COMMENT ON COLUMN hookseal.held_endpoints.released_at IS
    'Since then nothing is held back any more: the worker that leads lets go what waits, in batches, and deletes the row';
CREATE INDEX held_endpoints_probed ON hookseal.held_endpoints (probe_at) WHERE released_at IS NULL;
CREATE INDEX held_endpoints_released ON hookseal.held_endpoints (released_at) WHERE released_at IS NOT NULL;

-- Every endpoint that subscribes gets a delivery. For one that is disabled or held it waits from the beginning.
CREATE OR REPLACE FUNCTION hookseal.store_event(
    tenant text, type text, id text, body bytea, at timestamptz, print bytea, correlation text, parent text)
RETURNS SETOF hookseal.published
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    inserted integer;
    is_due boolean;
BEGIN
    PERFORM hookseal.require(octet_length(store_event.body) <= 262144, 'body', 'at most 262144 bytes as sent');
    INSERT INTO hookseal.events (tenant_id, id, event_type, occurred_at, correlation_id, traceparent, body, fingerprint)
    VALUES ($1, $3, $2, $5, $7, $8, $4, $6)
    ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS inserted = ROW_COUNT;
    IF inserted = 1 THEN
        WITH made AS (
            INSERT INTO hookseal.deliveries (tenant_id, id, endpoint_id, event_id, waiting_for, held_at, last_error)
            SELECT $1, hookseal.uuid7(), e.id, $3, held.waiting_for, CASE WHEN held.waiting_for IS NOT NULL THEN now() END,
                   CASE held.waiting_for WHEN 'secret' THEN h.reason
                                         WHEN 'endpoint_disabled' THEN 'the endpoint is disabled' END
            FROM hookseal.endpoints AS e
            LEFT JOIN hookseal.held_endpoints AS h
                ON h.tenant_id = e.tenant_id AND h.endpoint_id = e.id AND h.released_at IS NULL
            CROSS JOIN LATERAL (SELECT CASE WHEN NOT e.enabled THEN 'endpoint_disabled'
                                            WHEN h.endpoint_id IS NOT NULL THEN 'secret' END) AS held (waiting_for)
            WHERE e.tenant_id = $1 AND hookseal.subscribes(e.event_types, $2)
            ORDER BY e.id
            RETURNING waiting_for
        )
        SELECT coalesce(bool_or(made.waiting_for IS NULL), false) INTO is_due FROM made;
        IF is_due AND EXISTS (SELECT FROM hookseal.control WHERE name = 'notify' AND until > now()) THEN
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
