"""Functions in `public`, made by a login with few rights, that match the calls of hookseal better than built-in ones.

Each counts its calls in a sequence, which no rollback resets, and then does the same as the built-in function.
"""

from typing import Final

from hookseal.postgres.pool import Executor

_FUNCTION: Final = """
CREATE SEQUENCE public.of_{number};
GRANT USAGE ON SEQUENCE public.of_{number} TO PUBLIC;
CREATE FUNCTION public.{name}({arguments}) RETURNS {returns} LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM nextval('public.of_{number}');
    RETURN {body};
END $$
"""
_SET: Final = """
CREATE SEQUENCE public.of_{number};
GRANT USAGE ON SEQUENCE public.of_{number} TO PUBLIC;
CREATE FUNCTION public.{name}({arguments}) RETURNS SETOF {returns} LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM nextval('public.of_{number}');
    RETURN QUERY SELECT * FROM {body};
END $$
"""
# name, arguments, return type, call of the built-in function
_FUNCTIONS: Final = (
    ("array_remove", "text[], text", "text[]", "pg_catalog.array_remove($1, $2)"),
    ("format", "text, text", "text", "pg_catalog.format($1, $2)"),
    ("concat_ws", "text, text, text, text, bigint", "text", "pg_catalog.concat_ws($1, $2, $3, $4, $5)"),
    ("contains", "text[], text[]", "boolean", "$1 OPERATOR(pg_catalog.@>) $2"),
    ("append", "text[], text", "text[]", "$1 OPERATOR(pg_catalog.||) $2"),
    ("name_is", "name, varchar", "boolean", "$1::text OPERATOR(pg_catalog.=) $2::text"),
    ("number_is", "bigint, numeric", "boolean", "$1::numeric OPERATOR(pg_catalog.=) $2"),
    ("as_text", "uuid", "text", "pg_catalog.uuid_send($1)::text"),
)
_SETS: Final = (("unnest", "text[]", "text", "pg_catalog.unnest($1)"),)
_OPERATORS: Final = """
CREATE OPERATOR public.@> (LEFTARG = text[], RIGHTARG = text[], FUNCTION = public.contains);
CREATE OPERATOR public.|| (LEFTARG = text[], RIGHTARG = text, FUNCTION = public.append);
CREATE OPERATOR public.= (LEFTARG = name, RIGHTARG = varchar, FUNCTION = public.name_is);
CREATE OPERATOR public.= (LEFTARG = bigint, RIGHTARG = numeric, FUNCTION = public.number_is);
CREATE FUNCTION public.is_taken(pg_catalog.text) RETURNS boolean LANGUAGE plpgsql
    AS $$ BEGIN PERFORM public.as_text(NULL); RETURN true; END $$;
CREATE DOMAIN public.text AS pg_catalog.text CHECK (public.is_taken(VALUE::pg_catalog.text));
CREATE DOMAIN public.json AS pg_catalog.json CHECK (public.is_taken('x'));
CREATE TYPE public.loot AS (id uuid);
CREATE FUNCTION public.loot(uuid) RETURNS public.loot LANGUAGE plpgsql
    AS $$ BEGIN PERFORM public.as_text($1); RETURN pg_catalog.row($1); END $$;
CREATE CAST (uuid AS public.loot) WITH FUNCTION public.loot(uuid) AS IMPLICIT;
CREATE FUNCTION public.lower(public.loot) RETURNS text LANGUAGE sql AS 'SELECT ''taken''';
"""


async def make(mallory: Executor) -> None:
    """Create all of them, as a login that may create in `public`."""
    for template, kind in ((_FUNCTION, _FUNCTIONS), (_SET, _SETS)):
        for name, arguments, returns, body in kind:
            await mallory.execute(
                template.format(number=name, name=name, arguments=arguments, returns=returns, body=body)
            )
    await mallory.execute(_OPERATORS.replace("pg_catalog.row(", "row("))


async def called(owner: Executor) -> list[str]:
    rows = await owner.fetch(
        "SELECT pg_catalog.substr(sequencename, 4) AS name FROM pg_catalog.pg_sequences"
        " WHERE schemaname = 'public' AND last_value IS NOT NULL ORDER BY 1"
    )
    return [row["name"] for row in rows]
