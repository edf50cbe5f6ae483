-- name: insert
INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types, name, timeout_ms)
VALUES ($1, hookseal.uuid7(), $2, $3, $4, $5)
RETURNING id::text
