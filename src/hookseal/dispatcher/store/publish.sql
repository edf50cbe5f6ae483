-- The connection may belong to the caller and have any search path: every name has its schema. It may also have codecs of
-- its own, by which asyncpg reads and writes a type in another way: every parameter and column is text.

-- Publishes one event of JSON.
-- name: publish
SELECT event_id, delivery_id::pg_catalog.text AS delivery_id, endpoint_id::pg_catalog.text AS endpoint_id, duplicate::pg_catalog.text AS duplicate,
       is_due::pg_catalog.text AS is_due
FROM hookseal.publish($1, $2, $3::pg_catalog.text::pg_catalog.json, $4, $5, $6, $7::pg_catalog.text::pg_catalog.bool)

-- Publishes one event of bytes.
-- name: publish_raw
SELECT event_id, delivery_id::pg_catalog.text AS delivery_id, endpoint_id::pg_catalog.text AS endpoint_id, duplicate::pg_catalog.text AS duplicate,
       is_due::pg_catalog.text AS is_due
FROM hookseal.publish_raw($1, $2, pg_catalog.decode($3, 'base64'), $4, $5, $6, $7::pg_catalog.text::pg_catalog.bool)

-- Publishes many events, all or none.
-- name: publish_many
SELECT index::pg_catalog.text AS index, event_id, delivery_id::pg_catalog.text AS delivery_id,
       endpoint_id::pg_catalog.text AS endpoint_id, duplicate::pg_catalog.text AS duplicate,
       is_due::pg_catalog.text AS is_due
FROM hookseal.publish_many($1, $2::pg_catalog.text[]::pg_catalog.json[], $3::pg_catalog.text::pg_catalog.bool)
