"""Sessions of AWS that send no key, token or secret in the clear. Both clients of AWS use them."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, Final

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession

from hookseal.ground.errors import ConfigError
from hookseal.ground.tls import is_beside_this_machine, is_protected

_METADATA: Final = "ec2_metadata_service_endpoint"
_VARIABLE: Final[Mapping[str, str]] = {
    "kms": "AWS_ENDPOINT_URL_KMS",
    "secretsmanager": "AWS_ENDPOINT_URL_SECRETS_MANAGER",
    "sts": "AWS_ENDPOINT_URL_STS",
}


class _ProtectedSession(AioSession):  # type: ignore[misc]
    """A session whose clients refuse to send in the clear."""


def session(*, may_be_plain: bool, seconds: float) -> AioSession:
    """Return a session whose clients refuse to send to an address that is neither https nor of this machine.

    It holds also for the clients that its credentials use, such as STS: these ask once, for at most so many seconds, so
    that there is time left for a call with credentials that are still valid, which AWS's library renews 15 minutes
    before they end. With `may_be_plain` anything goes, as outside
    production. Raises `ConfigError` if its server of metadata would be asked in the clear on another machine.
    """
    made = AioSession() if may_be_plain else _ProtectedSession()
    made.set_default_client_config(
        AioConfig(connect_timeout=seconds, read_timeout=seconds, retries={"total_max_attempts": 1})
    )
    if may_be_plain:
        return made
    metadata = str(made.get_config_variable(_METADATA) or "")
    if metadata and not is_beside_this_machine(metadata):
        _require_protected(metadata, "the server of metadata", "AWS_EC2_METADATA_SERVICE_ENDPOINT", _METADATA)
    made.register("before-send", _before_send)
    return made


async def client(made: AioSession, service: str, stack: AsyncExitStack, *, region: str, config: AioConfig) -> Any:
    """Return a client of this service, which is closed with the stack.

    Raises `ConfigError` if its address, or that of the STS which its credentials need, is refused by the session; and
    `ValueError` for an address that is none.
    """
    found = await stack.enter_async_context(made.create_client(service, region_name=region, config=config))
    if isinstance(made, _ProtectedSession):
        _require(found, service)
        credentials = await made.get_credentials()
        if "assume-role" in str(getattr(credentials, "method", "")):
            async with made.create_client("sts", region_name=region, config=config) as sts:
                _require(sts, "sts")
    return found


def _require(client: Any, service: str) -> None:
    variable = _VARIABLE[service]
    _require_protected(client.meta.endpoint_url, f"AWS ({service})", f"{variable} or AWS_ENDPOINT_URL", "endpoint_url")


def _before_send(request: Any, **_: object) -> None:
    """Refuse a request of any client of the session; botocore calls this before it connects."""
    _require_protected(str(request.url), "AWS", "AWS_ENDPOINT_URL and the variables that begin so", "endpoint_url")


def _require_protected(url: str, what: str, variables: str, setting: str) -> None:
    if not is_protected(url, proxies=True):
        raise ConfigError(
            f"{what} would be asked over http, where anyone in between can read keys and secrets: in production use "
            f"https, or an address of this machine without a proxy (NO_PROXY), in {variables}, or in {setting} of the "
            "file that AWS_CONFIG_FILE names (~/.aws/config)"
        )
