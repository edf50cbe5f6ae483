"""The interfaces of the providers outside PostgreSQL that the settings name; a client is loaded when it is needed."""

from importlib import import_module
from typing import Any, Final

from hookseal.ground.errors import ConfigError
from hookseal.secrets.ref import Provider
from hookseal.secrets.store.access import Access
from hookseal.secrets.store.provider_api import ProviderApi

# What must be set for a provider, for messages; docs/providers.md says more.
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
            self._apis[provider] = self._made(provider)
        return self._apis[provider]

    async def close(self) -> None:
        """Close all connections."""
        for api in self._apis.values():
            await api.close()
        self._apis.clear()

    def _made(self, provider: Provider) -> ProviderApi:
        access, how = self._access, {"prefix": self._access.prefix, "seconds": self._access.call_seconds}
        match provider:
            case Provider.AWS if access.aws is not None:
                made: ProviderApi = _loaded("aws").AwsApi(access.aws, **how)
            case Provider.GCP if access.gcp is not None:
                made = _loaded("gcp").GcpApi(access.gcp, **how)
            case Provider.OPENBAO if access.openbao is not None:
                made = _loaded("openbao").OpenBaoApi(access.openbao, **how)
            case _:
                raise ConfigError(
                    f"SECRETS_PROVIDER: secrets are kept by {provider}, which this process has no settings for: set "
                    f"{NEEDS.get(provider, 'SECRETS_MASTER_KEY')}; and name it in SECRETS_ALSO_READ if it is not the "
                    "provider of new secrets",
                    field="SECRETS_PROVIDER",
                )
        return made


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
