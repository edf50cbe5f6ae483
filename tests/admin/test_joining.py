"""An Admin in a transaction of the caller: all or nothing, with none of the caller's settings in our statements."""

import asyncio
import json
from typing import Any

import asyncpg
import pytest

from hookseal import Admin
from hookseal.errors import Conflict, Malformed, NotFound
from hookseal.postgres.pool import Connection
from tests.doubles.client_certificates import Authority
from tests.doubles.logbook import audited
from tests.doubles.stored import Installation
from tests.worker.waiting import eventually

pytestmark = pytest.mark.req("DEL-18")

JANE = "jane@product.example"
URL = "https://receiver.example/hook"
NEW: dict[str, Any] = {"tenant_id": "acme", "url": URL, "event_types": ["*"], "actor": JANE}
_WAITS = """
SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')
"""
# A schema of another role, before PostgreSQL's own, with functions that fit our arguments as well.
HOSTILE = """
CREATE SCHEMA evil;
CREATE FUNCTION evil.set_config(text, text, boolean) RETURNS text LANGUAGE plpgsql
    AS $$ BEGIN RAISE 'called'; END $$;
CREATE FUNCTION evil.max(bigint) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN RAISE 'called'; END $$;
CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN RAISE 'called'; END $$;
"""


@pytest.fixture(autouse=True)
async def _customers(installation: Installation) -> None:
    await installation.pool.execute("CREATE TABLE customers (id integer)")


async def customers(installation: Installation) -> int:
    """Return the number of committed customers."""
    count: int = await installation.pool.fetchval("SELECT count(*) FROM customers")
    return count


async def added_by_hand(connection: Connection) -> None:
    """Do the caller's own work."""
    await connection.execute("INSERT INTO customers VALUES (1)")


async def test_a_change_is_committed_or_rolled_back_with_its_audit_row(
    admin: Admin, installation: Installation
) -> None:
    """A change exists after the caller's commit, with its audit row, and not before; after a rollback it never does."""
    async with installation.pool.acquire() as connection:
        rolled_back = connection.transaction()
        await rolled_back.start()
        await added_by_hand(connection)
        await admin.endpoints.add(**NEW, connection=connection)
        await rolled_back.rollback()
        assert [] == await audited(installation.pool)
        async with connection.transaction():
            await added_by_hand(connection)
            added = await admin.endpoints.add(**NEW, connection=connection)
            named: dict[str, Any] = {"tenant_id": "acme", "endpoint_id": added.endpoint_id}
            assert URL == (await admin.endpoints.get(**named, connection=connection)).url
            with pytest.raises(NotFound):
                await admin.endpoints.get(**named)

    assert URL == (await admin.endpoints.get(**named)).url
    assert (1, ["endpoint.added"]) == (
        await customers(installation),
        [row["action"] for row in await audited(installation.pool)],
    )


@pytest.mark.parametrize("begun_by", ["asyncpg", "statement"])
async def test_a_refused_change_leaves_the_transaction_usable(
    admin: Admin, installation: Installation, begun_by: str
) -> None:
    """After a refused change the caller's transaction continues, however it was begun, and its own work is kept."""
    await admin.endpoints.add(**NEW)
    async with installation.pool.acquire() as connection:
        transaction = connection.transaction()
        await (transaction.start() if begun_by == "asyncpg" else connection.execute("BEGIN"))
        await added_by_hand(connection)
        with pytest.raises(Conflict):
            await admin.endpoints.add(**NEW, connection=connection)
        await admin.endpoints.add(**NEW | {"url": f"{URL}/2"}, connection=connection)
        await (transaction.commit() if begun_by == "asyncpg" else connection.execute("COMMIT"))

    assert (1, 2) == (await customers(installation), len((await admin.endpoints.list(tenant_id="acme")).items))


async def test_the_callers_settings_are_not_used_and_are_restored(admin: Admin, installation: Installation) -> None:
    """The caller's search path is not used for our statements, and is back afterwards, as is its lock time-out."""
    await installation.pool.execute(HOSTILE)
    async with installation.pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL search_path = evil, pg_catalog, public; SET LOCAL lock_timeout = '77ms'")
        added = await admin.endpoints.add(**NEW, connection=connection)
        await admin.secrets.status(tenant_id="acme", endpoint_id=added.endpoint_id, connection=connection)
        with pytest.raises(Conflict):
            await admin.endpoints.add(**NEW, connection=connection)
        settings = await connection.fetchrow(
            "SELECT current_setting('search_path'), current_setting('lock_timeout'),"
            " current_setting('idle_in_transaction_session_timeout')"
        )

    assert settings is not None
    assert ("evil, pg_catalog, public", "77ms", "5s") == tuple(settings)


