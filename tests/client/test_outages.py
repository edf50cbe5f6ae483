"""A Publisher in an outage, and without the libraries it does not need."""

import asyncio
import logging
import subprocess
import sys
from typing import Any

import pytest
from redis.asyncio import Redis

import hookseal
from hookseal import Publisher
from hookseal.embedded.server import Server
from hookseal.errors import ConfigError, Refused, Unavailable
from hookseal.postgres.pool import Pool
from hookseal.queue.direct import Direct
from hookseal.queue.rings import DEFAULT_QUEUE
from tests import rows
from tests.cli.listeners import SOON_SECONDS, black_hole, closed_port, refusing
from tests.client.stored import Stored, ids
from tests.servers import sibling

EVENT: dict[str, Any] = {"tenant_id": "acme", "event_type": "invoice.paid", "data": {"id": 1}}
IMPORT = """
import sys
import hookseal
before = set(sys.modules)
print(sorted({"aiohttp", "arq", "asyncpg", "cryptography", "pydantic", "redis", "structlog"} & before))
print(hookseal.Publisher.__name__, hookseal.Published.__name__, "asyncpg" in sys.modules, "aiohttp" in sys.modules)
"""


@pytest.mark.parametrize("silent", [False, True])
async def test_without_redis_the_event_is_stored(
    database_url: str, stored: Stored, caplog: pytest.LogCaptureFixture, silent: bool
) -> None:
    """With Redis down or silent, the event is stored without delay; the lost ring is logged, not raised."""
    async with black_hole() as (hole, _):
        port = hole if silent else closed_port()
        async with Publisher.connect(database_url, f"redis://:hunter2@127.0.0.1:{port}/0") as publisher:
            began = asyncio.get_running_loop().time()
            published = await publisher.publish(**EVENT)
            assert asyncio.get_running_loop().time() - began < SOON_SECONDS

    assert ids(published.deliveries) == await stored.delivery_ids()
    assert [("hookseal.client", logging.WARNING)] == [(record.name, record.levelno) for record in caplog.records]
    assert f"127.0.0.1:{port}" in caplog.text
    assert "hunter2" not in caplog.text


