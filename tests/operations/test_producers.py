"""Granting and revoking the right to publish takes effect at once, for real roles of any name."""

import asyncio

import asyncpg
import pytest

from hookseal.dispatcher.store import producers as rules
from hookseal.dispatcher.store.producers import Granted
from hookseal.dispatcher.store.publish import NewEvent, publish_json
from hookseal.errors import Malformed, NotFound, Refused
from hookseal.ground.ids import EVERY_TENANT, TenantId
from hookseal.operations.producers import grant, revoke
from hookseal.postgres.pool import Pool
from hookseal.postgres.schema.roles import ROLES
from tests.doubles.logbook import audited
from tests.doubles.logins import login
from tests.doubles.stored import Installation

ACME, GLOBEX = TenantId("acme"), TenantId("globex")
_IS_MEMBER = """
SELECT EXISTS (SELECT FROM pg_auth_members AS m JOIN pg_roles AS r ON r.oid = m.member
               WHERE m.roleid = 'hookseal_producer'::regrole AND r.rolname = $1)
"""
_PUBLISH = "SELECT hookseal.publish('acme', 'a.b', '{}'::json)"


async def granted(installation: Installation, role: str, tenant: TenantId = ACME) -> Granted:
    return await installation.act(grant, role, tenant)


async def revoked(installation: Installation, role: str, tenant: TenantId = ACME) -> str | None:
    """Revoke on its own connection; return the statement that is left to run."""
    return (await installation.act(revoke, role, tenant)).statement


async def publishes(url: str, tenant: TenantId = ACME) -> bool:
    """Return whether a login with that url may publish for the tenant."""
    connection = await asyncpg.connect(url)
    try:
        await publish_json(connection, NewEvent(tenant_id=tenant, event_type="a.b"), "{}")
    except Refused:
        return False
    finally:
        await connection.close()
    return True


@pytest.mark.req("OPS-10")
async def test_a_granted_role_publishes_until_revoked(installation: Installation, database_url: str) -> None:
    """A role publishes for the granted tenants until revoked; its membership ends with its last right."""
    pool = installation.pool
    async with login(pool, database_url) as (role, url):
        assert not await publishes(url)
        assert (await granted(installation, role)).changed
        assert (True, False) == (await publishes(url), await publishes(url, GLOBEX))
        assert (await granted(installation, role, EVERY_TENANT)).changed
        assert await publishes(url, GLOBEX)

        assert await revoked(installation, role) is None
        assert await publishes(url), "it may publish for every tenant"
        assert await pool.fetchval(_IS_MEMBER, role)
        assert await revoked(installation, role, EVERY_TENANT) is None
        assert not await publishes(url)
        assert not await pool.fetchval(_IS_MEMBER, role)

    subject, right = f"producer:{role}", {"role": role, "tenant_id": "acme"}
    assert [
        {"action": "producer.granted", "subject": subject, "who": "ada@desk", "before": None, "after": right},
        {"action": "producer.revoked", "subject": subject, "who": "ada@desk", "before": right, "after": None},
    ] == await audited(pool)
    of_all = await audited(pool, "_system")
    assert [("producer.granted", "*"), ("producer.revoked", "*")] == [
        (row["action"], (row["after"] or row["before"])["tenant_id"]) for row in of_all
    ]


async def test_a_repeated_grant_changes_nothing(installation: Installation, database_url: str) -> None:
    async with login(installation.pool, database_url) as (role, url):
        first = await granted(installation, role)
        again = await granted(installation, role)
        assert (False, first.granted_at) == (again.changed, again.granted_at)
        assert 1 == len(await audited(installation.pool))
        await installation.pool.execute(f"REVOKE hookseal_producer FROM {role}")
        assert not await publishes(url)
        assert (await granted(installation, role)).changed
        assert await publishes(url)


@pytest.mark.parametrize("suffix", ['"; DROP ROLE x; --', "'", " ä", "%I", "$1", "\\"])
async def test_a_role_may_have_any_name(installation: Installation, database_url: str, suffix: str) -> None:
    """A role may have any name that PostgreSQL accepts: it is never parsed as SQL."""
    async with login(installation.pool, database_url, suffix=suffix) as (role, _):
        await granted(installation, role)
        assert await installation.pool.fetchval(_IS_MEMBER, role)
        assert await revoked(installation, role) is None
        assert not await installation.pool.fetchval(_IS_MEMBER, role)


async def test_an_absent_role_or_right_is_not_found(installation: Installation, database_url: str) -> None:
    with pytest.raises(NotFound, match="no role of this name"):
        await granted(installation, "nobody-of-this-name")
    async with login(installation.pool, database_url) as (role, _):
        await granted(installation, role)
        with pytest.raises(NotFound, match="no right to publish for this tenant"):
            await revoked(installation, role, GLOBEX)

    assert 1 == len(await audited(installation.pool))


async def test_a_dropped_roles_right_is_revoked(installation: Installation, database_url: str) -> None:
    """The right of a dropped role can be revoked, so that no later role of that name has it."""
    async with login(installation.pool, database_url) as (role, _):
        await granted(installation, role)
    rows = await rules.every(installation.pool, role=None, tenant=None)
    assert [(role, "acme", False, True)] == [
        (row["role"], row["tenant_id"], row["role_exists"], row["stale"]) for row in rows
    ]
    assert await revoked(installation, role) is None

    assert [] == await rules.every(installation.pool, role=None, tenant=None)


