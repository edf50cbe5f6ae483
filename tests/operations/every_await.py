"""Runs an operation in a process that is killed at a given await between its statements; the tests try each."""

import json
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hookseal.postgres.pool import Pool
from tests import forked
from tests.operations.killed_process import APPLICATION_NAME, FIRST
from tests.worker.waiting import eventually

_ROOT: Final = Path(__file__).parents[2]
_HAVE_ENDED: Final = (
    "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1"
)
_KILLED: Final = -9


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A database: its URL and a pool on it."""

    database_url: str
    pool: Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How an operation ended: `places` is the number of places to be killed at, None if it was killed."""

    places: int | None

    @property
    def was_killed(self) -> bool:
        """Whether it was killed before it was done."""
        return self.places is None


class Program:
    """The program `killed_process`, on the database of a test."""

    def __init__(self, process: Process, place: Place) -> None:
        self._process = process
        self._place = place

    async def run(self, name: str, subject: str, kill_at: int, *, held: Sequence[str] = (FIRST,)) -> Ending:
        """Run the operation with these keys, and return how it ended, once its sessions have ended too."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        at = self._place
        order = {"database_url": at.database_url, "name": name, "subject": subject, "held": held, "kill_at": kill_at}
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        answer: dict[str, Any] = json.loads(await self._process.stdout.readline())
        assert (answer["count"] is None, answer["code"]) in {(True, _KILLED), (False, 0)}
        await eventually(lambda: at.pool.fetchval(_HAVE_ENDED, APPLICATION_NAME))
        return Ending(places=answer["count"])


@asynccontextmanager
async def program(place: Place) -> AsyncIterator[Program]:
    """Provide the program; it is ended afterwards."""
    process = await forked.start(module="tests.operations.killed_process", stdin=PIPE, stdout=PIPE, cwd=_ROOT)
    assert process.stdin is not None
    try:
        yield Program(process, place)
    finally:
        process.stdin.close()
        await process.wait()


def require_one_moment(endings: Sequence[bool], *, least: int) -> None:
    """Fail unless the operation is undone before exactly one of the kills and done from that one on.

    There must be more than `least` of them.
    """
    assert len(endings) > least
    assert sorted(endings) == list(endings)
    assert {False, True} == set(endings)
