-- The TLS identity of an endpoint: its client certificate, the key of that, and the authorities that it trusts (design 1.3).

ALTER TABLE hookseal.endpoints
    ADD COLUMN tls_ref   text,
    ADD COLUMN tls_shown jsonb;
COMMENT ON COLUMN hookseal.endpoints.tls_ref IS
    'The sealed client certificate with its key, and the authorities that alone vouch for the receiver';
COMMENT ON COLUMN hookseal.endpoints.tls_shown IS
    'Subjects, fingerprints and ends of those certificates, for whoever may not open them. Nothing is trusted by it';
