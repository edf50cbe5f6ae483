-- The rights of the group roles, each with the least that it needs. schema/roles.py has created them; none can log in.
--
--   hookseal_publisher  owns the three publishing functions, and the triggers that publish operator events; has no members
--   hookseal_producer   may call these three functions
--   hookseal_worker     claims, sends, records; removes what ended long ago, by two functions; rotates by schedule and
--                       destroys old retired versions
--   hookseal_operator   every command but `db upgrade` and `worker`
--   hookseal_readonly   reads everything but event bodies and sealed secrets

-- PostgreSQL lets everybody call a new function. From here on only the grants below count.
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA hookseal FROM PUBLIC;
GRANT EXECUTE ON FUNCTION hookseal.is_retry_schedule(integer[]) TO PUBLIC;  -- a check constraint runs with the rights of the writing role

-- The publisher: what fan-out needs. To become the owner of a function it needs the right to create in the schema.
GRANT hookseal_publisher TO CURRENT_USER;
GRANT USAGE, CREATE ON SCHEMA hookseal TO hookseal_publisher;
ALTER FUNCTION hookseal.publish(text, text, json, text, text, text, boolean) OWNER TO hookseal_publisher;
ALTER FUNCTION hookseal.publish_raw(text, text, bytea, text, text, text, boolean) OWNER TO hookseal_publisher;
ALTER FUNCTION hookseal.publish_many(text, json[], boolean) OWNER TO hookseal_publisher;
ALTER FUNCTION hookseal.report_endpoint() OWNER TO hookseal_publisher;
ALTER FUNCTION hookseal.report_exhausted() OWNER TO hookseal_publisher;
ALTER FUNCTION hookseal.report_expiring() OWNER TO hookseal_publisher;
ALTER FUNCTION hookseal.forget_notices() OWNER TO hookseal_publisher;
REVOKE CREATE ON SCHEMA hookseal FROM hookseal_publisher;
GRANT SELECT ON hookseal.producers, hookseal.subscriptions, hookseal.audience TO hookseal_publisher;
GRANT SELECT, INSERT, UPDATE (last_at, suppressed), DELETE ON hookseal.operator_notices TO hookseal_publisher;
GRANT SELECT (name, until) ON hookseal.control TO hookseal_publisher;
GRANT SELECT (tenant_id, id, event_type, fingerprint), INSERT ON hookseal.events TO hookseal_publisher;
GRANT SELECT (tenant_id, id, event_id, replay_of) ON hookseal.delivery_links TO hookseal_publisher;
GRANT SELECT (tenant_id, id, endpoint_id, event_id, state, next_attempt_at, waiting_for, position),
      INSERT (tenant_id, id, endpoint_id, event_id, rung_at, waiting_for, held_at, last_error, position)
    ON hookseal.deliveries TO hookseal_publisher;
GRANT EXECUTE ON FUNCTION
    hookseal.uuid7(),
    hookseal.may_publish(text),
    hookseal.admit_tenant(text),
    hookseal.admit_event(hookseal.given_event, timestamptz),
    hookseal.read_events(json[]),
    hookseal.store_event(text, hookseal.given_event, boolean),
    hookseal.store_events(text, hookseal.given_event[], integer, boolean),
    hookseal.notify_operator(text, text, uuid, jsonb),
    hookseal.take_positions(text, uuid, bigint)
    TO hookseal_publisher;

-- A producer: the three functions, and the revision, which `hookseal publish` compares.
GRANT USAGE ON SCHEMA hookseal TO hookseal_producer;
GRANT SELECT ON hookseal.alembic_version TO hookseal_producer;
GRANT EXECUTE ON FUNCTION
    hookseal.publish(text, text, json, text, text, text, boolean),
    hookseal.publish_raw(text, text, bytea, text, text, text, boolean),
    hookseal.publish_many(text, json[], boolean)
    TO hookseal_producer, CURRENT_USER;

-- What every other role may read.
GRANT USAGE ON SCHEMA hookseal TO hookseal_worker, hookseal_operator, hookseal_readonly;
GRANT SELECT ON hookseal.alembic_version, hookseal.control, hookseal.workers
    TO hookseal_worker, hookseal_operator, hookseal_readonly;
