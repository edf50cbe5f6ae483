-- Channels: an event with channels goes only to the endpoints that share one of them, and to those that have none; an endpoint
-- with channels gets only events that share one.
--
-- And tracestate, which belongs to the traceparent of an event.
--
-- The functions that publish are replaced, not dropped: an older producer calls them as before, and its events have neither.
-- publish_event takes them (0002_publish.sql): a function of the same name would make calls with untyped arguments
-- ambiguous. Many events bring theirs as members of each.

-- Returns whether these are at most 10 names of 1 to 128 characters.
CREATE FUNCTION hookseal.are_channels(channels text[]) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(array_ndims($1), 1) = 1 AND cardinality($1) <= 10
       AND (SELECT coalesce(bool_and(coalesce(c.name ~ '^[A-Za-z0-9_.-]+$' AND length(c.name) <= 128, false)), true)
            FROM unnest($1) AS c (name))
$$;

-- Returns a W3C tracestate without the spaces around its members and without empty ones; null if it is none. A trace then goes on
-- without it, as the standard says: it only carries what vendors note. The limits are those of the standard for one header.
CREATE FUNCTION hookseal.read_tracestate(given text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN $1 ~ '^[\t -~]+$' AND length($1) <= 512 AND count(*) BETWEEN 1 AND 32 AND count(*) = count(DISTINCT m.key)
                 AND bool_and(m.member ~ '^([a-z][a-z0-9_*/-]*|[a-z0-9][a-z0-9_*/-]*@[a-z][a-z0-9_*/-]{0,13})=[^=\t]+$'
                              AND length(m.key) <= 256 AND (m.key !~ '@' OR length(split_part(m.key, '@', 1)) <= 241)
                              AND length(m.member) - length(m.key) <= 257)
           THEN string_agg(m.member, ',' ORDER BY m.n) END
    FROM (SELECT p.n, btrim(p.part, E' \t') AS member, split_part(btrim(p.part, E' \t'), '=', 1) AS key
          FROM unnest(string_to_array($1, ',')) WITH ORDINALITY AS p (part, n)) AS m
    WHERE m.member <> ''
$$;

ALTER TABLE hookseal.endpoints ADD COLUMN channels text[] NOT NULL DEFAULT '{}';
ALTER TABLE hookseal.endpoints ADD CHECK (hookseal.are_channels(channels)) NOT VALID;  -- as in 0002_endpoints.sql
COMMENT ON COLUMN hookseal.endpoints.channels IS 'It gets only events with one of these channels; none: whatever channels an event has';
CREATE TRIGGER endpoints_date_channels BEFORE UPDATE OF channels ON hookseal.endpoints
    FOR EACH ROW EXECUTE FUNCTION hookseal.date_change();

-- No check: a publish would read it each time. admit_event checks what it stores.
ALTER TABLE hookseal.events ADD COLUMN channels text[], ADD COLUMN tracestate text;
COMMENT ON COLUMN hookseal.events.channels IS 'Only endpoints with one of these channels, or with none, got it; null: it has none';
COMMENT ON COLUMN hookseal.events.tracestate IS 'What vendors note about its trace, sent beside the traceparent; null: nothing';

ALTER TYPE hookseal.given_event ADD ATTRIBUTE channels text[], ADD ATTRIBUTE tracestate text;

CREATE OR REPLACE VIEW hookseal.audience AS
    SELECT e.tenant_id, e.id AS endpoint_id, e.ordered, held.waiting_for,
           CASE held.waiting_for WHEN 'endpoint_disabled' THEN 'the endpoint is disabled' ELSE h.reason END AS last_error,
           e.channels
    FROM hookseal.endpoints AS e
    LEFT JOIN hookseal.held_endpoints AS h
        ON h.tenant_id = e.tenant_id AND h.endpoint_id = e.id AND h.released_at IS NULL
    LEFT JOIN hookseal.lanes AS l ON l.tenant_id = e.tenant_id AND l.endpoint_id = e.id
    CROSS JOIN LATERAL (SELECT CASE WHEN NOT e.enabled THEN 'endpoint_disabled'
                                    ELSE coalesce(h.waiting_for, l.waiting_for) END) AS held (waiting_for);

-- As in 0001_publish.sql, with the channels in order, each once. They are a part of the fingerprint: a repeat has the same.
CREATE OR REPLACE FUNCTION hookseal.admit_event(given hookseal.given_event, at timestamptz) RETURNS hookseal.given_event
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    body bytea := given.body;
    rule text;
    channels text[];
    named bytea := '';
    tracestate text;
BEGIN
    IF octet_length(given.data) <= 262144 THEN
        body := convert_to(format('{"type":"%s","timestamp":"%s","data":%s}', given.event_type,
            to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), given.data), 'UTF8');
    END IF;
    IF cardinality(given.channels) > 0 THEN
        channels := ARRAY(SELECT DISTINCT c.name COLLATE "C" FROM unnest(given.channels) AS c (name) ORDER BY 1);
        named := convert_to('channels:' || array_to_string(channels, ',') || ':', 'UTF8');
    END IF;
    IF given.tracestate IS NOT NULL AND given.traceparent IS NOT NULL THEN
        tracestate := hookseal.read_tracestate(given.tracestate);
    END IF;
    rule := CASE
        WHEN (given.event_type ~ '^[A-Za-z0-9_-]+([.][A-Za-z0-9_-]+)*$' AND length(given.event_type) <= 128) IS NOT TRUE
            THEN 'event_type must be words of A-Z, a-z, 0-9, "_" and "-", separated by dots, at most 128 characters'
        WHEN given.id !~ '^[A-Za-z0-9_.:-]+$' OR length(given.id) > 256 OR given.id IN ('.', '..')
            THEN 'event_id must be 1 to 256 characters of A-Z, a-z, 0-9, "_", ".", ":" and "-", and not "." or ".."'
        WHEN given.correlation_id !~ '^[!-~]+$' OR length(given.correlation_id) > 128
            THEN 'correlation_id must be 1 to 128 visible ASCII characters'
        WHEN given.traceparent !~ '^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$'
            THEN 'traceparent must be a W3C traceparent'
        WHEN body IS NULL OR octet_length(body) > 262144
            THEN 'body must be at most 262144 bytes as sent'
        WHEN channels IS NOT NULL AND NOT hookseal.are_channels(channels)
            THEN 'channels must be at most 10 names, each 1 to 128 characters of A-Z, a-z, 0-9, ".", "_" and "-"'
        END;
    IF rule IS NOT NULL THEN
        RAISE EXCEPTION '%', coalesce('events[' || given.index || ']: ', '') || rule
            USING ERRCODE = 'HS422', COLUMN = split_part(rule, ' ', 1);
    END IF;
    RETURN ROW(given.index, given.id, given.event_type, NULL, body, given.correlation_id, given.traceparent, at,
        sha256(named || CASE
            WHEN given.body IS NULL THEN convert_to('data:' || given.event_type || ':' || given.data, 'UTF8')
            ELSE convert_to('raw:' || given.event_type || ':', 'UTF8') || body END), channels, tracestate)::hookseal.given_event;
