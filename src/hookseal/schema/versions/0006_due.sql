-- What of an event is to be rung: hookseal.publish answers with all of its deliveries, also those that wait.

CREATE FUNCTION hookseal.due(tenant text, event_id text) RETURNS uuid[]
LANGUAGE plpgsql VOLATILE SECURITY DEFINER  -- stable, it would not see what the statement that calls it has published
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT hookseal.may_publish($1) THEN
        RAISE EXCEPTION 'role % may not publish for tenant %', session_user, $1 USING ERRCODE = '42501';
    END IF;
    RETURN ARRAY(
        SELECT d.id FROM hookseal.deliveries AS d
        WHERE d.tenant_id = $1 AND d.event_id = $2 AND d.replay_of IS NULL
          AND d.state = 'pending' AND d.waiting_for IS NULL AND d.next_attempt_at <= now());
END
$$;
COMMENT ON FUNCTION hookseal.due(text, text) IS
    'Those deliveries of an event that are due now; of a tenant that the caller may publish for only';
