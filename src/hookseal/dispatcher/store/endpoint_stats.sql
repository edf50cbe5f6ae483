-- Statistics of endpoints.

-- Adds counts to the current quarter of an hour. The rows are locked in one order, so that two workers do not deadlock.
-- name: add
INSERT INTO hookseal.attempt_counts AS c (tenant_id, endpoint_id, since, delivered, durations)
SELECT a.tenant_id, a.endpoint_id, date_bin('15 minutes', now(), '2000-01-01Z'), a.delivered,
       string_to_array(a.durations, ' ')::bigint[]
FROM unnest($1::text[], $2::text[]::uuid[], $3::text[]::bigint[], $4::text[]) AS a (tenant_id, endpoint_id, delivered, durations)
ORDER BY a.tenant_id, a.endpoint_id
ON CONFLICT (tenant_id, endpoint_id, since) DO UPDATE
SET delivered = c.delivered + excluded.delivered,
    durations = ARRAY(SELECT before.number + more.number
                      FROM unnest(c.durations) WITH ORDINALITY AS before (number, place)
                      JOIN unnest(excluded.durations) WITH ORDINALITY AS more (number, place) USING (place)
                      ORDER BY place)

-- Deletes a batch of counts that nothing reads any more.
-- name: forget
WITH old AS (
    SELECT c.tenant_id, c.endpoint_id, c.since
    FROM hookseal.attempt_counts AS c
    WHERE c.since < now() - interval '25 hours'
    ORDER BY c.since
    LIMIT $1
    FOR UPDATE SKIP LOCKED
)
DELETE FROM hookseal.attempt_counts AS c
USING old
WHERE c.tenant_id = old.tenant_id AND c.endpoint_id = old.endpoint_id AND c.since = old.since
