-- The connection may belong to the caller and have any search path: every name has its schema.

-- Publishes one event of JSON.
-- name: publish
SELECT event_id, delivery_id::pg_catalog.text AS delivery_id, endpoint_id::pg_catalog.text AS endpoint_id, duplicate,
       is_due
FROM hookseal.publish($1, $2, $3::pg_catalog.text::pg_catalog.json, $4, $5, $6, $7)

-- Publishes one event of bytes.
-- name: publish_raw
SELECT event_id, delivery_id::pg_catalog.text AS delivery_id, endpoint_id::pg_catalog.text AS endpoint_id, duplicate,
       is_due
FROM hookseal.publish_raw($1, $2, $3, $4, $5, $6, $7)

-- Publishes many events, all or none.
-- name: publish_many
SELECT index, event_id, delivery_id::pg_catalog.text AS delivery_id, endpoint_id::pg_catalog.text AS endpoint_id,
       duplicate, is_due
FROM hookseal.publish_many($1, $2::pg_catalog.text[]::pg_catalog.json[], $3)
