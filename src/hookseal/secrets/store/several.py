"""The stores of an installation: one for new versions, and those that still have versions from before a move."""

from contextlib import suppress
from typing import Final

from hookseal.ground.errors import ConfigError
from hookseal.ground.ids import TenantId
from hookseal.postgres.handles import Executor
from hookseal.secrets.errors import SecretDenied
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.ref import Provider, Purpose, SecretRef
from hookseal.secrets.store import records
from hookseal.secrets.store.external import ExternalStore, Installation
from hookseal.secrets.store.port import SecretVersion, require_provider
from hookseal.secrets.store.postgres import PostgresStore
from hookseal.secrets.store.provider_api import ProviderApi
from hookseal.secrets.store.providers import Providers

_Stored = PostgresStore | ExternalStore


class SeveralStores:
    """Puts and rotates at one provider, and reads a version where its reference says that it is.

    `providers` are those whose references it reads. On a connection every call joins the transaction that is open
    there.
    """

    def __init__(
        self,
        source: Executor,
        provider: Provider,
        *,
        database: PostgresStore | None,
        providers: Providers,
        installation: Installation,
        unreachable: frozenset[Provider] = frozenset(),
    ) -> None:
        self.unreachable: Final = unreachable  # providers without settings here that had versions in use at the start
        self._source = source
        self.provider: Final = provider
        self.providers: Final = providers.configured | ({Provider.DB} if database is not None else set())
        self._database = database
        self._providers = providers
        self._installation = installation
        self._made: dict[Provider, ExternalStore] = {}

    @property
    def database(self) -> PostgresStore | None:
        """The store `db`; None without a master key."""
        return self._database

    @property
    def installation_id(self) -> str:
        """The id that marks what this installation keeps at providers."""
        return self._installation.id

    def apis(self) -> dict[Provider, ProviderApi]:
        """Return the interfaces of the providers outside PostgreSQL whose clients are installed."""
        found = {}
        for provider in sorted(self._providers.configured):
            with suppress(ConfigError):
                found[provider] = self._providers.api(provider)
        return found

    def joined_to(self, connection: Executor) -> "SeveralStores":
        """Return these stores on another pool or connection."""
        return self._with(connection, self.provider)

    def writing_to(self, provider: Provider) -> "SeveralStores":
        """Return these stores with another one for new versions."""
        return self._with(self._source, provider)

    async def put(
        self, tenant: TenantId, name: str, material: SecretMaterial, *, purpose: Purpose, scheme: str | None = None
    ) -> SecretRef:
        """Keep the first version of a new name (see `SecretStore`)."""
        return await self.of(self.provider).put(tenant, name, material, purpose=purpose, scheme=scheme)

    async def get(self, ref: SecretRef, *, purpose: Purpose) -> SecretMaterial:
        """Return the material of that version (see `SecretStore`)."""
        require_provider(ref, *self.providers)
        return await self.of(ref.provider).get(ref, purpose=purpose)

    async def rotate(
        self, tenant: TenantId, name: str, material: SecretMaterial, *, purpose: Purpose, scheme: str | None = None
    ) -> SecretRef:
        """Keep a new version, active; the older ones, wherever they are, step back (see `SecretStore`)."""
        return await self.of(self.provider).rotate(tenant, name, material, purpose=purpose, scheme=scheme)

    async def versions(self, tenant: TenantId, name: str) -> tuple[SecretVersion, ...]:
        """Return every version of the name at every provider, oldest first (see `SecretStore`)."""
        return await records.versions(self._source, tenant, name)

    async def destroy(self, ref: SecretRef) -> None:
        """Remove the material of that version for good (see `SecretStore`)."""
        require_provider(ref, *self.providers)
        await self.of(ref.provider).destroy(ref)

    def of(self, provider: Provider) -> _Stored:
        """Return the store of one provider. Raises `SecretDenied` if this process cannot reach it."""
        if provider is Provider.DB and self._database is not None:
            return self._database
        if provider not in self._made:
            try:
                api = self._providers.api(provider)
            except ConfigError as error:
                raise SecretDenied(str(error)) from None
            self._made[provider] = ExternalStore(self._source, api, self._installation)
        return self._made[provider]

    def _with(self, source: Executor, provider: Provider) -> "SeveralStores":
        return SeveralStores(
            source,
            provider,
            database=None if self._database is None else self._database.joined_to(source),
            providers=self._providers,
            installation=self._installation,
            unreachable=self.unreachable,
        )
