"""A program that runs each operation in a new process, which kills itself before its first or after a given statement.

PostgreSQL learns nothing of a process between two statements. So a death at any other await, or in the middle of a
statement that is executed or not, leaves what one of these deaths leaves.

It reads one JSON object a line, and answers each with the exit code and the number of such places in the operation; the
number is None if the process was killed before the operation was done. A key is named by the seed that the tests derive
it from.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Final

import asyncpg

from hookseal.ground.ids import EndpointId, TenantId
from hookseal.operations import migrate_secrets
from hookseal.operations.endpoint import rotation
from hookseal.operations.key import keys
from hookseal.operations.operator import Operator
from hookseal.secrets.boot import unlock
from hookseal.secrets.core.keyring import KeyRing, MasterKey
from hookseal.secrets.core.ref import Provider
from hookseal.secrets.core.signing import generate_signing_secret
from hookseal.secrets.endpoint.rotation import RotationRequest
from hookseal.secrets.key.rewrap import BEGINNING
from hookseal.secrets.migrate_secrets import PlaintextEndpoint
from tests.doubles.stored import keyring
from tests.secrets.samples import master_key

TENANT: Final = TenantId("acme")
FIRST: Final = "first of all"
APPLICATION_NAME: Final = "killed_process"
_HOW: Final = keys.CompromiseOptions(overlap_seconds=0, force=False, dry_run=False, random_bytes=os.urandom)


class _Killed(asyncpg.Connection):
    """A connection whose process kills itself before its first statement, at 1, or after that many less one."""

    kill_at = 0  # counting begins when it is set
    count = 0

    async def execute(self, *args: Any, **kwargs: Any) -> str:
        """Execute, and perhaps kill."""
        return await self._counted(super().execute(*args, **kwargs))  # type: ignore[no-any-return]

    async def fetch(self, *args: Any, **kwargs: Any) -> Any:
        """Fetch rows, and perhaps kill."""
        return await self._counted(super().fetch(*args, **kwargs))

    async def fetchrow(self, *args: Any, **kwargs: Any) -> Any:
        """Fetch a row, and perhaps kill."""
        return await self._counted(super().fetchrow(*args, **kwargs))

    async def fetchval(self, *args: Any, **kwargs: Any) -> Any:
        """Fetch a value, and perhaps kill."""
        return await self._counted(super().fetchval(*args, **kwargs))

    def step(self) -> None:
        """Count one, and kill this process if it is the one."""
        self.count += 1
        if self.count == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    async def _counted(self, statement: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await statement
        finally:
            if self.kill_at:
                self.step()


def wanted(endpoint: str, *, overlap_seconds: int) -> RotationRequest:
    """Return the rotation to make, with a fixed id for each endpoint."""
    return RotationRequest(
        tenant_id=TENANT,
        endpoint_id=EndpointId(endpoint),
        overlap_seconds=overlap_seconds,
        secret=generate_signing_secret(),
        rotation_id=f"r-{endpoint}",
    )


def key_of(seed: str) -> MasterKey:
    """Return the key of that seed; the first one began the installation."""
    return keyring().sealing if seed == FIRST else master_key(seed)


async def _roll_back(operator: Operator, endpoint: str) -> object:
    return await rotation.roll_back(
        operator, tenant=TENANT, endpoint_id=EndpointId(endpoint), overlap_seconds=60, expect_generation=2
    )


async def _end_overlap(operator: Operator, endpoint: str) -> object:
    return await rotation.end_overlap(operator, tenant=TENANT, endpoint_id=EndpointId(endpoint), expect_generation=2)


async def _compromise(operator: Operator, seed: str) -> None:
    """Replace everything that the key had sealed; fail unless all of it was replaced."""

    def replaced(each: keys.Replaced) -> None:
        if each.error is not None:
            raise each.error

    await keys.drill(operator, key_of(seed).key_id, _HOW, replaced)


_OPERATIONS: Final[dict[str, Callable[[Operator, str], Coroutine[Any, Any, object]]]] = {
    "rotate": lambda operator, endpoint: rotation.rotate_secret(operator, wanted(endpoint, overlap_seconds=60)),
    "revoke": lambda operator, endpoint: rotation.rotate_secret(operator, wanted(endpoint, overlap_seconds=0)),
    "roll_back": _roll_back,
    "end_overlap": _end_overlap,
    "migrate": lambda operator, endpoint: migrate_secrets.migrate_endpoint(
        operator, PlaintextEndpoint(TENANT, EndpointId(endpoint))
    ),
    "stage": lambda operator, seed: keys.stage_key(operator, key_of(seed)),
    "promote": lambda operator, seed: keys.promote_key(operator, key_of(seed).key_id),
    "rewrap": lambda operator, seed: keys.rewrap_batch(operator, key_of(seed).key_id, BEGINNING, wait=False),
    "finish": lambda operator, seed: keys.finish_rewrap(operator, key_of(seed).key_id),
    "retire": lambda operator, seed: keys.retire_key(operator, key_of(seed).key_id),
    "destroy": lambda operator, seed: keys.destroy_key(operator, key_of(seed).key_id),
    "compromise": _compromise,
}


def operation(operator: Operator, name: str, subject: str) -> Coroutine[Any, Any, object]:
    """Return the operation of that name on an endpoint, or on the key of that seed."""
    return _OPERATIONS[name](operator, subject)


async def _count(database_url: str, *, name: str, subject: str, held: list[str], kill_at: int) -> int:
    """Run the operation with these keys, the sealing one first; return the number of its statements and one more."""
    connection: _Killed = await asyncpg.connect(
        database_url, server_settings={"application_name": APPLICATION_NAME}, connection_class=_Killed
    )
    try:
        sealing, *others = (key_of(seed) for seed in held)
        unlocked = await unlock(connection, Provider.DB, KeyRing(sealing, tuple(others)))
        operator = Operator(connection=connection, unlocked=unlocked, who="ada@desk")
        connection.kill_at = kill_at
        connection.step()
        await operation(operator, name, subject)
        return connection.count
    finally:
        await connection.close()


def _run(order: dict[str, Any]) -> None:
    """Run one operation in a new process, and print how it ended."""
    reading, writing = os.pipe()
    child = os.fork()  # the process has one thread and no event loop yet
    if child == 0:
        code = 1
        try:
            os.write(writing, b"%d" % asyncio.run(_count(**order)))
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    written = os.read(reading, 64)
    os.close(reading)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(json.dumps({"code": code, "count": int(written) if written else None}), flush=True)  # noqa: T201 -- its answer


if __name__ == "__main__":
    for line in sys.stdin:
        _run(json.loads(line))
