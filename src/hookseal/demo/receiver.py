"""A receiver that verifies with the public `standardwebhooks` library, and remembers what it got."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError


class Receiver:
    """Listens on 127.0.0.1; each path has its own secret. Counts by path what verified and what did not."""

    def __init__(self) -> None:
        self._secrets: dict[str, str] = {}
        self._arrived = asyncio.Condition()
        self.verified: dict[str, set[str]] = {}
        self.refused: Counter[str] = Counter()
        self.repeated: Counter[str] = Counter()
        self.base_url = ""

    def expect(self, path: str, secret: str) -> None:
        """Verify what comes to this path with that secret from now on."""
        self._secrets[path] = secret
        self.verified.setdefault(path, set())

    async def wait_for(self, count: int) -> None:
        """Return once that many requests verified, all paths together."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: sum(map(len, self.verified.values())) >= count)

    async def receive(self, request: web.Request) -> web.Response:
        """Answer 204 if the signature holds, 401 if not."""
        path = request.path
        body = await request.read()
        try:
            Webhook(self._secrets[path]).verify(body, dict(request.headers))
        except (KeyError, WebhookVerificationError):
            self.refused[path] += 1
            return web.Response(status=401)
        webhook_id = request.headers["webhook-id"]
        if webhook_id in self.verified[path]:
            self.repeated[path] += 1
        async with self._arrived:
            self.verified[path].add(webhook_id)
            self._arrived.notify_all()
        return web.Response(status=204)


@asynccontextmanager
async def receiving(port: int = 0) -> AsyncIterator[Receiver]:
    """Give a receiver that listens for the length of the block; port 0 takes a free one."""
    receiver = Receiver()
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
