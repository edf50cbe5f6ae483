-- The rights that the objects of this revision need.

-- To lock an empty table takes a right to write it; who may only read it can lock out nobody but who alters it.
GRANT DELETE ON hookseal.key_lock TO hookseal_worker, hookseal_operator;

-- What waits for its endpoint: publish makes it, a worker holds and lets go, an operator releases or has it tried.
GRANT SELECT (tenant_id, endpoint_id, released_at, reason) ON hookseal.held_endpoints TO hookseal_publisher;
GRANT SELECT (waiting_for), INSERT (waiting_for, held_at, last_error) ON hookseal.deliveries TO hookseal_publisher;
GRANT UPDATE (held_at) ON hookseal.deliveries TO hookseal_worker, hookseal_operator;
GRANT SELECT, INSERT, UPDATE, DELETE ON hookseal.held_endpoints TO hookseal_worker;
GRANT SELECT, INSERT (tenant_id, endpoint_id, released_at), UPDATE (released_at, probe_at, step_seconds), DELETE
    ON hookseal.held_endpoints TO hookseal_operator;
GRANT SELECT ON hookseal.held_endpoints TO hookseal_readonly;
REVOKE EXECUTE ON FUNCTION hookseal.date_wait() FROM PUBLIC;

-- Who publishes may ask which deliveries of an event are due, to ring them.
GRANT SELECT (state, next_attempt_at) ON hookseal.deliveries TO hookseal_publisher;
GRANT CREATE ON SCHEMA hookseal TO hookseal_publisher;
ALTER FUNCTION hookseal.due(text, text) OWNER TO hookseal_publisher;
REVOKE CREATE ON SCHEMA hookseal FROM hookseal_publisher;
REVOKE EXECUTE ON FUNCTION hookseal.due(text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION hookseal.due(text, text) TO hookseal_producer, CURRENT_USER;
