-- Returns what each of the roles $1 may do with each object of the schema: in its own right, by membership in other roles, or as
-- one of PUBLIC, which is also a name of $1. What PUBLIC may do is returned for PUBLIC alone. Of tables and views what may be
-- granted for single columns is returned for each column.
-- name: held
WITH roles AS (
    SELECT name FROM unnest($1::text[]) AS name
    WHERE name = 'public' OR EXISTS (SELECT FROM pg_roles WHERE rolname = name)
), ours AS (
    SELECT oid FROM pg_namespace WHERE nspname = 'hookseal'
), relations AS (
    SELECT c.oid, format('%s hookseal.%s', CASE WHEN c.relkind IN ('v', 'm') THEN 'view' ELSE 'table' END, c.relname) AS object
    FROM pg_class AS c JOIN ours ON c.relnamespace = ours.oid
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
), functions AS (  -- with another search path, the schema does not stand before a type of ours
    SELECT p.oid, format('function hookseal.%s(%s)', p.proname,
                         regexp_replace(oidvectortypes(p.proargtypes), '\m(hookseal\.)?(given_event)', 'hookseal.\2', 'g')) AS object,
           pg_get_userbyid(p.proowner)::text AS owner
    FROM pg_proc AS p JOIN ours ON p.pronamespace = ours.oid
), held AS (
    SELECT r.name, c.object, p.word, NULL AS part
    FROM roles AS r CROSS JOIN relations AS c
    CROSS JOIN unnest('{DELETE,TRUNCATE,TRIGGER}'::text[] || '{DELETE WITH GRANT OPTION}'::text[]) AS p (word)
    WHERE has_table_privilege(r.name, c.oid, p.word)
      AND (r.name = 'public' OR NOT has_table_privilege('public', c.oid, p.word))
    UNION ALL
    SELECT r.name, c.object, p.word, a.attname::text
    FROM roles AS r CROSS JOIN relations AS c
    JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    CROSS JOIN unnest('{SELECT,INSERT,UPDATE,REFERENCES}'::text[]
        || '{SELECT WITH GRANT OPTION,INSERT WITH GRANT OPTION,UPDATE WITH GRANT OPTION}'::text[]) AS p (word)
    WHERE has_column_privilege(r.name, c.oid, a.attnum, p.word)
      AND (r.name = 'public' OR NOT has_column_privilege('public', c.oid, a.attnum, p.word))
    UNION ALL
    SELECT r.name, f.object, p.word, NULL
    FROM roles AS r CROSS JOIN functions AS f CROSS JOIN (VALUES ('EXECUTE'), ('EXECUTE WITH GRANT OPTION')) AS p (word)
    WHERE has_function_privilege(r.name, f.oid, p.word)
      AND (r.name = 'public' OR NOT has_function_privilege('public', f.oid, p.word))
      AND NOT (p.word <> 'EXECUTE' AND f.owner = r.name)
    UNION ALL
    SELECT r.name, 'schema hookseal', p.word, NULL
    FROM roles AS r CROSS JOIN ours CROSS JOIN (VALUES ('USAGE'), ('CREATE')) AS p (word)
    WHERE has_schema_privilege(r.name, ours.oid, p.word)
      AND (r.name = 'public' OR NOT has_schema_privilege('public', ours.oid, p.word))
)
SELECT name AS role, object, word AS privilege, array_remove(array_agg(part ORDER BY part), NULL) AS columns
FROM held
GROUP BY 1, 2, 3
ORDER BY 1, 2, 3

-- Returns the columns of each table and view.
-- name: columns
SELECT format('%s hookseal.%s', CASE WHEN c.relkind IN ('v', 'm') THEN 'view' ELSE 'table' END, c.relname) AS object,
       array_agg(a.attname::text ORDER BY a.attnum) AS columns
FROM pg_class AS c
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = 'hookseal'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
GROUP BY 1

-- Returns the name of this login, and whether it may do everything: as a superuser, or as a member of the owner of the schema.
-- name: login
SELECT current_user::text AS name, r.rolsuper OR pg_has_role(r.oid, n.nspowner, 'MEMBER') AS is_owner
FROM pg_roles AS r, pg_namespace AS n
WHERE r.rolname = current_user AND n.nspname = 'hookseal'
