-- The roles of a process that serves the HTTP API: it manages tenants, endpoints, tokens and deliveries.
--
--   hookseal_api            manages what belongs to tenants. It opens no secret of a tenant, and changes no master key and no
--                           producer
--   hookseal_reveal         may open them, too: to reveal a secret, to send a ping, to change one of several headers
--   hookseal_api_publisher  of a process without a master key: it reads, and writes nothing. `hookseal producer grant` lets it
--                           publish
--
-- It needs the installation's own secrets, for the MACs of endpoints and of the audit log. A column cannot be granted for some
-- rows only, so it reads those by a function.

-- Returns the installation's own secrets, sealed.
CREATE FUNCTION hookseal.own_secrets() RETURNS SETOF hookseal.secret_records
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT r.* FROM hookseal.secret_records AS r WHERE r.tenant_id = '_system'
$$;
REVOKE EXECUTE ON FUNCTION hookseal.own_secrets() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION hookseal.own_secrets() TO hookseal_worker, hookseal_operator, hookseal_api;

-- The same as in 0001_guards.sql, but a role that may move any pointer may also give a version its state back, as a roll back
-- does; never that of a destroyed one.
CREATE OR REPLACE FUNCTION hookseal.guard_record() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    states text[] := ARRAY['active', 'previous', 'retired', 'destroyed'];
    moves_pointers boolean := has_column_privilege('hookseal.endpoints', 'url', 'UPDATE');
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
          AND (OLD.state = 'destroyed' OR NOT moves_pointers)
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

-- What it reads.
GRANT USAGE ON SCHEMA hookseal TO hookseal_api, hookseal_api_publisher, hookseal_reveal;
GRANT SELECT ON hookseal.alembic_version, hookseal.control, hookseal.workers, hookseal.deliveries, hookseal.delivery_links,
                hookseal.attempts, hookseal.operator_notices, hookseal.secret_rotations, hookseal.audit_log,
                hookseal.audit_heads, hookseal.held_endpoints, hookseal.lanes, hookseal.lines, hookseal.replays,
                hookseal.rotation_canaries, hookseal.endpoint_stats, hookseal.endpoint_states, hookseal.endpoint_backlog,
                hookseal.audience, hookseal.tenants, hookseal.event_types, hookseal.api_tokens, hookseal.token_keys, hookseal.endpoint_urls
    TO hookseal_api, hookseal_api_publisher;
GRANT SELECT ON hookseal.secret_keys TO hookseal_api;
GRANT SELECT (tenant_id, id, event_type, channels, occurred_at, correlation_id, traceparent, tracestate)
    ON hookseal.events TO hookseal_api, hookseal_api_publisher;
GRANT SELECT (body) ON hookseal.events TO hookseal_api;
GRANT SELECT (tenant_id, id, uid, name, description, metadata, url, shares_url, url_since, event_types, channels, enabled, disabled_reason, disabled_at, last_disabled_reason,
              last_disabled_at, first_failure_at, last_failure_at, scheme, algorithm, timeout_ms,
              max_attempts, backoff_base_seconds, backoff_cap_seconds, retry_schedule, attempts_allowed, concurrency, rate,
              ordered, on_dead_letter,
              secret_ref, previous_secret_ref, previous_secret_expires_at, previous_scheme, previous_algorithm,
              secret_provider, secret_updated_at, rotate_every_days, lead, headers_ref, header_names, tls_ref, tls_shown,
              generation, mac, mac_key_id, has_plaintext, created_at, updated_at)
    ON hookseal.endpoints TO hookseal_api, hookseal_api_publisher;
GRANT SELECT (tenant_id, name, version, ref, endpoint_id, provider, purpose, scheme, key_id, wrapped_by, state,
              created_at, changed_at)
    ON hookseal.secret_records TO hookseal_api, hookseal_api_publisher;
GRANT SELECT (tenant_id, name, version, provider, why, since)
    ON hookseal.secret_leftovers TO hookseal_api, hookseal_api_publisher;
GRANT SELECT (key_id, created_at, state, promoted_at, drained_at, compromised_at, retired_at, destroyed_at)
    ON hookseal.secret_keys TO hookseal_api_publisher;
