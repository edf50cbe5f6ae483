-- The connection may belong to the caller and have any search path: every name has its schema. It may also have codecs of
-- its own, by which asyncpg reads and writes a type in another way: every parameter and column is text.

-- What is read of the answer.
-- name: answer
event_id, delivery_id::pg_catalog.text AS delivery_id, endpoint_id::pg_catalog.text AS endpoint_id,
       duplicate::pg_catalog.text AS duplicate, is_due::pg_catalog.text AS is_due

-- Publishes one event of JSON.
-- name: publish
SELECT {answer}
FROM hookseal.publish($1, $2, $3::pg_catalog.text::pg_catalog.json, $4, $5, $6, $7::pg_catalog.text::pg_catalog.bool)

-- Publishes one event of bytes.
-- name: publish_raw
SELECT {answer}
FROM hookseal.publish_raw($1, $2, pg_catalog.decode($3, 'base64'), $4, $5, $6, $7::pg_catalog.text::pg_catalog.bool)

-- Publishes one event of JSON in channels.
-- name: publish_in_channels
SELECT {answer}
FROM hookseal.publish(
    $1, $2, $3::pg_catalog.text::pg_catalog.json, $8::pg_catalog.text[], $4, $5, $6, $7::pg_catalog.text::pg_catalog.bool)

-- Publishes one event of bytes in channels.
-- name: publish_raw_in_channels
SELECT {answer}
FROM hookseal.publish_raw(
    $1, $2, pg_catalog.decode($3, 'base64'), $8::pg_catalog.text[], $4, $5, $6, $7::pg_catalog.text::pg_catalog.bool)

-- Publishes many events, all or none.
-- name: publish_many
SELECT index::pg_catalog.text AS index, {answer}
FROM hookseal.publish_many($1, $2::pg_catalog.text[]::pg_catalog.json[], $3::pg_catalog.text::pg_catalog.bool)

-- Publishes the events of several callers, all or none, and waits for each lock at most as long as $4 says. The limit ends with
-- the statement, whose transaction it is. It is a part of an argument, so that it is set first.
-- name: publish_together
SELECT p.index::pg_catalog.text AS index, p.event_id, p.delivery_id::pg_catalog.text AS delivery_id,
       p.endpoint_id::pg_catalog.text AS endpoint_id, p.duplicate::pg_catalog.text AS duplicate,
       p.is_due::pg_catalog.text AS is_due
FROM (SELECT pg_catalog.set_config('lock_timeout', $4, true) AS lock_timeout) AS s,
     LATERAL hookseal.publish_many(
         $1, $2::pg_catalog.text[]::pg_catalog.json[],
         $3::pg_catalog.text::pg_catalog.bool AND s.lock_timeout IS NOT NULL) AS p

-- Publishes an example to one endpoint: data, or bytes in base64.
-- name: send_example
SELECT {answer}
FROM hookseal.send_example(
    $1, $2::pg_catalog.text::pg_catalog.uuid, $3, $4::pg_catalog.text::pg_catalog.json, pg_catalog.decode($5, 'base64'))
