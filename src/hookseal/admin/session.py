"""What every operation of an Admin needs: a connection, unlocked secrets for a change, and errors for its caller."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from typing import Final

from hookseal.admin import arguments
from hookseal.config.settings import Settings
from hookseal.errors import ConfigError, HooksealError, Malformed, Refused, SecretDenied, Unavailable
from hookseal.ground.clock import SystemClock
from hookseal.operations import sending
from hookseal.operations.operator import Operator
from hookseal.operations.sending import Sending
from hookseal.operations.unlocking import outside, require_lasting, unlock_for_changes
from hookseal.postgres.pool import ANSWER_SECONDS, Connection, Pool, connected
from hookseal.postgres.savepoint import part_with_our_path, require_plain_types
from hookseal.postgres.translate import Failures, in_use, missing_right
from hookseal.secrets.boot import Unlocked
from hookseal.secrets.key.stores import Outside

# The operations name some values as the options of the commands are named.
_ARGUMENTS: Final = {
    "ca_file": "ca",
    "delivery": "delivery_id",
    "endpoint": "endpoint_id",
    "header": "headers",
    "overlap": "overlap_seconds",
    "replay": "replay_id",
    "remove_ca": "ca",
    "remove_client_cert": "client_cert",
    "tenant": "tenant_id",
}
MAX_CONNECTIONS: Final = 10
# A change may need a second connection while it holds one: a ping reads secrets over it, and a store outside
# PostgreSQL takes the numbers of versions. So one is always left; a call that takes it needs no other.
_CHANGES_AT_ONCE: Final = MAX_CONNECTIONS - 1
_PINGS_AT_ONCE: Final = 5  # each occupies a connection until the receiver has answered; the others need some


class Session:
    """The connections of an Admin, and its settings."""

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self.pool = pool
        self.settings = settings
        self._joined_now = set[int]()  # of the callers' connections: two parts at once would undo each other
        self._pings = asyncio.Semaphore(_PINGS_AT_ONCE)
        self._changes = asyncio.Semaphore(_CHANGES_AT_ONCE)

    @asynccontextmanager
    async def reading(self, connection: Connection | None = None) -> AsyncIterator[Connection]:
        """Give a connection for a few statements: one of its own, or the caller's, in the caller's transaction."""
        with self.failures():
            async with self._chosen(connection) as chosen:
                yield chosen

    @asynccontextmanager
    async def changing(self, actor: str, connection: Connection | None = None) -> AsyncIterator[Operator]:
        """Give an operator for a change, which the audit log records under the name `actor`.

        With a connection the change is a part of the caller's transaction. The secrets are unlocked for each change,
        so it follows every change of keys. Raises `ConfigError` without a master key.
        """
        with self.failures():
            who = arguments.actor(actor)
            if self.settings.loaded_secrets is None:
                raise ConfigError(
                    "this process has no master key, so it can only read: set SECRETS_PROVIDER=db, and "
                    "SECRETS_MASTER_KEY_FILE or SECRETS_MASTER_KEY",
                    field="SECRETS_MASTER_KEY",
                )
            require_lasting(self.settings.secrets)
            async with outside(self.settings, partial(connected, self.pool)) as found:
                unlocked = await self._unlocked(found)
                async with self._turn(connection), self._chosen(connection) as chosen:
                    yield Operator(connection=chosen, unlocked=unlocked, who=who)

    @asynccontextmanager
    async def pinging(self, actor: str) -> AsyncIterator[tuple[Operator, Sending]]:
        """Give an operator, and a sender that works as a worker with these settings does; at most five at once."""
        egress, clock = self.settings.egress, SystemClock()
        async with self._pings, self.changing(actor) as operator, sending.transport(egress, clock) as opened:
            yield operator, sending.as_worker(opened, egress, clock)

    @contextmanager
    def failures(self) -> Iterator[None]:
        """Translate errors of PostgreSQL in the block, and name each wrong value as an argument.

        Raises `Refused` if the Admin is closed.
        """
        place = f"PostgreSQL at {self.settings.database.address}"
        if self.pool.is_closing():
            raise Refused("this Admin is closed: use it within its `async with`")
        try:
            yield
        except HooksealError as error:
            error.field = _ARGUMENTS.get(error.field or "", error.field)
            raise
        except Exception as error:
            meaning = Failures(place=place, denied=partial(missing_right, error, place)).meaning(error)
            if meaning is None:
                raise
            raise meaning from None

    async def _unlocked(self, found: Outside) -> Unlocked:
        try:
            return await unlock_for_changes(self.pool, self.settings, outside=found)
        except SecretDenied as error:  # the role has no right to the tables of secrets
            raise Refused(str(error)) from None

    def _chosen(self, connection: Connection | None) -> AbstractAsyncContextManager[Connection]:
        return connected(self.pool) if connection is None else self._joined(connection)

    @asynccontextmanager
    async def _turn(self, connection: Connection | None) -> AsyncIterator[None]:
        """Wait for a turn to hold a connection of the pool, as long as the pool waits for a free one."""
        if connection is not None:
            yield
            return
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._changes.acquire()
        except TimeoutError:
            raise Unavailable("this Admin makes too many changes at once: nothing was changed, try again") from None
        try:
            yield
        finally:
            self._changes.release()

    @asynccontextmanager
    async def _joined(self, connection: Connection) -> AsyncIterator[Connection]:
        if not callable(getattr(connection, "is_in_transaction", None)):
            raise Malformed("connection must be one of asyncpg", field="connection")
        if not connection.is_in_transaction():
            raise Malformed(
                "no transaction is open on the connection: begin one, or leave the connection out", field="connection"
            )
        if id(connection) in self._joined_now:
            raise in_use()
        self._joined_now.add(id(connection))
        try:
            async with part_with_our_path(connection):
                await require_plain_types(connection)
                yield connection
        finally:
            self._joined_now.remove(id(connection))
