"""An operator that stops in the middle of a change blocks others for a few seconds only."""

import asyncio

import asyncpg
import pytest

from hookseal.errors import InDoubt, SecretDenied, SecretDestroyed, Unavailable
from hookseal.ground.ids import TenantId
from hookseal.operations.endpoint import rotation
from hookseal.postgres.pool import Connection, Pool
from hookseal.secrets.core.signing import generate_signing_secret
from hookseal.secrets.endpoint.rotation import RotationRequest
from tests.doubles.stored import begin


@pytest.mark.req("SEC-09")
async def test_an_idle_or_waiting_change_ends(pool: Pool) -> None:
    installation = await begin(pool)
    async with pool.acquire() as connection:
        operator = installation.operator(connection)
        async with operator.changing():
            bounds = [
                await connection.fetchval(f"SHOW {name}")
                for name in ("idle_in_transaction_session_timeout", "lock_timeout")
            ]
        after = await connection.fetchval("SHOW lock_timeout")

    assert (["5s", "4500ms"], "0") == (bounds, after)


async def test_a_long_wait_is_unavailable(pool: Pool) -> None:
    installation = await begin(pool)
    await installation.endpoint()

    async def rename(connection: Connection) -> None:
        async with installation.operator(connection).changing():
            await connection.execute("SET LOCAL lock_timeout = '50ms'")
            await connection.execute("UPDATE hookseal.endpoints SET name = 'x'")

    async with pool.acquire() as connection, pool.acquire() as other, other.transaction():
        await other.execute("SELECT FROM hookseal.endpoints FOR UPDATE")
        with pytest.raises(Unavailable, match="cannot do it now: try again"):
            await rename(connection)

    assert await pool.fetchval("SELECT name FROM hookseal.endpoints") is None


@pytest.mark.req("DEL-18")
async def test_a_caller_that_gives_up_leaves_no_transaction(pool: Pool) -> None:
    """A change that is cancelled while its transaction begins ends it, and asyncpg reports nothing to the product."""
    installation = await begin(pool)
    loop, reports = asyncio.get_running_loop(), list[str]()
    loop.set_exception_handler(lambda _loop, report: reports.append(report["message"]))

    async with pool.acquire() as connection:
        entering = asyncio.ensure_future(installation.operator(connection).changing().__aenter__())
        loop.call_soon(entering.cancel)  # after the first step of the task, which ends while it waits for BEGIN
        with pytest.raises(asyncio.CancelledError):
            await entering

    async with pool.acquire() as connection:
        assert not connection.is_in_transaction()
    assert [] == reports


@pytest.mark.req("SEC-08")
async def test_a_forged_answer_reveals_nothing(pool: Pool) -> None:
    """A recorded answer that names another tenant's secret is denied, since the table of rotations has no MAC."""
    installation = await begin(pool)
    own = (await installation.endpoint()).pointer
    victim = (await installation.endpoint("globex")).pointer
    request = RotationRequest(
        tenant_id=TenantId("acme"),
        endpoint_id=own.endpoint_id,
        overlap_seconds=60,
        secret=generate_signing_secret(),
        rotation_id="r1",
    )
    await installation.act(rotation.rotate_secret, request)
    await pool.execute(
        "UPDATE hookseal.secret_rotations SET answer = replace(answer::text, $1, $2)::json",
        f"{str(own.secret_ref)[:-1]}2",
        victim.secret_ref,
    )
    with pytest.raises(SecretDenied):
        await installation.act(rotation.rotate_secret, request)


@pytest.mark.req("SEC-10")
async def test_a_rollback_to_a_destroyed_version_is_refused(pool: Pool) -> None:
    installation = await begin(pool)
    own = (await installation.endpoint()).pointer
    request = RotationRequest(
        tenant_id=TenantId("acme"), endpoint_id=own.endpoint_id, overlap_seconds=60, secret=generate_signing_secret()
    )
    await installation.act(rotation.rotate_secret, request)
    await pool.execute(
        "UPDATE hookseal.secret_records SET state = 'destroyed', sealed = NULL WHERE tenant_id = 'acme' AND version = 1"
    )
    with pytest.raises(SecretDestroyed):
        await installation.act(
            rotation.roll_back, tenant=TenantId("acme"), endpoint_id=own.endpoint_id, overlap_seconds=60
        )

    assert 2 == await pool.fetchval("SELECT generation FROM hookseal.endpoints")


async def test_a_stalled_change_is_not_made(pool: Pool, database_url: str) -> None:
    installation = await begin(pool)
    await installation.endpoint()
    connection = await asyncpg.connect(database_url)
    ended = asyncio.Event()
    connection.add_termination_listener(lambda _: ended.set())

    async def stall() -> None:
        async with installation.operator(connection).changing():
            await connection.execute("UPDATE hookseal.endpoints SET name = 'x'")
            await pool.execute("SELECT pg_terminate_backend($1)", connection.get_server_pid())
            await ended.wait()

    with pytest.raises(Unavailable, match="nothing was changed") as caught:
        await asyncio.wait_for(stall(), 60)
    assert not isinstance(caught.value, InDoubt)
    assert await pool.fetchval("SELECT name FROM hookseal.endpoints") is None
