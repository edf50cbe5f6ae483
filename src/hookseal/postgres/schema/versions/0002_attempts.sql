-- Attempts are found by their endpoint, it is known which ones an operator caused, and an outcome that a constraint or a
-- trigger of others refuses is kept.
--
-- Each column is added without a rewrite of its table: null for every row that exists. New attempts have the endpoint. The
-- leader of the outbox fills it in for the others, those of before the upgrade and those of workers that still run the version
-- before, newest first and batch after batch; until then a list by endpoint does not have them.

ALTER TABLE hookseal.attempts ADD COLUMN endpoint_id uuid;
COMMENT ON COLUMN hookseal.attempts.endpoint_id IS
    'The endpoint of its delivery, by which it is found; null until the leader has filled it in, for one of before revision 0002';
-- The attempts of an endpoint, newest first; and those without one.
CREATE INDEX attempts_of_endpoint ON hookseal.attempts (endpoint_id, started_at);

-- On `deliveries`, since only a replay writes it: an attempt costs nothing more for it.
ALTER TABLE hookseal.deliveries ADD COLUMN manual_attempts integer[];
COMMENT ON COLUMN hookseal.deliveries.manual_attempts IS
    'The numbers of the attempts that an operator caused, the last hundred; null: none. The others, by publish and by schedule';

-- Fills in the endpoint of up to 500 attempts that have none. Returns how many it wrote. It waits for no lock.
-- The order by both columns makes the planner use the index. Other joins are off, since a plan that was made for a small table
-- would read all of a large one.
CREATE FUNCTION hookseal.fill_attempts() RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
    WITH old AS MATERIALIZED (
        SELECT a.tenant_id, a.delivery_id, a.number
        FROM hookseal.attempts AS a
        WHERE a.endpoint_id IS NULL
        ORDER BY a.endpoint_id DESC, a.started_at DESC
        LIMIT 500
        FOR UPDATE SKIP LOCKED
    ), filled AS (
        UPDATE hookseal.attempts AS a
        SET endpoint_id = l.endpoint_id
        FROM old
        JOIN hookseal.delivery_links AS l ON l.tenant_id = old.tenant_id AND l.id = old.delivery_id
        WHERE a.tenant_id = old.tenant_id AND a.delivery_id = old.delivery_id AND a.number = old.number
        RETURNING 1
    )
    SELECT count(*) FROM filled
$$;
COMMENT ON FUNCTION hookseal.fill_attempts() IS
    'Writes the endpoint of up to 500 attempts that have none, as their delivery says';

REVOKE EXECUTE ON FUNCTION hookseal.fill_attempts() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION hookseal.fill_attempts() TO hookseal_worker;
GRANT INSERT (manual_attempts), UPDATE (manual_attempts) ON hookseal.deliveries TO hookseal_operator;
GRANT UPDATE (manual_attempts) ON hookseal.deliveries TO hookseal_worker;  -- it executes replay jobs

-- Outcomes that a constraint or a trigger on `deliveries` or `attempts` refused, which is not one of ours: each is kept here,
-- with all that its record needs, and its delivery stays in `sending` under its lease token, so that it is not sent again.
-- To keep one writes no other table. Workers try to record them again with each sweep, and delete those that are recorded.
CREATE TABLE hookseal.refused_outcomes (
    tenant_id        text             NOT NULL,
    delivery_id      uuid             NOT NULL,
    lease_token      uuid             NOT NULL,
    state            text             NOT NULL,
    error            text,
    retry_in_seconds double precision NOT NULL,
    disable          text,
    duration_ms      integer,
    status           integer,
    outcome          text             NOT NULL,
    snippet          text,
    signed_by        text[]           NOT NULL,
    worker           text             NOT NULL,
    is_probe         boolean          NOT NULL,
    is_untroubled    boolean          NOT NULL,
    was_held         boolean          NOT NULL,
    reason           text             NOT NULL,
    refused_at       timestamptz      NOT NULL DEFAULT now(),
    tried_at         timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, delivery_id, lease_token)
);
COMMENT ON TABLE hookseal.refused_outcomes IS
    'Outcomes of requests that a constraint or a trigger of others on deliveries or attempts refused: they are recorded once it lets them';
COMMENT ON COLUMN hookseal.refused_outcomes.lease_token IS
    'The lease of the delivery, which no sweep ends while the outcome is here; without that lease the outcome is deleted';
COMMENT ON COLUMN hookseal.refused_outcomes.reason IS 'What refused it: the error, the table, the constraint or the function';
COMMENT ON COLUMN hookseal.refused_outcomes.tried_at IS 'When it was last tried to record it';
CREATE INDEX refused_outcomes_by_try ON hookseal.refused_outcomes (tried_at);

GRANT SELECT, DELETE, UPDATE (tried_at, reason),
      INSERT (tenant_id, delivery_id, lease_token, state, error, retry_in_seconds, disable, duration_ms, status, outcome, snippet,
              signed_by, worker, is_probe, is_untroubled, was_held, reason)
    ON hookseal.refused_outcomes TO hookseal_worker;
GRANT SELECT ON hookseal.refused_outcomes TO hookseal_operator, hookseal_readonly;