async def test_a_connection_with_json_codecs_works(admin: Admin, installation: Installation) -> None:
    """A connection that turns JSON into objects, as many applications set it up, serves as well."""
    authority = Authority()
    client = authority.client("hookseal of acme")
    async with installation.pool.acquire() as connection:
        for kind in ("json", "jsonb"):
            await connection.set_type_codec(kind, encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
        async with connection.transaction():
            how: dict[str, Any] = {"actor": JANE, "connection": connection, "tenant_id": "acme"}
            tls: dict[str, Any] = {"client_cert": client.certificate, "client_key": client.key}
            added = await admin.endpoints.add(**how, url=URL, event_types=["*"], **tls)
            named = how | {"endpoint_id": added.endpoint_id}
            await admin.endpoints.update(**named, headers={"X-A": "1"}, ca=authority.pem)
            first = await admin.secrets.rotate(**named, rotation_id="r-1")
            again = await admin.secrets.rotate(**named, rotation_id="r-1")
            found = await admin.endpoints.get(tenant_id="acme", endpoint_id=added.endpoint_id, connection=connection)

    assert (None, first.previous_secret_expires_at) == (again.secret, again.previous_secret_expires_at)
    assert first.secret == (await admin.secrets.rotate(**named | {"connection": None}, rotation_id="r-1")).secret
    assert found.tls is not None
    assert "hookseal of acme" in found.tls["client_certificate"]["subject"]


async def test_a_revocation_in_a_transaction_returns_at_once(admin: Admin, installation: Installation) -> None:
    """It cannot be complete before the commit, so it returns at once; after the commit the caller waits for it."""
    added = await admin.endpoints.add(**NEW)
    named: dict[str, Any] = {"tenant_id": "acme", "endpoint_id": added.endpoint_id}
    async with installation.pool.acquire() as connection, connection.transaction():
        rotated = await admin.secrets.rotate(**named, actor=JANE, overlap_seconds=0, connection=connection)
    await admin.secrets.wait_until_complete(**named, generation=rotated.generation)

    assert rotated.older_claims is None


async def test_a_connection_without_a_usable_transaction_is_refused(admin: Admin, installation: Installation) -> None:
    """A connection without a transaction, or with a failed one, is refused by its name."""
    async with installation.pool.acquire() as connection:
        with pytest.raises(Malformed, match="no transaction is open") as none:
            await admin.endpoints.add(**NEW, connection=connection)
        await connection.execute("BEGIN")
        with pytest.raises(asyncpg.UndefinedTableError):
            await connection.execute("SELECT FROM nowhere")
        with pytest.raises(Conflict, match="roll it back first") as failed:
            await admin.endpoints.add(**NEW, connection=connection)
        await connection.execute("ROLLBACK")

    assert ("connection", "connection") == (none.value.field, failed.value.field)
    assert [] == await audited(installation.pool)


async def test_a_read_only_transaction_is_named(admin: Admin, installation: Installation) -> None:
    """A change in a read-only transaction is refused by the name of the connection; reading goes on."""
    added = await admin.endpoints.add(**NEW)
    named: dict[str, Any] = {"tenant_id": "acme", "endpoint_id": added.endpoint_id}
    async with installation.pool.acquire() as connection, connection.transaction(readonly=True):
        await admin.endpoints.get(**named, connection=connection)
        with pytest.raises(Malformed, match="read-only: begin one that may write") as caught:
            await admin.endpoints.update(**named, actor=JANE, name="x", connection=connection)
        found = await admin.endpoints.get(**named, connection=connection)
        counted = await admin.replays.count(tenant_id="acme", connection=connection)

    assert ("connection", None, 0) == (caught.value.field, found.name, counted.would_replay)


@pytest.mark.parametrize("method", ["get", "delete"])
async def test_a_connection_in_use_is_named(admin: Admin, installation: Installation, method: str) -> None:
    """A call on a connection on which a statement runs is refused by its name; afterwards the connection works."""
    added = await admin.endpoints.add(**NEW)
    named: dict[str, Any] = {"tenant_id": "acme", "endpoint_id": added.endpoint_id}
    who = {} if method == "get" else {"actor": JANE}
    async with installation.pool.acquire() as connection, connection.transaction():
        async with installation.pool.acquire() as other, other.transaction():
            await other.execute("SELECT pg_advisory_xact_lock(1)")
            running = asyncio.create_task(connection.execute("SELECT pg_advisory_xact_lock(1)"))

            async def waits() -> bool:
                return bool(await installation.pool.fetchval(_WAITS))

            await eventually(waits)
            with pytest.raises(Conflict, match="one call at a time") as caught:
                await getattr(admin.endpoints, method)(**named, **who, connection=connection)
        await running
        await getattr(admin.endpoints, method)(**named, **who, connection=connection)

    assert "connection" == caught.value.field


async def test_a_call_during_another_on_a_connection_is_refused(admin: Admin, installation: Installation) -> None:
    """While one call uses a connection, others on it are refused and change nothing; afterwards they are made."""
    async with installation.pool.acquire() as connection, connection.transaction():
        async with admin.endpoints._session.changing(JANE, connection):
            for _ in range(2):
                with pytest.raises(Conflict, match="one call at a time") as caught:
                    await admin.endpoints.add(**NEW, connection=connection)
                assert "connection" == caught.value.field
        await admin.endpoints.add(**NEW, connection=connection)

    assert 1 == len((await admin.endpoints.list(tenant_id="acme")).items) == len(await audited(installation.pool))


async def test_concurrent_tasks_share_the_connections(admin: Admin, installation: Installation) -> None:
    """More tasks than connections use one Admin at once."""
    urls = [f"{URL}/{number}" for number in range(25)]
    await asyncio.gather(*(admin.endpoints.add(**NEW | {"url": url}) for url in urls))

    assert set(urls) == {each.url for each in (await admin.endpoints.list(tenant_id="acme")).items}


def _never(value: object) -> Any:
    raise ValueError(f"this codec is for another use: {value!r}")


@pytest.mark.parametrize(
    ("kind", "encoder", "decoder"),
    [
        ("timestamptz", str, str),
        ("date", str, str),
        ("uuid", str, str),
        ("interval", str, str),
        ("numeric", str, float),
        ("bytea", _never, _never),
        ("int8", str, str),
        ("bool", str, str),
    ],
)
async def test_a_codec_of_the_caller_is_refused_by_name(
    admin: Admin, installation: Installation, kind: str, encoder: Any, decoder: Any
) -> None:
    """A connection that reads a type in a way of its own is refused before anything is written, with what to do."""
    async with installation.pool.acquire() as connection:
        await connection.set_type_codec(kind, encoder=encoder, decoder=decoder, schema="pg_catalog")
        async with connection.transaction():
            with pytest.raises(Malformed, match=rf"codec of its own for {kind}.*reset_type_codec\('{kind}'") as refused:
                await admin.endpoints.add(**NEW, connection=connection)
            await added_by_hand(connection)
        await connection.reset_type_codec(kind, schema="pg_catalog")
        assert "connection" == refused.value.field
        assert [] == await audited(installation.pool)
        async with connection.transaction():
            await admin.endpoints.add(**NEW, connection=connection)
    assert 1 == await customers(installation)


@pytest.mark.parametrize(("kind", "encoder", "decoder"), [("json", json.dumps, json.loads), ("jsonb", str, str)])
async def test_codecs_that_change_nothing_are_no_problem(
    admin: Admin, installation: Installation, kind: str, encoder: Any, decoder: Any
) -> None:
    """A codec of a type that hookseal does not read works."""
    async with installation.pool.acquire() as connection:
        await connection.set_type_codec(kind, encoder=encoder, decoder=decoder, schema="pg_catalog")
        async with connection.transaction():
            added = await admin.endpoints.add(**NEW, connection=connection)
            await admin.endpoints.disable(
                tenant_id="acme", endpoint_id=added.endpoint_id, reason="x", actor=JANE, connection=connection
            )
        await connection.reset_type_codec(kind, schema="pg_catalog")
    assert 2 == len(await audited(installation.pool))
