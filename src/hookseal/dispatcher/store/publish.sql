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

-- The same with the time of the event.
-- name: dated
{answer}, pg_catalog.to_char(pg_catalog.timezone('UTC', occurred_at), 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS occurred_at

-- Publishes one event of JSON, or of bytes in base64, with channels and a tracestate or without.
-- name: publish_event
SELECT {dated}
FROM hookseal.publish_event(
    $1, $2, $3::pg_catalog.text::pg_catalog.json, pg_catalog.decode($4, 'base64'), $5::pg_catalog.text[], $6, $7, $8,
    $9, $10::pg_catalog.text::pg_catalog.bool)

-- Publishes many events, all or none.
-- name: publish_many
SELECT index::pg_catalog.text AS index, {answer}
FROM hookseal.publish_many($1, $2::pg_catalog.text[]::pg_catalog.json[], $3::pg_catalog.text::pg_catalog.bool)

-- The same with their times.
-- name: publish_events
SELECT index::pg_catalog.text AS index, {dated}
FROM hookseal.publish_events($1, $2::pg_catalog.text[]::pg_catalog.json[], $3::pg_catalog.text::pg_catalog.bool)

-- Lets the statement wait for each lock at most as long as $4 says. The limit ends with the statement, whose transaction it is.
-- name: patience
(SELECT pg_catalog.set_config('lock_timeout', $4, true) AS lock_timeout) AS s

-- The arguments. The limit is a part of one of them, so that it is set first.
-- name: given_patiently
$1, $2::pg_catalog.text[]::pg_catalog.json[], $3::pg_catalog.text::pg_catalog.bool AND s.lock_timeout IS NOT NULL

-- Publishes the events of several callers, all or none, with that limit.
-- name: publish_together
SELECT index::pg_catalog.text AS index, {answer}
FROM {patience}, LATERAL hookseal.publish_many({given_patiently}) AS p

-- The same with their times.
-- name: publish_events_together
SELECT index::pg_catalog.text AS index, {dated}
FROM {patience}, LATERAL hookseal.publish_events({given_patiently}) AS p

-- Publishes an example to one endpoint: data, or bytes in base64.
-- name: send_example
SELECT {answer}
FROM hookseal.send_example(
    $1, $2::pg_catalog.text::pg_catalog.uuid, $3, $4::pg_catalog.text::pg_catalog.json, pg_catalog.decode($5, 'base64'))
