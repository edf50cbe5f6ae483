"""Whether a role that does not own it has a say in what our statements call: that may not be.

Our statements find what is in `pg_catalog`, and name what is in `hookseal`. A function that somebody else makes there
may fit a call better than the one that is meant, and runs with the rights of whoever calls it. What may be created
elsewhere, in `public` for instance, is not found, and is nobody's concern here.
"""

from typing import Final

from hookseal.ground.errors import Refused
from hookseal.schema.database import Executor

# Who is a member of the owner, as every superuser is of every role, can replace all that is in the schema anyway.
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
# A check or a generated column is bound once, to what the search path of whoever made it found then.
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
    """Return only if nobody may add to what we call but owners, their members and superusers.

    Raises `Refused`, with what to run.
    """
    statements = [row["statement"] for row in await executor.fetch(_TO_RUN)]
    if statements:
        raise Refused(
            "another role may create functions where hookseal finds those that it calls, or has: hookseal would run "
            "them with its own rights. Have the owner of the schema run, then try again:"
            + "".join(f"\n  {statement}" for statement in statements)
        )


async def refuse_bound(executor: Executor) -> None:
    """Return only if every check and generated column of ours calls PostgreSQL's functions or ours. Raises `Refused`.

    A version of hookseal without a search path of its own could have bound one to a function of somebody else.
    """
    found = [row["found"] for row in await executor.fetch(_BOUND)]
    if found:
        raise Refused(
            "a function of another schema stands in the tables of hookseal: it was found in place of PostgreSQL's own "
            "when they were made, and runs with the rights of whoever writes. Treat it as a break-in "
            "(docs/threat-model.md, A17), and have the owner replace" + "".join(f"\n  {each}" for each in found)
        )
