-- Retention: how deliveries, their attempts and events leave.
--
-- The worker that leads the outbox calls these two functions again and again. Each deletes a batch of limited size, in one
-- statement, and waits for no lock. They run with the rights of the owner of the tables: a worker may not delete
-- rows itself, and through them only what has ended, and no earlier than one day after that. Apart from the triggers that
-- guard the date, two things make this true: the days are those of UTC, since in another time zone a day may have no
-- length; and a minute is added, by which a date may lie before the end.
--
-- Batches, and no partitions by time: docs/proof/soak.md has the measurements.

-- Deletes a batch of the deliveries that ended more than `days` ago and not before `after`, oldest first. It deletes their
-- attempts itself, to count them; so the trigger finds none. Returns the end of the last one, null if there was none: the next
-- batch begins there, so that it does not read index entries of deleted rows again, which stay for as long as any
-- transaction may see them.
-- What stops the line of an ordered endpoint stays, however old it is: others wait behind it.
-- Other joins are off: before the first ANALYZE, or with a wrong estimate, the planner would read whole tables.
CREATE FUNCTION hookseal.remove_deliveries(days integer, after timestamptz)
RETURNS TABLE (deliveries bigint, attempts bigint, last timestamptz)
LANGUAGE sql VOLATILE STRICT SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
    WITH old AS MATERIALIZED (
        SELECT d.tenant_id, d.id, d.finished_at
        FROM hookseal.deliveries AS d
        WHERE d.finished_at < now() - make_interval(days => greatest($1, 1), mins => 1) AND d.finished_at >= $2
          AND (d.position IS NULL
               OR NOT EXISTS (SELECT FROM hookseal.lines AS l
                              WHERE l.tenant_id = d.tenant_id AND l.endpoint_id = d.endpoint_id))
        ORDER BY d.finished_at
        LIMIT 500
        FOR UPDATE SKIP LOCKED
    ), made AS (
        DELETE FROM hookseal.attempts AS a
        USING old
        WHERE a.tenant_id = old.tenant_id AND a.delivery_id = old.id
        RETURNING 1
    ), gone AS (
        DELETE FROM hookseal.deliveries AS d
        USING old
        WHERE d.tenant_id = old.tenant_id AND d.id = old.id
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM made), (SELECT max(finished_at) FROM old)
$$;
COMMENT ON FUNCTION hookseal.remove_deliveries(integer, timestamptz) IS
    'Deletes up to 500 deliveries that ended more than so many days ago (at least 1), with their attempts';

-- Looks at the events that were published more than `days` ago and later than `after`, oldest first, 500 and those with
-- the time of the last one; deletes those without a delivery. Returns the time of the last one, null if there was none.
-- An event whose delivery is not over, or not old, is passed: so the caller walks through all, from `after` to `after`.
CREATE FUNCTION hookseal.remove_events(days integer, after timestamptz)
RETURNS TABLE (events bigint, looked_at bigint, last timestamptz)
LANGUAGE sql VOLATILE STRICT SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
    WITH old AS MATERIALIZED (
        SELECT e.tenant_id, e.id, e.occurred_at
        FROM hookseal.events AS e
        WHERE e.occurred_at AT TIME ZONE 'UTC' < (now() - make_interval(days => greatest($1, 1), mins => 1)) AT TIME ZONE 'UTC'
          AND e.occurred_at AT TIME ZONE 'UTC' > $2 AT TIME ZONE 'UTC'
        ORDER BY e.occurred_at AT TIME ZONE 'UTC'
        FETCH FIRST 500 ROWS WITH TIES
    ), unused AS MATERIALIZED (
        SELECT e.tenant_id, e.id
        FROM old
        JOIN hookseal.events AS e ON e.tenant_id = old.tenant_id AND e.id = old.id
        WHERE NOT EXISTS (SELECT FROM hookseal.delivery_links AS l WHERE l.tenant_id = e.tenant_id AND l.event_id = e.id)
        FOR UPDATE OF e SKIP LOCKED
    ), gone AS (
        DELETE FROM hookseal.events AS e
        USING unused
        WHERE e.tenant_id = unused.tenant_id AND e.id = unused.id
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM old), (SELECT max(occurred_at) FROM old)
$$;
COMMENT ON FUNCTION hookseal.remove_events(integer, timestamptz) IS
    'Deletes those of the next 500 events, published more than so many days ago (at least 1), that have no delivery';
