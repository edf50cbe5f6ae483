-- The fenced lease under which one worker rings for all. `until` is always by the clock of the database.

-- name: lead
UPDATE hookseal.control
SET holder = $1, until = now() + make_interval(secs => $2),
    token = CASE WHEN holder = $1 THEN token ELSE gen_random_uuid() END
WHERE name = 'outbox' AND (holder = $1 OR until IS NULL OR until <= now())
RETURNING token::text AS token

-- name: step_down
UPDATE hookseal.control SET holder = NULL, token = NULL, until = NULL WHERE name = 'outbox' AND holder = $1

-- name: ask_for_notice
UPDATE hookseal.control SET until = greatest(until, now() + make_interval(secs => $1)) WHERE name = 'notify'
