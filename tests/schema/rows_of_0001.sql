-- Rows in every table of revision 0001, made by its own functions where it has some. key_lock is always empty.
INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types, name, created_at, ordered, header_names)
VALUES ('acme', '01890a5d-ac96-774b-bcce-b302099a8057', 'https://acme.example/hook', '{*}', 'billing', '2026-01-02Z', false, '{x-a}'),
       ('acme', '01890a5d-ac96-774b-bcce-b302099a8058', 'https://acme.example/line', '{invoice.*}', NULL, '2026-01-01Z', true, '{}'),
       ('globex', '01890a5d-ac96-774b-bcce-b302099a8059', 'https://globex.example/hook', '{a.b}', NULL, '2026-01-03Z', false, '{}'),
       ('_operator', '01890a5d-ac96-774b-bcce-b302099a805a', 'https://operator.example/hook', '{*}', NULL, '2026-01-04Z', false, '{}');
SELECT hookseal.publish('acme', 'invoice.paid', '{"id": 1}'::json, 'evt-1', 'corr-1');
SELECT hookseal.publish_raw('acme', 'invoice.paid', '\x00ff', 'evt-2');
SELECT hookseal.publish_many('globex', ARRAY['{"event_type": "a.b", "data": {}, "event_id": "evt-1"}']::json[]);
UPDATE hookseal.deliveries SET state = 'dead_letter', next_attempt_at = NULL, attempts = 1, budget_spent = 1
WHERE event_id = 'evt-2' AND endpoint_id = '01890a5d-ac96-774b-bcce-b302099a8057';
INSERT INTO hookseal.attempts (tenant_id, delivery_id, number, started_at, duration_ms, status, outcome, snippet, signed_by, worker)
SELECT tenant_id, id, 1, now(), 12, 500, 'server_error', 'no', '{db:acme:x:1}', 'w1' FROM hookseal.deliveries WHERE state = 'dead_letter';
INSERT INTO hookseal.held_endpoints (tenant_id, endpoint_id) VALUES ('globex', '01890a5d-ac96-774b-bcce-b302099a8059');
INSERT INTO hookseal.lanes (tenant_id, endpoint_id) VALUES ('acme', '01890a5d-ac96-774b-bcce-b302099a8057');
INSERT INTO hookseal.replays (tenant_id, id, states, until, end_id, rate, cursor, matched)
VALUES ('acme', hookseal.uuid7(), '{dead_letter}', now(), hookseal.uuid7(), 10, '00000000-0000-7000-8000-000000000000', 1);
INSERT INTO hookseal.attempt_counts (tenant_id, endpoint_id, since, delivered, durations)
VALUES ('acme', '01890a5d-ac96-774b-bcce-b302099a8057', now(), 1, array_fill(1::bigint, ARRAY[27]));
INSERT INTO hookseal.workers (id, version, drain_seconds, lease_seconds, key_ids) VALUES ('w1', '0.1', 25, 45, '{}');
INSERT INTO hookseal.producers (role_name, tenant_id, role) VALUES ('hookseal_producer', 'acme', 'hookseal_producer'::regrole);
INSERT INTO hookseal.operator_notices (tenant_id, endpoint_id, kind)
VALUES ('acme', '01890a5d-ac96-774b-bcce-b302099a8057', 'endpoint.failing');
INSERT INTO hookseal.secret_keys (key_id, state, check_value) VALUES ('0123456789abcdef', 'active', '\x00');
INSERT INTO hookseal.secret_records (tenant_id, name, version, provider, purpose, scheme, sealed)
VALUES ('acme', 'webhook-endpoint-01890a5d-ac96-774b-bcce-b302099a8057', 1, 'db', 'webhook-signing', 'standard', '\x0001ffffffffffffffff00');
INSERT INTO hookseal.secret_leftovers (tenant_id, name, version, provider, why) VALUES ('acme', 'n', 1, 'aws', 'burnt');
INSERT INTO hookseal.secret_rotations (tenant_id, rotation_id, endpoint_id, intent, outcome, version, answer)
VALUES ('acme', 'r-1', '01890a5d-ac96-774b-bcce-b302099a8057', '{}', 'done', 1, '{}');
INSERT INTO hookseal.rotation_canaries (tenant_id, id, endpoint_id, generation, secret_ref, verdict)
VALUES ('acme', hookseal.uuid7(), '01890a5d-ac96-774b-bcce-b302099a8057', 1, 'db:acme:x:1', 'switched');
INSERT INTO hookseal.audit_log (tenant_id, sequence, at, actor, action, subject, after, previous_mac, mac, mac_key_id)
VALUES ('acme', 1, now(), 'jane', 'endpoint.added', 'endpoint:01890a5d-ac96-774b-bcce-b302099a8057', '{"generation":1}', '\x00', '\x01', '1');
INSERT INTO hookseal.audit_heads (tenant_id, sequence, mac) VALUES ('acme', 1, '\x01');
