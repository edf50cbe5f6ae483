"""Sessions of AWS that send no key, token or secret in the clear, and clients that wait in threads of their own.

The library is botocore, which waits in the thread of its caller. The asynchronous one requires some versions of
botocore, which pip would then install in place of the one that an application uses. The calls are rare.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from threading import Thread
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from botocore.config import Config
from botocore.credentials import InstanceMetadataProvider
from botocore.exceptions import IncompleteReadError
from botocore.session import Session
from botocore.utils import METADATA_BASE_URL, METADATA_BASE_URL_IPv6, resolve_imds_endpoint_mode

from hookseal.errors import ConfigError
from hookseal.ground.single_flight import SingleFlight
from hookseal.ground.tls import goes_directly, is_beside_this_machine, is_protected

T = TypeVar("T")

AT_ONCE: Final = 10  # calls of a client that somebody waits for; so many connections botocore keeps, too
MOST_THREADS: Final = 100  # with those of calls that were cancelled and have no answer yet
_LOGGER: Final = "botocore"  # below this level it prints requests and answers, which contain keys and secrets
_METADATA: Final = "ec2_metadata_service_endpoint"
_NO_METADATA: Final = "AWS_EC2_METADATA_DISABLED"
_VARIABLE: Final[Mapping[str, str]] = {
    "kms": "AWS_ENDPOINT_URL_KMS",
    "secretsmanager": "AWS_ENDPOINT_URL_SECRETS_MANAGER",
    "sts": "AWS_ENDPOINT_URL_STS",
}


class AwsClient:
    """A client of one service of AWS. It connects at its first use. Each call waits in a thread of its own.

    A call that is cancelled gives its turn back at once, and its thread goes on until AWS, or the name server, has
    answered: the time-outs of botocore are those of a read, not of an answer. No process waits for these threads.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        """Take what makes the client of botocore, in a thread, since it may ask for credentials."""
        self._make = make
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._opening: SingleFlight[None, None] = SingleFlight()
        self._client: Any = None
        self._threads: set[Thread] = set()

    async def open(self) -> None:
        """Make the client, unless there is one. Raises what `client` raises; the next call then tries it again.

        If the caller is cancelled, the client is made all the same, for the next call: else one that takes longer than
        its callers wait would never be there.
        """
        if self._client is None:
            opening, _ = self._opening.join(None, self._opened)
            await asyncio.wait({opening})
            opening.result()

    async def ask(self, operation: str, **arguments: Any) -> Mapping[str, Any]:
        """Return the answer to this call.

        Raises as `open` does, what botocore raises, and `TimeoutError` while `MOST_THREADS` calls have no answer.
        """
        await self.open()
        return await self._in_thread(partial(getattr(self._client, operation), **arguments))

    def close(self) -> None:
        """Close the connections that are idle."""
        if self._client is not None:
            self._client.close()

    async def _opened(self) -> None:
        self._client = await self._in_thread(self._make)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        async with self._turns:
            self._threads = {each for each in self._threads if each.is_alive()}
            if len(self._threads) >= MOST_THREADS:
                raise TimeoutError("too many calls have no answer")
            answer: Future[T] = Future()
            thread = Thread(target=_settle, args=(answer, call), name="hookseal-aws", daemon=True)
            self._threads.add(thread)
            thread.start()
            return await asyncio.wrap_future(answer)


def _settle(answer: Future[T], call: Callable[[], T]) -> None:
    if not answer.set_running_or_notify_cancel():
        return
    try:
        found = call()
    except BaseException as error:  # noqa: BLE001 -- the caller raises it
        answer.set_exception(error)
    else:
        answer.set_result(found)


def never_log_secrets() -> None:
    """Let botocore log nothing below `WARNING`, whatever the level of the process is."""
    logger = logging.getLogger(_LOGGER)
    logger.setLevel(max(logger.getEffectiveLevel(), logging.WARNING))


class _ProtectedSession(Session):  # type: ignore[misc]
    """A session whose clients refuse to send in the clear."""

    def get_credentials(self) -> Any:
        """Return the credentials that were found. Raises `ConfigError` rather than ask for them through a proxy.

        AWS's library asks the server of metadata of an instance if nothing else has credentials, and it obeys
        `HTTP_PROXY` for that too.
        """
        for provider in self.get_component("credential_provider").providers:
            if isinstance(provider, InstanceMetadataProvider):
                provider.load = partial(self._of_instance, provider)
        return super().get_credentials()

    def _of_instance(self, provider: Any) -> Any:
        if os.environ.get(_NO_METADATA, "").lower() != "true":
            is_ipv6 = resolve_imds_endpoint_mode(self) == "ipv6"
            url = self.get_config_variable(_METADATA) or (METADATA_BASE_URL_IPv6 if is_ipv6 else METADATA_BASE_URL)
            parts = urlsplit(str(url))
            if parts.scheme != "https" and not goes_directly(parts.netloc):
                raise ConfigError(
                    f"the server of metadata at {parts.netloc}, which gives this process its credentials of AWS, would "
                    "be asked over http through the proxy that HTTP_PROXY or ALL_PROXY names, which can read them: in "
                    f"production add {parts.netloc} to NO_PROXY, or give this process other credentials, such as "
                    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
                )
        return type(provider).load(provider)


def session(*, may_be_plain: bool, seconds: float) -> Session:
    """Return a session whose clients refuse to send to an address that is neither https nor of this machine.

    It holds also for the clients that its credentials use, such as STS. Each asks once, for at most `seconds`. AWS's
    library renews credentials 15 minutes before they end, so if that fails, there is still time for the call with the
    old ones. With `may_be_plain` anything goes, as outside production. Raises `ConfigError` if its server of metadata
    would be asked in the clear on another machine.
    """
    never_log_secrets()
    session_ = Session() if may_be_plain else _ProtectedSession()
    session_.set_default_client_config(
        Config(connect_timeout=seconds, read_timeout=seconds, retries={"total_max_attempts": 1})
    )
    session_.register("before-parse", _require_whole)
    if may_be_plain:
        return session_
    metadata = str(session_.get_config_variable(_METADATA) or "")
    if metadata and not is_beside_this_machine(metadata):
        _require_protected(metadata, "the server of metadata", "AWS_EC2_METADATA_SERVICE_ENDPOINT", _METADATA)
    session_.register("before-send", _before_send)
    return session_


def client(session_: Session, service: str, *, region: str, config: Config) -> Any:
    """Return a client of botocore for this service. It may ask for credentials, and wait for them.

    Raises `ConfigError` if its address, or that of the STS which its credentials need, is refused by the session; and
    `ValueError` for an address that is none.
    """
    made = session_.create_client(service, region_name=region, config=config)
    if isinstance(session_, _ProtectedSession):
        _require(made, service)
        credentials = session_.get_credentials()
        if "assume-role" in str(getattr(credentials, "method", "")):
            _require(session_.create_client("sts", region_name=region, config=config), "sts")
    return made


def _require(client: Any, service: str) -> None:
    variable = _VARIABLE[service]
    _require_protected(client.meta.endpoint_url, f"AWS ({service})", f"{variable} or AWS_ENDPOINT_URL", "endpoint_url")


def _require_whole(*, response_dict: Mapping[str, Any], **_: object) -> None:
    """Raise `IncompleteReadError` for an answer that was cut: botocore would read what there is of it."""
    expected = response_dict["headers"].get("content-length", "")
    if expected.isdecimal() and (actual := len(response_dict["body"])) < int(expected):
        raise IncompleteReadError(actual_bytes=actual, expected_bytes=int(expected))


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
