-- The operator moves master keys, re-wraps records and migrates plaintext; it makes and deletes no key out of turn.

GRANT UPDATE (state, promoted_at, drained_at, compromised_at, retired_at, destroyed_at)
    ON hookseal.secret_keys TO hookseal_operator;
GRANT UPDATE (wrapped_by) ON hookseal.secret_records TO hookseal_operator;
GRANT UPDATE (secret) ON hookseal.endpoints TO hookseal_operator;
REVOKE EXECUTE ON FUNCTION hookseal.was_rewrapped(text, text), hookseal.forbid_plaintext() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION hookseal.was_rewrapped(text, text)
    TO hookseal_worker, hookseal_operator, hookseal_readonly;
GRANT EXECUTE ON FUNCTION hookseal.forbid_plaintext() TO hookseal_operator;
GRANT SELECT (promoted_at, drained_at, compromised_at, retired_at, destroyed_at)
    ON hookseal.secret_keys TO hookseal_readonly;
GRANT SELECT (wrapped_by) ON hookseal.secret_records TO hookseal_readonly;
