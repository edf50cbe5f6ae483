"""A receiver on this machine that verifies with the secrets it knows at the moment, and can be made to misbehave."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from hookseal.receiver import VerificationError, verify
from tests.doubles.serving import serving


@dataclass
class Switching:
    """Answers 204 to what one of `secrets` signed and 401 to the rest, or what `always` says to everything."""

    url: str = ""
    secrets: list[str] = field(default_factory=list)
    always: int | None = None
    received: list[tuple[dict[str, str], bytes, int]] = field(default_factory=list)

    async def serve(self, request: web.Request) -> web.Response:
        """Keep the request with what it is answered, and answer it."""
        body = await request.read()
        status = self.always or self._judged(body, dict(request.headers))
        self.received.append(({name.lower(): value for name, value in request.headers.items()}, body, status))
        return web.Response(status=status)

    def _judged(self, body: bytes, headers: dict[str, str]) -> int:
        try:
            verify(body, headers, self.secrets, now=time.time())
        except VerificationError:
            return 401
        return 204


@asynccontextmanager
async def switching() -> AsyncIterator[Switching]:
    """Yield a receiver that listens for the length of the block."""
    receiver = Switching()
    async with serving(receiver.serve) as url:
        receiver.url = f"{url}/hook"
        yield receiver
