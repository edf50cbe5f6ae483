-- The fenced lease of the leader. `until` is a time of the database clock.

-- Takes or renews the lease, unless another worker has it.
-- name: lead
UPDATE hookseal.control
SET holder = $1, until = now() + make_interval(secs => $2),
    token = CASE WHEN holder = $1 THEN token ELSE gen_random_uuid() END
WHERE name = 'outbox' AND (holder = $1 OR until IS NULL OR until <= now())
RETURNING token::text AS token

-- Gives the lease back. It keeps since when nobody leads.
-- name: step_down
UPDATE hookseal.control SET holder = NULL, token = NULL, until = now() WHERE name = 'outbox' AND holder = $1

-- Makes publish send notifications for $1 seconds more.
-- name: ask_for_notice
UPDATE hookseal.control SET until = greatest(until, now() + make_interval(secs => $1)) WHERE name = 'notify'
