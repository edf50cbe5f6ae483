"""Google Secret Manager: each version of ours is a secret of its own, with one version, which is read by its number.

`AddSecretVersion` has no token that makes a repeat harmless, so a repeat may add a second version. Only the first is
ever read. The process that wrote it owns the number; a process that added a second one with other bytes takes the next
number.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any, Final

import google_crc32c
import grpc
from google.api_core.exceptions import (
    Aborted,
    AlreadyExists,
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    GoogleAPICallError,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    ServerError,
    ServiceUnavailable,
    Unauthenticated,
)
from google.auth.exceptions import GoogleAuthError, TransportError
from google.cloud.secretmanager_v1 import types
from google.cloud.secretmanager_v1.services.secret_manager_service import SecretManagerServiceAsyncClient
from google.cloud.secretmanager_v1.services.secret_manager_service.transports import (
    SecretManagerServiceGrpcAsyncIOTransport,
)

from hookseal.errors import Cause, ConfigError, SecretDenied, SecretError, SecretUnavailable
from hookseal.ground.single_flight import SingleFlight
from hookseal.secrets.core.ref import Provider, SecretRef
from hookseal.secrets.google_client import no_credentials_now, transport
from hookseal.secrets.store.port import (
    CALL_SECONDS,
    LABEL,
    GcpAccess,
    NumberTaken,
    Rest,
    another_version,
    gone,
    in_change,
    no_answer,
    of_somebody_else,
)

_SHARE_OF_CALL: Final = 0.75  # so that the client reports a time-out itself; without one it repeats for a minute
_MAX_ID: Final = 255
_FIRST: Final = "1"  # the only version that a secret of ours has
_REFUSED_GRANT: Final = "invalid_grant"  # no token is given out, which the client reports as a server that is away
_PLUGIN_FAILED: Final = "Getting metadata from plugin failed"  # the plugin asks for a token
_NOT_TRUSTED: Final = "CERTIFICATE_VERIFY_FAILED"
_NOT_GRPC: Final = ("http1.x server", "Failed parsing HTTP/2", "Received http2 header with status")
_LOGGER: Final = "google"  # at the level of debugging it prints what is sent and received
# What an answer that a precondition is not met means, and what an operator can do, by the right of the call.
_UNMET: Final = {
    "versions.access": (
        "is disabled or destroyed",
        "enable it (`gcloud secrets versions enable`), or run `hookseal endpoint rotate --overlap 0`",
    ),
    "create": ("cannot be created: if an organisation policy limits locations, let it permit `global`", None),
}


class GcpApi:
    """Secret Manager of one project. It connects when it is first used."""

    provider: Final = Provider.GCP

    def __init__(self, access: GcpAccess, *, prefix: str, seconds: float = CALL_SECONDS) -> None:
        self.seconds: Final = seconds
        self._access = access
        self._prefix = prefix
        self._client: Any = None
        self._opening: SingleFlight[None, None] = SingleFlight()

    async def prepare(self) -> None:
        """Find the credentials and make the client (see `ProviderApi`)."""
        with _credentials_found():
            await self._opened()

    async def write(self, ref: SecretRef, payload: bytes, *, owner: str, is_first: bool) -> None:  # noqa: ARG002 -- a secret has one version
        """Keep the bytes under the version (see `ProviderApi`)."""
        content = {"data": payload, "data_crc32c": google_crc32c.value(payload)}
        try:
            await self._create(ref, owner)
            added = await self._call(
                "add_secret_version", {"parent": self._secret(ref), "payload": content}, ref, "versions.add"
            )
        except NotFound:  # somebody removed it in the meantime
            raise in_change(self._place(ref), "another process changes the secret") from None
        if not added.name.endswith(f"/versions/{_FIRST}") and await self._read(ref) != payload:
            raise NumberTaken

    async def read(self, ref: SecretRef) -> bytes:
        """Return the bytes of the version (see `ProviderApi`)."""
        return await self._read(ref)

    async def remove(self, ref: SecretRef, rest: Rest, *, owner: str) -> None:  # noqa: ARG002 -- a secret has one version
        """Remove the secret of the version (see `ProviderApi`)."""
        try:
            secret = await self._call("get_secret", {"name": self._secret(ref)}, ref, "get")
            if secret.labels.get(LABEL) == owner:
                await self._call("delete_secret", {"name": self._secret(ref)}, ref, "delete")
        except NotFound:
            return

    async def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            await self._client.transport.close()

    async def _read(self, ref: SecretRef) -> bytes:
        name = f"{self._secret(ref)}/versions/{_FIRST}"
        try:
            answer = await self._call("access_secret_version", {"name": name}, ref, "versions.access")
        except NotFound:
            raise gone(self._place(ref)) from None
        if answer.name.split("/")[2:] != name.split("/")[2:]:  # Google answers with the number of the project
            raise another_version(self._place(ref))
        data: bytes = answer.payload.data
        if answer.payload.data_crc32c != google_crc32c.value(data):
            raise SecretUnavailable(
                f"{self._place(ref)}: the checksum of the answer is wrong, so something altered it on its way: look at "
                "what is between, such as a proxy",
                cause=Cause.FOREIGN,
            )
        return data

    async def _create(self, ref: SecretRef, owner: str) -> None:
        """Create the secret, without a version, unless it is there and ours."""
        secret = types.Secret(replication={"automatic": {}}, labels={LABEL: owner})
        request: dict[str, object] = {"parent": self._project, "secret_id": self._id(ref), "secret": secret}
        try:
            await self._call("create_secret", request, ref, "create")
        except AlreadyExists:
            await self._require_ours(ref, owner)
        except NotFound:
            raise SecretDenied(f"Google has no {self._project}: correct GOOGLE_CLOUD_PROJECT") from None

    async def _require_ours(self, ref: SecretRef, owner: str) -> None:
        secret = await self._call("get_secret", {"name": self._secret(ref)}, ref, "get")
        if secret.labels.get(LABEL) != owner:
            raise of_somebody_else(self._place(ref))

    async def _call(self, operation: str, request: dict[str, object], ref: SecretRef, right: str) -> Any:
        """Call Google once. Raises `AlreadyExists` and `NotFound`, or what the answer means."""
        try:
            with _credentials_found():
                client = await self._opened()
                return await getattr(client, operation)(
                    request=request, retry=None, timeout=self.seconds * _SHARE_OF_CALL
                )
        except (AlreadyExists, NotFound):
            raise
        except GoogleAPICallError as error:
            raise _meaning_of(error, self._place(ref), right) from None
        except ConfigError as error:
            raise SecretDenied(str(error)) from None
        except (OSError, grpc.RpcError) as error:
            raise no_answer("Google Secret Manager", type(error).__name__) from None

    async def _opened(self) -> Any:
        """Return the client. It is made once, for later calls too if the caller is cancelled meanwhile."""
        if self._client is None:
            opening, _ = self._opening.join(None, self._open)
            await asyncio.wait({opening})
            opening.result()
        return self._client

    async def _open(self) -> None:
        grpc_transport = await transport(
            SecretManagerServiceGrpcAsyncIOTransport,
            self._access.channel,
            loggers=(_LOGGER,),
            may_be_plain=self._access.may_be_plain,
        )
        self._client = SecretManagerServiceAsyncClient(transport=grpc_transport)

    @property
    def _project(self) -> str:
        return f"projects/{self._access.project}"

    def _id(self, ref: SecretRef) -> str:
        return secret_id(self._prefix, ref)

    def _secret(self, ref: SecretRef) -> str:
        return f"{self._project}/secrets/{self._id(ref)}"

    def _place(self, ref: SecretRef) -> str:
        return f"{self._secret(ref)} in Google Secret Manager"


@contextmanager
def _credentials_found() -> Iterator[None]:
    """Translate the errors of Google's library of credentials."""
    try:
        yield
    except TransportError:
        raise no_credentials_now() from None
    except GoogleAuthError as error:
        raise SecretDenied(
            f"Google Secret Manager cannot be asked ({type(error).__name__}): give this process the credentials of "
            "a service account, by its machine or pod or by GOOGLE_APPLICATION_CREDENTIALS, and set its clock"
        ) from None


