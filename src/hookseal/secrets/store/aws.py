"""Secrets in AWS Secrets Manager: the client, its errors, and the store."""

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, Protocol

from botocore.config import Config
from botocore.credentials import AssumeRoleCredentialFetcher, CredentialResolver, DeferredRefreshableCredentials
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConfigNotFound,
    ConfigParseError,
    CredentialRetrievalError,
    InvalidConfigError,
    MetadataRetrievalError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    SSLError,
    SSOTokenLoadError,
    UnauthorizedSSOTokenError,
)
from botocore.parsers import ResponseParserError

from hookseal.errors import Cause, ConfigError, SecretDenied, SecretError, SecretTampered, SecretUnavailable
from hookseal.secrets import aws_session
from hookseal.secrets.core.ref import Provider, SecretRef
from hookseal.secrets.store.port import (
    CALL_SECONDS,
    LABEL,
    AwsAccess,
    NumberTaken,
    Rest,
    another_version,
    gone,
    in_change,
    no_answer,
    of_somebody_else,
)

_THROTTLED: Final = frozenset(
    {"Throttling", "ThrottlingException", "ThrottledException", "TooManyRequestsException", "RequestLimitExceeded"}
)
_DENIED: Final = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"})
_KMS: Final = frozenset({"DecryptionFailure", "EncryptionFailure", "KMSAccessDeniedException", "KMSDisabledException"})
_EXPIRED: Final = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
_SIGNATURE: Final = frozenset(
    {
        *("InvalidSignatureException", "SignatureDoesNotMatch", "RequestExpired", "RequestTimeTooSkewed"),
        *("IncompleteSignature", "IncompleteSignatureException", "RequestInTheFuture"),
    }
)
_CREDENTIALS: Final = frozenset(
    {"UnrecognizedClientException", "InvalidClientTokenId", "InvalidAccessKeyId", "AuthFailure", "NotAuthorized"}
)
_TOO_MANY: Final = 429
_SERVER_ERROR: Final = 500


class RefusedCall(Protocol):
    """An error of botocore, with the answer of AWS."""

    @property
    def response(self) -> Mapping[str, Any]:
        """The parsed answer."""
        ...

    @property
    def operation_name(self) -> str:
        """The call that was refused."""
        ...


