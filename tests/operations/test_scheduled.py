"""Rotation by schedule on a real database whose clock is shifted: announced, made once, and never of a spoilt row."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import count
from typing import Any

import asyncpg
import pytest

from hookseal.audit import log
from hookseal.ground.errors import Conflict, HooksealError, NotFound
from hookseal.ground.ids import TenantId
from hookseal.ground.wire import Algorithm
from hookseal.operations import endpoints, rotation
from hookseal.operations.endpoint_update import update_endpoint
from hookseal.operations.operator import Operator
from hookseal.operations.scheduled import Announced, RotatedBySchedule, take_turn
from hookseal.secrets import pointer
from hookseal.secrets.errors import SecretRolledBack, SecretTampered
from hookseal.secrets.rotation import Wanted
from hookseal.secrets.schedule import Turn
from hookseal.secrets.signer import generate_signing_secret
from tests.doubles import shifted
from tests.doubles.logbook import audited
from tests.operations.scheduling import DAY, DAY_SECONDS, Scheduling, scheduling
from tests.operations.test_rotation_crash import TABLES, CutOff, content

pytestmark = pytest.mark.req("SEC-11")

HOUR = timedelta(hours=1)
LITTLE = timedelta(seconds=1)


@pytest.fixture
async def scene(database_url: str) -> AsyncIterator[Scheduling]:
    """Yield an installation on a clock of its own."""
    async with scheduling(database_url) as made:
        yield made


async def test_announced_and_then_made(scene: Scheduling) -> None:
    """A day before it is due it is announced, once; when it is due it is made, once; both are on record."""
    endpoint_id = (await scene.endpoint(days=30)).pointer.endpoint_id
    await scene.pass_(29 * DAY - HOUR)
    assert [] == await scene.near()
    await scene.pass_(HOUR)
    [announced] = await scene.turns()
    assert isinstance(announced, Announced)
    assert (1, f"db:acme:webhook-endpoint-{endpoint_id}:1") == (announced.generation, announced.secret_ref)
    await scene.pass_(DAY - HOUR)
    assert [] == await scene.near()
    await scene.pass_(HOUR)
    [rotated] = await scene.turns()
    assert isinstance(rotated, RotatedBySchedule)
    assert 2 == rotated.generation
    assert [] == await scene.near()

    [_, told, made] = await audited(scene.pool)
    assert ("secret.rotation_announced", "worker/w1", 1, announced.secret_ref, 30) == (
        told["action"],
        told["who"],
        *(told["after"][name] for name in ("generation", "secret_ref", "rotate_every_days")),
    )
    assert announced.rotates_at.isoformat()[:19] == told["after"]["rotates_at"][:19]
    assert ("secret.rotated", "worker/w1", f"scheduled-{endpoint_id}-1") == (
        made["action"],
        made["who"],
        made["after"]["rotation_id"],
    )
    assert ["2", "1"] == await scene.signed_by(endpoint_id)
    await scene.pass_(DAY + LITTLE)
    assert ["2"] == await scene.signed_by(endpoint_id)
    assert [None] == [each.broken for each in await log.verify(scene.pool, scene.installation.unlocked.integrity)]


async def test_every_period_anew(scene: Scheduling) -> None:
    """Each period has its own announcement and its own rotation, with an overlap between that ends by itself."""
    endpoint_id = (await scene.endpoint(days=1)).pointer.endpoint_id
    for _ in range(3):
        await scene.pass_(DAY / 2)
        assert [Announced] == [type(turn) for turn in await scene.turns()]
        await scene.pass_(DAY / 2)
        assert [RotatedBySchedule] == [type(turn) for turn in await scene.turns()]
    assert (4, ["4", "3"]) == ((await scene.pointer(endpoint_id)).generation, await scene.signed_by(endpoint_id))
    assert ["endpoint.added", *["secret.rotation_announced", "secret.rotated"] * 3] == [
        row["action"] for row in await audited(scene.pool)
    ]


@pytest.mark.parametrize("age", [31, 200])
async def test_long_overdue(scene: Scheduling, age: int) -> None:
    """What is overdue, because workers were down or it was only now asked for, has its whole warning all the same."""
    await scene.endpoint(days=30)
    await scene.pass_(age * DAY)
    assert [Announced] == [type(turn) for turn in await scene.turns()]
    await scene.pass_(DAY - LITTLE * 60)
    assert [] == await scene.turns()
    await scene.pass_(LITTLE * 61)
    assert [RotatedBySchedule] == [type(turn) for turn in await scene.turns()]


async def test_what_moves_between(scene: Scheduling) -> None:
    """A change of the url between does not put the rotation off; a rotation by hand does, and is announced anew."""
    added = await scene.endpoint(days=30)
    endpoint_id = added.pointer.endpoint_id
    await scene.pass_(29 * DAY)
    await scene.turns()
    async with scene.pool.acquire() as connection:
        operator = scene.installation.operator(connection)
        async with operator.changing():
            found = await pointer.locked(connection, tenant=TenantId("acme"), endpoint_id=endpoint_id)
            await pointer.moved(connection, operator.unlocked.integrity, found, url="https://receiver.example/new")
        await scene.pass_(DAY)
        assert [Turn.ROTATE] == [each.turn for each in await scene.near()]
        wanted = Wanted(
            tenant_id=TenantId("acme"),
            endpoint_id=endpoint_id,
            overlap_seconds=60,
            secret=generate_signing_secret(),
        )
        await rotation.rotate(operator, wanted)
    assert [] == await scene.near()
    await scene.pass_(29 * DAY)
    assert [Turn.ANNOUNCE] == [each.turn for each in await scene.near()]


async def test_many_workers_do_it_once(scene: Scheduling) -> None:
    """Of many that see the same turn one announces and one rotates; the others find it done and reveal nothing."""
    await scene.endpoint(days=30)
    for passed, kind in ((29 * DAY, Announced), (DAY, RotatedBySchedule)):
        await scene.pass_(passed)
        [each] = await scene.near()
        done = await asyncio.gather(*(scene.turn(each) for _ in range(8)))
        assert [kind] == [type(one) for one in done if one is not None]
    assert ["endpoint.added", "secret.rotation_announced", "secret.rotated"] == [
        row["action"] for row in await audited(scene.pool)
    ]


@pytest.mark.parametrize("algorithm", list(Algorithm))
async def test_what_stays(scene: Scheduling, algorithm: Algorithm) -> None:
    """Scheme, algorithm and lead stay; a disabled endpoint without any traffic is rotated as any other."""
    endpoint_id = (await scene.endpoint(days=1)).pointer.endpoint_id
    wanted = Wanted(
        tenant_id=TenantId("acme"),
        endpoint_id=endpoint_id,
        overlap_seconds=0,
        secret=generate_signing_secret(algorithm),
        algorithm=algorithm,
        lead="current",
    )
    async with scene.pool.acquire() as connection:
        await rotation.rotate(scene.installation.operator(connection), wanted)
    await scene.pool.execute(
        "UPDATE hookseal.endpoints SET enabled = false, disabled_reason = 'x', disabled_at = now()"
    )
    for _ in range(2):
        await scene.pass_(DAY / 2)
        await scene.turns()
    found = await scene.pointer(endpoint_id)
    assert (3, "standard", algorithm, "current") == (found.generation, found.scheme, found.algorithm, found.lead)
    assert ["3", "2"] == await scene.signed_by(endpoint_id)


async def test_an_altered_row_is_not_even_announced(scene: Scheduling) -> None:
    """A row that was altered is refused, and leaves no word in the log, which would make the true row look old."""
    endpoint_id = (await scene.endpoint(days=30)).pointer.endpoint_id
    await scene.pass_(29 * DAY)
    await scene.pool.execute("UPDATE hookseal.endpoints SET generation = 1000000")
    [each] = await scene.near()
    with pytest.raises(SecretTampered):
        await scene.turn(each)
    await scene.pool.execute("UPDATE hookseal.endpoints SET generation = 1")
    assert 1 == (await scene.pointer(endpoint_id)).audited_generation
    assert [Announced] == [type(turn) for turn in await scene.turns()]
    await scene.pass_(DAY)
    await scene.pool.execute("UPDATE hookseal.endpoints SET url = 'https://evil.example/'")
    [each] = await scene.near()
    with pytest.raises(SecretTampered):
        await scene.turn(each)
    assert 1 == await scene.pool.fetchval("SELECT count(*) FROM hookseal.secret_records WHERE tenant_id = 'acme'")


async def test_a_row_that_was_put_back(scene: Scheduling) -> None:
    """A genuine row of an older generation is refused: what it would announce was announced before."""
    await scene.endpoint(days=1)
    old = await scene.pool.fetchrow("SELECT secret_ref, mac, secret_updated_at FROM hookseal.endpoints")
    for _ in range(2):
        await scene.pass_(DAY / 2)
        await scene.turns()
    await scene.pool.execute(
        "UPDATE hookseal.endpoints SET secret_ref = $1, mac = $2, secret_updated_at = $3, generation = 1,"
        " previous_secret_ref = NULL, previous_secret_expires_at = NULL, previous_scheme = NULL,"
        " previous_algorithm = NULL",
        *(old or ()),
    )
    await scene.pass_(DAY)
    [each] = await scene.near()
    with pytest.raises(SecretRolledBack):
        await scene.turn(each)


async def test_an_id_that_was_used_before(scene: Scheduling) -> None:
    """Where this rotation's id has an answer already nothing is changed or revealed: somebody must look at it."""
    endpoint_id = (await scene.endpoint(days=1)).pointer.endpoint_id
    wanted = Wanted(
        tenant_id=TenantId("acme"),
        endpoint_id=endpoint_id,
        overlap_seconds=DAY_SECONDS,
        secret=generate_signing_secret(),
        expect_generation=1,
    )
    async with scene.pool.acquire() as connection:
        await rotation.rotate(scene.installation.operator(connection), wanted)
    await scene.pool.execute(
        "UPDATE hookseal.secret_rotations SET rotation_id = $1,"
        " intent = (intent::jsonb || '{\"expect_generation\": 2}')::json",
        f"scheduled-{endpoint_id}-2",
    )
    await scene.pass_(DAY / 2)
    await scene.turns()
    await scene.pass_(DAY / 2)
    before = await content(scene.installation)
    [each] = await scene.near()
    with pytest.raises(Conflict, match="by hand"):
        await scene.turn(each)
    assert before == await content(scene.installation)


