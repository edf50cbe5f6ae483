"""What every operation of an Admin needs: a connection, unlocked secrets for a change, and errors for its caller."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from hookseal.config.settings import Settings
from hookseal.errors import ConfigError, Defect, HooksealError, Malformed, Refused, Unavailable
from hookseal.ground.clock import SystemClock
from hookseal.ground.ids import TenantId
from hookseal.ground.turns import Turns
from hookseal.postgres import opening
from hookseal.postgres.pool import ANSWER_SECONDS, Connection, Executor, Pool, connected
from hookseal.postgres.savepoint import part_with_our_path, require_plain_types
from hookseal.postgres.schema import revision
from hookseal.postgres.translate import Failures, for_operator, in_use, missing_right
from hookseal.secrets.core.ref import Provider

if TYPE_CHECKING:
    from hookseal.operations.bulk import Further
    from hookseal.operations.operator import Operator
    from hookseal.operations.sending import Sending
    from hookseal.secrets.boot import Unlocked
    from hookseal.secrets.core.keyring import KeyRing
    from hookseal.secrets.core.token_seal import TokenSeal
    from hookseal.secrets.core.trust import IntegrityKey
    from hookseal.secrets.key.stores import Outside

NOBODY: Final = "-"  # reads with the master key, and leaves nothing on record
MAX_CONNECTIONS: Final = 10
# A change may need a second connection while it holds one: a ping reads secrets over it, and a store outside
# PostgreSQL takes the numbers of versions. So one is always left; a call that takes it needs no other.
_CHANGES_AT_ONCE: Final = MAX_CONNECTIONS - 1
# Of one tenant: each may wait for a lock, as repetitions of a request do for the first. The only tenant gets no more: a
# turn cannot be taken back when another tenant comes.
_CHANGES_OF_ONE: Final = 6
_PINGS_AT_ONCE: Final = 5  # each occupies a connection until the receiver has answered; the others need some
_PINGS_OF_ONE: Final = 2  # of one tenant, whose receivers may hang
_PING_WAIT_SECONDS: Final = 15.0


class Session(ABC):
    """A connection and unlocked secrets for the operations of an Admin, and errors for its caller."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._seal: TokenSeal | None = None  # what verified tokens last
        self._joined_now = set[int]()  # of the callers' connections: two parts at once would undo each other
        self._pings = Turns(_PINGS_AT_ONCE, most_of_one=_PINGS_OF_ONE)
        self._many = asyncio.Lock()  # two that hold some of the connections could wait for each other's

    @asynccontextmanager
    async def reading(self, connection: Connection | None = None) -> AsyncIterator[Connection]:
        """Give a connection for a few statements: one of its own, or the caller's, in the caller's transaction."""
        with self.failures():
            try:
                async with self._connected(connection) as db:
                    yield db
            except asyncpg.PostgresError as error:
                await self._require_schema(error)
                raise

    @asynccontextmanager
    async def changing(
        self, actor: str, connection: Connection | None = None, *, tenant: str | None = None
    ) -> "AsyncIterator[Operator]":
        """Give an operator for a change, which the audit log records under the name `actor`.

        With a connection the change is a part of the caller's transaction. Without one it takes its turn: the changes
        of each `tenant` do, and so do those that are of none. Raises `ConfigError` without a master key, `Refused` with
        the provider `dev`, and `Unavailable` if its turn does not come.
        """
        from hookseal.admin import arguments  # noqa: PLC0415 -- what reads the status does not need it
        from hookseal.operations.unlocking import require_lasting  # noqa: PLC0415 -- what reads does not need it

        with self.failures():
            who = arguments.actor(actor)
            if self.settings.loaded_secrets is None:
                raise ConfigError(
                    "this process has no master key, so it can only read",
                    advice="set SECRETS_PROVIDER=db, and SECRETS_MASTER_KEY_FILE or SECRETS_MASTER_KEY",
                    field="SECRETS_MASTER_KEY",
                )
            require_lasting(self.settings.secrets)
            try:
                async with self._operator(who, connection, tenant) as operator:
                    yield operator
            except asyncpg.PostgresError as error:
                await self._require_schema(error)
                raise

    @asynccontextmanager
    async def pinging(self, actor: str, tenant: str) -> "AsyncIterator[tuple[Operator, Sending]]":
        """Give an operator, and a sender that works as a worker with these settings does.

        There are at most five at once, and two of one tenant. Raises `Unavailable` after 15 s without a place.
        """
        from hookseal.operations import sending  # noqa: PLC0415 -- what reads does not need it

        egress, clock = self.settings.egress, SystemClock()
        async with (
            _in_turn(self._pings, tenant, seconds=_PING_WAIT_SECONDS, what="pings"),
            self.changing(actor, tenant=tenant) as operator,
            sending.transport(egress, clock) as opened,
        ):
            yield operator, sending.as_worker(opened, egress, clock)

    @asynccontextmanager
    async def changing_many(self, actor: str) -> "AsyncIterator[tuple[Operator, Further]]":
        """Give an operator for the change of many rows, and what opens further connections for it.

        One such change is made at a time; another one waits until it has ended. Raises as `changing` does.
        """
        async with self._many, self.changing(actor) as operator:
            yield operator, self._further

    async def genuine(self, found: Mapping[bytes, dict[str, Any]]) -> dict[bytes, dict[str, Any]]:
        """Return those of the tokens that are signed under the integrity key.

        With a master key the integrity key is unlocked, and compared with that of now before a token is refused.
        Without one the public keys in PostgreSQL verify. It needs connections of its own. Raises as `changing` does.
        """
        from hookseal.secrets.core.token_seal import TokenSeal  # noqa: PLC0415 -- most commands do not need it

        for compare in (False, True):
            if all(self._seal is not None and self._seal.is_authentic(token) for token in found.values()):
                break
            with self.failures():
                key = await self._integrity(compare=compare) if self._has_lasting_key else None
            if self._seal is None or self._seal.key is not key:
                self._seal = TokenSeal(key)
        seal = self._seal
        return {text: token for text, token in found.items() if seal is not None and seal.is_authentic(token)}

    @property
    def _has_lasting_key(self) -> bool:
        return self.settings.loaded_secrets is not None and self.settings.secrets.provider is not Provider.DEV

    @contextmanager
    def failures(self) -> Iterator[None]:
        """Translate errors of PostgreSQL in the block."""
        try:
            yield
        except HooksealError:
            raise
        except Exception as error:
            meaning = self._meaning(error)
            if meaning is None:
                raise
            raise meaning from None

    def tenant_of_one(self, tenant_id: str) -> TenantId | None:
        """Return the tenant of an object that its own id names. Raises `Malformed`, also for `*`.

        A program may pass on what its user gave as the tenant, and a delivery id is no secret: so only a command, whose
        operator may act for every tenant, may leave the tenant open.
        """
        from hookseal.admin import arguments  # noqa: PLC0415 -- what reads the status does not need it

        return arguments.tenant_id(tenant_id)

    @abstractmethod
    async def source(self) -> Executor:
        """Return the pool, or the one connection, for statements that need no transaction."""

    @abstractmethod
    def outside(self) -> "AbstractAsyncContextManager[Outside]":
        """Give what stores outside PostgreSQL need, until the block ends."""

    @abstractmethod
    def _operator(
        self, who: str, connection: Connection | None, tenant: str | None
    ) -> "AbstractAsyncContextManager[Operator]":
        """Give an operator on the caller's connection, or on one of its own, with the secrets unlocked."""

    @abstractmethod
    async def _integrity(self, *, compare: bool) -> "IntegrityKey":
        """Return the integrity key: as it was unlocked last or, with `compare`, as it is now."""

    @abstractmethod
    def _further(self) -> AbstractAsyncContextManager[Connection]:
        """Give one more connection, for a part of a change."""

    @abstractmethod
    async def _require_schema(self, error: Exception) -> None:
        """Raise `ConfigError` if nothing else explains the error, and the schema has another revision than at first."""

    @abstractmethod
    def _meaning(self, error: Exception) -> HooksealError | None:
        """Return the error of a library as an error for the caller; None if it is a fault of hookseal."""

    @asynccontextmanager
    async def _connected(self, connection: Connection | None) -> AsyncIterator[Connection]:
        own = connected(await self.source()) if connection is None else self._joined(connection)
        async with own as db:
            yield db

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


