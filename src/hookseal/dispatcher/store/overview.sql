-- Counts over the whole installation. Each count ends at $1 rows, and reads them from an index that has only such.
-- name: overview
SELECT (SELECT count(*) FROM (SELECT FROM hookseal.tenants AS t WHERE t.deleted_at IS NULL LIMIT $1) AS c) AS tenants,
       (SELECT count(*) FROM (SELECT FROM hookseal.endpoints AS e LIMIT $1) AS c) AS endpoints,
       (SELECT count(*) FROM (SELECT FROM hookseal.endpoints AS e WHERE NOT e.enabled LIMIT $1) AS c) AS disabled_endpoints,
       (SELECT count(*) FROM (SELECT FROM hookseal.endpoints AS e WHERE e.first_failure_at IS NOT NULL LIMIT $1) AS c)
           AS failing_endpoints,
       (SELECT count(*) FROM (SELECT FROM hookseal.held_endpoints AS h WHERE h.released_at IS NULL LIMIT $1) AS c)
           AS held_endpoints,
       (SELECT count(*) FROM (SELECT FROM hookseal.deliveries AS d WHERE d.state = 'pending' LIMIT $1) AS c) AS pending,
       (SELECT count(*) FROM (SELECT FROM hookseal.deliveries AS d WHERE d.waiting_for IS NOT NULL LIMIT $1) AS c) AS waiting,
       (SELECT count(*) FROM (SELECT FROM hookseal.deliveries AS d WHERE d.state = 'sending' LIMIT $1) AS c) AS sending,
       (SELECT count(*) FROM (SELECT FROM hookseal.deliveries AS d
                              WHERE d.state IN ('dead_letter', 'failed', 'cancelled') AND d.state = 'dead_letter' LIMIT $1) AS c)
           AS dead_letters,
       (SELECT count(*) FROM (SELECT FROM hookseal.deliveries AS d
                              WHERE d.state IN ('dead_letter', 'failed', 'cancelled') AND d.state = 'failed' LIMIT $1) AS c)
           AS failed,
       (SELECT count(*) FROM (SELECT FROM hookseal.replays AS r WHERE r.state = 'running' LIMIT $1) AS c) AS running_replays,
       (SELECT count(*) FROM hookseal.workers AS w WHERE w.beaten_at > now() - make_interval(secs => $2)) AS live_workers,
       $1::bigint AS most
