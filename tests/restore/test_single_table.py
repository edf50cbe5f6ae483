"""One table of an older dump is restored into a newer database: found without a head, held, accepted or refused."""

from pathlib import Path

import pytest

from hookseal.operations.endpoint.endpoints import AddedEndpoint
from hookseal.secrets import restore
from tests.cli.command import Ended
from tests.cli.shell import Shell
from tests.restore.sites import OWNER, Site, begun, deleted, documented, is_signed_with, secret_of, shell
from tests.worker.world import Receiver, World

pytestmark = pytest.mark.req("SEC-21", part="in-part")


class Part:
    """An installation that has continued after its dump, and one restored table of the dump."""

    def __init__(self, world: World, receiver: Receiver, sh: Shell) -> None:
        self.world = world
        self.receiver = receiver
        self._sh = sh
        self.endpoints: dict[str, AddedEndpoint] = {}

    async def add(self, *tenants: str) -> None:
        """Add an endpoint for each tenant."""
        for tenant in tenants:
            url = f"{self.receiver.base_url}/{tenant}"
            self.endpoints[tenant] = await self.world.endpoint(url, tenant=tenant)

    async def continue_after_dump(self) -> None:
        """Make the dump; then rotate one endpoint, delete one, add one."""
        await self.add("rotated", "deleted", "stays")
        await self._sh.done(documented("Back up")[0])
        await self.world.rotate(self.endpoints["rotated"])
        await deleted(self.world, self.endpoints["deleted"])
        await self._sh.done(documented("Back up")[2])
        await self.add("added")

    async def put_back(self, table: str) -> Ended:
        """Restore the table as the page says."""
        return await self._sh.run(documented("One table of an older dump")[0].replace("endpoints", table))

    async def run(self, command: str) -> Ended:
        """Run a command with `--json`."""
        return await self._sh.run(f"hookseal {command} --json")

    async def kinds(self) -> dict[str, str]:
        """Return the kind of each listed row, by tenant."""
        return {one.tenant_id: one.kind.value async for one in restore.find_stale(self.world.pool)}


def shell_of(at: Site, folder: Path, redis_url: str) -> Shell:
    sh = shell(folder, redis_url, DATABASE=at.bare_url(OWNER), RESTORED=at.bare_url(OWNER), DATABASE_URL=at.url(OWNER))
    at.store_passwords(sh)
    return sh


async def test_older_endpoint_rows_are_held_until_accepted(
    old: Site, redis_url: str, receiver: Receiver, tmp_path: Path
) -> None:
    """Deliveries of older rows are held, others are sent; once accepted, old rows count and lost ones are deleted.

    The audit log cannot be restored in this way: it is append-only, even for its owner.
    """
    async with begun(old, redis_url, tmp_path) as world:
        part = Part(world, receiver, shell_of(old, tmp_path, redis_url))
        await part.continue_after_dump()
        [cancelled] = await world.publish("added", rung=False)
        refused = await part.put_back("audit_log")
        assert "audit_log is append-only" in refused.err
        assert 0 == (await part.put_back("endpoints")).code
        assert {"rotated": "endpoint", "deleted": "endpoint", "added": "lost"} == await part.kinds()
        async with world.worker():
            [held], [sent] = [await world.publish(tenant) for tenant in ("rotated", "stays")]
            await world.state(held, "pending", waiting_for="secret")
            await world.state(cancelled, "pending", waiting_for="secret")
            await world.state(sent, "delivered")

            accepted = await part.run("restore accept --head heads.json")
            assert (0, []) == (accepted.code, accepted.json["refused"])
            await world.state(held, "delivered")
            [back] = await world.publish("deleted")
            await world.state(back, "delivered")
        assert "cancelled" == (await world.installation.delivery(cancelled))["state"]
        assert {} == await part.kinds()
        assert 0 == (await part.run("audit verify --head heads.json")).code
    assert is_signed_with(receiver.received[1], secret_of(part.endpoints["rotated"]))
    assert ["/stays", "/rotated", "/deleted"] == [got.path for got in receiver.received]


async def test_older_secret_records_are_refused_with_their_repair(
    old: Site, redis_url: str, receiver: Receiver, tmp_path: Path
) -> None:
    async with begun(old, redis_url, tmp_path) as world:
        part = Part(world, receiver, shell_of(old, tmp_path, redis_url))
        await part.continue_after_dump()
        assert 0 == (await part.put_back("secret_records")).code
        assert {"rotated": "record", "deleted": "record", "added": "record"} == await part.kinds()
        async with world.worker():
            [held], [lost], [sent] = [await world.publish(tenant) for tenant in ("rotated", "added", "stays")]
            await world.state(sent, "delivered")
            for ring in (held, lost):
                await world.state(ring, "pending", waiting_for="secret")

            refused = await part.run("restore accept --head heads.json")
            assert 1 == refused.code
            assert ["deleted"] == [one["tenant_id"] for one in refused.json["accepted"]]
            assert {"rotated", "added"} == {one["tenant_id"] for one in refused.json["refused"]}
            assert {True} == {"rotate it with --overlap 0" in one["reason"] for one in refused.json["refused"]}
            for tenant in ("rotated", "added"):
                await world.rotate(part.endpoints[tenant])
            for ring in (held, lost):
                await world.state(ring, "delivered")
        assert {} == await part.kinds()
        states = await world.pool.fetch(
            "SELECT DISTINCT state FROM hookseal.secret_records WHERE tenant_id = 'deleted'"
        )
        assert ["retired"] == [row["state"] for row in states]
        assert 0 == (await part.run("audit verify --head heads.json")).code
