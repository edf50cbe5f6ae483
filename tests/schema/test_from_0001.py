"""From revision 0001, with what an installation holds: nothing is lost, nothing is signed differently."""

import asyncpg
import pytest

from hookseal.schema import revision
from hookseal.schema.upgrade import upgrade
from tests.schema.older import upgraded_to

ROWS = (
    """
    INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types, secret_ref, mac)
    VALUES ('acme', gen_random_uuid(), 'https://a.example/', '{*}', 'db:acme:n:1', 'm')
    """,
    "SELECT hookseal.publish('acme', 'invoice.paid', '{\"n\": 1}'::json, 'e1')",
    "UPDATE hookseal.deliveries SET state = 'failed', attempts = 1, next_attempt_at = NULL, last_error = 'x'",
)


@pytest.mark.req("OPS-09", part="from-the-previous")
async def test_from_0001(empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation of 0001 keeps its rows; a repeat of an event answers as it did, a pointer reads as it did."""
    await upgraded_to("0001", empty_database_url, monkeypatch)
    connection = await asyncpg.connect(empty_database_url)
    try:
        for row in ROWS:
            await connection.execute(row)
        before = await connection.fetch("SELECT * FROM hookseal.endpoints")
        again = await connection.fetch(
            "SELECT * FROM hookseal.publish('acme', 'invoice.paid', '{\"n\": 1}'::json, 'e1')"
        )
        assert "0001" == await revision.current(connection)

        assert revision.EXPECTED == await upgrade(empty_database_url)
        after = await connection.fetch("SELECT * FROM hookseal.endpoints")
        assert [dict(row) for row in before] == [{name: row[name] for name in before[0].keys()} for row in after]  # noqa: SIM118 -- a Record iterates over values
        assert (10, 30, 43_200, None, 10) == tuple(
            after[0][name]
            for name in (
                "max_attempts",
                "backoff_base_seconds",
                "backoff_cap_seconds",
                "retry_schedule",
                "attempts_allowed",
            )
        )
        assert again == await connection.fetch(
            "SELECT * FROM hookseal.publish('acme', 'invoice.paid', '{\"n\": 1}'::json, 'e1')"
        )
        assert 0 == await connection.fetchval("SELECT budget_spent FROM hookseal.deliveries")
    finally:
        await connection.close()


@pytest.mark.req("DEL-14", part="schedules")
@pytest.mark.parametrize(
    "schedule",
    [
        "{}",
        "{0}",
        "{604801}",
        "{1,NULL}",
        "{{1},{2}}",
        "{604800,604800,604800,604800,604800}",
        f"{{{','.join(['1'] * 31)}}}",
    ],
)
async def test_what_is_no_schedule(pool: "asyncpg.Pool[asyncpg.Record]", schedule: str) -> None:
    """A retry schedule has 1 to 30 entries of 1 s to 7 d, 30 d in all: the database takes nothing else."""
    with pytest.raises(asyncpg.CheckViolationError):
        await pool.execute(
            "INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types, retry_schedule)"
            " VALUES ('acme', gen_random_uuid(), 'https://a.example/', '{*}', $1::text::integer[])",
            schedule,
        )


async def test_a_schedule_says_how_many_attempts(pool: "asyncpg.Pool[asyncpg.Record]") -> None:
    """An endpoint with a schedule is tried once more than the schedule has entries, whatever else its row says."""
    await pool.execute(
        "INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types, max_attempts, retry_schedule)"
        " VALUES ('acme', gen_random_uuid(), 'https://a.example/', '{*}', 3, '{5,300}'),"
        " ('acme', gen_random_uuid(), 'https://b.example/', '{*}', 4, NULL)"
    )

    assert [3, 4] == [
        row[0] for row in await pool.fetch("SELECT attempts_allowed FROM hookseal.endpoints ORDER BY url")
    ]
