"""What an Admin may do: with the rights of its database role, and with or without a master key."""

from typing import Any

import pytest

from hookseal import Admin
from hookseal.errors import ConfigError, Refused, Unavailable
from tests.cli.listeners import closed_port
from tests.doubles.logins import login
from tests.doubles.stored import Installation

pytestmark = pytest.mark.req("DEL-18")

NEW: dict[str, Any] = {
    "tenant_id": "acme",
    "url": "https://receiver.example/2",
    "event_types": ["*"],
    "actor": "jane",
}


async def test_without_a_master_key_only_keyless_calls_work(
    installation: Installation, environ: dict[str, str]
) -> None:
    """Everything that needs no key works; a change says which variables this process needs."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    (ring,) = await installation.deliveries()
    named: dict[str, Any] = {"tenant_id": "acme", "endpoint_id": endpoint}
    async with Admin.connect(environ={"DATABASE_URL": environ["DATABASE_URL"]}) as admin:
        assert [endpoint] == [each.endpoint_id for each in (await admin.endpoints.list(tenant_id="acme")).items]
        assert 1 == (await admin.secrets.status(**named)).generation
        [delivery] = (await admin.deliveries.list(tenant_id="acme")).items
        assert ring.delivery_id == delivery.delivery_id
        assert delivery.event_id == (await admin.events.get(tenant_id="acme", event_id=delivery.event_id)).event_id
        for change in (
            admin.endpoints.add(**NEW),
            admin.secrets.rotate(**named, actor="jane"),
            admin.events.payload(tenant_id="acme", event_id=delivery.event_id, actor="jane"),
        ):
            with pytest.raises(ConfigError, match=r"has no master key, so it can only read$") as caught:
                await change
            assert "SECRETS_MASTER_KEY" == caught.value.field
            assert "SECRETS_MASTER_KEY_FILE" in (caught.value.advice or "")


@pytest.mark.req("SEC-19")
async def test_the_provider_dev_only_reads(database_url: str) -> None:
    """With keys that end with this process everything can be read; a change is refused, with the provider to set."""
    async with Admin.connect(database_url, environ={"HOOKSEAL_ENV": "test", "SECRETS_PROVIDER": "dev"}) as admin:
        assert () == (await admin.endpoints.list(tenant_id="*")).items
        with pytest.raises(Refused, match="the provider dev") as caught:
            await admin.endpoints.add(**NEW)
        assert "set SECRETS_PROVIDER=db" == caught.value.advice


@pytest.mark.req("OPS-10")
async def test_the_rights_are_those_of_the_role(installation: Installation, environ: dict[str, str]) -> None:
    """An operator's role may do everything, a reader's only read, and another role not even that."""
    url, pool = environ["DATABASE_URL"], installation.pool
    async with login(pool, url, "hookseal_operator") as (_, its), Admin.connect(its, environ=environ) as admin:
        named: dict[str, Any] = {
            "tenant_id": "acme",
            "endpoint_id": (await admin.endpoints.add(**NEW)).endpoint_id,
            "actor": "jane",
        }
        await installation.published()
        await admin.endpoints.update(**named, name="billing", headers={"X-A": "1"})
        await admin.secrets.rotate(**named)
        await admin.secrets.roll_back(**named)
        await admin.secrets.end_overlap(**named)
        await admin.secrets.reveal(**named)
        [event] = (await admin.events.list(tenant_id="acme")).items
        assert b'"n": 1' in await admin.events.payload(tenant_id="acme", event_id=event.event_id, actor="jane")
        await admin.endpoints.disable(**named, reason="x")
        await admin.endpoints.enable(**named)
        await admin.endpoints.delete(**named)
    async with login(pool, url, "hookseal_readonly") as (_, its), Admin.connect(its, environ=environ) as admin:
        assert 1 == len((await admin.deliveries.list(tenant_id="acme")).items)
        with pytest.raises(Refused, match="hookseal_operator"):
            await admin.endpoints.add(**NEW)
    async with login(pool, url) as (_, its):
        with pytest.raises(Refused, match="hookseal_readonly"):
            async with Admin.connect(its, environ=environ):
                pass


@pytest.mark.req("OPS-10")
async def test_versions_and_counts_need_their_rights(installation: Installation, environ: dict[str, str]) -> None:
    """A reader's role sees the versions of a secret; only an operator's purges them, and counts what a replay sends."""
    url, pool = environ["DATABASE_URL"], installation.pool
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    purged: dict[str, Any] = {"tenant_id": "acme", "actor": "jane", "older_than_days": 7}
    async with login(pool, url, "hookseal_operator") as (_, its), Admin.connect(its, environ=environ) as admin:
        assert 0 == (await admin.secrets.purge(**purged)).versions
        assert 0 == (await admin.replays.count(tenant_id="acme")).would_replay
    async with login(pool, url, "hookseal_readonly") as (_, its), Admin.connect(its, environ=environ) as admin:
        assert 1 == len(await admin.secrets.versions(tenant_id="acme", endpoint_id=endpoint))
        for call in (admin.secrets.purge(**purged), admin.replays.count(tenant_id="acme")):
            with pytest.raises(Refused, match="hookseal_operator"):
                await call


async def test_an_unusable_database_is_named(empty_database_url: str) -> None:
    """Without a schema the error says so, and how to make it; without an answer it names the address."""
    with pytest.raises(ConfigError, match=r"has no schema of hookseal$") as caught:
        async with Admin.connect(empty_database_url, environ={}):
            pass
    assert "run `hookseal db upgrade`" == caught.value.advice
    port = closed_port()
    with pytest.raises(Unavailable, match=f"127.0.0.1:{port}"):
        async with Admin.connect(f"postgresql://u:p@127.0.0.1:{port}/db", environ={}):
            pass


async def test_a_closed_admin_refuses(admin: Admin, environ: dict[str, str]) -> None:
    """After its block an Admin refuses, and says where to use it."""
    async with Admin.connect(environ=environ) as closed:
        pass
    with pytest.raises(Refused, match="this Admin is closed"):
        await closed.endpoints.list(tenant_id="acme")
    with pytest.raises(Refused, match="this Admin is closed"):
        await closed.endpoints.add(**NEW)
