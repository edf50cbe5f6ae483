"""Calls of AWS that get no answer: they cost no later call its turn, and no process its end."""

import asyncio
import subprocess
import sys
import threading

import pytest

from hookseal.secrets.aws_session import AT_ONCE, MOST_THREADS, AwsClient

pytestmark = [pytest.mark.pure, pytest.mark.req("SEC-16")]

STUCK = """
import asyncio, threading
from types import SimpleNamespace
from hookseal.secrets.aws_session import AwsClient

async def main():
    client = AwsClient(lambda: SimpleNamespace(hang=threading.Event().wait))
    try:
        async with asyncio.timeout(0.1):
            await client.ask("hang")
    except TimeoutError:
        print("given up")

asyncio.run(main())
"""


class Silent:
    """A client whose `hang` gets no answer before `answer`, and whose `read` gets one at once."""

    def __init__(self) -> None:
        self.begun = asyncio.Semaphore(0)
        self.threads: list[threading.Thread] = []
        self._loop = asyncio.get_running_loop()
        self._answered = threading.Event()

    def hang(self) -> None:
        self.threads.append(threading.current_thread())
        self._loop.call_soon_threadsafe(self.begun.release)
        self._answered.wait()

    def read(self) -> dict[str, str]:
        return {"text": "found"}

    def close(self) -> None:
        pass

    async def answer(self) -> None:
        self._answered.set()
        for each in self.threads:
            await asyncio.to_thread(each.join)


async def give_up(client: AwsClient, silent: Silent) -> None:
    """Begin as many calls as may wait at once, and cancel them when each waits in its thread."""
    asked = [asyncio.create_task(client.ask("hang")) for _ in range(AT_ONCE)]
    for _ in asked:
        await silent.begun.acquire()
    for each in asked:
        each.cancel()
    await asyncio.gather(*asked, return_exceptions=True)


async def test_calls_without_an_answer_take_no_turn_from_later_ones() -> None:
    silent = Silent()
    client = AwsClient(lambda: silent)
    try:
        for _ in range(MOST_THREADS // AT_ONCE - 1):
            await give_up(client, silent)
            assert {"text": "found"} == await client.ask("read")
        await give_up(client, silent)
        with pytest.raises(TimeoutError, match="too many calls"):
            await client.ask("read")
    finally:
        await silent.answer()
    assert {"text": "found"} == await client.ask("read")
    client.close()


async def test_a_client_that_takes_longer_than_its_callers_wait_is_made_once() -> None:
    silent, made = Silent(), list[int]()

    def make() -> Silent:
        made.append(1)
        silent.hang()
        return silent

    client = AwsClient(make)
    try:
        asked = asyncio.create_task(client.ask("read"))
        await silent.begun.acquire()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        again = asyncio.create_task(client.ask("read"))
        await asyncio.sleep(0)
    finally:
        await silent.answer()

    assert ({"text": "found"}, 1) == (await again, len(made))


def test_a_process_ends_beside_a_call_that_has_no_answer() -> None:
    ended = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=60, check=True)
    assert "given up\n" == ended.stdout
