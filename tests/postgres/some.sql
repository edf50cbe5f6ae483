-- name: some
SELECT n AS number, chr(96 + n) AS letter FROM generate_series(1, $1::integer) AS n

-- name: slow
SELECT pg_sleep($1)::text

-- name: none
SET search_path = pg_catalog, pg_temp
