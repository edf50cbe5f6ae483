-- Requests that their client may repeat.

-- Takes the key of a request, unless another one has it. It waits for a transaction that has taken it and not ended.
-- name: claim
INSERT INTO hookseal.idempotency_keys (tenant_id, actor, key_digest, call, fingerprint)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT DO NOTHING
RETURNING true

-- Returns the request that has the key.
-- name: first
SELECT k.call, k.fingerprint, k.status, k.result_id
FROM hookseal.idempotency_keys AS k
WHERE k.tenant_id = $1 AND k.actor = $2 AND k.key_digest = $3

-- Records what a request made.
-- name: record
UPDATE hookseal.idempotency_keys AS k
SET status = $4, result_id = $5
WHERE k.tenant_id = $1 AND k.actor = $2 AND k.key_digest = $3
