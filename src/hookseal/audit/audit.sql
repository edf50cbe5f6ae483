-- The audit log and the heads of its chains. Rows are only ever added; a trigger refuses everything else.

-- Returns the end of the tenant's chain, and keeps everybody else from appending until the transaction ends.
-- name: lock_head
INSERT INTO hookseal.audit_heads AS head (tenant_id, sequence, mac)
VALUES ($1, 0, $2)
    ON CONFLICT (tenant_id) DO UPDATE SET sequence = head.sequence
RETURNING sequence, mac, session_user::text AS role, clock_timestamp() AS at

-- Appends a row to the tenant's chain.
-- Writes nothing unless the row of the head exists and has the head's MAC. The check is here and not in lock_head: a
-- session that waited for the lock still has its older snapshot there, without the rows for which it waited.
-- name: add
WITH intact AS (
    SELECT FROM hookseal.audit_log WHERE tenant_id = $1 AND sequence = $2::bigint - 1 AND mac = $10::bytea
     UNION ALL
    SELECT WHERE $2::bigint = 1 AND $10::bytea = $13::bytea
), head AS (
    UPDATE hookseal.audit_heads SET sequence = $2, mac = $11 FROM intact WHERE tenant_id = $1
)
INSERT INTO hookseal.audit_log
       (tenant_id, sequence, at, actor, action, subject, before, after, correlation_id, previous_mac, mac, mac_key_id)
SELECT $1, $2, $3::timestamptz, $4::text, $5::text, $6::text, $7::text::json, $8::text::json, $9::text, $10, $11::bytea,
       $12::text
  FROM intact

-- Reads the facts of a subject's rows with one action that are newer than its last row with another action.
-- name: facts_since
SELECT l.after::text AS after
  FROM hookseal.audit_log AS l
 WHERE l.tenant_id = $1 AND l.subject = $2 AND l.action = $3
   AND l.sequence > coalesce((SELECT max(s.sequence)
                                FROM hookseal.audit_log AS s
                               WHERE s.tenant_id = $1 AND s.subject = $2 AND s.action = $4), 0)

-- Returns whether a row of the subject has these facts.
-- Searches the newest rows of the subject only: a caller that wrote the row did so just before.
-- name: is_recorded
SELECT EXISTS (
    SELECT
      FROM (SELECT l.action, l.after
              FROM hookseal.audit_log AS l
             WHERE l.tenant_id = $1 AND l.subject = $2
             ORDER BY l.sequence DESC
             LIMIT 1000) AS newest
     WHERE newest.action = $3 AND newest.after::text = $4)

-- Reads the facts of those of the newest rows of a subject that have this action.
-- name: changes
SELECT newest.before::text AS before, newest.after::text AS after
  FROM (SELECT l.action, l.before, l.after
          FROM hookseal.audit_log AS l
         WHERE l.tenant_id = $1 AND l.subject = $2
         ORDER BY l.sequence DESC
         LIMIT 1000) AS newest
 WHERE newest.action = $3

-- Reads the ends of the chains.
-- name: heads
SELECT h.tenant_id, h.sequence, h.mac
  FROM hookseal.audit_heads AS h
 WHERE h.sequence > 0 AND ($1::text IS NULL OR h.tenant_id = $1)
 ORDER BY h.tenant_id
 LIMIT $2

-- Returns the last number of a chain and the MAC of one of its rows.
-- name: at
SELECT (SELECT max(l.sequence) FROM hookseal.audit_log AS l WHERE l.tenant_id = $1) AS last,
       (SELECT l.mac FROM hookseal.audit_log AS l WHERE l.tenant_id = $1 AND l.sequence = $2) AS mac

-- Lists the tenants that have a chain.
-- Every tenant that has a row or a head, by one index lookup for each.
-- name: tenants
WITH RECURSIVE found (tenant_id) AS (
    SELECT min(tenant_id) FROM hookseal.audit_log
    UNION ALL
    SELECT (SELECT min(l.tenant_id) FROM hookseal.audit_log AS l WHERE l.tenant_id > found.tenant_id)
      FROM found
     WHERE found.tenant_id IS NOT NULL
)
SELECT tenant_id FROM found WHERE tenant_id IS NOT NULL
 UNION
SELECT tenant_id FROM hookseal.audit_heads
 ORDER BY tenant_id

-- Reads the next rows of a chain, with its head.
-- Rows and head are read by one statement, so that a concurrent append changes both or neither.
-- name: batch
SELECT head.sequence AS head_sequence,
       head.mac AS head_mac,
       r.*
  FROM (VALUES ($1::text)) AS wanted (tenant_id)
  LEFT JOIN hookseal.audit_heads AS head ON head.tenant_id = wanted.tenant_id
  LEFT JOIN LATERAL (
       SELECT l.tenant_id,
              l.sequence,
              trim_scale(extract(epoch FROM l.at) * 1000000)::text AS at_us,
              to_char(l.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS at,
              l.actor,
              l.action,
              l.subject,
              l.before::text AS before,
              l.after::text AS after,
              l.correlation_id,
              l.generation,
              l.previous_mac,
              l.mac,
              l.mac_key_id
         FROM hookseal.audit_log AS l
        WHERE l.tenant_id = wanted.tenant_id AND l.sequence >= $2
        ORDER BY l.sequence
        LIMIT $3) AS r ON true
 ORDER BY r.sequence

-- Reads a page of one tenant's rows, newest first.
-- name: page_of_tenant
SELECT l.tenant_id,
       l.sequence,
       to_char(l.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS at,
       l.actor,
       l.action,
       l.subject,
       l.before::text AS before,
       l.after::text AS after,
       l.correlation_id
  FROM hookseal.audit_log AS l
 WHERE l.tenant_id = $1
   AND ($2::text IS NULL OR l.action = $2)
   AND ($3::text IS NULL OR (l.tenant_id = $3 AND l.sequence < $4::bigint))
 ORDER BY l.sequence DESC
 LIMIT $5

-- Reads a page of all rows, newest first.
-- name: page
SELECT l.tenant_id,
       l.sequence,
       to_char(l.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS at,
       l.actor,
       l.action,
       l.subject,
       l.before::text AS before,
       l.after::text AS after,
       l.correlation_id
  FROM hookseal.audit_log AS l
 WHERE $1::text IS NULL
   AND ($2::text IS NULL OR l.action = $2)
   AND ($3::text IS NULL
        OR (l.at, l.tenant_id, l.sequence)
           < ((SELECT c.at FROM hookseal.audit_log AS c WHERE c.tenant_id = $3 AND c.sequence = $4::bigint), $3, $4::bigint))
 ORDER BY l.at DESC, l.tenant_id DESC, l.sequence DESC
 LIMIT $5
