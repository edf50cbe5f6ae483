"""The Admin: manages hookseal from Python, as the commands do.

async with Admin.connect() as admin:
    added = await admin.endpoints.add(
        tenant_id="acme", url="https://acme.example/hooks", event_types=["invoice.*"], actor="jane@product.example"
    )
    added.secret.reveal()

    async with connection.transaction():
        ...
        await admin.endpoints.delete(tenant_id="acme", endpoint_id=..., actor="jane@...", connection=connection)
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from hookseal.admin.results.status import Status
from hookseal.admin.session import MAX_CONNECTIONS, NOBODY, CommandSession, PartSession, PoolSession, Session
from hookseal.admin.status import status_of
from hookseal.config.settings import Settings
from hookseal.dispatcher.store import status
from hookseal.errors import Defect
from hookseal.postgres import opening
from hookseal.postgres.pool import ANSWER_SECONDS, Connection
from hookseal.postgres.schema import revision

if TYPE_CHECKING:
    from hookseal.admin.attempts import Attempts
    from hookseal.admin.audit import Audit
    from hookseal.admin.deliveries import Deliveries
    from hookseal.admin.endpoints import Endpoints
    from hookseal.admin.event_types import EventTypes
    from hookseal.admin.events import Events
    from hookseal.admin.keys import Keys
    from hookseal.admin.portal import Portal
    from hookseal.admin.producers import Producers
    from hookseal.admin.replays import Replays
    from hookseal.admin.restores import Restores
    from hookseal.admin.results.found import Found
    from hookseal.admin.signing_secrets import Secrets
    from hookseal.admin.tenants import Tenants
    from hookseal.admin.tokens import Tokens
    from hookseal.dispatcher.store.idempotency import FirstAnswer, KeyedRequest
    from hookseal.secrets.core.keyring import KeyRing

# The groups of methods, each with its module and its class. Like all that few commands need, they are loaded when they
# are asked for: to load all of them takes longer than most commands.
GROUPS: Final = {
    "endpoints": ("endpoints", "Endpoints"),
    "secrets": ("signing_secrets", "Secrets"),
    "deliveries": ("deliveries", "Deliveries"),
    "attempts": ("attempts", "Attempts"),
    "replays": ("replays", "Replays"),
    "events": ("events", "Events"),
    "audit": ("audit", "Audit"),
    "restores": ("restores", "Restores"),
    "keys": ("keys", "Keys"),
    "producers": ("producers", "Producers"),
    "event_types": ("event_types", "EventTypes"),
    "tenants": ("tenants", "Tenants"),
    "tokens": ("tokens", "Tokens"),
    "portal": ("portal", "Portal"),
}
_CLOSE_SECONDS: Final = 5.0


class Admin:
    """Manages endpoints, secrets, deliveries and events. Any number of tasks may use one Admin at once."""

    endpoints: "Endpoints"
    secrets: "Secrets"
    deliveries: "Deliveries"
    attempts: "Attempts"
    replays: "Replays"
    events: "Events"
    audit: "Audit"
    restores: "Restores"
    keys: "Keys"
    producers: "Producers"
    event_types: "EventTypes"
    tenants: "Tenants"
    tokens: "Tokens"
    portal: "Portal"

    def __init__(self, session: Session) -> None:
        self._session: Final = session

    if not TYPE_CHECKING:  # a type checker has the groups above, and refuses every other name

        def __getattr__(self, name: str) -> Any:
            if name not in GROUPS:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            module, group = GROUPS[name]
            made = getattr(import_module(f"hookseal.admin.{module}"), group)(self._session)
            return self.__dict__.setdefault(name, made)

    async def status(self, *, connection: Connection | None = None) -> Status:
        """Return whose deliveries wait, what fails, what limits the workers, and whether a person must act.

        Each count ends at 10,000, so that what this reads has a bound however much is stored.
        """
        async with self._session.reading(connection) as db:
            return status_of(await status.read(db))

    @asynccontextmanager
    async def once(
        self,
        *,
        idempotency_key: str,
        call: str,
        content: bytes,
        tenant_id: str,
        actor: str,
        about: str | None = None,
    ) -> "AsyncIterator[Once]":
        """Give a transaction for the changes of a request that its client may repeat with the same key.

        A key is 1 to 256 visible ASCII characters, and belongs to `actor`, who acts for `tenant_id`, or for every
        tenant (`*`). The first request with it has no `first`: make its changes with `admin`, whose every change is a
        part of the transaction, and `record` their result in the end. Later ones have what was recorded, for at
        least 12 hours: change nothing. One that comes at the same time waits here until the first has ended, up to
        4.5 s. It takes its turn with the changes of the tenant that it is `about`, by default `tenant_id`. Raises as a
        change of `Endpoints` does, and `Conflict` with the field `idempotency_key` if the `call` or the `content` is
        another one than the first; neither the key nor the content is stored.
        """
        from hookseal.admin import arguments  # noqa: PLC0415 -- see above
        from hookseal.dispatcher.store import idempotency  # noqa: PLC0415 -- the same

        request = idempotency.keyed(
            arguments.idempotency_key(idempotency_key),
            content,
            tenant_id=arguments.customer_or_every(tenant_id),
            actor=arguments.actor(actor),
            call=call,
        )
        turn_of = request.tenant_id if about is None else arguments.tenant_id(about)
        async with self._session.changing(actor, tenant=turn_of) as operator, operator.changing() as db:
            first = await idempotency.claim(db, request)
            once = Once(Admin(PartSession(self._session.settings, operator)), db, request, first)
            yield once
            if not once.is_recorded:
                raise Defect("a request with a key has ended without a record of its result")

    async def find(self, *, identifier: str, connection: Connection | None = None) -> "Found":
        """Return what has this id, of 1 to 256 visible ASCII characters, in any tenant: it is for an operator.

        That is a delivery, by the `webhook-id` of its requests; events, by their id or correlation id; and a tenant, by
        its id or uid. It looks for events in up to 10,000 tenants that have had an endpoint.
        """
        from hookseal.admin.find import found  # noqa: PLC0415 -- see above

        return await found(self._session, identifier, connection)

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, database_url: str | None = None, *, environ: Mapping[str, str] | None = None
    ) -> "AsyncIterator[Admin]":
        """Open an Admin, and close its connections, at most ten, at the end of the block.

        Its settings are variables of the environment (docs/guide/managing.md lists them), or of `environ` in its place;
        neither is changed, and other variables are not checked. A `database_url` replaces that of the environment.
        Without a master key everything can be read that needs none, and nothing can be changed or revealed. A KMS is
        asked once, now. Raises
        `ConfigError`, also for a schema of another version, `Unavailable`, and `Refused` if the database role may not
        read.
        """
        from hookseal.config.producer import admin_settings  # noqa: PLC0415 -- see above
        from hookseal.ground.clock import SystemClock  # noqa: PLC0415 -- the same
        from hookseal.operations.unlocking import unwrapped  # noqa: PLC0415 -- the same

        settings = await unwrapped(admin_settings(database_url=database_url, environ=environ), clock=SystemClock())
        async with cls.opened(settings) as admin:
            yield admin

    @classmethod
    @asynccontextmanager
    async def opened(cls, settings: Settings) -> "AsyncIterator[Admin]":
        """Open an Admin with these settings, whose keys a KMS has unwrapped, as `connect` does."""
        async with (
            AsyncExitStack() as after_the_pool,  # which waits for the changes in flight
            opening.pool(
                settings.database,
                size=MAX_CONNECTIONS,
                name="hookseal-admin",
                seconds=ANSWER_SECONDS,
                close_seconds=_CLOSE_SECONDS,
            ) as pool,
        ):
            session = PoolSession(pool, settings)
            after_the_pool.push_async_callback(session.aclose)
            async with session.reading() as connection:
                await revision.require(connection)
            admin = cls(session)
            for group in GROUPS:
                getattr(admin, group)  # now, and not while a request waits
            yield admin

    async def check(self) -> None:
        """Return if PostgreSQL answers, with the schema of this version, and the master key fits, if there is one.

        Raises `Unavailable`, `ConfigError`, `Refused` if the database role may not read, and a `SecretError` if a
        secret of the installation does not open.
        """
        async with self._session.reading() as connection:
            await revision.require(connection)
        if self._session.settings.loaded_secrets is not None:
            async with self._session.changing(NOBODY):
                pass


class Once:
    """A request with a key, in its transaction. `first` is what the first one with the key made, None if it is that."""

    def __init__(
        self, admin: Admin, connection: Connection, request: "KeyedRequest", first: "FirstAnswer | None"
    ) -> None:
        self.admin: Final = admin
        self.first: Final = first
        self.is_recorded: bool = first is not None
        self._connection = connection
        self._request = request

    async def record(self, *, status: int, result_id: str) -> None:
        """Record how the request is answered: with this status (2xx), about the object with this id."""
        from hookseal.dispatcher.store import idempotency  # noqa: PLC0415 -- see above
        from hookseal.dispatcher.store.idempotency import FirstAnswer  # noqa: PLC0415 -- the same

        await idempotency.record(self._connection, self._request, FirstAnswer(status=status, result_id=result_id))
        self.is_recorded = True


@asynccontextmanager
async def for_command(settings: Settings, keyring: "KeyRing | None" = None) -> AsyncIterator[Admin]:
    """Give an Admin for the steps of one command, with one connection, which its first step opens.

    The secrets are unlocked once, with the keyring, by default that of the settings. A step raises `Refused` with the
    provider `dev`, whose keys last as long as one process, `Unavailable`, and `ConfigError` if the schema or the keys
    do not fit.
    """
    async with AsyncExitStack() as resources:
        yield Admin(CommandSession(settings, keyring, resources))
