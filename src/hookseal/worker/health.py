"""The probes: whether this process is alive, has started, and can work.

Names and states only, never the text of an error; and since when and why no outcome can be recorded. The log has the
text: once when a check begins to fail, when its reason changes, and when it passes again.
"""

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

import msgspec
import structlog
from aiohttp import web

from hookseal.errors import HooksealError, SecretDenied, SecretError, Unavailable, with_advice
from hookseal.worker.periodic import Passes, retrieve_exception

MOST_CONNECTIONS: Final = 64
CONNECTION_SECONDS: Final = 10.0  # to ask, and to be answered: a check takes a second
_WAITING: Final = 64  # connections that the system queues until they are accepted
_SHUTDOWN_SECONDS: Final = 1.0


class ProbePort:
    """Answers each connection once, within ten seconds, and 64 at a time.

    One more closes the oldest connection of the address that has most: a client that opens many cannot shut out others.
    """

    def __init__(self, *, most: int = MOST_CONNECTIONS, seconds: float = CONNECTION_SECONDS) -> None:
        self._most = most
        self.seconds = seconds
        self._open: defaultdict[str, OrderedDict[_Connection, None]] = defaultdict(OrderedDict)
        self._server: asyncio.Server | None = None
        self._runner: web.AppRunner | None = None

    async def serve(self, application: web.Application, host: str, port: int) -> tuple[str, int]:
        """Listen until `close`, and return the address and port. Raises `OSError`."""
        application.on_response_prepare.append(_once)
        self._runner = runner = web.AppRunner(application, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
        await runner.setup()
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                lambda: _Connection(runner.server, port=self, loop=loop, access_log=None),
                host,
                port,
                backlog=_WAITING,
            )
        except OSError:
            await self.close()
            raise
        bound: tuple[str, int] = self._server.sockets[0].getsockname()[:2]
        return bound

    async def close(self) -> None:
        """Stop listening, and close every connection."""
        if self._server is not None:
            self._server.close()
        if self._runner is not None:
            await self._runner.cleanup()

    def __len__(self) -> int:
        return sum(map(len, self._open.values()))

    def entered(self, connection: "_Connection") -> None:
        """Count a connection that was opened, and close another one if there are too many."""
        self._open[connection.address][connection] = None
        if len(self) > self._most:
            crowd = max(self._open.values(), key=len)
            next(iter(crowd)).end()

    def left(self, connection: "_Connection") -> None:
        """Stop counting a connection that has closed, or is about to."""
        here = self._open.get(connection.address)
        if here is not None and connection in here:
            del here[connection]
            if not here:
                del self._open[connection.address]


class _Connection(web.RequestHandler):
    """A connection that is counted and has a time limit."""

    def __init__(self, manager: Any, *, port: ProbePort, **options: Any) -> None:
        super().__init__(manager, **options)
        self._port = port
        self._end: asyncio.TimerHandle | None = None
        self.address = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection, and start its time limit."""
        super().connection_made(transport)
        self.address = str((transport.get_extra_info("peername") or ("",))[0])
        self._end = asyncio.get_running_loop().call_later(self._port.seconds, self.end)
        self._port.entered(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop counting the connection."""
        self._port.left(self)
        if self._end is not None:
            self._end.cancel()
        super().connection_lost(exc)

    def end(self) -> None:
        """Close the connection at once."""
        self._port.left(self)
        if self.transport is not None:
            self.transport.abort()


async def _once(_request: web.Request, response: web.StreamResponse) -> None:
    response.force_close()
    response.headers["Connection"] = "close"


Check = Callable[[], Coroutine[object, object, object]]
CHECK_SECONDS: Final = 1.0
BEAT_SECONDS: Final = 30.0  # a loop that has ended no pass for this long is stuck