async def test_a_failed_ring_raises_nothing(
    database_url: str, stored: Stored, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever makes a ring fail, be it a defect, the event is stored and no error is raised."""
    monkeypatch.delattr(Direct, "send")
    async with Publisher.connect(database_url, f"redis://127.0.0.1:{closed_port()}/0") as publisher:
        await publisher.publish(**EVENT)

    assert 1 == await stored.count()
    assert 1 == len(caplog.records)


async def test_what_may_not_be_rung_is_left_to_the_outbox(
    database_url: str, stored: Stored, own_valkey: Server
) -> None:
    """After a ring that failed it marks nothing as rung, until a ring succeeds; without Redis it never does."""
    marks = "SELECT rung_at IS NOT NULL AS marked FROM hookseal.deliveries ORDER BY id"
    async with Publisher.connect(database_url, own_valkey.url) as publisher:
        own_valkey.freeze()
        try:
            for _ in range(2):
                await publisher.publish(**EVENT)
        finally:
            own_valkey.thaw()
        for _ in range(2):
            await publisher.publish(**EVENT)
    async with Publisher.connect(database_url, "") as publisher:
        await publisher.publish(**EVENT)

    assert [True, False, False, True, False] == [row["marked"] for row in await stored.pool.fetch(marks)]


async def test_concurrent_publishes_share_the_wait_for_redis(database_url: str, stored: Stored) -> None:
    async with black_hole() as (hole, _), Publisher.connect(database_url, f"redis://127.0.0.1:{hole}/0") as publisher:
        began = asyncio.get_running_loop().time()
        await asyncio.gather(*(publisher.publish(**EVENT) for _ in range(50)))
        assert asyncio.get_running_loop().time() - began < SOON_SECONDS

    assert 50 == await stored.count()


async def test_a_publisher_rings_again_after_an_outage(database_url: str, stored: Stored, own_valkey: Server) -> None:
    async with Publisher.connect(database_url, own_valkey.url) as publisher, Redis.from_url(own_valkey.url) as redis:
        first = await publisher.publish(**EVENT)
        own_valkey.freeze()
        try:
            await publisher.publish(**EVENT)
        finally:
            own_valkey.thaw()
        last = await publisher.publish(**EVENT)
        rung = {member.decode() for member in await redis.zrange(DEFAULT_QUEUE, 0, -1)}

    assert ids(first.deliveries + last.deliveries) <= rung <= await stored.delivery_ids()


async def test_without_a_url_of_redis_nothing_is_rung(
    database_url: str, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("REDIS_URL", "")
    monkeypatch.setenv("SECRETS_BACKEND", "of another program")
    async with Publisher.connect() as publisher:
        published = await publisher.publish(**EVENT)
        await published.ring()

    assert ids(published.deliveries) == await stored.delivery_ids()
    assert set() == await stored.rung()


async def test_urls_and_queue_come_from_the_environment(
    database_url: str, redis_url: str, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("HOOKSEAL_QUEUE", "another:queue")
    async with Publisher.connect() as publisher:
        published = await publisher.publish(**EVENT)

    assert ids(published.deliveries) == await stored.rung("another:queue")


async def test_wrong_settings_are_reported_before_connecting(database_url: str) -> None:
    for url, message in ((None, "DATABASE_URL is not set"), ("mysql://u:hunter2@h/d", "DATABASE_URL must be ")):
        with pytest.raises(ConfigError, match=message) as caught:
            async with Publisher.connect(url):
                raise AssertionError
        assert "hunter2" not in str(caught.value)
    for query, message in (
        ("sslmode=hunter2", "DATABASE_URL has the parameter sslmode, which must be "),
        ("statement_timeout=1", "DATABASE_URL has an unknown parameter, number 1 behind the '\\?'"),
        ("sslmode=require&sslrootcert=/nowhere", "DATABASE_URL has the parameter sslrootcert, whose file cannot be re"),
    ):
        with pytest.raises(ConfigError, match=f"^{message}") as caught:
            async with Publisher.connect(f"{database_url}?{query}"):
                raise AssertionError
        assert "hunter2" not in str(caught.value)
    with pytest.raises(Unavailable, match=r"offers no TLS, and DATABASE_URL asks for it"):
        async with Publisher.connect(f"{database_url}?sslmode=require"):
            raise AssertionError


async def test_urls_of_other_clients_work(database_url: str, redis_url: str, stored: Stored) -> None:
    """The urls of an app for SQLAlchemy, libpq and Valkey work unchanged: the event is stored and rung."""
    of_libpq = "connect_timeout=10&keepalives=1&channel_binding=prefer&gssencmode=prefer&application_name=shop"
    url = f"{database_url.replace('postgresql://', 'postgresql+asyncpg://')}?ssl=prefer&{of_libpq}"
    async with Publisher.connect(url, redis_url.replace("redis://", "valkey://")) as publisher:
        published = await publisher.publish(**EVENT)
        sessions = await stored.pool.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'shop'"
        )

    assert (1, True) == (sessions, ids(published.deliveries) == await stored.rung())


async def test_without_postgresql_connecting_fails() -> None:
    """With PostgreSQL down, silent or refusing, connecting fails with its address and without the password."""
    async with black_hole() as (hole, _), refusing("28P01", "no") as password, refusing("57P03", "later") as starting:
        for port in (closed_port(), hole, password, starting):
            with pytest.raises(
                Unavailable,
                match=f"PostgreSQL at 127.0.0.1:{port} (does not answer|refuses the user|is start|has no conn)",
            ) as caught:
                async with Publisher.connect(f"postgresql://user:hunter2@127.0.0.1:{port}/db"):
                    raise AssertionError
            assert "hunter2" not in str(caught.value)


async def test_a_missing_database_or_schema_is_named(database_url: str, empty_database_url: str) -> None:
    with pytest.raises(
        Unavailable, match=r"has no such database \(InvalidCatalogNameError\): create it or correct DATABASE_URL"
    ):
        async with Publisher.connect(sibling(database_url, "hookseal_test_never_made")):
            raise AssertionError
    with pytest.raises(ConfigError, match="hookseal db upgrade"):
        async with Publisher.connect(empty_database_url):
            raise AssertionError


async def test_a_frozen_postgresql_is_unavailable(own_postgres: Server) -> None:
    """A frozen PostgreSQL is `Unavailable` within seconds; once it continues, the same Publisher publishes."""
    async with Publisher.connect(own_postgres.url) as publisher:
        own_postgres.freeze()
        try:
            began = asyncio.get_running_loop().time()
            ended = await asyncio.gather(*(publisher.publish(**EVENT) for _ in range(10)), return_exceptions=True)
            assert asyncio.get_running_loop().time() - began < 2 * SOON_SECONDS
        finally:
            own_postgres.thaw()

        assert [Unavailable] * 10 == [type(error) for error in ended]
        assert 10 == len(set(map(id, ended)))  # they share a statement, and each has an error of its own
        assert not (await publisher.publish(**EVENT)).duplicate


async def test_a_closed_publisher_says_so(database_url: str) -> None:
    async with Publisher.connect(database_url) as publisher:
        pass
    with pytest.raises(Refused, match="this Publisher is closed"):
        await publisher.publish(**EVENT)


@pytest.mark.req("DEL-01")
async def test_another_role_than_a_producer_is_refused(pool: Pool, database_url: str) -> None:
    role = "hookseal_test_" + (await pool.fetchval("SELECT current_database()"))[-24:]
    url = f"postgresql://{role}:p@{database_url.partition('@')[2]}"
    await pool.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'p'")
    try:
        with pytest.raises(Refused, match="hookseal_producer"):
            async with Publisher.connect(url):
                raise AssertionError
        await pool.execute(f"GRANT hookseal_producer TO {role}")
        await rows.grant(pool, role)
        async with Publisher.connect(url) as publisher:
            await publisher.publish(**EVENT)
            with pytest.raises(Refused, match=f"producer grant --role {role} --tenant globex`"):
                await publisher.publish(**(EVENT | {"tenant_id": "globex"}))
    finally:
        await pool.execute(f"REVOKE hookseal_producer FROM {role}; DROP ROLE {role}")


def test_an_import_loads_no_library() -> None:
    """Importing hookseal loads none of its libraries; the first use of the Publisher loads what publishing needs."""
    run = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=False)

    assert ("[]\nPublisher Published True False\n", "") == (run.stdout, run.stderr)


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert all(hasattr(hookseal, name) for name in hookseal.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Publishr'"):
        hookseal.Publishr  # type: ignore[attr-defined] # noqa: B018 -- asking is the test