class PoolSession(Session):
    """A session over a pool: any number of tasks may use it at once.

    The secrets are unlocked once, and again if anything that this depends on has changed, so it follows every change of
    keys.
    """

    def __init__(self, pool: Pool, settings: Settings) -> None:
        from hookseal.operations.unlocking import KeptSecrets  # noqa: PLC0415 -- a command does not need it

        super().__init__(settings)
        self._pool = pool
        self._secrets = KeptSecrets(pool, settings)
        self._changes = Turns(_CHANGES_AT_ONCE, most_of_one=_CHANGES_OF_ONE)
        self._place = f"PostgreSQL at {settings.database.address}"

    @contextmanager
    def failures(self) -> Iterator[None]:
        """Translate errors of PostgreSQL in the block. Raises `Refused` if the Admin is closed."""
        if self._pool.is_closing():
            raise Refused("this Admin is closed: use it within its `async with`")
        with super().failures():
            yield

    async def source(self) -> Executor:  # noqa: D102
        return self._pool

    def outside(self) -> "AbstractAsyncContextManager[Outside]":  # noqa: D102
        from hookseal.operations.unlocking import outside  # noqa: PLC0415 -- what reads does not need it

        return outside(self.settings, partial(connected, self._pool))

    async def aclose(self) -> None:
        """Close what the changes have opened outside PostgreSQL."""
        await self._secrets.aclose()

    @asynccontextmanager
    async def _operator(self, who: str, connection: Connection | None, tenant: str | None) -> "AsyncIterator[Operator]":
        from hookseal.operations.operator import Operator  # noqa: PLC0415 -- what reads does not need it

        unlocked = await self._secrets.for_change(is_joined=connection is not None)
        turn = self._turn(tenant) if connection is None else nullcontext()
        async with turn, self._connected(connection) as db:
            yield Operator(connection=db, who=who, unlocked=unlocked, follow=self._secrets.of)

    async def _integrity(self, *, compare: bool) -> "IntegrityKey":
        return await self._secrets.integrity(compare=compare)

    @asynccontextmanager
    async def _further(self) -> AsyncIterator[Connection]:
        async with self._turn(None), self._connected(None) as connection:
            yield connection

    async def _require_schema(self, error: Exception) -> None:
        if self._meaning(error) is not None:
            return
        try:
            await revision.require(self._pool)
        except ConfigError as changed:
            raise ConfigError(
                f"the schema was upgraded while this Admin was open: {changed}", advice=changed.advice, field="schema"
            ) from error

    def _meaning(self, error: Exception) -> HooksealError | None:
        return Failures(place=self._place, denied=partial(missing_right, error, self._place)).meaning(error)

    def _turn(self, tenant: str | None) -> AbstractAsyncContextManager[None]:
        """Wait for a turn to hold a connection of the pool, as long as the pool waits for a free one."""
        return _in_turn(self._changes, tenant, seconds=ANSWER_SECONDS, what="changes")


