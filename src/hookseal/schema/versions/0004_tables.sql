-- The life of master keys, which of them a secret was ever sealed under, and the end of plaintext (design 1.3, 1.5).

ALTER TABLE hookseal.secret_keys
    ADD COLUMN promoted_at    timestamptz,
    ADD COLUMN drained_at     timestamptz,
    ADD COLUMN compromised_at timestamptz,
    ADD COLUMN retired_at     timestamptz,
    ADD COLUMN destroyed_at   timestamptz;
COMMENT ON COLUMN hookseal.secret_keys.drained_at IS
    'When a re-wrap left no record under this key: one that is there later was put back';
UPDATE hookseal.secret_keys SET promoted_at = created_at WHERE state = 'active';

ALTER TABLE hookseal.secret_records ADD COLUMN wrapped_by text[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN hookseal.secret_records.wrapped_by IS
    'Every master key that it was ever sealed under, oldest first: what a key that leaked may have given away';
UPDATE hookseal.secret_records SET wrapped_by = ARRAY[key_id] WHERE key_id IS NOT NULL;
-- In the order in which a re-wrap goes through the records of a key.
DROP INDEX hookseal.secret_records_of_key;
CREATE INDEX secret_records_of_key ON hookseal.secret_records (key_id, tenant_id, name, version);

-- From which key to which records were re-wrapped: every batch has a row.
CREATE INDEX audit_log_rewraps ON hookseal.audit_log (subject, (after ->> 'to'))
    WHERE tenant_id = '_system' AND action = 'key.rewrapped';

CREATE FUNCTION hookseal.was_rewrapped(from_key text, to_key text) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH RECURSIVE reached (key_id) AS (
        SELECT $1
         UNION
        SELECT k.key_id
          FROM reached AS r
          JOIN hookseal.secret_keys AS k
            ON EXISTS (SELECT
                         FROM hookseal.audit_log AS l
                        WHERE l.tenant_id = '_system' AND l.action = 'key.rewrapped'
                          AND l.subject = 'key:' || r.key_id AND l.after ->> 'to' = k.key_id)
    )
    SELECT EXISTS (SELECT FROM reached WHERE key_id = $2)
$$;
COMMENT ON FUNCTION hookseal.was_rewrapped(text, text) IS
    'Whether a record that was sealed under the one key may be under the other by now, as the audit log tells of batches';

-- Who may empty the column of the plaintext may not alter the table; this is all that they may alter of it.
CREATE FUNCTION hookseal.forbid_plaintext() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_constraint
                    WHERE conrelid = 'hookseal.endpoints'::regclass AND conname = 'endpoints_no_plaintext') THEN
        ALTER TABLE hookseal.endpoints ADD CONSTRAINT endpoints_no_plaintext CHECK (secret IS NULL);
    END IF;
END
$$;
COMMENT ON FUNCTION hookseal.forbid_plaintext() IS
    'From now on no endpoint has a secret in the clear; fails while one has. `hookseal db upgrade` then removes the column';
