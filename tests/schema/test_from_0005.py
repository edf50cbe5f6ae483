"""From revision 0005, with what an installation holds: rights stay with their roles, and every epoch can be moved."""

import asyncpg
import pytest

from hookseal.dispatcher import producers
from hookseal.schema.upgrade import upgrade
from hookseal.secrets import epoch
from tests.doubles.logins import login
from tests.schema.older import upgraded_to

HIGHEST = 2**63 - 1


@pytest.mark.req("OPS-09", part="from-the-previous")
@pytest.mark.req("OPS-10")
async def test_publish_rights(empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each right is that of the role which has the name now; one whose role is gone by then is stale."""
    await upgraded_to("0005", empty_database_url, monkeypatch)
    async with (
        asyncpg.create_pool(empty_database_url, min_size=1, max_size=2) as pool,
        login(pool, empty_database_url) as (role, _),
    ):
        for name in (role, "nobody-of-this-name"):
            await pool.execute("INSERT INTO hookseal.producers (tenant_id, role_name) VALUES ('acme', $1)", name)

        await upgrade(empty_database_url)

        found = await producers.every(pool, role=None, tenant=None)
        assert {role: (True, False), "nobody-of-this-name": (False, True)} == {
            row["role"]: (row["role_exists"], row["stale"]) for row in found
        }


@pytest.mark.req("OPS-09", part="from-the-previous")
@pytest.mark.req("SEC-06", part="cache-epoch")
@pytest.mark.parametrize("written", [HIGHEST, -HIGHEST, 10**15 + 1])
async def test_an_epoch_that_no_command_could_move(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    """One that a writer has put out of bounds is put within; one that is within stays what it is."""
    await upgraded_to("0005", empty_database_url, monkeypatch)
    connection = await asyncpg.connect(empty_database_url)
    try:
        await connection.execute("UPDATE hookseal.control SET epoch = $1 WHERE name IN ('cache', 'restore')", written)
        await connection.execute("UPDATE hookseal.control SET epoch = 7 WHERE name = 'outbox'")

        await upgrade(empty_database_url)

        found = dict(map(tuple, await connection.fetch("SELECT name, epoch FROM hookseal.control")))
        assert (1, 7) == (found["cache"], found["outbox"])
        assert 1_700_000_000_000 < found["restore"] < 10_000_000_000_000
        async with connection.transaction():
            assert 2 == await epoch.move(connection)
            assert found["restore"] < await epoch.open_restore(connection)
    finally:
        await connection.close()
