"""A proxy between a client and an HTTP server of a provider, which answers in its place, hangs, or alters answers."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import aiohttp
from aiohttp import web

_HOP: Final = frozenset({"connection", "content-encoding", "content-length", "transfer-encoding"})


class Silence(StrEnum):
    """How the proxy fails without an answer."""

    HANG = "hang"
    RESET = "reset"
    SLOW = "slow"
    CUT = "cut"


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """An answer in place of the server's."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"


@dataclass(frozen=True, kw_only=True)
class AlteredAnswer:
    """The answer of the server, with its body changed."""

    change: Callable[[bytes], bytes]


@dataclass(frozen=True, kw_only=True)
class LateAnswer:
    """The answer of the server, which has it at once (`received`) and gives it when `released` is set."""

    received: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)


def aws_refusal(code: str, status: int = 400) -> Refusal:
    body = json.dumps({"__type": code, "message": "do not show me"}).encode()
    return Refusal(status=status, body=body, content_type="application/x-amz-json-1.1")


Fault = Silence | Refusal | AlteredAnswer | LateAnswer


class FaultyProxy:
    """Passes requests on, or does what `fault` says. `requests` counts all of them.

    With `only`, the fault is for requests whose path, or whose call of AWS, ends with it.
    """

    def __init__(self, target: str, session: aiohttp.ClientSession) -> None:
        self._target = target
        self._session = session
        self._ended = asyncio.Event()
        self.fault: Fault | None = None
        self.only = ""
        self.requests = 0
        self.bodies: list[bytes] = []
        self.paths: list[str] = []
        self.headers: list[Mapping[str, str]] = []
        self.url = ""

    def end(self) -> None:
        self._ended.set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        body = await request.read()
        self.bodies.append(body)
        self.headers.append(request.headers)
        self.paths.append(request.path)
        called = request.headers.get("X-Amz-Target", request.path)
        match self.fault if called.endswith(self.only) else None:
            case Refusal() as refusal:
                return web.Response(status=refusal.status, body=refusal.body, content_type=refusal.content_type)
            case Silence.RESET:
                if request.transport is not None:
                    request.transport.abort()
                return web.Response()
            case Silence.CUT:
                cut = web.StreamResponse(headers={"Content-Length": "1000"})
                await cut.prepare(request)
                await cut.write(b'{"a": "')
                if request.transport is not None:
                    request.transport.abort()
                return cut
            case Silence.HANG:
                await self._ended.wait()
                return web.Response()
            case Silence.SLOW:
                slow = web.StreamResponse(headers={"Content-Length": "100"})
                await slow.prepare(request)
                await slow.write(b"{")
                await self._ended.wait()
                return slow
            case LateAnswer() as late:
                answer = await self._forward(request, body, None)
                late.received.set()
                await late.released.wait()
                return answer
            case fault:
                return await self._forward(request, body, fault)

    async def _forward(self, request: web.Request, body: bytes, fault: AlteredAnswer | None) -> web.Response:
        async with self._session.request(
            request.method, self._target + request.path_qs, data=body, headers=request.headers
        ) as answer:
            content = await answer.read()
            headers = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
            headers["Content-Type"] = answer.headers.get("Content-Type", "application/json")
        return web.Response(
            status=answer.status, body=content if fault is None else fault.change(content), headers=headers
        )


@asynccontextmanager
async def faulty_proxy(target: str) -> AsyncIterator[FaultyProxy]:
    """Run a proxy before the server at this url."""
    async with aiohttp.ClientSession() as session:
        proxy = FaultyProxy(target, session)
        app = web.Application(client_max_size=1_000_000)
        app.router.add_route("*", "/{path:.*}", proxy.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        proxy.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield proxy
        finally:
            proxy.end()
            await runner.cleanup()
