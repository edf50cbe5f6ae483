-- Reads endpoints for an operator. No statement reads the column `secret`.

-- The columns of a page.
-- name: listed
e.tenant_id, e.id::text AS endpoint_id, {listed_settings}, e.url, e.event_types, e.enabled, e.disabled_reason,
       e.first_failure_at AS failing_since, e.scheme, e.algorithm, e.generation, e.created_at, {updated_at}, {lane}, {lane_since}, {states}

-- What a list shows of its settings, as JSON.
-- name: listed_settings
(SELECT to_jsonb(s)::text
        FROM (SELECT e.name, e.uid, e.description, e.metadata, e.channels, e.concurrency, e.rate, e.ordered, e.on_dead_letter) AS s)
       AS settings

-- All of its settings, as JSON.
-- name: settings
(SELECT to_jsonb(s)::text FROM (SELECT {hookseal.dispatcher.core.endpoint_settings:COLUMNS}) AS s) AS settings

-- When one of its settings was changed last, as far as that is known.
-- name: updated_at
coalesce(e.updated_at, e.created_at) AS updated_at

-- What the lane of an endpoint waits for: null if it is open.
-- name: lane
(SELECT coalesce(h.waiting_for, l.waiting_for)
        FROM (SELECT) AS one
        LEFT JOIN hookseal.held_endpoints AS h
            ON h.tenant_id = e.tenant_id AND h.endpoint_id = e.id AND h.released_at IS NULL
        LEFT JOIN hookseal.lanes AS l ON l.tenant_id = e.tenant_id AND l.endpoint_id = e.id) AS lane

-- Since when it waits for that.
-- name: lane_since
(SELECT coalesce(h.since, l.since)
        FROM (SELECT) AS one
        LEFT JOIN hookseal.held_endpoints AS h
            ON h.tenant_id = e.tenant_id AND h.endpoint_id = e.id AND h.released_at IS NULL
        LEFT JOIN hookseal.lanes AS l ON l.tenant_id = e.tenant_id AND l.endpoint_id = e.id) AS lane_since

-- Its state, since when, the delivery that was given up and stops its line, and the time of its next probe: null where there is
-- none. They are one column, so that the state is looked up once for each endpoint that is returned.
-- name: states
(SELECT ROW(s.state, s.since, s.stopped_by::text, s.probe_at)
        FROM hookseal.endpoint_states AS s WHERE s.tenant_id = e.tenant_id AND s.endpoint_id = e.id) AS states

