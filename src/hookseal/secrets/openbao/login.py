"""The token of a client of OpenBao: given, or from a login by AppRole, and renewed before it expires."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from hookseal.ground.clock import Clock
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.openbao.answers import OpenBaoDenied, OpenBaoNotFound, OpenBaoRefused, part
from hookseal.secrets.openbao.server import AppRole

_RENEW_AFTER: Final = 2 / 3  # of its time to live
_RETRY_SECONDS: Final = 10.0  # until the next try to renew a token that is still valid

# Sends one request with this token, or with none, and returns the content of the answer.
Send = Callable[[str, str, Mapping[str, object] | None, SecretMaterial | None], Awaitable[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Token:
    value: SecretMaterial = field(repr=False)
    renew_at: float | None  # None: it has no end, or cannot be renewed


class Login:
    """Gives the token for each request; one login or renewal at a time."""

    def __init__(self, credentials: SecretMaterial | AppRole, send: Send, *, clock: Clock) -> None:
        self._credentials = credentials
        self._send = send
        self._clock = clock
        self._lock = asyncio.Lock()
        self._token: _Token | None = None

    async def token(self) -> SecretMaterial:
        """Return a token, which was renewed if two thirds of its time have passed.

        Raises `OpenBaoDenied` if a login is refused, and `OpenBaoUnavailable`.
        """
        async with self._lock:
            if self._token is None:
                self._token = await self._begun()
            elif self._token.renew_at is not None and self._clock.monotonic() >= self._token.renew_at:
                self._token = await self._renewed(self._token)
            return self._token.value

    async def replaced(self, refused: SecretMaterial) -> SecretMaterial | None:
        """Return another token after this one was refused; None if there is no other."""
        if not isinstance(self._credentials, AppRole):
            return None
        async with self._lock:
            if self._token is None or self._token.value == refused:
                self._token = await self._begun()
            return self._token.value

    async def _begun(self) -> _Token:
        if isinstance(self._credentials, AppRole):
            return await self._logged_in(self._credentials)
        try:
            found = await self._send("GET", "auth/token/lookup-self", None, self._credentials)
        except (OpenBaoDenied, OpenBaoNotFound, OpenBaoRefused):  # a token may lack this right and have all others
            return _Token(value=self._credentials, renew_at=None)
        data = part(found, "data")
        return _Token(
            value=self._credentials, renew_at=self._renew_at(data.get("ttl")) if data.get("renewable") else None
        )

    async def _logged_in(self, role: AppRole) -> _Token:
        body = {"role_id": role.role_id, "secret_id": role.secret_id.reveal().decode()}
        try:
            found = await self._send("POST", "auth/approle/login", body, None)
        except (OpenBaoDenied, OpenBaoRefused, OpenBaoNotFound):
            found = {}
        auth = part(found, "auth")
        token = auth.get("client_token")
        if not isinstance(token, str) or not token:
            raise OpenBaoDenied(
                "OpenBao refuses the login by AppRole: enable it (`bao auth enable approle`), check BAO_ROLE_ID, and "
                "replace BAO_SECRET_ID if it has expired"
            )
        return _Token(value=SecretMaterial(token.encode()), renew_at=self._renew_at(auth.get("lease_duration")))

    async def _renewed(self, token: _Token) -> _Token:
        if isinstance(self._credentials, AppRole):
            return await self._logged_in(self._credentials)
        try:
            found = await self._send("POST", "auth/token/renew-self", {}, token.value)
        except (OpenBaoDenied, OpenBaoNotFound, OpenBaoRefused):  # it is used until it expires
            return _Token(value=token.value, renew_at=self._clock.monotonic() + _RETRY_SECONDS)
        return _Token(value=token.value, renew_at=self._renew_at(part(found, "auth").get("lease_duration")))

    def _renew_at(self, seconds: object) -> float | None:
        """Return when to renew a token that lives for so many seconds; 0 is without end."""
        if not isinstance(seconds, int) or seconds <= 0:
            return None
        return self._clock.monotonic() + seconds * _RENEW_AFTER