def meaning_of(error: RefusedCall, place: str, action: str) -> SecretError | SecretUnavailable:
    """Return the error to raise for this answer about `place`; `action` is the right that the call needs."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _THROTTLED or status == _TOO_MANY:
        return SecretUnavailable(
            f"AWS limits the requests of this account in this region ({_shown(code) or status}): let its administrator "
            f"raise the quota of {error.operation_name} (Service Quotas), or let hookseal ask less often "
            "(SECRETS_CACHE_TTL_SECONDS)",
            cause=Cause.THROTTLED,
        )
    if status >= _SERVER_ERROR:
        return SecretUnavailable(
            f"AWS Secrets Manager fails ({_shown(code) or status}): wait; if it lasts, look at AWS Health, and at what "
            "is between, such as a proxy",
            cause=Cause.FAILING,
        )
    if error.operation_name == "AssumeRole":
        return SecretDenied(
            f"AWS does not let this process assume the role of AWS_SECRET_MANAGER_ROLE_ARN ({_shown(code)}): grant its "
            "own role sts:AssumeRole, and name it in the trust policy of the other"
        )
    return SecretDenied(f"{place} {_advice(code, action)}")


def _advice(code: str, action: str) -> str:
    if code in _DENIED:
        return f"is denied to this process: grant its role or user {action} on it"
    if code in _KMS:
        return f"cannot be used ({code}): enable the KMS key of the secret, and grant this process its use"
    if code in _EXPIRED:
        return "is refused because the session credentials of this process have expired: give it new ones"
    if code in _SIGNATURE:
        return (
            "is refused because AWS does not accept the signature of the request: set the clock of this machine (AWS "
            "allows 5 minutes), and check the secret access key"
        )
    if code in _CREDENTIALS:
        return "is refused because AWS does not know the credentials of this process: correct them"
    if not code or code.isdecimal():  # botocore found none
        return (
            f"is refused ({code or 'without a code'}), and not by AWS: correct AWS_ENDPOINT_URL, if it is set, or what "
            "is between, such as a proxy"
        )
    return f"is refused by AWS ({_shown(code) or 'a code that cannot be shown'}): look the call up in CloudTrail"


def not_of_aws() -> SecretUnavailable:
    """Return the error for an answer that has not the form of AWS."""
    return SecretUnavailable(
        "what answers in place of AWS Secrets Manager is not AWS: correct AWS_ENDPOINT_URL, if it is set, or what is "
        "between, such as a proxy",
        cause=Cause.FOREIGN,
    )


def _shown(code: str) -> str:
    return code if code.isalnum() else ""


_ATTEMPTS: Final = 2
# What botocore raises for an answer that has not the form of AWS.
_UNREADABLE: Final = (ResponseParserError, AttributeError, TypeError, ValueError)
_OF_SETTINGS: Final = (
    *(ProfileNotFound, ConfigNotFound, ConfigParseError, InvalidConfigError),
    *(SSOTokenLoadError, UnauthorizedSSOTokenError),
)


@contextmanager
def answered() -> Iterator[None]:
    """Translate the errors of the client, except that of an answer that refuses."""
    try:
        yield
    except ClientError:
        raise
    except (NoCredentialsError, PartialCredentialsError, NoRegionError) as error:
        raise SecretDenied(
            f"AWS Secrets Manager cannot be asked ({type(error).__name__}): give this process credentials, by a "
            "role of its machine or pod or by AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and AWS_REGION"
        ) from None
    except _OF_SETTINGS as error:
        raise _unusable(error) from None
    except (CredentialRetrievalError, MetadataRetrievalError) as error:
        source = error.kwargs.get("provider", "the service of metadata")
        raise SecretUnavailable(
            f"AWS Secrets Manager cannot be asked: what gives this process its credentials of AWS fails ({source}): "
            "repair it, or the connection to it",
            cause=Cause.FAILING,
        ) from None
    except SSLError:
        raise SecretUnavailable(
            "AWS Secrets Manager does not prove by TLS that it is the right server: check what is between, such as a "
            "proxy, AWS_CA_BUNDLE, and the clock of this machine",
            cause=Cause.FOREIGN,
        ) from None
    except (BotoCoreError, OSError) as error:
        raise no_answer("AWS Secrets Manager", type(error).__name__) from None
    except _UNREADABLE:
        raise not_of_aws() from None


def _unusable(error: Exception) -> SecretDenied:
    return SecretDenied(
        f"AWS Secrets Manager cannot be asked ({type(error).__name__}): correct the settings of AWS, such as "
        "AWS_PROFILE"
    )


class _RoleProvider:
    """Gives the credentials of a role, which are asked for when they are first used and renewed in time."""

    METHOD = CANONICAL_NAME = "assume-role"

    def __init__(self, load: Callable[[], Any]) -> None:
        self.load = load


def client(access: AwsAccess, *, seconds: float) -> Any:
    """Return a client of botocore whose calls, with their repeats, end within about so many seconds.

    Raises `SecretDenied`, and `ConfigError` as `aws_session.client` does.
    """
    session = aws_session.session(may_be_plain=access.may_be_plain, seconds=seconds / _ATTEMPTS)
    if access.role_arn is not None:
        role = _RoleProvider(partial(_of_role, access, access.role_arn, seconds / _ATTEMPTS))
        session.register_component("credential_provider", CredentialResolver(providers=[role]))
    config = Config(
        connect_timeout=seconds / _ATTEMPTS,
        read_timeout=seconds / _ATTEMPTS,
        retries={"total_max_attempts": _ATTEMPTS, "mode": "standard"},
        user_agent_extra="hookseal",
    )
    try:
        return aws_session.client(session, "secretsmanager", region=access.region, config=config)
    except ValueError as error:  # an address that is none
        raise _unusable(error) from None


def _of_role(access: AwsAccess, arn: str, seconds: float) -> Any:
    source = aws_session.session(may_be_plain=access.may_be_plain, seconds=seconds)
    credentials = source.get_credentials()
    if credentials is None:
        raise NoCredentialsError
    fetcher = AssumeRoleCredentialFetcher(
        partial(source.create_client, region_name=access.region),
        credentials,
        arn,
        extra_args={"RoleSessionName": "hookseal"},
    )
    return DeferredRefreshableCredentials(fetcher.fetch_credentials, "assume-role")


_NAMESPACE: Final = uuid.UUID("6e2a0c9e-52a3-4d0c-9d3b-0f6f4f0b7a11")  # of the version ids, never to be changed
_CURRENT: Final = "AWSCURRENT"
_EXISTS: Final = "ResourceExistsException"
_NOT_FOUND: Final = "ResourceNotFoundException"
_PENDING_DELETION: Final = "InvalidRequestException"


class AwsApi:
    """Secrets Manager of one region. It connects when it is first used."""

    provider: Final = Provider.AWS

    def __init__(self, access: AwsAccess, *, prefix: str, seconds: float = CALL_SECONDS) -> None:
        self.seconds: Final = seconds
        self._access = access
        self._prefix = prefix
        self._client = aws_session.AwsClient(partial(client, access, seconds=seconds))

    async def prepare(self) -> None:
        """Load the client and find the credentials (see `ProviderApi`)."""
        with answered():
            await self._client.open()

    async def write(self, ref: SecretRef, payload: bytes, *, owner: str, is_first: bool) -> None:
        """Keep the bytes under the version (see `ProviderApi`)."""
        if is_first or not await self._is_ours(ref, owner):
            if await self._create(ref, payload, owner):
                return
            if not await self._is_ours(ref, owner):
                raise in_change(self._place(ref), "AWS is still deleting a secret of this name")
        if not await self._put(ref, payload):
            raise in_change(self._place(ref), "another process changes the secret")

    async def read(self, ref: SecretRef) -> bytes:
        """Return the bytes of the version (see `ProviderApi`)."""
        token = version_id(ref)
        try:
            answer = await self._call("get_secret_value", SecretId=self._name(ref), VersionId=token)
        except ClientError as error:
            if _code(error) in {_NOT_FOUND, _PENDING_DELETION}:
                raise gone(self._place(ref)) from None
            raise meaning_of(error, self._place(ref), "secretsmanager:GetSecretValue") from None
        if "VersionId" not in answer:
            raise not_of_aws()
        if answer["VersionId"] != token:
            raise another_version(self._place(ref))
        payload = answer.get("SecretBinary")
        if not isinstance(payload, bytes):
            raise SecretTampered(f"{self._place(ref)} has another form than hookseal writes: find out who changed it")
        return payload

    async def remove(self, ref: SecretRef, rest: Rest, *, owner: str) -> None:
        """Remove the secret with its last version; of another version only the stages (see `ProviderApi`)."""
        try:
            secret = await self._call("describe_secret", SecretId=self._name(ref))
        except ClientError as error:
            if _code(error) == _NOT_FOUND:
                return
            raise meaning_of(error, self._place(ref), "secretsmanager:DescribeSecret") from None
        if not _belongs_to(secret, owner) or "DeletedDate" in secret:
            return
        try:
            if not rest.is_needed:
                await self._call("delete_secret", SecretId=self._name(ref), ForceDeleteWithoutRecovery=True)
            else:
                await self._unstage(ref, secret, rest)
        except ClientError as error:
            asked = "secretsmanager:DeleteSecret and secretsmanager:UpdateSecretVersionStage"
            raise meaning_of(error, self._place(ref), asked) from None

    async def close(self) -> None:
        """Close all connections."""
        self._client.close()

    async def _create(self, ref: SecretRef, payload: bytes, owner: str) -> bool:
        """Create the secret with this version; False if there is one of this name, perhaps one that is deleted."""
        try:
            await self._call(
                "create_secret",
                Name=self._name(ref),
                ClientRequestToken=version_id(ref),
                SecretBinary=payload,
                Description="A secret of hookseal, encrypted under a key that is in its database. Do not edit it.",
                Tags=[{"Key": LABEL, "Value": owner}],
            )
        except ClientError as error:
            if _code(error) in {_EXISTS, _PENDING_DELETION}:
                return False
            asked = "secretsmanager:CreateSecret and secretsmanager:TagResource"
            raise meaning_of(error, self._place(ref), asked) from None
        return True

    async def _put(self, ref: SecretRef, payload: bytes) -> bool:
        """Add the version to its secret; False if there is none, or one that is deleted."""
        try:
            await self._call(
                "put_secret_value", SecretId=self._name(ref), ClientRequestToken=version_id(ref), SecretBinary=payload
            )
        except ClientError as error:
            if _code(error) == _EXISTS:
                raise NumberTaken from None
            if _code(error) in {_NOT_FOUND, _PENDING_DELETION}:
                return False
            raise meaning_of(error, self._place(ref), "secretsmanager:PutSecretValue") from None
        return True

    async def _is_ours(self, ref: SecretRef, owner: str) -> bool:
        """Return whether the secret is there. Raises `SecretDenied` if it is not ours, or if it must not be used."""
        try:
            secret = await self._call("describe_secret", SecretId=self._name(ref))
        except ClientError as error:
            if _code(error) == _NOT_FOUND:
                return False
            raise meaning_of(error, self._place(ref), "secretsmanager:DescribeSecret") from None
        if not _belongs_to(secret, owner):
            raise of_somebody_else(self._place(ref))
        if "DeletedDate" in secret:
            raise SecretDenied(
                f"{self._place(ref)} is scheduled for deletion: restore it (`aws secretsmanager restore-secret`), or "
                "wait until it is gone"
            )
        return True

    async def _unstage(self, ref: SecretRef, secret: Mapping[str, Any], rest: Rest) -> None:
        """Take every stage from the version, so that AWS may drop it. The current one goes to the active version."""
        token, stages = version_id(ref), secret.get("VersionIdsToStages") or {}
        if _CURRENT in stages.get(token, ()):
            if rest.active is None or version_id(rest.active) not in stages:
                return  # AWS wants a current version
            await self._move(ref, _CURRENT, RemoveFromVersionId=token, MoveToVersionId=version_id(rest.active))
            stages = (await self._call("describe_secret", SecretId=self._name(ref))).get("VersionIdsToStages") or {}
        for stage in stages.get(token, ()):
            await self._move(ref, stage, RemoveFromVersionId=token)

    async def _move(self, ref: SecretRef, stage: str, **how: str) -> None:
        await self._call("update_secret_version_stage", SecretId=self._name(ref), VersionStage=stage, **how)

    async def _call(self, operation: str, **arguments: Any) -> Mapping[str, Any]:
        """Call AWS. Raises `ClientError` for an answer that refuses, `SecretDenied` and `SecretUnavailable`."""
        try:
            with answered():
                return await self._client.ask(operation, **arguments)
        except ConfigError as error:  # at a start it is one
            raise SecretDenied(str(error)) from None

    def _name(self, ref: SecretRef) -> str:
        return f"{self._prefix}/{ref.tenant}/{ref.name}"

    def _place(self, ref: SecretRef) -> str:
        return f"the secret {self._name(ref)} (version {ref.version}) in AWS Secrets Manager of {self._access.region}"


def version_id(ref: SecretRef) -> str:
    """Return the id of the version at AWS, which is also the token of the request that writes it."""
    return str(uuid.uuid5(_NAMESPACE, f"{ref.tenant}:{ref.name}:{ref.version}"))


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _belongs_to(secret: Mapping[str, Any], owner: str) -> bool:
    return {"Key": LABEL, "Value": owner} in (secret.get("Tags") or [])
