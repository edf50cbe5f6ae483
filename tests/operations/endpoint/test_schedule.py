"""Scheduled rotation on a real database with a movable clock: announced, made once, and refused for altered rows."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from hookseal.audit import log
from hookseal.errors import Conflict, NotFound, SecretTampered, SecretUnusable, StaleRow
from hookseal.ground.ids import TenantId
from hookseal.ground.wire import Algorithm
from hookseal.operations.endpoint import endpoints
from hookseal.operations.endpoint.rotation import Announced, RotatedBySchedule, take_turn
from hookseal.operations.endpoint.update import update_endpoint
from hookseal.secrets.endpoint.schedule import Turn
from tests import rows
from tests.doubles import moved_clock
from tests.doubles.logbook import audited
from tests.operations.cut_off import TABLES, content, require_whole
from tests.operations.scheduling import DAY, DAY_SECONDS, Scheduling, scheduling

pytestmark = pytest.mark.req("SEC-11")

HOUR = timedelta(hours=1)
LITTLE = timedelta(seconds=1)


@pytest.fixture
async def scene(database_url: str) -> AsyncIterator[Scheduling]:
    """Yield an installation with its own clock."""
    async with scheduling(database_url) as made:
        yield made


async def test_a_rotation_is_announced_and_made_once(scene: Scheduling) -> None:
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

    [_, entry, made] = await audited(scene.pool)
    assert ("secret.rotation_announced", "worker/w1", 1, announced.secret_ref, 30) == (
        entry["action"],
        entry["who"],
        *(entry["after"][name] for name in ("generation", "secret_ref", "rotate_every_days")),
    )
    assert announced.rotates_at.isoformat()[:19] == entry["after"]["rotates_at"][:19]
    assert ("secret.rotated", "worker/w1", f"scheduled-{endpoint_id}-1") == (
        made["action"],
        made["who"],
        made["after"]["rotation_id"],
    )
    assert ["2", "1"] == await scene.signed_by(endpoint_id)
    await scene.pass_(DAY + LITTLE)
    assert ["2"] == await scene.signed_by(endpoint_id)
    assert [None] == [each.broken for each in await log.verify(scene.pool, scene.installation.unlocked.integrity)]


async def test_an_endpoint_of_a_later_version_is_not_rotated(scene: Scheduling) -> None:
    endpoint_id = (await scene.endpoint(days=30)).pointer.endpoint_id
    await scene.installation.set_scheme(endpoint_id, "later")
    await scene.pass_(29 * DAY)
    assert [Announced] == [type(turn) for turn in await scene.turns()]
    await scene.pass_(DAY)
    with pytest.raises(SecretUnusable):
        await scene.turns()


async def test_each_period_has_its_rotation(scene: Scheduling) -> None:
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


async def test_a_manual_rotation_restarts_the_period(scene: Scheduling) -> None:
    added = await scene.endpoint(days=30)
    endpoint_id = added.pointer.endpoint_id
    await scene.pass_(29 * DAY)
    await scene.turns()
    change = {"url": "https://receiver.example/new"}
    await scene.installation.act(update_endpoint, TenantId("acme"), endpoint_id, change, own_drain_seconds=25)
    await scene.pass_(DAY)
    assert [Turn.ROTATE] == [each.turn for each in await scene.near()]
    await scene.installation.rotate(endpoint_id, overlap_seconds=60)
    assert [] == await scene.near()
    await scene.pass_(29 * DAY)
    assert [Turn.ANNOUNCE] == [each.turn for each in await scene.near()]


async def test_of_concurrent_workers_one_rotates(scene: Scheduling) -> None:
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
async def test_scheme_algorithm_and_lead_stay(scene: Scheduling, algorithm: Algorithm) -> None:
    endpoint_id = (await scene.endpoint(days=1)).pointer.endpoint_id
    await scene.installation.rotate(endpoint_id, algorithm=algorithm, lead="current")
    await rows.change(scene.pool, "endpoints", enabled=False, disabled_reason="x", disabled_at=rows.NOW)
    for _ in range(2):
        await scene.pass_(DAY / 2)
        await scene.turns()
    found = await scene.pointer(endpoint_id)
    assert (3, "standard", algorithm, "current") == (found.generation, found.scheme, found.algorithm, found.lead)
    assert ["3", "2"] == await scene.signed_by(endpoint_id)


async def test_an_altered_row_is_not_announced(scene: Scheduling) -> None:
    """An altered row is refused and not audited, since that would make the genuine row look stale."""
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


async def test_a_stale_row_is_refused(scene: Scheduling) -> None:
    """A genuine row of an older generation is refused, since its rotation was announced before."""
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
    with pytest.raises(StaleRow):
        await scene.turn(each)


async def test_a_used_rotation_id_is_refused(scene: Scheduling) -> None:
    """If the id of this rotation has an answer already, it is refused: an operator must look at it."""
    endpoint_id = (await scene.endpoint(days=1)).pointer.endpoint_id
    await scene.installation.rotate(endpoint_id, overlap_seconds=DAY_SECONDS, expect_generation=1)
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
    with pytest.raises(Conflict) as caught:
        await scene.turn(each)
    assert "run `hookseal endpoint rotate` by hand" == caught.value.advice
    assert before == await content(scene.installation)


async def test_a_deleted_endpoint_is_not_found(scene: Scheduling) -> None:
    added = await scene.endpoint(days=1)
    await scene.pass_(DAY)
    [each] = await scene.near()
    await scene.pool.execute("UPDATE hookseal.endpoints SET rotate_every_days = NULL")
    assert await scene.turn(each) is None
    await scene.installation.act(endpoints.delete_endpoint, TenantId("acme"), added.pointer.endpoint_id)
    with pytest.raises(NotFound):
        await scene.turn(each)


@pytest.mark.parametrize("kind", [Announced, RotatedBySchedule])
async def test_a_step_interrupted_at_any_statement_changes_nothing(
    scene: Scheduling, database_url: str, kind: type[Any]
) -> None:
    await scene.endpoint(days=1)
    await scene.pass_(DAY / 2)
    if kind is RotatedBySchedule:
        await scene.turns()
        await scene.pass_(DAY / 2)
    [each] = await scene.near()
    before = await content(scene.installation)
    done = await require_whole(
        scene.installation,
        database_url,
        lambda operator: take_turn(operator, each, overlap_seconds=DAY_SECONDS),
        least=4,
        server_settings=moved_clock.SETTINGS,
    )
    after = await content(scene.installation)

    moved = {table for table in TABLES if before[table] != after[table]}
    assert ({"audit_log", "audit_heads"} if kind is Announced else set(TABLES)) == moved
    assert (kind, 1) == (type(done), len(after["audit_log"]) - len(before["audit_log"]))


async def test_a_resumed_schedule_announces_again(scene: Scheduling) -> None:
    endpoint_id = (await scene.endpoint(days=30)).pointer.endpoint_id

    async def every(days: int | None) -> None:
        await scene.installation.act(
            update_endpoint, TenantId("acme"), endpoint_id, {"rotate_every_days": days}, own_drain_seconds=25
        )

    await scene.pass_(29 * DAY)
    assert [Announced] == [type(turn) for turn in await scene.turns()]
    await every(None)
    await scene.pass_(30 * DAY)
    assert [] == await scene.near()
    await every(30)

    assert [Announced] == [type(turn) for turn in await scene.turns()]
    assert [] == await scene.near()
