"""The processes of `hookseal up` are watched until one ends; the error says how it ended."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest

from hookseal.demo.up import how_ended, watch
from hookseal.errors import Unavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A process with this exit code."""

    name: str
    exit_code: int | None = None
    log: Path = Path("/its.log")


@pytest.mark.parametrize(
    ("exit_code", "expected"),
    [
        (0, "ended with exit code 0"),
        (78, "ended with exit code 78"),
        (-9, "was killed by SIGKILL"),
        (-15, "was killed by SIGTERM"),
        (-40, "was killed by signal 40"),  # a real-time signal, which has no name
    ],
)
def test_a_signal_is_named(exit_code: int, expected: str) -> None:
    """A signal is given by its name, anything else by its exit code."""
    assert expected == how_ended(exit_code)


async def test_a_stop_is_no_error() -> None:
    """A stop ends the watch without an error, before it and while it waits, also if a part ends at that time."""
    stop, parts = asyncio.Event(), ((Part(name="Valkey", exit_code=0),), (Part(name="the worker"),))
    asyncio.get_running_loop().call_soon(stop.set)
    await watch(*parts, stop)
    await watch(*parts, stop)


async def test_the_error_names_the_part() -> None:
    """The error names the part that ended, its log and the parts that are stopped with it."""
    servers = (Part(name="PostgreSQL", exit_code=3), Part(name="Valkey"))
    with pytest.raises(
        Unavailable, match=r"^PostgreSQL ended with exit code 3; its log is /its\.log\. The worker, the API and V"
    ):
        await watch(servers, (Part(name="the worker", exit_code=1), Part(name="the API")), asyncio.Event())
