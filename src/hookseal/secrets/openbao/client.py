"""A client of OpenBao: logging in, asking, and what its answers mean."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import aiohttp
import msgspec
from yarl import URL

from hookseal.errors import Cause, Defect, SecretDenied, SecretError, SecretNotFound, SecretUnavailable, with_advice
from hookseal.ground.clock import Clock, SystemClock
from hookseal.ground.log import logger
from hookseal.ground.tls import verifying_context
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.openbao.server import AppRole, OpenBaoServer

_OK: Final = frozenset({200, 204})
_REDIRECTS: Final = frozenset({301, 302, 307, 308})
_DENIED: Final = frozenset({401, 403})
_NOT_FOUND: Final = 404
_BEHIND: Final = 412
_TOO_MANY: Final = 429
_TRANSIENT: Final = frozenset({408, _BEHIND, _TOO_MANY})
_SERVER_ERROR: Final = 500
_UNMOUNTED: Final = ("no handler for route", "unsupported path")  # nothing, or an engine without such paths


class Absence(StrEnum):
    """Why OpenBao cannot answer at the moment, and who must do what."""

    UNREACHABLE = "OpenBao at {address} does not answer"
    UNTRUSTED = (
        "OpenBao at {address} does not prove by TLS that it is the right server: check BAO_ADDR, BAO_CACERT and the "
        "clock of this machine"
    )
    SEALED = "OpenBao at {address} is sealed: unseal it (`bao operator unseal`, by the holders of its unseal keys)"
    STANDBY = (
        "OpenBao at {address} is a standby that does not forward requests: set BAO_ADDR to the active server or to a "
        "load balancer"
    )
    BEHIND = "OpenBao at {address} has not caught up with its active server: wait, or look into its replication"
    BUSY = (
        "OpenBao at {address} limits requests: its administrator must raise the rate limit quota that is reached "
        "(`bao list sys/quotas/rate-limit`), or hookseal must ask less often (SECRETS_CACHE_TTL_SECONDS)"
    )
    FAILING = "OpenBao at {address} fails or gives answers that cannot be read: look into its log"
    DOWN = "what is before OpenBao at {address} answers {status}: OpenBao is down or sealed, or no server is behind it"
    FOREIGN = (
        "what answers at {address} is not OpenBao: correct BAO_ADDR, or what is between, such as a proxy or a load "
        "balancer"
    )


_CAPABILITIES: Final = {"GET": "read", "POST": "create, update", "PUT": "create, update", "DELETE": "delete"}
_CAUSES: Final = {
    Absence.UNREACHABLE: Cause.SILENT,
    Absence.SEALED: Cause.SEALED,
    Absence.BUSY: Cause.THROTTLED,
    Absence.FOREIGN: Cause.FOREIGN,
    Absence.UNTRUSTED: Cause.FOREIGN,
}


class OpenBaoUnavailable(SecretUnavailable):
    """OpenBao cannot answer at the moment; `absence` says why. A retry may succeed."""

    code = "openbao_unavailable"

    def __init__(self, address: str, absence: Absence, *, status: int | None = None) -> None:
        super().__init__(absence.format(address=address, status=status), cause=_CAUSES.get(absence, Cause.FAILING))
        self.absence = absence


class OpenBaoDenied(SecretDenied):
    """OpenBao refuses the token, or the policies of the token do not permit the request."""

    code = "openbao_denied"


class OpenBaoNotFound(SecretNotFound):
    """There is nothing at this path. `data` has what the answer says about it: of a deleted version, its metadata.

    `is_mounted` says whether there is an engine that serves the path.
    """

    code = "openbao_not_found"

    def __init__(self, message: str, data: Mapping[str, Any], *, is_mounted: bool) -> None:
        super().__init__(message)
        self.data = data
        self.is_mounted = is_mounted


class OpenBaoRefused(SecretError):
    """OpenBao refuses the content of the request. `reasons` are its words: compare them, but do not show them."""

    code = "openbao_refused"

    def __init__(self, message: str, reasons: tuple[str, ...]) -> None:
        super().__init__(message)
        self.reasons = reasons


def content(status: int, body: bytes, *, address: str, path: str, method: str = "GET") -> Mapping[str, Any]:
    """Return the JSON object of a successful answer to that request, which is empty for an answer without a body.

    Raises `OpenBaoDenied`, `OpenBaoNotFound`, `OpenBaoRefused` or `OpenBaoUnavailable`. No message contains anything
    that the server wrote.
    """
    if status in _REDIRECTS:
        raise OpenBaoUnavailable(address, Absence.STANDBY)
    value = _object(body)
    if value is None:  # every answer of OpenBao is a JSON object, or empty
        is_down = status >= _SERVER_ERROR  # as a load balancer answers for a server that is sealed or away
        raise OpenBaoUnavailable(address, Absence.DOWN if is_down else Absence.FOREIGN, status=status)
    if status in _OK:
        return value
    reasons = _reasons(value)
    if status in _DENIED:
        raise OpenBaoDenied(
            f"OpenBao at {address} denies this token the request to {path}: give its policy that right "
            f"({_CAPABILITIES.get(method, method)}), or replace the token if it has expired"
        )
    if status == _NOT_FOUND:
        is_mounted = not any(text in reason for reason in reasons for text in _UNMOUNTED)
        raise OpenBaoNotFound(f"OpenBao at {address} has nothing at {path}", part(value, "data"), is_mounted=is_mounted)
    if status in _TRANSIENT or status >= _SERVER_ERROR:
        raise OpenBaoUnavailable(address, _absence(status, reasons))
    raise OpenBaoRefused(f"OpenBao at {address} refuses the content of a request to {path} (status {status})", reasons)


def _absence(status: int, reasons: tuple[str, ...]) -> Absence:
    text = " ".join(reasons).lower()
    if "sealed" in text:
        return Absence.SEALED
    if "not active" in text or "standby" in text:
        return Absence.STANDBY
    return {_TOO_MANY: Absence.BUSY, _BEHIND: Absence.BEHIND}.get(status, Absence.FAILING)


def _object(body: bytes) -> Mapping[str, Any] | None:
    if not body:
        return {}
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _reasons(value: Mapping[str, Any]) -> tuple[str, ...]:
    errors = value.get("errors")
    return tuple(each for each in errors if isinstance(each, str)) if isinstance(errors, list) else ()


def part(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the object of that name in an answer; an empty one if there is none."""
    inner = value.get(name)
    return inner if isinstance(inner, dict) else {}


