"""Google Cloud KMS: Encrypt and Decrypt of a symmetric key, with associated data and checksums."""

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import google_crc32c
from google.api_core import exceptions
from google.auth.exceptions import GoogleAuthError, TransportError
from google.cloud.kms_v1 import DecryptRequest, EncryptRequest
from google.cloud.kms_v1.services.key_management_service import KeyManagementServiceAsyncClient
from google.cloud.kms_v1.services.key_management_service.transports import KeyManagementServiceGrpcAsyncIOTransport

from hookseal.errors import Cause, SecretUnavailable
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.google_client import no_credentials_now, transport
from hookseal.secrets.kms.wrapped import Binding, KmsKey, KmsRefused, wrong_binding

_TRANSIENT: Final = (
    exceptions.Aborted,
    exceptions.Cancelled,
    exceptions.ResourceExhausted,
    exceptions.ServerError,  # also Unavailable, DeadlineExceeded and Internal
)
_FAILING: Final = (exceptions.InternalServerError, exceptions.Unknown, exceptions.Aborted)  # it did answer
_ADVICE: Final = (
    (
        exceptions.PermissionDenied,
        "give this account roles/cloudkms.cryptoKeyDecrypter, and cryptoKeyEncrypter if it wraps keys, on this key",
    ),
    (exceptions.Unauthenticated, "correct the credentials, or the clock of this machine"),
    (exceptions.NotFound, "correct SECRETS_KMS: this project has no such key"),
    (exceptions.FailedPrecondition, "enable the version of the key that wrapped it"),
)
_REFUSED_GRANT: Final = "invalid_grant"
# At DEBUG they log requests and answers, which contain keys.
_SERVICE: Final = "google.cloud.kms_v1.services.key_management_service"
_LOGGERS: Final = (f"{_SERVICE}.async_client", f"{_SERVICE}.transports.grpc_asyncio")


class GcpKms:
    """A symmetric key of Google Cloud KMS."""

    def __init__(self, client: KeyManagementServiceAsyncClient, key: KmsKey, *, seconds: float) -> None:
        self._client = client
        self._key = key
        self._seconds = seconds

    async def wrap(self, plain: SecretMaterial, binding: Binding) -> bytes:
        """Return the plain key, encrypted and bound. Raises as `Kms` says."""
        value, bound = plain.reveal(), binding.encoded
        request = EncryptRequest(
            name=self._key.name,
            plaintext=value,
            plaintext_crc32c=_checksum(value),
            additional_authenticated_data=bound,
            additional_authenticated_data_crc32c=_checksum(bound),
        )
        with self._translated(binding):
            answer = await self._client.encrypt(request, retry=None, timeout=self._seconds)
        received = answer.verified_plaintext_crc32c and answer.verified_additional_authenticated_data_crc32c
        if not received or answer.ciphertext_crc32c != _checksum(answer.ciphertext):
            raise self._altered()
        return bytes(answer.ciphertext)

    async def unwrap(self, ciphertext: bytes, binding: Binding) -> SecretMaterial:
        """Return the plain key. Raises as `Kms` says."""
        bound = binding.encoded
        request = DecryptRequest(
            name=self._key.name,
            ciphertext=ciphertext,
            ciphertext_crc32c=_checksum(ciphertext),
            additional_authenticated_data=bound,
            additional_authenticated_data_crc32c=_checksum(bound),
        )
        with self._translated(binding):
            answer = await self._client.decrypt(request, retry=None, timeout=self._seconds)
        if answer.plaintext_crc32c != _checksum(answer.plaintext):
            raise self._altered()
        return SecretMaterial(bytes(answer.plaintext))

    def _altered(self) -> SecretUnavailable:
        return SecretUnavailable(f"{self._key} and this process disagree about a checksum: something altered the data")

    @contextmanager
    def _translated(self, binding: Binding) -> Iterator[None]:
        try:
            yield
        except (*_TRANSIENT, exceptions.RetryError, TransportError) as error:
            if _REFUSED_GRANT in str(error):  # the client reports it as if no server had answered
                raise _no_credentials(self._key, error) from None
            if isinstance(error, exceptions.ResourceExhausted):
                raise SecretUnavailable(
                    f"{self._key} limits requests: let the administrator of its project raise the quota of Cloud KMS "
                    "(IAM & Admin, Quotas)",
                    cause=Cause.THROTTLED,
                ) from None
            if isinstance(error, _FAILING):
                raise SecretUnavailable(
                    f"{self._key} cannot answer at the moment ({type(error).__name__})", cause=Cause.FAILING
                ) from None
            raise SecretUnavailable(f"{self._key} does not answer ({type(error).__name__})") from None
        except exceptions.InvalidArgument:  # what does not open is an invalid argument
            raise wrong_binding(str(self._key), binding) from None
        except exceptions.GoogleAPICallError as error:
            advice = next((text for kind, text in _ADVICE if isinstance(error, kind)), "look at the key in the console")
            raise KmsRefused(f"{self._key} refuses ({type(error).__name__}): {advice}", field="SECRETS_KMS") from None
        except GoogleAuthError as error:
            raise _no_credentials(self._key, error) from None


@asynccontextmanager
async def opened(
    key: KmsKey, *, seconds: float, channel: Callable[..., Any] | None = None, may_be_plain: bool = False
) -> AsyncIterator[GcpKms]:
    """Give a client with the credentials that the environment provides, or one on the channel.

    Raises `KmsRefused`, `SecretUnavailable` if a server of tokens is away, and `ConfigError` as
    `found_credentials` does.
    """
    for name in _LOGGERS:
        logging.getLogger(name).disabled = True
    try:
        grpc_transport = await transport(
            KeyManagementServiceGrpcAsyncIOTransport, channel, loggers=(), may_be_plain=may_be_plain
        )
        client = KeyManagementServiceAsyncClient(transport=grpc_transport)
    except TransportError:
        raise no_credentials_now() from None
    except (GoogleAuthError, OSError, ValueError) as error:
        raise _no_credentials(key, error) from None
    try:
        yield GcpKms(client, key, seconds=seconds)
    finally:
        await client.transport.close()  # type: ignore[no-untyped-call]


def _no_credentials(key: KmsKey, error: Exception) -> KmsRefused:
    return KmsRefused(
        f"{key} needs credentials of Google Cloud ({type(error).__name__}): give this process a service account, or "
        "correct GOOGLE_APPLICATION_CREDENTIALS; if they are correct, correct the clock of this machine",
        field="SECRETS_KMS",
    )


def _checksum(value: bytes) -> int:
    return int(google_crc32c.value(bytes(value)))
