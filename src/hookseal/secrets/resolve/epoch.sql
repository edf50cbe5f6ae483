-- The cache epoch and the restore epoch. They belong to the installation, so no statement has a tenant.
-- The highest epoch that the table allows is followed by 1, so that a row written by hand cannot block the commands.

-- Returns the cache epoch, and locks it until the transaction ends.
-- name: lock_cache
SELECT epoch FROM hookseal.control WHERE name = 'cache' FOR NO KEY UPDATE

-- Begins a new cache epoch: every worker discards its cached secrets.
-- name: move_cache
UPDATE hookseal.control
   SET epoch = epoch % 1000000000000000 + 1
 WHERE name = 'cache'
RETURNING epoch

-- Begins a new restore epoch: every worker discards the generations that it has seen.
-- The epoch is a time, so that none is used twice: a restore also resets this number, and workers may run through it.
-- name: begin_restore
UPDATE hookseal.control
   SET epoch = greatest(epoch % 1000000000000000 + 1, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint)
 WHERE name = 'restore'
RETURNING epoch
