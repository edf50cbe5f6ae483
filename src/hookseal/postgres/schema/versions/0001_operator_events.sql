-- Operator events: what happens to endpoints, published for the operator.
--
-- The endpoints of the tenant `_operator` belong to the operator. Triggers publish to them when an endpoint is disabled,
-- fails, recovers or gets another secret, before its secret is rotated by schedule, and when a delivery has spent all its
-- attempts. The event is stored in the transaction of the change: it exists if, and only if, the change does. While no
-- endpoint of `_operator` subscribes, nothing is stored.
--
-- What happens to the operator's own endpoints is only logged. An event about it would cause the next one.

-- When an event of a kind was last published about an endpoint.
CREATE TABLE hookseal.operator_notices (
    tenant_id   text        NOT NULL,
    endpoint_id uuid        NOT NULL,
    kind        text        NOT NULL,
    last_at     timestamptz NOT NULL DEFAULT now(),
    suppressed  integer     NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, endpoint_id, kind)
);
COMMENT ON COLUMN hookseal.operator_notices.suppressed IS
    'How many further events were not published since then: at most one of a kind is published about an endpoint in ten minutes';

-- Publishes an event for the operator, at most one of a kind about an endpoint in ten minutes. It waits for no other
-- transaction that publishes about the same endpoint, and it never fails: else the outcome of an attempt would be lost.
CREATE FUNCTION hookseal.notify_operator(kind text, tenant text, endpoint uuid, details jsonb) RETURNS void
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
        NULL, NULL, NULL, NULL, NULL)::hookseal.given_event, date_trunc('milliseconds', clock_timestamp())));
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'hookseal did not publish the operator event %: %', $1, SQLERRM;
END
$$;

-- Publishes an event about the endpoint whose row was changed. Its url is given without query and fragment.
CREATE FUNCTION hookseal.report_endpoint() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    details jsonb := jsonb_build_object('name', NEW.name, 'url', substring(NEW.url FROM '^[^?#]*'));
BEGIN
    PERFORM hookseal.notify_operator(TG_ARGV[0], NEW.tenant_id, NEW.id, details || CASE TG_ARGV[0]
        WHEN 'endpoint.disabled' THEN jsonb_build_object('reason', NEW.disabled_reason)
        WHEN 'endpoint.failing' THEN jsonb_build_object('failing_since', NEW.first_failure_at)
        WHEN 'endpoint.recovered' THEN jsonb_build_object('failing_since', OLD.first_failure_at)
        ELSE jsonb_build_object(
            'secret_ref', NEW.secret_ref, 'previous_secret_ref', NEW.previous_secret_ref,
            'previous_secret_expires_at', NEW.previous_secret_expires_at, 'generation', NEW.generation)
        END);
    RETURN NULL;
END
$$;

-- Publishes that a delivery has spent all its attempts.
CREATE FUNCTION hookseal.report_exhausted() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF OLD.state = 'dead_letter' THEN
        RETURN NULL;
    END IF;
    PERFORM hookseal.notify_operator('message.attempt.exhausted', NEW.tenant_id, NEW.endpoint_id, jsonb_build_object(
        'delivery_id', NEW.id, 'event_id', NEW.event_id, 'attempts', NEW.attempts));
    RETURN NULL;
END
$$;

-- Publishes that the secret of an endpoint will be rotated by schedule.
CREATE FUNCTION hookseal.report_expiring() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM hookseal.notify_operator(
        'secret.expiring', NEW.tenant_id, split_part(NEW.subject, ':', 2)::uuid, NEW.after::jsonb);
    RETURN NULL;
END
$$;

-- Forgets what was published about an endpoint that is deleted.
CREATE FUNCTION hookseal.forget_notices() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM hookseal.operator_notices AS n WHERE n.tenant_id = OLD.tenant_id AND n.endpoint_id = OLD.id;
    RETURN NULL;
END
$$;

CREATE TRIGGER endpoints_disabled AFTER UPDATE OF enabled ON hookseal.endpoints
    FOR EACH ROW WHEN (OLD.enabled AND NOT NEW.enabled)
    EXECUTE FUNCTION hookseal.report_endpoint('endpoint.disabled');
CREATE TRIGGER endpoints_failing AFTER UPDATE OF first_failure_at ON hookseal.endpoints
    FOR EACH ROW WHEN (OLD.first_failure_at IS NULL AND NEW.first_failure_at IS NOT NULL)
    EXECUTE FUNCTION hookseal.report_endpoint('endpoint.failing');
-- An operator who enables the endpoint, or changes its url, does not fire it: PostgreSQL fires `UPDATE OF` by the columns
-- that the statement names, and there the trigger endpoints_begin_anew clears the time.
CREATE TRIGGER endpoints_recovered AFTER UPDATE OF first_failure_at ON hookseal.endpoints
    FOR EACH ROW WHEN (OLD.first_failure_at IS NOT NULL AND NEW.first_failure_at IS NULL)
    EXECUTE FUNCTION hookseal.report_endpoint('endpoint.recovered');
CREATE TRIGGER endpoints_rotated AFTER UPDATE OF secret_ref ON hookseal.endpoints
    FOR EACH ROW WHEN (OLD.secret_ref <> NEW.secret_ref)
    EXECUTE FUNCTION hookseal.report_endpoint('secret.rotated');
CREATE TRIGGER endpoints_forgotten AFTER DELETE ON hookseal.endpoints
    FOR EACH ROW EXECUTE FUNCTION hookseal.forget_notices();
CREATE TRIGGER deliveries_exhausted AFTER UPDATE OF state ON hookseal.deliveries
    FOR EACH ROW WHEN (NEW.state = 'dead_letter')
    EXECUTE FUNCTION hookseal.report_exhausted();
CREATE TRIGGER audit_log_announced AFTER INSERT ON hookseal.audit_log
    FOR EACH ROW WHEN (NEW.action = 'secret.rotation_announced')
    EXECUTE FUNCTION hookseal.report_expiring();
