"""Verification finds the first row that a writer of the tables altered, removed, inserted or moved."""

import pytest

from hookseal.audit import log
from hookseal.audit.chain import Flaw, Row, mac_message
from hookseal.ground.ids import TenantId
from hookseal.postgres.pool import Pool
from hookseal.secrets.core.trust import IntegrityKey
from tests.audit.logs import (
    COPIED,
    FORGERS_KEY,
    KEY,
    NEXT_KEY,
    altered,
    append,
    broken,
    chain,
    change,
    tamper,
    tampered,
)

pytestmark = pytest.mark.req("SEC-14", part="verify")

WITHOUT_KEYS = "ALTER TABLE hookseal.audit_log DROP CONSTRAINT audit_log_pkey, DROP CONSTRAINT audit_log_sequence_check"
ALTERATIONS = [
    ("at", "at + interval '1 microsecond'"),
    ("at", "'infinity'"),
    ("at", "'-infinity'"),
    ("at", "'4713-01-01 BC'"),
    ("at", "'294276-12-31'"),
    ("actor", "'eve'"),
    ("action", "'secret.revealed'"),
    ("subject", "'endpoint:9'"),
    ("before", "NULL"),
    ("before", "'null'"),
    ("before", "'{\"generation\": 1}'"),
    ("after", "'{\"generation\":9}'"),
    ("correlation_id", "NULL"),
    ("correlation_id", "''"),
    ("previous_mac", "mac"),
    ("previous_mac", "''"),
    ("mac", "previous_mac"),
    ("mac", "''"),
]
REMOVALS = [
    (["DELETE FROM hookseal.audit_log WHERE sequence = 1"], (1, Flaw.MISSING)),
    (["DELETE FROM hookseal.audit_log WHERE sequence = 2"], (2, Flaw.MISSING)),
    (["DELETE FROM hookseal.audit_log WHERE sequence = 4"], (4, Flaw.TRUNCATED)),
    (["DELETE FROM hookseal.audit_log WHERE sequence >= 3"], (3, Flaw.TRUNCATED)),
    (["TRUNCATE hookseal.audit_log"], (1, Flaw.TRUNCATED)),
    (["UPDATE hookseal.audit_log SET sequence = 9 WHERE sequence = 2"], (2, Flaw.MISSING)),
    (["UPDATE hookseal.audit_log SET mac_key_id = '2' WHERE sequence = 3"], (3, Flaw.UNKNOWN_KEY)),
    (
        [
            "UPDATE hookseal.audit_log SET sequence = 9 WHERE sequence = 2",
            "UPDATE hookseal.audit_log SET sequence = 2 WHERE sequence = 3",
            "UPDATE hookseal.audit_log SET sequence = 3 WHERE sequence = 9",
        ],
        (2, Flaw.ALTERED),
    ),
    (
        [
            "DELETE FROM hookseal.audit_log WHERE sequence = 2",
            "UPDATE hookseal.audit_log SET sequence = 2 WHERE sequence = 3",
            "UPDATE hookseal.audit_log SET sequence = 3 WHERE sequence = 4",
        ],
        (2, Flaw.ALTERED),
    ),
    ([COPIED.format(number=5)], (5, Flaw.ALTERED)),
    ([COPIED.format(number=9)], (5, Flaw.MISSING)),
    ([WITHOUT_KEYS, COPIED.format(number=2)], (2, Flaw.OUT_OF_PLACE)),
    ([WITHOUT_KEYS, COPIED.format(number=0)], (0, Flaw.OUT_OF_PLACE)),
    ([WITHOUT_KEYS, COPIED.format(number=-(2**63))], (-(2**63), Flaw.OUT_OF_PLACE)),
    (["UPDATE hookseal.audit_heads SET sequence = 3"], (4, Flaw.HEAD)),
    (["UPDATE hookseal.audit_heads SET sequence = 5"], (5, Flaw.TRUNCATED)),
    (["UPDATE hookseal.audit_heads SET mac = sha256(mac)"], (4, Flaw.HEAD)),
    (["DELETE FROM hookseal.audit_heads"], (4, Flaw.HEAD)),
    (["DELETE FROM hookseal.audit_log WHERE sequence = 4", "DELETE FROM hookseal.audit_heads"], (3, Flaw.HEAD)),
]


async def copy_log(pool: Pool) -> None:
    """Copy the log and its heads, as an attacker does who wants to restore them later."""
    await pool.execute("CREATE TABLE kept_log AS SELECT * FROM hookseal.audit_log")
    await pool.execute("ALTER TABLE kept_log DROP COLUMN generation")
    await pool.execute("CREATE TABLE kept_heads AS SELECT * FROM hookseal.audit_heads")


async def test_an_altered_row_is_found(pool: Pool) -> None:
    await chain(pool, 3)
    for column, value in ALTERATIONS:
        async with tampered(pool, altered(**{column: value})) as connection:
            (verified,) = await log.verify(connection, KEY)
        assert (1, (2, Flaw.ALTERED)) == (verified.rows, verified.broken), f"{column} = {value}"


async def test_the_mac_covers_every_column(pool: Pool) -> None:
    columns = await pool.fetch(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'hookseal.audit_log'::regclass AND attnum > 0"
    )

    covered = {*Row.__dataclass_fields__} - {"at_us"}
    assert covered | {"at", "mac", "generation"} == {column["attname"] for column in columns}


async def test_removed_inserted_and_moved_rows_are_found(pool: Pool) -> None:
    """The first place where the chain differs from what was appended is named, with the reason."""
    await chain(pool, 4)
    for statements, expected in REMOVALS:
        async with tampered(pool, *statements) as connection:
            assert expected == await broken(connection), statements


