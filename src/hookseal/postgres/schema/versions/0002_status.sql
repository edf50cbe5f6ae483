-- What `hookseal status` reads beside the deliveries: what each worker uses and what limits it, and which endpoints are in trouble.
--
-- A delivery writes none of this. A worker writes the columns with its heartbeat; the rights to the tables have them.

ALTER TABLE hookseal.workers
    ADD COLUMN requests               integer,
    ADD COLUMN most_requests          integer,
    ADD COLUMN bytes                  bigint,
    ADD COLUMN most_bytes             bigint,
    ADD COLUMN connections            integer,
    ADD COLUMN most_connections       integer,
    ADD COLUMN batch_connections      integer,
    ADD COLUMN most_batch_connections integer,
    ADD COLUMN limited_by             text[],
    ADD COLUMN draining_since         timestamptz;
COMMENT ON COLUMN hookseal.workers.requests IS
    'Requests in flight at the last heartbeat, and in most_requests how many there may be. Null: the worker is of a version that does not say it';
COMMENT ON COLUMN hookseal.workers.bytes IS
    'Bytes of the bodies in flight, and in most_bytes how many there may be';
COMMENT ON COLUMN hookseal.workers.connections IS
    'Connections to PostgreSQL in use, and in most_connections how many it has; those that claim and record are apart';
COMMENT ON COLUMN hookseal.workers.batch_connections IS
    'Connections in use that claim and record, and in most_batch_connections how many it has';
COMMENT ON COLUMN hookseal.workers.limited_by IS
    'What limited it in the seconds before the last heartbeat: requests, bytes, postgresql, redis, cpu, as hookseal_saturated_seconds_total has it';

COMMENT ON COLUMN hookseal.workers.draining_since IS
    'Since when it drains: it ends within drain_seconds. Null: it does not, or is of a version that does not say it';

-- Endpoints that are held for a secret, or for a breaker, those first that have been for longest.
CREATE INDEX held_endpoints_by_age ON hookseal.held_endpoints (waiting_for, since) WHERE released_at IS NULL;
CREATE INDEX lanes_by_age ON hookseal.lanes (since);
-- Secrets that stop to sign soon.
CREATE INDEX endpoints_overlapping ON hookseal.endpoints (previous_secret_expires_at) WHERE previous_secret_ref IS NOT NULL;

-- The state of each endpoint, and since when: what `endpoint list`, `endpoint stats`, `status` and the view of the backlog say.
-- What was given up and stops a line is its head: only the head is claimed, and what else ends leaves the line. A condition
-- for the state beside the order would read the whole line wherever many deliveries were given up.
CREATE VIEW hookseal.endpoint_states AS
    SELECT e.tenant_id, e.id AS endpoint_id,
           CASE WHEN NOT e.enabled THEN 'disabled' WHEN h.endpoint_id IS NOT NULL THEN 'held'
                WHEN stopping.id IS NOT NULL THEN 'stopped' WHEN e.first_failure_at IS NOT NULL THEN 'failing'
                ELSE 'healthy' END AS state,
           CASE WHEN NOT e.enabled THEN e.disabled_at WHEN h.endpoint_id IS NOT NULL THEN h.since
                WHEN stopping.id IS NOT NULL THEN stopping.finished_at ELSE e.first_failure_at END AS since,
           stopping.id AS stopped_by, h.waiting_for AS held_for, h.reason AS held_reason, h.probe_at, h.since AS held_since
    FROM hookseal.endpoints AS e
    LEFT JOIN hookseal.held_endpoints AS h
        ON h.tenant_id = e.tenant_id AND h.endpoint_id = e.id AND h.released_at IS NULL
    LEFT JOIN LATERAL (
        SELECT head.id, head.finished_at
        FROM (SELECT d.id, d.state, d.finished_at
              FROM hookseal.deliveries AS d
              WHERE d.tenant_id = e.tenant_id AND d.endpoint_id = e.id AND d.position IS NOT NULL
              ORDER BY d.position, d.id
              LIMIT 1) AS head
        WHERE head.state IN ('dead_letter', 'failed')) AS stopping ON true;
COMMENT ON VIEW hookseal.endpoint_states IS
    'The first that is true of each endpoint, and since when: disabled, held (a secret is refused, or the breaker is open), '
    'stopped (stopped_by, a delivery that was given up, stops its line), failing; healthy since null';

-- What is held has waited since the endpoint is held, or since its publish: a probe that fails is held anew.
CREATE OR REPLACE VIEW hookseal.endpoint_backlog AS
    SELECT s.tenant_id, s.endpoint_id, s.state, due.pending, due.waiting, due.oldest_due_at, s.since, due.waiting_since
    FROM hookseal.endpoint_states AS s
    CROSS JOIN LATERAL (
        SELECT count(*) AS pending, count(left_over.waiting_for) AS waiting,
               min(left_over.next_attempt_at) FILTER (
                   WHERE left_over.waiting_for IS NULL AND left_over.next_attempt_at <= now()) AS oldest_due_at,
               min(CASE WHEN left_over.waiting_for = s.held_for THEN greatest(s.held_since, left_over.created_at)
                        ELSE left_over.held_at END) AS waiting_since
        FROM (SELECT d.waiting_for, d.next_attempt_at, d.held_at, d.created_at
              FROM hookseal.deliveries AS d
              WHERE d.tenant_id = s.tenant_id AND d.endpoint_id = s.endpoint_id AND d.state = 'pending'
              LIMIT 10000) AS left_over) AS due;
COMMENT ON VIEW hookseal.endpoint_backlog IS
    'What is left to do for each endpoint, of at most 10,000 pending deliveries: how many are pending, how many of these wait '
    '(waiting_for), and since when the oldest is due or waits; and the state of endpoint_states';

GRANT SELECT ON hookseal.endpoint_states TO hookseal_worker, hookseal_operator, hookseal_readonly;
