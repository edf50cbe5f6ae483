"""The probes: whether this process is alive, has started, and can work.

Names and states only, never the text of an error; since when and why no outcome can be recorded; and the ids of
endpoints whose rows were changed without an audit row. The log has the text: once when a check begins to fail, when its
reason changes, and when it passes again.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol, TypeAlias

import msgspec

from hookseal.config.settings import Health
from hookseal.errors import HooksealError, SecretDenied, SecretError, Unavailable, with_advice
from hookseal.ground.log import logger
from hookseal.worker.listening import url_of
from hookseal.worker.metrics.runtime import Figures
from hookseal.worker.periodic import Passes, retrieve_exception

MOST_CONNECTIONS: Final = 64
CONNECTION_SECONDS: Final = 10.0  # to ask, and to be answered
_HEAD_BYTES: Final = 16_384
_WAITING: Final = 64  # connections that the system queues until they are accepted
_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
_PLAIN: Final = "text/plain; charset=utf-8"
_JSON: Final = "application/json; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The answer to a request."""

    status: int
    body: bytes = b""
    content_type: str = _PLAIN


# Takes a path without its query, and the value of the header `Accept`; returns None if there is no such path.
Answers = Callable[[str, str], Awaitable[Reply | None]]


class Closing(Protocol):
    """An object that is closed once."""

    async def close(self) -> None:
        """End it."""
        ...


class Port:
    """Answers each connection once, within ten seconds, and 64 at a time.

    One more closes the oldest connection of the address that has most: a client that opens many cannot shut out others.
    """

    def __init__(self, answers: Answers, *, most: int = MOST_CONNECTIONS, seconds: float = CONNECTION_SECONDS) -> None:
        self._answers = answers
        self._most = most
        self._seconds = seconds
        self._open: dict[asyncio.Task[None], str] = {}  # the oldest first, each with the address it came from
        self._ending: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._log: Any = logger()

    async def serve(self, host: str, port: int) -> str:
        """Listen until `close`, and return the base url. Raises `Unavailable`."""
        try:
            self._server = await asyncio.start_server(self._serve, host, port, limit=_HEAD_BYTES, backlog=_WAITING)
        except OSError as error:
            raise Unavailable(
                f"the probes cannot listen on {host}:{port} ({type(error).__name__}): "
                "free the port or set HOOKSEAL_HEALTH_PORT"
            ) from None
        return url_of(self._server.sockets[0])

    async def close(self) -> None:
        """Stop listening, and close every connection."""
        if self._server is not None:
            self._server.close()
        tasks = [*self._open, *self._ending]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._connection(reader, writer))
        self._open[task] = str((writer.get_extra_info("peername") or ("",))[0])
        task.add_done_callback(partial(self._ended, writer))
        if len(self._open) > self._most:
            self._end_one()

    def _end_one(self) -> None:
        [(crowd, _)] = Counter(self._open.values()).most_common(1)
        task = next(task for task, address in self._open.items() if address == crowd)
        del self._open[task]  # now, because more connections may come before it has ended
        self._ending.add(task)
        task.cancel()

    def _ended(self, writer: asyncio.StreamWriter, task: asyncio.Task[None]) -> None:
        writer.transport.abort()  # here, because a task that is cancelled before it begins runs none of its code
        self._open.pop(task, None)
        self._ending.discard(task)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                writer.write(await self._answer(await reader.readuntil(b"\r\n\r\n")))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # a client that sends too slowly, too much or nothing gets no answer

    async def _answer(self, request: bytes) -> bytes:
        """Return the answer to a request; one to HEAD has no body."""
        line, *lines = request.decode("latin-1").split("\r\n")
        words = line.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):  # noqa: PLR2004 -- method, path and version
            return _encoded(Reply(status=400))
        method, target, _ = words
        if method not in {"GET", "HEAD"}:
            return _encoded(Reply(status=405))
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        reply = await self._reply(target.partition("?")[0], headers.get("accept", ""))
        return _encoded(reply, with_body=method == "GET")

    async def _reply(self, path: str, accept: str) -> Reply:
        try:
            return await self._answers(path, accept) or Reply(status=404)
        except Exception:  # noqa: BLE001 -- it is logged, and the port goes on
            self._log.exception("probe.defect")
            return Reply(status=500)


