"""Puts rings into the arq queue, without arq and through any version of the Redis client from 5.0.1 to 8."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from itertools import islice
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from redis.asyncio import Redis
from redis.asyncio.connection import ConnectionPool
from redis.credentials import CredentialProvider
from redis.exceptions import AuthenticationError, NoScriptError, RedisError, ResponseError

from hookseal.dispatcher.core.model import Ring
from hookseal.errors import Unavailable
from hookseal.ground.clock import SystemClock
from hookseal.queue.direct import Direct
from hookseal.queue.serializer import job_serializer


@contextmanager
def translate_redis_errors(*, address: str | None = None, variable: str = "REDIS_URL") -> Iterator[None]:
    """Translate errors of the Redis client into `Unavailable`. With an address it names the variable to correct."""
    place = "Redis" if address is None else f"Redis at {address}"
    try:
        yield
    except AuthenticationError:
        raise Unavailable(f"{place} refuses the user or the password: correct {variable}") from None
    except ResponseError as error:  # Redis is full, a replica, or has another type at the key
        raise Unavailable(f"{place} refuses the command ({_code(error)})") from None
    except (RedisError, OSError, TimeoutError) as error:
        advice = "" if address is None else f": start it or correct {variable}"
        raise Unavailable(f"{place} does not answer ({type(error).__name__}){advice}") from None


def _code(error: ResponseError) -> str:
    """Return the code of a Redis error, its first word, or else the name of its class; never more of its text."""
    word = str(error).partition(" ")[0]
    return word if word.isalpha() and word.isupper() else type(error).__name__


Url: TypeAlias = str | Callable[[], str]
FUNCTION: Final = "deliver"
DEFAULT_QUEUE: Final = "hookseal:deliveries"
ANSWER_SECONDS: Final = 5.0
# A ring is due now. An arq worker compares the time of a ring with its own clock, which may be wrong by hours or years:
# so the time is set ten years earlier. The times still differ, so that the earliest ring is taken first.
MARGIN_MS: Final = 10 * 365 * 86_400_000
EXPIRES_MS: Final = 3_600_000  # a ring that no worker took for an hour may be removed: the sweep rings again
BACKLOGGED_MS: Final = 10_000  # by which rings of a tenant of which more is due stand behind others
_CHUNK: Final = 1_000  # rings in one script: as many as events in one call, and a few milliseconds in Redis
_CLOCK: Final = SystemClock()

_RING: Final = files("hookseal.queue").joinpath("ring.lua").read_text(encoding="utf-8")


class Rings:
    """Rings one queue in one Redis."""

    def __init__(self, redis: Redis, queue: str) -> None:
        """Use this client of Redis, which `close` closes."""
        self._client = redis
        self.queue = queue
        self.bell_key = bell_key(queue)
        self._ring = redis.register_script(_RING)
        self._direct = Direct(redis.connection_pool)

    async def ring(self, rings: Iterable[Ring], *, backlogged: Collection[str] = ()) -> int:
        """Put every ring into the queue, due now, and return how many. A thousand rings take one round trip.

        The rings of each tenant are due one millisecond after each other, so that those of another tenant, also if they
        are rung a little later, are taken in between. The rings of a `backlogged` tenant stand ten seconds later: what
        is rung for other tenants in that time is taken before them. A ring that is queued for later already is then due
        now. Raises `Unavailable`: rings that were put into the queue before the error remain there.
        """
        remaining = iter(rings)
        count, due_ms = 0, None
        turns: Counter[str] = Counter(dict.fromkeys(backlogged, BACKLOGGED_MS))
        with translate_redis_errors():
            while chunk := tuple(islice(remaining, _CHUNK)):
                due_ms = await self._put(chunk, due_ms, turns)
                count += len(chunk)
        return count

    async def close(self) -> None:
        """Close every connection."""
        try:
            await self._direct.close()
        finally:
            await self._client.aclose(close_connection_pool=True)

    async def _put(self, rings: Sequence[Ring], due_ms: int | None, turns: Counter[str]) -> int:
        arguments: list[str | bytes | int] = [EXPIRES_MS, MARGIN_MS, "" if due_ms is None else due_ms]
        now_ms = int(_CLOCK.now().timestamp() * 1000)  # in every arq job; the time when it is due is that of Redis
        for ring in rings:
            arguments += (ring.delivery_id, job(ring, now_ms), turns[ring.tenant_id])
            turns[ring.tenant_id] += 1
        return int(await self._run(arguments))

    async def _run(self, arguments: Sequence[str | bytes | int]) -> Any:
        keys, script = [self.queue, self.bell_key], self._ring
        answer: Any = None
        for how in (("EVALSHA", script.sha), ("EVAL", script.script)):  # the whole script if Redis does not have it
            [answer] = await self._direct.send(
                [*how, len(keys), *keys, *arguments], is_answer=lambda answer: isinstance(answer, int)
            )
            if not isinstance(answer, NoScriptError):
                break
        if isinstance(answer, ResponseError):
            raise answer
        return answer


def bell_key(queue: str) -> str:
    """Return the key that wakes a worker when it gets a member. The member has no meaning."""
    return f"{queue}:bell"


def job(ring: Ring, now_ms: int) -> bytes:
    """Return the job that arq would make for this ring."""
    called_with = (ring.tenant_id, ring.endpoint_id, ring.delivery_id)
    return job_serializer({"t": None, "f": FUNCTION, "a": called_with, "k": {}, "et": now_ms})


def rings(url: Url, queue: str = DEFAULT_QUEUE) -> Rings:
    """Return what rings, and connects at its first use. The caller must limit the time of each ring, and close it.

    With a limit of its own the Redis client would send each command in a task, a turn of the event loop later.
    """
    return Rings(Redis(connection_pool=pool(url, None)), queue)


def pool(url: Url, answer_seconds: float | None, **options: Any) -> ConnectionPool:
    """Return a pool that waits that long for a connection, and for each answer; None means without a limit.

    `url` may be a function: for each connection it is asked for the user and the password. The rest stays as it was
    first. Its parameters do not replace what is set here: `config.urls` ignores them by name, and refuses others that
    the client would not take.
    """
    first = url() if callable(url) else url
    if callable(url) and any(_login(first)):
        options |= {"credential_provider": _Login(url), "username": None, "password": None}
        place = urlsplit(first).netloc
        first = first.replace(f"//{place}", f"//{place.rpartition('@')[2]}", 1)  # `geturl` would leave out empty `//`
    options |= {
        "socket_timeout": answer_seconds,
        "socket_connect_timeout": answer_seconds,
        "health_check_interval": 15,
        "decode_responses": False,
        "encoding": "utf-8",
        "encoding_errors": "strict",
        "protocol": 2,  # what each version of the client speaks in the same way; redis 8 would choose 3
    }
    if not first.startswith("unix:"):  # whose connections the client refuses to make with it
        options["socket_keepalive"] = True
    return ConnectionPool.from_url(_without(first, {*options, "socket_keepalive"}), **options)


def _without(url: str, names: Collection[str]) -> str:
    """Return the url without these parameters, which the client would prefer to its arguments."""
    place, _, query = url.partition("?")
    others = [(name, value) for name, value in parse_qsl(query) if name not in names]
    return f"{place}?{urlencode(others, quote_via=quote)}"


class _Login(CredentialProvider):
    """The user and the password of a url that may change."""

    def __init__(self, url: Callable[[], str]) -> None:
        self._url = url

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        return self.get_credentials()

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Return them as they are now; without a user only the password."""
        user, password = _login(self._url())
        return (user, password) if user else (password,)


def _login(url: str) -> tuple[str, str]:
    """Return the user and the password of the url, where the client finds them; "" for one that it does not have."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    user, password = parts.username or query.get("username", ""), parts.password or query.get("password", "")
    return unquote(user), unquote(password)
