-- A part of a transaction that undoes itself if it fails, and leaves the rest of the transaction usable. A savepoint of
-- asyncpg would not work in a transaction that was begun by an SQL statement.

-- Begins the part.
-- name: begin
SAVEPOINT hookseal_part

-- Keeps it.
-- name: keep
RELEASE SAVEPOINT hookseal_part

-- Undoes it.
-- name: undo
ROLLBACK TO SAVEPOINT hookseal_part

-- Returns the settings of the caller that ours replace. It is safe under any search path.
-- name: settings
SELECT pg_catalog.current_setting('search_path') AS search_path,
       pg_catalog.current_setting('lock_timeout') AS lock_timeout

-- Sets the search path and the lock time-out until the transaction ends. It is safe under any search path.
-- name: set
SELECT pg_catalog.set_config('search_path', $1, true), pg_catalog.set_config('lock_timeout', $2, true)