async def test_an_endpoint_that_is_gone(scene: Scheduling) -> None:
    """An endpoint that was deleted since it was read is not found; one that asks for nothing any more has no turn."""
    added = await scene.endpoint(days=1)
    await scene.pass_(DAY)
    [each] = await scene.near()
    await scene.pool.execute("UPDATE hookseal.endpoints SET rotate_every_days = NULL")
    assert await scene.turn(each) is None
    async with scene.pool.acquire() as connection:
        operator = scene.installation.operator(connection)
        await endpoints.delete_endpoint(operator, TenantId("acme"), added.pointer.endpoint_id)
    with pytest.raises(NotFound):
        await scene.turn(each)


@pytest.mark.parametrize("kind", [Announced, RotatedBySchedule])
async def test_cut_off_before_any_statement(scene: Scheduling, database_url: str, kind: type[Any]) -> None:
    """Killed before its first, second, ... last statement, a turn changed nothing; the next one does it all."""
    await scene.endpoint(days=1)
    await scene.pass_(DAY / 2)
    if kind is RotatedBySchedule:
        await scene.turns()
        await scene.pass_(DAY / 2)
    [each] = await scene.near()
    before = await content(scene.installation)
    done: object = None
    for statements in count():
        connection = await asyncpg.connect(database_url, connection_class=CutOff, server_settings=shifted.SETTINGS)
        connection.left = iter(range(statements))
        operator = Operator(connection=connection, unlocked=scene.installation.unlocked, who="worker/w1")
        try:
            done = await take_turn(operator, each, overlap_seconds=DAY_SECONDS)
        except (HooksealError, asyncpg.InterfaceError, OSError):
            assert before == await content(scene.installation), f"cut off before statement {statements + 1}"
        else:
            break
        finally:
            connection.terminate()
    after = await content(scene.installation)
    moved = {table for table in TABLES if before[table] != after[table]}
    assert ({"audit_log", "audit_heads"} if kind is Announced else set(TABLES)) == moved
    assert (kind, 1) == (type(done), len(after["audit_log"]) - len(before["audit_log"]))


async def test_turned_off_and_on_again(scene: Scheduling) -> None:
    """What was announced before the schedule was turned off warned of another rotation: it is announced anew."""
    endpoint_id = (await scene.endpoint(days=30)).pointer.endpoint_id

    async def every(days: int | None) -> None:
        async with scene.pool.acquire() as connection:
            operator = scene.installation.operator(connection)
            await update_endpoint(
                operator, TenantId("acme"), endpoint_id, {"rotate_every_days": days}, own_drain_seconds=25
            )

    await scene.pass_(29 * DAY)
    assert [Announced] == [type(turn) for turn in await scene.turns()]
    await every(None)
    await scene.pass_(30 * DAY)
    assert [] == await scene.near()
    await every(30)

    assert [Announced] == [type(turn) for turn in await scene.turns()]
    assert [] == await scene.near()
