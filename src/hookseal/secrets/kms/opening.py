"""Chooses the KMS of the settings, and loads its client only then."""

from contextlib import AbstractAsyncContextManager
from typing import Final, assert_never

from hookseal.secrets.kms.port import Kms, KmsRefused
from hookseal.secrets.kms.wrapped import KmsKey, KmsKind, KmsSettings

CALL_SECONDS: Final = 3.0


def opened(settings: KmsSettings) -> AbstractAsyncContextManager[Kms]:
    """Give the KMS until the end of the block. Raises `KmsRefused` without its package or its credentials."""
    match settings.key.kind:
        case KmsKind.AWS:
            try:
                from hookseal.secrets.kms import aws  # noqa: PLC0415 -- an extra, which takes a second to load
            except ModuleNotFoundError as error:
                raise _not_installed(settings.key, error) from None
            return aws.opened(settings.key, seconds=CALL_SECONDS, may_be_plain=settings.may_be_plain)
        case KmsKind.GCP:
            try:
                from hookseal.secrets.kms import gcp  # noqa: PLC0415 -- the same
            except ModuleNotFoundError as error:
                raise _not_installed(settings.key, error) from None
            return gcp.opened(settings.key, seconds=CALL_SECONDS, may_be_plain=settings.may_be_plain)
        case KmsKind.OPENBAO:
            from hookseal.secrets.kms import transit  # noqa: PLC0415 -- most commands need no HTTP client

            return transit.opened(settings.key, settings.openbao, seconds=CALL_SECONDS)
        case _:
            assert_never(settings.key.kind)


def _not_installed(key: KmsKey, error: ModuleNotFoundError) -> KmsRefused:
    return KmsRefused(
        f"{key} needs the module {error.name}: install hookseal with the extra {key.kind}, as in "
        f"pip install 'hookseal[{key.kind}]'",
        field="SECRETS_KMS",
    )
