"""A small HTTP client of OpenBao, or of Vault, which has the same interface."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
import msgspec
from yarl import URL

from hookseal.ground.clock import Clock, SystemClock
from hookseal.ground.errors import Defect
from hookseal.ground.tls import verifying_context
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.openbao.answers import Absence, OpenBaoDenied, OpenBaoUnavailable, content
from hookseal.secrets.openbao.login import LOGIN_SECONDS, Login
from hookseal.secrets.openbao.server import OpenBaoServer

_SECONDS: Final = 2.0
_MAX_BYTES: Final = 1_048_576
_SYSTEM_CLOCK: Final = SystemClock()


class OpenBao:
    """One client: it keeps its connections and its token."""

    def __init__(
        self, server: OpenBaoServer, session: aiohttp.ClientSession, *, clock: Clock, seconds: float = _SECONDS
    ) -> None:
        self._server = server
        self._session = session
        self._seconds = seconds
        self._login = Login(server, self._send, clock=clock, seconds=seconds)

    async def request(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Mapping[str, Any]:
        """Send one request to `/v1/{path}` and return the JSON object of the answer.

        `path` has no leading slash; a character that has a meaning in URLs is part of a name. If the token is refused,
        and OpenBao accepts it for nothing else either, the client logs in by AppRole again or reads the file of the
        token again, and repeats the request once. If that is denied too, no denial leads to a login for 60 seconds.
        Nothing else is repeated. Raises `SecretUnavailable`, which may succeed later, and `OpenBaoDenied`,
        `OpenBaoNotFound` or `OpenBaoRefused`.
        """
        if {"", ".", ".."}.intersection(path.split("/")):
            raise Defect("a path of OpenBao has a part that would lead to another path")
        token = await self._login.token()
        try:
            return await self._send(method, path, body, token)
        except OpenBaoDenied as denial:
            try:
                other = await self._login.replaced(token)
            except OpenBaoDenied as refusal:  # the token may be valid, and only its policy lack the right
                raise OpenBaoDenied(f"{denial}; {refusal}") from None
            if other is None:
                raise
        try:
            return await self._send(method, path, body, other)
        except OpenBaoDenied:
            self._login.denied_again()
            raise

    async def keep_token(self) -> None:
        """Renew the token before it ends, also while there are no requests, until this is cancelled."""
        await self._login.keep()

    async def close(self) -> None:
        """End what still runs."""
        await self._login.close()

    async def _send(
        self, method: str, path: str, body: Mapping[str, object] | None, token: SecretMaterial | None
    ) -> Mapping[str, Any]:
        headers = {"X-Vault-Request": "true", "Content-Type": "application/json"}
        if self._server.namespace is not None:
            headers["X-Vault-Namespace"] = self._server.namespace
        if token is not None:
            headers["X-Vault-Token"] = token.reveal().decode()
        seconds = max(self._seconds, LOGIN_SECONDS) if token is None else self._seconds
        try:
            async with self._session.request(
                method,
                URL(self._server.address).joinpath("v1", *path.split("/")),
                data=None if body is None else msgspec.json.encode(body),
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=seconds),
                allow_redirects=False,  # the token is for this address only
            ) as answer:
                status, raw = answer.status, await _read(answer)
        except aiohttp.ClientSSLError:
            raise OpenBaoUnavailable(self._server.address, Absence.UNTRUSTED) from None
        except aiohttp.ClientResponseError:  # it is not HTTP
            raise OpenBaoUnavailable(self._server.address, Absence.FOREIGN) from None
        except (aiohttp.ClientError, OSError, asyncio.IncompleteReadError, ValueError):
            # Without the error of the library, whose text may have parts of a header.
            raise OpenBaoUnavailable(self._server.address, Absence.UNREACHABLE) from None
        if raw is None:
            raise OpenBaoUnavailable(self._server.address, Absence.FAILING)
        return content(status, raw, address=self._server.address, path=path, method=method)


@asynccontextmanager
async def opened(
    server: OpenBaoServer, *, seconds: float = _SECONDS, clock: Clock = _SYSTEM_CLOCK, keeps_token: bool = False
) -> AsyncIterator[OpenBao]:
    """Give a client whose requests end within so many seconds each; its connections are closed with the block.

    It connects when it is first used. With `keeps_token` it renews its token also while there are no requests, for
    which `clock` must be that of the event loop. Raises `ssl.SSLError` or `ValueError` if the authorities are not PEM.
    """
    context = verifying_context(server.authorities)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=context),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
    ) as session:
        client = OpenBao(server, session, clock=clock, seconds=seconds)
        keeping = asyncio.create_task(client.keep_token()) if keeps_token else None
        try:
            yield client
        finally:
            if keeping is not None:
                keeping.cancel()
                await asyncio.gather(keeping, return_exceptions=True)
            await client.close()


async def _read(answer: aiohttp.ClientResponse) -> bytes | None:
    """Return the body of the answer; None if it is too long."""
    raw = b""
    async for piece in answer.content.iter_any():
        raw += piece
        if len(raw) > _MAX_BYTES:
            return None
    return raw
