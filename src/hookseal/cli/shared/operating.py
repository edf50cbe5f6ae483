"""What every command that changes the installation needs: a connection, unlocked secrets, the operator's name."""

import asyncio
import getpass
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager, suppress
from types import FrameType
from typing import Final, TypeVar

from hookseal.cli.shared.runtime import connect, require_schema, run, translated
from hookseal.config.settings import Part, Settings
from hookseal.operations.operator import Operator
from hookseal.operations.unlocking import outside, require_lasting, unlock_for_changes
from hookseal.secrets.core.keyring import KeyRing
from hookseal.secrets.key.stores import Outside

T = TypeVar("T")

NEEDS: Final = frozenset({Part.DATABASE, Part.SECRETS})
_MAX_NAME: Final = 128


@asynccontextmanager
async def operating(settings: Settings, keyring: KeyRing | None = None) -> AsyncIterator[Operator]:
    """Give an operator with one connection and the secrets unlocked, until the block ends.

    They are unlocked with the keyring, by default that of the settings. Raises `Refused` with the provider `dev`, whose
    keys last as long as one process, `Unavailable`, and `ConfigError` if the schema or the keys do not fit.
    """
    require_lasting(settings.secrets)
    async with connect(settings.database) as connection, outside_of(settings) as found:
        await require_schema(connection)
        unlocked = await unlock_for_changes(connection, settings, keyring, outside=found)
        yield Operator(connection=connection, unlocked=unlocked, who=operator_name())


def outside_of(settings: Settings) -> AbstractAsyncContextManager[Outside]:
    """Give what stores outside PostgreSQL need; all connections to them are closed when the block ends."""
    return outside(settings, lambda: connect(settings.database))


def operate(
    settings: Settings,
    work: Callable[[Operator], Awaitable[T]],
    *,
    keyring: KeyRing | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> T:
    """Call `work` with an operator and return its result. Raises as `operating` does, and what `work` raises."""

    async def work_once() -> T:
        async with operating(settings, keyring) as operator:
            return await work(operator)

    return run(work_once(), loop_factory=loop_factory)


class OperatorSession:
    """An operator for several steps; a step that fails or is interrupted does not end the others.

    The session connects and unlocks for the first step, and again only if that connection was lost. After the first
    step an interrupt between two steps ends the next one: the command must still print what it has changed. After an
    interrupted step it starts again, because a second interrupt may have cut off anything.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._runner = asyncio.Runner()
        self._may_be_interrupted = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        self._is_interrupted = False
        self._resources = AsyncExitStack()
        self._operator: Operator | None = None

    def run(self, step: Callable[[Operator], Awaitable[T]]) -> T:
        """Return the result of the step. Raises as `operate` does; an interrupt ends this step only."""
        if self._is_interrupted:
            self._is_interrupted = False
            raise KeyboardInterrupt
        try:
            self._handle_interrupt(signal.default_int_handler)
            with translated():
                return self._runner.run(self._run(step))
        except KeyboardInterrupt:
            self._handle_interrupt(self._note)
            self._start_again()
            raise
        finally:
            self._handle_interrupt(self._note)

    def close(self) -> None:
        """Close the connection. An interrupt meanwhile is ignored, because the command has given its answer."""
        with suppress(KeyboardInterrupt), self._runner:
            self._runner.run(self._resources.aclose())
        self._handle_interrupt(signal.default_int_handler)

    def _start_again(self) -> None:
        before, self._runner = self._runner, asyncio.Runner()
        self._resources, self._operator = AsyncExitStack(), None
        with suppress(RuntimeError):  # it may still count as running
            before.close()  # which also ends the connection

    def _handle_interrupt(self, handler: Callable[[int, FrameType | None], object]) -> None:
        if self._may_be_interrupted:
            signal.signal(signal.SIGINT, handler)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self._is_interrupted = True

    async def _run(self, step: Callable[[Operator], Awaitable[T]]) -> T:
        if self._operator is None or self._operator.connection.is_closed():
            await self._resources.aclose()
            self._operator = await self._resources.enter_async_context(operating(self._settings))
        with translated(address=self._settings.database.address):
            return await step(self._operator)


@contextmanager
def operator_session(settings: Settings) -> Iterator[OperatorSession]:
    """Give a session, which is closed at the end of the block."""
    session = OperatorSession(settings)
    try:
        yield session
    finally:
        session.close()


def operator_name() -> str:
    """Return the user and the machine that run this command, for the audit log: `user@machine`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's numeric user has no name
        user = "unknown"
    return f"{user}@{socket.gethostname()}".encode("utf-8", "backslashreplace").decode()[:_MAX_NAME]
