"""Decides what the probes of the parent answer from the state of its processes. No I/O."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any, Final

_OK: Final = "ok"
_WORST_LAST: Final = (_OK, "timeout", "unavailable")  # any other word says why: it answers, and cannot


class Health(StrEnum):
    """The state of one process, as its parent sees it."""

    OK = "ok"
    STARTING = "starting"  # for the first time, or after it died
    WAITING = "waiting"  # it died, and is restarted after a pause
    SILENT = "silent"  # it did not answer within two seconds
    STUCK = "stuck"  # it answers, but takes no rings
    UNAVAILABLE = "unavailable"  # one of its checks fails
    DRAINING = "draining"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessState:
    """One process, and the results of its checks, if it was asked for them.

    `unrecorded` says since when and why it cannot record, if that is so.
    """

    health: Health
    states: Mapping[str, str] = field(default_factory=dict)
    unrecorded: Mapping[str, str | int] | None = None


Probed = tuple[bool, dict[str, Any]]


def live(seen: Mapping[int, Health], *, draining: bool) -> Probed:
    """Return the answer of `/livez`: always success, because the parent itself replaces stuck processes."""
    all_live = draining or all(health in {Health.OK, Health.UNAVAILABLE, Health.DRAINING} for health in seen.values())
    return True, {"status": _OK if all_live else "degraded", "processes": _named(seen)}


def ready(seen: Mapping[int, ProcessState], *, draining: bool) -> Probed:
    """Return the answer of `/readyz`: success only if every process is ready and the worker does not drain.

    It says why outcomes cannot be recorded by the process for which that has been so for longest.
    """
    return _all(seen, status="draining" if draining else None)


def started(seen: Mapping[int, ProcessState]) -> Probed:
    """Return the answer of `/startupz`: success only if the startup checks of every process pass."""
    return _all(seen, status=None)


def of_states(states: Mapping[str, str], *, draining: bool, moves: bool) -> Health:
    """Return the health of a process from its answer."""
    if draining:
        return Health.DRAINING
    if not moves:
        return Health.STUCK
    return Health.OK if all(state == _OK for state in states.values()) else Health.UNAVAILABLE


def _all(seen: Mapping[int, ProcessState], *, status: str | None) -> Probed:
    healthy = sum(each.health is Health.OK for each in seen.values())
    if status is None:
        status = _OK if healthy == len(seen) else "degraded" if healthy else "unavailable"
    body: dict[str, Any] = {
        "status": status,
        "checks": _worst(each.states for each in seen.values()),
        "processes": _named({number: each.health for number, each in seen.items()}),
    }
    if reports := [each.unrecorded for each in seen.values() if each.unrecorded is not None]:
        body["unrecorded"] = min(reports, key=lambda report: str(report["since"]))
    return status == _OK, body


def _named(seen: Mapping[int, Health]) -> dict[str, str]:
    return {str(number): health.value for number, health in sorted(seen.items())}


def _worst(parts: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return the worst result of each check over all processes."""
    worst: dict[str, str] = {}
    for states in parts:
        for name, state in states.items():
            worst[name] = max(worst.get(name, _OK), state, key=_badness)
    return worst


def _badness(state: str) -> int:
    return _WORST_LAST.index(state) if state in _WORST_LAST else len(_WORST_LAST)


MOST_CONNECTIONS: Final = 64
CONNECTION_SECONDS: Final = 10.0  # to ask, and to be answered
_HEAD_BYTES: Final = 16_384
_WAITING: Final = 64  # connections that the system queues until they are accepted
_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Service Unavailable",
}
_PLAIN: Final = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The answer to a request."""

    status: int
    body: bytes = b""
    content_type: str = _PLAIN


# Takes a path without its query, and the value of the header `Accept`; returns None if there is no such path.
Answers = Callable[[str, str], Awaitable[Reply | None]]


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

    async def serve(self, host: str, port: int) -> str:
        """Listen until `close`, and return the base url. Raises `OSError`."""
        self._server = await asyncio.start_server(self._serve, host, port, limit=_HEAD_BYTES, backlog=_WAITING)
        bound_host, bound_port = self._server.sockets[0].getsockname()[:2]
        return f"http://{f'[{bound_host}]' if ':' in bound_host else bound_host}:{bound_port}"

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
                writer.write(_written(await self._reply(await reader.readuntil(b"\r\n\r\n"))))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # a client that sends too slowly, too much or nothing gets no answer

    async def _reply(self, head: bytes) -> Reply:
        request, *lines = head.decode("latin-1").split("\r\n")
        words = request.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):  # noqa: PLR2004 -- method, path and version
            return Reply(status=400)
        if words[0] != "GET":
            return Reply(status=405)
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return await self._answers(words[1].partition("?")[0], headers.get("accept", "")) or Reply(status=404)


def _written(reply: Reply) -> bytes:
    body = reply.body or f"{reply.status} {_REASONS[reply.status]}\n".encode()
    head = (
        f"HTTP/1.1 {reply.status} {_REASONS[reply.status]}\r\nContent-Type: {reply.content_type}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
