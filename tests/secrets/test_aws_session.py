"""Calls of AWS that get no answer: they cost no later call its turn, and no process its end."""

import asyncio
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from hookseal.secrets.aws_session import AT_ONCE, MOST_THREADS, AwsClient

pytestmark = [pytest.mark.pure, pytest.mark.req("SEC-16")]

STUCK = """
import asyncio, time
from types import SimpleNamespace
from hookseal.secrets.aws_session import AwsClient

async def main():
    client = AwsClient(lambda: SimpleNamespace(hang=lambda: time.sleep(600)))
    try:
        async with asyncio.timeout(0.1):
            await client.ask("hang")
    except TimeoutError:
        print("given up")

asyncio.run(main())
"""


def stuck() -> int:
    """Return how many calls wait in a thread."""
    return sum(each.name == "hookseal-aws" for each in threading.enumerate())


async def give_up(client: AwsClient, calls: int) -> None:
    """Begin so many calls that get no answer, and cancel them once each waits in its thread."""
    most = stuck() + calls
    asked = [asyncio.create_task(client.ask("hang")) for _ in range(calls)]
    while stuck() < most:  # noqa: ASYNC110 -- threads set no event of asyncio
        await asyncio.sleep(0.001)
    for each in asked:
        each.cancel()
    await asyncio.gather(*asked, return_exceptions=True)


async def test_calls_without_an_answer_take_no_turn_from_later_ones() -> None:
    answered = threading.Event()
    client = AwsClient(lambda: SimpleNamespace(hang=answered.wait, read=lambda: {"text": "found"}, close=lambda: None))
    try:
        await client.open()
        for _ in range(MOST_THREADS // AT_ONCE - 1):
            await give_up(client, AT_ONCE)
            assert {"text": "found"} == await client.ask("read")
        await give_up(client, AT_ONCE)
        with pytest.raises(TimeoutError, match="too many calls"):
            await client.ask("read")
    finally:
        answered.set()
    while stuck():  # noqa: ASYNC110 -- the same
        await asyncio.sleep(0.001)
    assert {"text": "found"} == await client.ask("read")
    client.close()


def test_a_process_ends_beside_a_call_that_has_no_answer() -> None:
    ended = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=60, check=True)
    assert "given up\n" == ended.stdout
