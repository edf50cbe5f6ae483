-- How deliveries, events and tokens leave after the retention. The functions are in the schema (0001_retention.sql), because a
-- worker may not delete rows itself. Two workers may call them at the same time.

-- Removes a batch of the deliveries that ended more than $1 days ago, with their attempts.
-- The place is passed as text, because Python cannot read every time that PostgreSQL can store.
-- name: remove_deliveries
SELECT deliveries, attempts, last::text AS last FROM hookseal.remove_deliveries($1, $2::text::timestamptz)

-- Fills in the endpoint of a batch of attempts that have none.
-- name: fill_attempts
SELECT hookseal.fill_attempts()

-- Removes a batch of the former urls that ended more than $1 days ago and that no delivery can have used.
-- name: remove_urls
SELECT hookseal.remove_urls($1)

-- Removes a batch of the idempotency keys that are older than 12 hours.
-- name: remove_idempotency_keys
SELECT hookseal.remove_idempotency_keys()

-- Removes a batch of the tokens that ended long ago.
-- name: remove_tokens
SELECT hookseal.remove_tokens()

-- Removes those without a delivery of the next batch of events that were published more than $1 days ago.
-- name: remove_events
SELECT events, looked_at, last::text AS last FROM hookseal.remove_events($1, $2::text::timestamptz)
