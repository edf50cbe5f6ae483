-- Returns up to ten held endpoints whose rows have a generation that the audit log does not know. It looks at the thousand that
-- are probed next, so that a probe of many held endpoints stays quick.
-- name: unaudited
SELECT h.tenant_id, h.endpoint_id::text AS endpoint_id
FROM (SELECT w.tenant_id, w.endpoint_id
      FROM hookseal.held_endpoints AS w
      WHERE w.released_at IS NULL AND w.waiting_for = 'secret'
      ORDER BY w.probe_at
      LIMIT 1000) AS h
JOIN hookseal.endpoints AS e ON e.tenant_id = h.tenant_id AND e.id = h.endpoint_id
WHERE (SELECT coalesce(e.generation > max(l.generation), e.mac IS NOT NULL)
       FROM hookseal.audit_log AS l
       WHERE l.tenant_id = e.tenant_id AND l.subject = 'endpoint:' || e.id)
ORDER BY h.tenant_id, h.endpoint_id
LIMIT 10

-- Returns true if a delivery was rung and could be claimed, but was not claimed for $1 seconds.
-- A delivery is ignored if another transaction has locked it or its endpoint: its claim then waits for that transaction,
-- and not for the queue.
-- name: rung_and_not_taken
SELECT true
FROM hookseal.deliveries AS d
JOIN hookseal.endpoints AS e ON e.tenant_id = d.tenant_id AND e.id = d.endpoint_id
WHERE d.next_attempt_at IS NOT NULL AND d.waiting_for IS NULL AND d.rung_at >= d.next_attempt_at
  AND d.next_attempt_at < now() - make_interval(secs => $1)
ORDER BY d.next_attempt_at, d.id
LIMIT 1
FOR UPDATE OF d SKIP LOCKED
FOR KEY SHARE OF e SKIP LOCKED

-- Returns how many outcomes were refused and are kept, 10,000 at most, since when, and what refused the one that was tried last; no row if none are.
-- name: refused_outcomes
SELECT count(*) OVER () AS outcomes, min(refused_at) OVER () AS since, reason
FROM (SELECT refused_at, tried_at, reason FROM hookseal.refused_outcomes ORDER BY tried_at DESC LIMIT 10000) AS r
ORDER BY tried_at DESC
LIMIT 1
