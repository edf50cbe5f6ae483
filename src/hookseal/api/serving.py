"""Serves the API alone: `hookseal api`. Opens what it needs, answers until a signal, and ends what was begun."""

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TextIO, cast

import uvicorn
from prometheus_client import Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hookseal.admin.admin import Admin
from hookseal.api.application import CALL, PAGE, app
from hookseal.api.calls import CALLS
from hookseal.api.connections import IDLE_SECONDS, Connections
from hookseal.client.publisher import Publisher
from hookseal.config.load import freeze_objects, raise_descriptor_limit
from hookseal.config.settings import Settings
from hookseal.errors import Defect
from hookseal.ground.clock import Clock, SystemClock
from hookseal.ground.log import logger
from hookseal.worker.health import Opening, Probes, on_port
from hookseal.worker.listening import BACKLOG, of_the_api, url_of
from hookseal.worker.metrics.runtime import Figures, Kind, Metric
from hookseal.worker.stopping import on_stop, print_ready
from hookseal.worker.tracing import tracer_provider

_GONE: Final = 499  # the client has gone before it was answered
_NO_CALL: Final = "none"  # the label of a request for a path or a method that nothing serves

REQUESTS: Final = Metric(
    name="hookseal_api_requests_total",
    kind=Kind.COUNTER,
    text="Requests that were answered, by call and by the class of their status.",
    labels={"call": (*(call.name for call in CALLS), PAGE, _NO_CALL), "status": ("2xx", "4xx", "5xx")},
)
DURATION: Final = Metric(
    name="hookseal_api_request_seconds",
    kind=Kind.HISTOGRAM,
    text="How long requests took, from their head to the end of their answer.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
PUBLISH_DURATION: Final = Metric(
    name="hookseal_api_publish_seconds",
    kind=Kind.HISTOGRAM,
    text="Duration of a statement that publishes the messages that came together, also if it fails.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
PUBLISHED: Final = Metric(
    name="hookseal_api_published_total",
    kind=Kind.COUNTER,
    text="Messages that these statements were to publish.",
)
METRICS: Final = (REQUESTS, DURATION, PUBLISH_DURATION, PUBLISHED)


async def run(
    settings: Settings,
    *,
    extended: Callable[[Admin, ASGIApp], ASGIApp] = lambda _admin, api: api,
    output: TextIO = sys.stdout,
    clock: Clock | None = None,
    opening: Opening | None = None,
    server: socket.socket | None = None,
) -> None:
    """Serve the API until SIGTERM or SIGINT; afterwards every request that was begun has been answered.

    `extended` returns what is served in its place: the API and the pages. It prints one line on `output` once it is
    ready. It accepts the connections of `server`, by default of a socket of its own, and its probes answer on the port
    of the settings, unless `opening` makes them reachable in another way. Raises `Unavailable`, `ConfigError`,
    `Refused` or a `SecretError` if it cannot start.
    """
    clock = clock or SystemClock()
    stop = asyncio.Event()
    on_stop(stop.set)
    raise_descriptor_limit()
    log: Any = logger()
    instance = f"{socket.gethostname()}-{os.getpid()}"
    async with (
        tracer_provider(settings, service="hookseal-api", instance=instance, log=log) as provider,
        Admin.opened(settings) as admin,
        Publisher.opened(settings, tracer_provider=provider) as publisher,
    ):
        await admin.check()
        meter = Meter(clock)
        publisher.measure(meter.published)
        api = app(
            admin,
            publisher,
            scheme=settings.api.scheme,
            origins=settings.api.origins,
            rate=settings.api.rate,
            clock=clock,
        )
        probes = Probes(ready={"postgresql": admin.check}, startup={}, loops=(), scrape=meter.scrape)
        freeze_objects()
        listening_on = server or of_the_api(settings)
        port, health_url = await (opening or on_port(settings.health))(probes, meter)
        try:
            await _serve(settings, meter.counting(extended(admin, api)), probes, stop, output, listening_on, health_url)
        finally:
            await port.close()
        log.info("api.stopped")


async def _serve(
    settings: Settings,
    api: ASGIApp,
    probes: Probes,
    stop: asyncio.Event,
    output: TextIO,
    listening_on: socket.socket,
    health_url: str,
) -> None:
    log: Any = logger()
    server = _Server(_config(api, drain_seconds=settings.worker.drain_seconds))
    serving = asyncio.create_task(server.serve([listening_on]), name="api")
    started, stopped = asyncio.create_task(server.ready.wait()), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({serving, started}, return_when=asyncio.FIRST_COMPLETED)
        if started.done():
            facts = {"pid": os.getpid(), "url": url_of(listening_on), "health_url": health_url}
            print_ready(output, facts, event="api.ready")
            log.info("api.ready", **facts)
            await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not stop.is_set():
            raise Defect("the server of the API ended by itself")
        probes.draining = True
        log.info("api.draining")
    finally:
        server.should_exit = True
        started.cancel()
        stopped.cancel()
        await asyncio.gather(serving, started, stopped, return_exceptions=True)


def _config(api: ASGIApp, *, drain_seconds: int) -> uvicorn.Config:
    return uvicorn.Config(
        cast("Any", api),
        http=cast("Any", Connections()),
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=drain_seconds,
    )


class _Server(uvicorn.Server):
    """The server, which leaves signals to `on_stop`. `ready` is set once it accepts connections."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready: Final = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none: a handler of uvicorn would raise the signal again after the drain."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections."""
        await super().startup(sockets)
        self.ready.set()


class Meter(Figures):
    """Counts requests, statements that publish, and their time."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._requests = Counter(REQUESTS.name, REQUESTS.text, tuple(REQUESTS.labels), registry=self._registry)
        self._duration = self._histogram(DURATION)
        self._publishing = self._histogram(PUBLISH_DURATION)
        self._published = Counter(PUBLISHED.name, PUBLISHED.text, registry=self._registry)
        for call in REQUESTS.labels["call"]:  # they begin at zero, so that Prometheus sees the first increase, too
            for status in REQUESTS.labels["status"]:
                self._requests.labels(call, status)

    def _histogram(self, metric: Metric) -> Histogram:
        return Histogram(metric.name, metric.text, buckets=metric.buckets, registry=self._registry)

    def published(self, seconds: float, messages: int) -> None:
        """Count a statement that took so long to publish so many messages."""
        self._publishing.observe(seconds)
        self._published.inc(messages)

    def counting(self, api: ASGIApp) -> ASGIApp:
        """Return the application, whose requests are counted."""

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            began, status = self._clock.monotonic(), _GONE

            async def noted(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                await send(message)

            try:
                await api(scope, receive, noted)
            except Exception:
                status = 500
                raise
            finally:
                self._requests.labels(scope.get(CALL, _NO_CALL), f"{status // 100}xx").inc()
                self._duration.observe(self._clock.monotonic() - began)

        return counted
