-- A delivery that was rung when it came due, that long ago, and could be claimed now: whoever changes it or its endpoint,
-- and holds up its claim by that, holds up no queue.
-- name: rung_and_not_taken
SELECT true
FROM hookseal.deliveries AS d
JOIN hookseal.endpoints AS e ON e.tenant_id = d.tenant_id AND e.id = d.endpoint_id
WHERE d.state = 'pending' AND d.waiting_for IS NULL AND d.rung_at >= d.next_attempt_at
  AND d.next_attempt_at < now() - make_interval(secs => $1)
ORDER BY d.next_attempt_at, d.id
LIMIT 1
FOR UPDATE OF d SKIP LOCKED
FOR KEY SHARE OF e SKIP LOCKED
