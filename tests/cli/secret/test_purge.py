"""`hookseal secret purge` destroys versions that were retired long ago, reports progress, and has a dry run."""

from typing import Any

import pytest

from hookseal.audit import log
from hookseal.ground.ids import TenantId
from hookseal.operations.endpoint.endpoints import delete_endpoint
from tests.cli.installation import Begun
from tests.doubles.logbook import audited

pytestmark = pytest.mark.req("SEC-11")


async def retired(begun: Begun, tenant: str, *, days: int) -> None:
    """Insert a version of the tenant that was retired that many days ago."""
    added = await begun.stored.endpoint(tenant)
    async with begun.stored.pool.acquire() as connection:
        await delete_endpoint(begun.stored.operator(connection), TenantId(tenant), added.pointer.endpoint_id)
    await begun.stored.pool.execute(
        "UPDATE hookseal.secret_records SET changed_at = now() - make_interval(secs => $2 * 86400 + 1)"
        " WHERE tenant_id = $1",
        tenant,
        days,
    )


async def states(begun: Begun) -> dict[str, str]:
    """Return the state of each tenant's only version."""
    rows = await begun.stored.pool.fetch(
        "SELECT tenant_id, state FROM hookseal.secret_records WHERE purpose = 'webhook-signing'"
    )
    return {row["tenant_id"]: row["state"] for row in rows}


def shape(**changes: Any) -> dict[str, Any]:
    """Return the expected JSON, with these changes."""
    return {"tenant_id": None, "older_than_days": 90, "dry_run": False, "versions": 0, "failed": []} | changes


async def test_a_purge_destroys_what_was_retired_long_ago(begun: Begun) -> None:
    """A dry run, then the purge tenant by tenant with progress, then nothing is left; an option sets the age."""
    for tenant, days in (("acme", 91), ("globex", 91), ("initech", 10)):
        await retired(begun, tenant, days=days)
    dry_run = await begun.run("secret", "purge", "--dry-run", "--json")
    assert (0, shape(dry_run=True, versions=2)) == (dry_run.code, dry_run.json)
    assert {"retired"} == set((await states(begun)).values())
    for_a_person = await begun.run("secret", "purge", "--dry-run")
    assert "versions that would be destroyed: 2 (retired at least 90 days ago)\n" == for_a_person.out

    one = await begun.run("secret", "purge", "--tenant", "acme", "--json")
    assert (shape(tenant_id="acme", versions=1), "hookseal: acme: 1 version destroyed\n") == (one.json, one.err)
    assert {"acme": "destroyed", "globex": "retired", "initech": "retired"} == await states(begun)
    rest = await begun.run("secret", "purge", "--older-than", "10")
    assert (0, "versions destroyed: 2 (retired at least 10 days ago)\n") == (rest.code, rest.out)
    assert {"destroyed"} == set((await states(begun)).values())
    assert shape() == (await begun.run("secret", "purge", "--json")).json
    assert ["secret.destroyed"] == [
        row["action"] for row in await audited(begun.stored.pool) if row["action"].startswith("secret.")
    ]


async def test_the_settings_give_the_age(begun: Begun) -> None:
    """Without `--older-than` the settings decide how long retired secrets are stored."""
    await retired(begun, "acme", days=10)
    kept = await begun.run("secret", "purge", "--json", SECRETS_RETIRED_RETENTION_DAYS="11")
    assert shape(older_than_days=11) == kept.json
    gone = await begun.run("secret", "purge", "--json", SECRETS_RETIRED_RETENTION_DAYS="10")
    assert shape(older_than_days=10, versions=1) == gone.json


async def test_a_broken_audit_log_keeps_its_tenants_secrets(begun: Begun) -> None:
    """If a tenant's audit log is broken, only that tenant's secrets are not destroyed, and it exits 1."""
    for tenant in ("acme", "globex"):
        await retired(begun, tenant, days=91)
    await begun.stored.pool.execute("UPDATE hookseal.audit_heads SET sequence = 1 WHERE tenant_id = 'acme'")
    ended = await begun.run("secret", "purge", "--json")
    [failed] = ended.json["failed"]
    assert (1, 1, "acme", "refused") == (ended.code, ended.json["versions"], failed["tenant_id"], failed["code"])
    assert "hookseal: acme: the audit log" in ended.err
    assert {"acme": "retired", "globex": "destroyed"} == await states(begun)


async def test_a_locked_audit_log_keeps_its_tenants_secrets(begun: Begun) -> None:
    """And the purge of the others goes on, as after a broken one; only an outage of PostgreSQL ends it."""
    for tenant in ("acme", "globex"):
        await retired(begun, tenant, days=91)
    async with begun.stored.pool.acquire() as connection, connection.transaction():
        await log.lock_chain(connection, TenantId("acme"))
        ended = await begun.run("secret", "purge", "--json")
    [failed] = ended.json["failed"]
    assert (1, 1, "acme", "unavailable") == (ended.code, ended.json["versions"], failed["tenant_id"], failed["code"])
    assert {"acme": "retired", "globex": "destroyed"} == await states(begun)
