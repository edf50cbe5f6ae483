"""An export is verified without its table, with the same result, and compared with saved heads."""

import asyncio
import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import asyncpg
import pytest

from hookseal.audit import log
from hookseal.audit.chain import Action, Change, Contradiction, Flaw, Head, heads_to_json
from hookseal.audit.exported import verify_export
from hookseal.errors import Malformed, Refused
from hookseal.ground.ids import SYSTEM_TENANT, TenantId
from hookseal.postgres.pool import Pool
from tests.audit.logs import FORGERS_KEY, KEY, WHO, append, chain, change
from tests.servers import Servers, database

pytestmark = [pytest.mark.req("SEC-14", part="export"), pytest.mark.pure]

Rows = list[dict[str, Any]]


async def exported(pool: Pool) -> Rows:
    return [row async for row in log.export(pool)]


def lines(rows: Rows) -> list[bytes]:
    return [json.dumps(row).encode() + b"\n" for row in rows]


async def six_rows(pool: Pool) -> Rows:
    """Export a log with four rows of acme and two of globex."""
    await chain(pool, 4)
    await chain(pool, 2, "globex")
    return await exported(pool)


@pytest.fixture(scope="session")
def made_once(servers: Servers) -> Rows:
    async def make() -> Rows:
        async with (
            database(servers, f"{servers.prefix}{servers.process}_exported", template=servers.template) as url,
            asyncpg.create_pool(url, min_size=1) as pool,
        ):
            return await six_rows(pool)

    return asyncio.run(make())


@pytest.fixture
def rows(made_once: Rows) -> Rows:
    """Return such an export, which the test may alter."""
    return deepcopy(made_once)


async def test_an_export_verifies_as_its_table(pool: Pool) -> None:
    """For facts of every kind, the verification of the export gives the result of the verification of the table."""
    await chain(pool, 1_001)
    odd = {"text": "a\n\u00e9\U0001f511", "number": 1.5, "none": None, "list": [["a", 1, True]], "large": 2**70}
    moved = Change(tenant_id=TenantId("globex"), action=Action.ENDPOINT_ADDED, subject="endpoint:1", after=odd)
    async with pool.acquire() as connection, connection.transaction():
        await log.append(connection, KEY, WHO, moved)
    progress: list[tuple[str, int]] = []
    verified, contradicted = verify_export(
        lines(await exported(pool)), KEY, on_progress=lambda tenant, count: progress.append((tenant, count))
    )

    assert (await log.verify(pool, KEY), []) == (verified, contradicted)
    assert [("acme", 1_000), ("acme", 1_001), ("globex", 1)] == progress
    progress.clear()
    verify_export(lines((await exported(pool))[900:]), KEY, on_progress=lambda *read: progress.append(read))
    assert [("acme", 101), ("globex", 1)] == progress
    assert [] == verify_export([], KEY)[0]


@pytest.mark.parametrize(
    ("alter", "expected"),
    [
        (lambda rows: rows.pop(0), (1, Flaw.MISSING)),
        (lambda rows: rows.pop(1), (2, Flaw.MISSING)),
        (lambda rows: rows.insert(1, rows.pop(2)), (2, Flaw.MISSING)),
        (lambda rows: rows.insert(2, rows[1]), (2, Flaw.OUT_OF_PLACE)),
        (lambda rows: rows[1].update(actor="eve"), (2, Flaw.ALTERED)),
        (lambda rows: rows[1].update(at="2026-01-01T00:00:00.000000Z"), (2, Flaw.ALTERED)),
        (lambda rows: rows[1].update(at="infinity"), (2, Flaw.ALTERED)),
        (lambda rows: rows[1].update(before=None), (2, Flaw.ALTERED)),
        (lambda rows: rows[1].update(after='{"generation":2}'), None),
        (lambda rows: rows[1].update(after='{"generation": 2}'), (2, Flaw.ALTERED)),
        (lambda rows: rows[1].update(correlation_id=None), (2, Flaw.ALTERED)),
        (lambda rows: rows[1].update(mac_key_id="9"), (2, Flaw.UNKNOWN_KEY)),
        (lambda rows: rows[1].update(mac=rows[0]["mac"]), (2, Flaw.ALTERED)),
        (lambda rows: rows[4].update(tenant_id="acme"), (1, Flaw.OUT_OF_PLACE)),
        (lambda rows: rows[4].update(tenant_id="acme", sequence=5), (5, Flaw.ALTERED)),
    ],
)
def test_an_altered_line_is_named(
    rows: Rows, alter: Callable[[Rows], object], expected: tuple[int, Flaw] | None
) -> None:
    """Wherever a line was altered, removed, repeated or moved, the first such row is named."""
    alter(rows)
    [acme, *_] = verify_export(lines(rows), KEY, tenant="acme")[0]
    assert expected == acme.broken


