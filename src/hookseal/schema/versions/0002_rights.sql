-- Who may do what (design 1.5): group roles, each with the least it needs. They exist by now (schema/roles.py).

GRANT SELECT (replay_of) ON hookseal.deliveries TO hookseal_publisher;
GRANT SELECT (name, until) ON hookseal.control TO hookseal_publisher;
GRANT EXECUTE ON FUNCTION hookseal.is_retry_schedule(integer[]) TO PUBLIC;  -- a check constraint runs as whoever writes
REVOKE EXECUTE ON FUNCTION hookseal.refuse_change(), hookseal.move_cache_epoch() FROM PUBLIC;

GRANT USAGE ON SCHEMA hookseal TO hookseal_worker, hookseal_operator, hookseal_readonly;
GRANT SELECT ON hookseal.alembic_version, hookseal.control, hookseal.workers
    TO hookseal_worker, hookseal_operator, hookseal_readonly;

-- Everything of an endpoint but the plaintext of an older system.
GRANT SELECT (tenant_id, id, name, url, event_types, enabled, disabled_reason, disabled_at, scheme, algorithm, timeout_ms,
              max_attempts, backoff_base_seconds, backoff_cap_seconds, retry_schedule, attempts_allowed,
              secret_ref, previous_secret_ref, previous_secret_expires_at, previous_scheme, previous_algorithm,
              secret_provider, secret_updated_at, lead, generation, mac, mac_key_id, has_plaintext, created_at)
    ON hookseal.endpoints TO hookseal_worker, hookseal_readonly;

-- The worker: claims, records, disables after a 410. It may read sealed secrets, and write none.
GRANT UPDATE (enabled, disabled_reason, disabled_at) ON hookseal.endpoints TO hookseal_worker;
GRANT SELECT ON hookseal.events, hookseal.secret_keys, hookseal.secret_records TO hookseal_worker;
GRANT SELECT ON hookseal.deliveries TO hookseal_worker;
GRANT UPDATE (state, attempts, budget_spent, next_attempt_at, rung_at, waiting_for, lease_owner, lease_token,
              lease_expires_at, claimed_number, claimed_at, claimed_refs, claimed_generation, last_error)
    ON hookseal.deliveries TO hookseal_worker;
GRANT SELECT, INSERT ON hookseal.attempts TO hookseal_worker;
GRANT INSERT, UPDATE, DELETE ON hookseal.workers TO hookseal_worker;
GRANT UPDATE (holder, token, until) ON hookseal.control TO hookseal_worker;

-- The operator: every command but `db upgrade` and `worker`. It changes no event, no attempt, no key, no audit row.
GRANT SELECT, DELETE ON hookseal.endpoints TO hookseal_operator;
GRANT INSERT (tenant_id, id, url, event_types, name, timeout_ms,
              max_attempts, backoff_base_seconds, backoff_cap_seconds, retry_schedule),
      UPDATE (url, event_types, name, enabled, disabled_reason, disabled_at, scheme, algorithm, timeout_ms,
              max_attempts, backoff_base_seconds, backoff_cap_seconds, retry_schedule,
              secret_ref, previous_secret_ref, previous_secret_expires_at, previous_scheme, previous_algorithm,
              secret_provider, secret_updated_at, lead, generation, mac, mac_key_id)
    ON hookseal.endpoints TO hookseal_operator;
GRANT SELECT,
      INSERT (tenant_id, id, endpoint_id, event_id, replay_of),
      UPDATE (state, budget_spent, next_attempt_at, rung_at, waiting_for, last_error)
    ON hookseal.deliveries TO hookseal_operator;
GRANT SELECT, INSERT, UPDATE (state, sealed, key_id, changed_at) ON hookseal.secret_records TO hookseal_operator;
GRANT SELECT, INSERT, UPDATE (sequence, mac) ON hookseal.audit_heads TO hookseal_operator;
GRANT SELECT, INSERT ON hookseal.secret_keys, hookseal.secret_rotations, hookseal.audit_log TO hookseal_operator;
GRANT SELECT ON hookseal.attempts TO hookseal_operator;
GRANT SELECT (tenant_id, id, event_type, occurred_at, correlation_id, traceparent) ON hookseal.events TO hookseal_operator;
GRANT SELECT, INSERT, DELETE ON hookseal.producers TO hookseal_operator;
GRANT UPDATE (epoch) ON hookseal.control TO hookseal_operator;
GRANT EXECUTE ON FUNCTION hookseal.uuid7() TO hookseal_operator;

-- Read-only: neither sealed secrets nor event bodies.
GRANT SELECT ON
    hookseal.deliveries, hookseal.attempts, hookseal.secret_rotations, hookseal.audit_log, hookseal.audit_heads,
    hookseal.producers
    TO hookseal_readonly;
GRANT SELECT (tenant_id, id, event_type, occurred_at, correlation_id, traceparent) ON hookseal.events TO hookseal_readonly;
GRANT SELECT (tenant_id, name, version, provider, purpose, scheme, key_id, state, created_at, changed_at)
    ON hookseal.secret_records TO hookseal_readonly;
GRANT SELECT (key_id, state, created_at) ON hookseal.secret_keys TO hookseal_readonly;