def _encoded(reply: Reply, *, with_body: bool = True) -> bytes:
    body = reply.body or f"{reply.status} {_REASONS[reply.status]}\n".encode()
    head = (
        f"HTTP/1.1 {reply.status} {_REASONS[reply.status]}\r\nContent-Type: {reply.content_type}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (body if with_body else b"")


Check = Callable[[], Coroutine[object, object, object]]
CHECK_SECONDS: Final = 1.0
SCRAPE_SECONDS: Final = 0.6  # the same during a scrape, which ends within a second
BEAT_SECONDS: Final = 30.0  # a loop that has ended no pass for this long is stuck


async def _none() -> list[dict[str, str]]:
    return []


class Probes:
    """Answers `/livez`, `/startupz` and `/readyz` (also as `/healthz`), in JSON, with 200 or 503, and `/metrics`.

    `ready` has a check for each dependency, and `startup` the checks of a start; each check has one second, in a scrape
    0.6 s. `loops` are the loops without which nothing is sent. `scrape` returns the figures in the format of an
    `Accept` header. What `unrecorded` and `unaudited` return is in the answer of `/readyz`, unless it is None or empty.
    An endpoint in `unaudited` makes no worker unready, since all others are served.
    """

    def __init__(
        self,
        *,
        ready: Mapping[str, Check],
        startup: Mapping[str, Check],
        loops: Sequence[Passes],
        scrape: Callable[[str], tuple[bytes, str]],
        unrecorded: Callable[[], dict[str, str | int] | None] = lambda: None,
        unaudited: Callable[[], Awaitable[list[dict[str, str]]]] = _none,
    ) -> None:
        self._ready = ready
        self._startup = startup
        self._loops = loops
        self._scrape = scrape
        self.unrecorded = unrecorded
        self.unaudited = unaudited
        self._states: dict[str, str] = {}
        self._running: dict[Check, asyncio.Task[object]] = {}
        self._log: Any = logger()
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

    async def ready_states(self, seconds: float = CHECK_SECONDS) -> dict[str, str]:
        """Return the state of each dependency now; one whose check takes longer than `seconds` is a timeout."""
        self._states = await self._asked(self._ready, seconds)
        return self._states

    async def startup_states(self) -> dict[str, str]:
        """Return whether the schema and the keys still fit those with which this worker started."""
        return await self._asked(self._startup)

    async def answer(self, path: str, accept: str) -> Reply | None:
        """Answer a probe or a scrape of Prometheus; None if there is no such path."""
        match path:
            case "/livez":
                return self._live()
            case "/readyz" | "/healthz":
                return await self._ready_now()
            case "/startupz":
                states = await self.startup_states()
                ok = _all_ok(states)
                return answer({"status": "ok" if ok else "unavailable", "checks": states}, ok=ok)
            case "/metrics":
                await self.ready_states(SCRAPE_SECONDS)  # every dependency is checked for it
                body, content_type = self._scrape(accept)
                return Reply(status=200, body=body, content_type=content_type)
            case _:
                return None

    def _live(self) -> Reply:
        """Answer whether the loops of this process run, and which do not; dependencies do not count."""
        if stuck := self.stuck:
            return answer({"status": "stuck", "loops": stuck}, ok=False)
        return answer({"status": "ok"}, ok=True)

    async def _ready_now(self) -> Reply:
        """Answer whether every dependency is available and this worker does not drain."""
        states, unaudited = await asyncio.gather(self.ready_states(), self.unaudited())
        ok = _all_ok(states) and not self.draining
        status = "draining" if self.draining else "ok" if ok else "unavailable"
        unrecorded = self.unrecorded()
        more: dict[str, Any] = {} if unrecorded is None else {"unrecorded": unrecorded}
        if unaudited:
            more["unaudited"] = unaudited
        return answer({"status": status, "checks": states} | more, ok=ok)

    def readiness(self) -> dict[str, float]:
        """Return 1 for each dependency whose last check passed, else 0."""
        return {name: float(self._states.get(name) == "ok") for name in self._ready}

    async def _asked(self, checks: Mapping[str, Check], seconds: float = CHECK_SECONDS) -> dict[str, str]:
        results = await asyncio.gather(*(self._state(name, check, seconds) for name, check in checks.items()))
        return dict(zip(checks, results, strict=True))

    async def _state(self, name: str, check: Check, seconds: float) -> str:
        """Return the state of one dependency. A check that hangs stays alone: no second one is started beside it."""
        task = self._running.get(check)
        if task is None or task.done():
            task = self._running[check] = asyncio.ensure_future(check())
            task.add_done_callback(retrieve_exception)
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            self._note(name, check, "no answer in time")
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

    async def serve(self, host: str, port: int) -> tuple[Port, str]:
        """Listen, and return the port, which the caller closes, with the base url. Raises `Unavailable`."""
        listening = Port(self.answer)
        return listening, await listening.serve(host, port)


# Makes the probes and figures reachable. Returns the object that ends this, and the url for the ready line.
Opening: TypeAlias = Callable[[Probes, Figures], Awaitable[tuple[Closing, str]]]


def on_port(health: Health) -> Opening:
    """Return what makes probes, and the figures of their `scrape`, reachable on this port."""

    async def opening(probes: Probes, _figures: Figures) -> tuple[Closing, str]:
        return await probes.serve(health.host, health.port)

    return opening


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


def answer(body: dict[str, Any], *, ok: bool) -> Reply:
    """Return the answer of a probe."""
    return Reply(status=200 if ok else 503, body=msgspec.json.encode(body), content_type=_JSON)
