"""Refuses a database in which another role than the owner could replace the functions that our statements call.

Our statements use the schemas `pg_catalog` and `hookseal` only. A function that another role creates in one of them may
match a call better than the intended one, and would run with the rights of the caller. Functions in other schemas, for
instance `public`, are never called.
"""

from typing import Final

from hookseal.ground.errors import Refused
from hookseal.postgres.handles import Executor

# A member of the owner, as every superuser is, can replace everything in the schema anyway.
_TO_RUN: Final = """
SELECT format('REVOKE CREATE ON SCHEMA %I FROM %s;', n.nspname,
              CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(r.rolname) END) AS statement
  FROM pg_namespace AS n
 CROSS JOIN LATERAL aclexplode(n.nspacl) AS a
  LEFT JOIN pg_roles AS r ON r.oid = a.grantee
 WHERE n.nspname IN ('hookseal', 'pg_catalog') AND a.privilege_type = 'CREATE'
   AND pg_has_role(r.oid, n.nspowner, 'MEMBER') IS NOT TRUE
 UNION
SELECT format('DROP ROUTINE %s;', p.oid::regprocedure)
  FROM pg_proc AS p
  JOIN pg_namespace AS n ON n.oid = p.pronamespace
  JOIN pg_roles AS r ON r.oid = p.proowner
 WHERE n.nspname IN ('hookseal', 'pg_catalog') AND NOT pg_has_role(p.proowner, n.nspowner, 'MEMBER')
   AND (n.nspname, r.rolname) <> ('hookseal', 'hookseal_publisher')
 ORDER BY statement
"""
# A check or a generated column is bound when it is created, with the search path of that session.
_BOUND: Final = """
WITH ours AS (
    SELECT 'pg_constraint'::regclass AS kind, oid FROM pg_constraint WHERE connamespace = 'hookseal'::regnamespace
     UNION ALL
    SELECT 'pg_attrdef'::regclass, d.oid
      FROM pg_attrdef AS d
      JOIN pg_class AS c ON c.oid = d.adrelid AND c.relnamespace = 'hookseal'::regnamespace
)
SELECT DISTINCT format('%s uses %s', pg_describe_object(d.classid, d.objid, 0),
                       pg_describe_object(d.refclassid, d.refobjid, 0)) AS found
  FROM ours
  JOIN pg_depend AS d ON d.classid = ours.kind AND d.objid = ours.oid
  LEFT JOIN pg_proc AS p ON d.refclassid = 'pg_proc'::regclass AND p.oid = d.refobjid
  LEFT JOIN pg_operator AS o ON d.refclassid = 'pg_operator'::regclass AND o.oid = d.refobjid
 WHERE coalesce(p.pronamespace, o.oprnamespace) NOT IN ('hookseal'::regnamespace, 'pg_catalog'::regnamespace)
 ORDER BY found
"""


async def refuse(executor: Executor) -> None:
    """Raise `Refused`, with the statements to run, if an untrusted role may add functions to the two schemas, or has.

    Owners, members of their roles and superusers are not untrusted.
    """
    statements = [row["statement"] for row in await executor.fetch(_TO_RUN)]
    if statements:
        raise Refused(
            "another role may create functions where hookseal finds those that it calls, or has: hookseal would run "
            "them with its own rights. Have the owner of the schema run, then try again:"
            + "".join(f"\n  {statement}" for statement in statements)
        )


async def refuse_bound(executor: Executor) -> None:
    """Raise `Refused` if a check or generated column of ours calls a function outside the two schemas.

    One that was created by hand, with another search path, may be bound to a function of another role.
    """
    found = [row["found"] for row in await executor.fetch(_BOUND)]
    if found:
        raise Refused(
            "a function of another schema stands in the tables of hookseal: it was found in place of PostgreSQL's own "
            "when they were made, and runs with the rights of the role that writes. Treat it as a break-in "
            "(docs/threat-model.md, A17), and have the owner replace" + "".join(f"\n  {each}" for each in found)
        )
