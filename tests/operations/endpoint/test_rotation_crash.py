"""A rotation that is interrupted at any statement leaves the old state or the new one, never a mixture."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import asyncpg
import pytest

from hookseal.errors import HooksealError
from hookseal.ground.ids import TenantId
from hookseal.operations.endpoint.rotation import rotate_secret
from hookseal.operations.operator import Operator
from hookseal.postgres.pool import Pool
from hookseal.secrets.core.signing import generate_signing_secret
from hookseal.secrets.endpoint.rotation import RotationRequest
from tests.doubles.stored import Installation, begin
from tests.worker.waiting import eventually

TABLES = ("endpoints", "secret_records", "secret_rotations", "audit_log", "audit_heads")
_HAS_ENDED = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)"


class CutOff(asyncpg.Connection):
    """A connection that is cut before the statement of that number, as when the process dies there."""

    left: Iterator[int] = iter(())
    _session = 0

    async def end(self, pool: Pool) -> None:
        """Close the connection, and wait until PostgreSQL has ended its session, which may hold locks until then."""
        self.terminate()
        await eventually(lambda: pool.fetchval(_HAS_ENDED, self._session))

    async def _count(self) -> None:
        if next(self.left, None) is None:
            self.terminate()
        else:
            self._session = self.get_server_pid()

    async def execute(self, *args: Any, **kwargs: Any) -> str:
        """Execute, or be cut."""
        await self._count()
        return await super().execute(*args, **kwargs)

    async def fetchrow(self, *args: Any, **kwargs: Any) -> Any:
        """Fetch a row, or be cut."""
        await self._count()
        return await super().fetchrow(*args, **kwargs)

    async def fetchval(self, *args: Any, **kwargs: Any) -> Any:
        """Fetch a value, or be cut."""
        await self._count()
        return await super().fetchval(*args, **kwargs)

    async def fetch(self, *args: Any, **kwargs: Any) -> Any:
        """Fetch rows, or be cut."""
        await self._count()
        return await super().fetch(*args, **kwargs)


async def content(installation: Installation) -> dict[str, list[dict[str, Any]]]:
    """Return everything that a rotation may change."""
    return {
        table: [dict(row) for row in await installation.pool.fetch(f"SELECT * FROM hookseal.{table} ORDER BY 1, 2")]  # noqa: S608 -- our tables
        for table in TABLES
    }


@pytest.mark.req("SEC-09")
async def test_a_rotation_interrupted_before_its_end_changes_nothing(
    pool: "asyncpg.Pool[asyncpg.Record]", database_url: str
) -> None:
    """Cut before any of its statements a rotation has changed nothing; not cut, it has changed everything."""
    installation = await begin(pool)
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    before = await content(installation)
    for statements in count():
        connection = await asyncpg.connect(database_url, connection_class=CutOff)
        connection.left = iter(range(statements))
        request = RotationRequest(
            tenant_id=TenantId("acme"),
            endpoint_id=endpoint,
            overlap_seconds=60,
            secret=generate_signing_secret(),
            rotation_id="r1",
        )
        try:
            await rotate_secret(
                Operator(connection=connection, unlocked=installation.unlocked, who="ada@desk"), request
            )
        except (HooksealError, asyncpg.InterfaceError, OSError):
            assert before == await content(installation), f"cut off before statement {statements + 1}"
        else:
            break
        finally:
            await connection.end(pool)
    after = await content(installation)

    assert statements > 8  # the minimum number of statements: each of them was tried
    assert all(before[table] != after[table] for table in TABLES)
    assert [2] == [row["generation"] for row in after["endpoints"]]