class CommandSession(Session):
    """A session over one connection, for the steps of one command, one after the other.

    It connects and unlocks the secrets when a step needs it, and again only if that connection was lost. A change of
    many rows opens further connections, and closes them when it ends.
    """

    def __init__(self, settings: Settings, keyring: "KeyRing | None", resources: AsyncExitStack) -> None:
        super().__init__(settings)
        self._keyring = keyring
        self._resources = resources
        self._connection: Connection | None = None
        self._kept: Unlocked | None = None

    def tenant_of_one(self, tenant_id: str) -> TenantId | None:
        """Return the tenant, None for `*`, which is every tenant. Raises `Malformed`."""
        from hookseal.admin import arguments  # noqa: PLC0415 -- what reads the status does not need it

        return arguments.tenant_or_every(tenant_id)

    async def source(self) -> Executor:
        """Return the connection. Raises `Unavailable`, and `ConfigError` if the schema is not of this version."""
        if self._connection is None or self._connection.is_closed():
            await self._resources.aclose()
            self._connection = self._kept = None
            opened = await self._resources.enter_async_context(opening.connection(self.settings.database))
            await revision.require(opened)
            self._connection = opened
        return self._connection

    def outside(self) -> "AbstractAsyncContextManager[Outside]":  # noqa: D102
        from hookseal.operations.unlocking import outside  # noqa: PLC0415 -- what reads does not need it

        return outside(self.settings, partial(opening.connection, self.settings.database))

    @asynccontextmanager
    async def _operator(
        self,
        who: str,
        connection: Connection | None,
        tenant: str | None,  # noqa: ARG002 -- a command takes no turns
    ) -> "AsyncIterator[Operator]":
        from hookseal.operations.operator import Operator  # noqa: PLC0415 -- what reads does not need it

        unlocked = await self._unlock()
        async with self._connected(connection) as db:
            yield Operator(connection=db, unlocked=unlocked, who=who)

    async def _integrity(self, *, compare: bool) -> "IntegrityKey":  # noqa: ARG002 -- a command was unlocked just now
        return (await self._unlock()).integrity

    async def _unlock(self) -> "Unlocked":
        from hookseal.operations.unlocking import unlock_for_changes  # noqa: PLC0415 -- what reads does not need it

        source = await self.source()
        if self._kept is None:
            outside = await self._resources.enter_async_context(self.outside())
            self._kept = await unlock_for_changes(source, self.settings, self._keyring, outside=outside)
        return self._kept

    def _further(self) -> AbstractAsyncContextManager[Connection]:
        return opening.connection(self.settings.database)

    async def _require_schema(self, error: Exception) -> None:
        """Do nothing: a command is over before an upgrade concerns it."""

    def _meaning(self, error: Exception) -> HooksealError | None:
        return for_operator(error, address=self.settings.database.address)


