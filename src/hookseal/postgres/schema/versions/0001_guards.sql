-- What a right to a column is too coarse for: triggers that refuse the changes that a role may not make, although it may
-- write the columns.
--
-- A trigger asks for a right that only the roles have which may make any change. So the grants in 0001_rights.sql decide
-- here as well, and no trigger names a role. The functions run with the rights of the role that writes.

-- Refuses what only an operator changes of an endpoint to a role that may not write its url, as that of the workers.
-- Such a role may disable an endpoint, rotate its secret with an overlap of a day or longer if none is running, and remove the
-- previous secret after its overlap: what workers do by themselves.
CREATE FUNCTION hookseal.guard_endpoint() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    disables boolean := OLD.enabled AND NOT NEW.enabled;
    same_secret boolean := NEW.secret_ref IS NOT DISTINCT FROM OLD.secret_ref;
    overlap_is_over boolean := coalesce(OLD.previous_secret_expires_at <= now(), true);
BEGIN
    IF has_column_privilege(TG_RELID, 'url', 'UPDATE') THEN
        RETURN NEW;
    END IF;
    IF NOT disables
       AND (NEW.enabled, NEW.disabled_reason, NEW.disabled_at)
           IS DISTINCT FROM (OLD.enabled, OLD.disabled_reason, OLD.disabled_at)
    THEN
        RAISE EXCEPTION 'only an operator may enable an endpoint' USING ERRCODE = '42501';
    END IF;
    IF (NEW.secret_ref, NEW.previous_secret_ref, NEW.previous_secret_expires_at, NEW.previous_scheme, NEW.previous_algorithm,
        NEW.secret_provider, NEW.secret_updated_at, NEW.generation, NEW.mac, NEW.mac_key_id)
       IS DISTINCT FROM
       (OLD.secret_ref, OLD.previous_secret_ref, OLD.previous_secret_expires_at, OLD.previous_scheme, OLD.previous_algorithm,
        OLD.secret_provider, OLD.secret_updated_at, OLD.generation, OLD.mac, OLD.mac_key_id)
       AND NOT coalesce(
           NEW.generation = OLD.generation + 1 AND overlap_is_over
           AND CASE WHEN same_secret
                    THEN OLD.previous_secret_ref IS NOT NULL AND NEW.previous_secret_ref IS NULL
                         AND NEW.secret_updated_at IS NOT DISTINCT FROM OLD.secret_updated_at
                    ELSE NEW.previous_secret_ref = OLD.secret_ref
                         AND NEW.previous_scheme = OLD.scheme AND NEW.previous_algorithm = OLD.algorithm
                         AND NEW.previous_secret_expires_at >= now() + interval '24 hours'
                         AND split_part(NEW.secret_ref, ':', 2) = split_part(OLD.secret_ref, ':', 2)
                         AND split_part(NEW.secret_ref, ':', 3) = split_part(OLD.secret_ref, ':', 3)
                         AND split_part(NEW.secret_ref, ':', 4)::bigint > split_part(OLD.secret_ref, ':', 4)::bigint
               END, false)
    THEN
        RAISE EXCEPTION 'only an operator may move the pointer of an endpoint otherwise than a rotation by schedule does'
            USING ERRCODE = '42501';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER endpoints_guarded
    BEFORE UPDATE OF enabled, disabled_reason, disabled_at, secret_ref, previous_secret_ref, previous_secret_expires_at,
                     previous_scheme, previous_algorithm, secret_provider, secret_updated_at, generation, mac, mac_key_id
    ON hookseal.endpoints
    FOR EACH ROW EXECUTE FUNCTION hookseal.guard_endpoint();

-- Refuses to a role that may not write the provider of a version, as that of the workers, what only an operator does: to add
-- or change the installation's own secrets, to replace material, to destroy what was not retired for a day at least, to give
-- a state back, and to write a time that is not now.
CREATE FUNCTION hookseal.guard_record() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    states text[] := ARRAY['active', 'previous', 'retired', 'destroyed'];
BEGIN
    IF has_column_privilege(TG_RELID, 'provider', 'UPDATE') THEN
        RETURN NEW;
    END IF;
    IF NEW.tenant_id = '_system' THEN
        RAISE EXCEPTION 'only an operator may write the secrets of the installation' USING ERRCODE = '42501';
    END IF;
    IF TG_OP = 'INSERT' THEN
        RETURN NEW;
    END IF;
    IF NEW.changed_at NOT IN (OLD.changed_at, now())
       OR array_position(states, NEW.state) < array_position(states, OLD.state)
       OR NEW.state <> 'destroyed' AND (NEW.sealed, NEW.share) IS DISTINCT FROM (OLD.sealed, OLD.share)
       OR NEW.state = 'destroyed' AND OLD.state <> 'destroyed'
          AND NOT (OLD.state = 'retired' AND OLD.changed_at < now() - interval '1 day')
    THEN
        RAISE EXCEPTION 'only an operator may replace or destroy the material of a version that was not retired long ago'
            USING ERRCODE = '42501';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER secret_records_guarded BEFORE INSERT OR UPDATE ON hookseal.secret_records
    FOR EACH ROW EXECUTE FUNCTION hookseal.guard_record();

-- Refuses a change that only the owner of the table may make.
CREATE FUNCTION hookseal.guard_owned() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT has_table_privilege(TG_RELID, 'TRUNCATE') THEN
        RAISE EXCEPTION 'only the owner of % may do that', TG_TABLE_NAME USING ERRCODE = '42501';
    END IF;
    RETURN NEW;
END
$$;
-- The actor of an audit row begins with the role that logged in, so that no login can act under the name of another.
CREATE TRIGGER audit_log_names_login BEFORE INSERT ON hookseal.audit_log
    FOR EACH ROW WHEN (NOT starts_with(NEW.actor, session_user || '/'))
    EXECUTE FUNCTION hookseal.guard_owned();
-- The id of the installation marks what it keeps at providers.
CREATE TRIGGER control_keeps_installation BEFORE UPDATE ON hookseal.control
    FOR EACH ROW WHEN (OLD.name = 'installation')
    EXECUTE FUNCTION hookseal.guard_owned();
