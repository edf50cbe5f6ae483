"""AWS Secrets Manager: each name is a secret, and each version of ours a version of it.

The id of a version at AWS is derived from the reference, so a repeated write changes nothing and a read is of exactly
one version. Stages move as AWS moves them: a new version is `AWSCURRENT`, the one before `AWSPREVIOUS`.
"""

import asyncio
import uuid
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, Final

from botocore.exceptions import ClientError

from hookseal.ground.errors import ConfigError
from hookseal.secrets.errors import SecretDenied, SecretTampered
from hookseal.secrets.ref import Provider, SecretRef
from hookseal.secrets.store.access import CALL_SECONDS, AwsAccess
from hookseal.secrets.store.aws_client import answered, opened
from hookseal.secrets.store.aws_errors import meaning_of, not_of_aws
from hookseal.secrets.store.provider_api import (
    LABEL,
    NumberTaken,
    Rest,
    another_version,
    gone,
    in_change,
    of_somebody_else,
)

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
        self._stack = AsyncExitStack()
        self._client: Any = None
        self._opening = asyncio.Lock()

    async def prepare(self) -> None:
        """Load the client and find the credentials (see `ProviderApi`)."""
        with answered():
            await self._opened()

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
            found = await self._call("get_secret_value", SecretId=self._name(ref), VersionId=token)
        except ClientError as error:
            if _code(error) in {_NOT_FOUND, _PENDING_DELETION}:
                raise gone(self._place(ref)) from None
            raise meaning_of(error, self._place(ref), "secretsmanager:GetSecretValue") from None
        if "VersionId" not in found:
            raise not_of_aws()
        if found["VersionId"] != token:
            raise another_version(self._place(ref))
        payload = found.get("SecretBinary")
        if not isinstance(payload, bytes):
            raise SecretTampered(f"{self._place(ref)} has another form than hookseal writes: find out who changed it")
        return payload

    async def remove(self, ref: SecretRef, rest: Rest, *, owner: str) -> None:
        """Remove the secret with its last version; of another version only the stages (see `ProviderApi`)."""
        try:
            found = await self._call("describe_secret", SecretId=self._name(ref))
        except ClientError as error:
            if _code(error) == _NOT_FOUND:
                return
            raise meaning_of(error, self._place(ref), "secretsmanager:DescribeSecret") from None
        if not _is_of(found, owner) or "DeletedDate" in found:
            return
        try:
            if not rest.is_needed:
                await self._call("delete_secret", SecretId=self._name(ref), ForceDeleteWithoutRecovery=True)
            else:
                await self._unstage(ref, found, rest)
        except ClientError as error:
            asked = "secretsmanager:DeleteSecret and secretsmanager:UpdateSecretVersionStage"
            raise meaning_of(error, self._place(ref), asked) from None

    async def close(self) -> None:
        """Close all connections."""
        await self._stack.aclose()

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
            found = await self._call("describe_secret", SecretId=self._name(ref))
        except ClientError as error:
            if _code(error) == _NOT_FOUND:
                return False
            raise meaning_of(error, self._place(ref), "secretsmanager:DescribeSecret") from None
        if not _is_of(found, owner):
            raise of_somebody_else(self._place(ref))
        if "DeletedDate" in found:
            raise SecretDenied(
                f"{self._place(ref)} is scheduled for deletion: restore it (`aws secretsmanager restore-secret`), or "
                "wait until it is gone"
            )
        return True

    async def _unstage(self, ref: SecretRef, found: Mapping[str, Any], rest: Rest) -> None:
        """Take every stage from the version, so that AWS may drop it. The current one goes to the active version."""
        token, stages = version_id(ref), found.get("VersionIdsToStages") or {}
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
                answer: Mapping[str, Any] = await getattr(await self._opened(), operation)(**arguments)
        except ConfigError as error:  # at a start it is one
            raise SecretDenied(str(error)) from None
        return answer

    async def _opened(self) -> Any:
        async with self._opening:
            if self._client is None:
                self._client = await self._stack.enter_async_context(opened(self._access, seconds=self.seconds))
            return self._client

    def _name(self, ref: SecretRef) -> str:
        return f"{self._prefix}/{ref.tenant}/{ref.name}"

    def _place(self, ref: SecretRef) -> str:
        return f"the secret {self._name(ref)} (version {ref.version}) in AWS Secrets Manager of {self._access.region}"


def version_id(ref: SecretRef) -> str:
    """Return the id of the version at AWS, which is also the token of the request that writes it."""
    return str(uuid.uuid5(_NAMESPACE, f"{ref.tenant}:{ref.name}:{ref.version}"))


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _is_of(found: Mapping[str, Any], owner: str) -> bool:
    return {"Key": LABEL, "Value": owner} in (found.get("Tags") or [])