class PartSession(Session):
    """A session over the open transaction of an operator: each operation is a part of it, which an error undoes alone.

    It is for one task. What needs connections of its own, as a change of many rows does, raises `Defect`.
    """

    def __init__(self, settings: Settings, whole: "Operator") -> None:
        super().__init__(settings)
        self._whole = whole

    async def source(self) -> Executor:
        """Return the connection of the transaction."""
        return self._whole.connection

    def outside(self) -> "AbstractAsyncContextManager[Outside]":  # noqa: D102
        raise _not_in_a_part()

    @asynccontextmanager
    async def _operator(
        self,
        who: str,
        connection: Connection | None,
        tenant: str | None,  # noqa: ARG002 -- the whole has its turn
    ) -> "AsyncIterator[Operator]":
        from hookseal.operations.operator import Operator  # noqa: PLC0415 -- what reads does not need it

        async with self._connected(connection) as db:
            yield Operator(connection=db, unlocked=self._whole.unlocked, who=who)

    async def _integrity(self, *, compare: bool) -> "IntegrityKey":  # noqa: ARG002 -- the whole has compared it
        return self._whole.unlocked.integrity

    def _further(self) -> AbstractAsyncContextManager[Connection]:
        raise _not_in_a_part()

    async def _require_schema(self, error: Exception) -> None:
        """Do nothing: the session that has the transaction asks."""

    def _meaning(self, error: Exception) -> None:  # noqa: ARG002 -- the session that has the transaction translates it
        return None


@asynccontextmanager
async def _in_turn(turns: Turns, tenant: str | None, *, seconds: float, what: str) -> AsyncIterator[None]:
    async with AsyncExitStack() as held:
        try:
            await held.enter_async_context(turns.place(tenant, seconds=seconds))
        except TimeoutError:
            raise Unavailable(f"this Admin makes too many {what} at once: nothing was done, try again") from None
        yield


def _not_in_a_part() -> Defect:
    return Defect("this needs connections of its own, so it cannot be a part of a transaction")
