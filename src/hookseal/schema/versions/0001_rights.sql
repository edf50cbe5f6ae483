-- Who may do what with publishing. The roles exist by now (schema/roles.py).

GRANT hookseal_publisher TO CURRENT_USER;
GRANT USAGE, CREATE ON SCHEMA hookseal TO hookseal_publisher;
ALTER FUNCTION hookseal.publish(text, text, json, text, text, text) OWNER TO hookseal_publisher;
ALTER FUNCTION hookseal.publish_raw(text, text, bytea, text, text, text) OWNER TO hookseal_publisher;
REVOKE CREATE ON SCHEMA hookseal FROM hookseal_publisher;

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA hookseal FROM PUBLIC;
GRANT SELECT (tenant_id, id, enabled, event_types) ON hookseal.endpoints TO hookseal_publisher;
GRANT SELECT (tenant_id, id, event_type, fingerprint) ON hookseal.events TO hookseal_publisher;
GRANT INSERT ON hookseal.events TO hookseal_publisher;
GRANT SELECT (tenant_id, id, endpoint_id, event_id) ON hookseal.deliveries TO hookseal_publisher;
GRANT INSERT (tenant_id, id, endpoint_id, event_id) ON hookseal.deliveries TO hookseal_publisher;
GRANT SELECT ON hookseal.producers TO hookseal_publisher;
GRANT EXECUTE ON FUNCTION
    hookseal.uuid7(),
    hookseal.subscribes(text[], text),
    hookseal.require(boolean, text, text),
    hookseal.may_publish(text),
    hookseal.store_event(text, text, text, bytea, timestamptz, bytea, text, text),
    hookseal.admit_event(text, text, text, text, text)
    TO hookseal_publisher;

GRANT USAGE ON SCHEMA hookseal TO hookseal_producer;
GRANT SELECT ON hookseal.alembic_version TO hookseal_producer;  -- `hookseal publish` compares the revision
GRANT EXECUTE ON FUNCTION
    hookseal.publish(text, text, json, text, text, text),
    hookseal.publish_raw(text, text, bytea, text, text, text)
    TO hookseal_producer, CURRENT_USER;
