"""The receiver of the fault suite, which records every request, and answers as a test wants."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256

from aiohttp import web

from hookseal.receiver import VerificationError, verify
from tests.doubles.serving import serving

PATIENCE_SECONDS = 60.0


@dataclass(slots=True, kw_only=True)
class ReceivedRequest:
    """One request: its delivery, attempt, contents and time. `answered` is the status, None until it is answered."""

    delivery_id: str
    attempt: int
    path: str
    digest: bytes
    is_verified: bool
    at: float
    answered: int | None = None


Answer = Callable[[ReceivedRequest], Awaitable[int]]


async def at_once(_request: ReceivedRequest) -> int:
    """Answer 204 at once."""
    return 204


def slowly(seconds: float) -> Answer:
    """Answer 204 after that time."""

    async def answer(_request: ReceivedRequest) -> int:
        await asyncio.sleep(seconds)  # a slow receiver is the purpose
        return 204

    return answer


def failing_first(times: int = 1, status: int = 404) -> Answer:
    """Answer the first attempts of every delivery with that status, and later ones with 204.

    A 404 is retried and opens no breaker; ten answers 503 in a row would open it.
    """

    async def answer(request: ReceivedRequest) -> int:
        return status if request.attempt <= times else 204

    return answer


class RecordingReceiver:
    """Records `requests`; `answer` may be changed at any time, `secrets` has the secret of each path."""

    def __init__(self) -> None:
        self.base_url = ""
        self.requests: list[ReceivedRequest] = []
        self.secrets: dict[str, str] = {}
        self.answer: Answer = at_once
        self._arrived = asyncio.Condition()

    async def serve(self, request: web.Request) -> web.Response:
        """Record a request and answer it."""
        body = await request.read()
        received = ReceivedRequest(
            delivery_id=request.headers["webhook-id"],
            attempt=int(request.headers["x-hookseal-attempt"]),
            path=request.path,
            digest=sha256(body).digest(),
            is_verified=self._verified(request, body),
            at=time.time(),
        )
        async with self._arrived:
            self.requests.append(received)
            self._arrived.notify_all()
        status = await self.answer(received)
        received.answered = status
        return web.Response(status=status)

    async def wait_for(self, requests: int, *, within: float = PATIENCE_SECONDS) -> list[ReceivedRequest]:
        """Return all requests so far, when there are that many. Raises `TimeoutError`."""
        async with asyncio.timeout(within), self._arrived:
            await self._arrived.wait_for(lambda: len(self.requests) >= requests)
        return self.requests

    def of(self, delivery_id: str) -> list[ReceivedRequest]:
        """Return the requests of one delivery, in the order of their arrival."""
        return [each for each in self.requests if each.delivery_id == delivery_id]

    def _verified(self, request: web.Request, body: bytes) -> bool:
        try:
            verified = verify(body, request.headers, [self.secrets[request.path]], now=time.time())
        except (VerificationError, KeyError):
            return False
        return verified.delivery_id == request.headers["webhook-id"]


@asynccontextmanager
async def recording_receiver() -> AsyncIterator[RecordingReceiver]:
    """Yield a receiver that listens on this machine."""
    receiver = RecordingReceiver()
    async with serving(receiver.serve) as receiver.base_url:
        yield receiver
