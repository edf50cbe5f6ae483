"""AWS KMS: Encrypt and Decrypt of a symmetric key, with an encryption context."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    MetadataRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.parsers import ResponseParserError

from hookseal.errors import SecretUnavailable
from hookseal.secrets import aws_session
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.kms.wrapped import Binding, KmsKey, KmsRefused, unreadable, wrong_binding

_SERVER_ERROR: Final = 500
_TOO_MANY: Final = 429
_TRANSIENT: Final = frozenset(
    {
        "DependencyTimeoutException",
        "KMSInternalException",
        "KeyUnavailableException",
        "LimitExceededException",
        "RequestTimeout",
        "Throttling",
        "ThrottlingException",
    }
)
_NO_ANSWER: Final = (BotoConnectionError, HTTPClientError, MetadataRetrievalError)
# What botocore raises for an answer that has not the form of AWS.
_UNREADABLE: Final = (ResponseParserError, AttributeError, TypeError, ValueError)
_WRONG_BINDING: Final = frozenset({"IncorrectKeyException", "InvalidCiphertextException"})
_DENIED: Final = (
    "let its key policy, or an IAM policy, give this identity kms:Decrypt, and kms:Encrypt if it wraps keys, for this "
    "encryption context"
)
_SIGNATURE: Final = "correct the clock of this machine, of which AWS allows 5 minutes, or the credentials"
_EXPIRED: Final = "renew the credentials, and check the clock of this machine"
_NOT_OF_AWS: Final = "this is not an answer of AWS: look at what is between, such as a proxy, and AWS_ENDPOINT_URL_KMS"
_ADVICE: Final = {
    "AccessDenied": _DENIED,
    "AccessDeniedException": _DENIED,
    "DisabledException": "enable the key",
    "KMSInvalidStateException": "cancel the deletion of the key, or enable it",
    "NotFoundException": "correct SECRETS_KMS: this account and region have no such key",
    "InvalidKeyUsageException": "name a symmetric key for encryption",
    **dict.fromkeys(("IncompleteSignature", "InvalidSignatureException", "SignatureDoesNotMatch"), _SIGNATURE),
    **dict.fromkeys(("RequestExpired", "RequestInTheFuture", "RequestTimeTooSkewed"), _SIGNATURE),
    **dict.fromkeys(("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"), _EXPIRED),
    "UnrecognizedClientException": "correct the credentials",
    "InvalidClientTokenId": "correct the credentials",
}


class AwsKms:
    """A symmetric key of AWS KMS."""

    def __init__(self, key: KmsKey, *, seconds: float, may_be_plain: bool) -> None:
        self._key = key
        self._seconds = seconds
        self._may_be_plain = may_be_plain
        self._client = aws_session.AwsClient(self._made)

    async def wrap(self, plain: SecretMaterial, binding: Binding) -> bytes:
        """Return the plain key, encrypted and bound. Raises as `Kms` says."""
        answer = await self._ask("encrypt", binding, Plaintext=plain.reveal())
        return self._part(answer, "CiphertextBlob")

    async def unwrap(self, ciphertext: bytes, binding: Binding) -> SecretMaterial:
        """Return the plain key. Raises as `Kms` says."""
        answer = await self._ask("decrypt", binding, CiphertextBlob=ciphertext)
        return SecretMaterial(self._part(answer, "Plaintext"))

    async def _ask(self, operation: str, binding: Binding, **arguments: bytes) -> Mapping[str, Any]:
        with self._translated(binding):
            return await self._client.ask(operation, KeyId=self._key.name, EncryptionContext=binding.pairs, **arguments)

    def close(self) -> None:
        """Close every connection."""
        self._client.close()

    def _made(self) -> Any:
        """Return a client, which finds its credentials now: that may fail, and be tried again, as a call."""
        seconds = self._seconds
        config = Config(connect_timeout=seconds, read_timeout=seconds, retries={"total_max_attempts": 1})
        try:
            session = aws_session.session(may_be_plain=self._may_be_plain, seconds=seconds / 2)
            return aws_session.client(session, "kms", region=self._key.part("region"), config=config)
        except ValueError as error:  # an address that is none
            raise _unusable(self._key, error) from None

    def _part(self, answer: Mapping[str, Any], name: str) -> bytes:
        value = answer.get(name)
        if not isinstance(value, bytes):
            raise unreadable(str(self._key))
        return value

    @contextmanager
    def _translated(self, binding: Binding) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            raise self._meaning(error, binding) from None
        except (NoCredentialsError, PartialCredentialsError):
            raise KmsRefused(
                f"{self._key} needs credentials of AWS, and this process has none: give it a role, or "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
                field="SECRETS_KMS",
            ) from None
        except CredentialRetrievalError as error:
            source = error.kwargs.get("provider")
            raise SecretUnavailable(
                f"{self._key} cannot be asked: what gives this process its credentials of AWS fails ({source})"
            ) from None
        except (*_NO_ANSWER, OSError) as error:
            raise SecretUnavailable(f"{self._key} does not answer ({type(error).__name__})") from None
        except BotoCoreError as error:
            raise _unusable(self._key, error) from None
        except _UNREADABLE:
            raise unreadable(str(self._key)) from None

    def _meaning(self, error: ClientError, binding: Binding) -> Exception:
        code = str(error.response.get("Error", {}).get("Code", "unknown"))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in _TRANSIENT or status >= _SERVER_ERROR or status == _TOO_MANY:
            return SecretUnavailable(f"{self._key} cannot answer at the moment ({code})")
        if code in _WRONG_BINDING:
            return wrong_binding(str(self._key), binding)
        if error.operation_name.startswith("AssumeRole"):
            advice = "let the trust policy of this process's role accept it, or correct the settings of AWS"
        elif code.isdecimal():  # botocore found none
            advice = _NOT_OF_AWS
        else:
            advice = _ADVICE.get(code, "look the code up in the documentation of AWS KMS")
        return KmsRefused(f"{self._key} refuses ({code}): {advice}", field="SECRETS_KMS")


@asynccontextmanager
async def opened(key: KmsKey, *, seconds: float, may_be_plain: bool = False) -> AsyncIterator[AwsKms]:
    """Give a client of the key's region, with the credentials that the environment provides.

    Its endpoint is that of AWS, or that of `AWS_ENDPOINT_URL_KMS`, for instance a VPC endpoint. Unless it
    `may_be_plain`, an address that is neither https nor of this machine is refused with `ConfigError`
    by the first call.
    """
    kms = AwsKms(key, seconds=seconds, may_be_plain=may_be_plain)
    try:
        yield kms
    finally:
        kms.close()


def _unusable(key: KmsKey, error: Exception) -> KmsRefused:
    return KmsRefused(
        f"{key} cannot be asked ({type(error).__name__}): correct the settings of AWS, such as AWS_PROFILE",
        field="SECRETS_KMS",
    )
