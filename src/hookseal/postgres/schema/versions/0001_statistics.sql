-- Statistics of endpoints: how their attempts went in the last hour and day, and what is left to do. Everybody who may look
-- may read the two views. Both are made for one endpoint, or for the endpoints of one tenant: their cost grows with the
-- number of endpoints that are read, not with the number of deliveries.

-- What workers counted, for each endpoint and quarter of an hour. They add to it every 15 seconds, so that an attempt costs no
-- statement. What a killed worker had not written yet is missing. Rows older than 25 hours are deleted.
CREATE TABLE hookseal.attempt_counts (
    tenant_id   text        NOT NULL,
    endpoint_id uuid        NOT NULL,
    since       timestamptz NOT NULL,
    delivered   bigint      NOT NULL CHECK (delivered >= 0),
    durations   bigint[]    NOT NULL,
    PRIMARY KEY (tenant_id, endpoint_id, since)
) WITH (fillfactor = 70);
COMMENT ON COLUMN hookseal.attempt_counts.since IS 'The quarter of an hour begins here';
COMMENT ON COLUMN hookseal.attempt_counts.delivered IS 'Attempts that succeeded';
COMMENT ON COLUMN hookseal.attempt_counts.durations IS
    'All attempts by duration: one number for each of hookseal.duration_bounds(), and one for what took longer';
CREATE INDEX attempt_counts_oldest ON hookseal.attempt_counts (since);

-- Returns the upper bounds by which durations are counted, in milliseconds.
CREATE FUNCTION hookseal.duration_bounds() RETURNS integer[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ARRAY[1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000, 1500, 2000, 3000, 5000, 7000,
                 10000, 15000, 20000]
$$;

-- Returns how many milliseconds this share of the attempts took at most, as if they were spread evenly between two bounds;
-- null without attempts.
CREATE FUNCTION hookseal.duration_percentile(counts bigint[], share double precision) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT b.lower + (b.upper - b.lower) * (b.target - b.before) / b.number
    FROM (SELECT c.number, sum(c.number) OVER (ORDER BY c.place) - c.number AS before,
                 $2 * sum(c.number) OVER () AS target,
                 coalesce((hookseal.duration_bounds())[c.place - 1], 0) AS lower,
                 coalesce((hookseal.duration_bounds())[c.place], 20000) AS upper
          FROM unnest($1) WITH ORDINALITY AS c (number, place)) AS b
    WHERE b.number > 0 AND b.before + b.number >= b.target
    ORDER BY b.before
    LIMIT 1
$$;

-- The attempts of each endpoint in the last hour and in the last day.
CREATE VIEW hookseal.endpoint_stats AS
    SELECT e.tenant_id, e.id AS endpoint_id, p.period, made.attempts, made.delivered,
           made.delivered::double precision / nullif(made.attempts, 0) AS success_rate,
           hookseal.duration_percentile(made.durations, 0.5) AS p50_ms,
           hookseal.duration_percentile(made.durations, 0.99) AS p99_ms
    FROM hookseal.endpoints AS e
    CROSS JOIN (VALUES ('hour', interval '1 hour'), ('day', interval '1 day')) AS p (period, length)
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(s.number), 0)::bigint AS attempts, coalesce(max(s.delivered), 0)::bigint AS delivered,
               array_agg(s.number ORDER BY s.place) AS durations
        FROM (SELECT u.place, sum(u.number)::bigint AS number, sum(c.delivered)::bigint AS delivered
              FROM hookseal.attempt_counts AS c, unnest(c.durations) WITH ORDINALITY AS u (number, place)
              WHERE c.tenant_id = e.tenant_id AND c.endpoint_id = e.id AND c.since > now() - p.length - interval '15 minutes'
              GROUP BY u.place) AS s) AS made;
COMMENT ON VIEW hookseal.endpoint_stats IS
    'The attempts of each endpoint in the last hour and day, in whole quarters of an hour: up to 15 minutes more. '
    'success_rate is null without attempts. p50_ms and p99_ms are estimates between the bounds of the counts';

-- What is left to do for each endpoint. At most 10,000 pending deliveries of an endpoint are counted.
CREATE VIEW hookseal.endpoint_backlog AS
    SELECT e.tenant_id, e.id AS endpoint_id,
           CASE WHEN NOT e.enabled THEN 'disabled' WHEN h.endpoint_id IS NOT NULL THEN 'held'
                WHEN EXISTS (SELECT FROM hookseal.deliveries AS s
                             WHERE s.tenant_id = e.tenant_id AND s.endpoint_id = e.id
                               AND s.position IS NOT NULL AND s.state IN ('dead_letter', 'failed')) THEN 'stopped'
                WHEN e.first_failure_at IS NOT NULL THEN 'failing' ELSE 'healthy' END AS state,
           due.pending, due.waiting, due.oldest_due_at
    FROM hookseal.endpoints AS e
    LEFT JOIN hookseal.held_endpoints AS h
        ON h.tenant_id = e.tenant_id AND h.endpoint_id = e.id AND h.released_at IS NULL
    CROSS JOIN LATERAL (
        SELECT count(*) AS pending, count(left_over.waiting_for) AS waiting,
               min(left_over.next_attempt_at) FILTER (
                   WHERE left_over.waiting_for IS NULL AND left_over.next_attempt_at <= now()) AS oldest_due_at
        FROM (SELECT d.waiting_for, d.next_attempt_at
              FROM hookseal.deliveries AS d
              WHERE d.tenant_id = e.tenant_id AND d.endpoint_id = e.id AND d.state = 'pending'
              LIMIT 10000) AS left_over) AS due;
COMMENT ON VIEW hookseal.endpoint_backlog IS
    'What is left to do for each endpoint, of at most 10,000 pending deliveries: how many are pending, how many of these wait '
    '(waiting_for), and since when the oldest is due. state: disabled, held (a secret is refused, '
    'or the breaker is open), stopped (a delivery that was given up stops its line), failing, healthy';
