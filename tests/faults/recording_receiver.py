"""The receiver of the fault suite, which keeps of every request what the books need, and can misbehave."""

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
class Seen:
    """One request: its delivery, attempt, contents and time. `answered` is None until it is answered."""

    delivery_id: str
    attempt: int
    path: str
    digest: bytes
    is_verified: bool
    at: float
    answered: int | None = None


Answer = Callable[[Seen], Awaitable[int]]


async def at_once(_seen: Seen) -> int:
    """Answer 204 at once."""
    return 204


def held(until: asyncio.Event) -> Answer:
    """Answer 204 when the event is set."""

    async def answer(_seen: Seen) -> int:
        await until.wait()
        return 204

    return answer


def slowly(seconds: float) -> Answer:
    """Answer 204 after that time."""

    async def answer(_seen: Seen) -> int:
        await asyncio.sleep(seconds)  # a slow receiver is the purpose
        return 204

    return answer


def failing_first(times: int = 1, status: int = 404) -> Answer:
    """Answer the first attempts of every delivery with that status, and later ones with 204.

    A 404 is tried again and opens no breaker, which ten answers 503 in a row would.
    """

    async def answer(seen: Seen) -> int:
        return status if seen.attempt <= times else 204

    return answer


class Witness:
    """Keeps every request in `seen`; `answer` may be changed at any time, `secrets` has the secret of each path."""

    def __init__(self) -> None:
        self.base_url = ""
        self.seen: list[Seen] = []
        self.secrets: dict[str, str] = {}
        self.answer: Answer = at_once
        self._arrived = asyncio.Condition()

    async def serve(self, request: web.Request) -> web.Response:
        """Keep a request and answer it."""
        body = await request.read()
        seen = Seen(
            delivery_id=request.headers["webhook-id"],
            attempt=int(request.headers["x-hookseal-attempt"]),
            path=request.path,
            digest=sha256(body).digest(),
            is_verified=self._verified(request, body),
            at=time.time(),
        )
        async with self._arrived:
            self.seen.append(seen)
            self._arrived.notify_all()
        status = await self.answer(seen)
        seen.answered = status
        return web.Response(status=status)

    async def wait_for(self, requests: int, *, within: float = PATIENCE_SECONDS) -> list[Seen]:
        """Return all requests so far, when there are that many. Raises `TimeoutError`."""
        async with asyncio.timeout(within), self._arrived:
            await self._arrived.wait_for(lambda: len(self.seen) >= requests)
        return self.seen

    def of(self, delivery_id: str) -> list[Seen]:
        """Return the requests of one delivery, in the order of their arrival."""
        return [seen for seen in self.seen if seen.delivery_id == delivery_id]

    def _verified(self, request: web.Request, body: bytes) -> bool:
        try:
            proven = verify(body, request.headers, [self.secrets[request.path]], now=time.time())
        except (VerificationError, KeyError):
            return False
        return proven.delivery_id == request.headers["webhook-id"]


@asynccontextmanager
async def witnessing() -> AsyncIterator[Witness]:
    """Yield a receiver that listens on this machine."""
    witness = Witness()
    async with serving(witness.serve) as witness.base_url:
        yield witness
