-- An example: an event for one endpoint, whatever it subscribes to, which an operator asks for.

-- Stores an event with data, or with a body that is sent byte for byte, and its one delivery, to this endpoint; the worker that leads
-- the outbox rings it. Returns no row if the endpoint does not exist. It runs with the rights of hookseal_publisher: an operator may
-- insert no event. A role that may call it may do so for each tenant, without a right to publish.
CREATE FUNCTION hookseal.send_example(tenant text, endpoint uuid, event_type text, data json, body bytea)
RETURNS SETOF hookseal.published
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    given hookseal.given_event;
BEGIN
    IF ($4 IS NULL) = ($5 IS NULL) THEN
        RAISE EXCEPTION 'data must be given, or body in its place' USING ERRCODE = 'HS422', COLUMN = 'data';
    END IF;
    IF NOT EXISTS (SELECT FROM hookseal.audience AS a WHERE a.tenant_id = $1 AND a.endpoint_id = $2) THEN
        RETURN;
    END IF;
    given := hookseal.admit_event(ROW(NULL, hookseal.uuid7()::text, $3, $4::text, $5, NULL, NULL, NULL, NULL, NULL, NULL)::hookseal.given_event,
        date_trunc('milliseconds', clock_timestamp()));
    INSERT INTO hookseal.events (tenant_id, id, event_type, occurred_at, body, fingerprint)
    VALUES ($1, given.id, given.event_type, given.occurred_at, given.body, given.fingerprint);
    RETURN QUERY
        INSERT INTO hookseal.deliveries AS d
            (tenant_id, id, endpoint_id, event_id, waiting_for, held_at, last_error, position, manual_attempts)
        SELECT $1, hookseal.uuid7(), a.endpoint_id, given.id, a.waiting_for, CASE WHEN a.waiting_for IS NOT NULL THEN now() END,
               a.last_error, CASE WHEN a.ordered THEN 0 END, '{1}'::integer[]
        FROM hookseal.audience AS a
        WHERE a.tenant_id = $1 AND a.endpoint_id = $2
        RETURNING given.id, d.id, d.endpoint_id, false, d.waiting_for IS NULL;
END
$$;
COMMENT ON FUNCTION hookseal.send_example(text, uuid, text, json, bytea) IS
    'Publishes an event to one endpoint only, as an example that an operator asks for';

GRANT hookseal_publisher TO CURRENT_USER;
GRANT CREATE ON SCHEMA hookseal TO hookseal_publisher;
ALTER FUNCTION hookseal.send_example(text, uuid, text, json, bytea) OWNER TO hookseal_publisher;
REVOKE CREATE ON SCHEMA hookseal FROM hookseal_publisher;
REVOKE EXECUTE ON FUNCTION hookseal.send_example(text, uuid, text, json, bytea) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION hookseal.send_example(text, uuid, text, json, bytea) TO hookseal_operator, CURRENT_USER;
GRANT INSERT (manual_attempts) ON hookseal.deliveries TO hookseal_publisher;
