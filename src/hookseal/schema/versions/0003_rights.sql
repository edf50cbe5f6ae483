-- A worker rotates what asks for it by schedule, destroys what was retired for long, and audits both: what that needs.

GRANT SELECT (headers_ref, header_names, rotate_every_days) ON hookseal.endpoints TO hookseal_worker, hookseal_readonly;
GRANT UPDATE (url, scheme, algorithm, secret_ref, previous_secret_ref, previous_secret_expires_at, previous_scheme,
              previous_algorithm, headers_ref, secret_provider, secret_updated_at, lead, generation, mac, mac_key_id)
    ON hookseal.endpoints TO hookseal_worker;
GRANT INSERT, UPDATE (state, sealed, key_id, changed_at) ON hookseal.secret_records TO hookseal_worker;
GRANT SELECT, INSERT, UPDATE (sequence, mac) ON hookseal.audit_heads TO hookseal_worker;
GRANT SELECT, INSERT ON hookseal.secret_rotations, hookseal.audit_log TO hookseal_worker;
GRANT EXECUTE ON FUNCTION hookseal.uuid7() TO hookseal_worker;
REVOKE EXECUTE ON FUNCTION hookseal.rotation_announced_at(text, uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION hookseal.rotation_announced_at(text, uuid)
    TO hookseal_worker, hookseal_operator, hookseal_readonly;

GRANT INSERT (rotate_every_days), UPDATE (headers_ref, header_names, rotate_every_days)
    ON hookseal.endpoints TO hookseal_operator;
GRANT SELECT, INSERT, DELETE ON hookseal.rotation_canaries TO hookseal_operator;
GRANT SELECT ON hookseal.rotation_canaries TO hookseal_readonly;
