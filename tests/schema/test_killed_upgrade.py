"""A migration that is killed at any statement."""

import asyncpg
import pytest

from hookseal.errors import Unavailable
from hookseal.postgres.schema import fingerprint, revision
from hookseal.postgres.schema.upgrade import upgrade
from tests.cli.command import hookseal
from tests.schema.test_upgrade import ROWS_OF_0001, execute

# The server ends the session of the migration after the statement of that number. A sequence keeps its value then.
_KILLER = """
CREATE SEQUENCE public.statements;
CREATE TABLE public.doomed (number bigint NOT NULL);
INSERT INTO public.doomed VALUES (0);
CREATE FUNCTION public.count_and_kill() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('public.statements') = (SELECT number FROM public.doomed) THEN
        PERFORM pg_terminate_backend(pg_backend_pid());
    END IF;
END
$$;
CREATE EVENT TRIGGER killing ON ddl_command_end EXECUTE FUNCTION public.count_and_kill()
"""
_DOOM = "SELECT setval('public.statements', 1, false); UPDATE public.doomed SET number = {number}"
STEP = 12


@pytest.mark.req("OPS-09", part="killed")
@pytest.mark.req("OPS-13")
async def test_a_migration_killed_at_any_statement_is_undone(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """The database stays at the old revision as it was, until the migration commits; the next run ends the upgrade.

    Behind the migration one more statement, in a transaction of its own, gives the functions their owner.
    One run of this test kills at every twelfth statement. The seed of the run says at which one it begins.
    """
    monkeypatch.setattr(revision, "EXPECTED", "0001")
    await upgrade(empty_database_url)
    monkeypatch.undo()
    await execute(empty_database_url, ROWS_OF_0001)
    connection = await asyncpg.connect(empty_database_url)
    try:
        before = await fingerprint.read(connection)
        await connection.execute(_KILLER)
        first = 1 + request.config.getoption("randomly_seed", 0) % STEP
        await connection.execute(_DOOM.format(number=first))
        ended = await hookseal("db", "upgrade", DATABASE_URL=empty_database_url)
        assert (69, "") == (ended.code, ended.out)
        assert "run `hookseal db upgrade` again" in ended.err

        doomed = first
        while await _is_killed(empty_database_url, connection, doomed):
            if await revision.current(connection) == "0001":
                assert before == await fingerprint.read(connection)
            else:
                await _require_new(connection)
            doomed += STEP
        assert doomed > 150
        await _require_new(connection)
        assert 4 == await connection.fetchval("SELECT count(*) FROM hookseal.endpoints")
    finally:
        await connection.close()


async def _require_new(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    compared = await fingerprint.compare(connection)
    assert compared is not None
    assert (revision.EXPECTED, compared.expected) == (compared.revision, compared.found)


async def _is_killed(url: str, connection: "asyncpg.Connection[asyncpg.Record]", number: int) -> bool:
    await connection.execute(_DOOM.format(number=number))
    try:
        await upgrade(url)
    except Unavailable:
        return True
    return False
