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

-- Returns a value of each type that statements of ours read or write.
-- name: types
SELECT '2000-01-02 03:04:05.678901Z'::timestamptz AS timestamptz, '0189a5d0-ac96-774b-bcce-b302099a8057'::uuid AS uuid,
       '2000-01-02'::date AS date, '26:03:04'::interval AS interval, 12.5::numeric AS numeric, '\x00ff'::bytea AS bytea, true AS bool,
       1::int2 AS int2, 2::int4 AS int4, 3::int8 AS int8, 0.5::float4 AS float4, 1.5::float8 AS float8, 'a'::text AS text,
       'a'::varchar AS varchar, 'a'::name AS name, 4::oid AS oid

-- Sets the search path and the lock time-out until the transaction ends. It is safe under any search path.
-- name: set
SELECT pg_catalog.set_config('search_path', $1, true), pg_catalog.set_config('lock_timeout', $2, true)
