-- Which objects the schema has: what decides how hookseal behaves, read from the catalog of PostgreSQL 14 to 18.
-- Left out is what an operator may tune, such as storage parameters and statistics targets, and the order of columns, which a
-- restore may change. Owners and grants are relative to the owner of the schema, whose name differs between installations.
-- The text of an expression depends on settings of the session, which the caller sets.

-- Returns the name of each object, and a digest of its definition.
-- name: objects
WITH ours AS MATERIALIZED (
    SELECT n.oid, n.nspowner, n.nspacl FROM pg_namespace AS n WHERE n.nspname = 'hookseal'
), owners AS MATERIALIZED (  -- a superuser and the owner of the database may upgrade it as well
    SELECT r.oid, CASE WHEN r.rolsuper OR r.oid IN (ours.nspowner, d.datdba) THEN 'owner' ELSE r.rolname::text END AS label
    FROM pg_roles AS r CROSS JOIN ours JOIN pg_database AS d ON d.datname = current_database()
), relations AS MATERIALIZED (
    SELECT c.*,
           CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'S' THEN 'sequence' WHEN 'c' THEN 'type'
                          ELSE 'table' END AS kind
    FROM pg_class AS c JOIN ours ON c.relnamespace = ours.oid
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'c', 'f')
), functions AS MATERIALIZED (
    SELECT p.*, format('%s(%s)', p.proname, oidvectortypes(p.proargtypes)) AS signature
    FROM pg_proc AS p JOIN ours ON p.pronamespace = ours.oid
), domains AS MATERIALIZED (
    SELECT t.* FROM pg_type AS t JOIN ours ON t.typnamespace = ours.oid WHERE t.typtype IN ('d', 'e', 'r', 'm')
), granted (object, owner, acl, part) AS (
    SELECT 'schema hookseal', ours.nspowner, coalesce(ours.nspacl, acldefault('n', ours.nspowner)), '' FROM ours
    UNION ALL
    SELECT format('%s hookseal.%s', c.kind, c.relname), c.relowner,
           coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's'::"char" ELSE 'r' END, c.relowner)), ''
    FROM relations AS c WHERE c.relkind <> 'c'
    UNION ALL
    SELECT format('%s hookseal.%s', c.kind, c.relname), c.relowner, a.attacl, a.attname
    FROM relations AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE a.attacl IS NOT NULL
    UNION ALL
    SELECT 'function hookseal.' || p.signature, p.proowner, coalesce(p.proacl, acldefault('f', p.proowner)), ''
    FROM functions AS p
    UNION ALL
    SELECT 'type hookseal.' || t.typname, t.typowner, coalesce(t.typacl, acldefault('T', t.typowner)), '' FROM domains AS t
), rights AS (
    SELECT g.object, CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE r.rolname::text END AS role, g.part,
           a.privilege_type || CASE WHEN a.is_grantable THEN '*' ELSE '' END AS privilege
    FROM granted AS g
    CROSS JOIN ours
    CROSS JOIN LATERAL aclexplode(g.acl) AS a
    LEFT JOIN pg_roles AS r ON r.oid = a.grantee
    WHERE a.grantee NOT IN (g.owner, ours.nspowner) AND (a.grantee = 0 OR r.rolname IS NOT NULL)
      -- who may create in the schema is refused by roles.py, which names the statement that ends it
      AND NOT (g.object = 'schema hookseal' AND a.privilege_type = 'CREATE')
), objects (name, definition) AS (
    SELECT format('%s hookseal.%s', c.kind, c.relname),
           concat_ws(E'\n', c.relkind, c.relpersistence, c.relrowsecurity, c.relforcerowsecurity,
                     (SELECT o.label FROM owners AS o WHERE o.oid = c.relowner),
                     CASE WHEN c.relkind IN ('v', 'm') THEN c.reloptions::text END,
                     -- Some servers leave out the name of a table before a column that has only one meaning.
                     CASE WHEN c.relkind IN ('v', 'm')
                          THEN regexp_replace(pg_get_viewdef(c.oid), '\s+|\m[a-z_]+\.', '', 'g') END)
    FROM relations AS c
    UNION ALL
    SELECT format('column %s.%s', c.relname, a.attname),
           concat_ws(E'\n', format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attgenerated, a.attidentity, a.attstorage,
                     CASE WHEN a.attcollation <> t.typcollation THEN a.attcollation::regcollation::text END,
                     pg_get_expr(d.adbin, d.adrelid))
    FROM relations AS c
    JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_type AS t ON t.oid = a.atttypid
    LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE c.relkind <> 'S'
    UNION ALL  -- from PostgreSQL 18 on a column that is not null has a constraint, too
    SELECT format('constraint %s on %s', k.conname, coalesce(c.relname, t.typname)),
           concat_ws(E'\n', pg_get_constraintdef(k.oid), k.convalidated)
    FROM pg_constraint AS k
    JOIN ours ON k.connamespace = ours.oid
    LEFT JOIN pg_class AS c ON c.oid = k.conrelid
    LEFT JOIN pg_type AS t ON t.oid = k.contypid
    WHERE k.contype NOT IN ('n', 't')
    UNION ALL
    -- A rebuild (REINDEX CONCURRENTLY) has a second index meanwhile, which is not valid. Storage parameters are not compared.
    SELECT format('%s %s on %s', CASE WHEN i.indisunique AND i.indisvalid THEN 'unique index' ELSE 'index' END, x.relname, c.relname),
           -- Before PostgreSQL 16 there are two parentheses more around an expression with AT TIME ZONE.
           concat_ws(E'\n', regexp_replace(regexp_replace(pg_get_indexdef(i.indexrelid), ' WITH \([^)]*\)', ''),
                                           '\(\(\(([^()]*)\)\)\)', '((\1))'), i.indisvalid, i.indisready, i.indimmediate)
    FROM relations AS c
    JOIN pg_index AS i ON i.indrelid = c.oid
    JOIN pg_class AS x ON x.oid = i.indexrelid
    UNION ALL
    SELECT format('trigger %s on %s', g.tgname, c.relname), concat_ws(E'\n', pg_get_triggerdef(g.oid), g.tgenabled)
    FROM relations AS c JOIN pg_trigger AS g ON g.tgrelid = c.oid
    WHERE NOT g.tgisinternal
    UNION ALL
    SELECT format('rule %s on %s', w.rulename, c.relname), concat_ws(E'\n', pg_get_ruledef(w.oid), w.ev_enabled)
    FROM relations AS c JOIN pg_rewrite AS w ON w.ev_class = c.oid
    WHERE w.rulename <> '_RETURN'
    UNION ALL
    SELECT format('policy %s on %s', y.polname, c.relname),
           concat_ws(E'\n', y.polcmd, y.polpermissive, y.polroles::regrole[]::text, pg_get_expr(y.polqual, y.polrelid),
                     pg_get_expr(y.polwithcheck, y.polrelid))
    FROM relations AS c JOIN pg_policy AS y ON y.polrelid = c.oid
    UNION ALL
    SELECT 'function hookseal.' || p.signature,
           concat_ws(E'\n', p.prokind, l.lanname, p.prosecdef, p.proleakproof, p.proisstrict, p.proretset, p.provolatile,
                     p.proparallel, pg_get_function_result(p.oid), pg_get_function_arguments(p.oid),
                     (SELECT string_agg(lower(each), ',' ORDER BY lower(each)) FROM unnest(p.proconfig) AS each),
                     (SELECT o.label FROM owners AS o WHERE o.oid = p.proowner), p.prosrc)
    FROM functions AS p JOIN pg_language AS l ON l.oid = p.prolang
    UNION ALL
    SELECT 'type hookseal.' || t.typname,
           concat_ws(E'\n', t.typtype, format_type(t.typbasetype, t.typtypmod), t.typnotnull, t.typdefault,
                     (SELECT o.label FROM owners AS o WHERE o.oid = t.typowner),
                     (SELECT string_agg(e.enumlabel, ',' ORDER BY e.enumsortorder) FROM pg_enum AS e WHERE e.enumtypid = t.oid))
    FROM domains AS t
    UNION ALL
    SELECT CASE WHEN role = ANY ($1::text[] || 'PUBLIC'::text) THEN format('rights of %s to %s', role, object)
                ELSE format('rights of another role, %s, to %s', role, object) END,
           string_agg(concat(part, ':', privilege), ',' ORDER BY part COLLATE "C", privilege COLLATE "C")
    FROM rights
    GROUP BY role, object
)
SELECT name, left(encode(sha256(convert_to(definition, 'UTF8')), 'hex'), 16) AS digest
FROM objects
ORDER BY name COLLATE "C"