END
$$;

-- As in 0001_publish.sql, for the endpoints that may get each event by its channels. An endpoint is found by its id alone, and
-- no table is scanned: while there are few endpoints, any index that begins with the tenant, and a scan, look as good to the
-- planner; and with such a plan, which a session keeps until the next ANALYZE, it reads all of them for each delivery.
CREATE OR REPLACE FUNCTION hookseal.store_events(
    tenant text, given hookseal.given_event[], most_deliveries integer, rings boolean DEFAULT false)
RETURNS SETOF hookseal.published_of_many
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
AS $$
DECLARE
    fresh text[];
    first hookseal.given_event[] := $2;
    clash record;
    answered bigint;
BEGIN
    -- In the order of their ids, so that two batches do not deadlock.
    WITH stored AS (
        INSERT INTO hookseal.events
            (tenant_id, id, event_type, occurred_at, correlation_id, traceparent, body, fingerprint, channels, tracestate)
        SELECT $1, g.id, g.event_type, g.occurred_at, g.correlation_id, g.traceparent, g.body, g.fingerprint, g.channels,
               g.tracestate
        FROM unnest($2) AS g
        ORDER BY g.id COLLATE "C", g.index
        ON CONFLICT DO NOTHING
        RETURNING id
    )
    SELECT coalesce(array_agg(stored.id), '{}') INTO fresh FROM stored;

    IF cardinality(fresh) < cardinality($2) THEN
        SELECT g.index INTO clash
        FROM unnest($2) AS g
        LEFT JOIN LATERAL (
            SELECT e.event_type, e.fingerprint FROM hookseal.events AS e
            WHERE e.tenant_id = $1 AND e.id = g.id OFFSET 0) AS kept ON true
        WHERE (kept.event_type, kept.fingerprint) IS DISTINCT FROM (g.event_type, g.fingerprint)
        ORDER BY g.index
        LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION '%event id is already used with another type, other channels or other data',
                coalesce('events[' || clash.index || ']: ', '') USING ERRCODE = 'HS409', COLUMN = 'event_id';
        END IF;
        first := ARRAY(
            SELECT n.g
            FROM (SELECT g, row_number() OVER (PARTITION BY g.id ORDER BY g.index) AS nth FROM unnest($2) AS g) AS n
            WHERE n.nth = 1 AND (n.g).id = ANY (fresh));
    END IF;

    RETURN QUERY
        WITH matched AS MATERIALIZED (
            SELECT f.id, f.index, subscribed.endpoint_id, a.waiting_for, a.last_error, a.ordered
            FROM (SELECT u.event_type, ARRAY['*', u.event_type] || ARRAY(
                             SELECT left(u.event_type, n) || '*' FROM generate_series(1, length(u.event_type)) AS n
                             WHERE substr(u.event_type, n, 1) = '.') AS patterns
                  FROM (SELECT DISTINCT event_type FROM unnest(first)) AS u
                  OFFSET 0) AS type
            CROSS JOIN LATERAL (
                SELECT DISTINCT s.endpoint_id
                FROM unnest(type.patterns) AS p (pattern), LATERAL (
                    SELECT s.endpoint_id FROM hookseal.subscriptions AS s
                    WHERE s.tenant_id = $1 AND s.pattern = p.pattern OFFSET 0) AS s) AS subscribed
            CROSS JOIN LATERAL (
                SELECT a.tenant_id, a.waiting_for, a.last_error, a.ordered, a.channels FROM hookseal.audience AS a
                WHERE a.endpoint_id = subscribed.endpoint_id OFFSET 0) AS a
            JOIN (SELECT id, event_type, index, channels FROM unnest(first)) AS f
                ON f.event_type = type.event_type AND (a.channels = '{}' OR a.channels && f.channels)
            WHERE a.tenant_id = $1
            LIMIT $3 + 1
        ), line AS MATERIALIZED (  -- in one order, so that two publishers do not deadlock
            SELECT l.endpoint_id, hookseal.take_positions($1, l.endpoint_id, l.number) AS ended_with
            FROM (SELECT m.endpoint_id, count(*) AS number FROM matched AS m WHERE m.ordered
                  GROUP BY m.endpoint_id
                  ORDER BY m.endpoint_id
                  OFFSET 0) AS l
        ), made AS (
            INSERT INTO hookseal.deliveries
                (tenant_id, id, endpoint_id, event_id, rung_at, waiting_for, held_at, last_error, position)
            SELECT $1, hookseal.uuid7(), m.endpoint_id, m.id, CASE WHEN $4 AND m.waiting_for IS NULL THEN now() END,
                   m.waiting_for, CASE WHEN m.waiting_for IS NOT NULL THEN now() END, m.last_error,
                   line.ended_with + row_number() OVER (PARTITION BY m.endpoint_id ORDER BY m.index)
            FROM matched AS m
            LEFT JOIN line ON line.endpoint_id = m.endpoint_id
            ORDER BY m.endpoint_id, m.index
            RETURNING event_id, id, endpoint_id, waiting_for
        )
        SELECT f.index, f.id, m.id, m.endpoint_id, false, m.id IS NOT NULL AND m.waiting_for IS NULL
        FROM (SELECT id, index FROM unnest(first)) AS f
        LEFT JOIN made AS m ON m.event_id = f.id;
    GET DIAGNOSTICS answered = ROW_COUNT;
    -- An event without subscribers is answered by a row without a delivery, which does not count.
    IF answered > $3 AND (SELECT count(*) FROM hookseal.delivery_links AS l
                          WHERE l.tenant_id = $1 AND l.event_id = ANY (fresh) AND l.replay_of IS NULL) > $3
    THEN
        RAISE EXCEPTION 'events must be so few that they make at most % deliveries', $3
            USING ERRCODE = 'HS422', COLUMN = 'events';
    END IF;
    IF $4 IS NOT TRUE AND EXISTS (SELECT FROM hookseal.control WHERE name = 'notify' AND until > now()) AND EXISTS (
        SELECT FROM unnest(fresh) AS f (id), LATERAL (
            SELECT FROM hookseal.delivery_links AS l JOIN hookseal.deliveries AS d ON d.id = l.id
            WHERE l.tenant_id = $1 AND l.event_id = f.id AND l.replay_of IS NULL AND d.waiting_for IS NULL OFFSET 0) AS due)
    THEN
        PERFORM pg_notify('hookseal_unrung', '');
    END IF;

    IF cardinality(first) < cardinality($2) THEN
        RETURN QUERY
            SELECT n.index, n.id, d.id, d.endpoint_id, true,
                   coalesce(d.state = 'pending' AND d.waiting_for IS NULL AND d.next_attempt_at <= now(), false)
            FROM (SELECT g.id, g.index, row_number() OVER (PARTITION BY g.id ORDER BY g.index) AS nth
                  FROM unnest($2) AS g) AS n
            LEFT JOIN LATERAL (
                SELECT d.id, d.endpoint_id, d.state, d.waiting_for, d.next_attempt_at
                FROM hookseal.delivery_links AS l JOIN hookseal.deliveries AS d ON d.id = l.id
                WHERE l.tenant_id = $1 AND l.event_id = n.id AND l.replay_of IS NULL OFFSET 0) AS d ON true
            WHERE n.nth > 1 OR n.id <> ALL (fresh);
    END IF;