GRANT SELECT ON hookseal.deliveries, hookseal.delivery_links, hookseal.attempts, hookseal.operator_notices,
                hookseal.secret_rotations, hookseal.audit_log,
                hookseal.audit_heads, hookseal.held_endpoints, hookseal.lanes, hookseal.lines, hookseal.replays
    TO hookseal_worker, hookseal_operator, hookseal_readonly;
GRANT SELECT ON hookseal.producers, hookseal.rotation_canaries TO hookseal_operator, hookseal_readonly;
GRANT SELECT ON hookseal.endpoint_stats, hookseal.endpoint_backlog TO hookseal_worker, hookseal_operator, hookseal_readonly;
GRANT EXECUTE ON FUNCTION hookseal.duration_bounds(), hookseal.duration_percentile(bigint[], double precision)
    TO hookseal_worker, hookseal_operator, hookseal_readonly;
GRANT SELECT (tenant_id, name, version, provider, why, since) ON hookseal.secret_leftovers TO hookseal_readonly;
GRANT EXECUTE ON FUNCTION hookseal.rotation_announced_at(text, uuid), hookseal.was_rewrapped(text, text)
    TO hookseal_worker, hookseal_operator, hookseal_readonly;
-- Everything of an endpoint but the plaintext of an older system.
GRANT SELECT (tenant_id, id, name, url, event_types, enabled, disabled_reason, disabled_at, last_disabled_reason,
              last_disabled_at, first_failure_at, last_failure_at, scheme, algorithm, timeout_ms,
              max_attempts, backoff_base_seconds, backoff_cap_seconds, retry_schedule, attempts_allowed, concurrency, rate,
              ordered, on_dead_letter,
              secret_ref, previous_secret_ref, previous_secret_expires_at, previous_scheme, previous_algorithm,
              secret_provider, secret_updated_at, rotate_every_days, lead, headers_ref, header_names, tls_ref, tls_shown,
              generation, mac, mac_key_id, has_plaintext, created_at)
    ON hookseal.endpoints TO hookseal_worker, hookseal_readonly;

-- The worker changes deliveries, stores, retires and destroys versions, and audits changes of secrets. Of an endpoint it
-- writes what a rotation by schedule changes and whether it is enabled, as far as 0001_guards.sql lets it; never where
-- requests go.
GRANT SELECT ON hookseal.events, hookseal.secret_keys, hookseal.secret_records TO hookseal_worker;
GRANT UPDATE (enabled, disabled_reason, disabled_at, first_failure_at, last_failure_at,
              secret_ref, previous_secret_ref, previous_secret_expires_at, previous_scheme, previous_algorithm,
              secret_provider, secret_updated_at, generation, mac, mac_key_id)
    ON hookseal.endpoints TO hookseal_worker;
GRANT UPDATE (state, attempts, budget_spent, next_attempt_at, rung_at, waiting_for, held_at, lease_owner, lease_token,
              lease_expires_at, claimed_number, claimed_at, claimed_refs, claimed_generation, last_error, position,
              finished_at)
    ON hookseal.deliveries TO hookseal_worker;
GRANT INSERT ON hookseal.attempts TO hookseal_worker;
GRANT INSERT, UPDATE, DELETE ON hookseal.held_endpoints, hookseal.lanes, hookseal.workers TO hookseal_worker;
GRANT SELECT, INSERT, UPDATE (delivered, durations), DELETE ON hookseal.attempt_counts TO hookseal_worker;
-- It executes replay jobs and ends them, but starts none and changes none of their conditions.
GRANT UPDATE (state, paid_until, cursor, replayed, disabled, deleted, moved_at, ended_at) ON hookseal.replays
    TO hookseal_worker;
