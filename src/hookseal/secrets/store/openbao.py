"""OpenBao, or Vault: each version is a secret of its own in the engine KV, version 2, written once by check-and-set."""

import base64
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, Final

from hookseal.errors import Defect, SecretDenied, SecretNotFound, SecretTampered
from hookseal.secrets.core.ref import Provider, SecretRef
from hookseal.secrets.openbao.client import OpenBao, OpenBaoNotFound, OpenBaoRefused, opened, part
from hookseal.secrets.store.port import (
    CALL_SECONDS,
    NumberTaken,
    OpenBaoAccess,
    Rest,
    another_version,
    gone,
    of_somebody_else,
)

_FIRST: Final = 1  # the only version that a path of ours has


class OpenBaoApi:
    """The engine KV version 2 that is mounted at `mount`. It connects when it is first used."""

    provider: Final = Provider.OPENBAO

    def __init__(self, access: OpenBaoAccess, *, prefix: str, seconds: float = CALL_SECONDS) -> None:
        self.seconds: Final = seconds
        self._server = access.server
        self._mount = access.mount
        self._prefix = prefix
        self._stack = AsyncExitStack()
        self._client: OpenBao | None = None

    async def prepare(self) -> None:
        """Open the client; it connects with the first call."""
        if self._client is None:
            self._client = await self._stack.enter_async_context(
                opened(self._server, seconds=self.seconds, keeps_token=True)
            )

    async def write(self, ref: SecretRef, payload: bytes, *, owner: str, is_first: bool) -> None:  # noqa: ARG002 -- a path has one version
        """Keep the bytes under the version (see `ProviderApi`)."""
        content = {"value": base64.b64encode(payload).decode(), "owner": owner}
        try:
            answer = await self._request("POST", "data", ref, {"options": {"cas": 0}, "data": content})
        except OpenBaoRefused as error:
            if not any("check-and-set" in reason for reason in error.reasons):
                raise
            await self._require_same(ref, content)
        else:
            if "version" not in part(answer, "data"):
                raise self._no_engine()

    async def read(self, ref: SecretRef) -> bytes:
        """Return the bytes of the version (see `ProviderApi`)."""
        content = await self._read(ref)
        try:
            return base64.b64decode(content["value"], validate=True)
        except (KeyError, TypeError, ValueError):
            raise SecretTampered(
                f"{self._place(ref)} has another form than hookseal writes: find out who changed it, and restore it"
            ) from None

    async def remove(self, ref: SecretRef, rest: Rest, *, owner: str) -> None:  # noqa: ARG002 -- a path has one version
        """Remove the version, with all that OpenBao knows of it (see `ProviderApi`)."""
        try:
            content = await self._read(ref)
        except SecretNotFound:
            return
        if content.get("owner") == owner:
            await self._request("DELETE", "metadata", ref)

    async def close(self) -> None:
        """Close all connections."""
        await self._stack.aclose()

    async def _require_same(self, ref: SecretRef, content: Mapping[str, str]) -> None:
        try:
            stored = await self._read(ref)
        except SecretNotFound:  # somebody deleted it: its number is used up
            raise NumberTaken from None
        if stored.get("owner") != content["owner"]:
            raise of_somebody_else(self._place(ref))
        if stored.get("value") != content["value"]:
            raise NumberTaken

    async def _read(self, ref: SecretRef) -> Mapping[str, Any]:
        try:
            answer = part(await self._request("GET", "data", ref), "data")
        except OpenBaoNotFound:
            raise gone(self._place(ref)) from None
        version = part(answer, "metadata").get("version")
        if version is None:
            raise self._no_engine()
        if version != _FIRST:
            raise another_version(self._place(ref))
        return part(answer, "data")

    async def _request(
        self, method: str, what: str, ref: SecretRef, body: Mapping[str, object] | None = None
    ) -> Mapping[str, Any]:
        await self.prepare()
        if self._client is None:
            raise Defect("a client of OpenBao was not opened")
        try:
            return await self._client.request(method, f"{self._mount}/{what}/{self._path(ref)}", body)
        except OpenBaoNotFound as error:
            if error.is_mounted and method == "GET":
                raise
            raise self._no_engine() from None

    def _no_engine(self) -> SecretDenied:
        return SecretDenied(
            f"OpenBao at {self._server.address} has no engine KV, version 2, at {self._mount}: mount one (`bao secrets "
            f"enable -path={self._mount} -version=2 kv`), or correct BAO_MOUNT"
        )

    def _path(self, ref: SecretRef) -> str:
        return f"{self._prefix}/{ref.tenant}/{ref.name}.{ref.version}"  # no version has a dot, so no two refs share it

    def _place(self, ref: SecretRef) -> str:
        return f"OpenBao's secret {self._mount}/{self._path(ref)}"
