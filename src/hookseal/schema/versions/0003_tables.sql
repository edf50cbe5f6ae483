-- Header values, scheduled rotation, evidence of rotations, and what tells that a row was put back (design 1.5).

ALTER TABLE hookseal.endpoints
    ADD COLUMN headers_ref       text,
    ADD COLUMN header_names      text[]  NOT NULL DEFAULT '{}' CHECK (cardinality(header_names) <= 20),
    ADD COLUMN rotate_every_days integer CHECK (rotate_every_days BETWEEN 1 AND 30);
COMMENT ON COLUMN hookseal.endpoints.headers_ref IS
    'The sealed values of the headers that its requests carry beside ours; which ones they are is sealed with them';
COMMENT ON COLUMN hookseal.endpoints.header_names IS
    'The names of those headers, for whoever may not open the values. Nothing is sent by it';
COMMENT ON COLUMN hookseal.endpoints.rotate_every_days IS
    'A worker rotates the secret when it is so old; null: nobody does but an operator';
CREATE INDEX endpoints_rotated_by_schedule ON hookseal.endpoints (secret_updated_at) WHERE rotate_every_days IS NOT NULL;

-- What an endpoint's row is compared with: the generation that the log says it had.
ALTER TABLE hookseal.audit_log
    ADD COLUMN generation bigint GENERATED ALWAYS AS ((after ->> 'generation')::bigint) STORED;
CREATE INDEX audit_log_of_subject ON hookseal.audit_log (tenant_id, subject, generation);
-- What was last told of a subject, however old it is and however much was told of others since.
CREATE INDEX audit_log_last_of_subject ON hookseal.audit_log (tenant_id, subject, sequence);
-- Under which master key a version was sealed, however often its endpoint was changed since.
CREATE INDEX audit_log_key_ids ON hookseal.audit_log (tenant_id, subject, sequence) WHERE after ->> 'key_id' IS NOT NULL;

-- An announcement counts until the schedule is changed: what was announced under another one, or before it was turned
-- off, warned of another rotation.
CREATE FUNCTION hookseal.rotation_announced_at(tenant text, endpoint uuid) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT l.at
      FROM hookseal.audit_log AS l
     WHERE l.tenant_id = $1 AND l.subject = 'endpoint:' || $2 AND l.action = 'secret.rotation_announced'
       AND NOT EXISTS (
           SELECT
             FROM hookseal.audit_log AS s
            WHERE s.tenant_id = $1 AND s.subject = 'endpoint:' || $2 AND s.sequence > l.sequence
              AND s.action = 'endpoint.updated' AND s.after -> 'rotate_every_days' IS NOT NULL)
     ORDER BY l.sequence DESC
     LIMIT 1
$$;

CREATE TABLE hookseal.rotation_canaries (
    tenant_id      text        NOT NULL,
    id             uuid        NOT NULL,
    endpoint_id    uuid        NOT NULL,
    generation     bigint      NOT NULL,
    secret_ref     text        NOT NULL,
    verdict        text        NOT NULL CHECK (verdict IN ('switched', 'not_switched', 'does_not_verify', 'no_answer')),
    status         integer,
    control_status integer,
    detail         text,
    sent_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id)
);
COMMENT ON TABLE hookseal.rotation_canaries IS
    'Requests that were signed with the current secret only, and with a secret that nobody has: whether a receiver has switched';
CREATE INDEX rotation_canaries_of_endpoint ON hookseal.rotation_canaries (tenant_id, endpoint_id, sent_at);

CREATE INDEX secret_records_retired ON hookseal.secret_records (changed_at) WHERE state = 'retired';

ALTER TABLE hookseal.control
    DROP CONSTRAINT control_name_check,
    ADD CONSTRAINT control_name_check CHECK (name IN ('cache', 'outbox', 'notify', 'restore'));
INSERT INTO hookseal.control (name) VALUES ('restore');
COMMENT ON TABLE hookseal.control IS
    'cache: secrets cached under an older epoch are forgotten. outbox: which worker rings. notify: until when publish sends NOTIFY. restore: generations seen under an older epoch are forgotten';
