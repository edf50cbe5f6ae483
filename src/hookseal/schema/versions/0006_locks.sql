-- Locks, publish rights and bounds that only our own roles may touch.

-- An advisory lock can be taken, and kept, by every role that may log in.
CREATE TABLE hookseal.key_lock ();
COMMENT ON TABLE hookseal.key_lock IS
    'Always empty. Who seals locks it in ROW EXCLUSIVE MODE, who changes the table of master keys in SHARE ROW EXCLUSIVE MODE';

-- A role that was dropped and made again under its name is another one, which nobody granted anything. As a regrole the
-- column is dumped by name, so that a restore to another server, where roles have other numbers, keeps the grants.
ALTER TABLE hookseal.producers ADD COLUMN role regrole;
COMMENT ON COLUMN hookseal.producers.role IS
    'The role itself: without it, or if another has the name now, the row gives no right until it is granted again';
UPDATE hookseal.producers AS p
   SET role = r.oid
  FROM pg_roles AS r
 WHERE r.rolname = p.role_name;

CREATE OR REPLACE FUNCTION hookseal.may_publish(tenant text) RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_has_role(session_user, (SELECT nspowner FROM pg_namespace WHERE nspname = 'hookseal'), 'MEMBER')
        OR EXISTS (
            SELECT FROM hookseal.producers AS p JOIN pg_roles AS r ON r.rolname = p.role_name AND r.oid = p.role
            WHERE p.tenant_id IN (tenant, '*') AND pg_has_role(session_user, r.oid, 'MEMBER'))
$$;

-- An epoch that none is above would stop every command that moves it. One that is there by now is put where it would be
-- without: workers obey a lower one as well, once it was read two seconds later.
UPDATE hookseal.control
   SET epoch = CASE name WHEN 'restore' THEN floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint ELSE 1 END
 WHERE epoch NOT BETWEEN 0 AND 1000000000000000;
ALTER TABLE hookseal.control
    ADD CONSTRAINT control_epoch_check CHECK (epoch BETWEEN 0 AND 1000000000000000);

CREATE OR REPLACE FUNCTION hookseal.move_cache_epoch() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF EXISTS (SELECT FROM changed WHERE state = ANY (TG_ARGV)) THEN
        UPDATE hookseal.control SET epoch = epoch % 1000000000000000 + 1 WHERE name = 'cache';
    END IF;
    RETURN NULL;
END
$$;
