"""A program that changes an endpoint's secret in a fresh process for each order, which may kill itself at any await.

Orders come on standard input, one JSON object a line, and each is answered by one: how many times the operation
awaited, or that it was killed before it was done.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

import asyncpg

from hookseal.ground.ids import EndpointId, TenantId
from hookseal.operations import migration, rotation
from hookseal.operations.operator import Operator
from hookseal.secrets.boot import unlock
from hookseal.secrets.migration import Held
from hookseal.secrets.ref import Provider
from hookseal.secrets.rotation import Wanted
from hookseal.secrets.signer import generate_signing_secret
from tests.doubles.stored import keyring

T = TypeVar("T")
TENANT = TenantId("acme")


class Mortal:
    """Drives a coroutine and counts how often it is left and entered again; the process dies at that one.

    Left for the first time is 1, entered after it is 2, and so on: what was asked of PostgreSQL at 1 was answered
    at 2.
    """

    def __init__(self, dies_at: int) -> None:
        self.count = 0
        self._dies_at = dies_at

    def drive(self, coroutine: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
        """Yield what the coroutine awaits, and return what it returns."""
        step, argument = coroutine.send, None
        while True:
            try:
                awaited = step(argument)
            except StopIteration as done:
                result: T = done.value
                return result
            self._step()
            try:
                step, argument = coroutine.send, (yield awaited)
            except BaseException as error:  # noqa: BLE001 -- the coroutine's to handle, a cancellation too
                step, argument = coroutine.throw, error
            self._step()

    def _step(self) -> None:
        self.count += 1
        if self.count == self._dies_at:
            os.kill(os.getpid(), signal.SIGKILL)


class Driven:
    """A coroutine that is driven so, to be awaited."""

    def __init__(self, mortal: Mortal, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._mortal = mortal
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._mortal.drive(self._coroutine)


def operation(operator: Operator, name: str, endpoint: EndpointId) -> Coroutine[Any, Any, object]:
    """Return the operation of that name, as an operator would have it run."""
    if name == "roll_back":
        return rotation.roll_back(
            operator, tenant=TENANT, endpoint_id=endpoint, overlap_seconds=60, expect_generation=2
        )
    if name == "migrate":
        return migration.migrate_endpoint(operator, Held(TENANT, endpoint))
    if name == "end_overlap":
        return rotation.end_overlap(operator, tenant=TENANT, endpoint_id=endpoint, expect_generation=2)
    return rotation.rotate(operator, wanted(endpoint, overlap_seconds=0 if name == "revoke" else 60))


def wanted(endpoint: EndpointId, *, overlap_seconds: int) -> Wanted:
    """Return the rotation that is asked for, with one id for each endpoint."""
    return Wanted(
        tenant_id=TENANT,
        endpoint_id=endpoint,
        overlap_seconds=overlap_seconds,
        secret=generate_signing_secret(),
        rotation_id=f"r-{endpoint}",
    )


async def changed(database_url: str, *, name: str, endpoint: EndpointId, dies_at: int) -> int:
    """Do it, and return how many times it was left and entered."""
    connection = await asyncpg.connect(database_url, server_settings={"application_name": "dying"})
    try:
        operator = Operator(
            connection=connection, unlocked=await unlock(connection, Provider.DB, keyring()), who="ada@desk"
        )
        mortal = Mortal(dies_at)
        await Driven(mortal, operation(operator, name, endpoint))
        return mortal.count
    finally:
        await connection.close()


def obey(order: dict[str, Any], do: Callable[..., Coroutine[Any, Any, int]]) -> None:
    """Answer one order from a process of its own."""
    reading, writing = os.pipe()
    child = os.fork()  # from the one thread there is, before any loop
    if child == 0:
        code = 1
        try:
            os.write(writing, b"%d" % asyncio.run(do(**order)))
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    said = os.read(reading, 64)
    os.close(reading)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(json.dumps({"code": code, "count": int(said) if said else None}), flush=True)  # noqa: T201 -- its answer


if __name__ == "__main__":
    for line in sys.stdin:
        obey(json.loads(line), changed)
