"""Other ways to dump and to restore: plain SQL, only the schema, and without a superuser."""

from pathlib import Path

import asyncpg
import pytest

from hookseal.ground.clock import SystemClock
from hookseal.receiver import verify
from tests.restore.documented import Shell, documented
from tests.restore.sites import OWNER, PRODUCER, WORKER, Site, begun, restored, shell
from tests.worker.world import Receiver

pytestmark = pytest.mark.req("SEC-21", part="same-key")

_OWNERS = """
SELECT DISTINCT proowner::regrole::text FROM pg_proc
 WHERE pronamespace = 'hookseal'::regnamespace
   AND proname IN ('publish', 'publish_raw', 'report_exhausted', 'forget_notices')
"""


async def test_the_schema_alone_works_in_another_database(
    old: Site, new: Site, redis_url: str, receiver: Receiver, tmp_path: Path
) -> None:
    """The schema of hookseal works in another database, beside other tables."""
    sh = shell(tmp_path, redis_url, DATABASE=old.bare_url(OWNER), NEW_SERVER=new.bare_url(database="postgres"))
    old.store_passwords(sh)
    async with begun(old, redis_url, tmp_path) as world:
        added = await world.endpoint(f"{receiver.base_url}/hook")
        [pending] = await world.publish(rung=False)
        await sh.done(
            documented("Back up")[1],
            'pg_dump --dbname="$DATABASE" --schema=hookseal --format=plain --file=hookseal.sql',
        )

    new.store_passwords(sh)
    await sh.done(*documented("1. The roles"))
    await new.set_passwords(make=False)
    await sh.done(documented("2. The database")[0])
    await new.execute("CREATE TABLE product (id integer)", "INSERT INTO product VALUES (1)", database="app")
    await sh.done(documented("2. The database")[-1], RESTORED=new.bare_url())

    async with restored(new, redis_url, tmp_path) as world, world.worker(DATABASE_URL=new.url(WORKER)):
        await world.state(pending, "delivered")
    got = receiver.received[0]
    assert added.secret is not None
    verify(got.body, got.headers, [added.secret.reveal().decode()], now=SystemClock().now())


async def owners(at: Site) -> list[str]:
    """Return the owners of the publishing functions."""
    connection = await asyncpg.connect(at.url())
    try:
        return [row[0] for row in await connection.fetch(_OWNERS)]
    finally:
        await connection.close()


async def test_upgrade_restores_the_publishing_owner(old: Site, redis_url: str, tmp_path: Path) -> None:
    """With `--no-owner` the restoring role owns the publishing functions; `db upgrade` restores their owner."""
    sh = shell(tmp_path, redis_url, DATABASE=old.bare_url(OWNER), OWNED=old.bare_url(OWNER))
    old.store_passwords(sh)
    async with begun(old, redis_url, tmp_path) as world:
        await sh.done(f"hookseal producer grant --role {PRODUCER} --tenant acme", DATABASE_URL=old.url(OWNER))
        await world.installation.endpoint()
        await sh.done(documented("Back up")[0])
    await old.execute("DROP DATABASE app WITH (FORCE)", f"CREATE DATABASE app OWNER {OWNER}")
    restore, upgrade = documented("2. The database")[3:5]

    with_owner = await sh.run(restore.replace("--no-owner ", ""))
    assert "permission denied for schema hookseal" in with_owner.err
    await sh.done(restore)
    assert [OWNER] == await owners(old)

    await no_more_rights(old, sh, upgrade.replace("$OWNED", old.url(OWNER)))


async def no_more_rights(at: Site, sh: Shell, upgrade: str) -> None:
    """Run the upgrade, and require that exactly the roles with the right can publish."""
    await sh.done(upgrade)
    assert ["hookseal_publisher"] == await owners(at)
    for login in (OWNER, PRODUCER):
        await publish(at, login)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await publish(at, WORKER)
    connection = await asyncpg.connect(at.url())
    try:
        assert not await connection.fetchval("SELECT has_schema_privilege('hookseal_publisher', 'hookseal', 'CREATE')")
    finally:
        await connection.close()


async def publish(at: Site, login: str) -> None:
    """Publish an event with that login."""
    connection = await asyncpg.connect(at.url(login))
    try:
        await connection.execute("SELECT hookseal.publish('acme', 'invoice.paid', '{}'::json)")
    finally:
        await connection.close()


async def test_a_schema_of_the_superuser_is_refused(old: Site, redis_url: str, tmp_path: Path) -> None:
    """After `--no-owner` by a superuser the schema is the superuser's, and `db upgrade` refuses its old owner."""
    sh = shell(tmp_path, redis_url, DATABASE=old.bare_url(OWNER), OWNED=old.bare_url())
    old.store_passwords(sh)
    async with begun(old, redis_url, tmp_path) as world:
        await world.installation.endpoint()
        await sh.done(documented("Back up")[0])
    await old.execute("DROP DATABASE app WITH (FORCE)", "CREATE DATABASE app")
    await sh.done(documented("2. The database")[3])
    assert "hookseal_publisher" not in await owners(old)

    refused = await sh.run("hookseal db upgrade --json", DATABASE_URL=old.url(OWNER))
    assert 5 == refused.code
    assert "log in as the owner of the schema" in refused.json["error"]["message"]
    await sh.done("hookseal db upgrade", DATABASE_URL=old.url())
    assert ["hookseal_publisher"] == await owners(old)