END
$$;

-- The same. It refuses, before it writes anything, an event for more than 20,000 endpoints: storing their deliveries would take
-- longer than a producer waits. An endpoint counts once for each of its patterns that match.
CREATE OR REPLACE FUNCTION hookseal.store_event(tenant text, given hookseal.given_event, rings boolean DEFAULT false)
RETURNS SETOF hookseal.published
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
AS $$
DECLARE
    patterns text[] := ARRAY['*', given.event_type];
    word text;
    family text := '';
BEGIN
    FOREACH word IN ARRAY trim_array(string_to_array(given.event_type, '.'), 1) LOOP
        family := family || word || '.';
        patterns := patterns || (family || '*');
    END LOOP;
    INSERT INTO hookseal.events
        (tenant_id, id, event_type, occurred_at, correlation_id, traceparent, body, fingerprint, channels, tracestate)
    SELECT $1, given.id, given.event_type, given.occurred_at, given.correlation_id, given.traceparent, given.body,
           given.fingerprint, given.channels, given.tracestate
    WHERE NOT EXISTS (SELECT FROM hookseal.subscriptions AS s
                      WHERE s.tenant_id = $1 AND s.pattern = ANY (patterns) OFFSET 20000)
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        IF NOT EXISTS (SELECT FROM hookseal.events AS e WHERE e.tenant_id = $1 AND e.id = given.id) THEN
            RAISE EXCEPTION 'event_type must be one to which at most 20000 endpoints of the tenant subscribe'
                USING ERRCODE = 'HS422', COLUMN = 'event_type';
        END IF;
        RETURN QUERY
            SELECT s.event_id, s.delivery_id, s.endpoint_id, s.duplicate, s.is_due
            FROM hookseal.store_events($1, ARRAY[given], NULL) AS s
            ORDER BY s.endpoint_id;
        RETURN;
    END IF;
    RETURN QUERY
        INSERT INTO hookseal.deliveries AS d
            (tenant_id, id, endpoint_id, event_id, rung_at, waiting_for, held_at, last_error, position)
        SELECT $1, hookseal.uuid7(), subscribed.endpoint_id, given.id,
               CASE WHEN rings AND a.waiting_for IS NULL THEN now() END,
               a.waiting_for, CASE WHEN a.waiting_for IS NOT NULL THEN now() END, a.last_error, CASE WHEN a.ordered THEN 0 END
        FROM (SELECT DISTINCT s.endpoint_id
              FROM unnest(patterns) AS p (pattern), LATERAL (
                  SELECT s.endpoint_id FROM hookseal.subscriptions AS s
                  WHERE s.tenant_id = $1 AND s.pattern = p.pattern OFFSET 0) AS s) AS subscribed
        CROSS JOIN LATERAL (
            SELECT a.tenant_id, a.waiting_for, a.last_error, a.ordered, a.channels FROM hookseal.audience AS a
            WHERE a.endpoint_id = subscribed.endpoint_id OFFSET 0) AS a
        WHERE a.tenant_id = $1 AND (a.channels = '{}' OR a.channels && given.channels)
        ORDER BY subscribed.endpoint_id
        RETURNING given.id, d.id, d.endpoint_id, false, d.waiting_for IS NULL;
    IF NOT FOUND THEN
        RETURN NEXT ROW(given.id, NULL, NULL, false, false)::hookseal.published;
    END IF;
    -- Two conditions: PostgreSQL would prepare the queries of one even if `rings` is true.
    IF rings IS NOT TRUE THEN
        IF EXISTS (SELECT FROM hookseal.control WHERE name = 'notify' AND until > now()) AND EXISTS (
            SELECT FROM hookseal.delivery_links AS l JOIN hookseal.deliveries AS d ON d.id = l.id
            WHERE l.tenant_id = $1 AND l.event_id = given.id AND l.replay_of IS NULL AND d.waiting_for IS NULL)
        THEN
            PERFORM pg_notify('hookseal_unrung', '');
        END IF;
    END IF;
