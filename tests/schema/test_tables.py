"""What the tables accept from any writer."""

import asyncpg
import pytest

from hookseal.dispatcher.core.endpoint_rules import DEFAULT_RETRY_SCHEDULE


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
async def test_an_invalid_schedule_is_refused(pool: "asyncpg.Pool[asyncpg.Record]", schedule: str) -> None:
    """The database refuses a retry schedule unless it has 1 to 30 entries of 1 s to 7 d, at most 30 d in all."""
    with pytest.raises(asyncpg.CheckViolationError):
        await pool.execute(
            "INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types, retry_schedule)"
            " VALUES ('acme', gen_random_uuid(), 'https://a.example/', '{*}', $1::text::integer[])",
            schedule,
        )


async def test_a_schedule_says_how_many_attempts(pool: "asyncpg.Pool[asyncpg.Record]") -> None:
    """An endpoint with a schedule has one attempt more than the schedule has entries, whatever `max_attempts` is.

    An endpoint that an older system inserts without retry settings has the same default as one that is added.
    """
    await pool.execute(
        "INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types, max_attempts, retry_schedule)"
        " VALUES ('acme', gen_random_uuid(), 'https://a.example/', '{*}', 3, '{5,300}'),"
        " ('acme', gen_random_uuid(), 'https://b.example/', '{*}', 4, NULL)"
    )
    (inserted,) = await pool.fetch(
        "INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types)"
        " VALUES ('acme', gen_random_uuid(), 'https://c.example/', '{*}') RETURNING retry_schedule"
    )

    assert DEFAULT_RETRY_SCHEDULE == tuple(inserted["retry_schedule"])
    assert [3, 4, 11] == [
        row[0] for row in await pool.fetch("SELECT attempts_allowed FROM hookseal.endpoints ORDER BY url")
    ]


@pytest.mark.req("SEC-22")
@pytest.mark.parametrize("column", ["ref", "endpoint_id", "key_id"])
async def test_generated_columns_cannot_be_written(pool: "asyncpg.Pool[asyncpg.Record]", column: str) -> None:
    """Nobody, not even the owner, can write the columns that are generated from a record."""
    with pytest.raises(asyncpg.GeneratedAlwaysError):
        await pool.execute(f"UPDATE hookseal.secret_records SET {column} = NULL")  # noqa: S608 -- ours
    with pytest.raises(asyncpg.GeneratedAlwaysError):
        await pool.execute(
            f"INSERT INTO hookseal.secret_records (tenant_id, name, version, provider, purpose, sealed, {column})"  # noqa: S608 -- ours
            " VALUES ('acme', 'n', 1, 'db', 'p', '', NULL)"
        )


@pytest.mark.req("SEC-22")
@pytest.mark.parametrize(
    ("name", "endpoint"),
    [
        ("webhook-endpoint-01890a5d-ac96-774b-bcce-b302099a8057", "01890a5d-ac96-774b-bcce-b302099a8057"),
        ("endpoint-headers-01890a5d-ac96-774b-bcce-b302099a8057", "01890a5d-ac96-774b-bcce-b302099a8057"),
        ("endpoint-tls-01890a5d-ac96-774b-bcce-b302099a8057", "01890a5d-ac96-774b-bcce-b302099a8057"),
        ("endpoint-tls-01890A5D-ac96-774b-bcce-b302099a8057", None),
        ("endpoint-tls-01890a5d-ac96-774b-bcce-b302099a80571", None),
        ("xendpoint-tls-01890a5d-ac96-774b-bcce-b302099a8057", None),
        ("webhook-endpoint-", None),
        ("integrity", None),
    ],
)
async def test_the_endpoint_of_a_record_is_read_from_its_name(
    pool: "asyncpg.Pool[asyncpg.Record]", name: str, endpoint: str | None
) -> None:
    """The endpoint of a record is read from its name, if well formed; its ref and key come from the row itself."""
    row = await pool.fetchrow(
        "INSERT INTO hookseal.secret_records (tenant_id, name, version, provider, purpose, sealed)"
        " VALUES ('acme', $1, 7, 'db', 'p', '\\x010100112233aabbccddee') RETURNING ref, endpoint_id::text, key_id",
        name,
    )
    assert (f"db:acme:{name}:7", endpoint, "00112233aabbccdd") == tuple(row or ())