GRANT SELECT (sealed, share) ON hookseal.secret_records TO hookseal_reveal;

-- What it writes: of tenants, endpoints, deliveries and tokens what an operator writes; of secrets new versions and states.
GRANT INSERT (tenant_id, uid, name, metadata), UPDATE (uid, name, metadata, created_at, updated_at, deleted_at)
    ON hookseal.tenants TO hookseal_api;
GRANT INSERT (name, description, schemas, deprecated, archived),
      UPDATE (description, schemas, deprecated, archived, updated_at)
    ON hookseal.event_types TO hookseal_api;
GRANT INSERT (tenant_id, id, name, digest, scopes, created_at, expires_at, portal, user_name, session_id, refresh_url,
              code_digest, made_of, generation, signature, signature_key_id),
      UPDATE (expires_at, revoked_at, code_spent_at, generation, signature, signature_key_id)
    ON hookseal.api_tokens TO hookseal_api;
GRANT DELETE,
      INSERT (tenant_id, id, uid, description, metadata, url, shares_url, event_types, channels, name, timeout_ms, max_attempts, backoff_base_seconds, backoff_cap_seconds,
              retry_schedule, concurrency, rate, ordered, on_dead_letter, rotate_every_days),
      UPDATE (uid, description, metadata, url, shares_url, event_types, channels, name, enabled, disabled_reason, disabled_at, last_disabled_reason, last_disabled_at, scheme,
              algorithm, timeout_ms, max_attempts, backoff_base_seconds, backoff_cap_seconds, retry_schedule, concurrency,
              rate, on_dead_letter, secret_ref, previous_secret_ref, previous_secret_expires_at, previous_scheme,
              previous_algorithm, secret_provider, secret_updated_at, rotate_every_days, lead, headers_ref, header_names,
              tls_ref, tls_shown, generation, mac, mac_key_id)
    ON hookseal.endpoints TO hookseal_api;
GRANT INSERT (tenant_id, id, endpoint_id, event_id, replay_of, waiting_for, held_at, last_error, position, manual_attempts),
      UPDATE (state, budget_spent, next_attempt_at, rung_at, waiting_for, held_at, last_error, position, manual_attempts)
    ON hookseal.deliveries TO hookseal_api;
GRANT INSERT (tenant_id, endpoint_id, released_at), UPDATE (released_at, probe_at, step_seconds), DELETE
    ON hookseal.held_endpoints TO hookseal_api;
GRANT INSERT (tenant_id, id, endpoint_id, event_type, event_id, states, since, until, end_id, rate, cursor, matched),
      UPDATE (state, ended_at)
    ON hookseal.replays TO hookseal_api;
GRANT DELETE ON hookseal.lanes, hookseal.key_lock, hookseal.rotation_canaries TO hookseal_api;
GRANT INSERT (tenant_id, name, version, provider, purpose, scheme, sealed, wrapped_by, share), UPDATE (state, changed_at)
    ON hookseal.secret_records TO hookseal_api;
GRANT INSERT, UPDATE (why, since, provider, share), DELETE ON hookseal.secret_leftovers TO hookseal_api;
GRANT INSERT ON hookseal.secret_rotations, hookseal.audit_log, hookseal.rotation_canaries TO hookseal_api;
GRANT INSERT, UPDATE (sequence, mac) ON hookseal.audit_heads TO hookseal_api;
GRANT EXECUTE ON FUNCTION
    hookseal.uuid7(),
    hookseal.take_positions(text, uuid, bigint),
    hookseal.duration_bounds(),
    hookseal.duration_percentile(bigint[], double precision),
    hookseal.rotation_announced_at(text, uuid),
    hookseal.url_at(text, uuid, timestamptz),
    hookseal.send_example(text, uuid, text, json, bytea),
    hookseal.was_rewrapped(text, text),
    hookseal.audited_generation(text, uuid)
    TO hookseal_api;
GRANT EXECUTE ON FUNCTION
    hookseal.uuid7(),
    hookseal.duration_bounds(),
    hookseal.duration_percentile(bigint[], double precision),
    hookseal.rotation_announced_at(text, uuid),
    hookseal.url_at(text, uuid, timestamptz),
    hookseal.was_rewrapped(text, text)
    TO hookseal_api_publisher;
