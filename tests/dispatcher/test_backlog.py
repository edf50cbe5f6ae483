"""Whose deliveries wait: the worst tenants first, each with its age and a bounded count, and the rest as one."""

from typing import Any

import pytest

from hookseal.dispatcher.store import backlog
from hookseal.postgres.pool import Pool
from tests import rows

pytestmark = pytest.mark.req("OPS-15", part="status")


async def _waits(pool: Pool, tenant: str, reason: str | None = None, **columns: Any) -> str:
    """Store a delivery of the tenant that is due or, with a reason, held."""
    endpoint = columns.pop("endpoint", None) or await rows.endpoint(pool, tenant)
    made = await rows.delivery(pool, endpoint, tenant=tenant)
    held = {"waiting_for": reason, "held_at": rows.NOW} if reason else {}
    async with rows.without_triggers(pool) as connection:
        await rows.change(connection, "deliveries", made, **held | columns)
    return endpoint


async def test_the_tenant_that_has_waited_for_longest_comes_first(pool: Pool) -> None:
    """Whatever it waits for; what is due later, and what a disabled endpoint holds, makes nobody the worst."""
    await _waits(pool, "rung", rung_at=rows.NOW, next_attempt_at=rows.ago(minutes=4))
    await _waits(pool, "unrung", next_attempt_at=rows.ago(minutes=5))
    await _waits(pool, "held", "breaker", held_at=rows.ago(minutes=7))
    await _waits(pool, "lane", "concurrency", held_at=rows.ago(minutes=3))
    await _waits(pool, "later", next_attempt_at=rows.ahead(hours=1))
    await _waits(pool, "disabled", "endpoint_disabled", held_at=rows.ago(days=2))
    both = await _waits(pool, "both", next_attempt_at=rows.ago(minutes=1))
    await _waits(pool, "both", "secret", endpoint=both, held_at=rows.ago(minutes=6))
    await rows.delivery(pool, tenant="done", state="delivered")
    await rows.delivery(pool, tenant="sent", state="sending")

    found = await backlog.by_tenant(pool)
    assert (True, {"tenants": 0, "pending": 0, "oldest_seconds": None}) == (found["complete"], found["others"])
    figures = [
        (each["tenant_id"], each["pending"], each["due"], each["waiting"], _minutes(each)) for each in found["tenants"]
    ]
    expected = [
        ("held", 1, 0, 1, 7),
        ("both", 2, 1, 1, 6),
        ("unrung", 1, 1, 0, 5),
        ("rung", 1, 1, 0, 4),
        ("lane", 1, 0, 1, 3),
        ("disabled", 1, 0, 1, None),
        ("later", 1, 0, 0, None),
    ]
    assert expected == figures
    some = await backlog.of_tenants(pool, ["both", "later", "rung", "done", "disabled"])
    assert {each[0]: each[1:] for each in expected if each[0] in some} | {"done": (0, 0, 0, None)} == {
        name: (each["pending"], each["due"], each["waiting"], _minutes(each)) for name, each in some.items()
    }


async def test_the_others_are_one_row(pool: Pool) -> None:
    """With their number, what they have pending, and the age of the worst of them."""
    assert {"tenants": [], "complete": True} == {
        name: value for name, value in (await backlog.by_tenant(pool)).items() if name != "others"
    }
    for number, tenant in enumerate(("a", "b", "c", "d")):
        endpoint = await _waits(pool, tenant, next_attempt_at=rows.ago(minutes=9 - number))
        await _waits(pool, tenant, "secret", endpoint=endpoint)

    found = await backlog.by_tenant(pool, tenants=2)
    assert ["a", "b"] == [each["tenant_id"] for each in found["tenants"]]
    assert (2, 4, 7) == (found["others"]["tenants"], found["others"]["pending"], _minutes(found["others"]))
    few = await backlog.by_tenant(pool, tenants=1, most=1)
    assert [(1, 1, 1)] == [(each["pending"], each["due"], each["waiting"]) for each in few["tenants"]]
    assert (3, 1) == (few["others"]["tenants"], few["others"]["pending"])


@pytest.mark.parametrize(
    ("reason", "columns"),
    [
        (None, {"next_attempt_at": rows.ago(hours=9)}),
        ("order", {"held_at": rows.ago(hours=9)}),
        ("breaker", {"held_at": rows.NOW, "created_at": rows.ago(hours=9)}),  # a probe that was held anew
    ],
)
async def test_the_worst_is_found_among_more_tenants_than_are_read(
    pool: Pool, reason: str | None, columns: dict[str, Any]
) -> None:
    """The one that has waited for longest is shown, although one tenant is read, and it is the last."""
    for tenant in ("a", "b", "c"):
        await _waits(pool, tenant, "breaker", held_at=rows.ago(minutes=3))
        await _waits(pool, tenant, next_attempt_at=rows.ago(minutes=4))
    worst = await _waits(pool, "z", reason, **columns)
    if reason == "breaker":
        await rows.hold(pool, worst, tenant="z", waiting_for="breaker", since=rows.ago(hours=12))

    [first] = await backlog.SQL.rows(pool, "by_tenant", 10, 1, 1, 5)
    assert ("z", 1, 9) == (first["tenant_id"], first["pending"], round(first["oldest_seconds"] / 3600))
    assert not first["complete"]


@pytest.mark.parametrize("columns", [{"rung_at": None}, {"rung_at": rows.NOW}, {"reason": "breaker"}])
async def test_what_a_large_tenant_has_is_not_counted_for_the_others(pool: Pool, columns: dict[str, Any]) -> None:
    """Of the tenant that is shown more is pending than is counted; of the others what there is, up to the limit."""
    big = await _waits(pool, "big", next_attempt_at=rows.ago(minutes=9))
    for _ in range(5):
        await _waits(pool, "big", endpoint=big, next_attempt_at=rows.ago(minutes=8))
    await _waits(pool, "small", **columns)

    few = await backlog.by_tenant(pool, tenants=1, most=2)
    assert [("big", 2)] == [(each["tenant_id"], each["pending"]) for each in few["tenants"]]
    assert (1, 1) == (few["others"]["tenants"], few["others"]["pending"])
    for _ in range(3):
        await _waits(pool, "third", **columns)
    assert 2 == (await backlog.by_tenant(pool, tenants=1, most=2))["others"]["pending"]


async def test_the_oldest_of_several_held_endpoints_counts(pool: Pool) -> None:
    """Also if a probe, which is the oldest delivery, was held anew a moment ago."""
    for number in range(3):
        endpoint = await _waits(pool, "acme", "breaker", held_at=rows.ago(seconds=1))
        await _waits(pool, "acme", "breaker", endpoint=endpoint, held_at=rows.ago(minutes=20 + number))

    [acme] = (await backlog.by_tenant(pool))["tenants"]
    assert (6, 22) == (acme["pending"], _minutes(acme))


def _minutes(figures: dict[str, Any]) -> int | None:
    seconds = figures["oldest_seconds"]
    return None if seconds is None else int(seconds // 60)