-- The endpoints of the tenant $1, enabled or not if $2 says so.
-- The comparisons of pairs make the planner use an index that begins with the tenant.
-- name: of_tenant
hookseal.endpoints AS e
WHERE (e.tenant_id, e.id) >= ($1::text, '00000000-0000-0000-0000-000000000000'::uuid)
  AND (e.tenant_id, e.id) <= ($1::text, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
  AND ($2::boolean IS NULL OR e.enabled = $2)

-- The endpoints of every tenant, enabled or not if $2 says so.
-- name: of_all
hookseal.endpoints AS e
WHERE ($1::text IS NULL OR e.tenant_id = $1)
  AND ($2::boolean IS NULL OR e.enabled = $2)

-- Reads a page of the endpoints of a tenant, by falling id, below $3.
-- name: page_of_tenant
SELECT {listed}
FROM {of_tenant}
  AND ($3::text IS NULL OR e.id < $3::text::uuid)
ORDER BY e.tenant_id DESC, e.id DESC
LIMIT $4

-- Reads a page of the endpoints of a tenant, by rising id, above $3.
-- name: page_of_tenant_rising
SELECT {listed}
FROM {of_tenant}
  AND ($3::text IS NULL OR e.id > $3::text::uuid)
ORDER BY e.tenant_id, e.id
LIMIT $4

-- Reads a page of endpoints, by falling id, below $3.
-- name: page
SELECT {listed}
FROM {of_all}
  AND ($3::text IS NULL OR e.id < $3::text::uuid)
ORDER BY e.id DESC
LIMIT $4

-- Reads a page of endpoints, by rising id, above $3.
-- name: page_rising
SELECT {listed}
FROM {of_all}
  AND ($3::text IS NULL OR e.id > $3::text::uuid)
ORDER BY e.id
LIMIT $4

-- Reads a page of the endpoints for which one of the states $2 is true, by falling id, below $3. What is disabled is left out
-- unless that is wanted.
-- name: page_in_states
SELECT {listed}
FROM ({in_states}) AS found
JOIN hookseal.endpoints AS e ON e.tenant_id = found.tenant_id AND e.id = found.id
WHERE ($3::text IS NULL OR e.id < $3::text::uuid) AND (e.enabled OR 'disabled' = ANY ($2::text[]))
ORDER BY e.id DESC
LIMIT $4

-- The statistics of endpoints; each has a row for each period.
-- name: stats
SELECT b.tenant_id, b.endpoint_id::text AS endpoint_id, b.state, b.since AS state_since, b.pending, b.waiting, b.oldest_due_at,
       b.waiting_since,
       s.period, s.attempts, s.delivered, s.success_rate, s.p50_ms, s.p99_ms

-- Of the endpoints `chosen`, by falling id.
-- name: of_chosen
JOIN hookseal.endpoint_backlog AS b ON b.tenant_id = chosen.tenant_id AND b.endpoint_id = chosen.id
JOIN hookseal.endpoint_stats AS s ON s.tenant_id = chosen.tenant_id AND s.endpoint_id = chosen.id
ORDER BY b.endpoint_id DESC, s.period

-- Reads the statistics of $4 endpoints of the tenant $1, or of the one with the id $2, below the id $3.
-- name: stats_of_tenant
{stats}
FROM (SELECT e.tenant_id, e.id
      FROM hookseal.endpoints AS e
      WHERE e.tenant_id = $1 AND ($2::text IS NULL OR e.id = $2::text::uuid) AND ($3::text IS NULL OR e.id < $3::text::uuid)
      ORDER BY e.id DESC
      LIMIT $4) AS chosen
{of_chosen}

-- Reads the statistics of $2 endpoints of every tenant, below the id $1.
-- name: stats_of_all
{stats}
FROM (SELECT e.tenant_id, e.id
      FROM hookseal.endpoints AS e
      WHERE $1::text IS NULL OR e.id < $1::text::uuid
      ORDER BY e.id DESC
      LIMIT $2) AS chosen
{of_chosen}

-- Reads those of the endpoints of a page in states.
-- name: stats_in_states
{stats}
FROM (SELECT e.tenant_id, e.id
      FROM ({in_states}) AS found
      JOIN hookseal.endpoints AS e ON e.tenant_id = found.tenant_id AND e.id = found.id
      WHERE ($3::text IS NULL OR e.id < $3::text::uuid) AND (e.enabled OR 'disabled' = ANY ($2::text[]))
      ORDER BY e.id DESC
      LIMIT $4) AS chosen
{of_chosen}

-- The endpoints of every tenant, or of $1, for which one of the states $2 is true. Each state has an index, of which the first
-- $5 are read.
-- name: in_states
(SELECT h.tenant_id, h.endpoint_id AS id FROM hookseal.held_endpoints AS h
     WHERE 'held' = ANY ($2::text[]) AND h.released_at IS NULL AND ($1::text IS NULL OR h.tenant_id = $1) LIMIT $5)
    UNION
    (SELECT d.tenant_id, d.endpoint_id FROM hookseal.deliveries AS d
     WHERE 'stopped' = ANY ($2::text[]) AND d.position IS NOT NULL AND d.state IN ('dead_letter', 'failed')
       AND ($1::text IS NULL OR d.tenant_id = $1) ORDER BY d.tenant_id, d.endpoint_id LIMIT $5)
    UNION
    (SELECT f.tenant_id, f.id FROM hookseal.endpoints AS f
     WHERE 'failing' = ANY ($2::text[]) AND f.first_failure_at IS NOT NULL AND ($1::text IS NULL OR f.tenant_id = $1) LIMIT $5)
    UNION
    (SELECT f.tenant_id, f.id FROM hookseal.endpoints AS f
     WHERE 'disabled' = ANY ($2::text[]) AND NOT f.enabled AND ($1::text IS NULL OR f.tenant_id = $1) LIMIT $5)
    UNION
    (SELECT r.tenant_id, r.id
     FROM (SELECT s.tenant_id, s.id, s.secret_updated_at, s.rotate_every_days FROM hookseal.endpoints AS s
           WHERE 'rotation_due' = ANY ($2::text[]) AND s.rotate_every_days IS NOT NULL
             AND s.secret_updated_at < now() - interval '1 day'
           ORDER BY s.secret_updated_at LIMIT $5) AS r
     WHERE r.secret_updated_at + make_interval(secs => r.rotate_every_days * 86400) < now()
       AND ($1::text IS NULL OR r.tenant_id = $1))

-- Which endpoint of the tenant $1: that with the id $2 or, if that is null, with the uid $3.
-- name: named
e.tenant_id = $1 AND (e.id = $2::text::uuid OR e.uid = $3)

-- Reads one endpoint as a page does.
-- name: find
SELECT {listed}
FROM hookseal.endpoints AS e
WHERE {named}

-- Reads some endpoints of a tenant as a page does.
-- name: some
SELECT {listed}
FROM hookseal.endpoints AS e
WHERE e.tenant_id = $1 AND e.id = ANY ($2::text[]::uuid[])

-- Reads one endpoint, how many of its deliveries are pending and held, up to 10,000, and the time of its next probe.
-- The comparisons and the order make the planner find each reason to wait by its index, whatever waits.
-- name: show
SELECT e.tenant_id, e.id::text AS endpoint_id, e.url, e.event_types, e.enabled, e.disabled_reason, e.disabled_at,
       e.last_disabled_reason, e.last_disabled_at,
       e.first_failure_at AS failing_since, e.scheme, e.algorithm, {settings}, e.attempts_allowed,
       e.secret_ref, e.previous_secret_ref, e.previous_secret_expires_at, e.previous_scheme, e.previous_algorithm,
       e.secret_provider, e.secret_updated_at, e.header_names, e.headers_ref,
       e.tls_shown::text AS tls, e.tls_ref, e.lead,
       e.generation, e.has_plaintext, e.created_at, {updated_at},
       (SELECT coalesce(e.generation <> max(l.generation), e.mac IS NOT NULL) FROM hookseal.audit_log AS l
        WHERE l.tenant_id = e.tenant_id AND l.subject = 'endpoint:' || e.id) AS stale,
       b.pending AS pending_deliveries, b.waiting AS waiting_deliveries, b.waiting_since,
       (SELECT coalesce(array_agg(w.waiting_for), '{}')
        FROM unnest(ARRAY['breaker', 'concurrency', 'endpoint_disabled', 'order', 'rate', 'secret']) AS w (waiting_for)
        CROSS JOIN LATERAL (
            SELECT FROM hookseal.deliveries AS d
            WHERE d.waiting_for IS NOT NULL
              AND (d.tenant_id, d.endpoint_id, d.waiting_for, d.id)
                  >= (e.tenant_id, e.id, w.waiting_for, '00000000-0000-0000-0000-000000000000'::uuid)
              AND (d.tenant_id, d.endpoint_id, d.waiting_for, d.id)
                  <= (e.tenant_id, e.id, w.waiting_for, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
            ORDER BY d.tenant_id, d.endpoint_id, d.waiting_for, d.id
            LIMIT 1) AS one) AS waiting_for,
       {lane}, {lane_since}, {states}
FROM hookseal.endpoints AS e
CROSS JOIN LATERAL (
    SELECT b.pending, b.waiting, b.waiting_since
    FROM hookseal.endpoint_backlog AS b
    WHERE b.tenant_id = e.tenant_id AND b.endpoint_id = e.id
    LIMIT 1) AS b
WHERE {named}

-- Returns the last failed attempt among the newest thousand deliveries of an endpoint. The comparisons of pairs, and `OFFSET 0`,
-- make the planner find these by the endpoint, and their attempts by their deliveries, whatever else there is.
-- name: last_failure
SELECT l.id::text AS delivery_id, l.event_id, a.started_at, a.outcome, a.status
FROM (SELECT n.tenant_id, n.id, n.event_id
      FROM hookseal.delivery_links AS n
      WHERE (n.endpoint_id, n.id) >= ($2::text::uuid, '00000000-0000-0000-0000-000000000000'::uuid)
        AND (n.endpoint_id, n.id) <= ($2::text::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid) AND n.tenant_id = $1
      ORDER BY n.endpoint_id DESC, n.id DESC
      LIMIT 1000) AS l
CROSS JOIN LATERAL (
    SELECT f.started_at, f.outcome, f.status
    FROM hookseal.attempts AS f
    WHERE f.tenant_id = l.tenant_id AND f.delivery_id = l.id AND f.outcome <> 'delivered'
    OFFSET 0) AS a
ORDER BY a.started_at DESC
LIMIT 1