class Probes:
    """Answers `/livez`, `/startupz` and `/readyz` (also as `/healthz`), in JSON, with 200 or 503, and `/metrics`.

    `ready` has a check for each dependency, and `startup` the checks of a start; each check has one second. `loops`
    are the loops without which nothing is sent. `scrape` returns the figures in the format of an `Accept` header. What
    `unrecorded` returns is in the answer of `/readyz`, unless it is None.
    """

    def __init__(
        self,
        *,
        ready: Mapping[str, Check],
        startup: Mapping[str, Check],
        loops: Sequence[Passes],
        scrape: Callable[[str], tuple[bytes, str]],
        unrecorded: Callable[[], dict[str, str | int] | None] = lambda: None,
    ) -> None:
        self._ready = ready
        self._startup = startup
        self._loops = loops
        self._scrape = scrape
        self.unrecorded = unrecorded
        self._states: dict[str, str] = {}
        self._running: dict[str, asyncio.Task[object]] = {}
        self._log: Any = structlog.get_logger()
        self._logged: dict[Check, str] = {}  # the reason for which it fails
        self.draining = False

    @property
    def moves(self) -> bool:
        """Whether the loops without which nothing is sent run."""
        return not self.stuck

    @property
    def stuck(self) -> list[str]:
        """The names of the loops that have ended no pass for 30 seconds. During a drain they stop on purpose: none."""
        return [] if self.draining else [each.name for each in self._loops if each.silence >= BEAT_SECONDS]

    async def ready_states(self) -> dict[str, str]:
        """Return the state of each dependency now."""
        self._states = await self._asked(self._ready)
        return self._states

    async def startup_states(self) -> dict[str, str]:
        """Return whether the schema and the keys still fit those with which this worker started."""
        return await self._asked(self._startup)

    async def live(self, _request: web.Request) -> web.Response:
        """Answer whether the loops of this process run, and which do not; dependencies do not count."""
        if stuck := self.stuck:
            return _answer({"status": "stuck", "loops": stuck}, ok=False)
        return _answer({"status": "ok"}, ok=True)

    async def ready(self, _request: web.Request) -> web.Response:
        """Answer whether every dependency is available and this worker does not drain."""
        states = await self.ready_states()
        ok = _all_ok(states) and not self.draining
        status = "draining" if self.draining else "ok" if ok else "unavailable"
        unrecorded = self.unrecorded()
        more = {} if unrecorded is None else {"unrecorded": unrecorded}
        return _answer({"status": status, "checks": states} | more, ok=ok)

    async def started(self, _request: web.Request) -> web.Response:
        """Answer whether the schema and the keys still fit those with which this worker started."""
        states = await self.startup_states()
        ok = _all_ok(states)
        return _answer({"status": "ok" if ok else "unavailable", "checks": states}, ok=ok)

    async def metrics(self, request: web.Request) -> web.Response:
        """Answer a scrape of Prometheus; every dependency is checked for it."""
        await self.ready_states()
        body, content_type = self._scrape(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    def readiness(self) -> dict[str, float]:
        """Return 1 for each dependency whose last check passed, else 0."""
        return {name: float(self._states.get(name) == "ok") for name in self._ready}

    async def _asked(self, checks: Mapping[str, Check]) -> dict[str, str]:
        results = await asyncio.gather(*(self._state(name, check) for name, check in checks.items()))
        return dict(zip(checks, results, strict=True))

    async def _state(self, name: str, check: Check) -> str:
        """Return the state of one dependency. A check that hangs stays alone: no second one is started beside it."""
        task = self._running.get(name)
        if task is None or task.done():
            task = self._running[name] = asyncio.ensure_future(check())
            task.add_done_callback(retrieve_exception)
        await asyncio.wait({task}, timeout=CHECK_SECONDS)
        if not task.done():
            self._note(name, check, f"no answer within {CHECK_SECONDS:g} s")
            return "timeout"
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        self._note(name, check, None if error is None else _reason(error))
        return "ok" if error is None else _word(error)

    def _note(self, name: str, check: Check, reason: str | None) -> None:
        if reason == self._logged.get(check):
            return
        if reason is None:
            del self._logged[check]
            self._log.info("check.passed", check=name)
        else:
            self._logged[check] = reason
            self._log.warning("check.failed", check=name, reason=reason)

    async def serve(self, host: str, port: int) -> tuple[ProbePort, str]:
        """Listen, and return the port, which the caller closes, with the base url. Raises `OSError`."""
        application = web.Application()
        application.router.add_get("/livez", self.live)
        application.router.add_get("/startupz", self.started)
        application.router.add_get("/readyz", self.ready)
        application.router.add_get("/healthz", self.ready)
        application.router.add_get("/metrics", self.metrics)
        listening = ProbePort()
        bound_host, bound_port = await listening.serve(application, host, port)
        return listening, f"http://{f'[{bound_host}]' if ':' in bound_host else bound_host}:{bound_port}"


def _word(error: BaseException) -> str:
    """Return the state of a check that failed with this error."""
    if isinstance(error, SecretError):
        return "denied" if isinstance(error, SecretDenied) else "refused"
    return error.cause.value if isinstance(error, Unavailable) else "unavailable"


def _reason(error: BaseException) -> str:
    """Return what the log may have of this error: the text of another library may contain credentials."""
    return with_advice(error) if isinstance(error, HooksealError) else type(error).__name__


def _all_ok(states: Mapping[str, str]) -> bool:
    return all(state == "ok" for state in states.values())


def _answer(body: dict[str, Any], *, ok: bool) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(body), status=200 if ok else 503, content_type="application/json", charset="utf-8"
    )