GRANT SELECT ON hookseal.audience TO hookseal_worker, hookseal_operator;
GRANT UPDATE (holder, token, until) ON hookseal.control TO hookseal_worker;
GRANT INSERT, UPDATE (state, sealed, share, changed_at) ON hookseal.secret_records TO hookseal_worker;
GRANT SELECT, INSERT, UPDATE (why, since, provider, share), DELETE ON hookseal.secret_leftovers TO hookseal_worker, hookseal_operator;
GRANT INSERT ON hookseal.secret_rotations, hookseal.audit_log TO hookseal_worker;
GRANT INSERT, UPDATE (sequence, mac) ON hookseal.audit_heads TO hookseal_worker;
GRANT EXECUTE ON FUNCTION
    hookseal.uuid7(),
    hookseal.remove_deliveries(integer, timestamptz),
    hookseal.remove_events(integer, timestamptz),
    hookseal.take_positions(text, uuid, bigint)
    TO hookseal_worker;

-- The operator changes no event, no attempt and no audit row. What reads the body of an event for it also audits that.
GRANT SELECT (tenant_id, id, event_type, occurred_at, correlation_id, traceparent) ON hookseal.events
    TO hookseal_operator, hookseal_readonly;
GRANT SELECT (body) ON hookseal.events TO hookseal_operator;
GRANT SELECT, DELETE,
      INSERT (tenant_id, id, url, event_types, name, timeout_ms,
              max_attempts, backoff_base_seconds, backoff_cap_seconds, retry_schedule, concurrency, rate, ordered, on_dead_letter, rotate_every_days),
      UPDATE (url, event_types, name, enabled, disabled_reason, disabled_at, last_disabled_reason, last_disabled_at, scheme, algorithm, timeout_ms,
              max_attempts, backoff_base_seconds, backoff_cap_seconds, retry_schedule, concurrency, rate, on_dead_letter,
              secret_ref, previous_secret_ref, previous_secret_expires_at, previous_scheme, previous_algorithm,
              secret_provider, secret_updated_at, rotate_every_days, lead, headers_ref, header_names, tls_ref, tls_shown,
              generation, mac, mac_key_id, secret)
    ON hookseal.endpoints TO hookseal_operator;
GRANT INSERT (tenant_id, id, endpoint_id, event_id, replay_of, waiting_for, held_at, last_error, position),
      UPDATE (state, budget_spent, next_attempt_at, rung_at, waiting_for, held_at, last_error, position)
    ON hookseal.deliveries TO hookseal_operator;
GRANT INSERT (tenant_id, endpoint_id, released_at), UPDATE (released_at, probe_at, step_seconds), DELETE
    ON hookseal.held_endpoints TO hookseal_operator;
GRANT INSERT (tenant_id, id, endpoint_id, event_type, event_id, states, since, until, end_id, rate, cursor, matched),
      UPDATE (state, ended_at)
    ON hookseal.replays TO hookseal_operator;
GRANT DELETE ON hookseal.lanes TO hookseal_operator;
GRANT SELECT, INSERT, UPDATE (state, promoted_at, drained_at, compromised_at, retired_at, destroyed_at)
    ON hookseal.secret_keys TO hookseal_operator;
GRANT SELECT, INSERT, UPDATE (state, sealed, share, provider, wrapped_by, changed_at) ON hookseal.secret_records TO hookseal_operator;
GRANT INSERT ON hookseal.secret_rotations, hookseal.audit_log TO hookseal_operator;
GRANT INSERT, UPDATE (sequence, mac) ON hookseal.audit_heads TO hookseal_operator;
GRANT INSERT, DELETE ON hookseal.producers, hookseal.rotation_canaries TO hookseal_operator;
GRANT UPDATE (epoch) ON hookseal.control TO hookseal_operator;
GRANT EXECUTE ON FUNCTION hookseal.uuid7(), hookseal.take_positions(text, uuid, bigint), hookseal.forbid_plaintext()
    TO hookseal_operator;

-- Read-only: no sealed secret, and no check value of a key.
GRANT SELECT (tenant_id, name, version, ref, endpoint_id, provider, purpose, scheme, key_id, wrapped_by, state,
              created_at, changed_at)
    ON hookseal.secret_records TO hookseal_readonly;
GRANT SELECT (key_id, state, created_at, promoted_at, drained_at, compromised_at, retired_at, destroyed_at)
    ON hookseal.secret_keys TO hookseal_readonly;

-- The locks of key_lock need a right to write it. A role that may only read it can only block ALTER TABLE.
GRANT DELETE ON hookseal.key_lock TO hookseal_worker, hookseal_operator;
