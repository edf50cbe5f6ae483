"""Granting and revoking says at once who may publish for whom, on real roles, whatever they are called."""

import asyncio

import asyncpg
import pytest

from hookseal.dispatcher import producers as rules
from hookseal.dispatcher.producers import EVERY_TENANT, Granted
from hookseal.dispatcher.publish import Event, publish_json
from hookseal.ground.errors import Malformed, NotFound, Refused
from hookseal.ground.ids import TenantId
from hookseal.operations.producers import grant, revoke
from hookseal.schema.database import Pool
from hookseal.schema.roles import ROLES
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
    """Grant on a connection of its own."""
    async with installation.pool.acquire() as connection:
        return await grant(installation.operator(connection), role, tenant)


async def revoked(installation: Installation, role: str, tenant: TenantId = ACME) -> str | None:
    """Revoke on a connection of its own; return what is left to run."""
    async with installation.pool.acquire() as connection:
        return (await revoke(installation.operator(connection), role, tenant)).statement


async def publishes(url: str, tenant: TenantId = ACME) -> bool:
    """Return whether whoever logs in there may publish for the tenant."""
    connection = await asyncpg.connect(url)
    try:
        await publish_json(connection, Event(tenant_id=tenant, event_type="a.b"), "{}")
    except Refused:
        return False
    finally:
        await connection.close()
    return True


@pytest.mark.req("OPS-10")
async def test_granting_and_revoking(installation: Installation, database_url: str) -> None:
    """A role publishes for what it was granted, for as long; the membership goes with its last right."""
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


async def test_granting_twice(installation: Installation, database_url: str) -> None:
    """A right that the role has changes nothing and is not audited; a membership that was lost is given again."""
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
async def test_a_name_that_must_be_quoted(installation: Installation, database_url: str, suffix: str) -> None:
    """A role may be called whatever PostgreSQL takes: its name is never read as SQL."""
    async with login(installation.pool, database_url, suffix=suffix) as (role, _):
        await granted(installation, role)
        assert await installation.pool.fetchval(_IS_MEMBER, role)
        assert await revoked(installation, role) is None
        assert not await installation.pool.fetchval(_IS_MEMBER, role)


async def test_not_there(installation: Installation, database_url: str) -> None:
    """A role that PostgreSQL does not have, and a right that a role does not have, are not found."""
    with pytest.raises(NotFound, match="no role of this name"):
        await granted(installation, "nobody-of-this-name")
    async with login(installation.pool, database_url) as (role, _):
        await granted(installation, role)
        with pytest.raises(NotFound, match="no right to publish for this tenant"):
            await revoked(installation, role, GLOBEX)

    assert 1 == len(await audited(installation.pool))


async def test_a_role_that_was_dropped(installation: Installation, database_url: str) -> None:
    """The right of a role that is gone can be taken back, so that no other role of its name inherits it."""
    async with login(installation.pool, database_url) as (role, _):
        await granted(installation, role)
    rows = await rules.every(installation.pool, role=None, tenant=None)
    assert [(role, "acme", False, True)] == [
        (row["role"], row["tenant_id"], row["role_exists"], row["stale"]) for row in rows
    ]
    assert await revoked(installation, role) is None

    assert [] == await rules.every(installation.pool, role=None, tenant=None)


async def made_anew(pool: Pool, role: str) -> None:
    """Drop the role and make another one of its name, which may call what publishes."""
    await pool.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
    await pool.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'p'; GRANT hookseal_producer TO {role}")


@pytest.mark.req("OPS-10")
async def test_another_role_of_the_name(installation: Installation, database_url: str) -> None:
    """A right ends with its role: another one of that name has none until it is granted, which is on record."""
    pool = installation.pool
    async with login(pool, database_url) as (role, url):
        await granted(installation, role)
        await granted(installation, role, EVERY_TENANT)
        assert await publishes(url)
        await made_anew(pool, role)
        assert not await publishes(url)
        rows = await rules.every(pool, role=role, tenant=None)
        assert [(True, True)] * 2 == [(row["role_exists"], row["stale"]) for row in rows]

        assert (await granted(installation, role)).changed
        assert (True, False) == (await publishes(url), await publishes(url, GLOBEX))
        rows = await rules.every(pool, role=role, tenant=None)
        assert [("*", True), ("acme", False)] == [(row["tenant_id"], row["stale"]) for row in rows]
        assert 2 == len(await audited(pool))

        assert await revoked(installation, role) is None
        assert not await pool.fetchval(_IS_MEMBER, role), "what the former role was granted keeps no membership"
        assert await revoked(installation, role, EVERY_TENANT) is None
        assert [] == await rules.every(pool, role=role, tenant=None)


@pytest.mark.req("OPS-10")
async def test_a_renamed_role(installation: Installation, database_url: str) -> None:
    """Name and role must both be those that were granted: under another name it has no right, under its own again."""
    pool = installation.pool
    async with login(pool, database_url) as (role, url):
        await granted(installation, role)
        await pool.execute(f"ALTER ROLE {role} RENAME TO {role}_b; ALTER ROLE {role}_b PASSWORD 'p'")
        assert not await publishes(url.replace(f"//{role}:", f"//{role}_b:"))
        await pool.execute(f"ALTER ROLE {role}_b RENAME TO {role}; ALTER ROLE {role} PASSWORD 'p'")
        assert await publishes(url)


@pytest.mark.req("OPS-10")
async def test_a_member_that_inherits_nothing(installation: Installation, database_url: str) -> None:
    """Who logs in as a member of a granted role may publish in that role, though it inherits none of its rights."""
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
async def test_an_operator_who_may_not_grant(installation: Installation, database_url: str) -> None:
    """Who may not grant is told the statement, and nothing is changed; a revocation counts all the same."""
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
async def test_the_operators_role(installation: Installation, database_url: str) -> None:
    """A member of the operator's role grants and revokes, without any right of its own over other roles."""
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


async def test_granting_and_revoking_at_the_same_time(installation: Installation, database_url: str) -> None:
    """However grants and revocations of one role meet, a role that has a right is a member."""
    async with login(installation.pool, database_url) as (role, url):
        await granted(installation, role)
        for _ in range(5):
            await asyncio.gather(granted(installation, role, GLOBEX), revoked(installation, role))
            assert await publishes(url, GLOBEX)
            await asyncio.gather(granted(installation, role), revoked(installation, role, GLOBEX))
            assert await publishes(url)


@pytest.mark.parametrize("text", ["", "x" * 64, "ü" * 32, "a\x00b", "a\nb", "\udcff"])
def test_what_is_no_role(text: str) -> None:
    """A name that PostgreSQL cannot have is malformed."""
    with pytest.raises(Malformed) as told:
        rules.role_name(text)
    assert "role" == told.value.field


@pytest.mark.parametrize("role", ROLES)
def test_our_own_roles(role: str) -> None:
    """A group role of hookseal is refused: revoking it would take what the migrations gave."""
    with pytest.raises(Refused):
        rules.role_name(role)


@pytest.mark.parametrize("text", ["**", "_system", "Acme", ""])
def test_what_is_no_tenant(text: str) -> None:
    """For whom is a tenant or `*`, and never a reserved one."""
    assert "*" == rules.producer_tenant("*")
    with pytest.raises(Malformed):
        rules.producer_tenant(text)
