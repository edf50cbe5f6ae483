"""A receiver that verifies requests, answers as configured, and records what it received.

It verifies the scheme `standard` with the public `standardwebhooks` library, and `x-webhook`, which has
no public library, with the verifier of hookseal.
"""

import asyncio
import base64
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import assert_never

from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from hookseal.demo.sink import served
from hookseal.ground.clock import Clock
from hookseal.ground.wire import Scheme
from hookseal.receiver import VerificationError, verify

_OK = 204
_UNAUTHORIZED = 401
_SECRET_BYTES = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer of a path to a request that verifies. `retry_after` is in seconds."""

    status: int
    retry_after: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One received request.

    `verified_by` has the numbers of the secrets that verify it, each tried separately, counted from 1.
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
    """Listens on 127.0.0.1. Each path has its own secrets; a request that none of them verifies is answered 401."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._paths: dict[str, _Path] = {}
        self._arrived = asyncio.Condition()
        self.base_url = ""

    def expect(self, path: str, secret: str, scheme: Scheme = Scheme.STANDARD) -> None:
        """Verify requests to this path in this scheme, and with this secret in addition to earlier ones."""
        expected = self._path(path)
        expected.scheme = scheme
        expected.secrets.append(secret)

    def expect_another(self, path: str) -> str:
        """Return a new secret that requests to this path may be signed with as well."""
        secret = "whsec_" + base64.b64encode(os.urandom(_SECRET_BYTES)).decode("ascii")
        self.expect(path, secret, self._path(path).scheme)
        return secret

    def answer(self, path: str, answers: Iterable[Answer]) -> None:
        """Answer the next verified requests with these, one each, and later ones with 204."""
        self._path(path).answers = iter(answers)

    def arrivals(self, path: str) -> Sequence[Arrival]:
        """Return every request to this path so far."""
        return tuple(self._path(path).arrivals)

    def verified(self, path: str) -> set[str | None]:
        """Return the ids of the deliveries that were verified at this path."""
        return {arrival.delivery_id for arrival in self._path(path).arrivals if arrival.verified_by}

    def refused(self, path: str) -> int:
        """Return the number of requests to this path that no secret verified."""
        return sum(not arrival.verified_by for arrival in self._path(path).arrivals)

    async def wait_until(self, holds: Callable[[], bool]) -> None:
        """Return once the condition holds; it is checked after each request."""
        async with self._arrived:
            await self._arrived.wait_for(holds)

    async def receive(self, request: web.Request) -> web.Response:
        """Answer as the path is configured if a secret verifies the request, else 401."""
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
        headers = {} if answer.retry_after is None else {"retry-after": str(answer.retry_after)}
        return web.Response(status=answer.status, headers=headers)

    def _path(self, path: str) -> _Path:
        return self._paths.setdefault(path, _Path())

    def _verifies(self, scheme: Scheme, secret: str, body: bytes, headers: Mapping[str, str]) -> bool:
        try:
            match scheme:
                case Scheme.STANDARD:
                    Webhook(secret).verify(body, dict(headers))
                    return True
                case Scheme.SVIX | Scheme.X_WEBHOOK:
                    return verify(body, headers, [secret], now=self._clock.now()).scheme is scheme
                case _:
                    assert_never(scheme)
        # The public library raises ValueError for malformed headers.
        except (WebhookVerificationError, VerificationError, ValueError):
            return False


def _id_header(scheme: Scheme) -> str:
    match scheme:
        case Scheme.STANDARD:
            return "webhook-id"
        case Scheme.SVIX:
            return "svix-id"
        case Scheme.X_WEBHOOK:
            return "x-webhook-delivery-id"
        case _:
            assert_never(scheme)


@asynccontextmanager
async def run_receiver(clock: Clock, port: int = 0) -> AsyncIterator[Receiver]:
    """Run a receiver for the length of the block; port 0 picks a free one. Raises `Unavailable` as `served` does."""
    receiver = Receiver(clock)
    application = web.Application()
    application.router.add_post("/{path:.*}", receiver.receive)
    async with served(application, port) as receiver.base_url:
        yield receiver
