"""A receiver on this machine that verifies with the secrets that it currently has, or answers a fixed status."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from hookseal.receiver import VerificationError, verify
from tests.doubles.serving import serving


@dataclass
class Switching:
    """Answers 204 if one of `secrets` signed the request and else 401, or always the status `always`."""

    url: str = ""
    secrets: list[str] = field(default_factory=list)
    always: int | None = None
    received: list[tuple[dict[str, str], bytes, int]] = field(default_factory=list)

    async def serve(self, request: web.Request) -> web.Response:
        """Answer one request, and store it with the status."""
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
