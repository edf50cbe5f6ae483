-- The epochs of caches and of restores. They belong to the installation, so no statement has a tenant.
-- After the highest that the table takes comes 1, so that whoever wrote that one by hand stops no command.

-- name: locked
SELECT epoch FROM hookseal.control WHERE name = 'cache' FOR NO KEY UPDATE

-- name: move
UPDATE hookseal.control
   SET epoch = epoch % 1000000000000000 + 1
 WHERE name = 'cache'
RETURNING epoch

-- A time, so that no epoch is ever opened twice: a restore puts the number back, too, and workers live through it.
-- name: open_restore
UPDATE hookseal.control
   SET epoch = greatest(epoch % 1000000000000000 + 1, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint)
 WHERE name = 'restore'
RETURNING epoch
