-- The connection may be the caller's own, with whatever search path: every name stands with its schema.
-- The event is published before it is asked which of its deliveries are due: a function in FROM runs to its end first.

-- name: publish
WITH published AS MATERIALIZED (
    SELECT event_id, delivery_id, endpoint_id, duplicate
    FROM hookseal.publish($1, $2, $3::pg_catalog.text::pg_catalog.json, $4, $5, $6)
), due AS MATERIALIZED (
    SELECT hookseal.due($1, event_id) AS ids FROM published LIMIT 1
)
SELECT event_id, delivery_id::pg_catalog.text AS delivery_id, endpoint_id::pg_catalog.text AS endpoint_id, duplicate,
       delivery_id OPERATOR(pg_catalog.=) ANY (due.ids) AS is_due
FROM published CROSS JOIN due

-- name: publish_raw
WITH published AS MATERIALIZED (
    SELECT event_id, delivery_id, endpoint_id, duplicate FROM hookseal.publish_raw($1, $2, $3, $4, $5, $6)
), due AS MATERIALIZED (
    SELECT hookseal.due($1, event_id) AS ids FROM published LIMIT 1
)
SELECT event_id, delivery_id::pg_catalog.text AS delivery_id, endpoint_id::pg_catalog.text AS endpoint_id, duplicate,
       delivery_id OPERATOR(pg_catalog.=) ANY (due.ids) AS is_due
FROM published CROSS JOIN due
