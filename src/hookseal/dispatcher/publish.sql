-- The connection may be the caller's own, with whatever search path: every name stands with its schema.

-- name: publish
SELECT event_id, delivery_id::pg_catalog.text AS delivery_id, endpoint_id::pg_catalog.text AS endpoint_id, duplicate
FROM hookseal.publish($1, $2, $3::pg_catalog.text::pg_catalog.json, $4, $5, $6)

-- name: publish_raw
SELECT event_id, delivery_id::pg_catalog.text AS delivery_id, endpoint_id::pg_catalog.text AS endpoint_id, duplicate
FROM hookseal.publish_raw($1, $2, $3, $4, $5, $6)
