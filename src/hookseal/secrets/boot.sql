-- What the unlocked secrets of a process depend on.

-- Returns a fingerprint of everything that unlocking reads: as long as it is the same, unlocking has the same result.
-- It covers the master keys and which of them records need, the providers in use, the installation's own secrets as they
-- are stored, the epochs, and which server this is: a restarted or restored one is another.
-- name: basis
SELECT encode(sha256(convert_to(json_build_array(
       (SELECT json_agg(json_build_array(k.key_id, k.state, encode(k.check_value, 'hex'),
                                         EXISTS (SELECT FROM hookseal.secret_records AS r WHERE r.key_id = k.key_id))
                        ORDER BY k.key_id)
          FROM hookseal.secret_keys AS k),
       (SELECT json_agg(other.provider ORDER BY other.provider)
          FROM unnest(ARRAY['aws', 'dev', 'gcp', 'openbao']) AS other (provider)
         WHERE EXISTS (SELECT
                         FROM hookseal.secret_records AS r
                        WHERE r.provider = other.provider AND r.provider <> 'db' AND r.state IN ('active', 'previous'))),
       (SELECT json_agg(json_build_array(r.ref, r.state, r.purpose, encode(sha256(r.sealed), 'hex'),
                                         encode(sha256(r.share), 'hex'))
                        ORDER BY r.name, r.version)
          FROM hookseal.own_secrets() AS r
         WHERE r.tenant_id = '_system' AND r.name IN ('integrity', 'sentinel')),
       (SELECT json_agg(json_build_array(c.name, c.epoch, c.token, c.tableoid) ORDER BY c.name)
          FROM hookseal.control AS c
         WHERE c.name IN ('cache', 'installation', 'restore')),
       extract(epoch FROM pg_postmaster_start_time()))::text, 'UTF8')), 'hex')
