"""The session of a command: several steps, of which an interrupt ends one."""

import asyncio
import signal
from collections.abc import Iterator

import pytest

from hookseal.admin import Admin
from hookseal.cli.context import CHANGES, admin_session
from hookseal.config.load import load
from tests.cli.installation import Begun


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Have an interrupt raise an error, as in a process of its own: another test may have left another handler."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before or signal.default_int_handler)


async def step(admin: Admin) -> int:
    """Ask for a number."""
    async with admin.secrets._session.reading() as connection:
        number: int = await connection.fetchval("SELECT 1")
    return number


@pytest.mark.req("SEC-09")
def test_an_interrupt_ends_only_the_next_step(begun: Begun) -> None:
    """An interrupt ends the next step only, so that a command whose change was made still prints its answer."""
    before = signal.getsignal(signal.SIGINT)
    with admin_session(load(dict(begun.settings), needs=CHANGES)) as session:
        assert 1 == session.run(step)
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            session.run(step)
        assert 1 == session.run(step)
        signal.raise_signal(signal.SIGINT)  # nothing is left that it could end

    assert before is signal.getsignal(signal.SIGINT)


@pytest.mark.req("SEC-09")
def test_the_step_after_an_interrupt_has_a_new_connection(begun: Begun) -> None:
    """The step has its own event loop and connection, whatever two interrupts have done to those before."""
    used: list[object] = []

    async def cut_off(admin: Admin) -> None:
        loop = asyncio.get_running_loop()
        used.extend([loop, await admin.secrets._session.source()])
        loop.call_soon(signal.raise_signal, signal.SIGINT)
        try:
            await loop.create_future()
        finally:
            signal.raise_signal(signal.SIGINT)

    async def next_step(admin: Admin) -> int:
        now = {id(asyncio.get_running_loop()), id(await admin.secrets._session.source())}
        assert not {id(each) for each in used} & now
        return await step(admin)

    with admin_session(load(dict(begun.settings), needs=CHANGES)) as session:
        with pytest.raises(KeyboardInterrupt):
            session.run(cut_off)
        assert 1 == session.run(next_step)
