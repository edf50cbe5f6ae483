-- name: publish
SELECT event_id, delivery_id::text AS delivery_id, endpoint_id::text AS endpoint_id, duplicate
FROM hookseal.publish($1, $2, $3::text::json, $4, $5, $6)

-- name: publish_raw
SELECT event_id, delivery_id::text AS delivery_id, endpoint_id::text AS endpoint_id, duplicate
FROM hookseal.publish_raw($1, $2, $3, $4, $5, $6)