END
$$;

-- As in 0001_publish.sql: an event without channels.
CREATE OR REPLACE FUNCTION hookseal.publish(
    tenant text, event_type text, data json, event_id text DEFAULT NULL,
    correlation_id text DEFAULT NULL, traceparent text DEFAULT NULL, rings boolean DEFAULT false)
RETURNS SETOF hookseal.published
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM hookseal.admit_tenant($1);
    IF $3 IS NULL THEN
        RAISE EXCEPTION 'data must be JSON' USING ERRCODE = 'HS422', COLUMN = 'data';
    END IF;
    RETURN QUERY
        SELECT * FROM hookseal.store_event($1, hookseal.admit_event(ROW(NULL,
            coalesce($4, hookseal.uuid7()::text), $2, $3::text, NULL, $5, $6, NULL, NULL, NULL, NULL)::hookseal.given_event,
            date_trunc('milliseconds', clock_timestamp())), $7);
END
$$;

CREATE OR REPLACE FUNCTION hookseal.publish_raw(
    tenant text, event_type text, body bytea, event_id text DEFAULT NULL,
    correlation_id text DEFAULT NULL, traceparent text DEFAULT NULL, rings boolean DEFAULT false)
RETURNS SETOF hookseal.published
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM hookseal.admit_tenant($1);
    IF $3 IS NULL THEN
        RAISE EXCEPTION 'body must be bytes' USING ERRCODE = 'HS422', COLUMN = 'body';
    END IF;
    RETURN QUERY
        SELECT * FROM hookseal.store_event($1, hookseal.admit_event(ROW(NULL,
            coalesce($4, hookseal.uuid7()::text), $2, NULL, $3, $5, $6, NULL, NULL, NULL, NULL)::hookseal.given_event,
            date_trunc('milliseconds', clock_timestamp())), $7);
