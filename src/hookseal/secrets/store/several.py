"""The stores of an installation: one for new versions, and those that still have versions from before a move."""

from contextlib import AsyncExitStack, suppress
from importlib import import_module
from typing import Any, Final

from hookseal.errors import ConfigError, SecretDenied
from hookseal.ground.ids import TenantId
from hookseal.postgres.pool import Executor
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Provider, Purpose, SecretRef
from hookseal.secrets.core.trust import require_provider
from hookseal.secrets.store import records
from hookseal.secrets.store.external import ExternalStore, Installation
from hookseal.secrets.store.port import Access, ProviderApi, SecretVersion
from hookseal.secrets.store.postgres import PostgresStore

# What must be set for a provider, for messages; docs/guide/providers.md says more.
NEEDS: Final = {
    Provider.AWS: "AWS_REGION",
    Provider.GCP: "GOOGLE_CLOUD_PROJECT",
    Provider.OPENBAO: "BAO_ADDR, and BAO_TOKEN or BAO_ROLE_ID with BAO_SECRET_ID",
}


class Providers:
    """Gives the interface of each provider, the same one each time."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._apis: dict[Provider, ProviderApi] = {}

    @property
    def configured(self) -> frozenset[Provider]:
        """The providers that the settings name."""
        return self._access.providers

    def api(self, provider: Provider) -> ProviderApi:
        """Return the interface of the provider, which connects when it is first used.

        Raises `ConfigError` if its settings are missing, or if its client is not installed.
        """
        if provider not in self._apis:
            self._apis[provider] = self._new_api(provider)
        return self._apis[provider]

    async def close(self) -> None:
        """Close all connections, also if one of them raises an error, which is raised afterwards."""
        async with AsyncExitStack() as closing:
            for api in self._apis.values():
                closing.push_async_callback(api.close)
            self._apis.clear()

    def _new_api(self, provider: Provider) -> ProviderApi:
        access, how = self._access, {"prefix": self._access.prefix, "seconds": self._access.call_seconds}
        match provider:
            case Provider.AWS if access.aws is not None:
                api: ProviderApi = _loaded("aws").AwsApi(access.aws, **how)
            case Provider.GCP if access.gcp is not None:
                api = _loaded("gcp").GcpApi(access.gcp, **how)
            case Provider.OPENBAO if access.openbao is not None:
                api = _loaded("openbao").OpenBaoApi(access.openbao, **how)
            case _:
                raise ConfigError(
                    f"SECRETS_PROVIDER: secrets are kept by {provider}, which this process has no settings for: set "
                    f"{NEEDS.get(provider, 'SECRETS_MASTER_KEY')}; and name it in SECRETS_ALSO_READ if it is not the "
                    "provider of new secrets",
                    field="SECRETS_PROVIDER",
                )
        return api


def _loaded(name: str) -> Any:
    try:
        return import_module(f"hookseal.secrets.store.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("hookseal"):
            raise
    raise ConfigError(
        f"SECRETS_PROVIDER: {name} needs a package that is not installed: pip install 'hookseal[{name}]'",
        field="SECRETS_PROVIDER",
    )


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
        apis = {}
        for provider in sorted(self._providers.configured):
            with suppress(ConfigError):
                apis[provider] = self._providers.api(provider)
        return apis

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