async def recreate_role(pool: Pool, role: str) -> None:
    """Drop the role and create another of its name that may call the function."""
    await pool.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
    await pool.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'p'; GRANT hookseal_producer TO {role}")


@pytest.mark.req("OPS-10")
async def test_a_new_role_of_the_name_has_no_right(installation: Installation, database_url: str) -> None:
    pool = installation.pool
    async with login(pool, database_url) as (role, url):
        await granted(installation, role)
        await granted(installation, role, EVERY_TENANT)
        assert await publishes(url)
        await recreate_role(pool, role)
        assert not await publishes(url)
        rows = await rules.every(pool, role=role, tenant=None)
        assert [(True, True)] * 2 == [(row["role_exists"], row["stale"]) for row in rows]

        assert (await granted(installation, role)).changed
        assert (True, False) == (await publishes(url), await publishes(url, GLOBEX))
        rows = await rules.every(pool, role=role, tenant=None)
        assert [("*", True), ("acme", False)] == [(row["tenant_id"], row["stale"]) for row in rows]
        assert 2 == len(await audited(pool))

        assert await revoked(installation, role) is None
        assert not await pool.fetchval(_IS_MEMBER, role), "a grant of the former role keeps no membership"
        assert await revoked(installation, role, EVERY_TENANT) is None
        assert [] == await rules.every(pool, role=role, tenant=None)


@pytest.mark.req("OPS-10")
async def test_a_renamed_role_has_no_right(installation: Installation, database_url: str) -> None:
    pool = installation.pool
    async with login(pool, database_url) as (role, url):
        await granted(installation, role)
        await pool.execute(f"ALTER ROLE {role} RENAME TO {role}_b; ALTER ROLE {role}_b PASSWORD 'p'")
        assert not await publishes(url.replace(f"//{role}:", f"//{role}_b:"))
        await pool.execute(f"ALTER ROLE {role}_b RENAME TO {role}; ALTER ROLE {role} PASSWORD 'p'")
        assert await publishes(url)


@pytest.mark.req("OPS-10")
async def test_a_member_publishes_after_set_role(installation: Installation, database_url: str) -> None:
    pool = installation.pool
    async with login(pool, database_url) as (role, _), login(pool, database_url) as (member, url):
        await granted(installation, role)
        await pool.execute(f"ALTER ROLE {member} NOINHERIT; GRANT {role} TO {member}")
        connection = await asyncpg.connect(url)
        try:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(_PUBLISH)
            await connection.execute(f"SET ROLE {role}")
            await connection.execute(_PUBLISH)
        finally:
            await connection.close()


@pytest.mark.req("OPS-10")
async def test_a_refused_grant_has_its_statement(installation: Installation, database_url: str) -> None:
    pool = installation.pool
    rights = "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA hookseal"
    async with login(pool, database_url) as (clerk, clerks_url), login(pool, database_url) as (role, url):
        await pool.execute(f"GRANT USAGE ON SCHEMA hookseal TO {clerk}; GRANT {rights} TO {clerk}")
        connection = await asyncpg.connect(clerks_url)
        try:
            with pytest.raises(Refused, match=f"GRANT hookseal_producer TO {role};"):
                await grant(installation.operator(connection), role, ACME)
            assert 0 == await pool.fetchval("SELECT count(*) FROM hookseal.producers")
            await pool.execute(f"GRANT hookseal_producer TO {role}")
            await grant(installation.operator(connection), role, ACME)
            assert await publishes(url)
            answer = await revoke(installation.operator(connection), role, ACME)
            assert f"REVOKE hookseal_producer FROM {role}" == answer.statement
            assert not await publishes(url)
        finally:
            await connection.close()


@pytest.mark.req("OPS-10")
async def test_the_operator_role_suffices(installation: Installation, database_url: str) -> None:
    pool = installation.pool
    async with (
        login(pool, database_url, "hookseal_operator") as (_, operators_url),
        login(pool, database_url) as (role, url),
    ):
        connection = await asyncpg.connect(operators_url)
        try:
            await grant(installation.operator(connection), role, ACME)
            assert await publishes(url)
            assert (await revoke(installation.operator(connection), role, ACME)).statement is None
            assert not await pool.fetchval(_IS_MEMBER, role)
        finally:
            await connection.close()


async def test_concurrent_grants_and_revocations_agree(installation: Installation, database_url: str) -> None:
    async with login(installation.pool, database_url) as (role, url):
        await granted(installation, role)
        for _ in range(5):
            await asyncio.gather(granted(installation, role, GLOBEX), revoked(installation, role))
            assert await publishes(url, GLOBEX)
            await asyncio.gather(granted(installation, role), revoked(installation, role, GLOBEX))
            assert await publishes(url)


@pytest.mark.parametrize("text", ["", "x" * 64, "ü" * 32, "a\x00b", "a\nb", "\udcff"])
def test_an_impossible_role_name_is_malformed(text: str) -> None:
    with pytest.raises(Malformed) as caught:
        rules.role_name(text)
    assert "role" == caught.value.field


@pytest.mark.parametrize("role", ROLES)
def test_hookseals_own_roles_are_refused(role: str) -> None:
    """A group role of hookseal is refused, since revoking would remove rights of the migrations."""
    with pytest.raises(Refused):
        rules.role_name(role)


@pytest.mark.parametrize("text", ["**", "_system", "ac me", ""])
def test_a_reserved_or_invalid_tenant_is_refused(text: str) -> None:
    assert "*" == rules.producer_tenant("*")
    with pytest.raises(Malformed):
        rules.producer_tenant(text)