def test_another_key_verifies_no_row(rows: Rows) -> None:
    """Under another key no row is valid; each tenant is verified separately, in any order of lines."""
    assert [(1, Flaw.ALTERED)] * 2 == [each.broken for each in verify_export(lines(rows), FORGERS_KEY)[0]]
    mixed = [rows[0], rows[4], rows[1], rows[5], rows[2], rows[3]]
    assert [("acme", 4, None), ("globex", 2, None)] == [
        (each.tenant_id, each.rows, each.broken) for each in verify_export(lines(mixed), KEY)[0]
    ]


async def test_saved_heads_reveal_missing_rows(pool: Pool) -> None:
    """A truncated chain, a missing tenant and another history contradict the saved heads."""
    rows = await six_rows(pool)
    heads = await log.heads(pool)
    assert ([], 2) == (verify_export(lines(rows), KEY, heads)[1], len(heads))
    verified, contradicted = verify_export(lines(rows[:3]), KEY, heads)
    assert ([None], [Contradiction.OLDER] * 2) == ([each.broken for each in verified], [how for _, how in contradicted])
    assert ["acme", "globex"] == [head.tenant_id for head, _ in contradicted]
    forked = [Head(tenant_id="acme", sequence=2, mac=bytes(32))]
    assert [(forked[0], Contradiction.FORKED)] == verify_export(lines(rows), KEY, forked)[1]


async def test_an_accepted_restore_is_no_contradiction(pool: Pool) -> None:
    """Heads that an authentic system row accepts as lost are left out; rows of tenants cannot accept any."""
    await chain(pool, 1)
    lost = Head(tenant_id="acme", sequence=9, mac=bytes(32))
    accepted = Change(
        tenant_id=SYSTEM_TENANT,
        action=Action.RESTORE_ACCEPTED,
        subject="restore",
        after={"heads": heads_to_json([lost])},
    )
    await append(pool, accepted)
    rows = await exported(pool)
    assert [] == verify_export(lines(rows), KEY, [lost], tenant="acme")[1]
    [system] = [row for row in rows if row["tenant_id"] == SYSTEM_TENANT]
    for forged in ({"actor": "eve"}, {"tenant_id": "acme"}):
        others = [row for row in rows if row is not system] + [system | forged]
        assert [lost] == [head for head, _ in verify_export(lines(others), KEY, [lost])[1]]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"x",
        b"[]",
        b"{}",
        b'{"error": {"code": "unavailable"}}',
        b"\xff\xfe",
        b"[" * 100_000,
        *(
            {name: value}
            for name, value in (
                ("tenant_id", None),
                ("sequence", "1"),
                ("sequence", True),
                ("sequence", 1.0),
                ("at", 7),
                ("actor", "\ud800"),
                ("before", 7),
                ("after", []),
                ("after", {"a": float("inf")}),
                ("correlation_id", 7),
                ("previous_mac", "zz"),
                ("mac", None),
                ("mac_key_id", None),
            )
        ),
    ],
    ids=lambda line: str(line)[:30],
)
def test_a_line_of_no_export_is_refused(rows: Rows, line: bytes | dict[str, Any]) -> None:
    altered = line if isinstance(line, bytes) else json.dumps(rows[1] | line).encode()
    with pytest.raises(Malformed, match="line 2 ") as refused:
        verify_export([*lines(rows[:1]), altered], KEY)
    assert "from_export" == refused.value.field


@pytest.mark.parametrize("more", ['"actor":"eve"', '"note":"eve"', '"after":{"generation":2,"generation":2}'])
@pytest.mark.parametrize("place", ["before", "behind"])
def test_a_duplicate_or_extra_name_is_refused(rows: Rows, more: str, place: str) -> None:
    line = json.dumps(rows[1])
    altered = f"{{{more},{line[1:]}" if place == "before" else f"{line[:-1]},{more}}}"
    with pytest.raises(Malformed, match="line 2 "):
        verify_export([*lines(rows[:1]), altered.encode()], KEY)


async def test_each_chain_has_a_head(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each chain with a row has a head, for one tenant or all; too many for a file are refused."""
    assert [] == await log.heads(pool)
    for tenant in ("globex", "acme"):
        await chain(pool, 2, tenant)
    async with pool.acquire() as connection, connection.transaction():
        await log.lock_chain(connection, TenantId("waited"))  # an append that was begun and rolled back
    verified = await log.verify(pool, KEY)
    found = await log.heads(pool)
    assert [("acme", 2), ("globex", 2)] == [(head.tenant_id, head.sequence) for head in found]
    assert [head.mac.hex() for head in found] == [each.head_mac for each in verified][:2]
    assert found[1:] == await log.heads(pool, tenant=TenantId("globex"))
    assert [] == await log.heads(pool, tenant=TenantId("waited"))
    await append(pool, change(3))
    assert [] == await log.find_contradictions(pool, KEY, found)
    monkeypatch.setattr(log, "MAX_HEADS", 1)
    with pytest.raises(Refused, match="more than 1 tenants") as caught:
        await log.heads(pool)
    assert "--tenant" in (caught.value.advice or "")
