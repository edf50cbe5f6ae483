"""A client of AWS Secrets Manager: its credentials, how it repeats, and what its own errors mean."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import Any, Final

from aiobotocore.config import AioConfig
from aiobotocore.credentials import (
    AioAssumeRoleCredentialFetcher,
    AioCredentialResolver,
    AioDeferredRefreshableCredentials,
)
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

from hookseal.ground.errors import Cause
from hookseal.secrets import aws_session
from hookseal.secrets.errors import SecretDenied, SecretUnavailable
from hookseal.secrets.store.access import AwsAccess
from hookseal.secrets.store.aws_errors import not_of_aws
from hookseal.secrets.store.provider_api import no_answer

_ATTEMPTS: Final = 2
_LOGGERS: Final = ("aiobotocore", "botocore")  # at the level of debugging they print what is sent and received
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

    def __init__(self, load: Callable[[], Awaitable[Any]]) -> None:
        self._load = load

    async def load(self) -> Any:
        return await self._load()


@asynccontextmanager
async def opened(access: AwsAccess, *, seconds: float) -> AsyncIterator[Any]:
    """Give a client whose calls, with their repeats, end within about so many seconds.

    Raises `SecretDenied`, and `ConfigError` as `aws_session.client` does.
    """
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(max(logger.getEffectiveLevel(), logging.INFO))
    session = aws_session.session(may_be_plain=access.may_be_plain, seconds=seconds / _ATTEMPTS)
    if access.role_arn is not None:
        role = _RoleProvider(partial(_of_role, access, access.role_arn, seconds / _ATTEMPTS))
        session.register_component("credential_provider", AioCredentialResolver(providers=[role]))
    config = AioConfig(
        connect_timeout=seconds / _ATTEMPTS,
        read_timeout=seconds / _ATTEMPTS,
        retries={"total_max_attempts": _ATTEMPTS, "mode": "standard"},
        user_agent_extra="hookseal",
    )
    async with AsyncExitStack() as stack:
        try:
            client = await aws_session.client(session, "secretsmanager", stack, region=access.region, config=config)
        except ValueError as error:  # an address that is none
            raise _unusable(error) from None
        yield client


async def _of_role(access: AwsAccess, arn: str, seconds: float) -> Any:
    source = aws_session.session(may_be_plain=access.may_be_plain, seconds=seconds)
    credentials = await source.get_credentials()
    if credentials is None:
        raise NoCredentialsError
    fetcher = AioAssumeRoleCredentialFetcher(
        partial(source.create_client, region_name=access.region),
        credentials,
        arn,
        extra_args={"RoleSessionName": "hookseal"},
    )
    return AioDeferredRefreshableCredentials(fetcher.fetch_credentials, "assume-role")
