-- A plaintext secret is refused by a domain, and no longer by a check of the table: when a check of a table fails, PostgreSQL
-- prints the whole row, the secret included, to the client and into its log. The value of a generated column must meet its
-- domain before the checks of the table are looked at, and that error prints no row.

CREATE DOMAIN hookseal.plaintext_flag AS boolean;
COMMENT ON DOMAIN hookseal.plaintext_flag IS 'Whether an endpoint has a plaintext secret; once that is forbidden, it may not be true';
ALTER TABLE hookseal.endpoints ALTER COLUMN has_plaintext TYPE hookseal.plaintext_flag;  -- rewrites nothing

-- As in 0001_secrets.sql, by the domain. The lock waits for every writer, so that the look at the rows misses none.
CREATE OR REPLACE FUNCTION hookseal.forbid_plaintext() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    LOCK TABLE hookseal.endpoints IN ACCESS EXCLUSIVE MODE;
    IF NOT EXISTS (SELECT FROM pg_constraint
                    WHERE contypid = 'hookseal.plaintext_flag'::regtype AND conname = 'endpoints_no_plaintext') THEN
        ALTER DOMAIN hookseal.plaintext_flag ADD CONSTRAINT endpoints_no_plaintext CHECK (NOT VALUE);
    END IF;
END
$$;

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_constraint
                WHERE conrelid = 'hookseal.endpoints'::regclass
                  AND conname IN ('endpoints_no_plaintext', 'endpoints_has_no_plaintext')) THEN
        ALTER TABLE hookseal.endpoints DROP CONSTRAINT IF EXISTS endpoints_no_plaintext;
        PERFORM hookseal.forbid_plaintext();
    END IF;
END
$$;
