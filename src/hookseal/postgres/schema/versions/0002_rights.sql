-- Rights to whole tables, narrowed to the columns that each process writes. Defaults write the others: the state and the times
-- of a new version of a secret, for instance, so that no worker stores one that it may destroy at once.
-- src/hookseal/postgres/schema/rights.toml declares what each role has then.
--
--   hookseal_backup  reads every table, and nothing else: what pg_dump needs

REVOKE INSERT ON hookseal.events, hookseal.operator_notices FROM hookseal_publisher;
GRANT INSERT (tenant_id, id, event_type, occurred_at, correlation_id, traceparent, body, fingerprint, channels, tracestate)
    ON hookseal.events TO hookseal_publisher;
GRANT INSERT (tenant_id, endpoint_id, kind) ON hookseal.operator_notices TO hookseal_publisher;

REVOKE INSERT ON hookseal.attempts, hookseal.attempt_counts, hookseal.audit_log, hookseal.audit_heads, hookseal.secret_records,
                 hookseal.secret_rotations, hookseal.secret_leftovers
    FROM hookseal_worker;
REVOKE INSERT, UPDATE ON hookseal.held_endpoints, hookseal.lanes, hookseal.workers FROM hookseal_worker;
GRANT INSERT (started_at, number, duration_ms, status, tenant_id, delivery_id, outcome, snippet, signed_by, worker, endpoint_id)
    ON hookseal.attempts TO hookseal_worker;
GRANT INSERT (tenant_id, endpoint_id, since, delivered, durations) ON hookseal.attempt_counts TO hookseal_worker;
GRANT INSERT (tenant_id, endpoint_id, waiting_for, reason, is_transient, step_seconds, probe_at, released_at),
      UPDATE (since, waiting_for, reason, is_transient, step_seconds, probe_at, probe_id, released_at)
    ON hookseal.held_endpoints TO hookseal_worker;
GRANT INSERT (tenant_id, endpoint_id, waiting_for, reopened_at), UPDATE (reopened_at) ON hookseal.lanes TO hookseal_worker;
GRANT INSERT (id, version, drain_seconds, lease_seconds, key_ids, providers, drains, unrecorded_since, revision, requests,
              most_requests, bytes, most_bytes, connections, most_connections, batch_connections, most_batch_connections,
              limited_by, draining_since),
      UPDATE (beaten_at, drains, unrecorded_since, requests, most_requests, bytes, most_bytes, connections, most_connections,
              batch_connections, most_batch_connections, limited_by, draining_since)
    ON hookseal.workers TO hookseal_worker;

REVOKE INSERT ON hookseal.audit_log, hookseal.audit_heads, hookseal.producers, hookseal.rotation_canaries, hookseal.secret_keys,
                 hookseal.secret_leftovers, hookseal.secret_records, hookseal.secret_rotations
    FROM hookseal_operator;
REVOKE INSERT ON hookseal.audit_log, hookseal.audit_heads, hookseal.rotation_canaries, hookseal.secret_leftovers,
                 hookseal.secret_rotations
    FROM hookseal_api;
GRANT INSERT (tenant_id, sequence, at, actor, action, subject, before, after, correlation_id, previous_mac, mac, mac_key_id)
    ON hookseal.audit_log TO hookseal_worker, hookseal_operator, hookseal_api;
GRANT INSERT (tenant_id, sequence, mac) ON hookseal.audit_heads TO hookseal_worker, hookseal_operator, hookseal_api;
GRANT INSERT (tenant_id, rotation_id, endpoint_id, intent, outcome, version, answer)
    ON hookseal.secret_rotations TO hookseal_worker, hookseal_operator, hookseal_api;
GRANT INSERT (tenant_id, name, version, provider, why, share)
    ON hookseal.secret_leftovers TO hookseal_worker, hookseal_operator, hookseal_api;
GRANT INSERT (tenant_id, name, version, provider, purpose, scheme, sealed, wrapped_by, share)
    ON hookseal.secret_records TO hookseal_worker, hookseal_operator;
GRANT INSERT (role_name, tenant_id, role) ON hookseal.producers TO hookseal_operator;
GRANT INSERT (key_id, state, check_value, promoted_at) ON hookseal.secret_keys TO hookseal_operator;
GRANT INSERT (tenant_id, id, endpoint_id, generation, secret_ref, verdict, status, control_status, detail, sent_at)
    ON hookseal.rotation_canaries TO hookseal_operator, hookseal_api;

GRANT USAGE ON SCHEMA hookseal TO hookseal_backup;
GRANT SELECT ON ALL TABLES IN SCHEMA hookseal TO hookseal_backup;