async def test_a_row_of_another_tenant_is_found(pool: Pool) -> None:
    """A moved row is missing in its chain and altered in the other; the chain of a third tenant is valid."""
    for tenant, length in (("acme", 2), ("globex", 1), ("initech", 1)):
        await chain(pool, length, tenant)
    await tamper(pool, "UPDATE hookseal.audit_log SET tenant_id = 'globex' WHERE tenant_id = 'acme' AND sequence = 2")

    assert [("acme", (2, Flaw.TRUNCATED)), ("globex", (2, Flaw.ALTERED)), ("initech", None)] == [
        (each.tenant_id, each.broken) for each in await log.verify(pool, KEY)
    ]


@pytest.mark.parametrize(("forger", "expected"), [(FORGERS_KEY, (1, Flaw.ALTERED)), (NEXT_KEY, (1, Flaw.UNKNOWN_KEY))])
async def test_a_chain_rewritten_without_the_key_is_found(
    forger: IntegrityKey, expected: tuple[int, Flaw], pool: Pool
) -> None:
    await chain(pool, 3)
    await tamper(pool, "TRUNCATE hookseal.audit_log, hookseal.audit_heads")
    await append(pool, change(1), change(3), key=forger)

    assert expected == await broken(pool)


async def test_a_mac_under_another_key_is_found(pool: Pool) -> None:
    """An altered last row with a MAC under another key is found, even if the head was changed, too."""
    await chain(pool, 2)
    record = await pool.fetchrow("SELECT * FROM hookseal.audit_log WHERE sequence = 2")
    assert record is not None
    fields = {name: record[name] for name in Row.__dataclass_fields__ if name != "at_us"}
    row = Row(**fields | {"at_us": "0", "actor": "eve"})
    mac = FORGERS_KEY.authenticate(mac_message(row)).hex()
    await tamper(
        pool,
        altered(at="'epoch'", actor="'eve'", mac=f"'\\x{mac}'"),
        "UPDATE hookseal.audit_heads SET mac = (SELECT mac FROM hookseal.audit_log WHERE sequence = 2)",
    )

    assert (2, Flaw.ALTERED) == await broken(pool)


async def test_a_former_row_breaks_the_chain(pool: Pool) -> None:
    await chain(pool, 2)
    await copy_log(pool)
    await tamper(
        pool,
        "DELETE FROM hookseal.audit_log WHERE sequence = 2",
        "UPDATE hookseal.audit_heads SET sequence = 1, mac = (SELECT mac FROM hookseal.audit_log)",
    )
    await append(pool, change(20), change(21))
    assert None is await broken(pool)
    replaced = ["DELETE FROM hookseal.audit_log WHERE sequence = 2", "INSERT INTO hookseal.audit_log TABLE kept_log"]
    await tamper(pool, "DELETE FROM hookseal.audit_log WHERE sequence = 1", *replaced)

    assert (3, Flaw.UNCHAINED) == await broken(pool)


async def test_a_restored_log_contradicts_a_saved_head(pool: Pool) -> None:
    """A log that was restored with its heads to an older state is consistent: only a later saved head shows it."""
    await chain(pool, 2)
    await copy_log(pool)
    await append(pool, change(3))
    (later,) = await log.verify(pool, KEY)
    await tamper(
        pool,
        "TRUNCATE hookseal.audit_log, hookseal.audit_heads",
        "INSERT INTO hookseal.audit_log TABLE kept_log",
        "INSERT INTO hookseal.audit_heads TABLE kept_heads",
    )
    (now,) = await log.verify(pool, KEY)

    assert (None, None) == (later.broken, now.broken)
    assert (3, 2) == (later.head_sequence, now.head_sequence)


async def test_a_chain_is_verified_in_batches(pool: Pool) -> None:
    """A chain is verified in batches of 1,000 rows, with progress after each; an error in a later batch is found."""
    progress: list[tuple[str, int]] = []
    for length, reported in ((1_000, [1_000, 1_000]), (1_001, [1_000, 1_001]), (2_000, [1_000, 2_000, 2_000])):
        last = await pool.fetchval("SELECT coalesce(max(sequence), 0) FROM hookseal.audit_log")
        await append(pool, *(change(number) for number in range(last + 1, length + 1)))
        progress.clear()
        (verified,) = await log.verify(pool, KEY, on_progress=lambda tenant, rows: progress.append((tenant, rows)))
        assert (length, length, None) == (verified.rows, verified.head_sequence, verified.broken)
        assert verified.head_mac == (await pool.fetchval("SELECT mac FROM hookseal.audit_heads")).hex()
        assert [("acme", rows) for rows in reported] == progress
    await tamper(pool, "UPDATE hookseal.audit_log SET actor = 'eve' WHERE sequence IN (1001, 1999)")
    assert (1_001, Flaw.ALTERED) == await broken(pool)
    await tamper(pool, "DELETE FROM hookseal.audit_log WHERE sequence BETWEEN 999 AND 1001")
    assert (999, Flaw.MISSING) == await broken(pool)


async def test_every_tenant_is_verified(pool: Pool) -> None:
    assert [] == await log.verify(pool, KEY)
    for tenant in ("globex", "acme", "_system"):
        await chain(pool, 1, tenant)
    await tamper(pool, "DELETE FROM hookseal.audit_heads WHERE tenant_id = 'acme'", "TRUNCATE hookseal.audit_log")
    await append(pool, change(1, "initech"))
    assert {"_system": Flaw.TRUNCATED, "globex": Flaw.TRUNCATED, "initech": None} == {
        each.tenant_id: each.broken and each.broken.reason for each in await log.verify(pool, KEY)
    }
    (nobody,) = await log.verify(pool, KEY, tenant=TenantId("never-seen"))
    assert (0, None, None, None) == (nobody.rows, nobody.head_sequence, nobody.head_mac, nobody.broken)
