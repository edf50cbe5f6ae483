"""A receiver that verifies, answers as it is told to, and remembers what it got.

It verifies the scheme `standard` with the public `standardwebhooks` library, and `x-webhook`, for which
there is none, with the verifier that hookseal ships.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import assert_never

from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from hookseal.ground.clock import Clock
from hookseal.ground.wire import Scheme
from hookseal.receiver import VerificationError, verify

_OK = 204
_UNAUTHORIZED = 401


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a path answers with to a request that verifies. `retry_after` is in seconds."""

    status: int
    retry_after: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One request, in the order of their coming.

    `verified_by` holds the numbers of the secrets that verify it, each tried alone, counted from 1.
    """

    delivery_id: str | None
    verified_by: frozenset[int]
    status: int


@dataclass(slots=True, kw_only=True)
class _Path:
    scheme: Scheme = Scheme.STANDARD
    secrets: list[str] = field(default_factory=list)
    answers: Iterator[Answer] = field(default_factory=lambda: iter(()))
    arrivals: list[Arrival] = field(default_factory=list)


class Receiver:
    """Listens on 127.0.0.1. Each path has its own secrets; what none of them verifies is answered with 401."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._paths: dict[str, _Path] = {}
        self._arrived = asyncio.Condition()
        self.base_url = ""

    def expect(self, path: str, secret: str, scheme: Scheme = Scheme.STANDARD) -> None:
        """Verify what comes to this path in this scheme, and with that secret too from now on."""
        expected = self._path(path)
        expected.scheme = scheme
        expected.secrets.append(secret)

    def answer(self, path: str, answers: Iterable[Answer]) -> None:
        """Answer with these, one for each request that verifies, and with 204 once they are used up."""
        self._path(path).answers = iter(answers)

    def arrivals(self, path: str) -> Sequence[Arrival]:
        """Return every request to this path so far."""
        return tuple(self._path(path).arrivals)

    def verified(self, path: str) -> set[str | None]:
        """Return the ids of the deliveries that were verified at this path."""
        return {arrival.delivery_id for arrival in self._path(path).arrivals if arrival.verified_by}

    def refused(self, path: str) -> int:
        """Return how many requests to this path no secret verified."""
        return sum(not arrival.verified_by for arrival in self._path(path).arrivals)

    async def wait_until(self, holds: Callable[[], bool]) -> None:
        """Return once this holds; it is asked again after each request."""
        async with self._arrived:
            await self._arrived.wait_for(holds)

    async def receive(self, request: web.Request) -> web.Response:
        """Answer what the path was told to if a secret verifies the request, 401 if none does."""
        path = self._path(request.path)
        body = await request.read()
        verified_by = frozenset(
            number
            for number, secret in enumerate(path.secrets, 1)
            if self._verifies(path.scheme, secret, body, request.headers)
        )
        answer = next(path.answers, Answer(status=_OK)) if verified_by else Answer(status=_UNAUTHORIZED)
        delivery_id = request.headers.get(_id_header(path.scheme))
        async with self._arrived:
            path.arrivals.append(Arrival(delivery_id=delivery_id, verified_by=verified_by, status=answer.status))
            self._arrived.notify_all()
        asked = {} if answer.retry_after is None else {"retry-after": str(answer.retry_after)}
        return web.Response(status=answer.status, headers=asked)

    def _path(self, path: str) -> _Path:
        return self._paths.setdefault(path, _Path())

    def _verifies(self, scheme: Scheme, secret: str, body: bytes, headers: Mapping[str, str]) -> bool:
        try:
            match scheme:
                case Scheme.STANDARD:
                    Webhook(secret).verify(body, dict(headers))
                    return True
                case Scheme.X_WEBHOOK:
                    return verify(body, headers, [secret], now=self._clock.now()).scheme is scheme
                case _:
                    assert_never(scheme)
        # The public library lets a ValueError through for headers that are not of their form.
        except (WebhookVerificationError, VerificationError, ValueError):
            return False


def _id_header(scheme: Scheme) -> str:
    match scheme:
        case Scheme.STANDARD:
            return "webhook-id"
        case Scheme.X_WEBHOOK:
            return "x-webhook-delivery-id"
        case _:
            assert_never(scheme)


@asynccontextmanager
async def receiving(clock: Clock, port: int = 0) -> AsyncIterator[Receiver]:
    """Give a receiver that listens for the length of the block; port 0 takes a free one."""
    receiver = Receiver(clock)
    application = web.Application()
    application.router.add_post("/{path:.*}", receiver.receive)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        host, bound = runner.addresses[0][:2]
        receiver.base_url = f"http://{host}:{bound}"
        yield receiver
    finally:
        await runner.cleanup()