def secret_id(prefix: str, ref: SecretRef) -> str:
    """Return the id of the secret of a version: no other version has it, and it has only letters, digits, - and _.

    A name that is too long for Google is replaced by its digest.
    """
    encoded = f"{prefix}__{_encoded(ref.tenant)}__{_encoded(ref.name)}__{ref.version}"
    if len(encoded) <= _MAX_ID:
        return encoded
    return f"{prefix}__{sha256(f'{ref.tenant}:{ref.name}:{ref.version}'.encode()).hexdigest()}"


def _encoded(text: str) -> str:
    return text.replace("_", "_u").replace(".", "_d")  # never two underscores in a row, so `__` only separates


def _resource(right: str) -> str:
    return right if right.startswith("versions.") else f"secrets.{right}"


def _meaning_of(error: GoogleAPICallError, place: str, right: str) -> SecretError | SecretUnavailable:
    if isinstance(error, Unauthenticated) or _REFUSED_GRANT in str(error):
        return SecretDenied(
            f"{place} is refused because Google does not accept the credentials of this process: correct them, and set "
            "the clock of this machine"
        )
    if isinstance(error, ServiceUnavailable):
        return _away(str(error))
    if isinstance(error, DeadlineExceeded | Cancelled):
        return no_answer("Google Secret Manager", type(error).__name__)
    if isinstance(error, ResourceExhausted):
        return SecretUnavailable(
            f"Google limits the requests of this project (ResourceExhausted at {right}): let its administrator raise "
            "the quota of Secret Manager (IAM & Admin, Quotas), or let hookseal ask less often "
            "(SECRETS_CACHE_TTL_SECONDS)",
            cause=Cause.THROTTLED,
        )
    if isinstance(error, Aborted):
        return in_change(place, "another process changes the secret")
    if isinstance(error, ServerError):
        return SecretUnavailable(
            f"Google Secret Manager fails ({type(error).__name__}): wait; if it lasts, look at the status page of "
            "Google Cloud, and at what is between, such as a proxy",
            cause=Cause.FAILING,
        )
    if isinstance(error, PermissionDenied):
        return SecretDenied(
            f"{place} is denied to this process: grant its service account secretmanager.{_resource(right)} on it, or "
            "enable the API of Secret Manager, if the project has not used it before"
        )
    if isinstance(error, FailedPrecondition) and right in _UNMET:
        problem, advice = _UNMET[right]
        return SecretDenied(f"{place} {problem}", advice=advice)
    return SecretDenied(f"{place} is refused by Google ({type(error).__name__}): look the call up in the audit logs")


def _away(text: str) -> SecretUnavailable:
    """Return what it means that the client has no connection. The texts are those of gRPC, about what it tried."""
    if _PLUGIN_FAILED in text:
        return no_credentials_now()
    if _NOT_TRUSTED in text:
        return SecretUnavailable(
            "Google Secret Manager does not prove by TLS that it is the right server: check what is between, such as a "
            "proxy, GRPC_DEFAULT_SSL_ROOTS_FILE_PATH, and the clock of this machine",
            cause=Cause.FOREIGN,
        )
    if any(sign in text for sign in _NOT_GRPC):
        return SecretUnavailable(
            "what answers in place of Google Secret Manager is not Google: correct what is between, such as a proxy",
            cause=Cause.FOREIGN,
        )
    return no_answer("Google Secret Manager", "ServiceUnavailable")
