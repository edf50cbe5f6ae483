"""Statements are read by name, and run on a pool or a connection."""

import re
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

import asyncpg
import pytest

from hookseal.errors import Unavailable
from hookseal.postgres.pool import Pool
from hookseal.postgres.statements import Statements, statements

SQL = Statements("tests.postgres", "some.sql")


def test_a_statement_is_the_text_under_its_name() -> None:
    """Each statement is the text under its name, without the name."""
    found = statements("hookseal.dispatcher.store", "publish.sql")

    ours = {"publish", "publish_raw", "publish_event", "publish_many", "publish_events", "publish_together"}
    fragments = {"answer", "dated", "patience", "given_patiently"}
    assert ours | fragments | {"publish_events_together", "send_example"} == {*found}
    assert "SELECT event_id" in found["publish"]
    assert "-- name" not in found["publish_raw"]


def test_every_statement_says_what_it_does() -> None:
    """Above each name in an SQL file is a comment that begins with a sentence."""
    house = Path(str(files("hookseal")))
    found = [
        (file.name, name[1], name[0])
        for file in house.rglob("*.sql")
        for name in re.findall(r"((?:^--(?! name:)[^\n]*\n)*)^-- name: (\w+)$", file.read_text(), re.MULTILINE)
    ]

    assert 150 < len(found)
    assert [] == [where for *where, described in found if not re.match(r"-- [A-Z`][^.]*[.:]", described)]


async def test_no_statement_needs_the_description_of_a_type(pool: Pool) -> None:
    """The driver knows every type, so that a new connection does not ask PostgreSQL for one before a statement."""
    needed = dict[str, set[str]]()
    async with pool.acquire() as connection:
        for (where, name), text in _every_statement().items():
            prepared = await connection.prepare(text)
            types = [*prepared.get_parameters(), *(column.type for column in prepared.get_attributes())]
            unknown = {each.name for each in types if each.kind != "scalar" and each.name != "text[]"}
            needed |= {f"{where}: {name}": unknown} if unknown else {}

    assert {"rewrap.sql: write": {"int8[]", "bytea[]"}} == needed  # once for thousands of records


def _every_statement() -> dict[tuple[str, str], str]:
    house = Path(str(files("hookseal")))
    found = {
        (file.name, name): text
        for file in house.rglob("*.sql")
        for name, text in statements(".".join(file.relative_to(house.parent).parent.parts), file.name).items()
        if re.match(r"[A-Z]", text) and f"{{{name}}}" not in file.read_text()  # else it is a part of statements
    }
    assert 150 < len(found)
    return found


def test_fragments_are_inserted_completely() -> None:
    """Shared fragments are inserted into the statements completely, and no placeholder is left."""
    found = statements("hookseal.secrets.endpoint", "pointer.sql")

    assert "e.url, e.scheme" in found["lock"]
    assert "AS restore_epoch" in found["page"]
    assert "{" not in "".join(found.values())
    assert found["time_after"].endswith("$1)")


async def test_a_statement_returns_rows_row_value_or_count(pool: Pool) -> None:
    """A statement can return its rows, its first row, its first value or the number of changed rows, on any source."""
    async with pool.acquire() as connection:
        for source in (pool, connection):
            assert [(1, "a"), (2, "b")] == [tuple(row) for row in await SQL.rows(source, "some", 2)]
            assert (1, "a") == tuple(await SQL.row(source, "some", 2) or ())
            assert await SQL.row(source, "some", 0) is None
            assert 1 == await SQL.value(source, "some", 2)
            assert await SQL.value(source, "some", 0) is None
            assert 2 == await SQL.execute(source, "some", 2)
            assert 0 == await SQL.execute(source, "none")


async def test_a_statement_has_a_time_limit(pool: Pool) -> None:
    """A statement fails after its time limit; without a limit it runs to its end."""
    hasty, patient = (Statements("tests.postgres", "some.sql", seconds=seconds) for seconds in (0.05, None))

    with pytest.raises(Unavailable, match=r"^PostgreSQL does not answer \(TimeoutError\)$"):
        await hasty.value(pool, "slow", 5.0)
    assert await patient.value(pool, "slow", 0.1) is not None


async def test_a_transaction_rolls_back_alone_and_one_write_joins(pool: Pool) -> None:
    """`transaction` rolls back alone, even inside the caller's; `one_write` joins the caller's transaction."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("CREATE TEMPORARY TABLE kept (number integer) ON COMMIT DROP")
        with suppress(KeyError):
            async with SQL.transaction(connection) as own:
                await own.execute("INSERT INTO kept VALUES (1)")
                raise KeyError
        async with SQL.one_write(connection) as joined:
            assert connection is joined
            await joined.execute("INSERT INTO kept VALUES (2)")
        assert [2] == [row["number"] for row in await connection.fetch("SELECT number FROM kept")]
    async with SQL.one_write(pool) as own:
        assert own.is_in_transaction()
    async with SQL.connected(pool) as bare:
        assert not bare.is_in_transaction()


async def test_an_error_in_a_transaction_is_translated(pool: Pool) -> None:
    """An outage inside the block is translated like that of a statement; another error is passed on."""
    for giving in (SQL.transaction, SQL.one_write, SQL.connected):
        with pytest.raises(Unavailable, match=r"^PostgreSQL does not answer \(ConnectionResetError\)$"):
            async with giving(pool):
                raise ConnectionResetError
        with pytest.raises(asyncpg.CheckViolationError):
            async with giving(pool):
                raise asyncpg.CheckViolationError
