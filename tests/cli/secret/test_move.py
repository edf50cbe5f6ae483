"""`hookseal secret move` takes all secrets over to another provider and back; `key init` may begin there."""

from typing import Any

import pytest

from tests.cli.command import hookseal
from tests.cli.endpoint.test_add import NOWHERE
from tests.cli.installation import Begun
from tests.doubles.openbao import ROOT_TOKEN, openbao

pytestmark = pytest.mark.req("SEC-01", part="move")


def shape(**changes: Any) -> dict[str, Any]:
    """Return the expected JSON, with these changes."""
    empty = {"dry_run": False, "moved": 0, "present": 0, "gone": 0, "own": [], "failures": 0, "failed": []}
    return {"to": "openbao", **empty} | changes


def of_openbao(address: str, *, provider: str = "openbao") -> dict[str, str]:
    """Return the settings of a process that uses both providers, with this one for new secrets."""
    both = {"SECRETS_PROVIDER": provider, "SECRETS_ALSO_READ": "openbao"}
    return both | {"BAO_ADDR": address, "BAO_TOKEN": ROOT_TOKEN, "HOOKSEAL_ENV": "development"}


async def test_all_secrets_move_and_return(begun: Begun) -> None:
    """A dry run moves nothing; one tenant moves, then the rest and hookseal's own secrets; all move back, and again."""
    for tenant in ("acme", "globex", "initech"):
        await begun.stored.endpoint(tenant)
    async with openbao() as server:
        there, back = of_openbao(server.url), of_openbao(server.url, provider="db")
        dry = await begun.run("secret", "move", "--to", "openbao", "--dry-run", "--json", **there)
        assert (0, shape(dry_run=True, moved=3)) == (dry.code, dry.json)
        one = await begun.run("secret", "move", "--to", "openbao", "--tenant", "acme", "--json", **there)
        assert (0, shape(moved=1)) == (one.code, one.json)
        rest = await begun.run("secret", "move", "--to", "openbao", "--json", **there)
        own = ["openbao:_system:integrity:1", "openbao:_system:sentinel:1"]
        assert (0, shape(moved=2, present=1, own=own)) == (rest.code, rest.json)
        again = await begun.run("secret", "move", "--to", "openbao", **there)
        assert (0, "moved  0\nthere already  3\nfailed  0\n") == (again.code, again.out)
        purged = await begun.run("secret", "purge", "--older-than", "0", "--json", **there)
        assert 3 == purged.json["versions"]
        settings = begun.settings | there
        del settings["SECRETS_MASTER_KEY"]
        assert [False] == [row["held"] for row in (await hookseal("key", "status", "--json", **settings)).json["items"]]
        rotated = await hookseal("key", "rotate-integrity", "--json", **settings)
        assert (0, "openbao:_system:integrity:2") == (rotated.code, rotated.json["integrity_ref"])
        home = await begun.run("secret", "move", "--to", "db", "--json", **back)
        assert (3, 0) == (home.json["moved"], home.json["failures"])
        assert 0 == (await begun.run("key", "status", SECRETS_PROVIDER="db")).code
        returned = await begun.run("secret", "move", "--to", "openbao", "--json", **there)
        assert (0, 3, 3) == (returned.code, returned.json["moved"], len(returned.json["own"]))


async def test_a_failed_endpoint_is_reported_and_stays(begun: Begun) -> None:
    """An altered row is reported and stays, and the others are moved; hookseal's own wait for a run without error."""
    await begun.stored.endpoint("acme")
    bad = (await begun.stored.endpoint("globex")).pointer
    await begun.stored.pool.execute("UPDATE hookseal.endpoints SET generation = 9 WHERE tenant_id = 'globex'")
    async with openbao() as server:
        ended = await begun.run("secret", "move", "--to", "openbao", "--json", **of_openbao(server.url))
    [failed] = ended.json["failed"]
    assert (1, 1, 1, []) == (ended.code, ended.json["moved"], ended.json["failures"], ended.json["own"])
    assert ("globex", bad.endpoint_id) == (failed["tenant_id"], failed["endpoint_id"])


async def test_a_worker_without_the_provider_prevents_the_move(begun: Begun) -> None:
    """The command is refused while a live worker does not read the provider."""
    await begun.stored.pool.execute(
        "INSERT INTO hookseal.workers (id, version, drain_seconds, lease_seconds, key_ids)"
        " VALUES ('host-7', '0', 25, 45, '{}')"
    )
    async with openbao() as server:
        ended = await begun.run("secret", "move", "--to", "openbao", "--json", **of_openbao(server.url))
    assert (4, "to") == (ended.code, ended.json["error"]["field"])
    assert "host-7" in ended.json["error"]["message"]


async def test_a_provider_without_settings_is_refused(begun: Begun) -> None:
    """The command is refused if this process does not use the provider, and says what is missing."""
    ended = await begun.run("secret", "move", "--to", "openbao", "--json")
    assert (5, "to") == (ended.code, ended.json["error"]["field"])
    assert "SECRETS_ALSO_READ=openbao" in ended.json["error"]["message"]


@pytest.mark.parametrize("to", ["dev", "vault", ""])
async def test_an_unknown_provider_is_refused(to: str) -> None:
    """Another word than the name of a provider is a mistake in the call."""
    ended = await hookseal("secret", "move", "--to", to, "--json", **NOWHERE)
    assert (2, "to") == (ended.code, ended.json["error"]["field"])
