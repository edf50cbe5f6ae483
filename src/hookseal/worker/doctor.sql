-- What `hookseal doctor` reads of PostgreSQL. Any login of hookseal may read all of it.

-- Returns the settings of the server, of the role and of the database that deliveries depend on, as this session has them.
-- name: settings
SELECT current_setting('fsync') AS fsync,
       current_setting('full_page_writes') AS full_page_writes,
       current_setting('synchronous_commit') AS synchronous_commit,
       current_setting('autovacuum') AS autovacuum,
       current_setting('track_counts') AS track_counts,
       current_setting('transaction_read_only') AS transaction_read_only

-- Returns the time of the server.
-- name: clock
SELECT clock_timestamp()

-- Returns how many connections this login may have: on the server without those that are kept for others, and by the
-- limits of the role and of the database, null without a limit.
-- name: connections
SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
           - coalesce(current_setting('reserved_connections', true)::int, 0) AS of_server,
       (SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = current_user) AS of_role,
       (SELECT nullif(datconnlimit, -1) FROM pg_database WHERE datname = current_database()) AS of_database

-- Returns the time-outs that would end a statement, a transaction or a connection of hookseal, in milliseconds; those of 0 are off.
-- name: timeouts
SELECT name, setting::int AS ms
FROM pg_settings
WHERE name IN ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout',
               'idle_session_timeout')
  AND setting::int > 0
ORDER BY name

-- Returns the tables of hookseal for which autovacuum is off, and those of whose rows it left more than half dead.
-- name: neglected
SELECT c.relname AS name, 'autovacuum_enabled=false' = ANY (c.reloptions) AS is_off
FROM pg_class AS c
LEFT JOIN pg_stat_all_tables AS s ON s.relid = c.oid
WHERE c.relnamespace = 'hookseal'::regnamespace AND c.relkind = 'r'
  AND ('autovacuum_enabled=false' = ANY (c.reloptions) OR (s.n_dead_tup > 100000 AND s.n_dead_tup > s.n_live_tup))
ORDER BY c.relname

-- Returns what has kept dead rows for more than $1 seconds: sessions, prepared transactions and replication slots. Those
-- of other databases keep none of ours. Sessions of other logins are shown only to members of pg_read_all_stats; `hidden` says
-- whether this login is none.
-- name: old_snapshots
SELECT (SELECT format('session %s, for %s s', pid, extract(epoch FROM now() - xact_start)::int)
        FROM pg_stat_activity
        WHERE datname = current_database() AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)
          AND xact_start < now() - make_interval(secs => $1)
        ORDER BY xact_start LIMIT 1) AS session,
       (SELECT format('prepared transaction %s, for %s s', gid, extract(epoch FROM now() - prepared)::int)
        FROM pg_prepared_xacts
        WHERE database = current_database() AND prepared < now() - make_interval(secs => $1)
        ORDER BY prepared LIMIT 1) AS prepared,
       (SELECT format('replication slot %s, which nobody reads', slot_name)
        FROM pg_replication_slots WHERE NOT active AND xmin IS NOT NULL ORDER BY slot_name LIMIT 1) AS slot,
       (SELECT NOT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')) AS hidden

-- Returns the live workers, those with a heartbeat in the last $1 seconds, the first 100. One that drains ends by itself, so it is
-- left out until it has drained for ten seconds more than its limit.
-- name: workers
SELECT id, version, lease_seconds, unrecorded_since, drains AS overstays, count(*) OVER () AS number
FROM hookseal.workers
WHERE beaten_at > now() - make_interval(secs => $1)
  AND (NOT drains OR draining_since < now() - make_interval(secs => drain_seconds + 10))
ORDER BY id
LIMIT 100