END
$$;

-- As in 0001_publish.sql, with `channels`, an array of text, and `tracestate`.
CREATE OR REPLACE FUNCTION hookseal.read_events(events json[]) RETURNS hookseal.given_event[]
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    pair text := repeat(chr(92), 2);
    code text := chr(92) || 'u';
    for_pair text := ' ' || gen_random_uuid();  -- random, so no event contains it; and no id may contain a space
    for_code text := ' ' || gen_random_uuid();
    given hookseal.given_event[];
    bad_index integer;
    bad_rule text;
BEGIN
    IF $1 IS NULL OR cardinality($1) > 1000 THEN
        RAISE EXCEPTION 'events must be an array of at most 1000' USING ERRCODE = 'HS422', COLUMN = 'events';
    END IF;
    IF (SELECT sum(octet_length(event::text)) FROM unnest($1) AS event) > 33554432 THEN
        RAISE EXCEPTION 'events must be at most 33554432 bytes in all' USING ERRCODE = 'HS422', COLUMN = 'events';
    END IF;
    -- Checked before it is read, because the replacement of a pair of backslashes is eighteen times as long.
    SELECT g.index INTO bad_index
    FROM unnest($1) WITH ORDINALITY AS g (event, index)
    WHERE octet_length(g.event::text) > 1048576
    ORDER BY g.index
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'events[%]: body must be at most 262144 bytes as sent, and an event 1048576 as given', bad_index
            USING ERRCODE = 'HS422', COLUMN = 'body';
    END IF;

    WITH read AS MATERIALIZED (
        SELECT g.index, e.id, e.event_type, e.data, e.correlation_id, e.traceparent, e.tracestate, e.channels,
               e.body ~ '^[A-Za-z0-9+/]*={0,2}$' AND length(e.body) % 4 = 0 AS is_base64, e.body, e.is_ours
        FROM unnest($1) WITH ORDINALITY AS g (event, index)
        CROSS JOIN LATERAL (
            SELECT max(value::json #>> '{}') FILTER (WHERE key = 'event_id') AS id,
                   max(value::json #>> '{}') FILTER (WHERE key = 'event_type') AS event_type,
                   max(value) FILTER (WHERE key = 'data') AS data,
                   max(value::json #>> '{}') FILTER (WHERE key = 'body') AS body,
                   max(value::json #>> '{}') FILTER (WHERE key = 'correlation_id') AS correlation_id,
                   max(value::json #>> '{}') FILTER (WHERE key = 'traceparent') AS traceparent,
                   max(value::json #>> '{}') FILTER (WHERE key = 'tracestate') AS tracestate,
                   max(value) FILTER (WHERE key = 'channels' AND left(value, 1) = '[') AS channels,
                   count(*) = count(DISTINCT key) AND bool_and(key = 'data'
                       OR key IN ('event_id', 'event_type', 'body', 'correlation_id', 'traceparent', 'tracestate')
                           AND left(value, 1) IN ('"', 'n')
                       OR key = 'channels' AND left(value, 1) IN ('[', 'n')) AS is_ours
            FROM (SELECT part.key, replace(replace(part.value::text, for_code, code), for_pair, pair) AS value
                  FROM json_each(CASE WHEN json_typeof(g.event) = 'object' THEN
                      replace(replace(g.event::text, pair, for_pair), code, for_code)::json END) AS part) AS part
        ) AS e
    ), judged AS MATERIALIZED (
        SELECT read.*, CASE
            WHEN is_ours IS NOT TRUE THEN 'events must be objects of event_type, data (or body), event_id, '
                'correlation_id, traceparent, tracestate and channels, none of them twice, all but data and channels text'
            WHEN channels IS NOT NULL AND EXISTS (
                SELECT FROM json_array_elements(channels::json) AS c WHERE json_typeof(c.value) <> 'string')
            THEN 'channels must be an array of text'
            WHEN (data IS NULL) = (body IS NULL) THEN 'data must be given, or body in its place'
            WHEN NOT is_base64 THEN 'body must be base64'
            END AS rule
        FROM read
    )
    SELECT min(index) FILTER (WHERE rule IS NOT NULL),
           (array_agg(rule ORDER BY index) FILTER (WHERE rule IS NOT NULL))[1],
           array_agg(ROW(index, coalesce(id, hookseal.uuid7()::text), event_type, data,
               CASE WHEN is_base64 THEN decode(body, 'base64') END, correlation_id, traceparent, NULL, NULL,
               CASE WHEN channels IS NOT NULL THEN ARRAY(SELECT json_array_elements_text(channels::json)) END, tracestate
               )::hookseal.given_event ORDER BY index)
    INTO bad_index, bad_rule, given
    FROM judged;
    IF bad_rule IS NOT NULL THEN
        RAISE EXCEPTION 'events[%]: %', bad_index, bad_rule
            USING ERRCODE = 'HS422', COLUMN = split_part(bad_rule, ' ', 1);
    END IF;
    RETURN coalesce(given, '{}');
END
$$;
COMMENT ON FUNCTION hookseal.publish_many(text, json[], boolean) IS
    'Publishes at most 1000 events of a tenant, 32 MiB in all, that make at most 20000 deliveries: all or none. '
    'Each is an object with event_type, data (or body in base64), event_id, correlation_id, traceparent, tracestate, '
    'channels (an array)';

-- As in 0001_operator_events.sql: an operator event has no channels.
CREATE OR REPLACE FUNCTION hookseal.notify_operator(kind text, tenant text, endpoint uuid, details jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    last hookseal.operator_notices;
    area text := split_part($1, '.', 1);
BEGIN
    IF $2 = '_operator' OR NOT EXISTS (
        SELECT FROM hookseal.subscriptions AS s
        WHERE s.tenant_id = '_operator'
          AND s.pattern = ANY (ARRAY['*', $1, area || '.*', regexp_replace($1, '[^.]+$', '*')]))
    THEN
        RETURN;
    END IF;
    SELECT n.* INTO last FROM hookseal.operator_notices AS n
    WHERE n.tenant_id = $2 AND n.endpoint_id = $3 AND n.kind = $1
    FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        INSERT INTO hookseal.operator_notices (tenant_id, endpoint_id, kind) VALUES ($2, $3, $1) ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN  -- another transaction publishes it now
            RETURN;
        END IF;
    ELSIF last.last_at > now() - interval '10 minutes' THEN
        UPDATE hookseal.operator_notices AS n
        SET suppressed = least(n.suppressed, 2147483646) + 1
        WHERE n.tenant_id = $2 AND n.endpoint_id = $3 AND n.kind = $1;
        RETURN;
    ELSE
        UPDATE hookseal.operator_notices AS n
        SET last_at = now(), suppressed = 0
        WHERE n.tenant_id = $2 AND n.endpoint_id = $3 AND n.kind = $1;
    END IF;
    PERFORM hookseal.store_event('_operator', hookseal.admit_event(ROW(NULL,
        hookseal.uuid7()::text, $1,
        (jsonb_build_object('tenant_id', $2, 'endpoint_id', $3, 'suppressed', coalesce(last.suppressed, 0))
            || jsonb_strip_nulls($4))::text,
        NULL, NULL, NULL, NULL, NULL, NULL, NULL)::hookseal.given_event, date_trunc('milliseconds', clock_timestamp())));
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'hookseal did not publish the operator event %: %', $1, SQLERRM;
END
$$;

-- are_channels stays public: a check runs with the rights of the writing role.
REVOKE EXECUTE ON FUNCTION hookseal.read_tracestate(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION hookseal.read_tracestate(text) TO hookseal_publisher;
GRANT SELECT (channels, tracestate) ON hookseal.events TO hookseal_operator, hookseal_readonly;
GRANT SELECT (channels) ON hookseal.endpoints TO hookseal_worker, hookseal_readonly;
GRANT INSERT (channels), UPDATE (channels) ON hookseal.endpoints TO hookseal_operator;