LOGIN_SECONDS: Final = 10.0  # if we stop waiting, a secret id with one use is spent for nothing

_RENEW_AFTER: Final = 2 / 3  # of its time to live
_RETRY_AFTER: Final = 1 / 3  # of what is left, if that failed
_RETRY_SECONDS: Final = (1.0, 3_600.0)  # the least and the most
_INVALID_SECONDS: Final = 900.0  # until a secret id that is not valid is sent again; it counts towards the lock
_DENIED_SECONDS: Final = 60.0  # until one that was denied, perhaps because the role is locked
_NO_LOGIN_SECONDS: Final = 60.0  # after a denial that a login did not help against
_NOT_GRANTED: Final = (OpenBaoDenied, OpenBaoNotFound, OpenBaoRefused)

# Sends one request with this token, or with none, and returns the content of the answer.
Send = Callable[[str, str, Mapping[str, object] | None, SecretMaterial | None], Awaitable[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Token:
    """A token that lives for `seconds` from when it was given or renewed; None: it has no end that is known."""

    value: SecretMaterial = field(repr=False)
    seconds: float | None = None
    ends_at: float | None = None
    is_renewable: bool = False
    renew_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Refusal:
    """A login that was refused, and until when it is not repeated with this secret id."""

    secret_id: SecretMaterial = field(repr=False)
    at: float
    until: float


class Login:
    """Gives the token for each request; one login or renewal at a time.

    A caller waits at most `seconds` for a login, which goes on if it takes longer.
    """

    def __init__(self, server: OpenBaoServer, send: Send, *, clock: Clock, seconds: float) -> None:
        self._server = server
        self._credentials = server.credentials
        self._send = send
        self._clock = clock
        self._seconds = seconds
        self._lock = asyncio.Lock()
        self._changed = asyncio.Event()
        self._token: _Token | None = None
        self._login: asyncio.Task[_Token] | None = None
        self._refusal: _Refusal | None = None
        self._no_login_until = 0.0
        self._log: Any = logger()

    async def token(self) -> SecretMaterial:
        """Return a token, after a try to renew it if two thirds of its time have passed.

        Raises `OpenBaoDenied` if a first login is refused, and `SecretUnavailable`.
        """
        async with self._lock:
            if self._token is None:
                return self._taken(await self._begun())
            if self._token.renew_at is not None and self._clock.monotonic() >= self._token.renew_at:
                await self._prolong(self._token)
            return self._token.value

    async def replaced(self, refused: SecretMaterial) -> SecretMaterial | None:
        """Return another token after this one was refused; None if there is no other, or OpenBao accepts this one.

        None also if a login is useless now (see `denied_again`). Raises `OpenBaoDenied` if a login is refused, and
        `SecretUnavailable`, also if a file cannot be read.
        """
        if not isinstance(self._credentials, AppRole) and self._server.read_again is None:
            return None
        async with self._lock:
            if self._token is not None and self._token.value != refused:
                return self._token.value
            if await self._accepted(refused) is not None:
                return None
            if isinstance(self._credentials, AppRole):
                if self._clock.monotonic() < self._no_login_until:
                    return None
                return self._taken(await self._logged_in())
            value = await self._read(self._credentials)
            return None if value == refused else self._taken(await self._adopted(value))

    def denied_again(self) -> None:
        """Make no login because of a denial for 60 s, as another token was denied too: the policy lacks the right.

        Without the right to `auth/token/lookup-self` that looks like a token that has ended.
        """
        self._no_login_until = self._clock.monotonic() + _NO_LOGIN_SECONDS

    async def keep(self) -> None:
        """Renew the token before it ends, also while there are no requests, until this is cancelled."""
        while True:
            self._changed.clear()
            renew_at = None if self._token is None else self._token.renew_at
            wait = None if renew_at is None else max(0.0, renew_at - self._clock.monotonic())
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._changed.wait()
                continue
            with suppress(SecretError, SecretUnavailable):
                await self.token()

    async def close(self) -> None:
        """End a login that nobody waits for."""
        if self._login is not None:
            self._login.cancel()
            await asyncio.gather(self._login, return_exceptions=True)

    def _taken(self, token: _Token) -> SecretMaterial:
        self._token = token
        self._changed.set()
        return token.value

    async def _begun(self) -> _Token:
        if isinstance(self._credentials, AppRole):
            return await self._logged_in()
        return await self._adopted(await self._read(self._credentials))

    async def _adopted(self, value: SecretMaterial) -> _Token:
        return await self._accepted(value) or _Token(value=value)  # it may lack the right to a lookup, and have others

    async def _accepted(self, value: SecretMaterial) -> _Token | None:
        """Return the token with the time that it has; None if OpenBao refuses it, or its right to a lookup."""
        try:
            answer = await self._send("GET", "auth/token/lookup-self", None, value)
        except _NOT_GRANTED:
            return None
        data = part(answer, "data")
        return self._living(value, data.get("ttl"), is_renewable=data.get("renewable") is True)

    async def _prolong(self, old: _Token) -> None:
        """Renew the token or take another one; if neither is possible, keep it until OpenBao refuses it."""
        try:
            self._taken(await self._renewed(old))
        except (SecretError, SecretUnavailable) as error:
            seconds_left = (old.ends_at or 0.0) - self._clock.monotonic()
            again = self._clock.monotonic() + min(
                max(seconds_left * _RETRY_AFTER, _RETRY_SECONDS[0]), _RETRY_SECONDS[1]
            )
            self._taken(
                _Token(
                    value=old.value,
                    seconds=old.seconds,
                    ends_at=old.ends_at,
                    is_renewable=old.is_renewable,
                    renew_at=again if seconds_left > 0 else None,
                )
            )
            self._warn(error, seconds_left)

    async def _renewed(self, old: _Token) -> _Token:
        if not isinstance(self._credentials, AppRole):
            return await self._token_of_file(old)
        renewed = await self._extended(old)
        if renewed is not None and not _is_shorter(renewed, old):
            return renewed
        try:  # the token is at the end of its longest time
            return await self._logged_in()
        except (SecretError, SecretUnavailable) as error:
            if renewed is None:
                raise
            self._warn(error, renewed.seconds or 0.0)
            return renewed

    async def _token_of_file(self, old: _Token) -> _Token:
        """Return the token that the file has now, if OpenBao accepts it; else the old one with a new time to live."""
        problem: SecretUnavailable | OpenBaoDenied | None = None
        value = old.value
        try:
            value = await self._read(old.value)
        except SecretUnavailable as error:
            problem = error
        if value != old.value:
            accepted = await self._accepted(value)
            if accepted is not None:
                return accepted
            problem = OpenBaoDenied(
                f"OpenBao at {self._server.address} refuses the token that the file has now (auth/token/lookup-self): "
                "write another one; the one before is used while OpenBao accepts it"
            )
        renewed = await self._extended(old)
        if problem is None and renewed is not None and not _is_shorter(renewed, old):
            return renewed
        problem = problem or OpenBaoDenied(
            f"OpenBao at {self._server.address} does not renew the token for its whole time, because it is not "
            "renewable or near its longest time: replace it"
        )
        if renewed is None:
            raise problem
        self._warn(problem, renewed.seconds or 0.0)
        return renewed

    async def _extended(self, old: _Token) -> _Token | None:
        """Return the token with a new time to live; None if OpenBao does not renew it."""
        if not old.is_renewable:
            return None
        try:
            auth = part(await self._send("POST", "auth/token/renew-self", {}, old.value), "auth")
        except _NOT_GRANTED:
            return None
        renewed = self._living(old.value, auth.get("lease_duration"), is_renewable=True)
        return None if renewed.ends_at is None and old.ends_at is not None else renewed  # 0 s: it has reached its end

    async def _logged_in(self) -> _Token:
        """Wait for the login, which goes on if this is cancelled, or ends before it: its token is taken later."""
        if self._login is None:
            self._login = asyncio.create_task(self._logging_in())
        try:
            async with asyncio.timeout(self._seconds):
                return await asyncio.shield(self._login)
        except TimeoutError:
            raise OpenBaoUnavailable(self._server.address, Absence.UNREACHABLE) from None
        finally:
            if self._login.done():
                self._login = None

    async def _logging_in(self) -> _Token:
        role = self._credentials
        assert isinstance(role, AppRole)  # noqa: S101 -- the callers have asked
        secret_id = await self._read(role.secret_id)
        last, now = self._refusal, self._clock.monotonic()
        if last is not None and last.secret_id == secret_id and now < last.until:
            raise _login_refused(
                f"; this secret id was refused {now - last.at:.0f} s ago, and is sent again in "
                f"{last.until - now:.0f} s: restart to send it now"
            )
        body = {"role_id": role.role_id, "secret_id": secret_id.reveal().decode()}
        wait = 0.0
        answer: Mapping[str, Any] = {}
        try:
            answer = await self._send("POST", "auth/approle/login", body, None)
        except OpenBaoRefused:
            wait = _INVALID_SECONDS
        except OpenBaoDenied:
            wait = _DENIED_SECONDS
        except OpenBaoNotFound:
            pass
        auth = part(answer, "auth")
        token = auth.get("client_token")
        if not isinstance(token, str) or not token:
            now = self._clock.monotonic()
            self._refusal = _Refusal(secret_id=secret_id, at=now, until=now + wait)
            raise _login_refused()
        self._refusal = None
        return self._living(
            SecretMaterial(token.encode()), auth.get("lease_duration"), is_renewable=auth.get("renewable") is True
        )

    def _warn(self, error: Exception, seconds_left: float) -> None:
        self._log.warning(
            "openbao.token_ends", reason=with_advice(error), ends_in_seconds=round(max(seconds_left, 0.0))
        )

    async def _read(self, known: SecretMaterial) -> SecretMaterial:
        """Return what the file of the credential has now, or the known value without one."""
        if self._server.read_again is None:
            return known
        return await asyncio.to_thread(self._server.read_again)

    def _living(self, value: SecretMaterial, seconds: object, *, is_renewable: bool) -> _Token:
        """Return a token that lives for so many seconds from now; 0 is without end."""
        if not isinstance(seconds, int) or seconds <= 0:
            return _Token(value=value, is_renewable=is_renewable)
        now = self._clock.monotonic()
        can_change = is_renewable or isinstance(self._credentials, AppRole) or self._server.read_again is not None
        return _Token(
            value=value,
            seconds=seconds,
            ends_at=now + seconds,
            is_renewable=is_renewable,
            renew_at=now + seconds * _RENEW_AFTER if can_change else None,
        )


def _is_shorter(renewed: _Token, old: _Token) -> bool:
    return (renewed.seconds or 0.0) < (old.seconds or 0.0)


def _login_refused(remembered: str = "") -> OpenBaoDenied:
    return OpenBaoDenied(
        "OpenBao refuses the login by AppRole: enable it (`bao auth enable approle`), check BAO_ROLE_ID, and replace "
        "BAO_SECRET_ID if it has expired or has no use left; after five refused logins OpenBao locks the role for 15 "
        f"minutes{remembered}"
    )


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
